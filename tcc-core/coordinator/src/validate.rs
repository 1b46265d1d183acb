//! Requests against the limits: every bad field is named, and nothing is started.

use std::{collections::HashSet, time::Duration};

use tcc_log::NewBranch;
use tcc_machine::{UnfitGid, check_gid_age};
use tcc_types::{Fingerprint, FingerprintBuilder, Gid, Invalid, Timestamp};

use crate::{Begin, Config, Registry, Submit, TryOrder, Warrant};

/// The two deadlines of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadlines {
    pub(crate) try_until: Timestamp,
    pub(crate) decide_by: Timestamp,
}

/// Checks a whole transaction and completes its deadlines.
pub(crate) fn submit(
    request: &Submit,
    config: &Config,
    registry: &Registry,
    now: Timestamp,
) -> Result<Deadlines, Vec<Invalid>> {
    let mut bad = Vec::new();
    bad.extend(request.gid.and_then(|gid| gid_age(gid, config, now).err()));
    bad.extend(branches(&request.branches, config, registry));

    let try_until = request.try_until.unwrap_or_else(|| now.plus(Duration::from_millis(config.try_for_ms)));
    bad.extend(request.try_until.and_then(|at| deadline("try_until", at, config.try_for_ms_max, "try_for_ms_max", now).err()));
    let decide_by = match (request.hold, request.decide_by) {
        (false, None) => try_until,
        (false, Some(_)) => {
            bad.push(Invalid::new("decide_by", "is for holds only: set hold"));
            try_until
        }
        (true, None) => now.plus(Duration::from_millis(config.hold_for_ms)).max(try_until),
        (true, Some(at)) => {
            bad.extend(deadline("decide_by", at, config.hold_for_ms_max, "hold_for_ms_max", now).err());
            // A default try_until gives way to a short hold; one that was asked for must fit.
            if request.try_until.is_some() && at < try_until {
                bad.push(Invalid::new("decide_by", "must not be before try_until"));
            }
            at
        }
    };
    let deadlines = Deadlines { try_until: try_until.min(decide_by), decide_by };
    if bad.is_empty() { Ok(deadlines) } else { Err(bad) }
}

/// Checks an open transaction and completes its deadlines.
pub(crate) fn begin(request: &Begin, config: &Config, now: Timestamp) -> Result<Deadlines, Vec<Invalid>> {
    let mut bad = Vec::new();
    bad.extend(request.gid.and_then(|gid| gid_age(gid, config, now).err()));
    bad.extend(
        request.decide_by.and_then(|at| deadline("decide_by", at, config.hold_for_ms_max, "hold_for_ms_max", now).err()),
    );
    let decide_by = request.decide_by.unwrap_or_else(|| now.plus(Duration::from_millis(config.begin_for_ms)));
    if bad.is_empty() { Ok(Deadlines { try_until: decide_by, decide_by }) } else { Err(bad) }
}

/// Checks one branch, known to the caller under that field name.
pub(crate) fn branch(field: &str, branch: &NewBranch, config: &Config, registry: &Registry) -> Vec<Invalid> {
    let mut bad = Vec::new();
    if registry.get(&branch.participant).is_none() {
        let problem = format!("no participant is registered as {:?}", branch.participant.as_str());
        bad.push(Invalid::new(format!("{field}.participant"), problem));
    }
    if branch.payload.type_url.chars().any(char::is_control) {
        bad.push(Invalid::new(format!("{field}.payload.type_url"), "must not have control characters"));
    }
    if branch.payload.type_url.is_empty() {
        bad.push(Invalid::new(format!("{field}.payload.type_url"), "must not be empty: the payload has to say what it is"));
    }
    let (size, limit) = (branch.payload.size_bytes(), config.payload_bytes_max);
    if size > limit {
        bad.push(Invalid::new(format!("{field}.payload"), format!("has {size} bytes; payload_bytes_max is {limit}")));
    }
    bad
}

/// Checks who asks for an operator's change, and why.
pub(crate) fn warrant(warrant: &Warrant) -> Result<(), Vec<Invalid>> {
    let mut bad = Vec::new();
    if !(1..=128).contains(&warrant.actor.len()) {
        bad.push(Invalid::new("warrant.actor", "must be 1 to 128 bytes"));
    }
    if !(1..=512).contains(&warrant.reason.len()) {
        bad.push(Invalid::new("warrant.reason", "must be 1 to 512 bytes"));
    }
    // One database cannot store it, the others could.
    for (field, text) in [("warrant.actor", &warrant.actor), ("warrant.reason", &warrant.reason)] {
        if text.contains('\0') {
            bad.push(Invalid::new(field, "must not have zero characters"));
        }
    }
    if bad.is_empty() { Ok(()) } else { Err(bad) }
}

/// What makes two submitted requests the same: never the gid, the deadlines or the wait.
pub(crate) fn submit_fingerprint(request: &Submit) -> Fingerprint {
    let order = match request.try_order {
        TryOrder::Parallel => "parallel",
        TryOrder::Sequential => "sequential",
    };
    let mut builder = FingerprintBuilder::new("submit").text(order).text(if request.hold { "hold" } else { "decide" });
    for branch in &request.branches {
        builder = builder
            .text(branch.branch.as_str())
            .text(branch.participant.as_str())
            .text(&branch.payload.type_url)
            .bytes(&branch.payload.value);
    }
    builder.finish()
}

/// All begun transactions ask for the same: nothing yet.
pub(crate) fn begin_fingerprint() -> Fingerprint {
    FingerprintBuilder::new("begin").finish()
}

fn branches(branches: &[NewBranch], config: &Config, registry: &Registry) -> Vec<Invalid> {
    let limit = config.branches_max as usize;
    if branches.is_empty() {
        return vec![Invalid::new("branches", "must have at least one branch")];
    }
    if branches.len() > limit {
        return vec![Invalid::new("branches", format!("has {} branches; branches_max is {limit}", branches.len()))];
    }
    let mut bad = Vec::new();
    let (size, limit) = (branches.iter().map(|one| one.payload.size_bytes()).sum::<usize>(), config.request_bytes_max);
    if size > limit {
        bad.push(Invalid::new("branches", format!("have {size} bytes of payloads; request_bytes_max is {limit}")));
    }
    let mut seen = HashSet::new();
    for (index, one) in branches.iter().enumerate() {
        let field = format!("branches[{index}]");
        if !seen.insert(&one.branch) {
            bad.push(Invalid::new(format!("{field}.branch_id"), format!("{:?} is used twice", one.branch.as_str())));
        }
        bad.extend(branch(&field, one, config, registry));
    }
    bad
}

pub(crate) fn gid_age(gid: Gid, config: &Config, now: Timestamp) -> Result<(), Invalid> {
    let (retention, allowance) = (Duration::from_millis(config.retention_ms), Duration::from_millis(config.clock_allowance_ms));
    check_gid_age(gid, retention, allowance, now).map_err(|unfit| {
        let problem = match unfit {
            UnfitGid::TooOld => "was minted longer ago than half of retention_ms",
            UnfitGid::Ahead => "was minted ahead of this clock by more than clock_allowance_ms",
        };
        Invalid::new("gid", problem)
    })
}

fn deadline(field: &str, at: Timestamp, limit_ms: u64, limit_name: &str, now: Timestamp) -> Result<(), Invalid> {
    if at <= now {
        return Err(Invalid::new(field, format!("must be in the future; this clock says {now}")));
    }
    if at > now.plus(Duration::from_millis(limit_ms)) {
        return Err(Invalid::new(field, format!("is too far away; {limit_name} is {limit_ms}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
