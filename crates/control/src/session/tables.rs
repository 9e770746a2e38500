//! What a session tells its agent beyond its own tasks: what names answer, and the table of security groups and of who is where.

use berth_acs::ServerFrame;
use berth_acs::messages::{NetworkTableMessage, TableKind};
use serde_json::{Value, json};

use super::Session;
use crate::editions::News;
use crate::{interfaces, names};

/// What an agent announces that gives tasks interfaces.
const TASK_ENI: &str = "ecs.capability.task-eni";

/// The tables that an agent is told of; never one that it has no use for.
pub(super) struct Tables {
    names: Option<names::Tables>,
    network: Option<interfaces::Tables>,
}

/// What there is to be told.
pub(super) enum TableNews {
    /// Of names, as frames.
    Names(Vec<std::sync::Arc<[ServerFrame]>>),
    /// Of interfaces.
    Network(News<interfaces::Whole, std::sync::Arc<Value>>),
}

impl Tables {
    /// Waits for a newer table, of whichever kind. Cancel-safe.
    pub(super) async fn next(&mut self) -> TableNews {
        let (names, network) = (&mut self.names, &mut self.network);
        tokio::select! {
            biased;
            frames = async {
                match names {
                    Some(tables) => tables.next().await,
                    None => std::future::pending().await,
                }
            } => TableNews::Names(frames),
            news = async {
                match network {
                    Some(tables) => tables.next().await,
                    None => std::future::pending().await,
                }
            } => TableNews::Network(news),
        }
    }

    /// The agent misses something: it is told of the whole of this one.
    pub(super) fn forget(&mut self, table: TableKind) {
        match table {
            TableKind::Names => self.names.iter_mut().for_each(names::Tables::forget),
            TableKind::Network => self.network.iter_mut().for_each(interfaces::Tables::forget),
        }
    }
}

impl Session {
    /// The tables that this session's agent is told of.
    pub(super) fn tables(&self) -> Tables {
        let (query, shared) = (self.machine.query(), &self.control.shared);
        let takes_changes = query.berth_differences;
        Tables {
            names: query.berth_dns.then(|| shared.names.subscribe(takes_changes)),
            network: self.gives_interfaces().then(|| shared.interfaces.subscribe(takes_changes)),
        }
    }

    /// It gives tasks interfaces of Berth's making, which needs an agent that knows the table of security groups.
    fn gives_interfaces(&self) -> bool {
        let state = self.control.shared.store.state();
        self.machine.is_berths() && state.instance(self.instance).is_some_and(|instance| instance.attributes.contains_key(TASK_ENI))
    }

    /// The table of security groups and interfaces, with the address at which others reach this machine, without which the machine makes no
    /// ways to tasks of others; or what changed of it. `None`: the address is another now, which only a whole table says. None is sent again: who
    /// misses a change asks for the whole.
    pub(super) fn network_table(&mut self, news: News<interfaces::Whole, std::sync::Arc<Value>>) -> Option<Vec<ServerFrame>> {
        let address = self.control.shared.store.state().instance(self.instance).and_then(|instance| instance.host_ipv4());
        match news {
            News::Whole(revision, whole) => {
                self.told_address = address;
                let mut table = whole.table();
                if let Some(address) = address {
                    table["machine"] = json!({ "address": address });
                }
                Some(vec![self.network_frame(revision, None, table)])
            }
            News::Changes(_) if self.told_address != address => None,
            News::Changes(changes) => {
                Some(changes.iter().map(|one| self.network_frame(one.revision, Some(one.base), (*one.content).clone())).collect())
            }
        }
    }

    fn network_frame(&mut self, revision: u64, base: Option<u64>, table: Value) -> ServerFrame {
        let scope = &self.control.shared.environment.scope;
        let (cluster_arn, container_instance_arn) = (scope.cluster(&self.cluster), scope.container_instance(&self.cluster, self.instance));
        self.last_table += 1;
        ServerFrame::NetworkTable(NetworkTableMessage {
            message_id: format!("network-table-{}", self.last_table),
            cluster_arn,
            container_instance_arn,
            generated_at: Some(self.now()),
            revision,
            base,
            table,
        })
    }
}
