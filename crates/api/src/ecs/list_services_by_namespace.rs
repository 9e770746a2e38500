//! `ListServicesByNamespace`: services that Service Connect or service discovery put into a Cloud Map namespace. There are no
//! namespaces yet, so none can be named.

use berth_shapes::ecs::{ErrorCode, ListServicesByNamespaceRequest, ListServicesByNamespaceResponse};

use crate::context::Api;
use crate::failure::Failure;
use crate::page::Page;

pub(crate) async fn run(_: &Api, request: ListServicesByNamespaceRequest) -> Result<ListServicesByNamespaceResponse, Failure> {
    Page::parse("ListServicesByNamespace", request.next_token.as_deref(), request.max_results, 10)?;
    Err(Failure::modelled(ErrorCode::NamespaceNotFound, "Namespace not found."))
}
