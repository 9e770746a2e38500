//! Smithy RPC v2 CBOR (CloudWatch from newer SDKs): `POST /service/S/operation/Op`, CBOR in and out. Wire rules as in
//! <https://smithy.io/2.0/additional-specs/protocols/smithy-rpc-v2.html>. Depth is bounded.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ciborium::Value as Cbor;
use serde_json::{Map as Object, Value};

use super::{DecodeError, scalar};
use crate::{
    Timestamp,
    schema::{Schema, Structure},
};

/// Nesting of a request; the same as JSON's.
const DEPTH: usize = 128;
/// CBOR's tag for epoch seconds.
const EPOCH: u64 = 1;

/// The service and operation of a request's path; `None` for a path of another protocol.
pub fn route(path: &str) -> Option<(&str, &str)> {
    let (service, operation) = path.strip_prefix("/service/")?.split_once("/operation/")?;
    (!service.is_empty() && !operation.is_empty() && !operation.contains('/')).then_some((service, operation))
}

/// Reads a request into the canonical value. An empty body is an empty structure.
///
/// # Errors
/// [`DecodeError`] when the body is not CBOR, not a map, nested too deep, or a member has another type.
pub fn decode(input: &Structure, body: &[u8]) -> Result<Value, DecodeError> {
    if body.is_empty() {
        return Ok(Value::Object(Object::new()));
    }
    let mut rest = body;
    let unreadable = |problem: String| DecodeError::Unreadable { encoding: "CBOR", problem };
    let cbor: Cbor = ciborium::de::from_reader_with_recursion_limit(&mut rest, DEPTH).map_err(|error| unreadable(error.to_string()))?;
    if !rest.is_empty() {
        return Err(unreadable(format!("{} bytes after the end", rest.len())));
    }
    structure(input, &cbor)
}

fn structure(schema: &Structure, cbor: &Cbor) -> Result<Value, DecodeError> {
    let Cbor::Map(entries) = cbor else { return Err(refuse(cbor, "a Structure")) };
    let mut object = Object::new();
    for (key, cbor) in entries {
        let member = key.as_text().and_then(|name| schema.members.iter().find(|member| member.name == name));
        if let Some(member) = member.filter(|_| !cbor.is_null()) {
            let value = value(member.schema, cbor).map_err(|error| error.inside(member.name))?;
            object.insert(member.name.to_owned(), value);
        }
    }
    Ok(Value::Object(object))
}

fn value(schema: &Schema, cbor: &Cbor) -> Result<Value, DecodeError> {
    Ok(match schema {
        Schema::Structure(inner) => structure(inner, cbor)?,
        Schema::List(list) => {
            let items = cbor.as_array().ok_or_else(|| refuse(cbor, "a List"))?;
            let read = |(index, item)| value(list.item, item).map_err(|error| error.inside(&format!("[{index}]")));
            Value::Array(items.iter().enumerate().map(read).collect::<Result<_, _>>()?)
        }
        Schema::Map(map) => {
            let mut object = Object::new();
            for (key, cbor) in cbor.as_map().ok_or_else(|| refuse(cbor, "a Map"))? {
                let key = key.as_text().ok_or_else(|| refuse(key, "a String"))?;
                if !cbor.is_null() {
                    object.insert(key.to_owned(), value(map.value, cbor).map_err(|error| error.inside(key))?);
                }
            }
            Value::Object(object)
        }
        Schema::String => Value::from(cbor.as_text().ok_or_else(|| refuse(cbor, "a String"))?),
        Schema::Boolean => Value::from(cbor.as_bool().ok_or_else(|| refuse(cbor, "a Boolean"))?),
        Schema::Integer => Value::from(i32::try_from(integer(cbor, "an Integer")?).map_err(|_| refuse(cbor, "an Integer"))?),
        Schema::Long => Value::from(integer(cbor, "a Long")?),
        Schema::Float | Schema::Double => Value::from(number(cbor).ok_or_else(|| refuse(cbor, "a Double"))?),
        Schema::Timestamp(_) => {
            let seconds = match cbor {
                Cbor::Tag(EPOCH, inner) => number(inner),
                other => number(other),
            };
            scalar::timestamp(seconds.and_then(Timestamp::from_seconds).ok_or_else(|| refuse(cbor, "a Timestamp"))?)
        }
        Schema::Blob => Value::from(STANDARD.encode(cbor.as_bytes().ok_or_else(|| refuse(cbor, "a Blob"))?)),
        Schema::Document => return Err(refuse(cbor, "a Document")),
    })
}

fn integer(cbor: &Cbor, kind: &str) -> Result<i64, DecodeError> {
    cbor.as_integer().and_then(|number| i64::try_from(number).ok()).ok_or_else(|| refuse(cbor, kind))
}

fn number(cbor: &Cbor) -> Option<f64> {
    let whole = || cbor.as_integer().and_then(|number| i64::try_from(number).ok()).map(|number| number as f64);
    cbor.as_float().or_else(whole).filter(|number| number.is_finite())
}

fn refuse(cbor: &Cbor, kind: &str) -> DecodeError {
    let found = match cbor {
        Cbor::Null => "NULL_VALUE",
        Cbor::Bool(true) => "TRUE_VALUE",
        Cbor::Bool(false) => "FALSE_VALUE",
        Cbor::Integer(_) | Cbor::Float(_) => "NUMBER_VALUE",
        Cbor::Text(_) => "STRING_VALUE",
        Cbor::Bytes(_) => "BYTES_VALUE",
        Cbor::Array(_) => "START_ARRAY",
        Cbor::Map(_) => "START_OBJECT",
        _ => "TAG",
    };
    DecodeError::member(format!("{found} can not be converted to {kind}"))
}

/// Writes an answer, or an error's members.
pub fn encode(output: &Structure, value: &Value) -> Vec<u8> {
    bytes(&structure_to_cbor(output, value))
}

/// Writes an error: its name in `__type`, its text in `message`, as every JSON-like protocol has them.
pub fn render_error(name: &str, message: &str) -> Vec<u8> {
    let text = |text: &str| Cbor::Text(text.to_owned());
    bytes(&Cbor::Map(vec![(text("__type"), text(name)), (text("message"), text(message))]))
}

fn bytes(cbor: &Cbor) -> Vec<u8> {
    let mut out = Vec::new();
    ciborium::into_writer(cbor, &mut out).expect("a vector takes all");
    out
}

fn structure_to_cbor(schema: &Structure, value: &Value) -> Cbor {
    let present = schema.members.iter().filter_map(|member| Some((member, value.get(member.name).filter(|value| !value.is_null())?)));
    Cbor::Map(present.map(|(member, value)| (Cbor::Text(member.name.to_owned()), to_cbor(member.schema, value))).collect())
}

fn to_cbor(schema: &Schema, value: &Value) -> Cbor {
    match (schema, value) {
        (Schema::Structure(inner), value) => structure_to_cbor(inner, value),
        (Schema::List(list), Value::Array(items)) => Cbor::Array(items.iter().map(|item| to_cbor(list.item, item)).collect()),
        (Schema::Map(map), Value::Object(entries)) => {
            Cbor::Map(entries.iter().map(|(key, value)| (Cbor::Text(key.clone()), to_cbor(map.value, value))).collect())
        }
        (Schema::Timestamp(_), value) => Cbor::Tag(EPOCH, Box::new(plain(value))),
        (Schema::Blob, Value::String(text)) => Cbor::Bytes(STANDARD.decode(text).unwrap_or_default()),
        (Schema::Float | Schema::Double, value) => value.as_f64().map_or(Cbor::Null, Cbor::Float),
        (_, value) => plain(value),
    }
}

/// A scalar that needs no schema.
fn plain(value: &Value) -> Cbor {
    match value {
        Value::Bool(value) => Cbor::Bool(*value),
        Value::String(text) => Cbor::Text(text.clone()),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Cbor::Integer(whole.into()),
            None => number.as_f64().map_or(Cbor::Null, Cbor::Float),
        },
        _ => Cbor::Null,
    }
}
