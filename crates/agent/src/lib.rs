//! Berth's own ECS container agent: it speaks the protocols that Amazon's agent speaks and runs tasks over the two ports
//! `Runtime` and `Network`. It never decides placement and never reads the store.

mod agent;
pub mod capabilities;
pub mod clock;
pub mod config;
pub mod ecs_client;
pub mod engine;
pub mod entropy;
#[cfg(test)]
mod fakes;
pub mod images;
mod introspection;
pub mod ledger;
pub mod machine;
pub mod metadata;
pub mod names;
pub mod plan;
pub mod registration;
pub mod registry_logins;
pub mod reports;
pub mod session;
pub mod sources;
pub mod tasks;
pub mod telemetry;
mod trace;

pub use agent::{Agent, PurgeError, StartError};
pub use config::{AgentConfig, ConfigError};
