//! What happened, in order: a hash of it that is the same whenever a seed is run, and the text of it for people who want to read it.

use std::{
    fmt,
    hash::{DefaultHasher, Hasher},
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Lines of text that are kept at most.
const LINES_MAX: usize = 200_000;

/// The trace of one run.
#[derive(Debug)]
pub(crate) struct Trace(Mutex<Written>);

#[derive(Debug)]
struct Written {
    hasher: DefaultHasher,
    events: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// With the text, or only its hash.
    pub(crate) fn new(keeps_text: bool) -> Self {
        let lines = keeps_text.then(Vec::new);
        Self(Mutex::new(Written { hasher: DefaultHasher::new(), events: 0, lines }))
    }

    /// Writes one event down.
    pub(crate) fn write(&self, at: Duration, who: impl fmt::Display, what: fmt::Arguments<'_>) {
        let line = format!("{:>9.3} {who:<12} {what}", at.as_secs_f64() * 1_000.0);
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        written.hasher.write(line.as_bytes());
        written.events += 1;
        if let Some(lines) = written.lines.as_mut().filter(|lines| lines.len() < LINES_MAX) {
            lines.push(line);
        }
    }

    /// Its hash, and how many events there were.
    pub(crate) fn hash(&self) -> (u64, u64) {
        let written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (written.hasher.finish(), written.events)
    }

    /// Its text.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).lines.clone().unwrap_or_default()
    }
}
