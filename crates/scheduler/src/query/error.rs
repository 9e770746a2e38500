//! Why a text is no expression, in words that the caller can act on.

/// Where reading an expression stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: expected {expected}")]
pub struct QueryError {
    /// The character at fault, counted from 1; one past the last if the expression ended too early.
    pub column: usize,
    /// What was expected there, in words.
    pub expected: String,
}
