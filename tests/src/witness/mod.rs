//! Clients that order while things break, what they were told, and whether it is so.

mod clients;
mod decisions;
mod ending;
mod evidence;
mod history;
mod looks;
mod progress;
mod verdict;

pub(crate) use self::{
    clients::{Clients, Pace, ask_for_abandoned, plentiful_sku, stock_up},
    decisions::Decisions,
    ending::{Ending, GRACE_MS, QUIET_WITHIN, end, verdict},
    evidence::evidence,
    history::{History, Told},
    looks::Looks,
    progress::Progress,
    verdict::{Fate, Violations, violations},
};
