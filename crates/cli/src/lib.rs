//! The operator's commands. They speak the public AWS API, signed like any other client's calls, and read files of their own machine. What
//! AWS has no call for (`/backup`, `/why`, `/plan`, `/alarms`, `/fargate`) is signed the same way and documented; they must never use anything else.

mod alarm;
mod backup;
pub mod client;
mod command;
pub mod connection;
mod console;
pub mod data_dir;
mod deploy;
mod down;
mod env;
pub mod environment;
mod failure;
mod fargate;
pub mod image;
mod image_load;
mod logs;
mod plan;
mod process;
mod ps;
mod reason;
mod register;
mod rollback;
mod services;
mod tasks;
#[cfg(test)]
mod testing;
mod version;
mod why;

pub use alarm::{Alarm, AlarmAction, AlarmDelete, AlarmList, AlarmSet};
pub use backup::Backup;
pub use command::{Command, Output, run};
pub use deploy::{Deploy, DeployAction, DeployStatus};
pub use down::Down;
pub use env::Env;
pub use fargate::{Fargate, FargateAction, FargateInterrupt, FargateList, FargateMachine};
pub use image_load::{Image, ImageAction, ImageLoad};
pub use logs::Logs;
pub use plan::{Plan, PlanAction, PlanRunTask, PlanUpdateService};
pub use ps::Ps;
pub use register::Register;
pub use rollback::Rollback;
pub use version::Version;
pub use why::Why;
