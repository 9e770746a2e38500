//! Task protection as a container asks for it: passed on to the control plane for its own task, and the answer in the agent's form.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-scale-in-protection-endpoint.html>

use berth_shapes::ecs::{Failure, GetTaskProtectionResponse, ProtectedTask};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::tags::PATIENCE;
use crate::ecs_client::{CallError, EcsClient};
use crate::tasks::TaskRecord;

/// What a container wants.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Wish {
    /// Whether its task is protected; required.
    #[serde(alias = "protectionEnabled", default)]
    protection_enabled: Option<bool>,
    /// For how long; the control plane's default if none.
    #[serde(alias = "expiresInMinutes", default)]
    expires_in_minutes: Option<i64>,
}

impl Wish {
    /// Reads a body; `None` if it is not an object with these members and no others. (A list would do for serde.)
    #[must_use]
    pub fn read(body: &[u8]) -> Option<Self> {
        let members: Map<String, Value> = serde_json::from_slice(body).ok()?;
        serde_json::from_value(members.into()).ok()
    }
}

/// An answer's status and body.
pub type Answer = (StatusCode, Value);

/// Nobody is known by the name.
#[must_use]
pub fn unknown() -> Answer {
    error(StatusCode::NOT_FOUND, None, "ResourceNotFoundException", "Failed to find a task for the request")
}

/// A body that is no [`Wish`].
#[must_use]
pub fn unreadable() -> Answer {
    error(StatusCode::BAD_REQUEST, None, "InvalidParameterException", "UpdateTaskProtection: failed to decode request")
}

/// Asks for the protection of a task.
pub async fn get(client: &EcsClient, record: &TaskRecord) -> Answer {
    let request = json!({"cluster": record.task.task_cluster_arn, "tasks": [record.task.arn]});
    pass_on(client, "GetTaskProtection", &request, &record.task.arn).await
}

/// Protects a task, or no longer.
pub async fn update(client: &EcsClient, record: &TaskRecord, wish: &Wish) -> Answer {
    let arn = &record.task.arn;
    let Some(enabled) = wish.protection_enabled else {
        let text = "Invalid request: does not contain 'ProtectionEnabled' field";
        return error(StatusCode::BAD_REQUEST, Some(arn), "InvalidParameterException", text);
    };
    let mut request = json!({"cluster": record.task.task_cluster_arn, "tasks": [arn], "protectionEnabled": enabled});
    if let Some(minutes) = wish.expires_in_minutes {
        request["expiresInMinutes"] = minutes.into();
    }
    pass_on(client, "UpdateTaskProtection", &request, arn).await
}

/// Both operations answer alike.
async fn pass_on(client: &EcsClient, operation: &'static str, request: &Value, arn: &str) -> Answer {
    match tokio::time::timeout(PATIENCE, client.call::<GetTaskProtectionResponse>(operation, request)).await {
        Ok(Ok(answer)) => render(answer, arn),
        Ok(Err(failed)) => {
            tracing::warn!(task = arn, error = %failed, "task protection");
            refused(&failed, arn)
        }
        Err(_) => error(StatusCode::GATEWAY_TIMEOUT, Some(arn), "RequestCanceled", "Timed out calling ECS Task Protection API"),
    }
}

fn render(answer: GetTaskProtectionResponse, arn: &str) -> Answer {
    let (protected, failures) = (answer.protected_tasks.unwrap_or_default(), answer.failures.unwrap_or_default());
    match (protected.as_slice(), failures.as_slice()) {
        (_, [failure]) => (StatusCode::OK, json!({"failure": render_failure(failure)})),
        ([task], []) => (StatusCode::OK, json!({"protection": render_task(task)})),
        _ => error(StatusCode::INTERNAL_SERVER_ERROR, Some(arn), "ServerException", "Unexpected error occurred"),
    }
}

fn render_failure(failure: &Failure) -> Value {
    json!({"Arn": failure.arn, "Detail": failure.detail, "Reason": failure.reason})
}

fn render_task(task: &ProtectedTask) -> Value {
    json!({
        "ExpirationDate": task.expiration_date.map(|at| at.render_iso8601()),
        "ProtectionEnabled": task.protection_enabled.unwrap_or_default(),
        "TaskArn": task.task_arn,
    })
}

fn refused(failed: &CallError, arn: &str) -> Answer {
    match failed {
        CallError::Refused { kind, message, status, .. } => {
            error(StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), Some(arn), kind, message)
        }
        // The text of others names the control plane's address, which is the agent's alone to know.
        _ => error(StatusCode::INTERNAL_SERVER_ERROR, Some(arn), "ServerException", "the control plane gave no answer"),
    }
}

fn error(status: StatusCode, arn: Option<&str>, code: &str, message: &str) -> Answer {
    let mut error = json!({"Code": code, "Message": message});
    if let Some(arn) = arn {
        error["Arn"] = arn.into();
    }
    (status, json!({"error": error}))
}

#[cfg(test)]
mod tests {
    use berth_shapes::timestamp::Timestamp;

    use super::*;

    #[test]
    fn answers_as_documented() {
        let task = ProtectedTask {
            task_arn: Some("arn:t".into()),
            protection_enabled: Some(true),
            expiration_date: Some(Timestamp::from_millis(1_703_109_464_837)),
        };
        let answer = GetTaskProtectionResponse { protected_tasks: Some(vec![task]), failures: None };
        let expected = json!({"protection": {"ExpirationDate": "2023-12-20T21:57:44.837Z", "ProtectionEnabled": true, "TaskArn": "arn:t"}});
        assert_eq!(render(answer, "arn:t"), (StatusCode::OK, expected));
        let failure = Failure { arn: Some("arn:t".into()), reason: Some("TASK_NOT_VALID".into()), detail: None };
        let answer = GetTaskProtectionResponse { protected_tasks: None, failures: Some(vec![failure]) };
        let expected = json!({"failure": {"Arn": "arn:t", "Detail": null, "Reason": "TASK_NOT_VALID"}});
        assert_eq!(render(answer, "arn:t"), (StatusCode::OK, expected));
        assert_eq!(render(GetTaskProtectionResponse::default(), "arn:t").0, StatusCode::INTERNAL_SERVER_ERROR);
        let silent = CallError::Unreachable { operation: "GetTaskProtection", endpoint: "http://secret".into(), problem: "p".into() };
        assert!(!refused(&silent, "arn:t").1.to_string().contains("secret"));
    }

    #[test]
    fn wishes() {
        let read = |text: &str| Wish::read(text.as_bytes());
        assert_eq!(
            read(r#"{"ProtectionEnabled":true,"ExpiresInMinutes":60}"#),
            Some(Wish { protection_enabled: Some(true), expires_in_minutes: Some(60) })
        );
        assert_eq!(read("{}"), Some(Wish { protection_enabled: None, expires_in_minutes: None }));
        for text in ["", "[]", r#"{"ProtectionEnabled":"yes"}"#, r#"{"Cluster":"other"}"#] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
