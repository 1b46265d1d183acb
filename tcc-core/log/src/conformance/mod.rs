//! tmp
pub mod samples;
