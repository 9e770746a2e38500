//! What a session tells its agent of interfaces that are not its own tasks': the table of security groups and of who is where.

use std::sync::Arc;

use berth_acs::ServerFrame;
use berth_acs::messages::NetworkTableMessage;
use serde_json::{Value, json};

use super::Session;
use crate::interfaces::Tables;

/// What an agent announces that gives tasks interfaces.
const TASK_ENI: &str = "ecs.capability.task-eni";

impl Session {
    /// It gives tasks interfaces of Berth's making, which needs an agent that knows the table of security groups.
    pub(super) fn gives_interfaces(&self) -> bool {
        let state = self.control.shared.store.state();
        self.machine.is_berths() && state.instance(self.instance).is_some_and(|instance| instance.attributes.contains_key(TASK_ENI))
    }

    /// The table of security groups and interfaces, with the address at which others reach this machine: without it the machine makes no
    /// ways to tasks of others. A newer one is worth more than one that was lost, so none is sent again.
    pub(super) fn network_table(&mut self, table: &Value) -> ServerFrame {
        let scope = &self.control.shared.environment.scope;
        let (cluster_arn, container_instance_arn) = (scope.cluster(&self.cluster), scope.container_instance(&self.cluster, self.instance));
        self.last_table += 1;
        let mut table = table.clone();
        let address = self.control.shared.store.state().instance(self.instance).and_then(|instance| instance.host_ipv4());
        if let Some(address) = address {
            table["machine"] = json!({ "address": address });
        }
        ServerFrame::NetworkTable(NetworkTableMessage {
            message_id: format!("network-table-{}", self.last_table),
            cluster_arn,
            container_instance_arn,
            generated_at: Some(self.now()),
            table,
        })
    }
}

/// The next table of interfaces; never one for an agent that gives none.
pub(super) async fn next(tables: &mut Option<Tables>) -> Arc<Value> {
    match tables {
        Some(tables) => tables.next().await,
        None => std::future::pending().await,
    }
}
