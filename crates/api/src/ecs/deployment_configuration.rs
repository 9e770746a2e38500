//! The members of `deploymentConfiguration` that say how a deployment goes through its lifecycle stages: strategy, bake times, hooks.
//! Ranges and combinations are those of
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeploymentConfiguration.html>,
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/pause-lifecycle-hooks.html> and
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/lambda-lifecycle-hooks.html>.

use berth_control::Hooks;
use berth_model::rollout::{HookKind, LifecycleStage, tenths};
use berth_shapes::ecs;

use crate::failure::Failure;

/// Where the members are, in messages.
const WHERE: &str = "deploymentConfiguration";
/// A day.
const MOST_MINUTES: i32 = 1_440;
/// Two weeks.
const MOST_PAUSE_MINUTES: i32 = 20_160;
/// Most hooks of either kind.
const MOST_HOOKS: usize = 10;
/// Longest `hookDetails` of a hook, as JSON. AWS names no limit; the record of every deployment holds them.
const MOST_DETAILS: usize = 4_096;

/// Merges what is `given` into what was; absent members keep their values, and an empty list of hooks removes them. Members of another
/// strategy go when the strategy changes.
pub(super) fn merge(
    given: &ecs::DeploymentConfiguration,
    before: &ecs::DeploymentConfiguration,
) -> Result<ecs::DeploymentConfiguration, Failure> {
    let strategy = given.strategy.clone().or_else(|| before.strategy.clone()).unwrap_or_else(|| "ROLLING".into());
    let was = before.strategy.as_ref().map_or("ROLLING", |strategy| strategy.as_str());
    let kind = strategy.as_str();
    if kind == "BLUE_GREEN" && given.bake_time_in_minutes.is_none() && was != kind {
        return Err(invalid("must be specified with the BLUE_GREEN deployment strategy", "bakeTimeInMinutes"));
    }
    let bake = given.bake_time_in_minutes.or(before.bake_time_in_minutes).unwrap_or(0);
    in_range(bake, 0..=MOST_MINUTES, "bakeTimeInMinutes")?;
    only_with("LINEAR", kind, given.linear_configuration.is_some(), "linearConfiguration")?;
    only_with("CANARY", kind, given.canary_configuration.is_some(), "canaryConfiguration")?;
    if let Some(hooks) = &given.lifecycle_hooks {
        check_hooks(hooks)?;
    }
    let hooks = given.lifecycle_hooks.as_ref().or(before.lifecycle_hooks.as_ref());
    Ok(ecs::DeploymentConfiguration {
        bake_time_in_minutes: Some(bake),
        linear_configuration: (kind == "LINEAR")
            .then(|| linear(given.linear_configuration.as_ref(), before.linear_configuration.as_ref()))
            .transpose()?,
        canary_configuration: (kind == "CANARY")
            .then(|| canary(given.canary_configuration.as_ref(), before.canary_configuration.as_ref()))
            .transpose()?,
        lifecycle_hooks: hooks.filter(|hooks| !hooks.is_empty()).map(|hooks| hooks.iter().map(with_defaults).collect()),
        strategy: Some(strategy),
        ..Default::default()
    })
}

/// Refuses hooks that this server could not call.
pub(super) fn check_targets(hooks: &Hooks, configuration: Option<&ecs::DeploymentConfiguration>) -> Result<(), Failure> {
    let all = configuration.and_then(|configuration| configuration.lifecycle_hooks.as_deref()).unwrap_or_default();
    for (number, hook) in all.iter().enumerate().filter(|(_, hook)| kind(hook) == HookKind::Lambda) {
        let target = hook.hook_target_arn.as_deref().unwrap_or_default();
        hooks.resolve(target).map_err(|error| Failure::invalid(format!("{error}: {}", at(number, "hookTargetArn"))))?;
    }
    Ok(())
}

fn invalid(problem: &str, member: &str) -> Failure {
    Failure::invalid(format!("{} {problem}: {WHERE}.{member}", member.rsplit('.').next().unwrap_or(member)))
}

fn in_range(value: i32, range: std::ops::RangeInclusive<i32>, member: &str) -> Result<(), Failure> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(invalid(&format!("must be between {} and {}", range.start(), range.end()), member))
}

fn only_with(needed: &str, strategy: &str, is_given: bool, member: &str) -> Result<(), Failure> {
    if is_given && strategy != needed {
        return Err(invalid(&format!("is only valid with the {needed} deployment strategy"), member));
    }
    Ok(())
}

/// A percentage in steps of 0.1, from `least` tenths on.
fn percent(value: f64, least: u32, member: &str) -> Result<f64, Failure> {
    let found = tenths(Some(value)).filter(|tenths| *tenths >= least);
    let range = format!("must be a multiple of 0.1 from {}.{} to 100.0", least / 10, least % 10);
    found.map(|_| value).ok_or_else(|| invalid(&range, member))
}

fn linear(
    given: Option<&ecs::LinearConfiguration>,
    before: Option<&ecs::LinearConfiguration>,
) -> Result<ecs::LinearConfiguration, Failure> {
    let step = given.and_then(|linear| linear.step_percent).or_else(|| before?.step_percent).unwrap_or(10.0);
    let bake = given.and_then(|linear| linear.step_bake_time_in_minutes).or_else(|| before?.step_bake_time_in_minutes).unwrap_or(6);
    in_range(bake, 0..=MOST_MINUTES, "linearConfiguration.stepBakeTimeInMinutes")?;
    let step = percent(step, 30, "linearConfiguration.stepPercent")?;
    Ok(ecs::LinearConfiguration { step_percent: Some(step), step_bake_time_in_minutes: Some(bake) })
}

fn canary(
    given: Option<&ecs::CanaryConfiguration>,
    before: Option<&ecs::CanaryConfiguration>,
) -> Result<ecs::CanaryConfiguration, Failure> {
    let part = given.and_then(|canary| canary.canary_percent).or_else(|| before?.canary_percent).unwrap_or(5.0);
    let bake = given.and_then(|canary| canary.canary_bake_time_in_minutes).or_else(|| before?.canary_bake_time_in_minutes).unwrap_or(10);
    in_range(bake, 0..=MOST_MINUTES, "canaryConfiguration.canaryBakeTimeInMinutes")?;
    let part = percent(part, 1, "canaryConfiguration.canaryPercent")?;
    Ok(ecs::CanaryConfiguration { canary_percent: Some(part), canary_bake_time_in_minutes: Some(bake) })
}

fn kind(hook: &ecs::DeploymentLifecycleHook) -> HookKind {
    hook.target_type.as_ref().and_then(|kind| HookKind::parse(kind.as_str())).unwrap_or(HookKind::Lambda)
}

fn with_defaults(hook: &ecs::DeploymentLifecycleHook) -> ecs::DeploymentLifecycleHook {
    let timeout = hook.timeout_configuration.clone().unwrap_or_default();
    ecs::DeploymentLifecycleHook {
        target_type: Some(kind(hook).as_str().into()),
        timeout_configuration: Some(ecs::DeploymentLifecycleHookTimeoutConfiguration {
            timeout_in_minutes: timeout.timeout_in_minutes.or(Some(berth_model::rollout::DEFAULT_HOOK_MINUTES)),
            action: timeout.action.or_else(|| Some("ROLLBACK".into())),
        }),
        ..hook.clone()
    }
}

fn at(number: usize, member: &str) -> String {
    format!("{WHERE}.lifecycleHooks[{number}].{member}")
}

fn check_hooks(hooks: &[ecs::DeploymentLifecycleHook]) -> Result<(), Failure> {
    for counted in [HookKind::Pause, HookKind::Lambda] {
        if hooks.iter().filter(|hook| kind(hook) == counted).count() > MOST_HOOKS {
            return Err(invalid(&format!("can have at most {MOST_HOOKS} hooks of the type {counted}"), "lifecycleHooks"));
        }
    }
    hooks.iter().enumerate().try_for_each(|(number, hook)| check_hook(number, hook))
}

fn check_hook(number: usize, hook: &ecs::DeploymentLifecycleHook) -> Result<(), Failure> {
    let wrong = |problem: &str, member: &str| Failure::invalid(format!("{member} {problem}: {}", at(number, member)));
    let is_pause = kind(hook) == HookKind::Pause;
    let stages = hook.lifecycle_stages.as_deref().unwrap_or_default();
    if stages.is_empty() {
        return Err(wrong("must name at least one lifecycle stage", "lifecycleStages"));
    }
    for (place, stage) in stages.iter().enumerate() {
        let known = LifecycleStage::parse(stage.as_str());
        if stages[..place].contains(stage) {
            return Err(wrong(&format!("names {} twice", stage.as_str()), "lifecycleStages"));
        }
        if is_pause && matches!(known, Some(LifecycleStage::TestTrafficShift | LifecycleStage::ProductionTrafficShift)) {
            return Err(wrong(&format!("cannot name {} for a hook of the type PAUSE", stage.as_str()), "lifecycleStages"));
        }
    }
    let blank = [
        ("hookTargetArn", hook.hook_target_arn.is_some()),
        ("roleArn", hook.role_arn.is_some()),
        ("hookDetails", hook.hook_details.is_some()),
    ];
    if let Some((member, _)) = blank.iter().find(|(_, is_given)| is_pause && *is_given) {
        return Err(wrong("is not applicable for a hook of the type PAUSE", member));
    }
    if !is_pause && hook.hook_target_arn.as_deref().unwrap_or_default().is_empty() {
        return Err(wrong("must be specified for a hook of the type AWS_LAMBDA", "hookTargetArn"));
    }
    // Berth calls no Lambda, so no role is needed; one that is given is echoed.
    if hook.role_arn.as_ref().is_some_and(|arn| !(arn.starts_with("arn:") && arn.contains(":iam:") && arn.contains(":role/"))) {
        return Err(wrong("is not the ARN of an IAM role", "roleArn"));
    }
    if hook.hook_details.as_ref().is_some_and(|details| details.to_string().len() > MOST_DETAILS) {
        return Err(wrong(&format!("can have at most {MOST_DETAILS} characters"), "hookDetails"));
    }
    let minutes = hook.timeout_configuration.as_ref().and_then(|timeout| timeout.timeout_in_minutes);
    let most = if is_pause { MOST_PAUSE_MINUTES } else { MOST_MINUTES };
    if minutes.is_some_and(|minutes| !(1..=most).contains(&minutes)) {
        let problem = format!("must be between 1 and {most} for a hook of the type {}", kind(hook));
        let member = "timeoutConfiguration.timeoutInMinutes";
        return Err(Failure::invalid(format!("timeoutInMinutes {problem}: {}", at(number, member))));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: serde_json::Value) -> ecs::DeploymentConfiguration {
        serde_json::from_value(json).unwrap()
    }

    fn refusal(json: serde_json::Value) -> String {
        merge(&read(json), &Default::default()).unwrap_err().message
    }

    #[test]
    fn defaults_are_shown_and_members_of_another_strategy_go() {
        let linear = merge(&read(serde_json::json!({"strategy": "LINEAR"})), &Default::default()).unwrap();
        assert_eq!(linear.linear_configuration.as_ref().and_then(|linear| linear.step_percent), Some(10.0));
        let finer = merge(&read(serde_json::json!({"linearConfiguration": {"stepPercent": 3.1}})), &linear).unwrap();
        let shown = finer.linear_configuration.clone().unwrap();
        assert_eq!((shown.step_percent, shown.step_bake_time_in_minutes), (Some(3.1), Some(6)));
        let canary = merge(&read(serde_json::json!({"strategy": "CANARY"})), &finer).unwrap();
        assert_eq!(canary.linear_configuration, None);
        assert_eq!(canary.canary_configuration.and_then(|canary| canary.canary_bake_time_in_minutes), Some(10));
    }

    #[test]
    fn hooks_are_replaced_as_a_whole_and_removed_by_an_empty_list() {
        let pause = read(serde_json::json!({"lifecycleHooks": [{"targetType": "PAUSE", "lifecycleStages": ["PRE_SCALE_UP"]}]}));
        let with = merge(&pause, &Default::default()).unwrap();
        let hook = with.lifecycle_hooks.as_ref().map(|hooks| hooks[0].clone()).unwrap();
        assert_eq!(hook.timeout_configuration.and_then(|timeout| timeout.timeout_in_minutes), Some(1_440));
        assert!(merge(&Default::default(), &with).unwrap().lifecycle_hooks.is_some());
        let none = read(serde_json::json!({"lifecycleHooks": []}));
        assert_eq!(merge(&none, &with).unwrap().lifecycle_hooks, None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let pause = |stage: &str| serde_json::json!({"lifecycleHooks": [{"targetType": "PAUSE", "lifecycleStages": [stage]}]});
        assert!(refusal(pause("PRODUCTION_TRAFFIC_SHIFT")).contains("lifecycleHooks[0].lifecycleStages"));
        for (json, member) in [
            (serde_json::json!({"strategy": "BLUE_GREEN"}), "bakeTimeInMinutes"),
            (serde_json::json!({"strategy": "BLUE_GREEN", "bakeTimeInMinutes": 1441}), "bakeTimeInMinutes"),
            (serde_json::json!({"linearConfiguration": {}}), "linearConfiguration"),
            (serde_json::json!({"strategy": "LINEAR", "canaryConfiguration": {}}), "canaryConfiguration"),
            (serde_json::json!({"strategy": "LINEAR", "linearConfiguration": {"stepPercent": 2.9}}), "stepPercent"),
            (serde_json::json!({"strategy": "CANARY", "canaryConfiguration": {"canaryPercent": 0.05}}), "canaryPercent"),
            (serde_json::json!({"strategy": "CANARY", "canaryConfiguration": {"canaryBakeTimeInMinutes": -1}}), "canaryBakeTimeInMinutes"),
            (serde_json::json!({"lifecycleHooks": [{"lifecycleStages": ["PRE_SCALE_UP"]}]}), "lifecycleHooks[0].hookTargetArn"),
        ] {
            let said = refusal(json);
            assert!(said.contains(member), "{member}: {said}");
        }
    }
}
