//! `RunTask`: places up to ten tasks and answers when they are durable. What finds no place becomes `failures[]`.

use std::sync::Arc;

use berth_control::{Launched, Refused, Rule, TaskTemplate, Where, zone_constraint};
use berth_model::fargate::NO_CAPACITY;
use berth_model::ids::ClusterName;
use berth_model::needs;
use berth_model::tags::{Tags, merge_tags, parse_tags};
use berth_model::task::{ClientToken, LaunchType, Task};
use berth_model::task_definition::TaskDefinition;
use berth_shapes::ecs::{self, RunTaskRequest};
use berth_store::Entry;

use super::register_task_definition::shares_nothing;
use super::task_list::TaskList;
use super::task_volumes::check_ephemeral;
use super::{capacity, definitions, fargate, network_configuration, placement, render};
use crate::answer::{Written, unwritable};
use crate::context::{Api, active};
use crate::failure::Failure;

/// Most tasks of one call.
const MAX_COUNT: i32 = 10;
/// Largest `overrides`, as JSON.
const MAX_OVERRIDES: usize = 8_192;
/// Longest `startedBy` and `clientToken`, `group`.
const MAX_STARTED_BY: usize = 128;
const MAX_TOKEN: usize = 64;
const MAX_GROUP: usize = 255;

pub(crate) async fn run(api: &Api, request: RunTaskRequest) -> Result<Written, Failure> {
    let (template, count) = wanted(api, request, MAX_COUNT)?;
    let cluster = template.cluster.clone();
    let launched = api.control.launch(template, Where::Anywhere(count)).await.map_err(|error| token_arns(api, &cluster, error))?;
    answer(api, &cluster, &launched, Vec::new())
}

/// What a request asks for: tasks of which kind, and how many, which are not more than `most`.
pub(crate) fn wanted(api: &Api, request: RunTaskRequest, most: i32) -> Result<(TaskTemplate, u32), Failure> {
    let cluster = api.active_cluster(request.cluster.as_deref())?;
    let count = request.count.unwrap_or(1);
    if !(1..=most).contains(&count) {
        return Err(Failure::invalid(format!("count must be between 1 and {most}.")));
    }
    refuse_unserved(&request)?;
    let definition = definitions::usable(api, &api.store.state(), request.task_definition.as_deref())?;
    let fingerprint = fingerprint(&RunTaskRequest { client_token: None, ..request.clone() });
    let client_token = request.client_token.clone().filter(|token| !token.is_empty());
    if client_token.as_ref().is_some_and(|token| token.chars().count() > MAX_TOKEN) {
        return Err(Failure::invalid(format!("clientToken can have at most {MAX_TOKEN} characters.")));
    }
    let (launch_type, capacity_provider_strategy) = {
        let state = api.store.state();
        let holder = active(&state, &cluster)?;
        capacity::chosen(api, &state, &holder.value, request.launch_type.as_ref(), request.capacity_provider_strategy.as_deref())?
    };
    fargate::platform_version(launch_type, request.platform_version.as_deref())?;
    fargate::check_placement(launch_type, request.placement_constraints.as_ref(), request.placement_strategy.as_ref())?;
    let mut template = template(
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
            launch_type,
            enable_execute_command: request.enable_execute_command == Some(true),
            network: request.network_configuration,
        },
    )?;
    template.capacity_provider_strategy = capacity_provider_strategy;
    template.client_token = client_token.map(|token| ClientToken { token, request: fingerprint });
    let known = api.control.constraints();
    template.constraints.extend(placement::constraints(known, request.placement_constraints.as_deref())?);
    placement::check_together(request.placement_constraints.as_deref().unwrap_or_default(), &template.definition)?;
    template.strategies = placement::strategies(request.placement_strategy.as_deref())?;
    Ok((template, count.unsigned_abs()))
}

/// Members that Berth cannot honour are refused, never ignored.
fn refuse_unserved(request: &RunTaskRequest) -> Result<(), Failure> {
    let unserved = [("volumeConfigurations", request.volume_configurations.as_ref().is_some_and(|list| !list.is_empty()))];
    match unserved.iter().find(|(_, given)| *given) {
        Some((member, _)) => Err(Failure::unsupported(format!("Berth does not serve {member} of RunTask yet."))),
        None => Ok(()),
    }
}

/// What RunTask and StartTask have in common.
pub(crate) struct Wish {
    pub(crate) overrides: Option<ecs::TaskOverride>,
    pub(crate) group: Option<String>,
    pub(crate) started_by: Option<String>,
    pub(crate) tags: Option<Vec<ecs::Tag>>,
    pub(crate) propagate_tags: Option<ecs::PropagateTags>,
    pub(crate) managed_tags: bool,
    pub(crate) launch_type: LaunchType,
    pub(crate) enable_execute_command: bool,
    pub(crate) network: Option<ecs::NetworkConfiguration>,
}

/// The tasks that are wished for, with the constraints of their definition.
pub(crate) fn template(api: &Api, cluster: &ClusterName, definition: Arc<TaskDefinition>, wish: Wish) -> Result<TaskTemplate, Failure> {
    fargate::check_launch(&definition, wish.launch_type, wish.overrides.as_ref())?;
    let is_fargate = wish.launch_type == LaunchType::Fargate;
    let known = api.control.constraints();
    let mut constraints = placement::of_definition(known, &definition)?;
    let (network, public_addresses) = {
        let state = api.store.state();
        let network = network_configuration::read(&state, &definition, wish.launch_type, wish.network.as_ref())?;
        let near = network.as_ref().filter(|_| !is_fargate);
        constraints.extend(near.and_then(|network| zone_constraint(&state, network, known)));
        let public_addresses = berth_control::public_addresses(&state, network.as_ref());
        (network, public_addresses)
    };
    let overrides = check_overrides(&definition, wish.overrides)?;
    let started_by = wish.started_by.filter(|text| !text.is_empty());
    if started_by.as_ref().is_some_and(|text| text.chars().count() > MAX_STARTED_BY) {
        return Err(Failure::invalid(format!("startedBy can have at most {MAX_STARTED_BY} characters.")));
    }
    let group = wish.group.filter(|text| !text.is_empty());
    if group.as_ref().is_some_and(|group| group.chars().count() > MAX_GROUP) {
        return Err(Failure::invalid(format!("group can have at most {MAX_GROUP} characters.")));
    }
    // A family's own group may be longer: its name alone has up to 255.
    let group = group.unwrap_or_else(|| format!("family:{}", definition.id.family));
    let own = parse_tags(wish.tags.as_deref())?;
    let mut tags = match wish.propagate_tags.as_ref().map(|from| from.as_str()) {
        Some("TASK_DEFINITION") => definition.tags.clone(),
        Some("SERVICE") => return Err(Failure::invalid("The propagateTags value SERVICE is not valid for a task that no service starts.")),
        _ => Tags::new(),
    };
    merge_tags(&mut tags, own)?;
    if wish.managed_tags {
        tags.insert("aws:ecs:clusterName".to_owned(), cluster.to_string());
    }
    // Without overrides the demand parsed at registration stands.
    let mut demand = match &overrides {
        Some(overrides) => needs::demand(&definition.document, Some(overrides)),
        None => definition.needs.demand.clone(),
    };
    demand.public_addresses = public_addresses;
    Ok(TaskTemplate {
        cluster: cluster.clone(),
        demand,
        definition,
        group: group.into(),
        started_by: started_by.map(Into::into),
        service: None,
        launch_type: wish.launch_type,
        capacity_provider_strategy: Vec::new(),
        digests: Default::default(),
        network,
        overrides: overrides.map(Box::new),
        tags,
        enable_execute_command: wish.enable_execute_command,
        client_token: None,
        constraints,
        strategies: Vec::new(),
    })
}

fn check_overrides(definition: &TaskDefinition, overrides: Option<ecs::TaskOverride>) -> Result<Option<ecs::TaskOverride>, Failure> {
    let Some(overrides) = overrides else { return Ok(None) };
    let size = serde_json::to_string(&overrides).map_or(0, |json| json.chars().count());
    if size > MAX_OVERRIDES {
        return Err(Failure::invalid(format!("Container Overrides length must be at most {MAX_OVERRIDES}")));
    }
    let containers = definition.document.container_definitions.as_deref().unwrap_or_default();
    for own in overrides.container_overrides.iter().flatten() {
        let name = own.name.as_deref().unwrap_or_default();
        if !containers.iter().any(|container| container.name.as_deref() == Some(name)) {
            return Err(Failure::invalid(format!("Override for container named {name} is not a container in the TaskDefinition.")));
        }
        if shares_nothing(own.resource_requirements.as_deref()) {
            return Err(Failure::invalid(format!(
                "Invalid override for container named {name}: 'sharingStrategy' of a resource requirement must have exactly one member."
            )));
        }
    }
    for (member, text, parse) in
        [("cpu", &overrides.cpu, needs::parse_cpu as fn(&str) -> Option<u32>), ("memory", &overrides.memory, needs::parse_memory)]
    {
        if text.as_deref().is_some_and(|text| parse(text).is_none()) {
            return Err(Failure::invalid(format!("Invalid '{member}' setting for task.")));
        }
    }
    check_ephemeral(overrides.ephemeral_storage.as_ref())?;
    let is_empty = overrides == ecs::TaskOverride::default();
    Ok((!is_empty).then_some(overrides))
}

/// Reads `launchType`; absent means EC2.
pub(crate) fn parse_launch_type(launch_type: Option<&ecs::LaunchType>) -> Result<LaunchType, Failure> {
    match launch_type.map(|launch_type| launch_type.as_str()) {
        None | Some("EC2") => Ok(LaunchType::Ec2),
        Some("FARGATE") => Ok(LaunchType::Fargate),
        Some("EXTERNAL") => Ok(LaunchType::External),
        Some(other) => Err(Failure::invalid(format!("Berth does not serve launch type {other} yet: launchType"))),
    }
}

/// FNV-1a over a request, which comes without its token: tells a retry from another request under the same token.
pub(crate) fn fingerprint(request: &impl serde::Serialize) -> u64 {
    let bytes = serde_json::to_vec(request).unwrap_or_default();
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn token_arns(api: &Api, cluster: &ClusterName, error: berth_control::LaunchError) -> Failure {
    let arns = match &error {
        berth_control::LaunchError::TokenReused(tasks) => Some(tasks.iter().map(|id| api.scope().task(cluster, *id)).collect::<Vec<_>>()),
        _ => None,
    };
    let failure = Failure::from(error);
    match arns {
        Some(arns) => failure.with("resourceIds", arns.into()),
        None => failure,
    }
}

/// An answer's `tasks`, and its `failures` after those that there are.
pub(crate) fn answer(api: &Api, cluster: &ClusterName, launched: &Launched, mut failures: Vec<ecs::Failure>) -> Result<Written, Failure> {
    failures.extend(launched.refused.iter().map(|refused| refusal(api, cluster, refused)));
    let state = api.store.state();
    let entry = |task: &Arc<Task>| {
        // Just committed, so it is there; its version is what DescribeTasks would show.
        let version = state.task(task.id).map_or(1, |entry| entry.version);
        Entry { value: Arc::clone(task), created: state.revision, modified: state.revision, version }
    };
    let entries: Vec<_> = launched.tasks.iter().map(entry).collect();
    let mut tasks = TaskList::begin(&state, api.scope(), cluster, true, entries.len());
    entries
        .iter()
        .try_for_each(|entry| tasks.push(entry))
        .and_then(|()| tasks.end(&failures))
        .map(Written)
        .map_err(|error| unwritable(&error))
}

/// What did not get its place, as one of an answer's `failures`.
fn refusal(api: &Api, cluster: &ClusterName, refused: &Refused) -> ecs::Failure {
    match refused {
        Refused::ByRule(refusal) => ecs::Failure {
            arn: Some(api.scope().container_instance(cluster, refusal.instance)),
            reason: Some(refusal.rule.reason().to_owned()),
            detail: None,
        },
        Refused::EmptyProvider(name) => render::failure(berth_model::capacity_provider::arn(api.scope(), name), "EMPTY CAPACITY PROVIDER"),
        Refused::NoFargate(rule) => ecs::Failure {
            arn: None,
            reason: Some(if *rule == Some(Rule::Interface) { Rule::Interface.reason() } else { NO_CAPACITY }.to_owned()),
            detail: Some(match rule {
                None => "No machine offers Fargate capacity.".to_owned(),
                Some(Rule::Interface) => "No subnet has an address left.".to_owned(),
                Some(rule) => format!("A machine {}.", rule.in_words()),
            }),
        },
        Refused::Missing(id) => render::missing(api.scope().container_instance(cluster, *id)),
    }
}
