//! Things broken on purpose: whoever trusts the checkers wants to have seen each of them fire.

use std::sync::Arc;
use std::time::Duration;

use berth_model::container_instance::ContainerInstanceStatus;
use berth_model::ids::TaskId;
use berth_model::record::Record;
use berth_model::service::ServiceEvent;
use berth_model::task::{DesiredStatus, Task, TaskStatus};
use berth_store::Transaction;

use crate::server::scope;
use crate::world::{Sabotage, World};

/// Waits for the occasion and breaks it.
pub async fn run(world: Arc<World>, sabotage: Sabotage) {
    loop {
        tokio::select! {
            biased;
            () = world.desk.over.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
        if attempt(&world, sabotage).await {
            world.trace.line(format_args!("sabotage: {sabotage:?}"));
            return;
        }
    }
}

/// Another task like this one, as if it had just been placed where there is room.
fn fresh(world: &World, like: &Task) -> Option<Task> {
    let instances = world.checker.instances();
    let instance = instances.iter().find(|i| i.agent_connected && i.status == ContainerInstanceStatus::Active)?;
    Some(Task {
        id: TaskId(1),
        container_instance: instance.id,
        demand: Default::default(),
        desired_status: DesiredStatus::Running,
        last_status: TaskStatus::Pending,
        ..like.clone()
    })
}

async fn attempt(world: &World, sabotage: Sabotage) -> bool {
    let tasks = world.checker.tasks();
    let running = tasks.iter().find(|task| task.last_status == TaskStatus::Running);
    let mut transaction = Transaction::new();
    match sabotage {
        Sabotage::LostWrite => {
            let Some(disk) = world.servers[0].home.disk() else { return false };
            disk.lose_a_task();
            return true;
        }
        Sabotage::DoubleStart => {
            if let Some(host) = world.hosts.lock().first() {
                host.machine.start_twice();
            }
            return true;
        }
        Sabotage::StatusBack => {
            let Some(task) = running else { return false };
            transaction.put(Task { last_status: TaskStatus::Pending, ..(**task).clone() });
        }
        Sabotage::DoubleBooking => {
            let Some(task) = running else { return false };
            for number in 1..=100 {
                let copy =
                    Task { id: TaskId(number), last_status: TaskStatus::Pending, service: None, client_token: None, ..(**task).clone() };
                transaction.put(copy);
            }
        }
        Sabotage::FalseEvent => {
            let services = world.checker.services();
            let Some(service) = services.iter().find(|service| service.desired_count > 0 && !world.checker.was_steady(service)) else {
                return false;
            };
            transaction.put(ServiceEvent {
                cluster: service.cluster.clone(),
                service: service.name.clone(),
                number: u64::MAX,
                id: String::new(),
                created_at: service.created_at,
                message: format!("(service {}) has reached a steady state.", service.name),
            });
        }
        Sabotage::TokenTwice => {
            let Some(task) = tasks.iter().find(|task| task.client_token.is_some() && task.service.is_none()) else { return false };
            let Some(fresh) = fresh(world, task) else { return false };
            transaction.put(fresh);
        }
        Sabotage::Stray => {
            if let Some(host) = world.hosts.lock().iter().find(|host| !host.is_lost()) {
                host.machine.run_stray();
            }
            return true;
        }
        Sabotage::Silence => {
            let Some(task) = tasks.iter().find(|task| task.service.is_some()) else { return false };
            let Some(fresh) = fresh(world, task) else { return false };
            transaction.put(Task { client_token: None, ..fresh });
        }
        Sabotage::Failure => {
            world.servers.iter().for_each(|server| server.fail_once());
            return true;
        }
        Sabotage::Ghost => {
            let hosts = world.hosts.lock().clone();
            let instances = world.checker.instances();
            let Some(host) = hosts.iter().find(|host| host.is_lost()) else {
                if let Some(host) = hosts.iter().find(|host| !host.arn().is_empty()) {
                    host.lose().await;
                }
                return false;
            };
            let arn = host.arn();
            let instance = instances.iter().find(|i| scope().container_instance(&i.cluster, i.id) == arn);
            // Only once the server has seen it go: it would have the last word otherwise.
            let Some(instance) = instance.filter(|i| !i.agent_connected && i.status == ContainerInstanceStatus::Active) else {
                return false;
            };
            let mut ghost = (**instance).clone();
            ghost.join(ghost.connection);
            transaction.put(ghost);
        }
        Sabotage::Undead => {
            let Some(store) = world.servers[0].store() else { return false };
            let Some(task) = running else { return false };
            world.servers[0].crash();
            transaction.touch(Record::Task(Arc::clone(task)).key());
            let _ = store.commit(transaction).await;
            world.servers[0].ensure().await;
            return true;
        }
        Sabotage::LostTask => {
            let Some(task) = tasks.first() else { return false };
            transaction.delete(Record::Task(Arc::clone(task)).key());
        }
    }
    world.servers[0].commit(transaction).await.is_ok_and(|outcome| outcome.is_ok())
}
