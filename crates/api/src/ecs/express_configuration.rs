//! The configuration of an Express service: what a request asks for, merged with what was, completed with ECS's defaults, checked,
//! and the task definition that comes of it. It must never change anything.

use berth_model::arn::Scope;
use berth_model::express_service::{ExpressRevision, MAIN_CONTAINER};
use berth_model::fargate;
use berth_model::ids::{DefinitionId, Family};
use berth_model::needs::{parse_cpu, parse_memory};
use berth_model::task_definition::TaskDefinition;
use berth_shapes::ecs::{
    self, CreateExpressGatewayServiceRequest, ErrorCode, ExpressGatewayContainer, ExpressGatewayScalingTarget,
    ExpressGatewayServiceConfiguration as Configuration, UpdateExpressGatewayServiceRequest,
};
use berth_store::State;

use super::aws_references::{distinct, role, security_group, subnets};
use super::definitions;
use super::express_container as container;
use super::register_task_definition::Draft;
use crate::context::Api;
use crate::failure::Failure;

/// Defaults: <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_CreateExpressGatewayService.html>
const DEFAULT_CPU: &str = "256";
const DEFAULT_MEMORY: &str = "512";
const DEFAULT_ARCHITECTURE: &str = "X86_64";
const DEFAULT_PATH: &str = "/ping";
const DEFAULT_METRIC: &str = "AVERAGE_CPU";
const DEFAULT_TARGET: i32 = 60;
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/express-service-work.html>
const DEFAULT_MIN_TASKS: i32 = 1;
const DEFAULT_MAX_TASKS: i32 = 20;
/// Most tasks of a service. <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-quotas.html>
const MAX_TASKS: i32 = 5_000;
/// Longest path of a target group's health check.
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_CreateTargetGroup.html>
const MAX_PATH: usize = 1_024;
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_AwsVpcConfiguration.html>
const MAX_SECURITY_GROUPS: usize = 5;

/// What creations and updates can ask for.
#[derive(Clone)]
pub(crate) struct Wishes {
    execution_role_arn: Option<String>,
    task_role_arn: Option<String>,
    health_check_path: Option<String>,
    pub(crate) primary_container: Option<ExpressGatewayContainer>,
    network_configuration: Option<ecs::ExpressGatewayServiceNetworkConfiguration>,
    cpu: Option<String>,
    memory: Option<String>,
    cpu_architecture: Option<ecs::ExpressCpuArchitecture>,
    scaling_target: Option<ExpressGatewayScalingTarget>,
    pub(crate) task_definition_arn: Option<String>,
}

/// Both requests have the same members, each in a type of its own.
macro_rules! wishes_from {
    ($($request:ident),+) => {
        $(impl From<$request> for Wishes {
            fn from(request: $request) -> Self {
                Self {
                    execution_role_arn: request.execution_role_arn,
                    task_role_arn: request.task_role_arn,
                    health_check_path: request.health_check_path,
                    primary_container: request.primary_container,
                    network_configuration: request.network_configuration,
                    cpu: request.cpu,
                    memory: request.memory,
                    cpu_architecture: request.cpu_architecture,
                    scaling_target: request.scaling_target,
                    task_definition_arn: request.task_definition_arn.filter(|arn| !arn.is_empty()),
                }
            }
        })+
    };
}

wishes_from!(CreateExpressGatewayServiceRequest, UpdateExpressGatewayServiceRequest);

/// Where a configuration's task definition is from.
pub(crate) enum Source {
    /// It stays the one before.
    Kept(DefinitionId),
    /// The user's.
    Given(DefinitionId),
    /// To be registered, out of the configuration.
    Made(Box<Draft>),
}

impl Wishes {
    /// The members of which ECS would make a task definition: by name, those that are given.
    fn for_definition(&self) -> impl Iterator<Item = &'static str> {
        let given = [
            ("primaryContainer", self.primary_container.is_some()),
            ("executionRoleArn", self.execution_role_arn.is_some()),
            ("taskRoleArn", self.task_role_arn.is_some()),
            ("cpu", self.cpu.is_some()),
            ("memory", self.memory.is_some()),
            ("cpuArchitecture", self.cpu_architecture.is_some()),
        ];
        given.into_iter().filter(|(_, is_given)| *is_given).map(|(member, _)| member)
    }

    /// What does not hang on the state.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match (&self.task_definition_arn, self.for_definition().next()) {
            (Some(_), Some(member)) => Err(Failure::invalid(format!("You cannot specify {member} together with taskDefinitionArn."))),
            _ => Ok(()),
        }
    }

    /// The configuration that comes of it.
    pub(crate) fn resolve(
        &self,
        api: &Api,
        state: &State,
        before: Option<&ExpressRevision>,
        family: &Family,
    ) -> Result<(Configuration, Source), Failure> {
        let shown = before.map(|revision| revision.configuration.clone()).unwrap_or_default();
        let mut configuration = Configuration {
            health_check_path: self.health_check_path.clone().or(shown.health_check_path.clone()).or_else(|| Some(DEFAULT_PATH.to_owned())),
            network_configuration: self.network(shown.network_configuration.as_ref()),
            scaling_target: Some(self.scaling(shown.scaling_target.clone().unwrap_or_default())),
            ..shown.clone()
        };
        let source = if let Some(text) = &self.task_definition_arn {
            let definition = definitions::usable(api, state, Some(text))?;
            describe_given(&mut configuration, &definition, before.is_some())?;
            Source::Given(definition.id.clone())
        } else {
            let was_given = before.is_some_and(|revision| revision.is_definition_given);
            if was_given
                && self.primary_container.is_none()
                && let Some(member) = self.for_definition().next()
            {
                let text = "The service uses a task definition of yours; to change it, specify primaryContainer as well";
                return Err(Failure::invalid(format!("{text}: {member}")));
            }
            if !was_given || self.primary_container.is_some() {
                let known = shown.primary_container.as_ref().filter(|_| !was_given);
                self.describe_made(&mut configuration, known)?;
            }
            let same = |revision: &&ExpressRevision| definition_members(&configuration) == definition_members(&revision.configuration);
            match before.filter(same).filter(|_| !was_given || self.primary_container.is_none()) {
                Some(revision) => Source::Kept(revision.definition.clone()),
                None => Source::Made(Box::new(Draft::checked(definition_request(api.scope(), family, &configuration))?)),
            }
        };
        check(&configuration)?;
        Ok((configuration, source))
    }

    fn network(
        &self,
        before: Option<&ecs::ExpressGatewayServiceNetworkConfiguration>,
    ) -> Option<ecs::ExpressGatewayServiceNetworkConfiguration> {
        let Some(given) = &self.network_configuration else { return before.cloned() };
        let before = before.cloned().unwrap_or_default();
        let merged = ecs::ExpressGatewayServiceNetworkConfiguration {
            security_groups: given.security_groups.clone().or(before.security_groups).filter(|list| !list.is_empty()),
            subnets: given.subnets.clone().or(before.subnets).filter(|list| !list.is_empty()),
        };
        (merged != Default::default()).then_some(merged)
    }

    fn scaling(&self, before: ExpressGatewayScalingTarget) -> ExpressGatewayScalingTarget {
        let given = self.scaling_target.clone().unwrap_or_default();
        let least = given.min_task_count.or(before.min_task_count).unwrap_or(DEFAULT_MIN_TASKS);
        ExpressGatewayScalingTarget {
            min_task_count: Some(least),
            // Somebody who wants more than the default at least wants no fewer at most.
            max_task_count: given.max_task_count.or(before.max_task_count).or(Some(least.max(DEFAULT_MAX_TASKS))),
            auto_scaling_metric: given.auto_scaling_metric.or(before.auto_scaling_metric).or_else(|| Some(DEFAULT_METRIC.into())),
            auto_scaling_target_value: given.auto_scaling_target_value.or(before.auto_scaling_target_value).or(Some(DEFAULT_TARGET)),
        }
    }

    /// The members that make the definition, merged, completed and checked.
    fn describe_made(&self, configuration: &mut Configuration, known: Option<&ExpressGatewayContainer>) -> Result<(), Failure> {
        let needed = |member: &str| Failure::invalid(format!("{member} is required unless taskDefinitionArn is specified."));
        let container = container::merged(self.primary_container.as_ref(), known).ok_or_else(|| needed("primaryContainer"))?;
        container::check(&container)?;
        configuration.primary_container = Some(container);
        let execution_role = self.execution_role_arn.clone().or(configuration.execution_role_arn.take());
        let execution_role = execution_role.filter(|arn| !arn.is_empty()).ok_or_else(|| needed("executionRoleArn"))?;
        configuration.execution_role_arn = Some(role("executionRoleArn", &execution_role)?);
        let task_role = self.task_role_arn.clone().or(configuration.task_role_arn.take()).filter(|arn| !arn.is_empty());
        configuration.task_role_arn = task_role.map(|arn| role("taskRoleArn", &arn)).transpose()?;
        let size = |given: &Option<String>, before: Option<String>, default: &str| given.clone().or(before).unwrap_or(default.to_owned());
        let (cpu, memory) = fargate_size(
            &size(&self.cpu, configuration.cpu.take(), DEFAULT_CPU),
            &size(&self.memory, configuration.memory.take(), DEFAULT_MEMORY),
        )?;
        (configuration.cpu, configuration.memory) = (Some(cpu), Some(memory));
        let architecture = self.cpu_architecture.clone().or(configuration.cpu_architecture.take());
        configuration.cpu_architecture = architecture.or_else(|| Some(DEFAULT_ARCHITECTURE.into()));
        Ok(())
    }
}

/// The members that ECS makes a task definition of.
fn definition_members(of: &Configuration) -> Configuration {
    Configuration { health_check_path: None, network_configuration: None, scaling_target: None, ..of.clone() }
}

/// Sizes as integer texts, if Fargate has them.
fn fargate_size(cpu: &str, memory: &str) -> Result<(String, String), Failure> {
    match (parse_cpu(cpu), parse_memory(memory)) {
        (Some(cpu), Some(memory)) if fargate::has_size(cpu, memory) => Ok((cpu.to_string(), memory.to_string())),
        (Some(_), Some(_)) => Err(Failure::client("No Fargate configuration exists for given values: cpu, memory")),
        (None, _) => Err(Failure::client("Invalid 'cpu' setting for task.")),
        (_, None) => Err(Failure::client("Invalid 'memory' setting for task.")),
    }
}

/// What holds of every configuration, wherever its definition is from.
fn check(configuration: &Configuration) -> Result<(), Failure> {
    let path = configuration.health_check_path.as_deref().unwrap_or_default();
    if !path.starts_with('/') || path.len() > MAX_PATH || !path.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Failure::invalid(format!(
            "The health check path must start with a forward slash and have at most {MAX_PATH} printable characters: healthCheckPath"
        )));
    }
    if let Some(network) = &configuration.network_configuration {
        subnets("networkConfiguration.subnets", network.subnets.as_deref().unwrap_or_default())?;
        let groups = network.security_groups.as_deref().unwrap_or_default();
        distinct("networkConfiguration.securityGroups", groups, MAX_SECURITY_GROUPS)?;
        groups.iter().try_for_each(|group| security_group("networkConfiguration.securityGroups", group))?;
    }
    configuration.scaling_target.as_ref().map_or(Ok(()), check_scaling)
}

fn check_scaling(target: &ExpressGatewayScalingTarget) -> Result<(), Failure> {
    let (least, most) = (target.min_task_count.unwrap_or_default(), target.max_task_count.unwrap_or_default());
    if !(0..=MAX_TASKS).contains(&least) {
        return Err(Failure::invalid(format!("minTaskCount must be between 0 and {MAX_TASKS}: scalingTarget.minTaskCount")));
    }
    if !(1..=MAX_TASKS).contains(&most) || most < least {
        return Err(Failure::invalid(format!(
            "maxTaskCount must be between 1 and {MAX_TASKS}, and not be less than minTaskCount: scalingTarget.maxTaskCount"
        )));
    }
    let is_percentage = target.auto_scaling_metric.as_ref().is_none_or(|metric| metric.as_str() != "REQUEST_COUNT_PER_TARGET");
    let value = target.auto_scaling_target_value.unwrap_or_default();
    if value < 1 || (is_percentage && value > 100) {
        return Err(Failure::invalid(
            "autoScalingTargetValue must be at least 1, and at most 100 for a metric in percent: scalingTarget.autoScalingTargetValue",
        ));
    }
    Ok(())
}

/// Puts into a configuration what the user's own task definition says.
fn describe_given(configuration: &mut Configuration, definition: &TaskDefinition, is_update: bool) -> Result<(), Failure> {
    let document = &definition.document;
    if !document.compatibilities.iter().flatten().any(|launch| launch.as_str() == "FARGATE") {
        let text = "The task definition must have FARGATE compatibility: taskDefinitionArn";
        // UpdateExpressGatewayService does not have this exception.
        return Err(match is_update {
            false => Failure::modelled(ErrorCode::PlatformTaskDefinitionIncompatibility, text),
            true => Failure::invalid(text),
        });
    }
    let mut all = document.container_definitions.iter().flatten();
    let main = all.find(|container| container.name.as_deref() == Some(MAIN_CONTAINER));
    let main = main.and_then(container::of_definition).ok_or_else(|| {
        Failure::invalid(format!(
            "The task definition must have a container named {MAIN_CONTAINER} with a single TCP port mapping that includes a container port \
             and port name: taskDefinitionArn"
        ))
    })?;
    configuration.primary_container = Some(main);
    configuration.execution_role_arn.clone_from(&document.execution_role_arn);
    configuration.task_role_arn.clone_from(&document.task_role_arn);
    configuration.cpu.clone_from(&document.cpu);
    configuration.memory.clone_from(&document.memory);
    let architecture = document.runtime_platform.as_ref().and_then(|platform| platform.cpu_architecture.as_ref());
    configuration.cpu_architecture = architecture.map(|architecture| architecture.as_str().into());
    Ok(())
}

/// The definition that ECS would register.
fn definition_request(scope: &Scope, family: &Family, configuration: &Configuration) -> ecs::RegisterTaskDefinitionRequest {
    let main = configuration.primary_container.clone().unwrap_or_default();
    ecs::RegisterTaskDefinitionRequest {
        family: Some(family.to_string()),
        network_mode: Some("awsvpc".into()),
        requires_compatibilities: Some(vec!["FARGATE".into()]),
        cpu: configuration.cpu.clone(),
        memory: configuration.memory.clone(),
        execution_role_arn: configuration.execution_role_arn.clone(),
        task_role_arn: configuration.task_role_arn.clone(),
        runtime_platform: Some(ecs::RuntimePlatform {
            cpu_architecture: configuration.cpu_architecture.as_ref().map(|architecture| architecture.as_str().into()),
            operating_system_family: Some("LINUX".into()),
        }),
        container_definitions: Some(vec![container::definition(&scope.region, main)]),
        ..Default::default()
    }
}
