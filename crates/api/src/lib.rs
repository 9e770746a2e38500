//! The HTTP edge: one port for every protocol. A request is verified, parsed once into a closed set of actions, handed to
//! the action's file, and its answer or error is rendered in AWS's form.
//!
//! It starts no loop and never talks to an agent.

mod alarms;
mod answer;
mod attention;
mod aws_json;
mod backup;
mod context;
mod ec2;
mod ecs;
mod edge;
mod failure;
mod fargate;
mod json_text;
mod limits;
mod meter;
mod page;
pub mod page_token;
mod plan;
mod poll_again;
mod protocol;
mod roles;
mod servicediscovery;
mod sockets;
mod throttle;
mod trace;
mod why;

pub use context::{Api, ApiConfig, ApiParts};
pub use ec2::make_default_vpc;
pub use edge::{Listening, serve};
pub use failure::Failure;
pub use throttle::Throttle;
