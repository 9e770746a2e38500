//! Tags of a task and its container instance, asked of the control plane as the official agent does.

use std::time::Duration;

use berth_shapes::ecs::{ListTagsForResourceRequest, ListTagsForResourceResponse};
use serde_json::{Map, Value, json};

use super::container::put;
use crate::ecs_client::{CallError, EcsClient};

/// How long a container waits for the control plane at most; the official agent's.
pub const PATIENCE: Duration = Duration::from_secs(4);

/// The tags of something by its ARN.
///
/// # Errors
/// [`CallError`], also if no answer came in time.
async fn of(client: &EcsClient, arn: &str) -> Result<Map<String, Value>, CallError> {
    let operation = "ListTagsForResource";
    let request = ListTagsForResourceRequest { resource_arn: Some(arn.to_owned()) };
    let asked = tokio::time::timeout(PATIENCE, client.call::<ListTagsForResourceResponse>(operation, &request));
    let late = || CallError::BadAnswer { operation, problem: "none came in time".to_owned() };
    let tags = asked.await.map_err(|_| late())??.tags.unwrap_or_default();
    Ok(tags.into_iter().filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default().into()))).collect())
}

/// Adds the tags of each ARN under a name. With `tells_errors` what could not be had is listed in `Errors`, as version 4 does.
pub async fn add(shown: &mut Map<String, Value>, client: &EcsClient, wanted: &[(&str, &str)], tells_errors: bool) {
    let mut errors = Vec::new();
    for (field, arn) in wanted {
        match of(client, arn).await {
            Ok(tags) => put(shown, field, tags.into()),
            Err(error) => {
                tracing::warn!(%error, field, arn, "tags for task metadata");
                errors.push(render(field, arn, &error));
            }
        }
    }
    if tells_errors {
        put(shown, "Errors", errors.into());
    }
}

fn render(field: &str, arn: &str, error: &CallError) -> Value {
    match error {
        CallError::Refused { kind, message, status, .. } => {
            json!({"ErrorField": field, "ErrorCode": kind, "ErrorMessage": message, "StatusCode": status, "ResourceARN": arn})
        }
        other => json!({"ErrorField": field, "ErrorMessage": other.to_string(), "ResourceARN": arn}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_of_what() {
        let refused = CallError::Refused {
            operation: "ListTagsForResource",
            kind: "AccessDeniedException".into(),
            message: "no".into(),
            status: 400,
        };
        let expected = json!({
            "ErrorField": "TaskTags", "ErrorCode": "AccessDeniedException", "ErrorMessage": "no", "StatusCode": 400, "ResourceARN": "arn:t",
        });
        assert_eq!(render("TaskTags", "arn:t", &refused), expected);
        let silent = CallError::BadAnswer { operation: "ListTagsForResource", problem: "none came in time".into() };
        assert!(render("TaskTags", "arn:t", &silent).get("StatusCode").is_none());
    }
}
