//! `StartTask`: one task on each named container instance, past the strategies.

use berth_control::Where;
use berth_model::arn::parse_container_instance;
use berth_model::task::LaunchType;
use berth_shapes::ecs::StartTaskRequest;

use super::run_task::{Wish, answer, template};
use super::{definitions, render};
use crate::answer::Written;
use crate::context::Api;
use crate::failure::Failure;

/// Most instances of one call.
const MAX_INSTANCES: usize = 10;

pub(crate) async fn run(api: &Api, request: StartTaskRequest) -> Result<Written, Failure> {
    let cluster = api.active_cluster(request.cluster.as_deref())?;
    let named = request.container_instances.unwrap_or_default();
    if named.is_empty() {
        return Err(Failure::invalid("Container instances cannot be empty."));
    }
    if named.len() > MAX_INSTANCES {
        return Err(Failure::invalid(format!("containerInstances can have at most {MAX_INSTANCES} items.")));
    }
    let unserved = [("volumeConfigurations", request.volume_configurations.as_ref().is_some_and(|list| !list.is_empty()))];
    if let Some((member, _)) = unserved.iter().find(|(_, given)| *given) {
        return Err(Failure::unsupported(format!("Berth does not serve {member} of StartTask yet.")));
    }
    let mut instances = Vec::new();
    let mut failures = Vec::new();
    for text in &named {
        match parse_container_instance(api.scope(), &cluster, text) {
            Ok(id) if api.store.state().instance(id).is_some_and(|instance| instance.cluster == cluster) => instances.push(id),
            _ => failures.push(render::missing(text.clone())),
        }
    }
    let definition = definitions::usable(api, &api.store.state(), request.task_definition.as_deref())?;
    let template = template(
        api,
        &cluster,
        definition,
        Wish {
            overrides: request.overrides,
            group: request.group,
            started_by: request.started_by,
            tags: request.tags,
            propagate_tags: request.propagate_tags,
            managed_tags: request.enable_ecs_managed_tags == Some(true),
            launch_type: LaunchType::Ec2,
            enable_execute_command: request.enable_execute_command == Some(true),
            network: request.network_configuration,
        },
    )?;
    let launched = api.control.launch(template, Where::On(instances)).await?;
    answer(api, &cluster, &launched, failures)
}
