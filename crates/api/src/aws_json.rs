//! AWS JSON 1.1: the action's name in `X-Amz-Target`, the request as a JSON object, the answer as another.

use berth_shapes::ecs::{self, Operation, Request};
use bytes::Bytes;

use crate::context::Api;
use crate::ecs as actions;
use crate::failure::Failure;

/// `Content-Type` of requests and answers.
pub(crate) const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

/// Finds the operation that `X-Amz-Target` names.
pub(crate) fn operation(target: Option<&str>) -> Result<Operation, Failure> {
    let unknown = |what: &str| Failure::common("UnknownOperationException", 400, what.to_owned());
    let target = target.ok_or_else(|| unknown("The request has no X-Amz-Target header that names an operation."))?;
    let (prefix, name) = target.split_once('.').ok_or_else(|| unknown(&format!("X-Amz-Target names no operation: {}", clip(target))))?;
    if prefix != ecs::TARGET_PREFIX {
        return Err(unknown(&format!("Berth does not serve the service of X-Amz-Target {}", clip(prefix))));
    }
    Operation::from_name(name).ok_or_else(|| unknown(&format!("Amazon ECS has no operation {}", clip(name))))
}

fn clip(text: &str) -> String {
    text.chars().take(128).collect()
}

/// Parses a request and runs its action.
pub(crate) async fn answer(api: &Api, operation: Operation, body: &[u8]) -> Result<Bytes, Failure> {
    if !is_served(operation) {
        return Err(Failure::unsupported(format!("Berth does not serve {} yet.", operation.name())));
    }
    let request = Request::decode(operation, body).map_err(|error| Failure::common("SerializationException", 400, error.to_string()))?;
    request.validate().map_err(|violations| Failure::invalid(violations.to_string()))?;
    run(api, request).await
}

macro_rules! actions {
    ($($operation:ident => $module:ident),+ $(,)?) => {
        /// Is the action written?
        #[must_use]
        pub const fn is_served(operation: Operation) -> bool {
            matches!(operation, $(Operation::$operation)|+)
        }

        async fn run(api: &Api, request: Request) -> Result<Bytes, Failure> {
            match request {
                $(Request::$operation(request) => render(&actions::$module::run(api, *request).await?),)+
                other => Err(Failure::unsupported(format!("Berth does not serve {} yet.", other.operation().name()))),
            }
        }
    };
}

fn render(answer: &impl serde::Serialize) -> Result<Bytes, Failure> {
    serde_json::to_vec(answer)
        .map(Bytes::from)
        .map_err(|error| Failure::modelled(ecs::ErrorCode::Server, format!("the answer cannot be rendered: {error}")))
}

actions!(
    ContinueServiceDeployment => continue_service_deployment,
    CreateCluster => create_cluster,
    CreateService => create_service,
    CreateTaskSet => create_task_set,
    DeleteAttributes => delete_attributes,
    DeleteCluster => delete_cluster,
    DeleteService => delete_service,
    DeleteTaskDefinitions => delete_task_definitions,
    DeleteTaskSet => delete_task_set,
    DeregisterContainerInstance => deregister_container_instance,
    DeregisterTaskDefinition => deregister_task_definition,
    DescribeClusters => describe_clusters,
    DescribeContainerInstances => describe_container_instances,
    DescribeServiceDeployments => describe_service_deployments,
    DescribeServiceRevisions => describe_service_revisions,
    DescribeServices => describe_services,
    DescribeTaskDefinition => describe_task_definition,
    DescribeTaskSets => describe_task_sets,
    DescribeTasks => describe_tasks,
    DiscoverPollEndpoint => discover_poll_endpoint,
    ExecuteCommand => execute_command,
    GetTaskProtection => get_task_protection,
    ListAttributes => list_attributes,
    ListClusters => list_clusters,
    ListContainerInstances => list_container_instances,
    ListServiceDeployments => list_service_deployments,
    ListServices => list_services,
    ListServicesByNamespace => list_services_by_namespace,
    ListTagsForResource => list_tags_for_resource,
    ListTaskDefinitionFamilies => list_task_definition_families,
    ListTaskDefinitions => list_task_definitions,
    ListTasks => list_tasks,
    PutAttributes => put_attributes,
    RegisterContainerInstance => register_container_instance,
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
    UpdateCluster => update_cluster,
    UpdateClusterSettings => update_cluster_settings,
    UpdateContainerAgent => update_container_agent,
    UpdateContainerInstancesState => update_container_instances_state,
    UpdateService => update_service,
    UpdateServicePrimaryTaskSet => update_service_primary_task_set,
    UpdateTaskProtection => update_task_protection,
    UpdateTaskSet => update_task_set,
);
