//! AWS JSON 1.1: the action's name in `X-Amz-Target`, the request as a JSON object, the answer as another.

use berth_identity::{AuthError, Identity};
use berth_shapes::ecs::{self, Operation, Request};
use berth_shapes::servicediscovery as cloud_map;
use bytes::Bytes;
use http::request::Parts;

use crate::answer::Answer as _;
use crate::context::Api;
use crate::ecs as actions;
use crate::failure::Failure;
use crate::limits::throttled;
use crate::protocol::Protocol;
use crate::roles;
use crate::servicediscovery;

/// `Content-Type` of requests and answers.
pub(crate) const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

/// An operation of one of the services that speak AWS JSON.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Called {
    /// Amazon ECS.
    Ecs(Operation),
    /// AWS Cloud Map.
    CloudMap(cloud_map::Operation),
}

impl Called {
    /// Its name in logs and metrics; that of ECS's is the plain one.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ecs(operation) => operation.name(),
            Self::CloudMap(operation) => servicediscovery::name(operation),
        }
    }
}

/// The protocol: the one that a request is in which is in no other.
pub(crate) struct AwsJson;

impl Protocol for AwsJson {
    type Head = Called;
    type Asked = (Called, Bytes);
    const CONTENT_TYPE: &'static str = CONTENT_TYPE;

    fn speaks(_: &Parts) -> bool {
        true
    }

    fn head(head: &Parts) -> Result<(Called, &'static str), Failure> {
        let target = head.headers.get("x-amz-target").and_then(|value| value.to_str().ok());
        operation(target).map(|called| (called, called.name()))
    }

    fn read(called: Called, body: Bytes) -> Result<((Called, Bytes), &'static str), Failure> {
        Ok(((called, body), called.name()))
    }

    fn authorize(api: &Api, identity: &Identity, (called, body): &(Called, Bytes)) -> Result<(), Failure> {
        match called {
            Called::Ecs(operation) => roles::authorize_ecs(api, identity, *operation, body),
            // The names of these have IAM's form.
            Called::CloudMap(_) => roles::authorize(identity, called.name()),
        }
    }

    fn admit(api: &Api, (called, _): &(Called, Bytes)) -> Result<(), Failure> {
        match called {
            Called::Ecs(operation) if !api.buckets.take(*operation, api.now()) => Err(throttled()),
            _ => Ok(()),
        }
    }

    async fn answer(api: &Api, (called, body): (Called, Bytes), _: &str) -> Result<Bytes, Failure> {
        answer(api, called, &body).await
    }

    fn refusal(failure: Failure) -> Failure {
        failure
    }

    fn unauthenticated(error: AuthError) -> Failure {
        error.into()
    }

    fn render_failure(failure: &Failure, _: &str) -> (Bytes, Option<&'static str>) {
        (failure.body().into(), Some(failure.code))
    }
}

/// Finds the operation that `X-Amz-Target` names.
fn operation(target: Option<&str>) -> Result<Called, Failure> {
    let unknown = |what: &str| Failure::common("UnknownOperationException", 400, what.to_owned());
    let target = target.ok_or_else(|| unknown("The request has no X-Amz-Target header that names an operation."))?;
    let (prefix, name) = target.split_once('.').ok_or_else(|| unknown(&format!("X-Amz-Target names no operation: {}", clip(target))))?;
    let (service, found) = match prefix {
        ecs::TARGET_PREFIX => ("Amazon ECS", Operation::from_name(name).map(Called::Ecs)),
        cloud_map::TARGET_PREFIX => ("AWS Cloud Map", cloud_map::Operation::from_name(name).map(Called::CloudMap)),
        _ => return Err(unknown(&format!("Berth does not serve the service of X-Amz-Target {}", clip(prefix)))),
    };
    found.ok_or_else(|| unknown(&format!("{service} has no operation {}", clip(name))))
}

fn clip(text: &str) -> String {
    text.chars().take(128).collect()
}

/// Parses a request and runs its action.
pub(crate) async fn answer(api: &Api, called: Called, body: &[u8]) -> Result<Bytes, Failure> {
    let operation = match called {
        Called::Ecs(operation) => operation,
        Called::CloudMap(operation) => return servicediscovery::answer(api, operation, body).await,
    };
    let request = Request::decode(operation, body).map_err(|error| Failure::common("SerializationException", 400, error.to_string()))?;
    request.validate().map_err(|violations| Failure::invalid(violations.to_string()))?;
    run(api, request).await
}

macro_rules! actions {
    ($($operation:ident => $module:ident),+ $(,)?) => {
        async fn run(api: &Api, request: Request) -> Result<Bytes, Failure> {
            match request {
                $(Request::$operation(request) => actions::$module::run(api, *request).await?.into_body(),)+
            }
        }
    };
}

actions!(
    AssociateGatewayWithCluster => associate_gateway_with_cluster,
    ContinueServiceDeployment => continue_service_deployment,
    CreateCluster => create_cluster,
    CreateExpressGatewayService => create_express_gateway_service,
    CreateGateway => create_gateway,
    CreateCapacityProvider => create_capacity_provider,
    CreateDaemon => create_daemon,
    CreateService => create_service,
    DeleteAccountSetting => delete_account_setting,
    CreateTaskSet => create_task_set,
    DeleteAttributes => delete_attributes,
    DeleteCapacityProvider => delete_capacity_provider,
    DeleteCluster => delete_cluster,
    DeleteExpressGatewayService => delete_express_gateway_service,
    DeleteGateway => delete_gateway,
    DeleteDaemon => delete_daemon,
    DeleteDaemonTaskDefinition => delete_daemon_task_definition,
    DeleteService => delete_service,
    DeleteTaskDefinitions => delete_task_definitions,
    DeleteTaskSet => delete_task_set,
    DeregisterContainerInstance => deregister_container_instance,
    DeregisterTaskDefinition => deregister_task_definition,
    DescribeCapacityProviders => describe_capacity_providers,
    DescribeClusters => describe_clusters,
    DescribeContainerInstances => describe_container_instances,
    DescribeExpressGatewayService => describe_express_gateway_service,
    DescribeGateway => describe_gateway,
    DescribeGatewayResources => describe_gateway_resources,
    DescribeGatewayRoute => describe_gateway_route,
    DescribeDaemon => describe_daemon,
    DescribeDaemonDeployments => describe_daemon_deployments,
    DescribeDaemonRevisions => describe_daemon_revisions,
    DescribeDaemonTaskDefinition => describe_daemon_task_definition,
    DescribeServiceDeployments => describe_service_deployments,
    DescribeServiceRevisions => describe_service_revisions,
    DescribeServices => describe_services,
    DescribeTaskDefinition => describe_task_definition,
    DescribeTaskSets => describe_task_sets,
    DescribeTasks => describe_tasks,
    DisassociateGatewayFromCluster => disassociate_gateway_from_cluster,
    DiscoverPollEndpoint => discover_poll_endpoint,
    ExecuteCommand => execute_command,
    GetTaskProtection => get_task_protection,
    ListAccountSettings => list_account_settings,
    ListAttributes => list_attributes,
    ListClusters => list_clusters,
    ListContainerInstances => list_container_instances,
    ListGatewayClusterAssociations => list_gateway_cluster_associations,
    ListGatewayRoutes => list_gateway_routes,
    ListGateways => list_gateways,
    ListDaemonDeployments => list_daemon_deployments,
    ListDaemonTaskDefinitions => list_daemon_task_definitions,
    ListDaemons => list_daemons,
    ListServiceDeployments => list_service_deployments,
    ListServices => list_services,
    ListServicesByNamespace => list_services_by_namespace,
    ListTagsForResource => list_tags_for_resource,
    ListTaskDefinitionFamilies => list_task_definition_families,
    ListTaskDefinitions => list_task_definitions,
    ListTasks => list_tasks,
    PutAccountSetting => put_account_setting,
    PutAccountSettingDefault => put_account_setting_default,
    PutAttributes => put_attributes,
    PutClusterCapacityProviders => put_cluster_capacity_providers,
    RegisterContainerInstance => register_container_instance,
    RegisterDaemonTaskDefinition => register_daemon_task_definition,
    RegisterTaskDefinition => register_task_definition,
    RunTask => run_task,
    StartTask => start_task,
    StopServiceDeployment => stop_service_deployment,
    StopTask => stop_task,
    SubmitAttachmentStateChanges => submit_attachment_state_changes,
    SubmitContainerStateChange => submit_container_state_change,
    SubmitTaskStateChange => submit_task_state_change,
    TagResource => tag_resource,
    UntagResource => untag_resource,
    UpdateCapacityProvider => update_capacity_provider,
    UpdateCluster => update_cluster,
    UpdateClusterSettings => update_cluster_settings,
    UpdateContainerAgent => update_container_agent,
    UpdateContainerInstancesState => update_container_instances_state,
    UpdateExpressGatewayService => update_express_gateway_service,
    UpdateGateway => update_gateway,
    UpdateDaemon => update_daemon,
    UpdateService => update_service,
    UpdateServicePrimaryTaskSet => update_service_primary_task_set,
    UpdateTaskProtection => update_task_protection,
    UpdateTaskSet => update_task_set,
);
