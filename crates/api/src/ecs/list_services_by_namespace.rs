//! `ListServicesByNamespace`: ARNs of the ACTIVE services, of whatever cluster, that are registered in a Cloud Map namespace; ten a page
//! unless told otherwise.
//!
//! AWS says "associated with a namespace" and means Service Connect first; no service here has that, so those count that register their tasks
//! by `serviceRegistries`.
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ListServicesByNamespace.html>

use std::collections::BTreeSet;

use berth_model::service::{Service, ServiceStatus};
use berth_shapes::ecs::{ErrorCode, ListServicesByNamespaceRequest, ListServicesByNamespaceResponse};

use super::namespaces;
use crate::context::Api;
use crate::failure::Failure;
use crate::page::Page;

pub(crate) async fn run(api: &Api, request: ListServicesByNamespaceRequest) -> Result<ListServicesByNamespaceResponse, Failure> {
    let page = Page::parse("ListServicesByNamespace", request.next_token.as_deref(), request.max_results, 10)?;
    let state = api.store.state();
    let namespace = namespaces::find(api, &state, request.namespace.as_deref().unwrap_or_default())
        .ok_or_else(|| Failure::modelled(ErrorCode::NamespaceNotFound, "Namespace not found."))?;
    let registries: BTreeSet<_> =
        state.discovery_services_of(&namespace.id).map(|known| api.scope().discovery_service(&known.id)).collect();
    let is_registered = |service: &Service| {
        let of_task_sets = service.task_sets.iter().flat_map(|set| &set.service_registries);
        let own = service.settings.service_registries.iter().chain(of_task_sets).filter_map(|registry| registry.registry_arn.as_ref());
        service.status == ServiceStatus::Active && own.into_iter().any(|arn| registries.contains(arn))
    };
    // Sorted as text, for pages go on behind an ARN.
    let arns: BTreeSet<_> = state
        .clusters()
        .flat_map(|cluster| state.services_of(&cluster.name).filter(|service| is_registered(service)))
        .map(|service| api.scope().service(&service.cluster, &service.name))
        .collect();
    let (arns, next_token) = page.take("ListServicesByNamespace", arns.into_iter(), Clone::clone, false);
    Ok(ListServicesByNamespaceResponse { service_arns: Some(arns), next_token })
}
