//! The credentials of a task's role, for its containers: `/v2/credentials/ID`. The execution role's are never here.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-iam-roles.html>; for the errors, `ecs-agent/tmds/handlers/v1` of
//! amazon-ecs-agent.

use berth_acs::messages::RoleCredentials;
use http::StatusCode;
use serde_json::{Value, json};

use super::protection::Answer;

/// Credentials as SDKs read them.
#[must_use]
pub fn render(credentials: &RoleCredentials) -> Answer {
    let shown = json!({
        "RoleArn": credentials.role_arn,
        "AccessKeyId": credentials.access_key_id,
        "SecretAccessKey": *credentials.secret_access_key,
        "Token": *credentials.session_token,
        "Expiration": credentials.expiration,
    });
    (StatusCode::OK, shown)
}

/// Nobody was named.
#[must_use]
pub fn nobody() -> Answer {
    error(StatusCode::BAD_REQUEST, "NoIdInRequest", "No ID in the request")
}

/// No task of whoever asks has that name for its credentials.
#[must_use]
pub fn unknown() -> Answer {
    error(StatusCode::BAD_REQUEST, "InvalidIdInRequest", "Credentials not found")
}

/// The agent began anew, and the control plane has not yet said them again.
#[must_use]
pub fn awaited() -> Answer {
    error(StatusCode::SERVICE_UNAVAILABLE, "CredentialsUninitialized", "Credentials uninitialized for ID")
}

fn error(status: StatusCode, code: &str, message: &str) -> (StatusCode, Value) {
    (status, json!({"code": code, "message": format!("CredentialsV2Request: {message}"), "HTTPErrorCode": status.as_u16()}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_sdks_read_it() {
        let credentials = RoleCredentials {
            credentials_id: "id".into(),
            role_arn: "arn:r".into(),
            access_key_id: "ASIA".into(),
            secret_access_key: "s".to_owned().into(),
            session_token: "t".to_owned().into(),
            expiration: "2030-01-01T00:00:00Z".into(),
            ..Default::default()
        };
        let expected = json!({
            "RoleArn": "arn:r", "AccessKeyId": "ASIA", "SecretAccessKey": "s", "Token": "t", "Expiration": "2030-01-01T00:00:00Z",
        });
        assert_eq!(render(&credentials), (StatusCode::OK, expected));
        let expected =
            json!({"code": "InvalidIdInRequest", "message": "CredentialsV2Request: Credentials not found", "HTTPErrorCode": 400});
        assert_eq!(unknown(), (StatusCode::BAD_REQUEST, expected));
        assert_eq!((nobody().0.as_u16(), awaited().0.as_u16()), (400, 503));
    }
}
