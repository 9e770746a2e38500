//! The table that machines enforce: which security groups let what through, and which interfaces there are, at which container instance.
//! Made of the state whenever that may change it, and handed to the sessions of agents that give tasks interfaces.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use berth_model::record::{Key, Record};
use berth_model::vpc::security_group::{Direction, IpProtocol, Peer, Permission, SecurityGroup, Traffic};
use berth_model::vpc::{NetworkInterface, SecurityGroupId};
use berth_store::{Change, State, Store};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::lag::Lag;
use crate::loops::Loops;
use crate::meter::Meter;

/// From one table to the next at the least: a deployment makes interfaces by the hundred, and each agent gets the whole table.
const BETWEEN_TABLES: Duration = Duration::from_millis(20);
/// The largest table that is sent, in bytes, so that with its envelope it stays below the largest frame.
const MAX_TABLE: usize = berth_acs::messages::MAX_FRAME - 16 * 1024;

/// The newest table, for the sessions.
pub(crate) struct Table {
    newest: watch::Sender<Option<Arc<Value>>>,
}

impl Table {
    /// Begins to make tables.
    pub(crate) fn start(store: Store, loops: &Loops, meter: &Meter) -> Self {
        let newest = watch::Sender::new(None);
        loops.spawn(follow(store, newest.clone(), Lag::new(meter.lag_of("interfaces"))));
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
pub(crate) struct Tables(watch::Receiver<Option<Arc<Value>>>);

impl Tables {
    /// Waits for a table that was not yet taken; those that another overtook are passed over.
    pub(crate) async fn next(&mut self) -> Arc<Value> {
        loop {
            if self.0.changed().await.is_err() {
                // The control plane is ending, and its sessions with it.
                return std::future::pending().await;
            }
            if let Some(table) = self.0.borrow_and_update().clone() {
                return table;
            }
        }
    }
}

async fn follow(store: Store, newest: watch::Sender<Option<Arc<Value>>>, mut lag: Lag) {
    let mut watcher = store.watch(store.state().revision);
    let mut told = None;
    loop {
        let made = table(&store.state());
        if told.as_ref() != Some(&made) {
            let size = made.to_string().len();
            if size <= MAX_TABLE {
                newest.send_replace(Some(Arc::new(made.clone())));
            } else {
                tracing::error!(
                    size,
                    "interfaces and security groups are too many to be told; container instances go on with those they have"
                );
            }
            told = Some(made);
        }
        tokio::time::sleep(BETWEEN_TABLES).await;
        loop {
            match lag.during(watcher.next()).await {
                Ok(commits) if commits.iter().flat_map(|commit| &commit.changes).any(concerns) => break,
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

fn concerns(change: &Change) -> bool {
    matches!(
        change,
        Change::Put(Record::VpcResource(_) | Record::ContainerInstance(_))
            | Change::Delete(Key::VpcResource(_) | Key::ContainerInstance(_))
    )
}

/// The table of a state, in the form that machines read; always the same of the same. Only groups that an interface has: the others judge
/// nobody. Pure.
fn table(state: &State) -> Value {
    let resources = state.vpc_resources();
    let used: BTreeSet<SecurityGroupId> = resources.interfaces().flat_map(|one| one.groups.iter().copied()).collect();
    let groups: Map<String, Value> =
        used.into_iter().filter_map(|id| resources.group(id)).map(|group| (group.id.to_string(), rules(group))).collect();
    let interfaces: Map<String, Value> = resources.interfaces().map(|one| (one.id.to_string(), known(state, one))).collect();
    json!({"groups": groups, "interfaces": interfaces})
}

fn known(state: &State, one: &NetworkInterface) -> Value {
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
mod tests {
    use super::*;

    #[test]
    fn traffic_is_told_as_machines_read_it() {
        let told = |protocol: &str, from: i32, to: i32| traffic(Traffic::parse(protocol, Some(from), Some(to)).expect("a protocol"));
        assert_eq!(told("-1", 0, 0), json!("all"));
        assert_eq!(told("tcp", 80, 90), json!({"tcp": [80, 90]}));
        assert_eq!(told("udp", 53, 53), json!({"udp": [53, 53]}));
        assert_eq!(told("icmp", 8, -1), json!({"icmp": {"kind": 8, "code": null}}));
        assert_eq!(told("icmpv6", -1, -1), json!({"icmpv6": {"kind": null, "code": null}}));
        assert_eq!(told("47", 1, 1), json!({"other": 47}));
    }
}
