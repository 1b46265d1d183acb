//! How a command that breaks things ends: what it prints last, and its exit code.

use std::{fmt::Write, process::ExitCode, time::Duration};

use tcc_service::shutdown;

/// After faults have stopped, everything ends within this, or the verdict is bad.
pub(crate) const QUIET_WITHIN: Duration = Duration::from_secs(120);
/// The grace of the reconciler that looks on.
pub(crate) const GRACE_MS: u64 = 2_000;
/// Sentences that are printed; the counts tell of the rest.
const PRINTED_MAX: usize = 50;

/// What came of it, for people.
pub(crate) struct Ending {
    pub(crate) table: String,
    pub(crate) verdict: String,
    pub(crate) well: bool,
}

/// Prints what comes of the work. 0: all is well; 1: something is broken; 2: it did not come to its end, or was interrupted.
pub(crate) async fn end(work: impl Future<Output = anyhow::Result<Ending>>) -> ExitCode {
    let shutdown = shutdown::on_signal();
    let ending = tokio::select! {
        ending = work => ending,
        // Dropped, a cluster kills its processes, also those that stand still.
        () = shutdown.cancelled() => Err(anyhow::anyhow!("interrupted")),
    };
    match ending {
        Ok(Ending { table, verdict, well }) => {
            println!("{table}\n{verdict}");
            ExitCode::from(u8::from(!well))
        }
        Err(error) => {
            println!("error: {error:#}\nverdict: none, it did not come to its end");
            ExitCode::from(2)
        }
    }
}

/// What is broken, each on a line, and then the verdict in these words.
pub(crate) fn verdict<'a>(broken: impl Iterator<Item = &'a String>, words: &str) -> String {
    let mut text = String::new();
    for sentence in broken.take(PRINTED_MAX) {
        let _ = writeln!(text, "broken: {sentence}");
    }
    let _ = write!(text, "verdict: {words}");
    text
}
