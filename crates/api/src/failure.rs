//! Errors as AWS's JSON services send them: `__type`, `message`, an HTTP status.

use berth_control::LaunchError;
use berth_identity::AuthError;
use berth_model::arn::ReferenceError;
use berth_model::tags::TagError;
use berth_shapes::ecs::ErrorCode;
use berth_store::CommitError;
use serde_json::{Map, Value};

use crate::limits::throttled;

/// An error answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// `__type`: the exception's name.
    pub code: &'static str,
    /// HTTP status.
    pub status: u16,
    /// `message`: what the caller reads; it names the member at fault.
    pub message: String,
    /// Further members of the exception (`resourceIds`).
    pub members: Map<String, Value>,
}

impl Failure {
    /// An exception out of the service's model.
    #[must_use]
    pub fn modelled(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code: code.name(), status: code.http_status(), message: message.into(), members: Map::new() }
    }

    /// An exception that all of AWS's JSON services share.
    #[must_use]
    pub fn common(code: &'static str, status: u16, message: impl Into<String>) -> Self {
        Self { code, status, message: message.into(), members: Map::new() }
    }

    /// `InvalidParameterException`.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::modelled(ErrorCode::InvalidParameter, message)
    }

    /// `ClientException`.
    #[must_use]
    pub fn client(message: impl Into<String>) -> Self {
        Self::modelled(ErrorCode::Client, message)
    }

    /// `ClusterNotFoundException`.
    #[must_use]
    pub fn cluster_not_found() -> Self {
        Self::modelled(ErrorCode::ClusterNotFound, "Cluster not found.")
    }

    /// `ServiceNotFoundException`.
    #[must_use]
    pub fn service_not_found() -> Self {
        Self::modelled(ErrorCode::ServiceNotFound, "Service not found.")
    }

    /// What Berth does not do; AWS's own word for a feature that is not there.
    #[must_use]
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::modelled(ErrorCode::UnsupportedFeature, message)
    }

    /// Adds a member.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.members.insert(name.to_owned(), value);
        self
    }

    /// The body of the answer.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let mut body = Map::new();
        body.insert("__type".to_owned(), self.code.into());
        body.insert("message".to_owned(), self.message.clone().into());
        body.extend(self.members.clone());
        serde_json::to_vec(&Value::Object(body)).unwrap_or_default()
    }
}

impl From<AuthError> for Failure {
    fn from(error: AuthError) -> Self {
        Self::common(error.code(), error.http_status(), error.to_string())
    }
}

impl From<ReferenceError> for Failure {
    fn from(error: ReferenceError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<TagError> for Failure {
    fn from(error: TagError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Self {
        match error {
            // Conflicts are tried again before; one that remains is contention nobody can decide.
            CommitError::Overloaded | CommitError::Conflict(_) => throttled(),
            CommitError::Backend(_) | CommitError::Unknown(_) | CommitError::Closed => {
                // The edge logs it with the request that it belongs to.
                Self::modelled(ErrorCode::Server, format!("Service Unavailable. {error}"))
            }
        }
    }
}

impl From<LaunchError> for Failure {
    fn from(error: LaunchError) -> Self {
        match error {
            LaunchError::ClusterInactive => Self::cluster_not_found(),
            LaunchError::DefinitionInactive => Self::client("TaskDefinition is inactive"),
            LaunchError::NoInstances => Self::invalid(error.to_string()),
            LaunchError::Overloaded => throttled(),
            LaunchError::NotAssociated(_) => Self::invalid(
                "The specified capacity provider strategy cannot contain a capacity provider that is not associated with the cluster. \
                 Associate the capacity provider with the cluster and try again.",
            ),
            LaunchError::TokenReused(tasks) => {
                Self::modelled(ErrorCode::Conflict, "The request ID was used for a request with different parameters.")
                    .with("resourceIds", tasks.iter().map(ToString::to_string).collect::<Vec<_>>().into())
            }
            LaunchError::Store(error) => error.into(),
        }
    }
}
