//! Credentials of tasks' roles on one connection: pushed for what runs when an agent has none, and again before they end. When which are
//! due is only remembered here; a new connection begins with those of its moment, which tasks are sent with.

use std::collections::BTreeSet;

use berth_acs::ServerFrame;
use berth_model::ids::TaskId;
use berth_model::task::TaskStatus;
use berth_model::time::UnixMillis;

use super::Session;

/// When credentials are sent again that could not be sent, or that nobody acknowledged. They are good for a quarter of their life yet.
const AGAIN_MILLIS: i64 = 30_000;

/// Which tasks' credentials are due when, by the clock, since they end by it. A task that is here twice is looked at twice.
#[derive(Debug, Default)]
pub(super) struct Renewals(BTreeSet<(UnixMillis, TaskId)>);

impl Renewals {
    /// When the next are due, in Unix milliseconds.
    pub(super) fn next(&self) -> Option<i64> {
        self.0.first().map(|(at, _)| at.0)
    }

    pub(super) fn extend(&mut self, due: Vec<(UnixMillis, TaskId)>) {
        for (at, id) in due {
            self.note(at, id);
        }
    }

    fn note(&mut self, at: UnixMillis, id: TaskId) {
        self.0.insert((at, id));
    }

    fn take_due(&mut self, now: UnixMillis) -> BTreeSet<TaskId> {
        let mut due = BTreeSet::new();
        while let Some((_, id)) = self.0.first().copied().filter(|(at, _)| *at <= now) {
            self.0.pop_first();
            due.insert(id);
        }
        due
    }
}

impl Session {
    /// Those of all tasks that run: the agent's process has none.
    pub(super) fn all_credentials(&mut self) -> Vec<ServerFrame> {
        let control = self.control.clone();
        let running: BTreeSet<TaskId> = {
            let state = control.shared.store.state();
            let tasks = state.tasks_of_machine(&self.cluster, self.instance);
            // Others are not known to the agent before their payload, in which they are.
            tasks.filter(|task| task.last_status == TaskStatus::Running).map(|task| task.id).collect()
        };
        self.credentials(running)
    }

    /// Those that are due.
    pub(super) fn renewed_credentials(&mut self) -> Vec<ServerFrame> {
        let now = self.control.shared.environment.now();
        let due = self.renewals.take_due(now);
        self.credentials(due)
    }

    /// The agent did not acknowledge a task's credentials, however often they were sent.
    pub(super) fn renew_again(&mut self, task_arn: &str) {
        let now = self.control.shared.environment.now();
        if let Some(id) = self.task_id(task_arn) {
            self.renewals.note(now.plus_millis(AGAIN_MILLIS), id);
        }
    }

    fn credentials(&mut self, tasks: BTreeSet<TaskId>) -> Vec<ServerFrame> {
        let control = self.control.clone();
        let Some(issuer) = &control.shared.roles else { return Vec::new() };
        let (scope, now) = (&control.shared.environment.scope, control.shared.environment.now());
        let sent_at = self.now();
        let mut frames = Vec::new();
        for id in tasks {
            let (messages, renewed_at) = {
                let state = control.shared.store.state();
                let Some(task) = state.task(id).filter(|task| task.container_instance == self.instance && !task.is_stopped()) else {
                    continue;
                };
                let Some(definition) = state.definition(&task.definition) else { continue };
                issuer.messages(scope, &task.value, &definition.value, now)
            };
            if messages.is_empty() {
                continue;
            }
            let sent: Result<Vec<_>, _> = messages.into_iter().map(|message| self.machine.send_credentials(message, sent_at)).collect();
            match sent {
                Ok(sent) => {
                    frames.extend(sent);
                    self.renewals.note(renewed_at, id);
                }
                Err(error) => {
                    tracing::warn!(%error, container_instance = self.machine.container_instance_arn(), "credentials wait for delivery");
                    self.renewals.note(now.plus_millis(AGAIN_MILLIS), id);
                }
            }
        }
        frames
    }
}
