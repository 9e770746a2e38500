//! Renders the static schema tables for services whose protocols are not JSON 1.0 or 1.1 alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use super::{
    model::{Model, Reference, Shape},
    names,
    plan::Plan,
};

/// Whether the service speaks AWS JSON, so that bodies are read straight into structures.
pub fn speaks_json(model: &Model) -> bool {
    protocols(model).any(|protocol| protocol == "json")
}

/// Whether it speaks a protocol that needs schemas.
pub fn needs_schemas(model: &Model) -> bool {
    protocols(model).any(|protocol| protocol != "json")
}

fn protocols(model: &Model) -> impl Iterator<Item = &str> {
    let metadata = &model.service.metadata;
    metadata.protocols.iter().chain([&metadata.protocol]).map(String::as_str)
}

/// The module `schemas.rs`.
pub fn render(plan: &Plan<'_>) -> String {
    let mut schemas = Schemas { plan, names: BTreeMap::new(), taken: BTreeSet::new(), out: String::new(), used: BTreeSet::new() };
    let mut arms = String::new();
    let mut operations = String::new();
    for (name, operation) in &plan.model.service.operations {
        let constant = schemas.unique(&format!("{}_OPERATION", names::field(name).trim_start_matches("r#").to_ascii_uppercase()));
        let input = schemas.top(operation.input.as_ref());
        let output = schemas.top(operation.output.as_ref());
        // botocore names only statuses other than 200.
        let status = operation.http.response_code.unwrap_or(200);
        let wrapper = operation.output.as_ref().and_then(|output| output.result_wrapper.as_deref());
        let prefix = operation.endpoint.as_ref().and_then(|endpoint| endpoint.host_prefix.as_deref());
        writeln!(
            operations,
            "static {constant}: schema::Operation = schema::Operation {{ name: {name:?}, method: {:?}, uri: {:?}, status: {status}, \
             result_wrapper: {wrapper:?}, host_prefix: {prefix:?}, input: {input}, output: {output} }};",
            operation.http.method, operation.http.request_uri
        )
        .expect("a string takes all");
        writeln!(arms, "Self::{name} => &{constant},").expect("a string takes all");
    }
    let used = schemas.used.iter().copied().collect::<Vec<_>>().join(", ");
    let import = if used.is_empty() { String::new() } else { format!("use crate::schema::{{{used}}};\n") };
    format!(
        "//! How the operations and their shapes look on the wire.

use super::Operation;
use crate::schema;
{import}
impl Operation {{
    /// How the operation looks on the wire.
    pub fn schema(self) -> &'static schema::Operation {{
        match self {{ {arms} }}
    }}
}}

{operations}
{}",
        schemas.out
    )
}

struct Schemas<'p, 'm> {
    plan: &'p Plan<'m>,
    /// Constants by shape name; set before a shape is rendered, so that a recursive shape ends.
    names: BTreeMap<String, String>,
    taken: BTreeSet<String>,
    out: String,
    /// Names of `crate::schema` that the tables use.
    used: BTreeSet<&'static str>,
}

impl Schemas<'_, '_> {
    fn unique(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        while !self.taken.insert(name.clone()) {
            name.push('_');
        }
        name
    }

    /// An operation's input or output: a structure by itself, not a schema.
    fn top(&mut self, reference: Option<&Reference>) -> String {
        self.used.insert("Structure");
        let Some(reference) = reference else { return "&Structure::EMPTY".to_owned() };
        let key = format!("{} (top)", reference.shape);
        if let Some(constant) = self.names.get(&key) {
            return format!("&{constant}");
        }
        let constant = self.unique(&format!("{}_MEMBERS", screaming(&reference.shape)));
        self.names.insert(key, constant.clone());
        let body = self.structure(&reference.shape, self.plan.shape(&reference.shape));
        writeln!(self.out, "\nstatic {constant}: Structure = {body};").expect("a string takes all");
        format!("&{constant}")
    }

    /// A reference to the schema of a shape.
    fn reference(&mut self, name: &str) -> String {
        self.used.insert("Schema");
        let shape = self.plan.shape(name);
        let plain = match shape.kind.as_str() {
            _ if shape.document => "Document",
            "string" | "character" => "String",
            "boolean" => "Boolean",
            "integer" => "Integer",
            "long" => "Long",
            "float" => "Float",
            "double" => "Double",
            "blob" => "Blob",
            "timestamp" => {
                let format = self.timestamp_format(shape.timestamp_format.as_deref());
                return format!("&Schema::Timestamp({format})");
            }
            _ => return self.compound(name, shape),
        };
        format!("&Schema::{plain}")
    }

    fn compound(&mut self, name: &str, shape: &Shape) -> String {
        if let Some(constant) = self.names.get(name) {
            return format!("&{constant}");
        }
        let constant = self.unique(&screaming(name));
        self.names.insert(name.to_owned(), constant.clone());
        let (kind, body) = match shape.kind.as_str() {
            "list" => {
                self.used.insert("List");
                let member = shape.member.as_ref().expect("the plan checked it");
                let item = self.reference(&member.shape);
                let body = format!("List {{ item: {item}, item_wire: {:?}, flattened: {} }}", member.location_name, shape.flattened);
                ("List", body)
            }
            "map" => {
                self.used.insert("Map");
                let (key, value) = (shape.key.as_ref().expect("the plan checked it"), shape.value.as_ref().expect("the plan checked it"));
                let inner = self.reference(&value.shape);
                let body = format!(
                    "Map {{ value: {inner}, key_wire: {:?}, value_wire: {:?}, flattened: {} }}",
                    key.location_name, value.location_name, shape.flattened
                );
                ("Map", body)
            }
            _ => ("Structure", self.structure(name, shape)),
        };
        writeln!(self.out, "\nstatic {constant}: Schema = Schema::{kind}({body});").expect("a string takes all");
        format!("&{constant}")
    }

    fn structure(&mut self, name: &str, shape: &Shape) -> String {
        self.used.insert("Structure");
        let mut members = String::new();
        for (wire, member) in &shape.members.0 {
            self.used.insert("Member");
            let schema = self.reference(&member.shape);
            let inner = self.plan.shape(&member.shape);
            let mut changes = Vec::new();
            changes.extend(member.location_name.as_ref().map(|name| format!("wire: Some({name:?})")));
            changes.extend(member.query_name.as_ref().map(|name| format!("query_name: Some({name:?})")));
            if let Some(location) = &member.location {
                self.used.insert("Location");
                let location = match location.as_str() {
                    "uri" => "Uri",
                    "querystring" => "Query",
                    "header" => "Header",
                    "headers" => "Headers",
                    "statusCode" => "Status",
                    _ => "Body",
                };
                changes.push(format!("location: Location::{location}"));
            }
            changes.extend(member.flattened.then(|| "flattened: true".to_owned()));
            changes.extend(member.xml_attribute.then(|| "xml_attribute: true".to_owned()));
            let streams = member.streaming || inner.streaming || inner.eventstream;
            changes.extend(streams.then(|| "streaming: true".to_owned()));
            if member.timestamp_format.is_some() {
                changes.push(format!("timestamp_format: {}", self.timestamp_format(member.timestamp_format.as_deref())));
            }
            let plain = format!("Member::new({wire:?}, {schema})");
            let text = if changes.is_empty() { plain } else { format!("Member {{ {}, ..{plain} }}", changes.join(", ")) };
            write!(members, "{text},").expect("a string takes all");
        }
        format!("Structure {{ name: {name:?}, members: &[{members}], payload: {:?} }}", shape.payload)
    }

    fn timestamp_format(&mut self, format: Option<&str>) -> String {
        let format = match format {
            Some("iso8601") => "Iso8601",
            Some("rfc822") => "Rfc822",
            Some("unixTimestamp") => "Unix",
            _ => return "None".to_owned(),
        };
        self.used.insert("TimestampFormat");
        format!("Some(TimestampFormat::{format})")
    }
}

fn screaming(name: &str) -> String {
    let name = names::field(name);
    name.trim_start_matches("r#").to_ascii_uppercase()
}
