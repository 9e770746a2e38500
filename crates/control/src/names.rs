//! What names answer, told to the DNS servers on container instances. The table is made of the state by a function that is handed in; this
//! follows the store's watch and hands each new table, and what changed since the one before, to the sessions of agents that asked for it. It
//! never decides what a name answers.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use berth_acs::ServerFrame;
use berth_acs::messages as acs;
use berth_model::dns::{DnsAnswer, DnsTable, DnsZone, Routing};
use berth_store::{Change, State, Store};

use crate::discovery::{dns_table, reach};
use crate::editions::{Changes, Editions, News, Subscription};
use crate::lag::Lag;
use crate::loops::Loops;
use crate::meter::{Meter, TableOutcome};

/// From one table to the next at the least: a deployment changes tasks by the hundred, and those that change together are told together.
const BETWEEN_TABLES: Duration = Duration::from_millis(20);

type Concerns = dyn Fn(&Change, &State) -> bool + Send + Sync;
type MakeTable = dyn Fn(&State) -> DnsTable + Send + Sync;

/// How the names of service discovery follow from the state.
#[derive(Clone)]
pub struct NameSource {
    concerns: Arc<Concerns>,
    table: Arc<MakeTable>,
}

impl NameSource {
    /// `concerns` says of a change whether names may answer otherwise after it, and is shown a state that has it; one too many costs a table's
    /// making, one too few leaves names as they were. `table` makes the table of a state, always the same of the same.
    pub fn new(
        concerns: impl Fn(&Change, &State) -> bool + Send + Sync + 'static,
        table: impl Fn(&State) -> DnsTable + Send + Sync + 'static,
    ) -> Self {
        Self { concerns: Arc::new(concerns), table: Arc::new(table) }
    }
}

impl Default for NameSource {
    /// Cloud Map's namespaces, services and instances.
    fn default() -> Self {
        let concerns = |change: &Change, state: &State| {
            let reach = reach(change);
            // Without a namespace nothing has a name.
            reach.namespaces || reach.names && state.namespaces().len() > 0
        };
        Self::new(concerns, dns_table)
    }
}

impl std::fmt::Debug for NameSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NameSource")
    }
}

/// A table as it goes to agents, rendered when the first of them is to have it whole.
#[derive(Clone)]
pub(crate) struct Whole {
    revision: u64,
    table: Arc<acs::NameTable>,
    frames: Arc<OnceLock<Option<Frames>>>,
    meter: Meter,
}

type Frames = Arc<[ServerFrame]>;

impl Whole {
    /// `None`: it is larger than what is sent at most.
    fn frames(&self) -> Option<Frames> {
        let render = || match acs::DnsTableMessage::split(self.revision, self.table.zones()) {
            Ok(parts) => Some(parts.into_iter().map(ServerFrame::BerthDnsTable).collect()),
            Err(error) => {
                tracing::error!(%error, "names are not told to container instances that do not know them, which go on with those they have");
                self.meter.made_table(TableOutcome::TooLarge);
                None
            }
        };
        self.frames.get_or_init(render).clone()
    }
}

/// The newest table, for the sessions.
pub(crate) struct Names {
    editions: Arc<Editions<Whole, Frames>>,
}

impl Names {
    /// Begins to make tables, if there is something to make them with.
    pub(crate) fn start(source: Option<NameSource>, store: Store, loops: &Loops, meter: &Meter) -> Self {
        let editions = Arc::new(Editions::new());
        if let Some(source) = source {
            loops.spawn(follow(source, store, Arc::clone(&editions), Lag::new(meter.lag_of("names")), meter.clone()));
        }
        Self { editions }
    }

    /// The tables from now on, beginning with the one that there is; as changes where the agent takes these.
    pub(crate) fn subscribe(&self, takes_changes: bool) -> Tables {
        Tables(self.editions.subscribe(takes_changes))
    }
}

/// The tables that one session sends.
pub(crate) struct Tables(Subscription<Whole, Frames>);

impl Tables {
    /// Waits for frames that tell of a newer table. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Vec<Frames> {
        loop {
            match self.0.next().await {
                News::Changes(changes) => return changes.into_iter().map(|changes| changes.content).collect(),
                News::Whole(_, whole) => match whole.frames() {
                    Some(frames) => return vec![frames],
                    None => self.0.withhold(),
                },
            }
        }
    }

    /// The agent misses something: it is told of the whole table.
    pub(crate) fn forget(&mut self) {
        self.0.forget();
    }
}

async fn follow(source: NameSource, store: Store, editions: Arc<Editions<Whole, Frames>>, mut lag: Lag, meter: Meter) {
    let mut watcher = store.watch(store.state().revision);
    let mut told: Option<Whole> = None;
    loop {
        let DnsTable { revision, zones } = (source.table)(&store.state());
        let table: acs::NameTable = zones.iter().map(zone).collect();
        // By content: the revision grows with every commit, whatever it is about.
        let changes = told.as_ref().map(|told| told.table.changes_to(&table));
        if changes.as_ref().is_none_or(|changes| !changes.is_empty()) {
            let base = told.as_ref().map(|told| told.revision);
            let changes = base.zip(changes).and_then(|(base, changes)| {
                let (message, size) = acs::DnsTableMessage::of_changes(base, revision, changes)?;
                let content: Frames = [ServerFrame::BerthDnsTable(message)].into();
                Some(Changes { base, revision, size, content })
            });
            let whole = Whole { revision, table: Arc::new(table), frames: Arc::default(), meter: meter.clone() };
            editions.publish(revision, whole.clone(), changes);
            meter.made_table(TableOutcome::Sent);
            told = Some(whole);
        }
        tokio::time::sleep(BETWEEN_TABLES).await;
        loop {
            match lag.during(watcher.next()).await {
                Ok(commits) => {
                    let state = store.state();
                    if commits.iter().flat_map(|commit| &commit.changes).any(|change| (source.concerns)(change, &state)) {
                        break;
                    }
                }
                Err(_) => {
                    watcher.resume_from(store.state().revision);
                    break;
                }
            }
        }
        lag.acts();
    }
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
