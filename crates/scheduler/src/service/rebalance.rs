//! Moving tasks of a steady service to availability zones that have fewer of them: others are started there first, and as they are healthy
//! as many stop where there are most. It never stops a healthy task that the desired count needs, and waits for whatever else the service
//! needs.
//!
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-rebalancing.html>

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use berth_model::service::{Deployment, DeploymentController, Rebalancing, RolloutState, SchedulingStrategy, Service};
use berth_model::task::LaunchType;
use berth_model::time::UnixMillis;

use super::believed::believed;
use super::plan::{count, earliest, healthy, stop_tasks};
use super::{ServicePlan, ServiceView, TaskView, surplus};
use crate::placement::{SpreadField, Strategy};

/// The attribute that is an instance's availability zone.
pub const ZONE: &str = "ecs.availability-zone";

/// How the event begins that tells of a zone without room.
pub const NO_ROOM_IN: &str = "is unable to place a task in ";

/// How long tasks that were started to balance zones may take to become healthy; then they are a surplus like any other. In minutes: an
/// image that is pulled for longer than this is as good as none.
const PATIENCE_MINUTES: i64 = 30;
/// The delay after tasks were started that came to nothing; it doubles with each further time, up to ECS's longest delay between starts.
const FIRST_DELAY_MILLIS: i64 = 15_000;
const LONGEST_DELAY_MILLIS: i64 = 27 * 60 * 1_000;
/// ECS suppresses a repeated event for six hours.
const REPEAT_AFTER_MILLIS: i64 = 6 * 60 * 60 * 1_000;

/// The zones that a service's tasks may be in.
#[derive(Debug, Clone, Copy, Default)]
pub struct Zones<'a> {
    /// Those with an instance that takes tasks and meets the constraints. Empty: not known, and nothing is moved.
    pub open: &'a [String],
    /// Those of them that were just found to have no room.
    pub full: &'a [String],
}

/// Why a service's zones are not balanced, whatever `availabilityZoneRebalancing` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ineligible {
    /// It is a DAEMON service.
    Daemon,
    /// Its tasks run outside AWS.
    LaunchType,
    /// Its first placement strategy is another.
    Strategy,
    /// There may never be a task more.
    MaximumPercent,
    /// It is told which zones to use.
    Constraint,
}

impl fmt::Display for Ineligible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Daemon => "the DAEMON scheduling strategy",
            Self::LaunchType => "the EXTERNAL launch type",
            Self::Strategy => "a first placementStrategy other than spread over attribute:ecs.availability-zone",
            Self::MaximumPercent => "a maximumPercent of 100 or less",
            Self::Constraint => "placementConstraints on attribute:ecs.availability-zone",
        })
    }
}

/// Why this service's zones cannot be balanced; `strategies` are its own, the default filled in.
#[must_use]
pub fn ineligible(service: &Service, strategies: &[Strategy]) -> Option<Ineligible> {
    let is_zone = |field: &SpreadField| matches!(field, SpreadField::Attribute(name) if name == ZONE);
    let names_zone = |text: &String| text.contains(ZONE);
    match () {
        () if service.scheduling_strategy == SchedulingStrategy::Daemon => Some(Ineligible::Daemon),
        () if service.launch_type == LaunchType::External => Some(Ineligible::LaunchType),
        () if !matches!(strategies.first(), Some(Strategy::Spread(field)) if is_zone(field)) => Some(Ineligible::Strategy),
        () if service.percentages.maximum <= 100 => Some(Ineligible::MaximumPercent),
        () if service.settings.placement_constraints.iter().any(|own| own.expression.as_ref().is_some_and(names_zone)) => {
            Some(Ineligible::Constraint)
        }
        () => None,
    }
}

/// Are the zones of this service to be looked at, as far as itself can say? Not under an EXTERNAL controller, and not while a deployment
/// goes on.
#[must_use]
pub fn is_wanted(service: &Service, strategies: &[Strategy]) -> bool {
    let is_over = |primary: &Deployment| primary.rollout_state == RolloutState::Completed;
    service.settings.availability_zone_rebalancing.as_deref() == Some("ENABLED")
        && service.controller == DeploymentController::Ecs
        && service.deployments.len() == 1
        && service.primary().is_some_and(is_over)
        && ineligible(service, strategies).is_none()
}

/// What is known from before, if it is about the desired count of now.
fn known<'a>(view: &ServiceView<'a>) -> Option<&'a Rebalancing> {
    let known = view.service.primary()?.progress.rebalancing.as_ref();
    known.filter(|known| known.desired == view.service.desired_count && is_wanted(view.service, view.strategies))
}

/// What the service is to remember from now on.
fn remember(plan: &mut ServicePlan, rebalancing: Option<Rebalancing>) {
    if let Some(primary) = plan.deployments.first_mut() {
        primary.progress.rebalancing = rebalancing;
    }
}

/// A service with more tasks than it wants, of which nothing else is to be said: if some of them were started to balance zones, waits until
/// all are healthy, and then stops as many. `false`: they are a surplus like any other.
pub(super) fn finish(view: &ServiceView<'_>, tasks: &[&TaskView], now: UnixMillis, plan: &mut ServicePlan) -> bool {
    let Some((known, tried_at)) = known(view).and_then(|known| Some((known, known.tried_at?))) else { return false };
    let deadline = tried_at.plus_millis(PATIENCE_MINUTES * view.minute_millis);
    if known.attempts == 0 || deadline <= now {
        return false;
    }
    let waits = tasks.iter().filter(|task| task.lost_at.is_some() || !healthy(task, view.healthy_after_millis, now).0).count();
    if waits > 0 {
        let seen = tasks.iter().filter_map(|task| healthy(task, view.healthy_after_millis, now).1).min();
        plan.wake_at = earliest(earliest(plan.wake_at, seen), Some(deadline));
        plan.why.push(format!("it moves tasks to other availability zones: {waits} are not healthy yet, and as many others stop then"));
        return true;
    }
    let free: Vec<_> = tasks.iter().copied().filter(|task| !task.is_protected(now)).collect();
    let surplus = count(tasks) - view.service.desired_count;
    let stops = surplus::pick(&free, tasks, surplus, (view.strategies, view.machine), |_| true);
    if stops.is_empty() {
        plan.why.push("protected tasks hold up the balancing of availability zones".to_owned());
        return true;
    }
    plan.freed = stops.iter().filter_map(|task| Some((task.zone.as_deref()?.to_owned(), task.id))).collect();
    stop_tasks(plan, stops);
    remember(plan, Some(Rebalancing { attempts: 0, ..known.clone() }));
    true
}

/// A zone as the plan sees it.
#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    tasks: u32,
    /// Those of them that may be stopped.
    free: u32,
}

/// How many tasks are in each zone that counts: those that tasks may go to, and those that they are in.
fn cells<'a>(view: &'a ServiceView<'_>, tasks: &'a [&TaskView], now: UnixMillis) -> BTreeMap<&'a str, Cell> {
    let mut cells: BTreeMap<&str, Cell> = view.zones.open.iter().map(|zone| (zone.as_str(), Cell::default())).collect();
    for task in tasks {
        if let Some(zone) = task.zone.as_deref() {
            let cell = cells.entry(zone).or_default();
            cell.tasks += 1;
            cell.free += u32::from(!task.is_protected(now));
        }
    }
    cells
}

/// Which zones get how many tasks more. Each in turn goes from where most are that may be stopped to where fewest are, as long as that
/// makes the two more alike: in the end no two differ by more than one.
fn moves(mut cells: BTreeMap<&str, Cell>, takes: &BTreeSet<&str>, most: u32) -> Vec<(String, u32)> {
    let mut moves: BTreeMap<&str, u32> = BTreeMap::new();
    for _ in 0..most {
        let to = cells.iter().filter(|(zone, _)| takes.contains(*zone)).min_by_key(|(_, cell)| cell.tasks);
        let from = cells.iter().filter(|(_, cell)| cell.free > 0).max_by_key(|(_, cell)| cell.tasks);
        let (Some((to, least)), Some((from, greatest))) = (to, from) else { break };
        if greatest.tasks < least.tasks + 2 {
            break;
        }
        let (to, from) = (*to, *from);
        if let Some(cell) = cells.get_mut(to) {
            cell.tasks += 1;
        }
        if let Some(cell) = cells.get_mut(from) {
            cell.tasks -= 1;
            cell.free -= 1;
        }
        *moves.entry(to).or_default() += 1;
    }
    moves.into_iter().map(|(zone, more)| (zone.to_owned(), more)).collect()
}

/// "3 tasks in a, 0 UNIT in b, and 1 UNIT in c", as ECS lists them.
fn listed(cells: &BTreeMap<&str, Cell>, unit: &str) -> String {
    let mut parts: Vec<_> = cells.iter().map(|(zone, cell)| format!("{}{unit} in {zone}", cell.tasks)).collect();
    if let Some((zone, cell)) = cells.first_key_value() {
        parts[0] = format!("{} tasks in {zone}", cell.tasks);
    }
    let last = parts.pop().unwrap_or_default();
    match parts.as_slice() {
        [] => last,
        [one] => format!("{one} and {last}"),
        more => format!("{}, and {last}", more.join(", ")),
    }
}

/// What keeps tasks from being moved.
enum Obstacle {
    /// Time alone, or something that is told of elsewhere.
    Wait(String, Option<UnixMillis>),
    /// Something that the user is told of.
    Told(String),
}

/// A service that has what it should have: looks at its zones, and starts tasks where there are too few.
pub(super) fn begin(view: &ServiceView<'_>, tasks: &[&TaskView], now: UnixMillis, plan: &mut ServicePlan) {
    if !is_wanted(view.service, view.strategies) {
        remember(plan, None);
        return;
    }
    let cells = cells(view, tasks, now);
    // One that takes no tasks, and has none, is none.
    if view.zones.open.is_empty() || cells.len() < 2 {
        return;
    }
    let least = cells.iter().filter(|(zone, _)| view.zones.open.iter().any(|open| open == *zone)).map(|(_, cell)| cell.tasks).min();
    let most = cells.values().map(|cell| cell.tasks).max();
    if most.unwrap_or(0) <= least.unwrap_or(0) + 1 {
        // Where a zone with few of them takes no tasks now there is nothing to be done, but nothing is balanced either.
        let is_even = most.unwrap_or(0) <= cells.values().map(|cell| cell.tasks).min().unwrap_or(0) + 1;
        if is_even && view.service.primary().is_some_and(|primary| primary.progress.rebalancing.is_some()) {
            plan.announcements.push(format!("is AZ balanced with {}.", listed(&cells, " tasks")));
        }
        remember(plan, None);
        return;
    }
    let known = known(view);
    let attempts = known.map_or(0, |known| known.attempts);
    let next = match steps(view, tasks, &cells, now) {
        Err(Obstacle::Wait(why, at)) => {
            plan.wake_at = earliest(plan.wake_at, at);
            plan.why.push(format!("availability zones are not balanced, with {}: {why}", listed(&cells, "")));
            return;
        }
        Err(Obstacle::Told(text)) => {
            plan.why.push(format!("availability zones are not balanced, with {}: it {text}", listed(&cells, "")));
            let before = known.and_then(|known| known.told.as_ref());
            if before.is_some_and(|(told, at)| *told == text && now.since(*at) < REPEAT_AFTER_MILLIS) {
                return;
            }
            let tried_at = known.and_then(|known| known.tried_at);
            let next = Rebalancing { desired: view.service.desired_count, attempts, tried_at, told: Some((text.clone(), now)) };
            (next, Some(text))
        }
        Ok(moves) => {
            plan.spread = moves;
            (Rebalancing { desired: view.service.desired_count, attempts: attempts + 1, tried_at: Some(now), told: None }, None)
        }
    };
    if known.is_none() {
        plan.announcements.push(format!("is not AZ balanced with {}. AZ Rebalancing in progress.", listed(&cells, "")));
    }
    plan.announcements.extend(next.1);
    remember(plan, Some(next.0));
}

/// The tasks to start, by zone; at least one.
fn steps(
    view: &ServiceView<'_>,
    tasks: &[&TaskView],
    cells: &BTreeMap<&str, Cell>,
    now: UnixMillis,
) -> Result<Vec<(String, u32)>, Obstacle> {
    let service = view.service;
    if tasks.iter().any(|task| task.lost_at.is_some()) {
        return Err(Obstacle::Wait("the agents of some of its container instances are away".to_owned(), None));
    }
    let seen: Vec<_> = tasks.iter().map(|task| healthy(task, view.healthy_after_millis, now)).collect();
    let waits = seen.iter().filter(|(is_healthy, _)| !is_healthy).count();
    if waits > 0 {
        let at = seen.iter().filter_map(|(_, at)| *at).min();
        return Err(Obstacle::Wait(format!("{waits} of its tasks are not healthy yet"), at));
    }
    let maximum = service.percentages.maximum;
    let room = service.percentages.upper(service.desired_count).saturating_sub(service.desired_count);
    if room == 0 {
        return Err(Obstacle::Wait(format!("maximumPercent {maximum} leaves no room for another task"), None));
    }
    if let Some(known) = known(view).filter(|known| known.attempts > 0) {
        // Sixteen doublings are far beyond the longest.
        let delay = (FIRST_DELAY_MILLIS << (known.attempts - 1).min(16)).min(LONGEST_DELAY_MILLIS);
        let not_before = known.tried_at.and_then(|at| believed([at], now)).map(|at| at.plus_millis(delay));
        if let Some(at) = not_before.filter(|at| *at > now) {
            let seconds = (at.since(now) + 999) / 1_000;
            return Err(Obstacle::Wait(format!("tasks that were started for it ended; the next start is in {seconds} s"), Some(at)));
        }
    }
    let takes = |of_full: bool| -> BTreeSet<&str> {
        let has_room = |zone: &&String| of_full || !view.zones.full.contains(zone);
        view.zones.open.iter().filter(has_room).map(String::as_str).collect()
    };
    let found = moves(cells.clone(), &takes(false), room);
    if !found.is_empty() {
        return Ok(found);
    }
    match moves(cells.clone(), &takes(true), 1).first() {
        Some((zone, _)) => Err(Obstacle::Told(format!("{NO_ROOM_IN}{zone} because no container instance met all of its requirements."))),
        None => Err(Obstacle::Told(format!(
            "was unable to AZ Rebalance because (taskSet {}) was unable to scale in due to task protection.",
            service.primary().map(|primary| primary.id.to_string()).unwrap_or_default()
        ))),
    }
}
