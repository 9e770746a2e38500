//! The table that machines enforce: which security groups let what through, and which interfaces there are, at which container instance.
//! Kept up with the state, at the cost of what changes, and handed to the sessions of agents that give tasks interfaces.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use berth_model::record::{Key, Record};
use berth_model::vpc::security_group::{Direction, IpProtocol, Peer, Permission, SecurityGroup, Traffic};
use berth_model::vpc::{NetworkInterface, NetworkInterfaceId, Resource, ResourceId, SecurityGroupId};
use berth_store::{Change, State, Store};
use serde_json::{Map, Value, json};

use crate::editions::{Changes, Editions, News, Subscription};
use crate::lag::Lag;
use crate::loops::Loops;
use crate::meter::Meter;

/// From one table to the next at the least: a deployment makes interfaces by the hundred, and those that come together are told together.
const BETWEEN_TABLES: Duration = Duration::from_millis(20);
/// The largest table that is sent, in bytes, so that with its envelope it stays below the largest frame.
const MAX_TABLE: usize = berth_acs::messages::MAX_FRAME - 16 * 1024;

/// The newest table, for the sessions.
pub(crate) struct Table {
    editions: Arc<Editions<Whole, Arc<Value>>>,
}

impl Table {
    /// Begins to make tables.
    pub(crate) fn start(store: Store, loops: &Loops, meter: &Meter) -> Self {
        let editions = Arc::new(Editions::new());
        loops.spawn(follow(store, Arc::clone(&editions), Lag::new(meter.lag_of("interfaces"))));
        Self { editions }
    }

    /// The tables from now on, beginning with the one that there is; as changes where the agent takes these.
    pub(crate) fn subscribe(&self, takes_changes: bool) -> Tables {
        Tables(self.editions.subscribe(takes_changes))
    }
}

/// The tables that one session sends.
pub(crate) struct Tables(Subscription<Whole, Arc<Value>>);

impl Tables {
    /// Waits for a newer table. Cancel-safe.
    pub(crate) async fn next(&mut self) -> News<Whole, Arc<Value>> {
        loop {
            match self.0.next().await {
                News::Whole(_, whole) if !whole.fits() => self.0.withhold(),
                news => return news,
            }
        }
    }

    /// The agent misses something: it is told of the whole table.
    pub(crate) fn forget(&mut self) {
        self.0.forget();
    }
}

/// A table as a whole.
#[derive(Clone)]
pub(crate) struct Whole {
    known: Arc<Known>,
    fits: Arc<OnceLock<bool>>,
}

impl Whole {
    fn new(known: Known) -> Self {
        Self { known: Arc::new(known), fits: Arc::default() }
    }

    /// In the form that machines read.
    pub(crate) fn table(&self) -> Value {
        self.known.table()
    }

    fn fits(&self) -> bool {
        *self.fits.get_or_init(|| {
            let size = self.table().to_string().len();
            if size > MAX_TABLE {
                tracing::error!(
                    size,
                    "interfaces and security groups are too many to be told; container instances that do not know them go on with those they have"
                );
            }
            size <= MAX_TABLE
        })
    }
}

async fn follow(store: Store, editions: Arc<Editions<Whole, Arc<Value>>>, mut lag: Lag) {
    let mut watcher = store.watch(store.state().revision);
    let mut known = Known::default();
    let mut dirty = Dirty::all(&store.state(), &known);
    let mut base = None;
    loop {
        // Every look is after further commits, so that no two tables have one number.
        let revision = watcher.position().0;
        let content = known.update(&store.state(), dirty);
        if base.is_none() || content.is_some() {
            let changes = base.zip(content).map(|(base, content)| {
                let size = content.to_string().len();
                Changes { base, revision, size, content: Arc::new(content) }
            });
            editions.publish(revision, Whole::new(known.clone()), changes);
            base = Some(revision);
        }
        tokio::time::sleep(BETWEEN_TABLES).await;
        dirty = loop {
            match lag.during(watcher.next()).await {
                Ok(commits) => {
                    let mut dirty = Dirty::default();
                    let state = store.state();
                    commits.iter().flat_map(|commit| &commit.changes).for_each(|change| dirty.note(change, &state, &known));
                    if !dirty.is_empty() {
                        break dirty;
                    }
                }
                Err(_) => {
                    let state = store.state();
                    watcher.resume_from(state.revision);
                    break Dirty::all(&state, &known);
                }
            }
        };
        lag.acts();
    }
}

/// What is to be looked at again.
#[derive(Debug, Default)]
struct Dirty {
    interfaces: BTreeSet<NetworkInterfaceId>,
    groups: BTreeSet<SecurityGroupId>,
}

impl Dirty {
    /// Everything that there is or was.
    fn all(state: &State, known: &Known) -> Self {
        let resources = state.vpc_resources();
        Self {
            interfaces: resources.interfaces().map(|one| one.id).chain(known.interfaces.keys().copied()).collect(),
            groups: known.groups.keys().copied().collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.interfaces.is_empty() && self.groups.is_empty()
    }

    /// Adds what a change, which the state has, may make otherwise.
    fn note(&mut self, change: &Change, state: &State, known: &Known) {
        match change {
            Change::Put(Record::VpcResource(Resource::NetworkInterface(one))) => drop(self.interfaces.insert(one.id)),
            Change::Delete(Key::VpcResource(ResourceId::NetworkInterface(id))) => drop(self.interfaces.insert(*id)),
            Change::Put(Record::VpcResource(Resource::SecurityGroup(group))) if known.uses.contains_key(&group.id) => {
                self.groups.insert(group.id);
            }
            Change::Delete(Key::VpcResource(ResourceId::SecurityGroup(id))) if known.uses.contains_key(id) => drop(self.groups.insert(*id)),
            // It may have another address.
            Change::Put(Record::ContainerInstance(instance)) if !known.interfaces.is_empty() => {
                let tasks = state.tasks_of_machine(&instance.cluster, instance.id);
                self.interfaces.extend(tasks.filter_map(|task| task.interface.as_ref()).map(|interface| interface.interface));
            }
            Change::Delete(Key::ContainerInstance(_)) if !known.interfaces.is_empty() => {
                self.interfaces.extend(known.interfaces.keys().copied());
            }
            _ => {}
        }
    }
}

/// The table as it was made last. Of groups only those that an interface has: the others judge nobody.
#[derive(Debug, Clone, Default, PartialEq)]
struct Known {
    groups: BTreeMap<SecurityGroupId, Arc<Value>>,
    interfaces: BTreeMap<NetworkInterfaceId, KnownInterface>,
    /// How many interfaces have a group, whether it is there or not; never 0.
    uses: BTreeMap<SecurityGroupId, usize>,
}

#[derive(Debug, Clone, PartialEq)]
struct KnownInterface {
    groups: Vec<SecurityGroupId>,
    told: Arc<Value>,
}

impl Known {
    /// In the form that machines read.
    fn table(&self) -> Value {
        let groups: Map<String, Value> = self.groups.iter().map(|(id, told)| (id.to_string(), Value::clone(told))).collect();
        let interfaces: Map<String, Value> = self.interfaces.iter().map(|(id, one)| (id.to_string(), Value::clone(&one.told))).collect();
        json!({"groups": groups, "interfaces": interfaces})
    }

    /// Looks at what is dirty, and says what is otherwise in the form that machines read; `None`: nothing. Pure.
    fn update(&mut self, state: &State, dirty: Dirty) -> Option<Value> {
        let Dirty { interfaces, groups: mut dirty } = dirty;
        let resources = state.vpc_resources();
        let (mut changed, mut regrouped) = (Map::new(), Map::new());
        for id in interfaces {
            let now = resources.interface(id).map(|one| KnownInterface { groups: one.groups.clone(), told: Arc::new(told(state, one)) });
            if self.interfaces.get(&id) == now.as_ref() {
                continue;
            }
            changed.insert(id.to_string(), now.as_ref().map_or(Value::Null, |now| Value::clone(&now.told)));
            for group in now.iter().flat_map(|now| &now.groups) {
                *self.uses.entry(*group).or_default() += 1;
                dirty.insert(*group);
            }
            let before = match now {
                Some(now) => self.interfaces.insert(id, now),
                None => self.interfaces.remove(&id),
            };
            for group in before.iter().flat_map(|before| &before.groups) {
                dirty.insert(*group);
                if let Some(count) = self.uses.get_mut(group) {
                    *count -= 1;
                    if *count == 0 {
                        self.uses.remove(group);
                    }
                }
            }
        }
        for id in dirty {
            let used = resources.group(id).filter(|_| self.uses.contains_key(&id));
            let now = used.map(|group| Arc::new(rules(group)));
            if self.groups.get(&id) == now.as_ref() {
                continue;
            }
            regrouped.insert(id.to_string(), now.as_ref().map_or(Value::Null, |now| Value::clone(now)));
            match now {
                Some(now) => drop(self.groups.insert(id, now)),
                None => drop(self.groups.remove(&id)),
            }
        }
        let is_otherwise = !changed.is_empty() || !regrouped.is_empty();
        is_otherwise.then(|| json!({"groups": regrouped, "interfaces": changed}))
    }
}

fn told(state: &State, one: &NetworkInterface) -> Value {
    let task = one.attachment.as_ref().and_then(|attachment| attachment.task).and_then(|id| state.task(id));
    let instance = task.and_then(|task| state.instance(task.container_instance)).and_then(|instance| instance.host_ipv4());
    let groups: Vec<_> = one.groups.iter().map(ToString::to_string).collect();
    json!({"addresses": [IpAddr::V4(one.private_address)], "groups": groups, "instance": instance})
}

fn rules(group: &SecurityGroup) -> Value {
    let of = |direction: Direction| -> Vec<Value> {
        let permissions = group.rules.iter().map(|rule| &rule.permission).filter(|permission| permission.direction == direction);
        permissions.map(rule).collect()
    };
    json!({"ingress": of(Direction::Ingress), "egress": of(Direction::Egress)})
}

fn rule(permission: &Permission) -> Value {
    let peer = match permission.peer {
        Peer::Ipv4(cidr) => json!({"range": cidr.to_string()}),
        Peer::Ipv6(cidr) => json!({"range": cidr.to_string()}),
        Peer::Group(id) => json!({"group": id.to_string()}),
    };
    json!({"traffic": traffic(permission.traffic), "peer": peer})
}

fn traffic(traffic: Traffic) -> Value {
    let (first, last) = traffic.ports.unwrap_or((0, 65_535));
    // Of ICMP -1 stands for any.
    let some = |number: i32| traffic.ports.and_then(|_| u8::try_from(number).ok());
    match traffic.protocol {
        IpProtocol::All => json!("all"),
        IpProtocol::Tcp => json!({"tcp": [first, last]}),
        IpProtocol::Udp => json!({"udp": [first, last]}),
        IpProtocol::Icmp => json!({"icmp": {"kind": some(first), "code": some(last)}}),
        IpProtocol::Icmpv6 => json!({"icmpv6": {"kind": some(first), "code": some(last)}}),
        IpProtocol::Other(number) => json!({"other": number}),
    }
}

#[cfg(test)]
pub(super) mod tests;
