//! `GetNamespace`, `ListNamespaces`, `DeleteNamespace`.

use berth_model::namespace::{Namespace, OperationTarget, OperationType};
use berth_model::record::Key;
use berth_shapes::servicediscovery::{
    DeleteNamespaceRequest, DeleteNamespaceResponse, ErrorCode, GetNamespaceRequest, GetNamespaceResponse, ListNamespacesRequest,
    ListNamespacesResponse,
};

use super::failure::failure;
use super::{filter, operations, reference, render};
use crate::context::Api;
use crate::failure::Failure;
use crate::page::Page;

/// What a filter RESOURCE_OWNER must say for what is here: there are no other accounts.
pub(super) const OWN: &str = "SELF";

pub(super) async fn get(api: &Api, request: GetNamespaceRequest) -> Result<GetNamespaceResponse, Failure> {
    let state = api.store.state();
    let found = reference::namespace(api, &state, request.id.as_deref())?;
    Ok(GetNamespaceResponse { namespace: Some(render::namespace(api, &state, found)) })
}

pub(super) async fn list(api: &Api, request: ListNamespacesRequest) -> Result<ListNamespacesResponse, Failure> {
    const ACTION: &str = "ListNamespaces";
    let page = Page::parse(ACTION, request.next_token.as_deref(), request.max_results, 100)?;
    let filters = filter::of_namespaces(request.filters.as_deref())?;
    let is_wanted = |namespace: &Namespace| {
        filters.iter().all(|filter| {
            filter.takes(match filter.name.as_str() {
                "TYPE" => namespace.namespace_type().as_str(),
                "RESOURCE_OWNER" => OWN,
                _ => &namespace.name,
            })
        })
    };
    let state = api.store.state();
    let found = state.namespaces().filter(|namespace| is_wanted(namespace));
    let (found, next_token) = page.take(ACTION, found, |namespace| namespace.id.to_string(), false);
    let namespaces = found.into_iter().map(|namespace| render::namespace_summary(api, &state, namespace)).collect();
    Ok(ListNamespacesResponse { namespaces: Some(namespaces), next_token })
}

pub(super) async fn delete(api: &Api, request: DeleteNamespaceRequest) -> Result<DeleteNamespaceResponse, Failure> {
    let operation = operations::draw(api);
    api.change(|state, transaction| {
        let known = reference::namespace(api, state, request.id.as_deref())?;
        if let Some(service) = state.discovery_services_of(&known.id).next() {
            let text = format!("The namespace {} has services, {} among them; delete them first.", known.id, service.id);
            return Err(failure(ErrorCode::ResourceInUse, text));
        }
        // A service that is made at this moment touches the namespace, so one of the two is too late.
        transaction.expect(Key::Namespace(known.id.clone()), known.modified).delete(Key::Namespace(known.id.clone()));
        let target = [(OperationTarget::Namespace, known.id.as_str())];
        operations::note(api, transaction, &operation, OperationType::DeleteNamespace, &target);
        Ok(DeleteNamespaceResponse { operation_id: Some(operation.to_string()) })
    })
    .await
}
