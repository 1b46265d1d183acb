//! The tables of everything that has a database, as SQL files for each owner and each database, and the migrators that apply
//! them at start-up.
//!
//! Each owner keeps its bookkeeping in a table of its own, so that several owners (and a user's own migrations) can share one
//! database. Migrations that were released are never changed, only added to.

pub mod coupon;
pub mod inventory;
pub mod log;
pub mod mysql;
pub mod orders;
pub mod participant;
pub mod postgres;
pub mod sqlite;
