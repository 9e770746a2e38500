//! What is left of a service when the control plane dies: its records as they are stored. Everything that the planner reads is made anew
//! from them.

use berth_model::container_instance::{ContainerInstance, ContainerInstanceStatus};
use berth_model::ids::{ClusterName, ContainerId, ContainerInstanceId};
use berth_model::lifecycle;
use berth_model::needs::Demand;
use berth_model::record::Record;
use berth_model::service::Service;
use berth_model::service_deployment::ServiceDeployment;
use berth_model::task::{Container, ContainerStatus, ServiceMembership, Task, TaskStatus};
use berth_model::time::UnixMillis;
use berth_scheduler::service::{AbsenceRules, FAILED_CHECK, TaskView};

use crate::world::World;

/// As a store reads it back.
fn read_back(record: impl Into<Record>) -> Record {
    let json = serde_json::to_string(&record.into()).expect("a record has a JSON form");
    serde_json::from_str(&json).expect("a record is read back")
}

fn cluster() -> ClusterName {
    ClusterName::parse("c").expect("a name")
}

/// The record of a task that the planner sees so.
fn record_of(view: &TaskView, service: &Service) -> Task {
    let own = service.deployments.iter().find(|own| own.owns(view.deployment));
    let last_status = match view.last {
        TaskStatus::Running => ContainerStatus::Running,
        TaskStatus::Stopped => ContainerStatus::Stopped,
        _ => ContainerStatus::Pending,
    };
    let container =
        Container { last_status, health_status: view.health, ..Container::pending(ContainerId(view.id.0), "main".into(), "web".into()) };
    Task {
        service: Some(ServiceMembership { service: service.name.clone(), deployment: view.deployment }),
        availability_zone: view.zone.clone(),
        demand: Demand { cpu: view.cpu, memory: view.memory, ..Default::default() },
        desired_status: view.desired,
        last_status: view.last,
        containers: vec![container],
        started_at: view.started_at,
        stopped_at: view.stopped_at,
        protected_until: view.protected_until,
        stop_code: view.stop_code,
        stopped_reason: view.failed_check.then(|| FAILED_CHECK.to_owned()),
        ..Task::placed(
            view.id,
            cluster(),
            own.or(service.primary()).expect("it deploys by itself").definition.clone(),
            "service:web".into(),
            view.instance,
            view.created_at,
        )
    }
}

fn instance(id: ContainerInstanceId, is_drained: bool) -> ContainerInstance {
    ContainerInstance {
        id,
        cluster: cluster(),
        ec2_instance_id: None,
        private_address: None,
        status: if is_drained { ContainerInstanceStatus::Draining } else { ContainerInstanceStatus::Active },
        status_reason: None,
        agent_connected: true,
        connection: 1,
        away: None,
        registered: Default::default(),
        attributes: Default::default(),
        registered_at: UnixMillis(0),
        agent: Default::default(),
        tags: Default::default(),
    }
}

/// The control plane dies and comes back: the service and its tasks are read from what was stored, and seen afresh. They have to be what
/// they were.
pub fn restart(world: &mut World) {
    let Record::Service(service) = read_back(world.service.clone()) else { panic!("a service is read back as one") };
    let absence = AbsenceRules { replace_after: Some(1_000), listening_since: world.now };
    let seen = world.tasks.iter().map(|view| {
        let Record::Task(task) = read_back(record_of(view, &service)) else { panic!("a task is read back as one") };
        let Record::ContainerInstance(machine) = read_back(instance(view.instance, world.drained.contains(&view.instance))) else {
            panic!("a container instance is read back as one")
        };
        // Whether it has a check says its definition, which never changes.
        let health = lifecycle::health(&task, |_| view.has_check);
        TaskView::of(&task, view.commit, view.has_check, health, Some(&machine), &absence).expect("it belongs to a service")
    });
    let seen: Vec<_> = seen.collect();
    assert_eq!(seen, world.tasks, "what the planner sees of tasks is all in their records");
    assert_eq!(*service, world.service, "what it decided of the service is all in its record");
    (world.service, world.tasks) = ((*service).clone(), seen);
}

/// The same of a deployment with stages.
#[must_use]
pub fn reread(record: &ServiceDeployment) -> ServiceDeployment {
    let Record::ServiceDeployment(read) = read_back(record.clone()) else { panic!("a service deployment is read back as one") };
    assert_eq!(*read, *record);
    (*read).clone()
}
