//! Fargate capacity under several owners: clusters of one server, and of two over one store, place on the same machines at once. What is
//! placed never exceeds what a machine has, and nothing is refused while there is room.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use berth_control::{Clock, Control, ControlConfig, Entropy, Environment, LaunchError, Refused, TaskTemplate, Where};
use berth_model::arn::Scope;
use berth_model::container_instance::{AgentVersion, ContainerInstance, ContainerInstanceStatus, FARGATE, Resources};
use berth_model::fargate;
use berth_model::ids::{ClusterName, ContainerInstanceId, DefinitionId, Family};
use berth_model::needs::{Demand, TaskNeeds};
use berth_model::record::Record;
use berth_model::tags::Tags;
use berth_model::task::{LaunchType, Task, TaskStatus};
use berth_model::task_definition::{TaskDefinition, TaskDefinitionStatus};
use berth_model::time::UnixMillis;
use berth_store::backend::Memory;
use berth_store::{Change, Commit, CommitError, Store, Transaction};

struct Still;

impl Clock for Still {
    fn now(&self) -> UnixMillis {
        UnixMillis(1_000_000)
    }
}

/// Numbers that are nobody else's.
struct Counter(Arc<AtomicU64>);

impl Entropy for Counter {
    fn bits(&self) -> u128 {
        u128::from(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

fn name(text: &str) -> ClusterName {
    ClusterName::parse(text).expect("a name")
}

fn machine(id: u128, cluster: ClusterName, slots: u32, offers_fargate: bool) -> ContainerInstance {
    ContainerInstance {
        id: ContainerInstanceId(id),
        cluster,
        ec2_instance_id: None,
        private_address: None,
        status: ContainerInstanceStatus::Active,
        status_reason: None,
        agent_connected: false,
        connection: 0,
        away: None,
        registered: Resources { cpu: 256 * slots, memory: 512 * slots, ..Resources::default() },
        attributes: [(FARGATE.to_owned(), Some("true".to_owned()))].into_iter().filter(|_| offers_fargate).collect(),
        registered_at: UnixMillis(0),
        agent: AgentVersion::default(),
        tags: Tags::new(),
    }
}

fn definition() -> TaskDefinition {
    TaskDefinition {
        id: DefinitionId { family: Family::parse("web").expect("a family"), revision: 1 },
        status: TaskDefinitionStatus::Active,
        registered_at: UnixMillis(0),
        registered_by: String::new(),
        deregistered_at: None,
        delete_requested_at: None,
        tags: Tags::new(),
        document: serde_json::from_value(serde_json::json!({"containerDefinitions": [{"name": "app"}], "cpu": "256", "memory": "512"}))
            .expect("a document"),
        needs: TaskNeeds { demand: Demand { cpu: 256, memory: 512, ..Demand::default() }, ..TaskNeeds::default() },
    }
}

fn template(cluster: &ClusterName, launch_type: LaunchType) -> TaskTemplate {
    let definition = Arc::new(definition());
    TaskTemplate {
        cluster: cluster.clone(),
        demand: definition.needs.demand.clone(),
        definition,
        group: "service:web".into(),
        started_by: None,
        service: None,
        launch_type,
        capacity_provider_strategy: Vec::new(),
        network: None,
        overrides: None,
        tags: Tags::new(),
        enable_execute_command: false,
        client_token: None,
        constraints: Vec::new(),
        strategies: Vec::new(),
        digests: BTreeMap::new(),
    }
}

/// A store with clusters `c0`, `c1` ... and machines, whose agents are connected.
async fn store(clusters: usize, machines: Vec<ContainerInstance>) -> Store {
    let store = Store::open(Memory).expect("a store in memory");
    let mut transaction = Transaction::new();
    for number in 0..clusters {
        let cluster: berth_model::cluster::Cluster = serde_json::from_value(serde_json::json!({
            "name": format!("c{number}"), "status": "ACTIVE", "created_at": 1, "tags": {}, "settings": [], "configuration": null,
            "service_connect_defaults": null, "capacity_providers": [], "default_capacity_provider_strategy": [],
        }))
        .expect("a cluster");
        transaction.put(cluster);
    }
    transaction.put(definition());
    for machine in machines {
        transaction.put(machine);
    }
    store.commit(transaction).await.expect("it is taken");
    store
}

async fn control(store: &Store, numbers: &Arc<AtomicU64>) -> Control {
    let scope = Scope { region: "us-east-1".into(), account: "000000000000".into() };
    let environment = Environment { clock: Arc::new(Still), entropy: Arc::new(Counter(Arc::clone(numbers))), scope };
    Control::start(store.clone(), environment, ControlConfig { names: None, ..Default::default() }).await.expect("it starts")
}

/// The agents connect, once no server forgets connections of an earlier life any more.
async fn connect(store: &Store) {
    let mut transaction = Transaction::new();
    for machine in store.state().instances() {
        transaction.put(ContainerInstance { agent_connected: true, ..(*machine.value).clone() });
    }
    store.commit(transaction).await.expect("it is taken");
}

/// What each commit leaves taken of the machines is never more than they have.
fn never_oversold(commits: &[Arc<Commit>], room: &BTreeMap<ContainerInstanceId, u32>) {
    let mut taken: BTreeMap<_, BTreeMap<_, Arc<Task>>> = BTreeMap::new();
    for commit in commits {
        for change in &commit.changes {
            if let Change::Put(Record::Task(task)) = change {
                let on = taken.entry(task.container_instance).or_default();
                if task.last_status == TaskStatus::Stopped {
                    on.remove(&task.id)
                } else {
                    on.insert(task.id, Arc::clone(task))
                };
            }
        }
        for (machine, tasks) in &taken {
            assert!(tasks.len() <= room[machine] as usize, "{} tasks on {machine} with room for {}", tasks.len(), room[machine]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clusters_of_two_servers_never_sell_the_same_and_sell_all() {
    const CLUSTERS: usize = 6;
    // The first is a container instance of c0 as well; the third takes no EC2 task of anybody; the fourth offers no Fargate.
    let machines = vec![
        machine(1, name("c0"), 30, true),
        machine(2, name("c1"), 20, true),
        machine(3, fargate::machines(), 25, true),
        machine(4, name("c0"), 7, false),
    ];
    let room: BTreeMap<_, _> = machines.iter().map(|machine| (machine.id, machine.registered.cpu / 256)).collect();
    let all: u32 = room.values().sum();
    let store = store(CLUSTERS, machines).await;
    let numbers = Arc::new(AtomicU64::new(1));
    let servers = [control(&store, &numbers).await, control(&store, &numbers).await];
    connect(&store).await;
    let mut watcher = store.watch(store.state().revision);
    let mut launches = Vec::new();
    for number in 0..60 {
        let cluster = name(&format!("c{}", number % CLUSTERS));
        // c0's own EC2 tasks want the first machine too.
        let launch_type = if number % (2 * CLUSTERS) == 0 { LaunchType::Ec2 } else { LaunchType::Fargate };
        let server = servers[number / CLUSTERS % 2].clone();
        launches.push(tokio::spawn(async move {
            let mut placed = 0;
            // A throttled caller comes again.
            loop {
                match server.launch(template(&cluster, launch_type), Where::Anywhere(3)).await {
                    Ok(launched) => {
                        placed += launched.tasks.len();
                        assert!(launched.tasks.iter().all(|task| task.cluster == cluster && task.launch_type == launch_type));
                        return (placed, launched.refused);
                    }
                    Err(LaunchError::Store(CommitError::Conflict(_)) | LaunchError::Overloaded) => tokio::task::yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            }
        }));
    }
    let (mut placed, mut without) = (0, 0);
    for launch in launches {
        let (some, refused) = launch.await.expect("it does not panic");
        placed += some;
        without += refused.iter().filter(|one| matches!(one, Refused::NoFargate(Some(_)))).count();
    }
    let commits = watcher.poll().expect("the log holds them all");
    never_oversold(&commits, &room);
    let state = store.state();
    let on = |id: u128| state.tasks().filter(|task| task.container_instance.0 == id).count();
    assert_eq!(placed, state.tasks().count());
    assert_eq!((1..=3).map(on).collect::<Vec<_>>(), [30, 20, 25], "180 tasks were wanted: everything that Fargate may sell is sold");
    assert!(on(4) <= 7 && state.tasks().filter(|task| task.container_instance.0 == 4).all(|task| task.launch_type == LaunchType::Ec2));
    assert!(
        state
            .tasks()
            .filter(|task| task.container_instance.0 >= 2 && task.launch_type == LaunchType::Ec2)
            .all(|t| t.container_instance.0 == 4)
    );
    assert!(without > 0 && placed <= all as usize);
    drop(state);
    servers.iter().for_each(Control::stop);
}

#[tokio::test]
async fn where_most_memory_is_free_and_nowhere_without_machines() {
    let store = store(2, vec![machine(1, name("c0"), 4, true), machine(2, fargate::machines(), 6, true)]).await;
    let control = control(&store, &Arc::new(AtomicU64::new(1))).await;
    connect(&store).await;
    let launched = control.launch(template(&name("c0"), LaunchType::Ec2), Where::Anywhere(2)).await.expect("it is placed");
    assert!(launched.tasks.iter().all(|task| task.container_instance.0 == 1), "a machine of nobody's takes no EC2 task");
    let launched = control.launch(template(&name("c1"), LaunchType::Fargate), Where::Anywhere(5)).await.expect("it is placed");
    let on: Vec<_> = launched.tasks.iter().map(|task| task.container_instance.0).collect();
    assert_eq!(on, [2, 2, 2, 2, 1], "six were free there, and two on the other");
    let rest = control.launch(template(&name("c1"), LaunchType::Fargate), Where::Anywhere(5)).await.expect("it is answered");
    assert_eq!(rest.tasks.len(), 3);
    assert!(matches!(rest.refused.as_slice(), [Refused::NoFargate(Some(_))]), "{:?}", rest.refused);
    let more = control.launch(template(&name("c0"), LaunchType::Ec2), Where::Anywhere(1)).await.expect("it is answered");
    assert!(more.tasks.is_empty(), "c0 sees what Fargate runs on its instance");
    control.stop();

    let store = self::store(1, vec![machine(1, name("c0"), 4, false)]).await;
    let control = self::control(&store, &Arc::new(AtomicU64::new(1))).await;
    connect(&store).await;
    let launched = control.launch(template(&name("c0"), LaunchType::Fargate), Where::Anywhere(1)).await.expect("it is answered");
    assert!(launched.tasks.is_empty());
    assert_eq!(launched.refused, [Refused::NoFargate(None)]);
    control.stop();
}
