//! Runs the reconciler again and again while things are killed: whatever is under way then, nothing may disagree for longer than the
//! grace.

use std::{collections::BTreeSet, time::Duration};

use tcc_reconcile::{Config, Error, Reconciler, Report};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Between two runs.
const PAUSE: Duration = Duration::from_millis(500);
/// Sentences that are kept.
const SENTENCES_MAX: usize = 50;

/// What the reconciler saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Looks {
    /// Runs that came to their end.
    pub(crate) ended: u64,
    /// Runs that found a database down, or left some out.
    pub(crate) cut_short: u64,
    /// Differences that were work in flight.
    pub(crate) in_flight: u64,
    /// What disagreed, each as a sentence.
    pub(crate) disagreements: BTreeSet<String>,
}

impl Looks {
    /// Looks until it is told to stop; the run that is under way then is given up.
    pub(crate) async fn look(&mut self, config: &Config, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => {}
                () = async { self.add(one(config).await); sleep(PAUSE).await } => {}
            }
        }
    }

    fn add(&mut self, run: Result<Report, Error>) {
        let sentences: Vec<String> = match run {
            Ok(report) => {
                let whole = report.counts.left_out == 0;
                *(if whole { &mut self.ended } else { &mut self.cut_short }) += 1;
                self.in_flight += report.counts.in_flight;
                // What disagrees does so whatever else was left out.
                report.disagreements.iter().map(|finding| format!("the reconciler says: {finding}")).collect()
            }
            // A database may be down: that is what is tried here.
            Err(error) => {
                self.cut_short += 1;
                if error.is_retryable() { Vec::new() } else { vec![format!("the reconciler could not look: {error}")] }
            }
        };
        let room = SENTENCES_MAX.saturating_sub(self.disagreements.len());
        self.disagreements.extend(sentences.into_iter().take(room));
    }
}

async fn one(config: &Config) -> Result<Report, Error> {
    Reconciler::open(config.clone()).await?.run(&|_| {}).await
}
