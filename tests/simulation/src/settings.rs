//! How the system of one seed is set up: how many of everything, and limits that make the interesting things happen within seconds.

use std::time::Duration;

use serde::Serialize;
use tcc_log::LogOptions;
use tcc_participant::{Options, UpkeepOptions};

use crate::{dice::Dice, place::Host};

/// How far any two clocks are apart at most: half of it to either side.
pub(crate) const CLOCKS_APART_MS: u64 = 400;
/// Everything has ended so long after the last fault was healed.
pub(crate) const QUIET_WITHIN: Duration = Duration::from_secs(90);

/// One seed's system.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Settings {
    pub(crate) gateways: u8,
    pub(crate) inventories: u8,
    pub(crate) clients: u8,
    pub(crate) shoppers_per_client: u32,
    pub(crate) orders_per_shopper: u32,
    pub(crate) skus: u32,
    /// Pieces of each SKU: few, so that some are refused.
    pub(crate) pieces: i64,
    pub(crate) coupons: u32,
    /// For how long faults go on.
    pub(crate) stormy_for: Duration,
    pub(crate) faults: u32,
    /// How finely machines take turns. What is sent in one step arrives in a later one.
    pub(crate) step: Duration,
    /// Longest way of a message.
    pub(crate) latency_max: Duration,
    pub(crate) log_batch_max: usize,
    pub(crate) log_writers: usize,
    pub(crate) participant_batch_max: u32,
    pub(crate) endpoint_batch_max: usize,
    pub(crate) buckets: u32,
    /// Transactions that a gateway works on at the same time; few more may wait.
    pub(crate) in_flight_max: usize,
    /// Whether it goes on until rows are so old that they are deleted.
    pub(crate) grows_old: bool,
    /// Whether replicas that lag behind take over: rows that were stored are lost.
    pub(crate) loses_rows: bool,
}

impl Settings {
    pub(crate) fn of(dice: &Dice) -> Self {
        let clients = 2;
        let shoppers_per_client = 6;
        let grows_old = dice.happens(50);
        Self {
            gateways: dice.one_of(&[1, 2, 2, 3, 3]),
            inventories: dice.one_of(&[1, 1, 2]),
            clients,
            shoppers_per_client,
            orders_per_shopper: 10,
            skus: dice.one_of(&[1, 3, 8]),
            pieces: dice.one_of(&[20, 60, 1_000]),
            coupons: dice.one_of(&[4, 40]),
            stormy_for: Duration::from_secs(10),
            faults: u32::try_from(dice.number(20..=32)).unwrap_or(20),
            step: Duration::from_millis(dice.one_of(&[5, 10, 10, 20])),
            latency_max: Duration::from_millis(dice.one_of(&[5, 20, 60])),
            log_batch_max: dice.one_of(&[1, 4, 64]),
            log_writers: dice.one_of(&[1, 2, 3]),
            participant_batch_max: dice.one_of(&[1, 4, 64]),
            endpoint_batch_max: dice.one_of(&[1, 4, 64]),
            buckets: dice.one_of(&[1, 1, 4]),
            in_flight_max: dice.one_of(&[2, 64, 64]),
            grows_old,
            loses_rows: !grows_old && dice.happens(100),
        }
    }

    /// The machines that can be stopped.
    pub(crate) fn servers(&self) -> Vec<Host> {
        let gateways = (0..self.gateways).map(Host::Gateway);
        let inventories = (0..self.inventories).map(Host::Inventory);
        gateways.chain(inventories).chain([Host::Coupon(0)]).collect()
    }

    pub(crate) fn all_clients(&self) -> Vec<Host> {
        (0..self.clients).map(Host::Client).collect()
    }

    /// How old finished transactions become. Where the end is looked at before anything is deleted, longer than a run may take.
    const fn retention_ms(&self) -> u64 {
        if self.grows_old { 40_000 } else { 400_000 }
    }

    pub(crate) fn log(&self) -> LogOptions {
        LogOptions {
            batch_max: self.log_batch_max,
            batches_in_flight_max: self.log_writers,
            finish_delay_ms: 20,
            connect_timeout_ms: 500,
            write_timeout_ms: 1_000,
            ..LogOptions::default()
        }
    }

    pub(crate) fn participant(&self) -> Options {
        Options {
            batch_max: self.participant_batch_max,
            transaction_ms_max: 1_000,
            connection_wait_ms_max: 1_000,
            write_connections_max: 4,
            read_connections_max: 2,
            upkeep: UpkeepOptions {
                sweep_interval_ms: 500,
                sweep_backoff_ms_max: 1_000,
                ask_again_ms: 1_000,
                ask_again_ms_max: 2_000,
                retention_ms: self.retention_ms() * 3 / 2,
                retention_interval_ms: 2_000,
                ..UpkeepOptions::default()
            },
            ..Options::default()
        }
    }

    pub(crate) fn coordinator(&self) -> tcc_coordinator::Config {
        tcc_coordinator::Config {
            transactions_in_flight_max: self.in_flight_max,
            admission_queue_max: self.in_flight_max,
            try_for_ms: 1_500,
            try_for_ms_max: 3_000,
            hold_for_ms: 3_000,
            hold_for_ms_max: 6_000,
            begin_for_ms: 3_000,
            idle_driver_ms: 500,
            clock_allowance_ms: CLOCKS_APART_MS,
            ask_grace_ms: 1_000,
            call_timeout_ms: 400,
            retry_base_ms: 20,
            retry_cap_ms: 400,
            park_after_attempts: 3,
            stuck_after_attempts: 5,
            stuck_after_ms: 3_000,
            stuck_probe_ms: 1_000,
            recovery_interval_ms: 200,
            lease_ms: 900,
            probe_interval_ms: 300,
            retention_interval_ms: 1_000,
            retention_ms: self.retention_ms(),
            ..tcc_coordinator::Config::default()
        }
    }
}
