//! What is queued, by batches.
//!
//! Nobody who waits is kept waiting by a timer: a lone write is a batch if a writer is free, and the longer commits take, the more the
//! next one carries. Only what nobody waits for (that a transaction has ended) rides with a later write, or is written after a while.

use std::time::Duration;

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::write::Write;
use crate::LogOptions;

/// The queue's end from which batches are taken.
pub(crate) struct Gathering {
    queue: mpsc::Receiver<Write>,
    closing: CancellationToken,
    batch_max: usize,
    batch_bytes_max: usize,
    /// How long a write that nobody waits for may wait for others.
    finish_delay: Duration,
    /// Those, and until when they wait.
    lazy: Vec<Write>,
    lazy_until: Instant,
}

impl Gathering {
    pub(crate) fn new(queue: mpsc::Receiver<Write>, closing: CancellationToken, options: &LogOptions) -> Self {
        Self {
            queue,
            closing,
            batch_max: options.batch_max,
            batch_bytes_max: options.batch_bytes_max,
            finish_delay: Duration::from_millis(options.finish_delay_ms),
            lazy: Vec::new(),
            lazy_until: Instant::now(),
        }
    }

    /// The next batch, never empty; `None` once there will be none.
    pub(super) async fn next(&mut self) -> Option<Vec<Write>> {
        loop {
            let write = tokio::select! {
                // Closing comes first: under a steady load the queue is never empty.
                biased;
                () = self.closing.cancelled(), if !self.queue.is_closed() => {
                    // What is queued was accepted and is still written.
                    self.queue.close();
                    continue;
                }
                write = self.queue.recv() => write,
                () = sleep_until(self.lazy_until), if !self.lazy.is_empty() => return Some(self.batch(None)),
            };
            match write {
                Some(write) if write.is_lazy() && !self.finish_delay.is_zero() => {
                    if self.lazy.is_empty() {
                        self.lazy_until = Instant::now() + self.finish_delay;
                    }
                    self.lazy.push(write);
                    if self.lazy.len() >= self.batch_max {
                        return Some(self.batch(None));
                    }
                }
                Some(write) => return Some(self.batch(Some(write))),
                None if self.lazy.is_empty() => return None,
                None => return Some(self.batch(None)),
            }
        }
    }

    /// What was put off, this write, and what is queued behind it.
    fn batch(&mut self, write: Option<Write>) -> Vec<Write> {
        let mut batch = std::mem::take(&mut self.lazy);
        batch.extend(write);
        let mut size_bytes: usize = batch.iter().map(Write::size_bytes).sum();
        while batch.len() < self.batch_max && size_bytes < self.batch_bytes_max {
            let Ok(write) = self.queue.try_recv() else { break };
            size_bytes += write.size_bytes();
            batch.push(write);
        }
        batch
    }
}
