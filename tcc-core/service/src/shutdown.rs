//! Turns the operating system's wish to stop into a token that everything waits on.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A token that is cancelled when the process gets SIGTERM or SIGINT. A second signal does nothing: ending is bounded already.
///
/// Must be called inside a tokio runtime. If the handlers cannot be installed, that is logged, and the signals keep their
/// default effect.
#[must_use]
pub fn on_signal() -> CancellationToken {
    let token = CancellationToken::new();
    let (terminate, interrupt) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (mut terminate, mut interrupt) = match (terminate, interrupt) {
        (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
        (Err(error), _) | (_, Err(error)) => {
            tracing::warn!(%error, "signals cannot be handled; the process will not end gracefully");
            return token;
        }
    };
    let cancel = token.clone();
    // Nobody waits for this task: it ends with the runtime.
    TaskTracker::new().spawn(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "stopping");
        cancel.cancel();
    });
    token
}
