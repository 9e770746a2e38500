//! A session with an agent that acknowledges nothing: what it never took ends, what it has reported of goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use berth_acs::{AcsQuery, ServerConnection, SessionOptions};
use berth_control::{Clock, Control, ControlConfig, Entropy, Environment};
use berth_model::arn::Scope;
use berth_model::container_instance::{AgentVersion, ContainerInstance, ContainerInstanceStatus, Resources};
use berth_model::ids::{ClusterName, ContainerId, ContainerInstanceId, DefinitionId, Family, TaskId};
use berth_model::needs::TaskNeeds;
use berth_model::tags::Tags;
use berth_model::task::{Container, DesiredStatus, StopCode, Task, TaskStatus};
use berth_model::task_definition::{TaskDefinition, TaskDefinitionStatus};
use berth_model::time::UnixMillis;
use berth_store::backend::Memory;
use berth_store::{Store, Transaction};

struct Still;

impl Clock for Still {
    fn now(&self) -> UnixMillis {
        UnixMillis(1_000_000)
    }
}

struct Counter(AtomicU64);

impl Entropy for Counter {
    fn bits(&self) -> u128 {
        u128::from(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

fn name() -> ClusterName {
    ClusterName::parse("c").expect("a name")
}

fn definition_id() -> DefinitionId {
    DefinitionId { family: Family::parse("web").expect("a family"), revision: 1 }
}

fn task(id: u128, runtime_id: Option<&str>) -> Task {
    let container =
        Container { runtime_id: runtime_id.map(str::to_owned), ..Container::pending(ContainerId(id), "app".into(), "image:1".into()) };
    Task {
        containers: vec![container],
        ..Task::placed(TaskId(id), name(), definition_id(), "family:web".into(), ContainerInstanceId(1), UnixMillis(0))
    }
}

async fn store(tasks: Vec<Task>) -> Store {
    let cluster: berth_model::cluster::Cluster = serde_json::from_value(serde_json::json!({
        "name": "c", "status": "ACTIVE", "created_at": 1, "tags": {}, "settings": [], "configuration": null,
        "service_connect_defaults": null, "capacity_providers": [], "default_capacity_provider_strategy": [],
    }))
    .expect("a cluster");
    let instance = ContainerInstance {
        id: ContainerInstanceId(1),
        cluster: name(),
        ec2_instance_id: None,
        private_address: None,
        status: ContainerInstanceStatus::Active,
        status_reason: None,
        agent_connected: false,
        connection: 0,
        away: None,
        registered: Resources::default(),
        attributes: Default::default(),
        registered_at: UnixMillis(0),
        agent: AgentVersion::default(),
        tags: Tags::new(),
    };
    let definition = TaskDefinition {
        id: definition_id(),
        status: TaskDefinitionStatus::Active,
        registered_at: UnixMillis(0),
        registered_by: String::new(),
        deregistered_at: None,
        delete_requested_at: None,
        tags: Tags::new(),
        document: serde_json::from_value(serde_json::json!({"containerDefinitions": [{"name": "app"}]})).expect("a document"),
        needs: TaskNeeds::default(),
    };
    let store = Store::open_inline(Memory).expect("a store in memory");
    let mut transaction = Transaction::new();
    transaction.put(cluster).put(instance).put(definition);
    for task in tasks {
        transaction.put(task);
    }
    store.commit(transaction).await.expect("it is taken");
    store
}

#[tokio::test]
async fn what_an_agent_never_takes_ends_and_what_it_has_reported_of_goes_on() {
    let store = store(vec![task(1, None), task(2, Some("made"))]).await;
    let scope = Scope { region: "us-east-1".into(), account: "000000000000".into() };
    let arn = scope.container_instance(&name(), ContainerInstanceId(1));
    let environment = Environment { clock: Arc::new(Still), entropy: Arc::new(Counter(AtomicU64::new(1))), scope };
    let sessions = SessionOptions { first_redelivery: 5, longest_redelivery: 5, attempts: 3, ..Default::default() };
    let control = Control::start(store.clone(), environment, ControlConfig { sessions, ..Default::default() }).await.expect("it starts");
    let query =
        AcsQuery::parse(&format!("clusterArn=c&containerInstanceArn={arn}&agentVersion=1.105.1&protocolVersion=2")).expect("a query");
    let session = control.open_session(query).await.expect("it is let in");
    // Nobody reads the other end: there is room for all that is sent.
    let (server, agent) = tokio::io::duplex(1 << 20);
    let run = tokio::spawn(async move { session.run(ServerConnection::new(server).await).await });

    let mut watcher = store.watch(store.state().revision);
    let ended = async {
        while !store.state().task(TaskId(1)).expect("the task").is_stopped() {
            watcher.next().await.expect("the store is open");
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ended).await.expect("it is given up");
    let task = |number| store.state().task(TaskId(number)).expect("the task").clone();
    let (never_taken, reported) = (task(1), task(2));
    assert_eq!(never_taken.stop_code, Some(StopCode::TaskFailedToStart));
    assert_eq!(never_taken.stopped_reason.as_deref(), Some("The container agent did not accept the task"));
    assert_eq!((reported.desired_status, reported.last_status), (DesiredStatus::Running, TaskStatus::Pending));
    drop(agent);
    run.await.expect("the session ends with its connection");
    control.stop();
}
