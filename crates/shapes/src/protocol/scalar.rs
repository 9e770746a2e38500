//! Scalars as text: what forms, query strings, headers, labels and XML have in common.

use serde_json::Value;

use super::DecodeError;
use crate::{
    Timestamp,
    schema::{Schema, TimestampFormat},
};

/// Reads a scalar from text into the canonical form.
pub fn read(schema: &Schema, text: &str) -> Result<Value, DecodeError> {
    let fail = |kind: &str| DecodeError::member(format!("STRING_VALUE can not be converted to {kind}"));
    Ok(match schema {
        Schema::String | Schema::Blob => Value::from(text),
        Schema::Boolean => match text.trim() {
            "true" | "True" | "TRUE" => Value::from(true),
            "false" | "False" | "FALSE" => Value::from(false),
            _ => return Err(fail("a Boolean")),
        },
        Schema::Integer => Value::from(text.trim().parse::<i32>().map_err(|_| fail("an Integer"))?),
        Schema::Long => Value::from(text.trim().parse::<i64>().map_err(|_| fail("a Long"))?),
        Schema::Float | Schema::Double => {
            let number = text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
            Value::from(number.ok_or_else(|| fail("a Double"))?)
        }
        Schema::Timestamp(_) => timestamp(Timestamp::parse(text).ok_or_else(|| fail("a Timestamp"))?),
        Schema::Document => serde_json::from_str(text).map_err(|_| fail("a Document"))?,
        Schema::Structure(_) => return Err(fail("a Structure")),
        Schema::List(_) => return Err(fail("a List")),
        Schema::Map(_) => return Err(fail("a Map")),
    })
}

/// Writes a scalar from the canonical form as text. A timestamp takes the member's format, else its shape's, else the
/// protocol's.
pub fn write(schema: &Schema, value: &Value, member: Option<TimestampFormat>, protocol: TimestampFormat) -> String {
    if let Schema::Timestamp(shape) = schema
        && let Some(at) = value.as_f64().and_then(Timestamp::from_seconds)
    {
        return match member.or(*shape).unwrap_or(protocol) {
            TimestampFormat::Iso8601 => at.render_iso8601(),
            TimestampFormat::Rfc822 => at.render_http_date(),
            TimestampFormat::Unix => timestamp(at).to_string(),
        };
    }
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The canonical form of a timestamp.
pub fn timestamp(at: Timestamp) -> Value {
    serde_json::to_value(at).expect("a number is a value")
}
