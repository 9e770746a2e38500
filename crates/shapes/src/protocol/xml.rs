//! Writes XML answers by schema. It only writes: no AWS service that Berth speaks takes XML in.

use serde_json::Value;

use super::scalar;
use crate::schema::{List, Map, Member, Schema, Structure, TimestampFormat};

/// A document being written.
#[derive(Debug)]
pub struct Writer {
    out: String,
}

impl Writer {
    /// An empty document.
    pub fn new() -> Self {
        Self { out: String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n") }
    }

    /// The document.
    pub fn finish(self) -> String {
        self.out
    }

    /// An opening tag.
    pub fn open(&mut self, name: &str) {
        self.open_with(name, &[]);
    }

    /// An opening tag with attributes.
    pub fn open_with(&mut self, name: &str, attributes: &[(&str, &str)]) {
        self.out.push('<');
        self.out.push_str(name);
        for (attribute, value) in attributes {
            self.out.push(' ');
            self.out.push_str(attribute);
            self.out.push_str("=\"");
            self.escape(value);
            self.out.push('"');
        }
        self.out.push('>');
    }

    /// A closing tag.
    pub fn close(&mut self, name: &str) {
        self.out.push_str("</");
        self.out.push_str(name);
        self.out.push('>');
    }

    /// An element that holds only text.
    pub fn text(&mut self, name: &str, text: &str) {
        self.open(name);
        self.escape(text);
        self.close(name);
    }

    /// The members of a structure. `item` is what the protocol calls a list's items where the model does not say.
    pub fn members(&mut self, schema: &Structure, value: &Value, item: &str) {
        for member in schema.members.iter().filter(|member| !member.xml_attribute) {
            if let Some(value) = value.get(member.name).filter(|value| !value.is_null()) {
                self.member(member, value, item);
            }
        }
    }

    fn member(&mut self, member: &Member, value: &Value, item: &str) {
        let name = member.wire_name();
        match member.schema {
            Schema::List(list) if member.flattened || list.flattened => {
                // A flattened list of named items stands under the item's name, not its own.
                let name = list.item_wire.unwrap_or(name);
                value.as_array().into_iter().flatten().for_each(|value| self.element(name, list.item, value, item));
            }
            Schema::Map(map) if member.flattened || map.flattened => self.entries(name, map, value, item),
            Schema::Timestamp(_) => {
                let text = scalar::write(member.schema, value, member.timestamp_format, TimestampFormat::Iso8601);
                self.text(name, &text);
            }
            schema => self.element(name, schema, value, item),
        }
    }

    fn element(&mut self, name: &str, schema: &Schema, value: &Value, item: &str) {
        match schema {
            Schema::Structure(inner) => {
                let attributes: Vec<(&str, String)> = inner
                    .members
                    .iter()
                    .filter(|member| member.xml_attribute)
                    .filter_map(|member| Some((member, value.get(member.name)?)))
                    .map(|(member, value)| (member.wire_name(), scalar::write(member.schema, value, None, TimestampFormat::Iso8601)))
                    .collect();
                let attributes: Vec<(&str, &str)> = attributes.iter().map(|(name, value)| (*name, value.as_str())).collect();
                self.open_with(name, &attributes);
                self.members(inner, value, item);
                self.close(name);
            }
            Schema::List(list) => {
                self.open(name);
                self.items(list, value, item);
                self.close(name);
            }
            Schema::Map(map) => {
                self.open(name);
                self.entries("entry", map, value, item);
                self.close(name);
            }
            schema => self.text(name, &scalar::write(schema, value, None, TimestampFormat::Iso8601)),
        }
    }

    fn items(&mut self, list: &List, value: &Value, item: &str) {
        let name = list.item_wire.unwrap_or(item);
        value.as_array().into_iter().flatten().for_each(|value| self.element(name, list.item, value, item));
    }

    fn entries(&mut self, name: &str, map: &Map, value: &Value, item: &str) {
        for (key, value) in value.as_object().into_iter().flatten() {
            self.open(name);
            self.text(map.key_wire.unwrap_or("key"), key);
            self.element(map.value_wire.unwrap_or("value"), map.value, value, item);
            self.close(name);
        }
    }

    fn escape(&mut self, text: &str) {
        for letter in text.chars() {
            match letter {
                '&' => self.out.push_str("&amp;"),
                '<' => self.out.push_str("&lt;"),
                '>' => self.out.push_str("&gt;"),
                '"' => self.out.push_str("&quot;"),
                // A parser would turn it into a line feed.
                '\r' => self.out.push_str("&#xD;"),
                '\t' | '\n' => self.out.push(letter),
                // XML 1.0 has no way to write the others, not even escaped.
                '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}' => self.out.push('\u{fffd}'),
                letter => self.out.push(letter),
            }
        }
    }
}
