//! What would come of a request, or of machines more or fewer: out of the state as it is now, by the placement and the service planner that
//! would act. It changes nothing, and what it promises holds for the moment alone.

mod fleet;
mod launch;
mod service;
mod stages;

use berth_model::ids::ContainerInstanceId;
use serde::Serialize;

use crate::why::Reason;

pub(crate) use fleet::index_of;
pub(crate) use launch::launch;
pub(crate) use service::{Rehearsal, service};
pub use stages::StageForecast;

/// Container instances that are thought to be there, or gone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FleetChange {
    /// This many more, empty, each like one that is there.
    pub add: Vec<(u32, ContainerInstanceId)>,
    /// Gone with all their tasks.
    pub remove: Vec<ContainerInstanceId>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Forecast {
    /// The action: `RunTask` or `UpdateService`.
    pub action: &'static str,
    /// What would come of it, in one line.
    pub summary: String,
    /// Every task would find its place, and the service, if it is one, come to rest.
    pub fits: bool,
    /// What would be started and stopped together, one after the other.
    pub steps: Vec<Step>,
    /// The lifecycle stages in which a deployment that has some would wait, one after the other.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<StageForecast>,
    /// The container instances that would get or lose tasks, or come or go; not more than [`MOST_INSTANCES`].
    pub instances: Vec<InstanceForecast>,
    /// How many other container instances there are.
    pub other_instances: usize,
    /// What would not fit and why, what is waited for, what is left out.
    pub reasons: Vec<Reason>,
}

/// Most container instances in an answer.
pub const MOST_INSTANCES: usize = 500;

/// Tasks started and stopped in one go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Seconds after the request at the earliest, if whatever starts is healthy as soon as it may count as such.
    pub after_seconds: i64,
    /// Tasks started.
    pub start: u32,
    /// Tasks stopped.
    pub stop: u32,
    /// Tasks that run or are on their way when this is done, those that are stopping left out.
    pub tasks: u32,
}

/// A container instance before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceForecast {
    /// Its id, or `added 1` for one that is only thought of.
    pub name: String,
    /// Its ARN, if it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arn: Option<String>,
    /// Its availability zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    /// Thought to be there.
    pub added: bool,
    /// Thought to be gone.
    pub removed: bool,
    /// Tasks that would be started on it.
    pub start: u32,
    /// Tasks that would be stopped on it, or go with it.
    pub stop: u32,
    /// What is on it now.
    pub before: Use,
    /// What would be on it.
    pub after: Use,
}

/// What tasks take of a container instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Use {
    /// Tasks that hold a place.
    pub tasks: u32,
    /// CPU units left.
    pub free_cpu: u32,
    /// MiB left.
    pub free_memory: u32,
}
