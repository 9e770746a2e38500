//! `autoScalingGroupProvider`: ECS's defaults and rules. There are no Auto Scaling groups here: what is said of scaling, protection
//! and draining is checked, kept and shown, and acts on nothing.

use berth_shapes::ecs::{AutoScalingGroupProvider, AutoScalingGroupProviderUpdate, ManagedScaling};

use crate::failure::Failure;

/// Longest ARN: every AWS service takes 2048 characters at most.
const MAX_ARN: usize = 2_048;

/// A new provider's, with defaults filled in.
pub(crate) fn create(given: AutoScalingGroupProvider) -> Result<AutoScalingGroupProvider, Failure> {
    let arn = given.auto_scaling_group_arn.as_deref().unwrap_or_default();
    // The ARN's last part, or what stands alone, is the group's name.
    let name = if arn.starts_with("arn:") { arn.rsplit_once(":autoScalingGroupName/").map_or("", |(_, name)| name) } else { arn };
    if name.is_empty() || name.chars().count() > 255 || arn.chars().count() > MAX_ARN {
        return Err(Failure::invalid(
            "The specified Auto Scaling group ARN is not valid. Specify a valid Auto Scaling group ARN or name and try again: \
             autoScalingGroupProvider.autoScalingGroupArn",
        ));
    }
    filled(given)
}

/// A provider's after a change: absent members stay as they are.
pub(crate) fn update(
    before: &AutoScalingGroupProvider,
    given: AutoScalingGroupProviderUpdate,
) -> Result<AutoScalingGroupProvider, Failure> {
    let mut after = before.clone();
    if let Some(scaling) = given.managed_scaling {
        let known = after.managed_scaling.unwrap_or_default();
        after.managed_scaling = Some(ManagedScaling {
            status: scaling.status.or(known.status),
            target_capacity: scaling.target_capacity.or(known.target_capacity),
            minimum_scaling_step_size: scaling.minimum_scaling_step_size.or(known.minimum_scaling_step_size),
            maximum_scaling_step_size: scaling.maximum_scaling_step_size.or(known.maximum_scaling_step_size),
            instance_warmup_period: scaling.instance_warmup_period.or(known.instance_warmup_period),
        });
    }
    after.managed_termination_protection = given.managed_termination_protection.or(after.managed_termination_protection);
    after.managed_draining = given.managed_draining.or(after.managed_draining);
    filled(after)
}

fn filled(mut group: AutoScalingGroupProvider) -> Result<AutoScalingGroupProvider, Failure> {
    let scaling = group.managed_scaling.get_or_insert_default();
    scaling.status.get_or_insert_with(|| "DISABLED".into());
    scaling.target_capacity.get_or_insert(100);
    let least = *scaling.minimum_scaling_step_size.get_or_insert(1);
    let most = *scaling.maximum_scaling_step_size.get_or_insert(10_000);
    scaling.instance_warmup_period.get_or_insert(300);
    if least > most {
        return Err(Failure::invalid(
            "minimumScalingStepSize must not be greater than maximumScalingStepSize: autoScalingGroupProvider.managedScaling",
        ));
    }
    let is_scaled = scaling.status.as_ref().is_some_and(|status| status.as_str() == "ENABLED");
    let protection = group.managed_termination_protection.get_or_insert_with(|| "DISABLED".into());
    if protection.as_str() == "ENABLED" && !is_scaled {
        return Err(Failure::invalid(
            "The managed termination protection setting for the capacity provider is invalid. To use managed termination protection, \
             managed scaling must also be used: autoScalingGroupProvider.managedTerminationProtection",
        ));
    }
    group.managed_draining.get_or_insert_with(|| "DISABLED".into());
    Ok(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(json: serde_json::Value) -> AutoScalingGroupProvider {
        serde_json::from_value(json).expect("a group")
    }

    #[test]
    fn defaults_are_filled_in_and_kept_on_update() {
        let made =
            create(group(serde_json::json!({"autoScalingGroupArn": "g", "managedScaling": {"status": "ENABLED"}}))).expect("it is valid");
        let scaling = made.managed_scaling.clone().expect("it is filled in");
        assert_eq!((scaling.target_capacity, scaling.minimum_scaling_step_size), (Some(100), Some(1)));
        assert_eq!((scaling.maximum_scaling_step_size, scaling.instance_warmup_period), (Some(10_000), Some(300)));
        let change = serde_json::json!({"managedScaling": {"targetCapacity": 80}, "managedTerminationProtection": "ENABLED"});
        let changed = update(&made, serde_json::from_value(change).expect("a change")).expect("it is valid");
        let scaling = changed.managed_scaling.expect("it is there");
        assert_eq!((scaling.status.as_ref().map(|s| s.as_str()), scaling.target_capacity), (Some("ENABLED"), Some(80)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, word) in [
            (serde_json::json!({"autoScalingGroupArn": ""}), "autoScalingGroupArn"),
            (serde_json::json!({"autoScalingGroupArn": "arn:aws:autoscaling:us-east-1:1:autoScalingGroup:x"}), "autoScalingGroupArn"),
            (
                serde_json::json!({"autoScalingGroupArn": "g", "managedScaling": {"minimumScalingStepSize": 5, "maximumScalingStepSize": 4}}),
                "minimumScalingStepSize",
            ),
            (serde_json::json!({"autoScalingGroupArn": "g", "managedTerminationProtection": "ENABLED"}), "managedTerminationProtection"),
        ] {
            assert!(create(group(json)).expect_err("it is refused").message.contains(word), "{word}");
        }
    }
}
