//! The REST-JSON protocol (EventBridge Scheduler, Lambda, EFS): members in the path, the query string, headers and a
//! JSON body. Wire rules as in <https://smithy.io/2.0/aws/protocols/aws-restjson1-protocol.html>.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map as Object, Value};

use super::{DecodeError, form, json, scalar, token, uri};
use crate::{
    Timestamp,
    schema::{Location, Member, Operation, Schema, Structure, TimestampFormat},
};

/// A request, as far as the protocol looks at it.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The method.
    pub method: &'a str,
    /// The path as it came, percent-encoded.
    pub path: &'a str,
    /// The query string as it came, without the question mark.
    pub query: &'a str,
    /// Headers, names in lower case.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub body: &'a [u8],
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Headers that members ask for; none of HTTP's own.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// Finds the operation that a request is for: of those whose template fits, the most literal one.
///
/// # Errors
/// [`DecodeError::Unreadable`] when the query string is none.
pub fn route<'o>(operations: impl IntoIterator<Item = &'o Operation>, message: &Message<'_>) -> Result<Option<&'o Operation>, DecodeError> {
    let query = form::pairs(message.query.as_bytes())?;
    let fits = operations
        .into_iter()
        .filter(|operation| operation.method == message.method)
        .filter_map(|operation| Some((uri::fit(operation.uri, message.path, &query)?.0, operation)));
    Ok(fits.max_by(|(one, _), (other, _)| one.cmp(other)).map(|(_, operation)| operation))
}

/// Reads a request for an operation that [`route`] found into the canonical value.
///
/// # Errors
/// [`DecodeError`] when the body is not JSON or a member has another type.
pub fn decode(operation: &Operation, message: &Message<'_>) -> Result<Value, DecodeError> {
    let query = form::pairs(message.query.as_bytes())?;
    let labels = uri::fit(operation.uri, message.path, &query).map(|(_, labels)| labels).unwrap_or_default();
    let mut object = body_members(operation.input, message.body)?;
    for member in operation.input.members {
        let wire = member.wire_name();
        let read = match member.location {
            Location::Body | Location::Status => Ok(None),
            Location::Uri => match labels.iter().find(|(name, _)| *name == wire) {
                Some((_, text)) => uri::label(text).and_then(|text| scalar::read(member.schema, &text)).map(Some),
                None => Ok(None),
            },
            Location::Query => query_member(member, &query),
            Location::Header => match message.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wire)) {
                Some((_, text)) => header_member(member, text).map(Some),
                None => Ok(None),
            },
            Location::Headers => Ok(prefixed_headers(wire, message.headers)),
        };
        if let Some(value) = read.map_err(|error| error.inside(member.name))? {
            object.insert(member.name.to_owned(), value);
        }
    }
    Ok(Value::Object(object))
}

fn body_members(input: &Structure, body: &[u8]) -> Result<Object<String, Value>, DecodeError> {
    let mut object = Object::new();
    if let Some(payload) = input.payload {
        let member = input.members.iter().find(|member| member.name == payload).expect("the model has the member it names");
        let value = match member.schema {
            Schema::Blob => Value::from(STANDARD.encode(body)),
            Schema::String => match std::str::from_utf8(body) {
                Ok(text) => Value::from(text),
                Err(_) => return Err(DecodeError::member("a body that is not UTF-8").inside(payload)),
            },
            _ if body.trim_ascii().is_empty() => return Ok(object),
            schema => from_wire(schema, &json::decode::<Value>(body)?).map_err(|error| error.inside(payload))?,
        };
        object.insert(payload.to_owned(), value);
    } else if input.members.iter().any(|member| member.location == Location::Body) {
        let body: Value = json::decode(body)?;
        if !body.is_object() {
            return Err(DecodeError::NotAnObject { found: token(&body) });
        }
        if let Value::Object(members) = structure_from_wire(input, &body)? {
            object = members;
        }
    }
    Ok(object)
}

fn query_member(member: &Member, query: &[(String, String)]) -> Result<Option<Value>, DecodeError> {
    if let Schema::Map(map) = member.schema {
        // All pairs that no other member claims would belong to it; services with such a map name none besides.
        let mut object = Object::new();
        for (name, text) in query {
            let value = match map.value {
                Schema::List(list) => {
                    let mut items = object.remove(name).and_then(|value| value.as_array().cloned()).unwrap_or_default();
                    items.push(scalar::read(list.item, text)?);
                    Value::Array(items)
                }
                schema => scalar::read(schema, text)?,
            };
            object.insert(name.clone(), value);
        }
        return Ok((!object.is_empty()).then_some(Value::Object(object)));
    }
    let mut texts = query.iter().filter(|(name, _)| name == member.wire_name()).map(|(_, text)| text.as_str()).peekable();
    if texts.peek().is_none() {
        return Ok(None);
    }
    match member.schema {
        Schema::List(list) => {
            let items: Result<Vec<_>, _> = texts.map(|text| scalar::read(list.item, text)).collect();
            items.map(|items| Some(Value::Array(items)))
        }
        schema => texts.next().map(|text| scalar::read(schema, text)).transpose(),
    }
}

fn header_member(member: &Member, text: &str) -> Result<Value, DecodeError> {
    match member.schema {
        Schema::List(list) => {
            text.split(',').map(|item| scalar::read(list.item, item.trim())).collect::<Result<Vec<_>, _>>().map(Value::Array)
        }
        schema => scalar::read(schema, text.trim()),
    }
}

fn prefixed_headers(prefix: &str, headers: &[(&str, &str)]) -> Option<Value> {
    let prefix = prefix.to_ascii_lowercase();
    let taken =
        headers.iter().filter_map(|(name, text)| Some((name.to_ascii_lowercase().strip_prefix(&prefix)?.to_owned(), Value::from(*text))));
    let object: Object<String, Value> = taken.collect();
    (!object.is_empty()).then_some(Value::Object(object))
}

/// Writes a good answer.
pub fn render_response(operation: &Operation, value: &Value) -> Answer {
    let mut answer = Answer { status: operation.status, headers: Vec::new(), body: Vec::new() };
    for member in operation.output.members {
        let Some(value) = value.get(member.name).filter(|value| !value.is_null()) else { continue };
        match (member.location, member.schema) {
            (Location::Status, _) => answer.status = value.as_u64().and_then(|status| u16::try_from(status).ok()).unwrap_or(answer.status),
            (Location::Headers, _) => {
                let texts = value.as_object().into_iter().flatten();
                let named = texts.filter_map(|(name, text)| Some((format!("{}{name}", member.wire_name()), text.as_str()?.to_owned())));
                answer.headers.extend(named);
            }
            (Location::Header, Schema::List(list)) => {
                let items = value.as_array().into_iter().flatten();
                let texts: Vec<String> =
                    items.map(|item| scalar::write(list.item, item, member.timestamp_format, TimestampFormat::Rfc822)).collect();
                answer.headers.push((member.wire_name().to_owned(), texts.join(",")));
            }
            (Location::Header, schema) => {
                let text = scalar::write(schema, value, member.timestamp_format, TimestampFormat::Rfc822);
                answer.headers.push((member.wire_name().to_owned(), text));
            }
            _ => {}
        }
    }
    answer.body = match operation.output.payload {
        Some(payload) => {
            let member = operation.output.members.iter().find(|member| member.name == payload).expect("the model has the member it names");
            match (member.schema, value.get(payload)) {
                (_, None | Some(Value::Null)) => Vec::new(),
                (Schema::Blob, Some(Value::String(text))) => STANDARD.decode(text).unwrap_or_default(),
                (Schema::String, Some(Value::String(text))) => text.clone().into_bytes(),
                (schema, Some(value)) => to_wire(schema, value, None).to_string().into_bytes(),
            }
        }
        None => structure_to_wire(operation.output, value).to_string().into_bytes(),
    };
    answer
}

/// Turns a JSON body value into the canonical one: other names, other timestamps.
fn from_wire(schema: &Schema, value: &Value) -> Result<Value, DecodeError> {
    let refuse = |kind: &str| DecodeError::member(format!("{} can not be converted to {kind}", token(value)));
    Ok(match schema {
        Schema::Structure(_) if !value.is_object() => return Err(refuse("a Structure")),
        Schema::Structure(inner) => structure_from_wire(inner, value)?,
        Schema::List(list) => {
            let items = value.as_array().ok_or_else(|| refuse("a List"))?;
            let read = |(index, item)| from_wire(list.item, item).map_err(|error| error.inside(&format!("[{index}]")));
            Value::Array(items.iter().enumerate().map(read).collect::<Result<_, _>>()?)
        }
        Schema::Map(map) => {
            let entries = value.as_object().ok_or_else(|| refuse("a Map"))?;
            let read = |(key, value): (&String, &Value)| Ok((key.clone(), from_wire(map.value, value).map_err(|error| error.inside(key))?));
            Value::Object(entries.iter().filter(|(_, value)| !value.is_null()).map(read).collect::<Result<_, DecodeError>>()?)
        }
        Schema::Timestamp(_) => match value {
            Value::String(text) => scalar::timestamp(Timestamp::parse(text).ok_or_else(|| refuse("a Timestamp"))?),
            value => scalar::timestamp(value.as_f64().and_then(Timestamp::from_seconds).ok_or_else(|| refuse("a Timestamp"))?),
        },
        // The structures check the other scalars when they are made of the value.
        _ => value.clone(),
    })
}

fn structure_from_wire(schema: &Structure, value: &Value) -> Result<Value, DecodeError> {
    let mut object = Object::new();
    for member in schema.members.iter().filter(|member| member.location == Location::Body) {
        if let Some(value) = value.get(member.wire_name()).filter(|value| !value.is_null()) {
            let value = from_wire(member.schema, value).map_err(|error| error.inside(member.name))?;
            object.insert(member.name.to_owned(), value);
        }
    }
    Ok(Value::Object(object))
}

fn to_wire(schema: &Schema, value: &Value, member: Option<TimestampFormat>) -> Value {
    match (schema, value) {
        (Schema::Structure(inner), value) => structure_to_wire(inner, value),
        (Schema::List(list), Value::Array(items)) => items.iter().map(|item| to_wire(list.item, item, None)).collect(),
        (Schema::Map(map), Value::Object(entries)) => {
            entries.iter().map(|(key, value)| (key.clone(), to_wire(map.value, value, None))).collect()
        }
        (Schema::Timestamp(shape), value) => match member.or(*shape).unwrap_or(TimestampFormat::Unix) {
            TimestampFormat::Unix => value.clone(),
            format => Value::from(scalar::write(schema, value, Some(format), format)),
        },
        (_, value) => value.clone(),
    }
}

fn structure_to_wire(schema: &Structure, value: &Value) -> Value {
    let members = schema.members.iter().filter(|member| member.location == Location::Body);
    let present = members.filter_map(|member| Some((member, value.get(member.name).filter(|value| !value.is_null())?)));
    present.map(|(member, value)| (member.wire_name().to_owned(), to_wire(member.schema, value, member.timestamp_format))).collect()
}
