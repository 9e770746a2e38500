//! The Query protocol (STS, IAM, ELB, Auto Scaling, CloudFormation, SNS) and its EC2 dialect: forms in, XML out. Wire
//! rules as in <https://smithy.io/2.0/aws/protocols/aws-query-protocol.html> and
//! <https://smithy.io/2.0/aws/protocols/aws-ec2-query-protocol.html>.

use serde_json::{Map as Object, Value};

use super::{
    DecodeError,
    form::{self, Node},
    scalar, xml,
};
use crate::schema::{List, Map, Member, Operation, Schema, Structure};

/// The two dialects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `Tags.member.1.Key`, an answer inside `<XResult>`.
    Query,
    /// `Tag.1.Key`, an answer without a wrapper.
    Ec2,
}

/// What a form asks for, before its operation is known.
///
/// # Errors
/// [`DecodeError::Unreadable`] when the text is no form.
pub fn action(form: &[u8]) -> Result<Option<String>, DecodeError> {
    Ok(form::pairs(form)?.into_iter().find(|(name, _)| name == "Action").map(|(_, action)| action))
}

/// Reads a form (a body, or the query string of a GET) into the canonical value. Fields the model does not have are
/// ignored.
///
/// # Errors
/// [`DecodeError`] when the text is no form or a field has another type.
pub fn decode(dialect: Dialect, input: &Structure, form: &[u8]) -> Result<Value, DecodeError> {
    structure(dialect, input, &form::tree(form)?)
}

fn structure(dialect: Dialect, schema: &Structure, node: &Node) -> Result<Value, DecodeError> {
    let mut object = Object::new();
    for member in schema.members {
        let name = field_name(dialect, member);
        let read = match member.schema {
            Schema::List(list) => list_member(dialect, member, list, &name, node),
            Schema::Map(map) => map_member(dialect, member, map, &name, node),
            schema => node.child(&name).map(|child| value(dialect, schema, child)).transpose(),
        };
        if let Some(value) = read.map_err(|error| error.inside(&name))? {
            object.insert(member.name.to_owned(), value);
        }
    }
    Ok(Value::Object(object))
}

/// The name of a member's fields: all that a form says of it stands under this name, or begins with it and a dot.
pub fn field_name(dialect: Dialect, member: &Member) -> String {
    match (dialect, member.query_name, member.wire) {
        (Dialect::Query, _, _) => member.wire_name().to_owned(),
        (Dialect::Ec2, Some(name), _) => name.to_owned(),
        // EC2 answers in camelCase and asks in PascalCase, and the model has only the former.
        (Dialect::Ec2, None, Some(wire)) => capitalised(wire),
        (Dialect::Ec2, None, None) => capitalised(member.name),
    }
}

fn capitalised(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

fn list_member(dialect: Dialect, member: &Member, list: &List, name: &str, node: &Node) -> Result<Option<Value>, DecodeError> {
    let flattened = member.flattened || list.flattened;
    // A flattened list of named items stands under the item's name, not its own.
    let name = if flattened && dialect == Dialect::Query { list.item_wire.unwrap_or(name) } else { name };
    node.child(name).map(|child| items(dialect, list, flattened, child)).transpose()
}

fn items(dialect: Dialect, list: &List, flattened: bool, node: &Node) -> Result<Value, DecodeError> {
    let holder = if flattened || dialect == Dialect::Ec2 { Some(node) } else { node.child(list.item_wire.unwrap_or("member")) };
    let items = holder.map(Node::numbered).unwrap_or_default();
    let read = |(index, item): (usize, &Node)| value(dialect, list.item, item).map_err(|error| error.inside(&format!("[{index}]")));
    items.into_iter().enumerate().map(read).collect::<Result<Vec<_>, _>>().map(Value::Array)
}

fn map_member(dialect: Dialect, member: &Member, map: &Map, name: &str, node: &Node) -> Result<Option<Value>, DecodeError> {
    node.child(name).map(|child| entries(dialect, map, member.flattened || map.flattened, child)).transpose()
}

fn entries(dialect: Dialect, map: &Map, flattened: bool, node: &Node) -> Result<Value, DecodeError> {
    let holder = if flattened { Some(node) } else { node.child("entry") };
    let mut object = Object::new();
    for entry in holder.map(Node::numbered).unwrap_or_default() {
        let Some(key) = entry.child(map.key_wire.unwrap_or("key")).and_then(|key| key.value.clone()) else {
            return Err(DecodeError::member("a map entry has no key"));
        };
        if let Some(child) = entry.child(map.value_wire.unwrap_or("value")) {
            let value = value(dialect, map.value, child).map_err(|error| error.inside(&key))?;
            object.insert(key, value);
        }
    }
    Ok(Value::Object(object))
}

fn value(dialect: Dialect, schema: &Schema, node: &Node) -> Result<Value, DecodeError> {
    match schema {
        Schema::Structure(inner) => structure(dialect, inner, node),
        Schema::List(list) => items(dialect, list, list.flattened, node),
        Schema::Map(map) => entries(dialect, map, map.flattened, node),
        schema => scalar::read(schema, node.value.as_deref().unwrap_or_default()),
    }
}

/// Writes a good answer.
pub fn render_response(dialect: Dialect, operation: &Operation, value: &Value, namespace: &str, request_id: &str) -> String {
    let mut out = xml::Writer::new();
    out.open_with(&format!("{}Response", operation.name), &[("xmlns", namespace)]);
    match dialect {
        Dialect::Query => {
            let wrapper = operation.result_wrapper;
            if let Some(wrapper) = wrapper {
                out.open(wrapper);
            }
            out.members(operation.output, value, "member");
            if let Some(wrapper) = wrapper {
                out.close(wrapper);
            }
            out.open("ResponseMetadata");
            out.text("RequestId", request_id);
            out.close("ResponseMetadata");
        }
        Dialect::Ec2 => {
            out.text("requestId", request_id);
            if operation.output.members.is_empty() {
                // The models leave it out; EC2 says it where it has nothing else to say.
                out.text("return", "true");
            }
            out.members(operation.output, value, "item");
        }
    }
    out.close(&format!("{}Response", operation.name));
    out.finish()
}

/// Writes an error. `code` is what clients branch on; `senders_fault` is false for failures of ours.
pub fn render_error(dialect: Dialect, code: &str, message: &str, senders_fault: bool, namespace: &str, request_id: &str) -> String {
    let mut out = xml::Writer::new();
    match dialect {
        Dialect::Query => {
            out.open_with("ErrorResponse", &[("xmlns", namespace)]);
            out.open("Error");
            out.text("Type", if senders_fault { "Sender" } else { "Receiver" });
            out.text("Code", code);
            out.text("Message", message);
            out.close("Error");
            out.text("RequestId", request_id);
            out.close("ErrorResponse");
        }
        Dialect::Ec2 => {
            out.open("Response");
            out.open("Errors");
            out.open("Error");
            out.text("Code", code);
            out.text("Message", message);
            out.close("Error");
            out.close("Errors");
            out.text("RequestID", request_id);
            out.close("Response");
        }
    }
    out.finish()
}
