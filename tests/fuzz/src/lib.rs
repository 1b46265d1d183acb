//! Fuzzing of everything that parses what others send or store: the harness. The targets are this crate's tests.
//!
//! Every target has a corpus, `corpus/NAME/`: inputs that reached something of their own, and every input that ever failed. A run
//! replays it and then generates: it takes an input of the corpus, changes fields (of protobuf messages) or words and bytes (of texts),
//! and checks that what the target says of parsing still holds. Each target says which outcomes a run has to meet, acceptance among
//! them; if it does not, it fails, as it does not look at what it should.
//!
//! - `cargo test -p tcc-fuzz`: the corpus and a short run. With `-- --show-output`, what was met and how often.
//! - `BOLERO_RANDOM_ITERATIONS=1000000 cargo test -p tcc-fuzz page_tokens`: a longer one, of one target.
//! - `BOLERO_RANDOM_TEST_TIME_MS=600000 cargo test -p tcc-fuzz`: ten minutes of each.
//! - `TCC_FUZZ_KEEP=1 cargo test -p tcc-fuzz`: adds to the corpus the smallest input of each outcome that has to be met and is not in it yet.
//!   An input that fails is added without that.
//!
//! The engine is bolero's, on stable Rust: random, with shrinking; it prints the seed of what failed.

mod message;
mod program;
mod target;
mod text;

pub use program::Program;
pub use target::{Outcome, Shape, Target};
