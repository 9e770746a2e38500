//! ECS's nouns: ids and ARNs, clusters, task definitions, tasks, services, container instances, and a task's life.
//!
//! No I/O, no async, no clock, no randomness: time and ids come in as arguments. What users author (a task definition's
//! body) is kept in AWS's own shape and echoed; what decisions need is parsed out of it once, here.

#[macro_use]
mod wire;

pub mod account_setting;
pub mod alarm;
pub mod arn;
pub mod capacity_provider;
pub mod cluster;
pub mod container_instance;
pub mod daemon;
pub mod discovery;
pub mod dns;
pub mod express_service;
pub mod fargate;
pub mod gateway;
pub mod ids;
pub mod lifecycle;
pub mod namespace;
pub mod needs;
pub mod public_addresses;
pub mod record;
pub mod rollout;
pub mod service;
pub mod service_deployment;
pub mod shared_text;
pub mod tags;
pub mod task;
pub mod task_definition;
pub mod task_interface;
pub mod task_set;
pub mod time;
pub mod vpc;
