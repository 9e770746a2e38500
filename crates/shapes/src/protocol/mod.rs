//! The wire protocols of AWS, written once for all services.
//!
//! JSON 1.0 and 1.1 read and write the generated structures directly ([`json`]). Every other protocol goes through one
//! **canonical value**: what AWS JSON would have on the wire, under the model's member names, with timestamps as epoch
//! seconds and blobs as base64. A codec turns its wire into that value and back by the service's [`crate::schema`];
//! [`from_value`] makes the structure of it. A codec must never know a service.

use serde::de::DeserializeOwned;
use serde_json::Value;

pub mod cbor;
pub mod form;
pub mod json;
pub mod query;
pub mod rest_json;
mod scalar;
mod uri;
mod xml;

/// A request body that cannot be read, rendered as AWS renders its `SerializationException`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The body is not JSON at all.
    #[error("Malformed JSON at line {line} column {column}: {problem}")]
    Malformed {
        /// Line of the first offence, from 1.
        line: usize,
        /// Column of the first offence, from 1; 0 for "right at the line's start".
        column: usize,
        /// What was found there.
        problem: String,
    },
    /// The body is not what the protocol sends.
    #[error("Malformed {encoding}: {problem}")]
    Unreadable {
        /// What it should have been, for example `form`.
        encoding: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The body is JSON, but not an object.
    #[error("Start of structure or map found where not expected: {found} is not a request object")]
    NotAnObject {
        /// The JSON token found instead, as AWS calls it.
        found: &'static str,
    },
    /// A member has a value of another type.
    #[error("{path}: {problem}")]
    Member {
        /// The member, for example `overrides.containerOverrides[0].cpu`.
        path: String,
        /// Why its value cannot be read, for example `STRING_VALUE can not be converted to an Integer`.
        problem: String,
    },
}

impl DecodeError {
    /// The error's name on the wire; no service models it, every service answers with it.
    pub const NAME: &'static str = "SerializationException";

    /// A member whose value is at fault; the path grows on the way up through [`DecodeError::inside`].
    fn member(problem: impl Into<String>) -> Self {
        Self::Member { path: String::new(), problem: problem.into() }
    }

    /// Puts the name of the enclosing member, or `[index]`, before the path.
    fn inside(mut self, outer: &str) -> Self {
        if let Self::Member { path, .. } = &mut self {
            let dot = if path.is_empty() || path.starts_with('[') { "" } else { "." };
            *path = format!("{outer}{dot}{path}");
        }
        self
    }
}

/// Makes a structure of a canonical value.
///
/// # Errors
/// [`DecodeError::Member`] when a member has another type than the structure.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, DecodeError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        DecodeError::Member { path, problem: json::problem_of(&error.into_inner().to_string()) }
    })
}

/// AWS's word for what stands where something else should: the beginning of "can not be converted to".
fn token(value: &Value) -> &'static str {
    match value {
        Value::Null => "NULL_VALUE",
        Value::Bool(true) => "TRUE_VALUE",
        Value::Bool(false) => "FALSE_VALUE",
        Value::Number(_) => "NUMBER_VALUE",
        Value::String(_) => "STRING_VALUE",
        Value::Array(_) => "START_ARRAY",
        Value::Object(_) => "START_OBJECT",
    }
}
