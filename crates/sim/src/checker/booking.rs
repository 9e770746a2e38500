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
        // What a task takes never changes, which is a promise with a checker of its own.
        if booked.insert(task.id, task.demand.clone()).is_some() {
            return Ok(());
        }
        let Some(instance) = self.instances.get(&task.container_instance) else { return Ok(()) };
        let (mut cpu, mut memory) = (0, 0);
        let mut ports: BTreeMap<(bool, u16), TaskId> = BTreeMap::new();
        for (holder, demand) in booked.iter() {
            cpu += demand.cpu;
            memory += demand.memory;
            let tcp = demand.ports_tcp.iter().map(|port| (false, *port));
            for port in tcp.chain(demand.ports_udp.iter().map(|port| (true, *port))) {
                if let Some(other) = ports.insert(port, *holder) {
                    let text = format!("port {} of instance {} is booked by {other} and {holder}", port.1, instance.id);
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
