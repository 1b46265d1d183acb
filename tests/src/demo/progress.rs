//! How far the demo is: a bar on a terminal, plain lines elsewhere. On standard error, so that the report stays clean.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

const TEMPLATE: &str = "{bar:40} {pos}/{len} orders, {per_sec}, {msg}";
/// Without a terminal there is one line for so many per cent.
const PERCENT_STEP: u64 = 10;

/// Progress of so many orders.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    total: u64,
    done: u64,
}

impl Progress {
    pub(crate) fn new(total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(total).with_style(style)
        });
        Self { bar, total, done: 0 }
    }

    /// One more order is done.
    pub(crate) fn step(&mut self) {
        let percent = |done: u64| done * 100 / self.total.max(1) / PERCENT_STEP;
        let before = percent(self.done);
        self.done += 1;
        match &self.bar {
            Some(bar) => bar.inc(1),
            None if percent(self.done) != before => eprintln!("{} of {} orders", self.done, self.total),
            None => {}
        }
    }

    /// Where to say what happens beside.
    pub(crate) fn teller(&self) -> impl Fn(&str) + use<> {
        let bar = self.bar.clone();
        move |text| match &bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None => eprintln!("{text}"),
        }
    }

    /// Everything is done.
    pub(crate) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_with_message("all placed");
        }
    }
}
