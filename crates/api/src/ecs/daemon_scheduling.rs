//! The DAEMON scheduling strategy in requests: its defaults, and what it does not go with, in ECS's words.
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_CreateService.html>

use berth_model::capacity_provider::StrategyItem;
use berth_model::service::{DeploymentController, Percentages, SchedulingStrategy, Service};
use berth_shapes::ecs::{CreateServiceRequest, DeploymentConfiguration, UpdateServiceRequest};

use super::service_settings::filled;
use crate::failure::Failure;

/// Reads `schedulingStrategy`, and refuses what a DAEMON service cannot have.
pub(crate) fn strategy(request: &CreateServiceRequest, controller: DeploymentController) -> Result<SchedulingStrategy, Failure> {
    let word = request.scheduling_strategy.as_ref().map_or("REPLICA", |strategy| strategy.as_str());
    let strategy = SchedulingStrategy::parse(word)
        .ok_or_else(|| Failure::invalid(format!("schedulingStrategy must be REPLICA or DAEMON: schedulingStrategy '{word}'")))?;
    if strategy != SchedulingStrategy::Daemon {
        return Ok(strategy);
    }
    if controller != DeploymentController::Ecs {
        return Err(Failure::invalid(format!(
            "The daemon scheduling strategy does not support the {controller} deployment controller. Change the deployment controller to \
             ECS and try again"
        )));
    }
    if request.launch_type.as_ref().is_some_and(|launch_type| launch_type.as_str() == "FARGATE") {
        return Err(Failure::invalid(
            "The daemon scheduling strategy does not support the FARGATE launch type. Change the launch type to EC2 and try again",
        ));
    }
    check_members(
        request.desired_count.is_some(),
        filled(request.placement_strategy.as_ref()),
        request.availability_zone_rebalancing.as_ref().is_some_and(|zones| zones.as_str() == "ENABLED"),
    )?;
    Ok(strategy)
}

/// The same of a request that changes a service.
pub(crate) fn check_update(request: &UpdateServiceRequest, service: &Service) -> Result<(), Failure> {
    if !service.is_daemon() {
        return Ok(());
    }
    check_members(
        request.desired_count.is_some(),
        filled(request.placement_strategy.as_ref()),
        request.availability_zone_rebalancing.as_ref().is_some_and(|zones| zones.as_str() == "ENABLED"),
    )
}

fn check_members(has_desired_count: bool, has_placement_strategy: bool, rebalances: bool) -> Result<(), Failure> {
    if has_desired_count {
        return Err(Failure::invalid(
            "The daemon scheduling strategy does not support a desired count for services. Remove the desired count value and try again",
        ));
    }
    if has_placement_strategy {
        return Err(Failure::invalid(
            "The daemon scheduling strategy does not support placement strategies. Remove the placement strategy and try again",
        ));
    }
    if rebalances {
        return Err(Failure::invalid(
            "The daemon scheduling strategy does not support Availability Zone rebalancing. Change the availabilityZoneRebalancing value \
             to DISABLED and try again",
        ));
    }
    Ok(())
}

/// What a new service's `deploymentConfiguration` begins with: nothing, or the defaults of a DAEMON one.
pub(crate) fn defaults(strategy: SchedulingStrategy) -> DeploymentConfiguration {
    match strategy {
        SchedulingStrategy::Replica => DeploymentConfiguration::default(),
        SchedulingStrategy::Daemon => {
            DeploymentConfiguration { maximum_percent: Some(100), minimum_healthy_percent: Some(0), ..Default::default() }
        }
    }
}

/// A DAEMON service's deployments: there is never a second task on an instance, so all of them may not be kept.
pub(crate) fn check_deployment(
    strategy: SchedulingStrategy,
    configuration: &DeploymentConfiguration,
    percentages: Percentages,
) -> Result<(), Failure> {
    if strategy != SchedulingStrategy::Daemon {
        return Ok(());
    }
    if configuration.strategy.as_ref().is_some_and(|kind| kind.as_str() != "ROLLING") {
        return Err(Failure::invalid(
            "The daemon scheduling strategy does not support deployment strategies other than ROLLING. Change the strategy value to ROLLING and \
             try again",
        ));
    }
    if percentages.maximum > 100 {
        return Err(Failure::invalid(
            "The daemon scheduling strategy does not support values above 100 for maximumPercent on a deployment configuration. Change the \
             maximumPercent value to 100, and try again",
        ));
    }
    if percentages.minimum_healthy >= 100 {
        return Err(Failure::invalid("Both maximumPercent and minimumHealthyPercent cannot be 100 as this will block deployments."));
    }
    Ok(())
}

/// A DAEMON service is on every instance, whoever's capacity that is. The cluster's default strategy counts as well: a request that names
/// the launch type has none.
pub(crate) fn check_capacity(strategy: SchedulingStrategy, providers: &[StrategyItem]) -> Result<(), Failure> {
    if strategy == SchedulingStrategy::Daemon && !providers.is_empty() {
        return Err(Failure::invalid(
            "Specifying a capacity provider strategy is not supported when you create a service using the DAEMON scheduling strategy.",
        ));
    }
    Ok(())
}
