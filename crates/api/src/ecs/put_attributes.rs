//! `PutAttributes`: users' own attributes of container instances, which placement constraints read. All of a request's or none.

use std::collections::BTreeMap;

use berth_model::container_instance::ContainerInstance;
use berth_model::ids::ContainerInstanceId;
use berth_model::record::Key;
use berth_shapes::ecs::{ErrorCode, PutAttributesRequest, PutAttributesResponse};

use super::attributes::{MOST, check, check_meaning, is_reserved, shown, target};
use crate::context::{Api, active};
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: PutAttributesRequest) -> Result<PutAttributesResponse, Failure> {
    let cluster = api.active_cluster(request.cluster.as_deref())?;
    let attributes = request.attributes.unwrap_or_default();
    if !(1..=MOST).contains(&attributes.len()) {
        return Err(Failure::invalid(format!("A request has 1 to {MOST} attributes: attributes")));
    }
    for attribute in &attributes {
        check(attribute)?;
        check_meaning(attribute.name.as_deref().unwrap_or_default(), attribute.value.as_deref())?;
    }
    api.change(|state, transaction| {
        active(state, &cluster)?;
        let mut changed: BTreeMap<ContainerInstanceId, ContainerInstance> = BTreeMap::new();
        let mut answer = Vec::new();
        for attribute in &attributes {
            let entry = target(api, state, &cluster, attribute)?;
            let instance = changed.entry(entry.id).or_insert_with(|| (*entry.value).clone());
            let name = attribute.name.clone().unwrap_or_default();
            answer.push(shown(api, &cluster, entry.id, &name, attribute.value.as_deref()));
            instance.attributes.insert(name, attribute.value.clone());
            let own = instance.attributes.keys().filter(|name| !is_reserved(name)).count();
            if own > MOST {
                let text = format!("A container instance has at most {MOST} custom attributes: {}", entry.id);
                return Err(Failure::modelled(ErrorCode::AttributeLimitExceeded, text));
            }
        }
        for (id, instance) in changed {
            let entry = state.instance(id).expect("it was found above");
            transaction.expect(Key::ContainerInstance(id), entry.modified);
            if instance != *entry.value {
                transaction.put(instance);
            }
        }
        Ok(PutAttributesResponse { attributes: Some(answer) })
    })
    .await
}
