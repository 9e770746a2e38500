//! EC2's errors: codes and sentences that tools look for.
//!
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html>

use std::fmt::Display;

use berth_model::tags::TagError;
use berth_model::vpc::security_group::{AddRuleError, TrafficError};

use crate::failure::Failure;

/// An error by its code.
pub(super) fn refuse(code: &'static str, message: impl Into<String>) -> Failure {
    Failure::common(code, 400, message)
}

/// `MissingParameter`.
pub(super) fn missing(parameter: &str) -> Failure {
    refuse("MissingParameter", format!("The request must contain the parameter {parameter}"))
}

/// `InvalidParameterValue`.
pub(super) fn invalid(message: impl Into<String>) -> Failure {
    refuse("InvalidParameterValue", message)
}

/// `InvalidParameterValue`, in the words that name value and parameter.
pub(super) fn bad_value(value: impl Display, parameter: &str, why: &str) -> Failure {
    let value: String = value.to_string().chars().take(255).collect();
    invalid(format!("Value ({value}) for parameter {parameter} is invalid. {why}"))
}

/// `InvalidParameterCombination`.
pub(super) fn combination(message: impl Into<String>) -> Failure {
    refuse("InvalidParameterCombination", message)
}

/// What EC2 does and Berth does not.
pub(super) fn unsupported(message: impl Into<String>) -> Failure {
    refuse("UnsupportedOperation", message)
}

/// `DependencyViolation`.
pub(super) fn dependency(message: impl Into<String>) -> Failure {
    refuse("DependencyViolation", message)
}

/// One or more ids that name nothing: `The subnet ID 'subnet-1' does not exist`.
pub(super) fn not_found(code: &'static str, noun: &str, ids: &[&str]) -> Failure {
    let shown = ids.iter().map(|id| id.chars().take(64).collect::<String>()).collect::<Vec<_>>().join(", ");
    let text = match ids {
        [_] => format!("The {noun} ID '{shown}' does not exist"),
        _ => format!("The {noun} IDs '{shown}' do not exist"),
    };
    refuse(code, text)
}

/// `InvalidVpcID.NotFound`
pub(super) fn no_vpc(id: &str) -> Failure {
    not_found("InvalidVpcID.NotFound", "vpc", &[id])
}

/// `InvalidSubnetID.NotFound`
pub(super) fn no_subnet(id: &str) -> Failure {
    not_found("InvalidSubnetID.NotFound", "subnet", &[id])
}

/// `InvalidGroup.NotFound`
pub(super) fn no_group(id: &str) -> Failure {
    refuse("InvalidGroup.NotFound", format!("The security group '{}' does not exist", id.chars().take(255).collect::<String>()))
}

/// `VPCIdNotSpecified`: nothing says which VPC, and the default one was deleted.
pub(super) fn no_default_vpc() -> Failure {
    refuse("VPCIdNotSpecified", "No default VPC for this user")
}

/// The store has no record that the default VPC leaves even when it is deleted.
pub(super) fn not_started() -> Failure {
    Failure::common("Unavailable", 503, "The server is starting: there is no default VPC yet.")
}

impl From<TrafficError> for Failure {
    fn from(error: TrafficError) -> Self {
        invalid(error.to_string())
    }
}

impl From<AddRuleError> for Failure {
    fn from(error: AddRuleError) -> Self {
        let code = match error {
            AddRuleError::Duplicate(_) => "InvalidPermission.Duplicate",
            AddRuleError::TooMany => "RulesPerSecurityGroupLimitExceeded",
        };
        refuse(code, error.to_string())
    }
}

/// What is wrong with tags, in EC2's codes.
pub(super) fn tags(error: &TagError) -> Failure {
    match error {
        TagError::TooMany => refuse("TagLimitExceeded", "The maximum number of Tags for a resource has been reached."),
        other => invalid(other.to_string()),
    }
}
