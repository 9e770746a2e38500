//! The credentials that a task's containers and the agent on its behalf work with. `Debug` must never show a secret.

use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::Zeroizing;

/// Temporary credentials of one role for one task.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RoleCredentials {
    /// Names these credentials in the URL that containers fetch them from, so it must be unguessable.
    pub credentials_id: String,
    /// The role's ARN.
    pub role_arn: String,
    /// The access key id.
    pub access_key_id: String,
    /// The secret access key; wiped from memory when dropped.
    #[serde(with = "hushed")]
    pub secret_access_key: Zeroizing<String>,
    /// The session token; wiped from memory when dropped.
    #[serde(with = "hushed")]
    pub session_token: Zeroizing<String>,
    /// When they end, ISO 8601.
    pub expiration: String,
    /// Whether for everything (empty) or a part.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub credential_scope: String,
}

impl RoleCredentials {
    /// Whose they are and by what name they are asked for, without key, secret and token.
    #[must_use]
    pub fn without_secrets(&self) -> Self {
        Self { credentials_id: self.credentials_id.clone(), role_arn: self.role_arn.clone(), ..Self::default() }
    }
}

/// Texts that are wiped, on the wire.
mod hushed {
    use serde::{Deserialize, Deserializer, Serializer};
    use zeroize::Zeroizing;

    pub(super) fn serialize<S: Serializer>(text: &Zeroizing<String>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
        String::deserialize(deserializer).map(Zeroizing::new)
    }
}

impl fmt::Debug for RoleCredentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RoleCredentials")
            .field("role_arn", &self.role_arn)
            .field("access_key_id", &self.access_key_id)
            .field("expiration", &self.expiration)
            .finish_non_exhaustive()
    }
}

/// Which of a task's two roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum RoleType {
    /// `taskRoleArn`: for the containers.
    #[default]
    TaskApplication,
    /// `executionRoleArn`: for pulling images, secrets and logs.
    TaskExecution,
}

/// Fresh credentials for a task that the agent already has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IamRoleCredentialsMessage {
    /// To be repeated in the answer; must not be empty.
    pub message_id: String,
    /// The task's ARN.
    pub task_arn: String,
    /// Its cluster's ARN.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub task_cluster_arn: String,
    /// Which role.
    pub role_type: RoleType,
    /// The credentials.
    pub role_credentials: RoleCredentials,
}

/// The agent holds these credentials now.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IamRoleCredentialsAckRequest {
    /// Of the credentials message, or of the payload that brought them.
    pub message_id: String,
    /// When they end, as given.
    pub expiration: String,
    /// Which credentials.
    pub credentials_id: String,
}

impl fmt::Debug for IamRoleCredentialsAckRequest {
    /// Whoever knows the id may ask for the credentials.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("IamRoleCredentialsAckRequest")
            .field("message_id", &self.message_id)
            .field("expiration", &self.expiration)
            .finish_non_exhaustive()
    }
}
