//! For tests: a service in the middle of a deployment, as the API shows it.

use serde_json::{Value, json};

use super::status::{RevisionSummary, Status};
use crate::reason::Reason;

pub(crate) const PREFIX: &str = "arn:aws:ecs:us-east-1:000000000000";

fn deployment(id: &str, status: &str, definition: &str, running: u32, pending: u32) -> Value {
    json!({
        "id": format!("ecs-svc/{id}"), "status": status, "taskDefinition": format!("{PREFIX}:task-definition/{definition}"),
        "desiredCount": if status == "PRIMARY" { 4 } else { 0 }, "runningCount": running, "pendingCount": pending, "failedTasks": 0,
        "rolloutState": if status == "PRIMARY" { "IN_PROGRESS" } else { "COMPLETED" },
        "rolloutStateReason": format!("ECS deployment ecs-svc/{id} {}.", if status == "PRIMARY" { "in progress" } else { "completed" }),
        "createdAt": 1000, "updatedAt": 1001,
    })
}

/// Four tasks wanted: two of web:2 are there and one is coming, two of web:1 go on.
pub(crate) fn service() -> Value {
    json!({
        "serviceArn": format!("{PREFIX}:service/blue/web"), "serviceName": "web", "clusterArn": format!("{PREFIX}:cluster/blue"),
        "status": "ACTIVE", "desiredCount": 4, "runningCount": 4, "pendingCount": 1,
        "taskDefinition": format!("{PREFIX}:task-definition/web:2"),
        "deployments": [deployment("2", "PRIMARY", "web:2", 2, 1), deployment("1", "ACTIVE", "web:1", 2, 0)],
        "currentServiceDeployment": format!("{PREFIX}:service-deployment/blue/web/BBBBBBBBBBBBBBBBBBBBB"),
        "currentServiceRevisions": [{"arn": revision(2)}, {"arn": revision(1)}],
        "events": [
            {"id": "e2", "createdAt": 1003, "message": "(service web) has started 2 tasks: (task b) (task c)."},
            {"id": "e1", "createdAt": 900, "message": "(service web) has reached a steady state."},
        ],
    })
}

/// The ARN of the service's revision of this number.
pub(crate) fn revision(number: u8) -> String {
    format!("{PREFIX}:service-revision/blue/web/{}", number.to_string().repeat(19))
}

/// The record of its deployment.
pub(crate) fn service_deployment(status: &str) -> Value {
    let summary =
        |number, running| json!({"arn": revision(number), "requestedTaskCount": 4, "runningTaskCount": running, "pendingTaskCount": 0});
    json!({
        "serviceDeploymentArn": format!("{PREFIX}:service-deployment/blue/web/BBBBBBBBBBBBBBBBBBBBB"),
        "serviceArn": format!("{PREFIX}:service/blue/web"), "clusterArn": format!("{PREFIX}:cluster/blue"),
        "createdAt": 1000, "startedAt": 1001, "updatedAt": 1002, "status": status,
        "sourceServiceRevisions": [summary(1, 2)], "targetServiceRevision": summary(2, 2),
        "deploymentConfiguration": {"strategy": "ROLLING", "minimumHealthyPercent": 50, "maximumPercent": 100},
        "deploymentCircuitBreaker": {"status": "DISABLED", "failureCount": 0, "threshold": 0},
        "alarms": {"status": "DISABLED", "alarmNames": [], "triggeredAlarmNames": []},
    })
}

/// Its status, made of such answers.
pub(crate) fn status_of(service: &Value, service_deployment: &Value, reasons: &[(&str, &str)]) -> Status {
    let revisions = [2, 1].map(|number| RevisionSummary {
        service_revision_arn: revision(number),
        task_definition: format!("{PREFIX}:task-definition/web:{number}"),
    });
    let reason = |(code, text): &(&str, &str)| Reason { code: (*code).into(), text: (*text).into(), rule: None, arns: Vec::new() };
    Status::new(
        serde_json::from_value(service.clone()).unwrap(),
        serde_json::from_value(service_deployment.clone()).unwrap(),
        revisions.to_vec(),
        reasons.iter().map(reason).collect(),
    )
}

/// The sample with its deployment in this status.
pub(crate) fn status(status: &str, reasons: &[(&str, &str)]) -> Status {
    status_of(&service(), &service_deployment(status), reasons)
}
