//! What may happen to one task.

use berth_model::container_instance::ContainerInstanceStatus;
use berth_model::task::{ContainerStatus, DesiredStatus, Task, TaskStatus};

use super::{Model, Verdict, broken};

impl Model {
    pub(super) fn check_task(&mut self, task: &Task, revision: u64) -> Verdict {
        let id = task.id;
        match self.tasks.get(&id) {
            None => self.check_new_task(task, revision)?,
            Some(before) => check_step(before, task)?,
        }
        if task.last_status == TaskStatus::Running {
            if task.started_at.is_none() {
                return broken("complete", format!("task {id} is RUNNING without startedAt"));
            }
            if task.desired_status == DesiredStatus::Running && task.containers.iter().all(|c| c.last_status != ContainerStatus::Running) {
                return broken("complete", format!("task {id} is RUNNING and none of its containers is"));
            }
        }
        if task.last_status == TaskStatus::Stopped {
            if task.stopped_at.is_none() || task.stop_code.is_none() || task.stopped_reason.is_none() || task.stopping_at.is_none() {
                return broken("complete", format!("task {id} is STOPPED without stoppedAt, stoppingAt, stopCode or stoppedReason"));
            }
            if task.desired_status != DesiredStatus::Stopped {
                return broken("complete", format!("task {id} is STOPPED and should be RUNNING"));
            }
            if task.containers.iter().any(|c| c.last_status != ContainerStatus::Stopped) {
                return broken("complete", format!("task {id} is STOPPED and one of its containers is not"));
            }
        }
        Ok(())
    }

    fn check_new_task(&mut self, task: &Task, revision: u64) -> Verdict {
        let id = task.id;
        let placeable = self.instances.get(&task.container_instance).is_some_and(|instance| {
            instance.status == ContainerInstanceStatus::Active && instance.agent_connected && instance.cluster == task.cluster
        });
        if !placeable {
            return broken("placement", format!("task {id} is placed on an instance that is not ACTIVE and connected"));
        }
        if task.last_status != TaskStatus::Pending || task.desired_status != DesiredStatus::Running {
            return broken("status", format!("task {id} begins as {} to be {}", task.last_status, task.desired_status));
        }
        if let Some(token) = &task.client_token {
            let (first, tasks) = self.by_token.entry(token.token.clone()).or_insert_with(|| (revision, Default::default()));
            if *first != revision {
                return broken("client token", format!("token {} made tasks in revision {first} and again in {revision}", token.token));
            }
            tasks.insert(id);
        }
        Ok(())
    }
}

fn check_step(before: &Task, after: &Task) -> Verdict {
    let id = after.id;
    if after.last_status < before.last_status {
        return broken("status", format!("lastStatus of task {id} goes back from {} to {}", before.last_status, after.last_status));
    }
    if before.desired_status == DesiredStatus::Stopped && after.desired_status == DesiredStatus::Running {
        return broken("status", format!("desiredStatus of task {id} returns to RUNNING"));
    }
    if before.last_status == TaskStatus::Stopped && *before != *after {
        return broken("status", format!("task {id} changes after it was STOPPED"));
    }
    for (was, is) in before.containers.iter().zip(&after.containers) {
        if is.last_status < was.last_status {
            return broken(
                "status",
                format!("container {} of task {id} goes back from {} to {}", was.name, was.last_status, is.last_status),
            );
        }
        if was.exit_code.is_some() && is.exit_code != was.exit_code {
            return broken("status", format!("the exit code of container {} of task {id} changes", was.name));
        }
    }
    let fixed = before.container_instance == after.container_instance
        && before.definition == after.definition
        && before.demand == after.demand
        && before.service == after.service
        && before.created_at == after.created_at
        && before.containers.len() == after.containers.len();
    if !fixed {
        return broken("status", format!("task {id} changes what it is"));
    }
    let set_once = |was: Option<_>, is: Option<_>| was.is_none() || was == is;
    if !set_once(before.started_at, after.started_at) || !set_once(before.stopping_at, after.stopping_at) {
        return broken("status", format!("startedAt or stoppingAt of task {id} changes"));
    }
    if before.stop_code.is_some() && before.stop_code != after.stop_code {
        return broken("status", format!("stopCode of task {id} changes"));
    }
    Ok(())
}
