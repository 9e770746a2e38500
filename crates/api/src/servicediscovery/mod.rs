//! AWS Cloud Map: namespaces, services, instances, and who is found under a name.
//!
//! What an action does is done when it answers: an operation is a record of it, written in the same commit.
//! <https://docs.aws.amazon.com/cloud-map/latest/api/Welcome.html>

mod create_namespace;
mod create_service;
mod discover;
mod failure;
mod filter;
mod instances;
mod namespaces;
mod operations;
mod reference;
mod register_instance;
mod render;
mod service_attributes;
mod services;
mod tags;
mod update_namespace;
mod update_service;

use berth_shapes::servicediscovery::{Operation, Request};
use bytes::Bytes;

use crate::answer::Answer as _;
use crate::context::Api;
use crate::failure::Failure;

pub(crate) use create_namespace::http_namespace_for_ecs;
pub(crate) use failure::no_cbor;

/// Parses a request and runs its action.
pub(crate) async fn answer(api: &Api, operation: Operation, body: &[u8]) -> Result<Bytes, Failure> {
    let request = Request::decode(operation, body).map_err(|error| Failure::common("SerializationException", 400, error.to_string()))?;
    request.validate().map_err(|violations| failure::invalid(violations.to_string()))?;
    run(api, request).await.map_err(failure::in_cloud_maps_words)
}

macro_rules! actions {
    ($($operation:ident => $module:ident::$function:ident),+ $(,)?) => {
        async fn run(api: &Api, request: Request) -> Result<Bytes, Failure> {
            match request {
                $(Request::$operation(request) => $module::$function(api, *request).await?.into_body(),)+
            }
        }

        /// An action's name in logs and metrics: ECS has some of the same.
        pub(crate) const fn name(operation: Operation) -> &'static str {
            match operation {
                $(Operation::$operation => concat!("servicediscovery:", stringify!($operation)),)+
            }
        }
    };
}

actions!(
    CreateHttpNamespace => create_namespace::http,
    CreatePrivateDnsNamespace => create_namespace::private_dns,
    CreatePublicDnsNamespace => create_namespace::public_dns,
    CreateService => create_service::run,
    DeleteNamespace => namespaces::delete,
    DeleteService => services::delete,
    DeleteServiceAttributes => service_attributes::delete,
    DeregisterInstance => instances::deregister,
    DiscoverInstances => discover::instances,
    DiscoverInstancesRevision => discover::revision,
    GetInstance => instances::get,
    GetInstancesHealthStatus => instances::health,
    GetNamespace => namespaces::get,
    GetOperation => operations::get,
    GetService => services::get,
    GetServiceAttributes => service_attributes::get,
    ListInstances => instances::list,
    ListNamespaces => namespaces::list,
    ListOperations => operations::list,
    ListServices => services::list,
    ListTagsForResource => tags::list,
    RegisterInstance => register_instance::run,
    TagResource => tags::add,
    UntagResource => tags::remove,
    UpdateHttpNamespace => update_namespace::http,
    UpdateInstanceCustomHealthStatus => instances::update_custom_health,
    UpdatePrivateDnsNamespace => update_namespace::private_dns,
    UpdatePublicDnsNamespace => update_namespace::public_dns,
    UpdateService => update_service::run,
    UpdateServiceAttributes => service_attributes::update,
);
