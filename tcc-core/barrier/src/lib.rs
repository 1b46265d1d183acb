//! The barrier: what an operation may do to a branch, given the branch's row, and in which order to write and look.
//!
//! Pure: no runtime, no database, no clock of its own. [`judge_try`], [`judge_confirm`] and [`judge_cancel`] are the contract's
//! table; [`steps`] is the protocol that applies it, to one operation or to a batch, over a [`BarrierStore`], which a database,
//! a simulation or a model checker implements. [`judge_deletion`] says which rows may go. Called by the participant SDK.
//!
//! | | no row | tried | refused | confirmed | cancelled |
//! |---|---|---|---|---|---|
//! | Try | late: refused; else reserve | yes again | refused again | yes again | refused (suspension) |
//! | Confirm | violation | spend | violation | done again | violation |
//! | Cancel | record it (empty rollback) | release | done | violation | done again |
//!
//! Source: dtm's sub-transaction barrier, Seata's TCC fence.

mod deletion;
mod judge;
mod protocol;
mod row;
mod store;

pub use deletion::{Deletion, is_over, judge_deletion};
pub use judge::{CancelVerdict, ConfirmVerdict, TryVerdict, judge_cancel, judge_confirm, judge_try};
pub use protocol::{Answer, Call, Error, ROUNDS_MAX, Step, steps};
pub use row::{Request, Row};
pub use store::{BarrierStore, Kept, Look};
