//! A deployment's status for people. It must never say what the status does not.

use berth_shapes::ecs;

use super::status::{Outcome, Status, is_clock};
use crate::console::{Colours, Style, one_line};
use crate::ps::age;
use crate::ps::table::{Cell, render as table};
use crate::tasks::name_of;

/// What changes comes first: a narrow terminal cuts what is behind.
const HEADINGS: [&str; 9] = ["STATUS", "DEFINITION", "TASKS", "RUNNING", "PENDING", "FAILED", "ROLLOUT", "DEPLOYMENT", "REVISION"];
/// How wide a bar is.
const BAR: usize = 16;
/// How many events are shown.
const EVENTS: usize = 5;

/// All of it; `now` is in milliseconds since 1970.
pub(crate) fn render(status: &Status, now: i64, colours: Colours) -> String {
    let mut text = heading(status, now, colours);
    if !status.deployments.is_empty() {
        let rows: Vec<_> = status.deployments.iter().map(|deployment| row(status, deployment)).collect();
        text.push_str(&table(&HEADINGS, &rows, colours));
    }
    let mut say = |style, line: String| text.push_str(&format!("{}\n", colours.paint(style, &line)));
    if let Some(line) = traffic(status) {
        say(Style::Plain, line);
    }
    if let Some((style, line)) = breaker(status) {
        say(style, line);
    }
    if let Some((style, line)) = alarms(status) {
        say(style, line);
    }
    for line in hooks(status) {
        say(Style::Changing, line);
    }
    if !status.waits_for.is_empty() {
        say(Style::Bold, "waits for".to_owned());
        let clocks_last = status.waits_for.iter().filter(|one| !is_clock(one)).chain(status.waits_for.iter().filter(|one| is_clock(one)));
        clocks_last.for_each(|reason| text.push_str(&reason.render(colours)));
    }
    if !status.events.is_empty() {
        text.push_str(&format!("{}\n", colours.paint(Style::Bold, "events")));
        for event in status.events.iter().take(EVENTS) {
            let ago = event.created_at.map_or_else(String::new, |at| age::render(now - at.as_millis()));
            text.push_str(&format!(
                "  {} {}\n",
                colours.paint(Style::Dim, &format!("{ago:>5} ago")),
                one_line(event.message.as_deref().unwrap_or_default())
            ));
        }
    }
    text
}

/// `2 of 4 tasks`.
fn heading(status: &Status, now: i64, colours: Colours) -> String {
    let service = &status.service;
    let pending = if service.pending_count > 0 { format!(", {} pending", service.pending_count) } else { String::new() };
    let state = if service.status == "ACTIVE" { String::new() } else { format!(" is {}", service.status) };
    let mut text = format!(
        "{} in cluster {}{state}: {} of {} tasks running{pending}\n",
        colours.paint(Style::Bold, &service.service_name),
        name_of(&service.cluster_arn),
        service.running_count,
        service.desired_count,
    );
    let style = style_of(status.outcome);
    if let Some(one) = &status.service_deployment {
        let id = one.service_deployment_arn.as_deref().map_or("", name_of);
        let word = one.status.as_ref().map_or("", |status| status.as_str());
        let mut line = format!("deployment {id}");
        if let Some(target) = one.target_service_revision.as_ref().and_then(|target| target.arn.as_deref()) {
            line.push_str(&format!(" of {}", status.definition_of(target)));
        }
        line.push_str(&format!(": {}", colours.paint(style, word)));
        if let Some(stage) = &one.lifecycle_stage {
            line.push_str(&format!(", stage {}", stage.as_str()));
        }
        if let Some(millis) = status.elapsed_millis(now) {
            let word = if status.outcome.is_final() { "took" } else { "for" };
            line.push_str(&format!(", {word} {}", age::render(millis)));
        }
        text.push_str(&format!("{line}{}\n", how(one)));
        if let Some(back) = one.rollback.as_ref().and_then(|rollback| rollback.service_revision_arn.as_deref()) {
            text.push_str(&format!("back to {} (revision {})\n", status.definition_of(back), name_of(back)));
        }
    } else if status.outcome == Outcome::None {
        text.push_str(&format!("no deployment: its controller is {}\n", service.deployment_controller));
    }
    if let Some(reason) = &status.reason {
        text.push_str(&format!("{}\n", colours.paint(style, &one_line(reason))));
    }
    text
}

fn how(one: &ecs::ServiceDeployment) -> String {
    let Some(configuration) = &one.deployment_configuration else { return String::new() };
    let mut parts: Vec<String> = configuration.strategy.iter().map(|strategy| strategy.as_str().to_owned()).collect();
    parts.extend(configuration.minimum_healthy_percent.map(|percent| format!("minimum {percent} %")));
    parts.extend(configuration.maximum_percent.map(|percent| format!("maximum {percent} %")));
    parts.extend(configuration.bake_time_in_minutes.filter(|minutes| *minutes > 0).map(|minutes| format!("bake time {minutes} min")));
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}

fn style_of(outcome: Outcome) -> Style {
    match outcome {
        Outcome::Completed => Style::Good,
        Outcome::InProgress => Style::Changing,
        Outcome::RolledBack | Outcome::Failed => Style::Bad,
        Outcome::Stopped | Outcome::None => Style::Dim,
    }
}

fn row(status: &Status, one: &ecs::Deployment) -> [Cell; 9] {
    let count = |count: Option<i32>| count.unwrap_or_default().max(0);
    let (running, pending, failed) = (count(one.running_count), count(one.pending_count), count(one.failed_tasks));
    let rollout = one.rollout_state.as_ref().map_or("", |state| state.as_str());
    let style = match rollout {
        "COMPLETED" => Style::Good,
        "FAILED" => Style::Bad,
        _ => Style::Changing,
    };
    let number = |number: i32, style| if number > 0 { Cell::styled(style, number.to_string()) } else { Cell::plain("") };
    // How many there are to be is the PRIMARY deployment's; older ones are to have none, and are measured by the same.
    let of = count(one.desired_count).max(status.service.desired_count).max(running + pending);
    let bar = bar(running.unsigned_abs() as usize, pending.unsigned_abs() as usize, of.unsigned_abs() as usize);
    [
        Cell::plain(one.status.as_deref().unwrap_or_default()),
        Cell::plain(one.task_definition.as_deref().map_or("", name_of)),
        Cell::styled(style, bar),
        Cell::plain(format!("{running} of {}", count(one.desired_count))),
        number(pending, Style::Changing),
        number(failed, Style::Bad),
        Cell::styled(style, rollout),
        Cell::plain(one.id.as_deref().unwrap_or_default()),
        Cell::plain(status.revision_of(one).unwrap_or_default()),
    ]
}

/// `#` for each part that runs, `+` for each that comes, `.` for what is missing. What is there shows, however small a part it is.
fn bar(running: usize, pending: usize, of: usize) -> String {
    let part = |count: usize| if count == 0 || of == 0 { 0 } else { (count * BAR / of).clamp(1, BAR) };
    let running = part(running);
    let pending = part(pending).min(BAR - running);
    format!("[{}{}{}]", "#".repeat(running), "+".repeat(pending), ".".repeat(BAR - running - pending))
}

/// `traffic: web:2 10 %, web:1 90 %`, where traffic is shifted between revisions at all.
pub(super) fn traffic(status: &Status) -> Option<String> {
    let one = status.service_deployment.as_ref()?;
    let revisions: Vec<_> = one.target_service_revision.iter().chain(one.source_service_revisions.iter().flatten()).collect();
    let weights = |weight: &dyn Fn(&ecs::ServiceRevisionSummary) -> Option<f64>| {
        let parts: Vec<String> = revisions
            .iter()
            .filter_map(|revision| Some(format!("{} {} %", status.definition_of(revision.arn.as_deref()?), weight(revision)?)))
            .collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    };
    let production = weights(&|revision| revision.requested_production_traffic_weight).map(|text| format!("traffic: {text}"));
    let test = weights(&|revision| revision.requested_test_traffic_weight).map(|text| format!("test traffic: {text}"));
    let lines: Vec<String> = production.into_iter().chain(test).collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

/// `circuit breaker: 1 of 3 failures`, where there is one.
pub(super) fn breaker(status: &Status) -> Option<(Style, String)> {
    let breaker = status.service_deployment.as_ref()?.deployment_circuit_breaker.as_ref()?;
    let word = breaker.status.as_ref().map_or("", |status| status.as_str());
    if matches!(word, "" | "DISABLED") {
        return None;
    }
    let (failures, threshold) = (breaker.failure_count.unwrap_or_default(), breaker.threshold.unwrap_or_default());
    let style = match word {
        "TRIGGERED" => Style::Bad,
        _ if failures > 0 => Style::Changing,
        _ => Style::Plain,
    };
    Some((style, format!("circuit breaker: {failures} of {threshold} failures ({word})")))
}

/// The alarms that watch it, where there are any.
pub(super) fn alarms(status: &Status) -> Option<(Style, String)> {
    let alarms = status.service_deployment.as_ref()?.alarms.as_ref()?;
    let word = alarms.status.as_ref().map_or("", |status| status.as_str());
    if matches!(word, "" | "DISABLED") {
        return None;
    }
    let triggered = alarms.triggered_alarm_names.as_deref().unwrap_or_default();
    let names = alarms.alarm_names.as_deref().unwrap_or_default().join(", ");
    if triggered.is_empty() {
        return Some((Style::Plain, format!("alarms: {names} ({word})")));
    }
    Some((Style::Bad, format!("alarms: {names} ({word}); in alarm: {}", triggered.join(", "))))
}

/// The lifecycle hooks that have not ended, and what can be done about those that wait.
pub(super) fn hooks(status: &Status) -> Vec<String> {
    let Some(one) = &status.service_deployment else { return Vec::new() };
    let open = |hook: &&ecs::DeploymentLifecycleHookDetail| {
        matches!(hook.status.as_ref().map_or("", |status| status.as_str()), "AWAITING_ACTION" | "IN_PROGRESS" | "FAILED" | "TIMED_OUT")
    };
    let line = |hook: &ecs::DeploymentLifecycleHookDetail| {
        let (id, word) = (hook.hook_id.as_deref().unwrap_or_default(), hook.status.as_ref().map_or("", |status| status.as_str()));
        let kind = hook.target_type.as_ref().map_or("", |kind| kind.as_str());
        let target = hook.target_arn.as_deref().map_or_else(String::new, |arn| format!(" ({arn})"));
        let mut line = format!("{kind} hook {id}{target}: {word}");
        if let Some(at) = hook.expires_at {
            let then = hook.timeout_action.as_ref().map_or("ends", |action| action.as_str());
            line.push_str(&format!(", {then} at {}", at.render_iso8601()));
        }
        if word == "AWAITING_ACTION" {
            let arn = one.service_deployment_arn.as_deref().unwrap_or_default();
            line.push_str(&format!("\n  aws ecs continue-service-deployment --service-deployment-arn {arn} --hook-id {id}"));
        }
        line
    };
    one.lifecycle_hook_details.iter().flatten().filter(open).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use serde_json::json;

    #[test]
    fn a_deployment_for_people() {
        let status = sample::status("IN_PROGRESS", &[("NEXT", "it is looked at again in 3 s"), ("WAITS", "2 older tasks wait")]);
        assert_eq!(
            render(&status, 1_065_500, Colours::Off),
            "\
web in cluster blue: 4 of 4 tasks running, 1 pending
deployment BBBBBBBBBBBBBBBBBBBBB of web:2: IN_PROGRESS, for 1m05s (ROLLING, minimum 50 %, maximum 100 %)
ECS deployment ecs-svc/2 in progress.
STATUS   DEFINITION  TASKS               RUNNING  PENDING  ROLLOUT      DEPLOYMENT  REVISION
PRIMARY  web:2       [########++++....]  2 of 4   1        IN_PROGRESS  ecs-svc/2   2222222222222222222
ACTIVE   web:1       [########........]  2 of 0            COMPLETED    ecs-svc/1   1111111111111111111
waits for
  - 2 older tasks wait
  - it is looked at again in 3 s
events
  1m02s ago (service web) has started 2 tasks: (task b) (task c).
  2m45s ago (service web) has reached a steady state.
"
        );
    }

    #[test]
    fn what_watches_and_what_waits() {
        let mut one = sample::service_deployment("IN_PROGRESS");
        one["lifecycleStage"] = "POST_TEST_TRAFFIC_SHIFT".into();
        one["deploymentCircuitBreaker"] = json!({"status": "MONITORING", "failureCount": 1, "threshold": 3});
        one["alarms"] = json!({"status": "TRIGGERED", "alarmNames": ["slow", "errors"], "triggeredAlarmNames": ["errors"]});
        one["targetServiceRevision"]["requestedProductionTrafficWeight"] = 10.0.into();
        one["sourceServiceRevisions"][0]["requestedProductionTrafficWeight"] = 90.0.into();
        one["targetServiceRevision"]["requestedTestTrafficWeight"] = 100.0.into();
        one["lifecycleHookDetails"] = json!([
            {"hookId": "h1", "targetType": "PAUSE", "status": "AWAITING_ACTION", "expiresAt": 2000, "timeoutAction": "ROLLBACK"},
            {"hookId": "h0", "targetType": "PAUSE", "status": "SUCCEEDED"},
        ]);
        let text = render(&sample::status_of(&sample::service(), &one, &[]), 1_065_500, Colours::Off);
        for line in [
            "IN_PROGRESS, stage POST_TEST_TRAFFIC_SHIFT, for 1m05s",
            "traffic: web:2 10 %, web:1 90 %; test traffic: web:2 100 %\n",
            "circuit breaker: 1 of 3 failures (MONITORING)\n",
            "alarms: slow, errors (TRIGGERED); in alarm: errors\n",
            "PAUSE hook h1: AWAITING_ACTION, ROLLBACK at 1970-01-01T00:33:20Z\n  aws ecs continue-service-deployment --service-deployment-arn arn:",
            "--hook-id h1\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(!text.contains("h0"), "{text}");
    }

    #[test]
    fn a_way_back_names_where_it_goes() {
        let mut one = sample::service_deployment("ROLLBACK_SUCCESSFUL");
        one["rollback"] = json!({"reason": "stopped", "startedAt": 1010, "serviceRevisionArn": sample::revision(1)});
        one["statusReason"] = "stopped by the user".into();
        one["finishedAt"] = 1030.into();
        let text = render(&sample::status_of(&sample::service(), &one, &[]), 9_000_000, Colours::Off);
        assert!(text.contains("ROLLBACK_SUCCESSFUL, took 30s"), "{text}");
        assert!(text.contains("back to web:1 (revision 1111111111111111111)\nstopped by the user\n"), "{text}");
    }

    #[test]
    fn bars() {
        assert_eq!(bar(0, 0, 0), "[................]");
        assert_eq!(bar(4, 0, 4), "[################]");
        assert_eq!(bar(1, 1, 1000), "[#+..............]");
        assert_eq!(bar(1000, 1, 1001), "[###############+]");
        assert_eq!(bar(5, 9, 5), "[################]", "more than wanted");
    }
}
