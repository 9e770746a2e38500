//! `CreateHttpNamespace`, `CreatePrivateDnsNamespace`, `CreatePublicDnsNamespace`.
//!
//! A private namespace names a VPC. Which VPCs there are is not looked up: names are answered to whoever asks a DNS server of ours, in
//! whatever network (docs/decisions/0042), so any id in the form of a VPC's is taken.

use berth_model::namespace::{
    DEFAULT_SOA_TTL_SECONDS, HostedZone, MAX_NAMESPACES, Namespace, NamespaceId, NamespaceKind, OperationId, OperationTarget,
    OperationType, is_dns_name,
};
use berth_model::record::Key;
use berth_model::tags::Tags;
use berth_shapes::servicediscovery::{
    CreateHttpNamespaceRequest, CreateHttpNamespaceResponse, CreatePrivateDnsNamespaceRequest, CreatePrivateDnsNamespaceResponse,
    CreatePublicDnsNamespaceRequest, CreatePublicDnsNamespaceResponse, ErrorCode, Soa,
};
use berth_store::{State, Transaction};

use super::failure::{failure, invalid};
use super::{operations, tags};
use crate::context::Api;
use crate::failure::Failure;

/// What a request asks for.
#[derive(Clone)]
struct Wanted {
    name: String,
    kind: NamespaceKind,
    description: Option<String>,
    creator_request_id: Option<String>,
    tags: Tags,
}

impl Wanted {
    /// Would this request have made that namespace?
    fn is(&self, known: &Namespace) -> bool {
        let is_alike = match (&self.kind, &known.kind) {
            (NamespaceKind::Http, NamespaceKind::Http) | (NamespaceKind::Public { .. }, NamespaceKind::Public { .. }) => true,
            (NamespaceKind::Private { vpc, .. }, NamespaceKind::Private { vpc: other, .. }) => vpc == other,
            _ => false,
        };
        is_alike && self.name == known.name && self.creator_request_id.is_some() && self.creator_request_id == known.creator_request_id
    }
}

pub(super) async fn http(api: &Api, request: CreateHttpNamespaceRequest) -> Result<CreateHttpNamespaceResponse, Failure> {
    let wanted = Wanted {
        name: named(request.name)?,
        kind: NamespaceKind::Http,
        description: request.description,
        creator_request_id: request.creator_request_id,
        tags: tags::read(request.tags.as_deref())?,
    };
    Ok(CreateHttpNamespaceResponse { operation_id: Some(create(api, wanted).await?) })
}

pub(super) async fn private_dns(
    api: &Api,
    request: CreatePrivateDnsNamespaceRequest,
) -> Result<CreatePrivateDnsNamespaceResponse, Failure> {
    let vpc = request.vpc.unwrap_or_default();
    if !vpc.strip_prefix("vpc-").is_some_and(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric())) {
        return Err(invalid(format!("The VPC ID '{vpc}' is not valid: Vpc")));
    }
    let soa = request.properties.and_then(|properties| properties.dns_properties?.soa);
    let wanted = Wanted {
        name: dns_named(request.name)?,
        kind: NamespaceKind::Private { vpc, zone: zone(api, soa) },
        description: request.description,
        creator_request_id: request.creator_request_id,
        tags: tags::read(request.tags.as_deref())?,
    };
    Ok(CreatePrivateDnsNamespaceResponse { operation_id: Some(create(api, wanted).await?) })
}

pub(super) async fn public_dns(api: &Api, request: CreatePublicDnsNamespaceRequest) -> Result<CreatePublicDnsNamespaceResponse, Failure> {
    let soa = request.properties.and_then(|properties| properties.dns_properties?.soa);
    let wanted = Wanted {
        name: dns_named(request.name)?,
        kind: NamespaceKind::Public { zone: zone(api, soa) },
        description: request.description,
        creator_request_id: request.creator_request_id,
        tags: tags::read(request.tags.as_deref())?,
    };
    Ok(CreatePublicDnsNamespaceResponse { operation_id: Some(create(api, wanted).await?) })
}

/// A namespace's name. (The model's pattern looks ahead, which ours do not.)
fn named(name: Option<String>) -> Result<String, Failure> {
    let name = name.unwrap_or_default();
    let legal = (1..=1_024).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic()) && !name.starts_with("arn:");
    if legal { Ok(name) } else { Err(invalid("Name must be 1 to 1024 printable characters without spaces, and not an ARN: Name")) }
}

/// A name that DNS can have.
fn dns_named(name: Option<String>) -> Result<String, Failure> {
    let name = named(name)?;
    if is_dns_name(&name) { Ok(name) } else { Err(invalid("The name of a DNS namespace must be a domain name: Name")) }
}

/// A zone; how long its SOA record may be kept was checked by the model's bounds.
fn zone(api: &Api, soa: Option<Soa>) -> HostedZone {
    let ttl = soa.and_then(|soa| soa.ttl).and_then(|ttl| u32::try_from(ttl).ok()).unwrap_or(DEFAULT_SOA_TTL_SECONDS);
    HostedZone::from_random(api.environment.entropy.bits(), ttl)
}

/// Makes it, and gives the operation's id.
async fn create(api: &Api, wanted: Wanted) -> Result<String, Failure> {
    let id = NamespaceId::of(api.scope(), &wanted.name, wanted.kind != NamespaceKind::Http);
    let operation = operations::draw(api);
    api.change(|state, transaction| {
        if let Some(known) = state.namespace(&id) {
            if wanted.is(known) {
                transaction.expect(Key::Namespace(id.clone()), known.modified);
                return Ok(known.operation.to_string());
            }
            let text = format!("The namespace {} exists already.", known.name);
            let mut refusal = failure(ErrorCode::NamespaceAlreadyExists, text).with("NamespaceId", known.id.to_string().into());
            if let Some(creator) = &known.creator_request_id {
                refusal = refusal.with("CreatorRequestId", creator.clone().into());
            }
            return Err(refusal);
        }
        let same_request = |other: &&berth_store::Entry<Namespace>| {
            other.creator_request_id.is_some() && other.creator_request_id == wanted.creator_request_id
        };
        if let Some(other) = state.namespaces().find(same_request) {
            let text = "The CreatorRequestId was used for another namespace.";
            return Err(failure(ErrorCode::DuplicateRequest, text).with("DuplicateOperationId", other.operation.to_string().into()));
        }
        if state.namespaces().len() >= MAX_NAMESPACES {
            return Err(failure(
                ErrorCode::ResourceLimitExceeded,
                format!("There are {MAX_NAMESPACES} namespaces, the most there can be."),
            ));
        }
        let (id, wanted, operation) = (id.clone(), wanted.clone(), operation.clone());
        write(api, transaction, id, wanted, &operation);
        Ok(operation.to_string())
    })
    .await
}

/// Puts the namespace and its operation into a commit.
fn write(api: &Api, transaction: &mut Transaction, id: NamespaceId, wanted: Wanted, operation: &OperationId) {
    operations::note(api, transaction, operation, OperationType::CreateNamespace, &[(OperationTarget::Namespace, id.as_str())]);
    transaction.expect_absent(Key::Namespace(id.clone()));
    transaction.put(Namespace {
        id,
        name: wanted.name,
        kind: wanted.kind,
        description: wanted.description,
        creator_request_id: wanted.creator_request_id,
        operation: operation.clone(),
        tags: wanted.tags,
        created_at: api.now(),
    });
}

/// What ECS makes for a cluster's Service Connect defaults that name nobody's namespace: one of type HTTP, with ECS's tag, in ECS's own commit.
/// The name is nobody's.
pub(crate) fn http_namespace_for_ecs(api: &Api, state: &State, transaction: &mut Transaction, name: &str) -> Result<NamespaceId, Failure> {
    if state.namespaces().len() >= MAX_NAMESPACES {
        return Err(Failure::client(format!("There are {MAX_NAMESPACES} namespaces, the most there can be.")));
    }
    let id = NamespaceId::of(api.scope(), name, false);
    let wanted = Wanted {
        name: name.to_owned(),
        kind: NamespaceKind::Http,
        description: None,
        creator_request_id: None,
        tags: Tags::from([("AmazonECSManaged".to_owned(), "true".to_owned())]),
    };
    write(api, transaction, id.clone(), wanted, &operations::draw(api));
    Ok(id)
}
