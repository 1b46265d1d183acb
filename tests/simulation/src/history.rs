//! What clients were told. At the end it is held against what the databases say.

use std::collections::{BTreeMap, BTreeSet};

use tcc_log::AuditAction;
use tcc_types::{BranchKey, Decision, Gid};

/// Everything that clients were told.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// The transactions that were named in answers to requests under one key.
    pub(crate) keys: BTreeMap<String, BTreeSet<Gid>>,
    /// The outcomes that were named.
    pub(crate) fates: BTreeMap<Gid, BTreeSet<Told>>,
    /// Requests that were refused with the word that nothing was started, and never sent again.
    pub(crate) never: BTreeSet<Gid>,
    /// What operators were told is done: to which branch, what, and with which reason.
    pub(crate) warrants: Vec<(BranchKey, AuditAction, String)>,
    /// Requests that were never answered.
    pub(crate) unknown: u64,
    /// Clients that are still at it.
    pub(crate) at_work: u32,
}

/// An outcome as a client hears it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Told {
    Confirmed,
    Cancelled,
}

impl Told {
    pub(crate) const fn of(decision: Decision) -> Self {
        match decision {
            Decision::Confirm => Self::Confirmed,
            Decision::Cancel => Self::Cancelled,
        }
    }
}

impl History {
    /// A request under this key was answered with that transaction, and perhaps its outcome.
    pub(crate) fn tell(&mut self, key: &str, gid: Gid, told: Option<Told>) {
        self.keys.entry(key.to_owned()).or_default().insert(gid);
        if let Some(told) = told {
            self.fates.entry(gid).or_default().insert(told);
        }
    }

    /// What contradicts itself, whatever the databases say.
    pub(crate) fn contradictions(&self) -> Vec<String> {
        let keys = self.keys.iter().filter(|(_, gids)| gids.len() > 1);
        let fates = self.fates.iter().filter(|(_, fates)| fates.len() > 1);
        keys.map(|(key, gids)| format!("{key} was answered with several transactions: {gids:?}"))
            .chain(fates.map(|(gid, fates)| format!("{gid} was said to be {fates:?}")))
            .collect()
    }
}
