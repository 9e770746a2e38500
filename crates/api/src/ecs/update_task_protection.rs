//! `UpdateTaskProtection`: scale-in and deployments leave a service's task alone for a while.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-scale-in-protection.html>

use berth_model::arn::parse_task;
use berth_model::ids::{ClusterName, TaskId};
use berth_model::record::Key;
use berth_model::task::{DesiredStatus, Task};
use berth_shapes::ecs::{self, UpdateTaskProtectionRequest, UpdateTaskProtectionResponse};
use berth_store::State;

use super::render;
use crate::context::Api;
use crate::failure::Failure;

/// Most tasks in one request that changes their protection.
const MOST: usize = 10;
/// `expiresInMinutes`: at most two days, two hours unless said otherwise.
const LONGEST_MINUTES: i32 = 2_880;
const DEFAULT_MINUTES: i32 = 120;

pub(crate) async fn run(api: &Api, request: UpdateTaskProtectionRequest) -> Result<UpdateTaskProtectionResponse, Failure> {
    let cluster = api.active_cluster(request.cluster.as_deref())?;
    let named = request.tasks.unwrap_or_default();
    if !(1..=MOST).contains(&named.len()) {
        return Err(Failure::invalid(format!("A request has 1 to {MOST} tasks: tasks")));
    }
    let minutes = request.expires_in_minutes.unwrap_or(DEFAULT_MINUTES);
    if !(1..=LONGEST_MINUTES).contains(&minutes) {
        return Err(Failure::invalid(format!("expiresInMinutes must be between 1 and {LONGEST_MINUTES}: expiresInMinutes {minutes}")));
    }
    let enable = request.protection_enabled == Some(true);
    let ids = named.iter().map(|text| parse_task(api.scope(), &cluster, text)).collect::<Result<Vec<_>, _>>()?;
    api.change(|state, transaction| {
        let now = api.now();
        let until = enable.then(|| now.plus_millis(i64::from(minutes) * 60_000));
        let (mut protected, mut failures) = (Vec::new(), Vec::new());
        let mut fresh: Vec<TaskId> = Vec::new();
        for (number, id) in ids.iter().enumerate() {
            if ids[..number].contains(id) {
                continue;
            }
            let arn = api.scope().task(&cluster, *id);
            let Some(entry) = state.task(*id).filter(|task| task.cluster == cluster) else {
                failures.push(render::missing(arn));
                continue;
            };
            if let Err(reason) = may_change(state, &cluster, entry, enable, &fresh, now) {
                failures.push(render::failure(arn, reason));
                continue;
            }
            let task = Task { protected_until: until, ..(*entry.value).clone() };
            protected.push(shown(api, &cluster, &task));
            fresh.push(*id);
            transaction.expect(Key::Task(*id), entry.modified);
            if task != *entry.value {
                transaction.put(task);
            }
        }
        Ok(UpdateTaskProtectionResponse { protected_tasks: Some(protected), failures: Some(failures) })
    })
    .await
}

/// Only tasks of services that are not told to stop; and no more of them than the service wants, since deployments could never end then.
fn may_change(
    state: &State,
    cluster: &ClusterName,
    task: &Task,
    enable: bool,
    fresh: &[TaskId],
    now: berth_model::time::UnixMillis,
) -> Result<(), &'static str> {
    let service = task.service.as_ref().and_then(|membership| state.service(cluster, &membership.service));
    let Some(service) = service.filter(|_| task.desired_status == DesiredStatus::Running) else { return Err("TASK_NOT_VALID") };
    let holds = |other: &Task| other.id != task.id && !other.is_stopped() && (other.is_protected(now) || fresh.contains(&other.id));
    let others = state.tasks_of_service(cluster, &service.name).filter(|other| holds(other)).count();
    if enable && others >= usize::try_from(service.desired_count).unwrap_or(usize::MAX) {
        return Err("DEPLOYMENT_BLOCKED");
    }
    Ok(())
}

/// A task's protection, as it is shown.
pub(super) fn shown(api: &Api, cluster: &ClusterName, task: &Task) -> ecs::ProtectedTask {
    let until = task.protected_until.filter(|_| task.is_protected(api.now()));
    ecs::ProtectedTask {
        task_arn: Some(api.scope().task(cluster, task.id)),
        protection_enabled: Some(until.is_some()),
        expiration_date: until.map(berth_model::time::UnixMillis::to_wire),
    }
}
