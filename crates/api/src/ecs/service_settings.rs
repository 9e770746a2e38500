//! What CreateService and UpdateService have in common: checking and merging a service's settings.

use berth_control::Constraints;
use berth_model::service::{Percentages, Service, ServiceSettings, ServiceStatus};
use berth_shapes::ecs;
use berth_store::{Entry, State};

use super::deployment_outcome::{alarms, circuit_breaker, early_success};
use super::placement;
use crate::failure::Failure;

/// ECS's defaults of a REPLICA service.
const DEFAULT_MINIMUM: i32 = 100;
const DEFAULT_MAXIMUM: i32 = 200;
/// Most tasks of a service. <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-quotas.html>
const MAX_DESIRED: i32 = 5_000;

/// Reads `desiredCount`.
pub(crate) fn desired_count(count: i32) -> Result<u32, Failure> {
    if !(0..=MAX_DESIRED).contains(&count) {
        return Err(Failure::invalid(format!("desiredCount must be between 0 and {MAX_DESIRED}.")));
    }
    Ok(count.unsigned_abs())
}

/// Merges a `deploymentConfiguration` into what was; absent members keep their values.
pub(crate) fn deployment_configuration(
    given: Option<ecs::DeploymentConfiguration>,
    before: &ecs::DeploymentConfiguration,
) -> Result<(ecs::DeploymentConfiguration, Percentages), Failure> {
    let given = given.unwrap_or_default();
    let maximum = given.maximum_percent.or(before.maximum_percent).unwrap_or(DEFAULT_MAXIMUM);
    let minimum = given.minimum_healthy_percent.or(before.minimum_healthy_percent).unwrap_or(DEFAULT_MINIMUM);
    if !(100..=200).contains(&maximum) {
        return Err(Failure::invalid("maximumPercent must be between 100 and 200: deploymentConfiguration.maximumPercent"));
    }
    if !(0..=100).contains(&minimum) {
        return Err(Failure::invalid("minimumHealthyPercent must be between 0 and 100: deploymentConfiguration.minimumHealthyPercent"));
    }
    let breaker = circuit_breaker(given.deployment_circuit_breaker.clone(), before.deployment_circuit_breaker.as_ref())?;
    let configuration = ecs::DeploymentConfiguration {
        alarms: alarms(given.alarms.clone(), before.alarms.as_ref())?,
        deployment_circuit_breaker: Some(breaker),
        early_success_criteria: early_success(given.early_success_criteria.clone(), before.early_success_criteria.as_ref(), minimum)?,
        maximum_percent: Some(maximum),
        minimum_healthy_percent: Some(minimum),
        ..super::deployment_configuration::merge(&given, before)?
    };
    Ok((configuration, Percentages { minimum_healthy: minimum.unsigned_abs(), maximum: maximum.unsigned_abs() }))
}

/// Replaces placement constraints and strategies that the request gives; an empty list removes.
pub(crate) fn placement(
    known: &Constraints,
    settings: &mut ServiceSettings,
    constraints: Option<Vec<ecs::PlacementConstraint>>,
    strategies: Option<Vec<ecs::PlacementStrategy>>,
) -> Result<(), Failure> {
    if let Some(constraints) = constraints {
        placement::constraints(known, Some(&constraints))?;
        settings.placement_constraints = constraints;
    }
    if let Some(strategies) = strategies {
        placement::strategies(Some(&strategies))?;
        settings.placement_strategy = strategies;
    }
    Ok(())
}

/// Refuses members that Berth cannot honour; `given` pairs a member's name with whether the request has it.
pub(crate) fn refuse_unserved(given: &[(&str, bool)]) -> Result<(), Failure> {
    match given.iter().find(|(_, is_given)| *is_given) {
        Some((member, _)) => Err(Failure::unsupported(format!("Berth does not serve {member} of a service yet."))),
        None => Ok(()),
    }
}

/// A `monitoring` that asks for metrics.
pub(crate) fn is_monitored(monitoring: Option<&ecs::MonitoringConfiguration>) -> bool {
    monitoring.is_some_and(|monitoring| filled(monitoring.metric_configurations.as_ref()))
}

/// A list that holds something.
pub(crate) fn filled<T>(list: Option<&Vec<T>>) -> bool {
    list.is_some_and(|list| !list.is_empty())
}

/// The service of this name or ARN, if there is one.
pub(crate) fn find<'a>(
    api: &crate::context::Api,
    state: &'a State,
    cluster: &berth_model::ids::ClusterName,
    text: &str,
) -> Result<Option<&'a Entry<Service>>, Failure> {
    let name = berth_model::arn::parse_service(api.scope(), cluster, text)?;
    let express = state.express_service(cluster, &name).filter(|service| service.status != ServiceStatus::Inactive);
    if express.is_some() {
        return Err(Failure::invalid(
            "The service is an Express service: use UpdateExpressGatewayService or DeleteExpressGatewayService to change it: service",
        ));
    }
    Ok(state.service(cluster, &name))
}

/// The service to change: it must be there and ACTIVE.
pub(crate) fn find_active<'a>(
    api: &crate::context::Api,
    state: &'a State,
    cluster: &berth_model::ids::ClusterName,
    text: &str,
) -> Result<&'a Entry<Service>, Failure> {
    let service = find(api, state, cluster, text)?.ok_or_else(Failure::service_not_found)?;
    if service.status != ServiceStatus::Active {
        return Err(Failure::modelled(ecs::ErrorCode::ServiceNotActive, "Service was not ACTIVE."));
    }
    Ok(service)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_merged_and_checked() {
        let (configuration, percentages) = deployment_configuration(None, &Default::default()).unwrap();
        assert_eq!((percentages.minimum_healthy, percentages.maximum), (100, 200));
        let given = ecs::DeploymentConfiguration { minimum_healthy_percent: Some(50), ..Default::default() };
        let (configuration, _) = deployment_configuration(Some(given), &configuration).unwrap();
        let (_, percentages) = deployment_configuration(None, &configuration).unwrap();
        assert_eq!((percentages.minimum_healthy, percentages.maximum), (50, 200));
        let wrong = ecs::DeploymentConfiguration { maximum_percent: Some(300), ..Default::default() };
        assert!(deployment_configuration(Some(wrong), &configuration).unwrap_err().message.contains("maximumPercent"));
    }
}
