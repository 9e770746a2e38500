//! What requests name: namespaces and services by id or ARN.

use berth_model::discovery::{DiscoveryService, DiscoveryServiceId};
use berth_model::namespace::{Namespace, NamespaceId};
use berth_shapes::servicediscovery::ErrorCode;
use berth_store::{Entry, State};

use super::failure::{failure, invalid};
use crate::context::Api;
use crate::failure::Failure;

/// A text as errors repeat it.
pub(super) fn clip(text: &str) -> String {
    text.chars().take(128).collect()
}

/// The id in a text that is one, or an ARN of this kind.
fn id<'a>(api: &Api, kind: &str, text: &'a str) -> Result<&'a str, Failure> {
    if !text.starts_with("arn:") {
        return Ok(text);
    }
    let rest = api.scope().strip_cloud_map(text).and_then(|rest| rest.strip_prefix(kind)?.strip_prefix('/'));
    rest.ok_or_else(|| invalid(format!("{} is not the ARN of a {kind} of this account and region.", clip(text))))
}

/// A namespace that must be there.
pub(super) fn namespace<'a>(api: &Api, state: &'a State, text: Option<&str>) -> Result<&'a Entry<Namespace>, Failure> {
    let text = id(api, "namespace", text.unwrap_or_default())?;
    let found = NamespaceId::parse(text).and_then(|id| state.namespace(&id));
    found.ok_or_else(|| failure(ErrorCode::NamespaceNotFound, format!("Failed to find namespace for NamespaceId: {}", clip(text))))
}

/// A service that must be there.
pub(super) fn service<'a>(api: &Api, state: &'a State, text: Option<&str>) -> Result<&'a Entry<DiscoveryService>, Failure> {
    let text = id(api, "service", text.unwrap_or_default())?;
    let found = DiscoveryServiceId::parse(text).and_then(|id| state.discovery_service(&id));
    found.ok_or_else(|| failure(ErrorCode::ServiceNotFound, format!("Failed to find service for ServiceId: {}", clip(text))))
}
