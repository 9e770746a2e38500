//! Who is calling: access keys, role sessions, AWS Signature Version 4 (both the making and the checking of it) and the shared-credentials
//! file format. Everything here is a pure function of its arguments; it must never do I/O, read a clock or log a secret.

mod auth_error;
pub mod credentials_file;
pub mod keys;
pub mod role_sessions;
pub mod sigv4;

pub use auth_error::AuthError;
pub use keys::{AccessKey, KeySource, Secret, StaticKeys};
pub use role_sessions::{RoleKeys, RoleSession};
pub use sigv4::{Identity, RequestParts, Verifier, VerifierOptions};
