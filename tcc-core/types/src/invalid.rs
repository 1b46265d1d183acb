//! How bad input is named: always the field, what is wrong with it, and the limit it breaks.

use std::fmt;

/// One field of a request, or one setting, that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    /// The field's path as the caller wrote it (`branches[1].payload`).
    pub field: String,
    /// What is wrong and what is allowed, as a sentence without its end (`must be 1 to 64 characters`).
    pub problem: String,
}

impl Invalid {
    /// Names a field and what is wrong with it.
    #[must_use]
    pub fn new(field: impl Into<String>, problem: impl fmt::Display) -> Self {
        Self { field: field.into(), problem: problem.to_string() }
    }

    /// The same problem, seen from one level further out: `branches[1]` and `payload` become `branches[1].payload`.
    #[must_use]
    pub fn within(mut self, outer: &str) -> Self {
        self.field = format!("{outer}.{}", self.field);
        self
    }
}
