//! AWS's request, response and error shapes, generated per service from AWS's published service models, and the
//! protocol codecs beside them. It must never hold behaviour of a service, and the generated modules must never be
//! edited by hand: `cargo xtask codegen` writes them.

pub mod blob;
pub mod ec2;
pub mod ecs;
pub mod open_enum;
pub mod operation;
pub mod protocol;
pub mod schema;
pub mod servicediscovery;
pub mod structure;
pub mod timestamp;
pub mod validate;

pub use blob::Blob;
pub use open_enum::OpenEnum;
pub use operation::{Paginator, Waiter};
pub use protocol::DecodeError;
pub use timestamp::Timestamp;
pub use validate::{Constraint, Validate, Violation, Violations};

/// An untyped JSON value, for the few members whose content AWS leaves open (Smithy's `document`).
pub type Document = serde_json::Value;
