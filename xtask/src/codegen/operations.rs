//! Renders what a service offers as a whole: its operations, errors, waiters and constants.

use std::{collections::BTreeSet, fmt::Write as _};

use super::{
    model::Shape,
    plan::{Plan, Role},
    schemas,
};

/// The module `operation.rs`.
pub fn render_operations(plan: &Plan<'_>) -> String {
    let operations = &plan.model.service.operations;
    let names: Vec<&str> = operations.keys().map(String::as_str).collect();
    let mut variants = String::new();
    let mut errors = String::new();
    let mut pages = String::new();
    for (name, operation) in operations {
        writeln!(variants, "/// `{name}`.\n{name},").expect("a string takes all");
        let mut codes: Vec<String> = operation.errors.iter().map(|error| format!("ErrorCode::{}", error_variant(&error.shape))).collect();
        codes.sort();
        codes.dedup();
        writeln!(errors, "Self::{name} => &[{}],", codes.join(", ")).expect("a string takes all");
        if let Some(paginator) = plan.model.paginators.pagination.get(name) {
            writeln!(
                pages,
                "Self::{name} => Some(Paginator {{ input_token: &{:?}, output_token: &{:?}, limit_key: {:?}, result_key: &{:?} }}),",
                paginator.input_token.as_slice(),
                paginator.output_token.as_slice(),
                paginator.limit_key,
                paginator.result_key.as_slice()
            )
            .expect("a string takes all");
        }
    }
    let pages = matched(&pages, plan.model.paginators.pagination.len() < operations.len(), "None");
    let all = names.iter().map(|name| format!("Self::{name}")).collect::<Vec<_>>().join(", ");
    let to_name = names.iter().map(|name| format!("Self::{name} => {name:?},")).collect::<String>();
    let from_name = names.iter().map(|name| format!("{name:?} => Self::{name},")).collect::<String>();
    let count = names.len();
    format!(
        "//! The operations of the service.

use super::ErrorCode;
use crate::Paginator;

/// An operation of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {{
{variants}}}

impl Operation {{
    /// All operations, by name.
    pub const ALL: [Self; {count}] = [{all}];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {{
        match self {{ {to_name} }}
    }}

    /// The operation of this name; `None` where the model has none.
    pub fn from_name(name: &str) -> Option<Self> {{
        Some(match name {{ {from_name} _ => return None, }})
    }}

    /// The errors that the model lists for the operation.
    pub const fn errors(self) -> &'static [ErrorCode] {{
        match self {{ {errors} }}
    }}

    /// How the operation's results are paged, where they are.
    pub const fn paginator(self) -> Option<Paginator> {{
        {pages}
    }}
}}

impl std::fmt::Display for Operation {{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {{
        f.write_str(self.name())
    }}
}}
"
    )
}

/// The body of a function over `self`: the arms, and for whatever they leave the default.
fn matched(arms: &str, incomplete: bool, default: &str) -> String {
    match (arms, incomplete) {
        ("", _) => default.to_owned(),
        (arms, true) => format!("match self {{ {arms} _ => {default}, }}"),
        (arms, false) => format!("match self {{ {arms} }}"),
    }
}

/// The variant of an error shape. The suffix that nearly all share says nothing.
fn error_variant(shape: &str) -> String {
    let short = ["Exception", "Fault", "Error"].iter().find_map(|suffix| shape.strip_suffix(suffix)).filter(|short| !short.is_empty());
    let name = super::names::shape(short.unwrap_or(shape));
    if name == "SelfShape" { "SelfValue".to_owned() } else { name }
}

/// The code that clients branch on.
fn error_code<'m>(name: &'m str, shape: &'m Shape) -> &'m str {
    shape.error.as_ref().and_then(|error| error.code.as_deref()).unwrap_or(name)
}

fn error_status(shape: &Shape) -> u16 {
    let modelled = shape.error.as_ref().and_then(|error| error.http_status_code);
    // Protocol default where the model names no status: the sender's fault, unless it says it is ours.
    modelled.unwrap_or(if shape.fault { 500 } else { 400 })
}

/// `error_code.rs` of a service like EC2, whose model lists no errors.
const NO_ERRORS: &str = "//! The errors of the service: the model lists none.

/// An error that the model lists; there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorCode {}

impl ErrorCode {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {}
    }
}
";

/// The module `error_code.rs`.
pub fn render_errors(plan: &Plan<'_>) -> String {
    let errors = plan.errors();
    if errors.is_empty() {
        return NO_ERRORS.to_owned();
    }
    // Two shapes may differ in the suffix only; then the variant must not.
    let mut taken = BTreeSet::new();
    let mut rows = Vec::new();
    for (name, shape) in &errors {
        let variant = error_variant(name);
        if taken.insert(variant.clone()) {
            rows.push((variant, *name, *shape));
        }
    }
    let variants = rows.iter().map(|(variant, name, _)| format!("/// `{name}`.\n{variant},\n")).collect::<String>();
    let all = rows.iter().map(|(variant, ..)| format!("Self::{variant}")).collect::<Vec<_>>().join(", ");
    let codes = rows.iter().map(|(variant, name, shape)| format!("Self::{variant} => {:?},", error_code(name, shape))).collect::<String>();
    let shapes = rows.iter().map(|(variant, name, _)| format!("Self::{variant} => {name:?},")).collect::<String>();
    let mut seen = BTreeSet::new();
    let from = rows
        .iter()
        .filter(|(_, name, shape)| seen.insert(error_code(name, shape)))
        .map(|(variant, name, shape)| format!("{:?} => Self::{variant},", error_code(name, shape)))
        .collect::<String>();
    let count = rows.len();
    let odd = |rows: Vec<(String, String)>, default: &str| {
        let arms = rows.iter().map(|(variant, value)| format!("Self::{variant} => {value},")).collect::<String>();
        matched(&arms, rows.len() < count, default)
    };
    let statuses = odd(
        rows.iter()
            .filter(|(_, _, shape)| error_status(shape) != 400)
            .map(|(variant, _, shape)| (variant.clone(), error_status(shape).to_string()))
            .collect(),
        "400",
    );
    let members = odd(
        rows.iter()
            .map(|(variant, _, shape)| {
                let extra: Vec<&str> =
                    shape.members.0.iter().map(|(name, _)| name.as_str()).filter(|name| !name.eq_ignore_ascii_case("message")).collect();
                (variant.clone(), extra)
            })
            .filter(|(_, extra)| !extra.is_empty())
            .map(|(variant, extra)| (variant, format!("&{extra:?}")))
            .collect(),
        "&[]",
    );
    format!(
        "//! The errors of the service.

/// An error that the model lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorCode {{
{variants}}}

impl ErrorCode {{
    /// All errors, by shape name.
    pub const ALL: [Self; {count}] = [{all}];

    /// The name on the wire, on which clients branch.
    pub const fn name(self) -> &'static str {{
        match self {{ {codes} }}
    }}

    /// The name of the error's shape in the model; what SDKs call the exception.
    pub const fn shape_name(self) -> &'static str {{
        match self {{ {shapes} }}
    }}

    /// The error of this wire name; `None` where the model has none.
    pub fn from_name(name: &str) -> Option<Self> {{
        Some(match name {{ {from} _ => return None, }})
    }}

    /// The HTTP status it is answered with.
    pub const fn http_status(self) -> u16 {{
        {statuses}
    }}

    /// Members it carries besides its message.
    pub const fn members(self) -> &'static [&'static str] {{
        {members}
    }}
}}

impl std::fmt::Display for ErrorCode {{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {{
        f.write_str(self.name())
    }}
}}
"
    )
}

/// The module `request.rs`.
pub fn render_request(plan: &Plan<'_>) -> String {
    let names: Vec<&str> = plan.model.service.operations.keys().map(String::as_str).collect();
    let each = |form: &dyn Fn(&str) -> String| names.iter().map(|name| form(name)).collect::<String>();
    let imports = names.iter().map(|name| format!("{name}Request")).collect::<Vec<_>>().join(", ");
    let variants = each(&|name| format!("/// `{name}`.\n{name}(Box<{name}Request>),\n"));
    let operations = each(&|name| format!("Self::{name}(_) => Operation::{name},"));
    let checks = each(&|name| format!("Self::{name}(request) => request.validate(),"));
    let mut readers = String::new();
    let mut uses = Vec::new();
    if schemas::speaks_json(plan.model) {
        uses.push("protocol::json");
        let arms = each(&|name| format!("Operation::{name} => json::decode(body).map(Self::{name}),"));
        write!(
            readers,
            "/// Reads the JSON body of a request.
    ///
    /// # Errors
    /// [`DecodeError`] as [`json::decode`] has it.
    pub fn decode(operation: Operation, body: &[u8]) -> Result<Self, DecodeError> {{
        match operation {{ {arms} }}
    }}\n\n"
        )
        .expect("a string takes all");
    }
    if schemas::needs_schemas(plan.model) {
        uses.push("protocol::from_value");
        let arms = each(&|name| format!("Operation::{name} => from_value(value).map(Self::{name}),"));
        write!(
            readers,
            "/// Makes a request of the canonical value that a protocol's codec read.
    ///
    /// # Errors
    /// [`DecodeError`] as [`from_value`] has it.
    pub fn from_value(operation: Operation, value: serde_json::Value) -> Result<Self, DecodeError> {{
        match operation {{ {arms} }}
    }}\n\n"
        )
        .expect("a string takes all");
    }
    let uses = uses.join(", ");
    format!(
        "//! Any request of the service, as the edge hands it on.

use super::{{Operation, {imports}}};
use crate::{{{uses}, validate::{{Validate as _, Violations}}, DecodeError}};

/// A decoded request: one variant per operation.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {{
{variants}}}

impl Request {{
    {readers}    /// The operation that is asked for.
    pub const fn operation(&self) -> Operation {{
        match self {{ {operations} }}
    }}

    /// Checks the request against the model.
    ///
    /// # Errors
    /// All violations of required members, enum sets, ranges, lengths and patterns.
    pub fn validate(&self) -> Result<(), Violations> {{
        match self {{ {checks} }}
    }}
}}
"
    )
}

/// The module `waiters.rs`.
pub fn render_waiters(plan: &Plan<'_>) -> String {
    let waiters = &plan.model.waiters.waiters;
    let rows = waiters
        .iter()
        .map(|(name, waiter)| {
            format!(
                "Waiter {{ name: {name:?}, operation: {:?}, delay: {}, max_attempts: {} }},",
                waiter.operation, waiter.delay, waiter.max_attempts
            )
        })
        .collect::<String>();
    format!(
        "//! The waiters that every SDK ships for the service.

use crate::Waiter;

/// All waiters, by name.
pub const WAITERS: [Waiter; {}] = [{rows}];
",
        waiters.len()
    )
}

/// The module `mod.rs`.
pub fn render_module(plan: &Plan<'_>) -> String {
    let metadata = &plan.model.service.metadata;
    let signing_name = metadata.signing_name.as_ref().unwrap_or(&metadata.endpoint_prefix);
    let mut constants = format!(
        "/// The service's id in the SDKs.
pub const SERVICE_ID: &str = {:?};

/// The model's version.
pub const API_VERSION: &str = {:?};

/// The name that SigV4 signs.
pub const SIGNING_NAME: &str = {signing_name:?};

/// The host's first label: `{{ENDPOINT_PREFIX}}.{{region}}.amazonaws.com`.
pub const ENDPOINT_PREFIX: &str = {:?};
",
        metadata.service_id, metadata.api_version, metadata.endpoint_prefix
    );
    if let Some(prefix) = &metadata.target_prefix {
        write!(constants, "\n/// What stands before the operation in `X-Amz-Target`.\npub const TARGET_PREFIX: &str = {prefix:?};\n")
            .expect("a string takes all");
    }
    if let Some(version) = &metadata.json_version {
        write!(
            constants,
            "\n/// The version in the content type `application/x-amz-json-*`.\npub const JSON_VERSION: &str = {version:?};\n"
        )
        .expect("a string takes all");
    }
    if let Some(namespace) = &metadata.xml_namespace {
        write!(constants, "\n/// The namespace of XML answers.\npub const XML_NAMESPACE: &str = {:?};\n", namespace.uri())
            .expect("a string takes all");
    }
    let schemas = if schemas::needs_schemas(plan.model) { "mod schemas;\n" } else { "" };
    // A glob of nothing is a warning.
    let enums = if plan.enums.is_empty() { "" } else { "enums::*, " };
    let structures = if plan.structures.iter().any(|structure| structure.role == Role::Nested) { "structures::*, " } else { "" };
    format!(
        "//! {}: shapes, operations and errors.

mod enums;
mod error_code;
mod operation;
mod request;
mod requests;
mod responses;
mod rules;
{schemas}mod structures;
mod waiters;

pub use self::{{{enums}error_code::ErrorCode, operation::Operation, request::Request, requests::*, responses::*, {structures}waiters::WAITERS}};

{constants}",
        metadata.service_full_name
    )
}
