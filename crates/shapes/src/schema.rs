//! Static descriptions of shapes, for the protocols whose wire form differs from JSON's. Facts of the model only.

/// What a value looks like on the wire.
#[derive(Debug)]
pub enum Schema {
    /// A structure.
    Structure(Structure),
    /// A list.
    List(List),
    /// A map with string keys.
    Map(Map),
    /// A string, an enum included.
    String,
    /// A boolean.
    Boolean,
    /// A 32-bit integer.
    Integer,
    /// A 64-bit integer.
    Long,
    /// A single-precision number.
    Float,
    /// A double-precision number.
    Double,
    /// A timestamp, with the format its shape asks for.
    Timestamp(Option<TimestampFormat>),
    /// Bytes.
    Blob,
    /// Any JSON value.
    Document,
}

/// A structure's members.
#[derive(Debug)]
pub struct Structure {
    /// The shape's name in the model.
    pub name: &'static str,
    /// The members, in the model's order.
    pub members: &'static [Member],
    /// The member that is the whole body (REST protocols).
    pub payload: Option<&'static str>,
}

impl Structure {
    /// The structure of an operation without input or output.
    pub const EMPTY: Self = Self { name: "", members: &[], payload: None };
}

/// A member of a structure.
#[derive(Debug)]
pub struct Member {
    /// The member's name in the model, which is its name in the canonical value.
    pub name: &'static str,
    /// The shape, by reference: shapes may be recursive.
    pub schema: &'static Schema,
    /// `locationName`: another name on the wire.
    pub wire: Option<&'static str>,
    /// `queryName`: another name in an EC2 form.
    pub query_name: Option<&'static str>,
    /// Where in an HTTP message it stands.
    pub location: Location,
    /// Whether a list or map stands without an element around it.
    pub flattened: bool,
    /// Whether it is an attribute of the XML element, not an element.
    pub xml_attribute: bool,
    /// Whether it is a stream, to be read as it comes.
    pub streaming: bool,
    /// A format of its own for a timestamp.
    pub timestamp_format: Option<TimestampFormat>,
}

impl Member {
    /// A plain member: in the body, under its own name. The others are written as changes to it.
    pub const fn new(name: &'static str, schema: &'static Schema) -> Self {
        Self {
            name,
            schema,
            wire: None,
            query_name: None,
            location: Location::Body,
            flattened: false,
            xml_attribute: false,
            streaming: false,
            timestamp_format: None,
        }
    }

    /// The name on the wire.
    pub fn wire_name(&self) -> &'static str {
        self.wire.unwrap_or(self.name)
    }
}

/// Where in an HTTP message a member stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Location {
    /// In the body.
    Body,
    /// In the path, as a label of the URI template.
    Uri,
    /// In the query string.
    Query,
    /// In one header.
    Header,
    /// In all headers that begin with the member's wire name.
    Headers,
    /// The status code of an answer.
    Status,
}

/// A list.
#[derive(Debug)]
pub struct List {
    /// The items' shape.
    pub item: &'static Schema,
    /// The items' element name in XML.
    pub item_wire: Option<&'static str>,
    /// Whether the shape itself asks to be flattened, wherever it stands.
    pub flattened: bool,
}

/// A map with string keys.
#[derive(Debug)]
pub struct Map {
    /// The values' shape.
    pub value: &'static Schema,
    /// The keys' element name in XML; `key` by default.
    pub key_wire: Option<&'static str>,
    /// The values' element name in XML; `value` by default.
    pub value_wire: Option<&'static str>,
    /// Whether the shape itself asks to be flattened, wherever it stands.
    pub flattened: bool,
}

/// How a timestamp is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampFormat {
    /// `2024-11-21T03:53:54.123Z`
    Iso8601,
    /// `Thu, 21 Nov 2024 03:53:54 GMT`
    Rfc822,
    /// `1732161234.123`
    Unix,
}

/// An operation, as the protocols see it.
#[derive(Debug)]
pub struct Operation {
    /// The name.
    pub name: &'static str,
    /// The HTTP method.
    pub method: &'static str,
    /// The URI template, for example `/schedules/{Name}`.
    pub uri: &'static str,
    /// The status of a good answer.
    pub status: u16,
    /// The element around an XML answer's members, for example `AssumeRoleResult`.
    pub result_wrapper: Option<&'static str>,
    /// What SDKs put before the host's name, for example `data-`.
    pub host_prefix: Option<&'static str>,
    /// The request.
    pub input: &'static Structure,
    /// The answer.
    pub output: &'static Structure,
}
