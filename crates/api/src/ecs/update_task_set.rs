//! `UpdateTaskSet`: another share of the service's desired count.

use berth_model::record::Key;
use berth_model::task_set::TaskSetStatus;
use berth_shapes::ecs::{UpdateTaskSetRequest, UpdateTaskSetResponse};

use super::task_sets;
use crate::context::Api;
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: UpdateTaskSetRequest) -> Result<UpdateTaskSetResponse, Failure> {
    let cluster = api.active_cluster(request.cluster.as_deref())?;
    let scale = request.scale.as_ref().filter(|scale| scale.value.is_some());
    let scale = task_sets::scale(Some(scale.ok_or_else(|| Failure::invalid("A value must be given: scale.value"))?))?;
    api.change(|state, transaction| {
        let entry = task_sets::holder(api, state, &cluster, request.service.as_deref())?;
        let mut service = (*entry.value).clone();
        let place = task_sets::position(api, &service, request.task_set.as_deref())?;
        let set = &mut service.task_sets[place];
        if set.status == TaskSetStatus::Draining {
            return Err(Failure::invalid("A task set that is DRAINING cannot be updated: taskSet"));
        }
        if set.scale != scale {
            set.scale = scale;
            set.unsettle(api.now());
        }
        transaction.expect(Key::Service(cluster.clone(), entry.name.clone()), entry.modified);
        let shown = task_sets::render(state, api.scope(), &service, &service.task_sets[place], true);
        if service != *entry.value {
            transaction.put(service);
        }
        Ok(UpdateTaskSetResponse { task_set: Some(shown) })
    })
    .await
}
