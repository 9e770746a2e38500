//! Who waits for whom: `dependsOn`, and what links and other containers' volumes imply.

use berth_acs::messages as acs;

use super::{Condition, ContainerPlan, Dependency};

/// The dependencies of each container; `None` if one names nobody or an unknown condition.
pub(super) fn dependencies(task: &acs::Task) -> Option<Vec<Vec<Dependency>>> {
    task.containers.iter().map(|container| of(task, container)).collect()
}

fn of(task: &acs::Task, container: &acs::Container) -> Option<Vec<Dependency>> {
    let place = |name: &str| task.containers.iter().position(|other| other.name == name);
    let mut all = Vec::new();
    for dependency in &container.depends_on {
        let condition = match dependency.condition.as_str() {
            // Nothing is made here long before it is started, so what waits for the making waits for the start.
            "START" | "CREATE" => Condition::Start,
            "COMPLETE" => Condition::Complete,
            "SUCCESS" => Condition::Success,
            "HEALTHY" => Condition::Healthy,
            _ => return None,
        };
        all.push(Dependency { on: place(&dependency.container_name)?, condition });
    }
    let linked = container.links.iter().map(|link| super::links::names(link).0);
    let implied = linked.chain(container.volumes_from.iter().map(|from| from.source_container.as_str()));
    // One that names nobody is refused where the container is planned, by name.
    for on in implied.filter_map(place) {
        // Whatever else is said of it includes that it was started.
        if !all.iter().any(|other| other.on == on) {
            all.push(Dependency { on, condition: Condition::Start });
        }
    }
    Some(all)
}

/// Takes containers away whose dependencies are all gone, until none is left or none can go.
pub(super) fn has_circle(containers: &[ContainerPlan]) -> bool {
    let mut gone = vec![false; containers.len()];
    loop {
        let free = (0..containers.len()).find(|i| !gone[*i] && containers[*i].depends_on.iter().all(|dependency| gone[dependency.on]));
        match free {
            Some(index) => gone[index] = true,
            None => return gone.contains(&false),
        }
    }
}
