//! A typed client for initiators in Rust: runs global transactions over `tcc.v1.Coordinator`.
//!
//! It repeats a call whose outcome is unknown, or that was refused for now, a bounded number of times; every call that it sends
//! is safe to repeat, since a [`Submit`] or a [`Begin`] without a gid or a key of its own has a random key from when it is built.
//! It keeps no state and decides nothing.
//!
//! ```no_run
//! # use tcc_client::{Branch, Client, Submit};
//! # use tcc_proto::inventory::v1::ReserveStock;
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("http://127.0.0.1:50051", "shop".parse()?).await?;
//! let stock = Branch::new("stock", "inventory", &ReserveStock::default())?;
//! let transaction = client.submit(Submit::of([stock])).await?;
//! match transaction.refusal() {
//!     None => println!("{}: {:?}", transaction.gid, transaction.decision()),
//!     Some((participant, refusal)) => println!("{participant} said no: {}", refusal.message),
//! }
//! # Ok(()) }
//! ```

mod client;
mod error;
mod request;
mod transaction;

pub use client::{Client, Retries};
pub use error::{Error, is_repeatable};
pub use request::{Begin, Branch, Key, List, Submit, TryOrder, Wait, pack};
pub use transaction::{Enlisted, Page, Transaction};
