//! What names answer, told to the DNS servers on container instances. The table is made of the state by a function that is handed in; this
//! follows the store's watch and hands each new table to the sessions of agents that asked for it. It never decides what a name answers.

use std::sync::Arc;
use std::time::Duration;

use berth_acs::ServerFrame;
use berth_acs::messages as acs;
use berth_model::dns::{DnsAnswer, DnsTable, DnsZone, Routing};
use berth_model::record::{Key, Record};
use berth_store::{Change, State, Store};
use tokio::sync::watch;

use crate::discovery::dns_table;
use crate::lag::Lag;
use crate::loops::Loops;
use crate::meter::{Meter, TableOutcome};

/// From one table to the next at the least: a deployment changes tasks by the hundred, and each agent gets the whole table.
const BETWEEN_TABLES: Duration = Duration::from_millis(20);

type Concerns = dyn Fn(&Change) -> bool + Send + Sync;
type MakeTable = dyn Fn(&State) -> DnsTable + Send + Sync;

/// How the names of service discovery follow from the state.
#[derive(Clone)]
pub struct NameSource {
    concerns: Arc<Concerns>,
    table: Arc<MakeTable>,
}

impl NameSource {
    /// `concerns` says of a change whether names may answer otherwise after it; one too many costs a table's making, one too few leaves
    /// names as they were. `table` makes the table of a state, always the same of the same.
    pub fn new(
        concerns: impl Fn(&Change) -> bool + Send + Sync + 'static,
        table: impl Fn(&State) -> DnsTable + Send + Sync + 'static,
    ) -> Self {
        Self { concerns: Arc::new(concerns), table: Arc::new(table) }
    }
}

impl Default for NameSource {
    /// Cloud Map's namespaces, services and instances.
    fn default() -> Self {
        Self::new(concerns_cloud_map, dns_table)
    }
}

/// Whether a name may answer otherwise after a change: an instance counts as long as its task is not to stop.
fn concerns_cloud_map(change: &Change) -> bool {
    match change {
        Change::Put(Record::Task(task)) => task.service.is_some(),
        Change::Put(record) => matches!(record, Record::Namespace(_) | Record::DiscoveryService(_) | Record::DiscoveryInstance(_)),
        Change::Touch(key) | Change::Delete(key) => {
            matches!(key, Key::Task(_) | Key::Namespace(_) | Key::DiscoveryService(_) | Key::DiscoveryInstance(..))
        }
    }
}

impl std::fmt::Debug for NameSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NameSource")
    }
}

/// A table as it goes to agents; none before the first was made.
type Frames = Option<Arc<[ServerFrame]>>;

/// The newest table, for the sessions.
pub(crate) struct Names {
    newest: watch::Sender<Frames>,
}

impl Names {
    /// Begins to make tables, if there is something to make them with.
    pub(crate) fn start(source: Option<NameSource>, store: Store, loops: &Loops, meter: &Meter) -> Self {
        let newest = watch::Sender::new(None);
        if let Some(source) = source {
            loops.spawn(follow(source, store, newest.clone(), Lag::new(meter.lag_of("names")), meter.clone()));
        }
        Self { newest }
    }

    /// The tables from now on, beginning with the one that there is.
    pub(crate) fn subscribe(&self) -> Tables {
        let mut newest = self.newest.subscribe();
        newest.mark_changed();
        Tables(newest)
    }
}

/// The tables that one session sends.
pub(crate) struct Tables(watch::Receiver<Frames>);

impl Tables {
    /// Waits for a table that was not yet taken; those that another overtook are passed over.
    pub(crate) async fn next(&mut self) -> Arc<[ServerFrame]> {
        loop {
            if self.0.changed().await.is_err() {
                // The control plane is ending, and its sessions with it.
                return std::future::pending().await;
            }
            if let Some(frames) = self.0.borrow_and_update().clone() {
                return frames;
            }
        }
    }
}

async fn follow(source: NameSource, store: Store, newest: watch::Sender<Frames>, mut lag: Lag, meter: Meter) {
    let mut watcher = store.watch(store.state().revision);
    let mut told: Option<Vec<DnsZone>> = None;
    loop {
        let table = (source.table)(&store.state());
        // By content: the revision grows with every commit, whatever it is about.
        if told.as_ref() != Some(&table.zones) {
            match frames(&table) {
                Ok(frames) => {
                    newest.send_replace(Some(frames));
                    meter.made_table(TableOutcome::Sent);
                }
                Err(error) => {
                    tracing::error!(%error, "names are not told to container instances, which go on with those that they have");
                    meter.made_table(TableOutcome::TooLarge);
                }
            }
            told = Some(table.zones);
        }
        tokio::time::sleep(BETWEEN_TABLES).await;
        loop {
            match lag.during(watcher.next()).await {
                Ok(commits) if commits.iter().flat_map(|commit| &commit.changes).any(|change| (source.concerns)(change)) => break,
                Ok(_) => {}
                Err(_) => {
                    watcher.resume_from(store.state().revision);
                    break;
                }
            }
        }
        lag.acts();
    }
}

fn frames(table: &DnsTable) -> Result<Arc<[ServerFrame]>, acs::TableTooLarge> {
    let parts = acs::DnsTableMessage::split(table.revision, table.zones.iter().map(zone).collect())?;
    Ok(parts.into_iter().map(ServerFrame::BerthDnsTable).collect())
}

fn zone(zone: &DnsZone) -> acs::DnsZone {
    let record = |record: &berth_model::dns::DnsRecord| acs::DnsRecord {
        name: record.name.clone(),
        ttl_seconds: record.ttl_seconds,
        routing: match record.routing {
            Routing::Multivalue => acs::DnsRouting::Multivalue,
            Routing::Weighted => acs::DnsRouting::Weighted,
        },
        answers: record.answers.iter().map(answer).collect(),
    };
    acs::DnsZone { name: zone.name.clone(), records: zone.records.iter().map(record).collect() }
}

fn answer(answer: &DnsAnswer) -> acs::DnsAnswer {
    match answer {
        DnsAnswer::A(address) => acs::DnsAnswer::A(*address),
        DnsAnswer::Aaaa(address) => acs::DnsAnswer::Aaaa(*address),
        DnsAnswer::Srv { priority, weight, port, target } => {
            acs::DnsAnswer::Srv { priority: *priority, weight: *weight, port: *port, target: target.clone() }
        }
        DnsAnswer::Cname(name) => acs::DnsAnswer::Cname(name.clone()),
    }
}
