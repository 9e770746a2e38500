//! What a lifecycle hook is sent, and what its answer makes of it: both as ECS and its Lambda functions have them.
//!
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/lambda-lifecycle-hooks.html>

use berth_model::arn::Scope;
use berth_model::rollout::{ALL_TRAFFIC, HookRun, HookStatus, LifecycleStage};
use berth_model::service_deployment::ServiceDeployment;
use berth_model::time::UnixMillis;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Seconds until a hook is called again that is IN_PROGRESS and does not say when.
const CALL_BACK_SECONDS: f64 = 30.0;
/// Shortest and longest that it may say. A day is the longest that such a hook may take at all.
const CALL_BACK_RANGE: std::ops::RangeInclusive<f64> = 1.0..=86_400.0;
/// Largest `hookDetails` that are kept between calls, as JSON.
const MAX_DETAILS: usize = 16 * 1024;

/// The event of a run.
pub(super) fn event(scope: &Scope, record: &ServiceDeployment, run: &HookRun) -> Value {
    let (cluster, service) = (&record.cluster, &record.service);
    let weights = |green: u32| {
        let mut weights = Map::new();
        weights.insert(scope.service_revision(cluster, service, record.target.revision), percent(green));
        if let Some(blue) = record.candidate.filter(|_| record.rollout.as_ref().is_some_and(|rollout| rollout.blue.is_some())) {
            weights.insert(scope.service_revision(cluster, service, blue), percent(ALL_TRAFFIC.saturating_sub(green)));
        }
        Value::Object(weights)
    };
    let rollout = record.rollout.as_ref();
    let (test, production) = rollout.map_or((0, 0), |rollout| (rollout.test_weight, rollout.production_weight));
    // A stage shows the traffic that it is about.
    let is_test = run.stage == LifecycleStage::TestTrafficShift;
    let is_production = matches!(run.stage, LifecycleStage::PreProductionTrafficShift | LifecycleStage::ProductionTrafficShift);
    let mut event = json!({
        "executionId": run.id,
        "lifecycleStage": run.stage.as_str(),
        "resourceArn": scope.service_deployment(cluster, service, record.id),
        "executionDetails": {
            "serviceArn": scope.service(cluster, service),
            "targetServiceRevisionArn": scope.service_revision(cluster, service, record.target.revision),
            "testTrafficWeights": if is_test { weights(test) } else { json!({}) },
            "productionTrafficWeights": if is_production { weights(production) } else { json!({}) },
        },
    });
    let configured = record.configuration.lifecycle_hooks.as_ref().and_then(|hooks| hooks.get(run.hook)?.hook_details.clone());
    if let Some(details) = merged(configured, run.details.clone()) {
        event["hookDetails"] = details;
    }
    event
}

/// Whole percentages as whole numbers, as ECS sends them.
fn percent(tenths: u32) -> Value {
    if tenths.is_multiple_of(10) { json!(tenths / 10) } else { json!(f64::from(tenths) / 10.0) }
}

/// What came later wins, member by member.
fn merged(before: Option<Value>, added: Option<Value>) -> Option<Value> {
    match (before, added) {
        (Some(Value::Object(mut before)), Some(Value::Object(added))) => {
            before.extend(added);
            Some(Value::Object(before))
        }
        (before, added) => added.or(before),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    hook_status: Option<String>,
    call_back_delay: Option<Value>,
    hook_details: Option<Value>,
}

/// What an answer, or its failure to come, makes of a run.
pub(super) fn settle(run: &mut HookRun, answer: Result<&[u8], String>, now: UnixMillis) {
    let answer: Answer =
        match answer.and_then(|bytes| serde_json::from_slice(bytes).map_err(|error| format!("its answer is no JSON object: {error}"))) {
            Ok(answer) => answer,
            Err(problem) => return run.close(HookStatus::Failed, Some(format!("Lifecycle hook {} failed: {problem}.", run.id))),
        };
    match answer.hook_status.as_deref() {
        Some("SUCCEEDED") => run.close(HookStatus::Succeeded, None),
        Some("FAILED") => run.close(HookStatus::Failed, Some(format!("Lifecycle hook {} returned FAILED.", run.id))),
        Some("IN_PROGRESS") => {
            let details = merged(run.details.take(), answer.hook_details);
            if details.as_ref().is_some_and(|details| details.to_string().len() > MAX_DETAILS) {
                return run.close(HookStatus::Failed, Some(format!("Lifecycle hook {} failed: its hookDetails are too large.", run.id)));
            }
            run.details = details;
            let said = answer.call_back_delay.as_ref().and_then(Value::as_f64).filter(|seconds| seconds.is_finite());
            let seconds = said.unwrap_or(CALL_BACK_SECONDS).clamp(*CALL_BACK_RANGE.start(), *CALL_BACK_RANGE.end());
            // At most 86 400 000, as just clamped.
            run.call_at = Some(now.plus_millis((seconds * 1_000.0) as i64));
        }
        _ => run.close(HookStatus::Failed, Some(format!("Lifecycle hook {} failed: its answer has no valid hookStatus.", run.id))),
    }
}

#[cfg(test)]
mod tests {
    use berth_model::rollout::HookKind;

    use super::*;

    fn run() -> HookRun {
        HookRun {
            id: "x".to_owned(),
            hook: 0,
            kind: HookKind::Lambda,
            stage: LifecycleStage::PreScaleUp,
            visit: 1,
            status: HookStatus::InProgress,
            expires_at: UnixMillis(1_000_000),
            call_at: Some(UnixMillis(0)),
            details: None,
            reason: None,
        }
    }

    fn settled(answer: Result<&str, &str>) -> HookRun {
        let mut run = run();
        settle(&mut run, answer.map(str::as_bytes).map_err(str::to_owned), UnixMillis(5));
        run
    }

    #[test]
    fn only_a_valid_status_keeps_a_deployment_going() {
        assert_eq!(settled(Ok(r#"{"hookStatus":"SUCCEEDED"}"#)).status, HookStatus::Succeeded);
        for bad in
            [Ok(r#"{"hookStatus":"FAILED"}"#), Ok(r#"{"hookStatus":"DONE"}"#), Ok("{}"), Ok("null"), Ok("x"), Ok(""), Err("nobody answers")]
        {
            let run = settled(bad);
            assert_eq!(run.status, HookStatus::Failed, "{bad:?}");
            assert!(run.reason.is_some_and(|reason| reason.starts_with("Lifecycle hook x ")));
        }
    }

    #[test]
    fn who_is_in_progress_is_called_again_and_told_what_it_said() {
        let mut run = settled(Ok(r#"{"hookStatus":"IN_PROGRESS","hookDetails":{"a":1,"b":2}}"#));
        assert_eq!((run.status, run.call_at), (HookStatus::InProgress, Some(UnixMillis(30_005))));
        settle(&mut run, Ok(br#"{"hookStatus":"IN_PROGRESS","callBackDelay":2.5,"hookDetails":{"b":3}}"#), UnixMillis(10));
        assert_eq!((run.call_at, &run.details), (Some(UnixMillis(2_510)), &Some(json!({"a": 1, "b": 3}))));
        let large = format!(r#"{{"hookStatus":"IN_PROGRESS","hookDetails":{{"c":"{}"}}}}"#, "x".repeat(MAX_DETAILS));
        settle(&mut run, Ok(large.as_bytes()), UnixMillis(10));
        assert_eq!(run.status, HookStatus::Failed);
        assert_eq!(settled(Ok(r#"{"hookStatus":"IN_PROGRESS","callBackDelay":0}"#)).call_at, Some(UnixMillis(1_005)), "never at once");
    }

    #[test]
    fn configured_details_are_sent_with_those_that_were_answered() {
        assert_eq!(merged(Some(json!({"a": 1})), Some(json!({"a": 2, "b": 3}))), Some(json!({"a": 2, "b": 3})));
        assert_eq!(merged(Some(json!({"a": 1})), None), Some(json!({"a": 1})));
        assert_eq!(merged(None, None), None);
        assert_eq!((percent(1_000), percent(33)), (json!(100), json!(3.3)));
    }
}
