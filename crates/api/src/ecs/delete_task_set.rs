//! `DeleteTaskSet`: DRAINING while its tasks end, then gone.

use berth_model::record::Key;
use berth_model::task_set::TaskSetStatus;
use berth_shapes::ecs::{DeleteTaskSetRequest, DeleteTaskSetResponse};

use super::task_sets;
use crate::context::Api;
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: DeleteTaskSetRequest) -> Result<DeleteTaskSetResponse, Failure> {
    let cluster = api.active_cluster(request.cluster.as_deref())?;
    let force = request.force == Some(true);
    api.change(|state, transaction| {
        let entry = task_sets::holder(api, state, &cluster, request.service.as_deref())?;
        let mut service = (*entry.value).clone();
        let place = task_sets::position(api, &service, request.task_set.as_deref())?;
        let set = &mut service.task_sets[place];
        if set.status != TaskSetStatus::Draining {
            if set.status == TaskSetStatus::Primary && !force {
                return Err(Failure::invalid("The PRIMARY task set cannot be deleted without force: taskSet"));
            }
            if set.computed_desired_count(entry.desired_count) > 0 && !force {
                return Err(Failure::invalid("The task set cannot be deleted while it is scaled above 0: taskSet"));
            }
            set.status = TaskSetStatus::Draining;
            set.unsettle(api.now());
        }
        transaction.expect(Key::Service(cluster.clone(), entry.name.clone()), entry.modified);
        let shown = task_sets::render(state, api.scope(), &service, &service.task_sets[place], true);
        if service != *entry.value {
            transaction.put(service);
        }
        Ok(DeleteTaskSetResponse { task_set: Some(shown) })
    })
    .await
}
