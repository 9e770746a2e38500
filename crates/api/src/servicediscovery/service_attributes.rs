//! `GetServiceAttributes`, `UpdateServiceAttributes`, `DeleteServiceAttributes`: what is said of a service as a whole.

use berth_model::discovery::{DiscoveryService, MAX_ATTRIBUTES};
use berth_model::record::Key;
use berth_shapes::servicediscovery::{
    DeleteServiceAttributesRequest, DeleteServiceAttributesResponse, ErrorCode, GetServiceAttributesRequest, GetServiceAttributesResponse,
    ServiceAttributes, UpdateServiceAttributesRequest, UpdateServiceAttributesResponse,
};

use super::failure::failure;
use super::{reference, render};
use crate::context::Api;
use crate::failure::Failure;

pub(super) async fn get(api: &Api, request: GetServiceAttributesRequest) -> Result<GetServiceAttributesResponse, Failure> {
    let state = api.store.state();
    let service = reference::service(api, &state, request.service_id.as_deref())?;
    let shown = ServiceAttributes {
        service_arn: Some(api.scope().discovery_service(&service.id)),
        resource_owner: render::account(api),
        attributes: Some(service.attributes.clone()),
    };
    Ok(GetServiceAttributesResponse { service_attributes: Some(shown) })
}

/// Changes a service's attributes.
async fn change(api: &Api, id: Option<&str>, change: impl Fn(&mut DiscoveryService) -> Result<(), Failure>) -> Result<(), Failure> {
    api.change(|state, transaction| {
        let known = reference::service(api, state, id)?;
        let mut service = (*known.value).clone();
        change(&mut service)?;
        if service != *known.value {
            transaction.expect(Key::DiscoveryService(known.id.clone()), known.modified);
            transaction.put(service);
        }
        Ok(())
    })
    .await
}

pub(super) async fn update(api: &Api, request: UpdateServiceAttributesRequest) -> Result<UpdateServiceAttributesResponse, Failure> {
    let given = request.attributes.unwrap_or_default();
    change(api, request.service_id.as_deref(), |service| {
        service.attributes.extend(given.clone());
        if service.attributes.len() > MAX_ATTRIBUTES {
            let text = format!("A service can have at most {MAX_ATTRIBUTES} attributes.");
            return Err(failure(ErrorCode::ServiceAttributesLimitExceeded, text));
        }
        Ok(())
    })
    .await?;
    Ok(UpdateServiceAttributesResponse::default())
}

pub(super) async fn delete(api: &Api, request: DeleteServiceAttributesRequest) -> Result<DeleteServiceAttributesResponse, Failure> {
    let names = request.attributes.unwrap_or_default();
    change(api, request.service_id.as_deref(), |service| {
        service.attributes.retain(|name, _| !names.contains(name));
        Ok(())
    })
    .await?;
    Ok(DeleteServiceAttributesResponse::default())
}
