//! The task metadata endpoint, versions 3 and 4, the credentials of tasks' roles, and the agent's endpoint of task protection: what containers
//! ask about themselves.
//!
//! A container asks by a name that only it was told, and from an address of its own task; whoever else asks is told that there is no such
//! container. Follows <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4.html>,
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4-fargate.html> and, for what those do not say,
//! `ecs-agent/tmds` of amazon-ecs-agent. Decision 0047 says how containers get here.

mod access;
mod answer;
mod clock_drift;
mod container;
mod credentials;
mod endpoint;
mod limits;
mod protection;
mod request;
mod server;
mod stats;
mod storage;
mod tags;
mod task;

#[cfg(test)]
mod tests;

pub use self::answer::Metadata;
pub use self::endpoint::{Endpoint, on_loopback};
pub use self::server::serve;
