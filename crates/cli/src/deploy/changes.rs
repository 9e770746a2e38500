//! What happened between two looks at a deployment, one line each. It must never tell the same twice.

use berth_shapes::ecs;

use super::show;
use super::status::{Outcome, Status, is_clock, numberless};
use crate::ps::age;
use crate::tasks::name_of;

/// The changes since `before`; without one, how it stands. `now` is in milliseconds since 1970.
pub(crate) fn lines(before: Option<&Status>, status: &Status, now: i64) -> Vec<String> {
    let mut lines = Vec::new();
    let changed = |of: &dyn Fn(&Status) -> Option<String>| {
        let line = of(status);
        line.filter(|line| before.and_then(of).as_ref() != Some(line))
    };
    // It heads what is there at first, and sums up what comes.
    if before.is_none() {
        lines.extend(record(status));
    }
    lines.extend(changed(&|status| Some(format!("stage {}", status.service_deployment.as_ref()?.lifecycle_stage.as_ref()?.as_str()))));
    lines.extend(events(before, status));
    lines.extend(deployments(before, status));
    lines.extend(changed(&show::traffic));
    lines.extend(changed(&|status| Some(show::breaker(status)?.1)));
    lines.extend(changed(&|status| Some(show::alarms(status)?.1)));
    let old_hooks = before.map(show::hooks).unwrap_or_default();
    lines.extend(show::hooks(status).into_iter().filter(|hook| !old_hooks.contains(hook)).map(|hook| hook.replace("\n  ", "; ")));
    lines.extend(waits(before, status));
    if before.is_some() {
        lines.extend(changed(&record));
    }
    if status.outcome.is_final() && before.is_none_or(|before| !before.outcome.is_final()) {
        lines.push(end(status, now));
    }
    lines
}

/// The record's status, and why it has it.
fn record(status: &Status) -> Option<String> {
    let one = status.service_deployment.as_ref()?;
    let target = one.target_service_revision.as_ref().and_then(|target| target.arn.as_deref());
    let mut line = format!("deployment {}", one.service_deployment_arn.as_deref().map_or("", name_of));
    line.push_str(&target.map_or_else(String::new, |arn| format!(" of {}", status.definition_of(arn))));
    line.push_str(&format!(": {}", one.status.as_ref().map_or("", |status| status.as_str())));
    if let Some(reason) = &one.status_reason {
        line.push_str(&format!(": {reason}"));
    }
    Some(line)
}

fn deployments(before: Option<&Status>, status: &Status) -> Vec<String> {
    let id = |one: &ecs::Deployment| one.id.clone().unwrap_or_default();
    let old = before.map(|before| before.deployments.as_slice()).unwrap_or_default();
    let mut lines = Vec::new();
    for one in &status.deployments {
        let count = |count: Option<i32>| count.unwrap_or_default();
        let mut line = format!(
            "{} {} {}: {} of {} running, {} pending, {} failed",
            id(one),
            one.status.as_deref().unwrap_or_default(),
            one.task_definition.as_deref().map_or("", name_of),
            count(one.running_count),
            count(one.desired_count),
            count(one.pending_count),
            count(one.failed_tasks),
        );
        line.push_str(&one.rollout_state.as_ref().map_or_else(String::new, |state| format!(", {}", state.as_str())));
        let same = |old: &ecs::Deployment| {
            let counts = |one: &ecs::Deployment| (one.running_count, one.desired_count, one.pending_count, one.failed_tasks);
            old.id == one.id && old.status == one.status && old.rollout_state == one.rollout_state && counts(old) == counts(one)
        };
        if !old.iter().any(same) {
            lines.push(line);
        }
    }
    let is_there = |gone: &ecs::Deployment| status.deployments.iter().any(|one| one.id == gone.id);
    let gone = old.iter().filter(|one| !is_there(one));
    lines.extend(gone.map(|one| format!("{} {}: gone", id(one), one.task_definition.as_deref().map_or("", name_of))));
    lines
}

/// New events, the oldest first; at the first look those of this deployment.
fn events(before: Option<&Status>, status: &Status) -> Vec<String> {
    let began = status.service_deployment.as_ref().and_then(|one| one.created_at).map_or(i64::MAX, |at| at.as_millis());
    let is_new = |event: &&ecs::ServiceEvent| match before {
        Some(before) => !before.events.iter().any(|old| old.id == event.id),
        None => event.created_at.is_some_and(|at| at.as_millis() >= began),
    };
    let new: Vec<_> = status.events.iter().filter(is_new).collect();
    new.into_iter().rev().map(|event| event.message.clone().unwrap_or_default()).collect()
}

fn waits(before: Option<&Status>, status: &Status) -> Vec<String> {
    let old: Vec<_> =
        before.map(|before| before.waits_for.as_slice()).unwrap_or_default().iter().map(|one| numberless(&one.text)).collect();
    // What the deployments' own lines say already is no reason.
    let tells = |code: &str| !matches!(code, "DEPLOYMENT" | "STEADY");
    let new = status.waits_for.iter().filter(|one| !is_clock(one) && tells(&one.code) && !old.contains(&numberless(&one.text)));
    new.map(|one| format!("waits: {}", one.text)).collect()
}

/// What became of it, in one line.
pub(crate) fn end(status: &Status, now: i64) -> String {
    let word = match status.outcome {
        Outcome::None => "no deployment",
        Outcome::InProgress => "goes on",
        Outcome::Completed => "completed",
        Outcome::RolledBack => "rolled back",
        Outcome::Failed => "failed",
        Outcome::Stopped => "stopped",
    };
    let took = status.elapsed_millis(now).map_or_else(String::new, |millis| format!(" after {}", age::render(millis)));
    format!("{word}{took}")
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use serde_json::json;

    const NOW: i64 = 1_040_000;

    #[test]
    fn the_first_look_tells_all_and_the_next_nothing() {
        let status = sample::status("IN_PROGRESS", &[("DEPLOYMENT", "x"), ("WAITS", "2 older tasks wait"), ("NEXT", "in 3 s")]);
        assert_eq!(
            lines(None, &status, NOW),
            [
                "deployment BBBBBBBBBBBBBBBBBBBBB of web:2: IN_PROGRESS",
                "(service web) has started 2 tasks: (task b) (task c).",
                "ecs-svc/2 PRIMARY web:2: 2 of 4 running, 1 pending, 0 failed, IN_PROGRESS",
                "ecs-svc/1 ACTIVE web:1: 2 of 0 running, 0 pending, 0 failed, COMPLETED",
                "waits: 2 older tasks wait",
            ]
        );
        assert_eq!(lines(Some(&status), &status, NOW), Vec::<String>::new());
        let later = sample::status("IN_PROGRESS", &[("WAITS", "1 older tasks wait")]);
        assert_eq!(lines(Some(&status), &later, NOW), Vec::<String>::new(), "a count is no new reason");
    }

    #[test]
    fn each_change_is_a_line() {
        let before = sample::status("IN_PROGRESS", &[("WAITS", "2 older tasks wait")]);
        let mut service = sample::service();
        service["deployments"][0]["runningCount"] = 4.into();
        service["deployments"][0]["rolloutState"] = "COMPLETED".into();
        service["deployments"].as_array_mut().unwrap().pop();
        service["events"].as_array_mut().unwrap().insert(0, json!({"id": "e4", "createdAt": 1020, "message": "last"}));
        service["events"].as_array_mut().unwrap().insert(1, json!({"id": "e3", "createdAt": 1010, "message": "next"}));
        let mut one = sample::service_deployment("SUCCESSFUL");
        one["finishedAt"] = 1030.into();
        assert_eq!(
            lines(Some(&before), &sample::status_of(&service, &one, &[]), NOW),
            [
                "next",
                "last",
                "ecs-svc/2 PRIMARY web:2: 4 of 4 running, 1 pending, 0 failed, COMPLETED",
                "ecs-svc/1 web:1: gone",
                "deployment BBBBBBBBBBBBBBBBBBBBB of web:2: SUCCESSFUL",
                "completed after 30s",
            ]
        );
    }

    #[test]
    fn stages_weights_failures_alarms_and_hooks() {
        let before = sample::status("IN_PROGRESS", &[]);
        let mut one = sample::service_deployment("IN_PROGRESS");
        one["lifecycleStage"] = "SCALE_UP".into();
        one["deploymentCircuitBreaker"] = json!({"status": "MONITORING", "failureCount": 1, "threshold": 3});
        one["targetServiceRevision"]["requestedProductionTrafficWeight"] = 0.0.into();
        one["alarms"] = json!({"status": "MONITORING", "alarmNames": ["slow"], "triggeredAlarmNames": []});
        one["lifecycleHookDetails"] = json!([{"hookId": "h1", "targetType": "PAUSE", "status": "AWAITING_ACTION"}]);
        let after = sample::status_of(&sample::service(), &one, &[]);
        let told = lines(Some(&before), &after, NOW);
        assert_eq!(
            told[..4],
            ["stage SCALE_UP", "traffic: web:2 0 %", "circuit breaker: 1 of 3 failures (MONITORING)", "alarms: slow (MONITORING)"]
        );
        assert!(told[4].starts_with("PAUSE hook h1: AWAITING_ACTION; aws ecs continue-service-deployment"), "{told:?}");
        assert_eq!(lines(Some(&after), &after, NOW).len(), 0);
    }
}
