//! What a plan changes, as changes for a transaction: tasks that start and stop, and the events that tell of it. It decides nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_model::ids::{DeploymentId, TaskId, uuid};
use berth_model::lifecycle;
use berth_model::record::{Key, Record};
use berth_model::service::{MAX_EVENTS, Service, ServiceEvent, ServiceStatus};
use berth_model::task::LaunchType;
use berth_model::task_set::{StabilityStatus, TaskSet, TaskSetStatus};
use berth_model::time::UnixMillis;
use berth_scheduler::service::announced_failures;
use berth_scheduler::service::rebalance::NO_ROOM_IN;
use berth_store::{State, Transaction};

use super::Step;
use crate::fargate;

/// ECS suppresses a repeated event for six hours.
const REPEAT_AFTER_MILLIS: i64 = 6 * 60 * 60 * 1000;
/// Most failures that are known to have been announced: more than the parts of one plan have.
const MOST_FAILURES: usize = 16;

/// Collects what a plan changes.
pub(super) struct Writer<'a> {
    pub(super) service: Service,
    pub(super) transaction: &'a mut Transaction,
    pub(super) now: UnixMillis,
    pub(super) owner_bits: &'a dyn Fn() -> u128,
    /// The task set that events are about.
    pub(super) task_set: Option<DeploymentId>,
}

impl Writer<'_> {
    /// Appends an event; the oldest beyond a hundred goes.
    pub(super) fn announce(&mut self, text: &str) {
        let number = self.service.next_event;
        let (cluster, service) = (self.service.cluster.clone(), self.service.name.clone());
        if number >= MAX_EVENTS {
            self.transaction.delete(Key::ServiceEvent(cluster.clone(), service.clone(), number - MAX_EVENTS));
        }
        self.transaction.put(ServiceEvent {
            message: match self.task_set {
                Some(set) => format!("(service {service}, taskSet {set}) {text}"),
                None => format!("(service {service}) {text}"),
            },
            id: uuid((self.owner_bits)()),
            created_at: self.now,
            number,
            cluster,
            service,
        });
        self.service.next_event += 1;
    }

    /// What the task sets become. A deleted service ends with the last of them.
    pub(super) fn replace_task_sets(&mut self, task_sets: Vec<TaskSet>) {
        let waits = |set: &TaskSet| set.status != TaskSetStatus::Draining && set.stability != StabilityStatus::SteadyState;
        self.service.announced_steady = !task_sets.iter().any(waits);
        if self.service.status == ServiceStatus::Draining && task_sets.is_empty() {
            self.service.status = ServiceStatus::Inactive;
        }
        self.service.task_sets = task_sets;
    }

    /// A failure that was announced and still lasts is that nothing could be placed.
    fn says_no_room(&self) -> bool {
        announced_failures(&self.service).any(|text| text.starts_with("was unable to place"))
    }

    /// Appends an event that repeats itself while its cause lasts: only when it is another than those that were announced, or after six
    /// hours. Several may last at once; were only the last one known, each would be news again after the other.
    fn announce_failure(&mut self, text: &str) {
        let since = self.service.announced_failure.as_ref().map(|(_, since)| *since);
        let Some(since) = since.filter(|since| self.now.since(*since) < REPEAT_AFTER_MILLIS) else {
            self.service.announced_failure = Some((text.into(), self.now));
            return self.announce(text);
        };
        if announced_failures(&self.service).any(|known| known == text) {
            return;
        }
        let mut known: Vec<_> = announced_failures(&self.service).chain([text]).collect();
        known.drain(..known.len().saturating_sub(MOST_FAILURES));
        self.service.announced_failure = Some((known.join("\n").into(), since));
        self.announce(text);
    }
}

/// Adds what a part's plan starts, stops and announces.
pub(super) fn write_plan(state: &State, writer: &mut Writer<'_>, step: &Step) {
    let Step { steps, tried, started, spread, placement, .. } = step;
    let is_fargate = step.launch_type == LaunchType::Fargate;
    for task in started {
        writer.transaction.put(Record::Task(Arc::clone(task)));
    }
    let is_spread = |id: TaskId| spread.iter().any(|(_, ids)| ids.contains(&id));
    let plain: Vec<_> = started.iter().map(|task| task.id).filter(|id| !is_spread(*id)).collect();
    if !plain.is_empty() {
        writer.announce(&format!("has started {} tasks: {}.", plain.len(), task_list(plain.iter().copied())));
    }
    let mut stopped = Vec::new();
    let mut freed: BTreeMap<&str, Vec<TaskId>> = BTreeMap::new();
    for stop in &steps.stop {
        let Some(entry) = state.task(stop.task) else { continue };
        let mut task = (*entry.value).clone();
        if lifecycle::ask_to_stop(&mut task, stop.code, &stop.reason, writer.now) {
            writer.transaction.expect(Key::Task(task.id), entry.modified);
            match steps.freed.iter().find(|(_, freed)| *freed == task.id) {
                Some((zone, _)) => freed.entry(zone).or_default().push(task.id),
                None => stopped.push(task.id),
            }
            writer.transaction.put(task);
        }
    }
    if !stopped.is_empty() {
        writer.announce(&format!("has stopped {} running tasks: {}.", stopped.len(), task_list(stopped.iter().copied())));
    }
    for (zone, ids) in freed {
        let tasks = task_list(ids.iter().copied());
        writer.announce(&format!("has stopped {} running tasks in {zone} due to AZ rebalancing: {tasks}.", ids.len()));
    }
    if is_fargate && (!placement.refusals.is_empty() || !placement.empty.is_empty() || (*tried > 0 && started.is_empty())) {
        writer.announce_failure(&fargate::event(&placement.refusals));
    } else if let Some(closest) = placement.refusals.iter().max_by_key(|refusal| refusal.closeness()) {
        let text = format!(
            "was unable to place a task because no container instance met all of its requirements. The closest matching \
             (container-instance {}) {}. For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.",
            closest.instance,
            closest.rule.in_words(),
        );
        writer.announce_failure(&text);
    } else if let Some(provider) = placement.empty.first() {
        writer.announce_failure(&format!(
            "was unable to place a task because no container instance met all of its requirements. Reason: No Container Instances \
             were found in your capacity provider ({provider}). For more information, see the Troubleshooting section of the Amazon \
             ECS Developer Guide.",
        ));
    } else if *tried > 0 && started.is_empty() {
        writer.announce_failure(
            "was unable to place a task because no container instance met all of its requirements. Reason: No Container Instances \
             were found in your cluster. For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.",
        );
    } else if writer.task_set.is_none() && (steps.steady || (*tried > 0 && writer.says_no_room())) {
        // Where one task set is steady, another may still fail. What found a place is news again when the next does not.
        writer.service.announced_failure = None;
    }
    for text in &steps.announcements {
        // Of zones the service's deployment remembers by itself what was told.
        let repeats = text.starts_with("is unable") && !text.starts_with(NO_ROOM_IN);
        if repeats { writer.announce_failure(text) } else { writer.announce(text) }
    }
    for (zone, ids) in spread {
        let tasks = task_list(ids.iter().copied());
        writer.announce(&format!("has started {} tasks in {zone} to AZ Rebalance: {tasks}.", ids.len()));
    }
}

fn task_list(ids: impl Iterator<Item = TaskId>) -> String {
    ids.map(|id| format!("(task {id})")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use berth_model::service::ServiceSettings;

    use super::*;

    /// Each makes the service's record another one, which has it planned again: were both news again and again, that would never end.
    #[test]
    fn two_failures_that_last_are_each_told_once_in_six_hours() {
        let service: Service = serde_json::from_value(serde_json::json!({
            "name": "web", "cluster": "default", "status": "ACTIVE", "desired_count": 1, "launch_type": "EC2",
            "percentages": {"minimum_healthy": 100, "maximum": 200}, "deployments": [], "settings": ServiceSettings::default(),
            "tags": {}, "created_at": 1_000, "created_by": "", "next_event": 0, "announced_steady": false, "announced_failure": null,
            "client_token": null,
        }))
        .unwrap();
        let mut transaction = Transaction::new();
        let mut writer = Writer { service, transaction: &mut transaction, now: UnixMillis(1_000), owner_bits: &|| 1, task_set: None };
        let tell = |writer: &mut Writer<'_>| {
            writer.announce_failure("was unable to place a task.");
            writer.announce_failure("is unable to consistently start tasks successfully.");
            assert!(writer.says_no_room());
            writer.service.next_event
        };
        assert_eq!(tell(&mut writer), 2);
        writer.now = UnixMillis(2_000);
        assert_eq!(tell(&mut writer), 2);
        writer.now = UnixMillis(1_000 + REPEAT_AFTER_MILLIS);
        assert_eq!(tell(&mut writer), 4);
    }
}
