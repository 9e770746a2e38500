//! `DeleteAttributes`: takes users' own attributes from container instances. With a value, only where it is that value.

use std::collections::BTreeMap;

use berth_model::container_instance::ContainerInstance;
use berth_model::ids::ContainerInstanceId;
use berth_model::record::Key;
use berth_shapes::ecs::{DeleteAttributesRequest, DeleteAttributesResponse};

use super::attributes::{MOST, check, shown, target};
use crate::context::{Api, active};
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: DeleteAttributesRequest) -> Result<DeleteAttributesResponse, Failure> {
    let cluster = api.active_cluster(request.cluster.as_deref())?;
    let attributes = request.attributes.unwrap_or_default();
    if !(1..=MOST).contains(&attributes.len()) {
        return Err(Failure::invalid(format!("A request has 1 to {MOST} attributes: attributes")));
    }
    attributes.iter().try_for_each(check)?;
    api.change(|state, transaction| {
        active(state, &cluster)?;
        let mut changed: BTreeMap<ContainerInstanceId, ContainerInstance> = BTreeMap::new();
        let mut gone = Vec::new();
        for attribute in &attributes {
            let entry = target(api, state, &cluster, attribute)?;
            let instance = changed.entry(entry.id).or_insert_with(|| (*entry.value).clone());
            let name = attribute.name.as_deref().unwrap_or_default();
            let is_meant = |value: &Option<String>| attribute.value.is_none() || *value == attribute.value;
            if instance.attributes.get(name).is_some_and(is_meant) {
                let value = instance.attributes.remove(name).flatten();
                gone.push(shown(api, &cluster, entry.id, name, value.as_deref()));
            }
        }
        for (id, instance) in changed {
            let entry = state.instance(id).expect("it was found above");
            transaction.expect(Key::ContainerInstance(id), entry.modified);
            if instance != *entry.value {
                transaction.put(instance);
            }
        }
        Ok(DeleteAttributesResponse { attributes: Some(gone) })
    })
    .await
}
