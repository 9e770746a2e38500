//! Cloud Map namespaces as ECS's own actions name them: by name, or by ARN.

use berth_model::namespace::{Namespace, NamespaceId};
use berth_model::record::Key;
use berth_shapes::ecs::{ClusterServiceConnectDefaults, ClusterServiceConnectDefaultsRequest, ErrorCode};
use berth_store::{Entry, State, Transaction};

use crate::context::Api;
use crate::failure::Failure;
use crate::servicediscovery;

/// Longest name, and what it cannot hold.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ClusterServiceConnectDefaultsRequest.html>
const MAX_NAME: usize = 1_024;
const NOT_IN_NAMES: [char; 4] = ['<', '>', '"', '/'];

/// The namespace that a text means, if there is one. Names of namespaces are unique: the id follows from the name.
pub(crate) fn find<'a>(api: &Api, state: &'a State, text: &str) -> Option<&'a Entry<Namespace>> {
    if text.starts_with("arn:") {
        let id = api.scope().strip_cloud_map(text)?.strip_prefix("namespace/")?;
        return state.namespace(&NamespaceId::parse(id)?);
    }
    state.namespaces().find(|namespace| namespace.name == text)
}

/// What `serviceConnectDefaults` makes of a cluster: `None` takes them away, which an empty name asks for. A namespace that is there is used,
/// of whatever type; a name that is nobody's gets an HTTP namespace in the same commit; an ARN of none is refused.
pub(crate) fn defaults(
    api: &Api,
    state: &State,
    transaction: &mut Transaction,
    given: &ClusterServiceConnectDefaultsRequest,
) -> Result<Option<ClusterServiceConnectDefaults>, Failure> {
    let text = given.namespace.as_deref().unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    let id = match find(api, state, text) {
        Some(known) => {
            // It must not be deleted at this moment.
            transaction.expect(Key::Namespace(known.id.clone()), known.modified);
            known.id.clone()
        }
        None if text.starts_with("arn:") => {
            return Err(Failure::modelled(ErrorCode::NamespaceNotFound, "Namespace not found: serviceConnectDefaults.namespace"));
        }
        None if text.chars().count() > MAX_NAME || text.contains(NOT_IN_NAMES) || !text.chars().all(|char| char.is_ascii_graphic()) => {
            return Err(Failure::invalid(format!(
                "A namespace's name has up to {MAX_NAME} printable characters other than < > \" /: serviceConnectDefaults.namespace"
            )));
        }
        None => servicediscovery::http_namespace_for_ecs(api, state, transaction, text)?,
    };
    Ok(Some(ClusterServiceConnectDefaults { namespace: Some(api.scope().namespace(&id)) }))
}
