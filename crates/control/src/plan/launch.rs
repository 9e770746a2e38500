//! What would come of RunTask.

use berth_model::arn::Scope;
use berth_store::{Store, Transaction};

use super::fleet::Fleet;
use super::{FleetChange, Forecast, Step};
use crate::environment::Environment;
use crate::interfaces::Interfaces;
use crate::launch::TaskTemplate;
use crate::placing::{LaunchError, Means, Refused, Where, prepare};
use crate::why::{count as counted, no_capacity, refused};

/// Tasks that are prepared while the state is held, on which commits wait: as many as one RunTask takes.
const AT_ONCE: u32 = 10;

/// Prepares launches as the cluster's owner would, one RunTask after the other, and commits nothing.
///
/// # Errors
/// [`LaunchError`], where the launch would fail as a whole.
pub(crate) fn launch(
    store: &Store,
    environment: &Environment,
    template: &TaskTemplate,
    count: u32,
    change: &FleetChange,
) -> Result<Forecast, LaunchError> {
    let scope: &Scope = &environment.scope;
    let mut fleet = Fleet::new(&store.state(), scope, (&template.cluster, template.launch_type), change, environment.now());
    let (mut placed, mut interfaces) = (0, Interfaces::default());
    let (mut by_rule, mut empty, mut without) = (Vec::new(), Vec::new(), None);
    let mut left = count;
    while left > 0 {
        let number = left.min(AT_ONCE);
        left -= number;
        let launched = {
            let state = store.state();
            let means = Means { index: &mut fleet.index, state: &state, interfaces: &mut interfaces, environment, has_peers: false };
            prepare(means, template, &Where::Anywhere(number), &mut Transaction::new())?
        };
        for task in &launched.tasks {
            fleet.started(task.container_instance, &template.demand);
        }
        placed += u32::try_from(launched.tasks.len()).unwrap_or(u32::MAX);
        if launched.tasks.len() < number as usize {
            without = launched.refused.iter().find_map(|one| if let Refused::NoFargate(rule) = one { Some(rule.clone()) } else { None });
            by_rule = launched.refused.iter().filter_map(Refused::rule).cloned().collect();
            empty = launched
                .refused
                .iter()
                .filter_map(|one| if let Refused::EmptyProvider(name) = one { Some(name.clone()) } else { None })
                .collect();
            // Tasks that are alike all find no place then; those of another provider still may.
            if template.capacity_provider_strategy.is_empty() || launched.tasks.is_empty() {
                break;
            }
        }
    }
    let mut reasons = refused(&by_rule, &empty, &|id| fleet.name(id), &|id| fleet.arn(id));
    reasons.extend(without.map(|rule| no_capacity(rule.as_ref())));
    let steps = if placed > 0 { vec![Step { after_seconds: 0, start: placed, stop: 0, tasks: placed }] } else { Vec::new() };
    let (instances, other_instances) = fleet.report();
    Ok(Forecast {
        action: "RunTask",
        summary: format!("{placed} of {} of {} would find a place", counted(count as usize, "task"), template.definition.id),
        fits: placed == count,
        steps,
        stages: Vec::new(),
        instances,
        other_instances,
        reasons,
    })
}
