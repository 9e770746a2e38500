//! `UpdateServicePrimaryTaskSet`: which task set serves production traffic; DescribeServices shows its definition as the service's.

use berth_model::record::Key;
use berth_model::task_set::TaskSetStatus;
use berth_shapes::ecs::{UpdateServicePrimaryTaskSetRequest, UpdateServicePrimaryTaskSetResponse};

use super::task_sets;
use crate::context::Api;
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: UpdateServicePrimaryTaskSetRequest) -> Result<UpdateServicePrimaryTaskSetResponse, Failure> {
    let cluster = api.active_cluster(request.cluster.as_deref())?;
    api.change(|state, transaction| {
        let entry = task_sets::holder(api, state, &cluster, request.service.as_deref())?;
        let mut service = (*entry.value).clone();
        let place = task_sets::position(api, &service, request.primary_task_set.as_deref())?;
        if service.task_sets[place].status == TaskSetStatus::Draining {
            return Err(Failure::invalid("A task set that is DRAINING cannot become the PRIMARY one: primaryTaskSet"));
        }
        if service.task_sets[place].status != TaskSetStatus::Primary {
            let now = api.now();
            for set in service.task_sets.iter_mut().filter(|set| set.status == TaskSetStatus::Primary) {
                set.status = TaskSetStatus::Active;
                set.updated_at = now;
            }
            service.task_sets[place].status = TaskSetStatus::Primary;
            service.task_sets[place].updated_at = now;
        }
        transaction.expect(Key::Service(cluster.clone(), entry.name.clone()), entry.modified);
        let shown = task_sets::render(state, api.scope(), &service, &service.task_sets[place], true);
        if service != *entry.value {
            transaction.put(service);
        }
        Ok(UpdateServicePrimaryTaskSetResponse { task_set: Some(shown) })
    })
    .await
}
