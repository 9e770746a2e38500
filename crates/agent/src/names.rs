//! The names that containers of this machine can ask for: the table that the control plane sends, the server that answers from it, and what a
//! container's resolv.conf says. The last table outlives control plane and agent.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use berth_acs::messages as acs;
use berth_network::dns::{Answer, CurrentTable, Record, Routing, Server, ServerConfig, Table, Upstreams, Zone, answers_inside};
use berth_network::port::{AttachmentId, AttachmentKind, Network, NetworkError};
use berth_runtime::port::InstanceDns;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::{DNS_PORT, DnsSettings};
use crate::ledger::Ledger;

/// The machine's own name servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How long to wait before an address is tried again that somebody else has.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// How long to wait before it is looked again whether containers reach the server.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// Most lines of the log about one table.
const MOST_PROBLEMS: usize = 10;

/// A table as it is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptTable {
    /// The store's revision that it was made of.
    pub revision: u64,
    /// Its zones.
    pub zones: Vec<Zone>,
}

/// The names of this machine's containers.
pub struct Names {
    settings: DnsSettings,
    ledger: Ledger,
    table: CurrentTable,
    /// Whether there is a zone: then what other name servers say of a name must not count.
    has_zones: AtomicBool,
    /// Whether the bridge's address is served.
    serves_bridge: AtomicBool,
    unkept: Mutex<Option<KeptTable>>,
    changed: Notify,
}

impl Names {
    /// Names as the last table has them. A table that cannot be read is as good as none: the control plane sends it anew.
    #[must_use]
    pub fn new(settings: DnsSettings, ledger: Ledger) -> Arc<Self> {
        let kept = ledger.names().unwrap_or_else(|error| {
            tracing::warn!(%error, "the names that were known cannot be read; the control plane will send them");
            KeptTable::default()
        });
        let names = Self {
            settings,
            ledger,
            table: CurrentTable::default(),
            has_zones: AtomicBool::new(false),
            serves_bridge: AtomicBool::new(false),
            unkept: Mutex::default(),
            changed: Notify::new(),
        };
        names.put_in_force(&kept);
        Arc::new(names)
    }

    /// Whether the control plane need send tables.
    #[must_use]
    pub fn wants_tables(&self) -> bool {
        self.settings.enabled && (self.settings.bridge.is_some() || self.settings.also.is_some())
    }

    /// Takes a whole table as the control plane sent it. It counts for the next question.
    pub fn take(&self, revision: u64, zones: impl IntoIterator<Item = acs::DnsZone>) {
        let table = KeptTable { revision, zones: zones.into_iter().map(zone).collect() };
        self.put_in_force(&table);
        *self.unkept.lock() = Some(table);
        self.changed.notify_one();
    }

    /// Writes each table down after it was put in force; only the last one where several come meanwhile.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let is_last = tokio::select! {
                biased;
                () = self.changed.notified() => false,
                () = stop.cancelled() => true,
            };
            let Some(table) = self.unkept.lock().take() else {
                if is_last {
                    return;
                }
                continue;
            };
            let ledger = self.ledger.clone();
            match tokio::task::spawn_blocking(move || ledger.keep_names(&table)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the names cannot be kept; after a restart older ones count until the server answers")
                }
                Err(error) => tracing::warn!(%error, "the names cannot be kept"),
            }
        }
    }

    /// Answers questions until `stop`, on each address of the settings that is free; tries again where one is not. Containers are sent to the
    /// bridge's only once one of `network`'s namespaces was seen to reach it.
    pub async fn serve(self: Arc<Self>, network: Arc<dyn Network>, stop: CancellationToken) {
        if !self.settings.enabled {
            return;
        }
        let bridge = self.settings.bridge.map(|address| SocketAddr::from((address, DNS_PORT)));
        let on_bridge = async {
            if let Some(address) = bridge {
                self.serve_at(address, Some(&*network), &stop).await;
            }
        };
        let also = async {
            if let Some(address) = self.settings.also.filter(|also| Some(*also) != bridge) {
                self.serve_at(address, None, &stop).await;
            }
        };
        tokio::join!(on_bridge, also);
    }

    /// What a container on the bridge is to have as its name server; `None`: the machine's own, because nobody answers there.
    #[must_use]
    pub fn of_container(&self) -> Option<InstanceDns> {
        let address = self.settings.bridge.filter(|_| self.serves_bridge.load(Ordering::Acquire))?;
        // Some resolvers ask all their servers at once and believe the first, and to everybody else our names do not exist. While there are
        // none, the machine's servers are as good, and go on when the agent is away.
        Some(InstanceDns { address: IpAddr::V4(address), alone: self.has_zones.load(Ordering::Acquire) })
    }

    fn put_in_force(&self, kept: &KeptTable) {
        let (table, problems) = Table::new(kept.revision, &kept.zones);
        for problem in problems.iter().take(MOST_PROBLEMS) {
            tracing::warn!(revision = kept.revision, "{problem}");
        }
        self.has_zones.store(table.zones() > 0, Ordering::Release);
        self.table.replace(table);
    }

    /// Waits until containers reach the bridge's address, and has them asked there from then on.
    async fn until_reached(&self, network: &dyn Network, address: SocketAddr, stop: &CancellationToken) {
        let mut said = false;
        while !stop.is_cancelled() {
            let problem = match is_reached(network, address).await {
                Ok(true) => {
                    self.serves_bridge.store(true, Ordering::Release);
                    return;
                }
                Ok(false) => "a firewall of this machine drops what containers ask".to_owned(),
                Err(error) => error.to_string(),
            };
            if !said {
                said = true;
                tracing::warn!(%address, problem, "containers get no answers here; they keep the machine's name servers until they do");
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    async fn serve_at(&self, address: SocketAddr, of_bridge: Option<&dyn Network>, stop: &CancellationToken) {
        let mut said = false;
        loop {
            let upstreams = match &self.settings.upstreams {
                Some(servers) => Upstreams::fixed(servers.clone()),
                None => Upstreams::file(RESOLV_CONF),
            };
            match Server::start(ServerConfig { listen: address, upstreams }, self.table.clone()).await {
                Ok(server) => {
                    if let Some(network) = of_bridge {
                        self.until_reached(network, address, stop).await;
                    }
                    tracing::info!(address = %server.address(), "names are answered");
                    stop.cancelled().await;
                    // The next agent of this machine may begin at once.
                    server.end().await;
                    return;
                }
                Err(error) if !said => {
                    said = true;
                    tracing::warn!(%address, %error, "names are not answered here; containers keep the machine's name servers until the address is free");
                }
                Err(error) => tracing::debug!(%address, %error, "names are still not answered here"),
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(TRY_AGAIN) => {}
            }
        }
    }
}

/// Whether a namespace that is connected as containers' are gets answers.
async fn is_reached(network: &dyn Network, address: SocketAddr) -> Result<bool, NetworkError> {
    let id = AttachmentId("berth-dns-probe".to_owned());
    let attachment = network.attach(&id, AttachmentKind::Bridge).await?;
    let asked = tokio::task::spawn_blocking(move || match attachment.namespace {
        Some(namespace) => answers_inside(&namespace, address),
        None => Ok(false),
    });
    let outcome = asked.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    network.detach(&id).await?;
    outcome.map_err(|error| NetworkError::System(format!("ask for a name as a container does: {error}")))
}

fn zone(zone: acs::DnsZone) -> Zone {
    let record = |record: acs::DnsRecord| Record {
        name: record.name,
        ttl_seconds: record.ttl_seconds,
        routing: match record.routing {
            acs::DnsRouting::Multivalue => Routing::Multivalue,
            acs::DnsRouting::Weighted => Routing::Weighted,
        },
        answers: record.answers.into_iter().map(answer).collect(),
    };
    Zone { name: zone.name, records: zone.records.into_iter().map(record).collect() }
}

fn answer(answer: acs::DnsAnswer) -> Answer {
    match answer {
        acs::DnsAnswer::A(address) => Answer::A(address),
        acs::DnsAnswer::Aaaa(address) => Answer::Aaaa(address),
        acs::DnsAnswer::Srv { priority, weight, port, target } => Answer::Srv { priority, weight, port, target },
        acs::DnsAnswer::Cname(name) => Answer::Cname(name),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::UdpSocket;

    use super::*;

    /// A question for `hello.ns.local`, type A, and the first answer's address, if it has one.
    pub(crate) async fn ask(server: SocketAddr) -> Option<Ipv4Addr> {
        const QUESTION: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x05hello\x02ns\x05local\x00\x00\x01\x00\x01";
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(server).await.unwrap();
        let mut buffer = [0; 512];
        let length = loop {
            socket.send(QUESTION).await.unwrap();
            // Nobody listens there in the first moments.
            match tokio::time::timeout(Duration::from_millis(200), socket.recv(&mut buffer)).await {
                Ok(Ok(length)) => break length,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        let answer = &buffer[..length];
        (answer[7] > 0).then(|| Ipv4Addr::from(<[u8; 4]>::try_from(&answer[QUESTION.len() + 12..QUESTION.len() + 16]).unwrap()))
    }

    pub(crate) fn hello(last: u8) -> Vec<acs::DnsZone> {
        let answers = vec![acs::DnsAnswer::A(Ipv4Addr::new(10, 0, 0, last))];
        let record = acs::DnsRecord { name: "hello".into(), ttl_seconds: 10, routing: acs::DnsRouting::Multivalue, answers };
        vec![acs::DnsZone { name: "ns.local".into(), records: vec![record] }]
    }

    fn network() -> Arc<dyn Network> {
        crate::fakes::machine().1
    }

    pub(crate) fn free_address() -> SocketAddr {
        std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    #[tokio::test]
    async fn a_table_counts_at_once_and_outlives_the_agent() {
        let folder = tempfile::tempdir().unwrap();
        let address = free_address();
        let settings = DnsSettings { also: Some(address), upstreams: Some(Vec::new()), ..Default::default() };
        let ledger = Ledger::open(folder.path()).unwrap();
        let (stop, mut last) = (CancellationToken::new(), 1);
        let names = Names::new(settings.clone(), ledger.clone());
        let (serving, keeping) =
            (tokio::spawn(names.clone().serve(network(), stop.clone())), tokio::spawn(names.clone().keep(stop.clone())));
        assert!(names.wants_tables());
        while last < 5 {
            last += 1;
            names.take(u64::from(last), hello(last));
            assert_eq!(ask(address).await, Some(Ipv4Addr::new(10, 0, 0, last)), "without a wait");
        }
        stop.cancel();
        serving.await.unwrap();
        keeping.await.unwrap();

        let stop = CancellationToken::new();
        let names = Names::new(settings, ledger);
        let serving = tokio::spawn(names.clone().serve(network(), stop.clone()));
        assert_eq!(ask(address).await, Some(Ipv4Addr::new(10, 0, 0, 5)), "what was known before");
        names.take(9, Vec::new());
        assert_eq!(ask(address).await, None);
        stop.cancel();
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn containers_keep_the_machines_servers_while_nobody_answers_on_the_bridge() {
        let settings = DnsSettings { bridge: Some(Ipv4Addr::LOCALHOST), ..Default::default() };
        let names = Names::new(settings.clone(), Ledger::in_memory());
        assert_eq!(names.of_container(), None);
        names.serves_bridge.store(true, Ordering::Release);
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert_eq!(names.of_container(), Some(InstanceDns { address, alone: false }));
        names.take(1, hello(1));
        assert_eq!(names.of_container(), Some(InstanceDns { address, alone: true }), "others say of our names that they do not exist");
        let off = Names::new(DnsSettings { enabled: false, ..settings }, Ledger::in_memory());
        off.clone().serve(network(), CancellationToken::new()).await;
        assert!(!off.wants_tables() && off.of_container().is_none());
    }
}
