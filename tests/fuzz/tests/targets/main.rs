//! Every target: what parses, and what must hold of it whatever comes in.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod answers;
mod calls;
mod configuration;
mod coordinator;
mod keepers;
mod orders;
mod pages;
mod participants;
mod records;
mod samples;
mod services;
mod words;
