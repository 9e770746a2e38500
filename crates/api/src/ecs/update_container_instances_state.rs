//! `UpdateContainerInstancesState`: DRAINING takes no new tasks and lets service tasks move away; ACTIVE takes tasks again.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/container-instance-draining.html>

use berth_model::arn::parse_container_instance;
use berth_model::container_instance::ContainerInstanceStatus;
use berth_model::record::{Key, Record};
use berth_shapes::ecs::{UpdateContainerInstancesStateRequest, UpdateContainerInstancesStateResponse};
use berth_store::Entry;

use super::render;
use crate::context::{Api, active};
use crate::failure::Failure;

/// Most container instances in one request. [K] of ecs-semantics, section 1.3.
const MOST: usize = 10;

pub(crate) async fn run(
    api: &Api,
    request: UpdateContainerInstancesStateRequest,
) -> Result<UpdateContainerInstancesStateResponse, Failure> {
    let cluster = api.active_cluster(request.cluster.as_deref())?;
    let named = request.container_instances.unwrap_or_default();
    let status = match request.status.as_ref().map(|status| status.as_str()) {
        Some("ACTIVE") => ContainerInstanceStatus::Active,
        Some("DRAINING") => ContainerInstanceStatus::Draining,
        _ => return Err(Failure::invalid("Container instance status should be one of [DRAINING,ACTIVE]: status")),
    };
    if !(1..=MOST).contains(&named.len()) {
        return Err(Failure::invalid(format!("A request has 1 to {MOST} container instances: containerInstances")));
    }
    let ids = named.iter().map(|text| parse_container_instance(api.scope(), &cluster, text)).collect::<Result<Vec<_>, _>>()?;
    api.change(|state, transaction| {
        active(state, &cluster)?;
        let (mut instances, mut failures) = (Vec::new(), Vec::new());
        for (number, id) in ids.iter().enumerate() {
            if ids[..number].contains(id) {
                continue;
            }
            let known = state.instance(*id).filter(|known| known.cluster == cluster);
            let Some(entry) = known else {
                failures.push(render::missing(api.scope().container_instance(&cluster, *id)));
                continue;
            };
            if entry.status == ContainerInstanceStatus::Inactive {
                failures.push(render::failure(api.scope().container_instance(&cluster, *id), "INACTIVE"));
                continue;
            }
            transaction.expect(Key::ContainerInstance(*id), entry.modified);
            let mut shown = entry.clone();
            if entry.status != status {
                let mut instance = (*entry.value).clone();
                instance.status = status;
                shown = Entry { value: std::sync::Arc::new(instance), version: entry.version + 1, ..entry.clone() };
                transaction.put(Record::ContainerInstance(std::sync::Arc::clone(&shown.value)));
            }
            instances.push(render::container_instance(state, api.scope(), &shown, true));
        }
        Ok(UpdateContainerInstancesStateResponse { container_instances: Some(instances), failures: Some(failures) })
    })
    .await
}
