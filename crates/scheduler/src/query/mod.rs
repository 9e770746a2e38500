//! The cluster query language: expressions over a container instance, read once and asked often. It knows no instance but the one it is
//! shown, and never changes one.
//!
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/cluster-query-language.html>

mod error;
mod grammar;
mod node;
mod pattern;
mod scalar;
mod subject;
#[cfg(test)]
mod tests;

use std::fmt;

pub use error::QueryError;
use node::Node;
pub use subject::{AnyGroup, Subject};

/// Characters of an expression at most, as the API model documents for `PlacementConstraint.expression`.
pub const MAX_LENGTH: usize = 2_000;

/// How deep `not` and parentheses may be nested: far beyond what anybody writes, and shallow for the stack.
pub const MAX_DEPTH: usize = 32;

/// An expression that has been read and checked: patterns compiled, numbers, versions and dates parsed.
///
/// [`fmt::Display`] prints it in one spelling (`==` for `equals`, `and` for `&&`), which reads back as the same expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    root: Node,
}

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    /// Where it went wrong and what was expected there: bad grammar, an operator or a value that the subject does not have, a pattern that
    /// is none, too long or too deep.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        if text.chars().count() > MAX_LENGTH {
            return Err(QueryError {
                column: MAX_LENGTH + 1,
                expected: format!("the end: an expression has {MAX_LENGTH} characters at most"),
            });
        }
        grammar::expression(text).map(|root| Self { root })
    }

    /// It holds for instances with this value of the attribute.
    #[must_use]
    pub fn attribute_is(name: &str, value: &str) -> Self {
        Self { root: Node::Term(node::Field::Attribute(name.to_owned()), node::Test::Equal(value.to_owned())) }
    }

    /// Whether it holds for an instance.
    #[must_use]
    pub fn holds(&self, subject: &Subject<'_>) -> bool {
        self.root.holds(subject)
    }

    /// The names of the attributes that it reads, in the order in which they stand there; one that stands there twice comes twice.
    #[must_use]
    pub fn attributes(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.root.each_field(&mut |field| names.extend(field.attribute()));
        names
    }

    /// It reads attributes alone: two instances with the same attributes get the same answer, whatever their tasks, connection, age or
    /// EC2 instance are, so that the answer may be kept for an attribute set.
    #[must_use]
    pub fn reads_only_attributes(&self) -> bool {
        let mut only = true;
        self.root.each_field(&mut |field| only &= field.attribute().is_some());
        only
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.root.fmt(f)
    }
}
