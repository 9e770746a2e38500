//! Tables of names on their way to agents: whole at once after a connection, then what changes, whole again for an agent that misses something
//! or takes no changes, and never to an agent that did not ask.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use berth_acs::messages::{AgentFrame, DnsTableMessage, NameNews, ReceivedNames, TableKind, TableRequest};
use berth_acs::{AcsQuery, ServerConnection, ServerFrame};
use berth_control::{Clock, Control, ControlConfig, Entropy, Environment, NameSource};
use berth_model::arn::Scope;
use berth_model::container_instance::{AgentVersion, ContainerInstance, ContainerInstanceStatus, Resources};
use berth_model::dns::{DnsAnswer, DnsRecord, DnsTable, Routing};
use berth_model::ids::{ClusterName, ContainerInstanceId};
use berth_model::record::{Key, Record};
use berth_model::tags::Tags;
use berth_model::time::UnixMillis;
use berth_store::backend::Memory;
use berth_store::{Change, State, Store, Transaction};
use futures_util::{SinkExt, StreamExt};
use tokio::io::DuplexStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

/// Long: nothing here is measured, it only must not hang.
const PATIENCE: Duration = Duration::from_secs(60);

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

fn cluster(name: &str) -> berth_model::cluster::Cluster {
    let cluster = serde_json::json!({
        "name": name, "status": "ACTIVE", "created_at": 1, "tags": {}, "settings": [], "configuration": null,
        "service_connect_defaults": null, "capacity_providers": [], "default_capacity_provider_strategy": [],
    });
    serde_json::from_value(cluster).expect("a cluster")
}

fn instance() -> ContainerInstance {
    ContainerInstance {
        id: ContainerInstanceId(1),
        cluster: ClusterName::parse("c").expect("a name"),
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
    }
}

async fn commit(store: &Store, change: impl FnOnce(&mut Transaction)) {
    let mut transaction = Transaction::new();
    change(&mut transaction);
    store.commit(transaction).await.expect("it is taken");
}

/// Names that are easily changed: each cluster's, but for those that begin with `quiet`.
fn source(made: Arc<AtomicUsize>) -> NameSource {
    let concerns = |change: &Change, _: &State| matches!(change, Change::Put(Record::Cluster(_)) | Change::Delete(Key::Cluster(_)));
    let table = move |state: &State| {
        made.fetch_add(1, Ordering::SeqCst);
        let record = |name: &str| DnsRecord {
            name: name.to_owned(),
            ttl_seconds: 10,
            routing: Routing::Multivalue,
            answers: vec![DnsAnswer::A(Ipv4Addr::LOCALHOST)],
        };
        let names = state.clusters().map(|cluster| cluster.name.as_str().to_owned()).filter(|name| !name.starts_with("quiet"));
        let records = names.map(|name| record(&name)).collect();
        DnsTable { revision: state.revision.0, zones: vec![berth_model::dns::DnsZone { name: "ns.local".into(), records }] }
    };
    NameSource::new(concerns, table)
}

struct Agent {
    socket: WebSocketStream<DuplexStream>,
    names: ReceivedNames,
}

impl Agent {
    async fn connect(control: &Control, arn: &str, more: &str) -> Self {
        let query = format!("clusterArn=c&containerInstanceArn={arn}&agentVersion=1.105.1&protocolVersion=2{more}");
        let session = control.open_session(AcsQuery::parse(&query).expect("a query")).await.expect("it is let in");
        let (server, agent) = tokio::io::duplex(1 << 20);
        tokio::spawn(async move { session.run(ServerConnection::new(server).await).await });
        Self { socket: WebSocketStream::from_raw_socket(agent, Role::Client, None).await, names: ReceivedNames::default() }
    }

    async fn frame(&mut self) -> ServerFrame {
        loop {
            let message =
                tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("a frame").expect("it is open").expect("it is whole");
            if let Message::Text(text) = message {
                return ServerFrame::decode(&text).expect("a frame");
            }
        }
    }

    /// The next message of names.
    async fn message(&mut self) -> DnsTableMessage {
        loop {
            if let ServerFrame::BerthDnsTable(message) = self.frame().await {
                return message;
            }
        }
    }

    /// The names of the next table.
    async fn names(&mut self) -> String {
        loop {
            let message = self.message().await;
            match self.names.take(message) {
                NameNews::Changed => return self.known(),
                NameNews::Waits => {}
                NameNews::Lost => panic!("something is missing"),
            }
        }
    }

    fn known(&self) -> String {
        let records = self.names.table().zones().flat_map(|zone| zone.records);
        records.map(|record| record.name).collect::<Vec<_>>().join(" ")
    }

    async fn say(&mut self, frame: &AgentFrame) {
        let text = frame.encode().expect("it fits a frame");
        self.socket.send(Message::Text(text.into())).await.expect("it is sent");
    }
}

/// A control plane with a container instance, and names made of clusters.
async fn world() -> (Store, Control, String, Arc<AtomicUsize>) {
    let store = Store::open_inline(Memory).expect("a store in memory");
    commit(&store, |t| {
        t.put(cluster("c")).put(instance());
    })
    .await;
    let scope = Scope { region: "us-east-1".into(), account: "000000000000".into() };
    let arn = scope.container_instance(&ClusterName::parse("c").expect("a name"), ContainerInstanceId(1));
    let environment = Environment { clock: Arc::new(Still), entropy: Arc::new(Counter(AtomicU64::new(1))), scope };
    let made = Arc::new(AtomicUsize::new(0));
    let config = ControlConfig { names: Some(source(made.clone())), ..Default::default() };
    let control = Control::start(store.clone(), environment, config).await.expect("it starts");
    (store, control, arn, made)
}

#[tokio::test]
async fn an_agent_that_takes_changes_is_told_what_changes_and_of_the_whole_if_it_asks() {
    let (store, control, arn, _) = world().await;
    let mut ours = Agent::connect(&control, &arn, "&berthDns=1&berthDifferences=1").await;
    let whole = ours.message().await;
    assert_eq!((whole.base, whole.zones[0].records.len()), (None, 1));
    assert_eq!((ours.names.take(whole.clone()), ours.known().as_str()), (NameNews::Changed, "c"));
    commit(&store, |t| {
        t.put(cluster("d")).put(cluster("e"));
    })
    .await;
    let more = ours.message().await;
    assert_eq!((more.base, more.zones[0].records.len()), (Some(whole.revision), 2), "only what is new");
    assert_eq!((ours.names.take(more.clone()), ours.known().as_str()), (NameNews::Changed, "c d e"));
    commit(&store, |t| {
        t.delete(Key::Cluster(ClusterName::parse("d").expect("a name")));
    })
    .await;
    let less = ours.message().await;
    assert_eq!((less.base, less.zones.len(), less.gone.len()), (Some(more.revision), 0, 1));
    // One between is lost: what comes next leads from a table that the agent does not have.
    commit(&store, |t| {
        t.put(cluster("f"));
    })
    .await;
    let next = ours.message().await;
    assert_eq!(next.base, Some(less.revision));
    assert_eq!(ours.names.take(next), NameNews::Lost);
    ours.say(&AgentFrame::TableRequest(TableRequest { table: TableKind::Network })).await;
    ours.say(&AgentFrame::TableRequest(TableRequest { table: TableKind::Names })).await;
    let again = ours.message().await;
    assert_eq!(again.base, None, "nothing was committed, and it is told of the whole all the same");
    assert_eq!((ours.names.take(again), ours.known().as_str()), (NameNews::Changed, "c e f"));
    commit(&store, |t| {
        t.put(cluster("g"));
    })
    .await;
    assert_eq!(ours.names().await, "c e f g");

    let mut older = Agent::connect(&control, &arn, "&berthDns=1").await;
    assert_eq!(older.names().await, "c e f g");
    commit(&store, |t| {
        t.put(cluster("h"));
    })
    .await;
    let whole = older.message().await;
    assert_eq!((whole.base, whole.zones[0].records.len()), (None, 5), "it did not say that it takes changes");
    control.stop();
}

#[tokio::test]
async fn agents_that_ask_are_told_of_names_at_once_and_when_they_change() {
    let (store, control, arn, made) = world().await;
    let mut ours = Agent::connect(&control, &arn, "&berthDns=1&berthDifferences=1").await;
    assert_eq!(ours.names().await, "c");
    commit(&store, |t| {
        t.put(cluster("d"));
    })
    .await;
    assert_eq!(ours.names().await, "c d");
    // One that changes no name is looked at and told to nobody: the next table that comes is the one after it.
    let before = made.load(Ordering::SeqCst);
    commit(&store, |t| {
        t.put(cluster("quiet"));
    })
    .await;
    while made.load(Ordering::SeqCst) == before {
        tokio::task::yield_now().await;
    }
    commit(&store, |t| {
        t.put(cluster("e"));
    })
    .await;
    assert_eq!(ours.names().await, "c d e");
    // Many at once are few tables; the last has all of them.
    let before = made.load(Ordering::SeqCst);
    for number in 0..50 {
        commit(&store, |t| {
            t.put(cluster(&format!("f{number:02}")));
        })
        .await;
    }
    let mut last = String::new();
    while !last.ends_with("f49") {
        last = ours.names().await;
    }
    assert!(made.load(Ordering::SeqCst) - before < 50, "changes that come together are told together");
    ours.socket.close(None).await.expect("it says goodbye");

    let mut again = Agent::connect(&control, &arn, "&berthDns=1&berthDifferences=1").await;
    assert_eq!(again.names().await, last, "a connection begins with the whole of it");

    // An agent that did not ask gets everything but names: its manifest, and heartbeats for as long as it answers.
    let mut official = Agent::connect(&control, &arn, "").await;
    commit(&store, |t| {
        t.put(cluster("g"));
    })
    .await;
    control.ask_pulse(ContainerInstanceId(1));
    loop {
        match official.frame().await {
            ServerFrame::BerthDnsTable(table) => panic!("{table:?}"),
            ServerFrame::Heartbeat(_) => break,
            _ => {}
        }
    }
    official.socket.send(Message::Close(None)).await.expect("it says goodbye");
    control.stop();
}
