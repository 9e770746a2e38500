//! Operations: what the slow actions answer with. Here they are done when they are first seen.

use berth_model::namespace::{Operation, OperationId, OperationTarget, OperationType};
use berth_model::record::Key;
use berth_shapes::servicediscovery::{
    ErrorCode, GetOperationRequest, GetOperationResponse, ListOperationsRequest, ListOperationsResponse, OperationSummary,
};
use berth_store::Transaction;

use super::failure::failure;
use super::reference::clip;
use super::{filter, render};
use crate::context::Api;
use crate::failure::Failure;
use crate::page::Page;

/// Every operation's status.
pub(super) const STATUS: &str = "SUCCESS";

/// A fresh operation's id.
pub(super) fn draw(api: &Api) -> OperationId {
    OperationId::from_random(api.environment.entropy.bits(), api.environment.entropy.bits())
}

/// Notes an operation in the commit that does it.
pub(super) fn note(api: &Api, transaction: &mut Transaction, id: &OperationId, kind: OperationType, targets: &[(OperationTarget, &str)]) {
    transaction.expect_absent(Key::DiscoveryOperation(id.clone()));
    let targets = targets.iter().map(|(kind, id)| (*kind, (*id).to_owned())).collect();
    transaction.put(Operation { id: id.clone(), kind, targets, created_at: api.now() });
}

pub(super) async fn get(api: &Api, request: GetOperationRequest) -> Result<GetOperationResponse, Failure> {
    let text = request.operation_id.unwrap_or_default();
    let not_found = || failure(ErrorCode::OperationNotFound, format!("Operation {} not found.", clip(&text)));
    if request.owner_account.as_deref().is_some_and(|account| *account != *api.scope().account) {
        return Err(not_found());
    }
    let state = api.store.state();
    let found = OperationId::parse(&text).and_then(|id| state.discovery_operation(&id)).ok_or_else(not_found)?;
    Ok(GetOperationResponse { operation: Some(render::operation(api, found)) })
}

pub(super) async fn list(api: &Api, request: ListOperationsRequest) -> Result<ListOperationsResponse, Failure> {
    const ACTION: &str = "ListOperations";
    let page = Page::parse(ACTION, request.next_token.as_deref(), request.max_results, 100)?;
    let filters = filter::of_operations(request.filters.as_deref())?;
    let is_wanted = |operation: &Operation| {
        filters.iter().all(|filter| match filter.name.as_str() {
            "NAMESPACE_ID" => operation.target(OperationTarget::Namespace).is_some_and(|id| filter.takes(id)),
            "SERVICE_ID" => operation.target(OperationTarget::Service).is_some_and(|id| filter.takes(id)),
            "STATUS" => filter.takes(STATUS),
            "TYPE" => filter.takes(operation.kind.as_str()),
            _ => filter.takes_time(operation.created_at.0),
        })
    };
    let state = api.store.state();
    // Oldest first: what is added meanwhile comes on the last page.
    let key = |operation: &&Operation| format!("{:020} {}", operation.created_at.0, operation.id);
    let mut found: Vec<&Operation> = state.discovery_operations().map(|entry| &*entry.value).filter(|one| is_wanted(one)).collect();
    found.sort_by_key(key);
    let (found, next_token) = page.take(ACTION, found.into_iter(), key, false);
    let summary = |operation: &Operation| OperationSummary { id: Some(operation.id.to_string()), status: Some(STATUS.into()) };
    Ok(ListOperationsResponse { operations: Some(found.into_iter().map(summary).collect()), next_token })
}
