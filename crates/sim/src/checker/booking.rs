//! Nothing on an instance is given away twice.

use std::collections::BTreeMap;

use berth_model::ids::TaskId;
use berth_model::task::{Task, TaskStatus};

use super::{Model, Verdict, broken};

impl Model {
    pub(super) fn book(&mut self, task: &Task) -> Verdict {
        let booked = self.booked.entry(task.container_instance).or_default();
        if task.last_status == TaskStatus::Stopped {
            booked.remove(&task.id);
            return Ok(());
        }
        if !booked.insert(task.id) {
            return Ok(());
        }
        let Some(instance) = self.instances.get(&task.container_instance) else { return Ok(()) };
        let (mut cpu, mut memory) = (0, 0);
        let mut ports: BTreeMap<(bool, u16), TaskId> = BTreeMap::new();
        for holder in booked.iter().filter_map(|id| self.tasks.get(id)) {
            cpu += holder.demand.cpu;
            memory += holder.demand.memory;
            let tcp = holder.demand.ports_tcp.iter().map(|port| (false, *port));
            for port in tcp.chain(holder.demand.ports_udp.iter().map(|port| (true, *port))) {
                if let Some(other) = ports.insert(port, holder.id) {
                    let text = format!("port {} of instance {} is booked by {other} and {}", port.1, instance.id, holder.id);
                    return broken("no double booking", text);
                }
            }
        }
        if cpu > instance.registered.cpu || memory > instance.registered.memory {
            let text = format!(
                "instance {} has {} CPU and {} MiB, and with task {} {cpu} and {memory} are booked",
                instance.id, instance.registered.cpu, instance.registered.memory, task.id
            );
            return broken("no double booking", text);
        }
        Ok(())
    }
}
