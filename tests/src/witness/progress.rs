//! How far it is: a bar on a terminal, plain lines elsewhere. On standard error, so that the report stays clean.

use std::{
    convert::Infallible,
    io::IsTerminal,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::interval;

use super::clients::Counters;

const TEMPLATE: &str = "{bar:40} {pos}/{len} s, {prefix}, {msg}";
/// Without a terminal there is one line in so many seconds.
const LINE_EVERY: u64 = 10;

/// The progress of orders over so many seconds.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    counters: Arc<Counters>,
}

impl Progress {
    pub(crate) fn new(seconds: u64, counters: Arc<Counters>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(seconds).with_style(style).with_message("no fault yet")
        });
        Self { bar, counters }
    }

    /// What is shown beside the bar from now on.
    pub(crate) fn tell(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        }
    }

    fn orders(&self) -> String {
        format!("{} orders", self.counters.acknowledged.load(Ordering::Relaxed))
    }

    /// Shows it, second by second.
    pub(crate) async fn show(&self) -> Infallible {
        let mut ticks = interval(Duration::from_secs(1));
        let mut seconds = 0;
        loop {
            ticks.tick().await;
            match &self.bar {
                Some(bar) => {
                    bar.set_prefix(self.orders());
                    bar.set_position(seconds);
                }
                None if seconds % LINE_EVERY == 0 && seconds > 0 => eprintln!("{seconds} s, {}", self.orders()),
                None => {}
            }
            seconds += 1;
        }
    }
}
