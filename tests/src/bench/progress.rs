//! Which run is under way: a bar on a terminal, plain lines elsewhere. On standard error, so that the report stays clean.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

const TEMPLATE: &str = "{bar:40} {pos}/{len} runs, {eta} left, {msg}";

/// Progress of so many runs.
pub(crate) struct Progress(Option<ProgressBar>);

impl Progress {
    pub(crate) fn new(runs: u64) -> Self {
        Self(std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(runs).with_style(style)
        }))
    }

    /// One more is done.
    pub(crate) fn step(&self, text: String) {
        match &self.0 {
            Some(bar) => {
                bar.inc(1);
                bar.set_message(text);
            }
            None => eprintln!("{text}"),
        }
    }

    /// All are done.
    pub(crate) fn finish(self) {
        if let Some(bar) = self.0 {
            bar.finish_and_clear();
        }
    }
}
