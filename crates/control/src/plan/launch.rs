//! What would come of RunTask.

use berth_store::Transaction;

use super::fleet::Fleet;
use super::{FleetChange, Forecast, Step};
use crate::environment::Environment;
use crate::launch::TaskTemplate;
use crate::placing::{LaunchError, Launched, Means, Refused, Where, prepare};
use crate::why::{Sight, count as counted, refused};

/// Prepares the launch as the cluster's owner would, and commits nothing.
///
/// # Errors
/// [`LaunchError`], where the launch would fail as a whole.
pub(crate) fn launch(
    sight: &Sight<'_>,
    environment: &Environment,
    template: &TaskTemplate,
    count: u32,
    change: &FleetChange,
) -> Result<Forecast, LaunchError> {
    let mut fleet = Fleet::new(sight.state, sight.scope, &template.cluster, change, sight.now);
    let means = Means { index: &mut fleet.index, state: sight.state, environment, has_peers: false };
    let Launched { tasks, refused: refusals } = prepare(means, template, &Where::Anywhere(count), &mut Transaction::new())?;
    for task in &tasks {
        fleet.started(task.container_instance, &template.demand);
    }
    let (mut by_rule, mut empty) = (Vec::new(), Vec::new());
    for one in refusals {
        match one {
            Refused::ByRule(refusal) => by_rule.push(refusal),
            Refused::EmptyProvider(provider) => empty.push(provider),
            Refused::Missing(_) => {}
        }
    }
    let reasons = refused(&by_rule, &empty, &|id| fleet.name(id), &|id| fleet.arn(id));
    let placed = u32::try_from(tasks.len()).unwrap_or(u32::MAX);
    let steps = if placed > 0 { vec![Step { after_seconds: 0, start: placed, stop: 0, tasks: placed }] } else { Vec::new() };
    let (instances, other_instances) = fleet.report();
    Ok(Forecast {
        action: "RunTask",
        summary: format!("{placed} of {} of {} would find a place", counted(count as usize, "task"), template.definition.id),
        fits: placed == count,
        steps,
        instances,
        other_instances,
        reasons,
    })
}
