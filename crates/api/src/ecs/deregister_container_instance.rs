//! `DeregisterContainerInstance`: without `force` only an empty one. Its tasks are orphaned: services replace theirs, the
//! agent is turned away and its containers go on until somebody stops them, as in ECS.

use berth_model::arn::parse_container_instance;
use berth_model::container_instance::{ContainerInstance, ContainerInstanceStatus};
use berth_model::fargate;
use berth_model::lifecycle;
use berth_model::record::{Key, Record};
use berth_model::task::StopCode;
use berth_shapes::ecs::{DeregisterContainerInstanceRequest, DeregisterContainerInstanceResponse};
use berth_store::Entry;

use super::render;
use crate::context::{Api, active};
use crate::failure::Failure;

/// ECS's text for tasks whose machine was taken away.
const REASON: &str = "Container instance deregistration forced by user";

pub(crate) async fn run(api: &Api, request: DeregisterContainerInstanceRequest) -> Result<DeregisterContainerInstanceResponse, Failure> {
    let cluster = api.agents_cluster(request.cluster.as_deref())?;
    let text = request.container_instance.unwrap_or_default();
    let id = parse_container_instance(api.scope(), &cluster, &text)?;
    let force = request.force == Some(true);
    api.change(|state, transaction| {
        if !fargate::is_reserved(&cluster) {
            active(state, &cluster)?;
        }
        let entry = state.instance(id).filter(|i| i.cluster == cluster && i.status != ContainerInstanceStatus::Inactive);
        let entry = entry.ok_or_else(|| Failure::invalid("The referenced container instance was not found: containerInstance"))?;
        let tasks: Vec<_> = state.tasks_of_machine(&cluster, id).filter(|task| !task.is_stopped()).collect();
        if !tasks.is_empty() && !force {
            return Err(Failure::invalid("Found running tasks on the instance."));
        }
        for held in tasks {
            let mut task = (*held.value).clone();
            lifecycle::abandon(&mut task, StopCode::TerminationNotice, REASON, api.now());
            transaction.expect(Key::Task(task.id), held.modified);
            transaction.put(task);
        }
        transaction.expect(Key::ContainerInstance(id), entry.modified);
        let gone = ContainerInstance { status: ContainerInstanceStatus::Inactive, agent_connected: false, ..(*entry.value).clone() };
        let shown =
            Entry { value: std::sync::Arc::new(gone), created: entry.created, modified: entry.modified, version: entry.version + 1 };
        transaction.put(Record::ContainerInstance(std::sync::Arc::clone(&shown.value)));
        let shown = render::container_instance(state, api.scope(), &shown, true);
        Ok(DeregisterContainerInstanceResponse { container_instance: Some(shown) })
    })
    .await
}
