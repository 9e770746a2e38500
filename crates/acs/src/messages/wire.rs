//! How JSON is read and written here, where plain serde is too strict or too loose for what agents send.

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// A string that holds JSON. Agents accept it as a string or as the object itself; it is written as a string.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct JsonText(pub String);

impl Default for JsonText {
    fn default() -> Self {
        Self("{}".to_owned())
    }
}

impl<'de> Deserialize<'de> for JsonText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self(text)),
            Value::Null => Ok(Self::default()),
            value @ Value::Object(_) => Ok(Self(value.to_string())),
            _ => Err(D::Error::custom("expected a string of JSON or an object")),
        }
    }
}

/// Parses JSON; a `null` anywhere counts as a field that is not there, as it does to Go's decoder. Only a text that does not
/// parse strictly is looked at twice.
pub(super) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(text).or_else(|strict| {
        let mut value: Value = serde_json::from_str(text)?;
        if !drop_nulls(&mut value) {
            return Err(strict);
        }
        serde_json::from_value(value)
    })
}

fn drop_nulls(value: &mut Value) -> bool {
    match value {
        Value::Object(fields) => {
            let before = fields.len();
            fields.retain(|_, field| !field.is_null());
            let fewer = before != fields.len();
            fields.values_mut().fold(fewer, |dropped, field| drop_nulls(field) || dropped)
        }
        Value::Array(items) => {
            let before = items.len();
            items.retain(|item| !item.is_null());
            let shorter = before != items.len();
            items.iter_mut().fold(shorter, |dropped, item| drop_nulls(item) || dropped)
        }
        _ => false,
    }
}

pub(super) fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

pub(super) fn is_false(flag: &bool) -> bool {
    !flag
}
