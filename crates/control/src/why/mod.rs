//! Why a task, a service or a container instance is as it is: out of the state alone, by the same plans that act on it, so that the
//! answer is what Berth does next and not a guess. It changes nothing.

mod instance;
mod service;
mod task;

pub(crate) use service::{no_capacity, refused};

use berth_model::arn::Scope;
use berth_model::container_instance::{ContainerInstance, Parting};
use berth_model::ids::{ClusterName, ContainerInstanceId, ServiceName, TaskId};
use berth_model::task::{Container, Task};
use berth_model::time::UnixMillis;
use berth_store::State;
use serde::Serialize;

use crate::constraints::Constraints;
use crate::owner::Rules;

/// What is asked about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A task.
    Task(TaskId),
    /// A service of a cluster.
    Service(ClusterName, ServiceName),
    /// A container instance.
    Instance(ContainerInstanceId),
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Why {
    /// `task`, `service` or `containerInstance`.
    pub kind: &'static str,
    /// Its ARN.
    pub arn: String,
    /// How it is, in one line.
    pub summary: String,
    /// Why it is so, the weightiest first.
    pub reasons: Vec<Reason>,
    /// Containers whose last words tell more, the latest first.
    pub containers: Vec<LastWords>,
}

/// One reason.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reason {
    /// What kind it is, for programs: `PLACEMENT`, `STARTING`, `STOPPED` ...
    pub code: &'static str,
    /// The reason in words.
    pub text: String,
    /// Of a `PLACEMENT`, the rule that refused as `failures[]` names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<&'static str>,
    /// The tasks or container instances it is about; not more than [`MOST_NAMED`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub arns: Vec<String>,
}

/// A container that wrote something before it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LastWords {
    /// Its task's ARN.
    pub task_arn: String,
    /// Its name.
    pub name: String,
    /// What the runtime calls it.
    pub runtime_id: String,
    /// Its exit code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

/// Most tasks or instances that a reason names.
pub const MOST_NAMED: usize = 10;

/// What an answer is made of.
pub(crate) struct Sight<'a> {
    pub(crate) state: &'a State,
    pub(crate) constraints: &'a Constraints,
    pub(crate) scope: &'a Scope,
    pub(crate) rules: Rules,
    pub(crate) now: UnixMillis,
}

impl Sight<'_> {
    /// `None` if there is no such thing.
    pub(crate) fn why(&self, subject: &Subject) -> Option<Why> {
        match subject {
            Subject::Task(id) => self.state.task(*id).map(|task| task::why(self, task)),
            Subject::Service(cluster, name) => self.state.service(cluster, name).map(|service| service::why(self, service)),
            Subject::Instance(id) => self.state.instance(*id).map(|instance| instance::why(self, instance)),
        }
    }

    fn task_arn(&self, task: &Task) -> String {
        self.scope.task(&task.cluster, task.id)
    }

    /// How long ago, in words.
    fn ago(&self, at: UnixMillis) -> String {
        format!("{} ago", duration(self.now.since(at)))
    }

    /// What keeps an instance's agent from hearing anything; `None` if it is connected.
    fn absence(&self, instance: &ContainerInstance) -> Option<String> {
        if instance.agent_connected {
            return None;
        }
        let Some(away) = instance.away else { return Some("its agent has not connected yet".to_owned()) };
        let how = match away.parting {
            Parting::Silent => "fell silent",
            Parting::Closed => "closed its connection",
            Parting::ServerEnded => "lost its connection when a server ended",
        };
        Some(format!("its agent {how} {}", self.ago(away.since)))
    }
}

impl Reason {
    pub(crate) fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), rule: None, arns: Vec::new() }
    }

    fn about(mut self, arns: impl Iterator<Item = String>) -> Self {
        self.arns = arns.take(MOST_NAMED).collect();
        self
    }
}

/// A time in words: the largest unit that it has two of, or seconds.
fn duration(millis: i64) -> String {
    let seconds = millis.max(0) / 1000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// `1 task`, `2 tasks`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// How a container ended, in words.
fn ending(container: &Container) -> Option<String> {
    let name = &container.name;
    match (container.exit_code, container.reason.as_deref()) {
        (Some(code), reason) => {
            let meaning = match code {
                0 => ": it had nothing more to do",
                126 => ": its command cannot be executed",
                127 => ": its command was not found",
                134 => ": it aborted (SIGABRT)",
                137 => ": it was killed (SIGKILL): out of memory, or still there after its stopTimeout",
                139 => ": it crashed (SIGSEGV)",
                143 => ": it ended on SIGTERM",
                _ => "",
            };
            let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
            Some(format!("container {name} ended with exit code {code}{meaning}{reason}"))
        }
        (None, Some(reason)) => Some(format!("container {name} never ran: {reason}")),
        (None, None) => None,
    }
}

/// The containers of a task that wrote something and ended.
fn last_words(sight: &Sight<'_>, task: &Task) -> Vec<LastWords> {
    let ended = task.containers.iter().filter(|container| container.exit_code.is_some());
    let words = |container: &Container| {
        let runtime_id = container.runtime_id.clone()?;
        Some(LastWords { task_arn: sight.task_arn(task), name: container.name.to_string(), runtime_id, exit_code: container.exit_code })
    };
    ended.filter_map(words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_in_words() {
        for (millis, words) in
            [(-5, "0 s"), (999, "0 s"), (119_999, "119 s"), (120_000, "2 min"), (7_200_000, "2 h"), (172_800_000, "2 days")]
        {
            assert_eq!(duration(millis), words);
        }
    }
}
