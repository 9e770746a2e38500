//! `deploymentCircuitBreaker`, `alarms` and `earlySuccessCriteria` of a service: what makes a deployment end.

use berth_model::alarm::MAX_ALARM_NAME;
use berth_shapes::ecs;

use crate::failure::Failure;

/// Most failures that a threshold may name: as many as a service may have tasks.
const MOST_FAILURES: i32 = 5_000;
/// Most alarms of a service. AWS names no limit; the record of every deployment holds their names.
const MOST_ALARMS: usize = 100;

/// Merges a circuit breaker into what was; absent members keep their values.
pub(crate) fn circuit_breaker(
    given: Option<ecs::DeploymentCircuitBreaker>,
    before: Option<&ecs::DeploymentCircuitBreaker>,
) -> Result<ecs::DeploymentCircuitBreaker, Failure> {
    let off = || ecs::DeploymentCircuitBreaker { enable: Some(false), rollback: Some(false), ..Default::default() };
    let before = before.cloned().unwrap_or_else(off);
    let Some(given) = given else { return Ok(before) };
    let breaker = ecs::DeploymentCircuitBreaker {
        enable: given.enable.or(before.enable),
        rollback: given.rollback.or(before.rollback),
        reset_on_healthy_task: given.reset_on_healthy_task.or(before.reset_on_healthy_task),
        threshold_configuration: given.threshold_configuration.or(before.threshold_configuration),
    };
    if let Some(threshold) = &breaker.threshold_configuration {
        let is_count = threshold.r#type.as_ref().is_some_and(|kind| kind.as_str() == "COUNT");
        let most = if is_count { MOST_FAILURES } else { 100 };
        if threshold.value.is_some_and(|value| !(1..=most).contains(&value)) {
            return Err(Failure::invalid(format!(
                "value must be between 1 and {most}: deploymentConfiguration.deploymentCircuitBreaker.thresholdConfiguration.value"
            )));
        }
    }
    Ok(breaker)
}

/// Takes alarms, or those that were. Whether there is an alarm of that name is not asked: it may come later.
pub(crate) fn alarms(
    given: Option<ecs::DeploymentAlarms>,
    before: Option<&ecs::DeploymentAlarms>,
) -> Result<Option<ecs::DeploymentAlarms>, Failure> {
    let Some(alarms) = given.or_else(|| before.cloned()) else { return Ok(None) };
    let names = alarms.alarm_names.as_deref().unwrap_or_default();
    if alarms.enable == Some(true) && names.is_empty() {
        return Err(Failure::invalid("alarms needs at least one alarm name: deploymentConfiguration.alarms.alarmNames"));
    }
    if names.len() > MOST_ALARMS {
        return Err(Failure::invalid(format!("alarms has at most {MOST_ALARMS} alarm names: deploymentConfiguration.alarms.alarmNames")));
    }
    let is_name = |name: &String| (1..=MAX_ALARM_NAME).contains(&name.chars().count());
    if let Some(at) = names.iter().position(|name| !is_name(name)) {
        return Err(Failure::invalid(format!(
            "An alarm's name has 1 to {MAX_ALARM_NAME} characters: deploymentConfiguration.alarms.alarmNames[{at}]"
        )));
    }
    Ok(Some(alarms))
}

/// Takes early success criteria, or those that were.
pub(crate) fn early_success(
    given: Option<ecs::DeploymentEarlySuccessCriteria>,
    before: Option<&ecs::DeploymentEarlySuccessCriteria>,
    minimum_healthy_percent: i32,
) -> Result<Option<ecs::DeploymentEarlySuccessCriteria>, Failure> {
    let Some(criteria) = given.or_else(|| before.cloned()) else { return Ok(None) };
    if criteria.enable != Some(true) {
        return Ok(Some(criteria));
    }
    let Some(percent) = criteria.healthy_percent else {
        return Err(Failure::invalid(
            "earlySuccessCriteria needs a healthyPercent: deploymentConfiguration.earlySuccessCriteria.healthyPercent",
        ));
    };
    if !(minimum_healthy_percent..=100).contains(&percent) {
        return Err(Failure::invalid(format!(
            "healthyPercent must be between minimumHealthyPercent ({minimum_healthy_percent}) and 100: \
             deploymentConfiguration.earlySuccessCriteria.healthyPercent"
        )));
    }
    if criteria.source_service_revision_cleanup.is_none() {
        return Err(Failure::invalid(
            "earlySuccessCriteria needs a sourceServiceRevisionCleanup: \
             deploymentConfiguration.earlySuccessCriteria.sourceServiceRevisionCleanup",
        ));
    }
    Ok(Some(criteria))
}
