//! `UpdateHttpNamespace`, `UpdatePrivateDnsNamespace`, `UpdatePublicDnsNamespace`: description and the SOA record's TTL.

use berth_model::namespace::{Namespace, NamespaceKind, NamespaceType, OperationTarget, OperationType};
use berth_model::record::Key;
use berth_shapes::servicediscovery::{
    SOAChange, UpdateHttpNamespaceRequest, UpdateHttpNamespaceResponse, UpdatePrivateDnsNamespaceRequest,
    UpdatePrivateDnsNamespaceResponse, UpdatePublicDnsNamespaceRequest, UpdatePublicDnsNamespaceResponse,
};

use super::failure::invalid;
use super::{operations, reference};
use crate::context::Api;
use crate::failure::Failure;

/// What is to change; absent members stay as they are.
struct Change {
    namespace_type: NamespaceType,
    id: Option<String>,
    description: Option<String>,
    soa: Option<SOAChange>,
}

pub(super) async fn http(api: &Api, request: UpdateHttpNamespaceRequest) -> Result<UpdateHttpNamespaceResponse, Failure> {
    let description = request.namespace.and_then(|change| change.description);
    let change = Change { namespace_type: NamespaceType::Http, id: request.id, description, soa: None };
    Ok(UpdateHttpNamespaceResponse { operation_id: Some(update(api, change).await?) })
}

pub(super) async fn private_dns(
    api: &Api,
    request: UpdatePrivateDnsNamespaceRequest,
) -> Result<UpdatePrivateDnsNamespaceResponse, Failure> {
    let change = request.namespace.unwrap_or_default();
    let soa = change.properties.and_then(|properties| properties.dns_properties?.soa);
    let change = Change { namespace_type: NamespaceType::DnsPrivate, id: request.id, description: change.description, soa };
    Ok(UpdatePrivateDnsNamespaceResponse { operation_id: Some(update(api, change).await?) })
}

pub(super) async fn public_dns(api: &Api, request: UpdatePublicDnsNamespaceRequest) -> Result<UpdatePublicDnsNamespaceResponse, Failure> {
    let change = request.namespace.unwrap_or_default();
    let soa = change.properties.and_then(|properties| properties.dns_properties?.soa);
    let change = Change { namespace_type: NamespaceType::DnsPublic, id: request.id, description: change.description, soa };
    Ok(UpdatePublicDnsNamespaceResponse { operation_id: Some(update(api, change).await?) })
}

/// Changes it, and gives the operation's id.
async fn update(api: &Api, change: Change) -> Result<String, Failure> {
    let operation = operations::draw(api);
    api.change(|state, transaction| {
        let known = reference::namespace(api, state, change.id.as_deref())?;
        if known.namespace_type() != change.namespace_type {
            let (is, wanted) = (known.namespace_type(), change.namespace_type);
            return Err(invalid(format!("The namespace {} is of type {is}, not {wanted}: Id", known.id)));
        }
        let mut namespace: Namespace = (*known.value).clone();
        if let Some(description) = &change.description {
            namespace.description = Some(description.clone()).filter(|text| !text.is_empty());
        }
        let ttl = change.soa.as_ref().and_then(|soa| soa.ttl).and_then(|ttl| u32::try_from(ttl).ok());
        if let (Some(ttl), NamespaceKind::Private { zone, .. } | NamespaceKind::Public { zone }) = (ttl, &mut namespace.kind) {
            zone.soa_ttl_seconds = ttl;
        }
        let key = Key::Namespace(namespace.id.clone());
        let target = [(OperationTarget::Namespace, known.id.as_str())];
        operations::note(api, transaction, &operation, OperationType::UpdateNamespace, &target);
        transaction.expect(key, known.modified);
        transaction.put(namespace);
        Ok(operation.to_string())
    })
    .await
}
