//! Tags of namespaces and services.

use berth_model::discovery::DiscoveryService;
use berth_model::namespace::Namespace;
use berth_model::record::{Key, Record};
use berth_model::tags::{TagError, Tags, merge_tags, parse_tags};
use berth_shapes::ecs;
use berth_shapes::servicediscovery::{
    ErrorCode, ListTagsForResourceRequest, ListTagsForResourceResponse, Tag, TagResourceRequest, TagResourceResponse, UntagResourceRequest,
    UntagResourceResponse,
};
use berth_store::{Entry, State};

use super::failure::{failure, invalid};
use super::reference::{self, clip};
use crate::context::Api;
use crate::failure::Failure;

/// Reads `Tags`, whose limits are ECS's.
pub(super) fn read(tags: Option<&[Tag]>) -> Result<Tags, Failure> {
    let tag = |tag: &Tag| ecs::Tag { key: tag.key.clone(), value: tag.value.clone() };
    let list: Vec<_> = tags.unwrap_or_default().iter().map(tag).collect();
    parse_tags(Some(&list)).map_err(refusal)
}

fn refusal(error: TagError) -> Failure {
    match error {
        TagError::TooMany => failure(ErrorCode::TooManyTags, error.to_string()),
        error => invalid(error.to_string()),
    }
}

/// What can carry tags.
enum Tagged<'a> {
    Namespace(&'a Entry<Namespace>),
    Service(&'a Entry<DiscoveryService>),
}

impl<'a> Tagged<'a> {
    fn find(api: &Api, state: &'a State, arn: Option<&str>) -> Result<Self, Failure> {
        let arn = arn.unwrap_or_default();
        let found = match api.scope().strip_cloud_map(arn) {
            Some(rest) if rest.starts_with("namespace/") => reference::namespace(api, state, Some(arn)).map(Self::Namespace),
            Some(rest) if rest.starts_with("service/") => reference::service(api, state, Some(arn)).map(Self::Service),
            _ => return Err(invalid(format!("{} is not the ARN of a namespace or service of this account and region.", clip(arn)))),
        };
        found.map_err(|_| failure(ErrorCode::ResourceNotFound, format!("There is no resource {}", clip(arn))))
    }

    fn tags(&self) -> &Tags {
        match self {
            Self::Namespace(entry) => &entry.tags,
            Self::Service(entry) => &entry.tags,
        }
    }

    fn key(&self) -> Key {
        match self {
            Self::Namespace(entry) => Key::Namespace(entry.id.clone()),
            Self::Service(entry) => Key::DiscoveryService(entry.id.clone()),
        }
    }

    fn modified(&self) -> berth_store::Revision {
        match self {
            Self::Namespace(entry) => entry.modified,
            Self::Service(entry) => entry.modified,
        }
    }

    fn with(&self, tags: Tags) -> Record {
        match self {
            Self::Namespace(entry) => Namespace { tags, ..(*entry.value).clone() }.into(),
            Self::Service(entry) => DiscoveryService { tags, ..(*entry.value).clone() }.into(),
        }
    }
}

/// Changes a resource's tags.
async fn change(api: &Api, arn: Option<&str>, change: impl Fn(&mut Tags) -> Result<(), Failure>) -> Result<(), Failure> {
    api.change(|state, transaction| {
        let resource = Tagged::find(api, state, arn)?;
        let mut tags = resource.tags().clone();
        change(&mut tags)?;
        if tags != *resource.tags() {
            transaction.expect(resource.key(), resource.modified());
            transaction.put(resource.with(tags));
        }
        Ok(())
    })
    .await
}

pub(super) async fn add(api: &Api, request: TagResourceRequest) -> Result<TagResourceResponse, Failure> {
    let added = read(request.tags.as_deref())?;
    change(api, request.resource_arn.as_deref(), |tags| merge_tags(tags, added.clone()).map_err(refusal)).await?;
    Ok(TagResourceResponse::default())
}

pub(super) async fn remove(api: &Api, request: UntagResourceRequest) -> Result<UntagResourceResponse, Failure> {
    let keys = request.tag_keys.unwrap_or_default();
    change(api, request.resource_arn.as_deref(), |tags| {
        tags.retain(|key, _| !keys.contains(key));
        Ok(())
    })
    .await?;
    Ok(UntagResourceResponse::default())
}

pub(super) async fn list(api: &Api, request: ListTagsForResourceRequest) -> Result<ListTagsForResourceResponse, Failure> {
    let state = api.store.state();
    let resource = Tagged::find(api, &state, request.resource_arn.as_deref())?;
    let tag = |(key, value): (&String, &String)| Tag { key: Some(key.clone()), value: Some(value.clone()) };
    Ok(ListTagsForResourceResponse { tags: Some(resource.tags().iter().map(tag).collect()) })
}
