//! Why a service is as it is: the plan that its loop would make now, and where a task more would find no place.

use std::collections::BTreeMap;

use berth_model::container_instance::{DEFAULT_INTERFACES, INTERFACES};
use berth_model::fargate::NO_CAPACITY;
use berth_model::ids::{CapacityProviderName, ContainerInstanceId, DeploymentId};
use berth_model::service::{Deployment, RolloutState, Service, ServiceStatus};
use berth_model::task::{DesiredStatus, LaunchType, StopCode, Task, TaskStatus};
use berth_model::time::UnixMillis;
use berth_scheduler::capacity;
use berth_scheduler::placement::{Refusal, Rule};
use berth_scheduler::service::{DaemonPlan, ServicePlan, ServiceView, TaskView, Zones, plan};
use berth_store::Entry;

use super::{Reason, Sight, Why, count, duration, ending, last_words, task};
use crate::alarms;
use crate::fargate::{self, index_for};
use crate::interfaces;
use crate::plan::index_of;
use crate::services::{Part, by_provider, daemon, machine, parts, strategies, template, views, zones};
use crate::shifts;

/// Most starting tasks that are told of one by one.
const MOST_STARTING: usize = 3;
/// Most missing tasks that a place is looked for.
const MOST_TRIED: u32 = 100;
/// Most kinds of failures that are told of.
const MOST_FAILURES: usize = 3;

pub(super) fn why(sight: &Sight<'_>, service: &Entry<Service>) -> Why {
    let tasks: Vec<&Task> = sight.state.tasks_of_service(&service.cluster, &service.name).map(|task| &*task.value).collect();
    let live: Vec<&Task> =
        tasks.iter().copied().filter(|task| !task.is_stopped() && task.desired_status == DesiredStatus::Running).collect();
    let mut reasons = Vec::new();
    if service.status == ServiceStatus::Draining {
        let left = tasks.iter().filter(|task| !task.is_stopped()).count();
        reasons.push(Reason::new("DELETED", format!("it was deleted; {} not stopped yet", count(left, "task"))));
    }
    if service.status == ServiceStatus::Inactive {
        reasons.push(Reason::new("DELETED", "it was deleted"));
    } else {
        reasons.extend(deployments(sight, service, &live));
        reasons.extend(waits(sight, service));
    }
    reasons.extend(starting(sight, &live));
    let failed = failures(&tasks);
    reasons.extend(failed.iter().take(MOST_FAILURES).map(|(text, tasks)| failure(sight, text, tasks)));
    if reasons.is_empty() {
        reasons.push(Reason::new("STEADY", "it has what it should have"));
    }
    let last = failed.iter().filter_map(|(_, tasks)| tasks.last()).max_by_key(|task| task.stopped_at);
    let running = live.iter().filter(|task| task.last_status == TaskStatus::Running).count();
    let pending = live.iter().filter(|task| task.started_at.is_none()).count();
    let pending = if pending > 0 { format!(", {pending} are starting") } else { String::new() };
    Why {
        kind: "service",
        arn: sight.scope.service(&service.cluster, &service.name),
        summary: format!("{running} of {}{} run{pending}", count(service.desired_count as usize, "task"), of(service)),
        reasons,
        containers: last.map(|task| last_words(sight, task)).unwrap_or_default(),
    }
}

/// What its tasks are of, where they are all of one definition.
fn of(service: &Service) -> String {
    match (service.definition(), service.task_sets.len()) {
        (_, 2..) => format!(" in {} task sets", service.task_sets.len()),
        (Some(definition), _) => format!(" of {definition}"),
        (None, _) => String::new(),
    }
}

/// What is under way.
fn deployments(sight: &Sight<'_>, service: &Service, live: &[&Task]) -> Vec<Reason> {
    let Some(primary) = service.primary() else { return Vec::new() };
    if primary.rollout_state == RolloutState::Completed {
        return Vec::new();
    }
    let of = |own: &Deployment| live.iter().filter(|task| task.service.as_ref().is_some_and(|of| own.owns(of.deployment))).count();
    let old: Vec<_> = service.deployments.iter().filter(|deployment| deployment.id != primary.id).collect();
    let old_tasks: usize = old.iter().map(|deployment| of(deployment)).sum();
    let (lower, upper) = (service.percentages.lower(service.desired_count), service.percentages.upper(service.desired_count));
    let mut text = format!("deployment of {}: {} of {} there", primary.definition, of(primary), service.desired_count);
    if !old.is_empty() {
        let names: Vec<_> = old.iter().map(|deployment| deployment.definition.to_string()).collect();
        text.push_str(&format!(", {} of {} still to go", count(old_tasks, "task"), names.join(", ")));
    }
    let rollout = shifts::ongoing(sight.state, service).and_then(|record| record.rollout.as_ref());
    if let Some(rollout) = rollout.filter(|rollout| rollout.blue.is_some()) {
        text.push_str(&format!(
            "; both revisions stay whole until CLEAN_UP, and it entered {} {}",
            rollout.stage,
            sight.ago(rollout.since)
        ));
        return vec![Reason::new("DEPLOYMENT", text)];
    }
    text.push_str(&format!(
        "; never fewer than {lower} healthy (minimumHealthyPercent {}), never more than {upper} (maximumPercent {})",
        service.percentages.minimum_healthy, service.percentages.maximum
    ));
    vec![Reason::new("DEPLOYMENT", text)]
}

/// What its loop would do now, and what keeps it.
fn waits(sight: &Sight<'_>, service: &Entry<Service>) -> Vec<Reason> {
    let tasks = views(sight.state, service, &sight.rules.absence);
    let mut reasons = Vec::new();
    let mut next = None;
    for part in parts(service, tasks) {
        if service.is_daemon() {
            next = daemon(sight, service, &part.tasks, &mut reasons);
            continue;
        }
        let steps = planned(sight, &part);
        let starts = steps.starts(&part.service);
        let mut placement: Vec<_> = starts.iter().flat_map(|(id, start)| placement(sight, &part.service, *id, *start)).collect();
        placement.extend(steps.spread.iter().map(|(zone, start)| {
            Reason::new(
                "STARTS",
                format!("{} about to be started in {zone}, to balance availability zones", count(*start as usize, "task")),
            )
        }));
        let ServicePlan { why, wake_at, .. } = steps;
        let waits = why.into_iter().map(|text| Reason::new("WAITS", text));
        reasons.extend(placement.into_iter().chain(waits).map(|reason| match part.task_set {
            Some(set) => Reason { text: format!("task set {}: {}", set.id, reason.text), ..reason },
            None => reason,
        }));
        next = [next, wake_at].into_iter().flatten().min();
    }
    if let Some(at) = next.filter(|at| *at > sight.now && !reasons.is_empty()) {
        reasons.push(Reason::new("NEXT", format!("it is looked at again in {} at the latest", duration(at.since(sight.now)))));
    }
    reasons
}

/// What its loop would do now; where availability zones are to be balanced, only in those that have room.
fn planned(sight: &Sight<'_>, part: &Part<'_>) -> ServicePlan {
    let launch_type = part.service.launch_type;
    let (strategies, mut index) = (strategies(&part.service), index_for(sight.state, &part.service.cluster, launch_type));
    let open = zones::open(sight.state, &mut index, &part.service, &strategies, sight.constraints);
    let alarms = alarms::watched(sight.state, &part.service);
    let mut full = Vec::new();
    loop {
        let machine = |id| machine(&index, launch_type, id);
        let view = sight.rules.view(&part.service, &part.tasks, false, &strategies, &machine);
        let view = ServiceView { zones: Zones { open: &open, full: &full }, alarms: &alarms, ..view };
        let mut steps = match shifts::ongoing(sight.state, &part.service) {
            // No hook begins here, so its id does not matter.
            Some(record) => shifts::planned(view, record, &|| 0, sight.now).0,
            None => plan(&view, sight.now),
        };
        let (room, none): (Vec<_>, Vec<_>) =
            std::mem::take(&mut steps.spread).into_iter().partition(|(zone, _)| has_room(sight, part, zone));
        if !room.is_empty() || none.is_empty() {
            steps.spread = room;
            return steps;
        }
        // Each round finds another zone full, so there is a last one.
        full.extend(none.into_iter().map(|(zone, _)| zone));
    }
}

/// Is there room for a task more in an availability zone?
fn has_room(sight: &Sight<'_>, part: &Part<'_>, zone: &str) -> bool {
    let primary = part.service.primary();
    let made = primary.and_then(|primary| template(sight.state, &part.service, primary.id, sight.constraints));
    made.is_some_and(|made| {
        let mut index = index_for(sight.state, &part.service.cluster, made.launch_type);
        let found = zones::place(sight.state, &mut index, (&part.service, &made), zone, (&[berth_model::ids::TaskId(0)], 0));
        !found.placed.is_empty()
    })
}

/// The same of a DAEMON service, instance by instance; answers when it is planned again.
fn daemon(sight: &Sight<'_>, service: &Service, tasks: &[TaskView], reasons: &mut Vec<Reason>) -> Option<UnixMillis> {
    let template = daemon::template(sight.state, service, sight.constraints)?;
    let instances = daemon::instances(sight.state, service, &template, &sight.rules.absence, daemon::records(sight.state, service));
    let DaemonPlan { steps, on, .. } =
        daemon::plan(service, tasks, &instances, &alarms::watched(sight.state, service), &sight.rules, sight.now);
    if !on.is_empty() {
        let ids: Vec<_> = (0..on.len() as u128).map(berth_model::ids::TaskId).collect();
        let placement = daemon::place(&mut index_of(sight.state, &service.cluster), &template, &on, &ids);
        if !placement.placed.is_empty() {
            reasons.push(Reason::new("STARTS", format!("{} about to be started", count(placement.placed.len(), "task"))));
        }
        let arn = |id: ContainerInstanceId| sight.scope.container_instance(&service.cluster, id);
        reasons.extend(refused(&placement.refusals, &[], &|id| id.to_string(), &arn));
    }
    reasons.extend(steps.why.into_iter().map(|text| Reason::new("WAITS", text)));
    steps.wake_at
}

/// Where a task more would find no place, and by which rule; nothing if it would find one.
fn placement(sight: &Sight<'_>, service: &Service, deployment: DeploymentId, start: u32) -> Vec<Reason> {
    let Some(template) = template(sight.state, service, deployment, sight.constraints) else { return Vec::new() };
    if let Some(obstacle) = template.network.as_ref().and_then(|wanted| interfaces::obstacle(sight.state, wanted)) {
        return vec![Reason { rule: Some(Rule::Interface.reason()), ..Reason::new("PLACEMENT", obstacle) }];
    }
    let is_fargate = template.launch_type == LaunchType::Fargate;
    let mut index = index_for(sight.state, &service.cluster, template.launch_type);
    let strategy = &template.capacity_provider_strategy;
    if index.is_empty() && strategy.is_empty() && !is_fargate {
        return vec![Reason::new("PLACEMENT", "no container instance is in the cluster")];
    }
    // Alike without a strategy; with one each may belong to another provider.
    let tasks = if strategy.is_empty() { 1 } else { start.min(MOST_TRIED) };
    let ids: Vec<_> = (0..tasks).map(|id| berth_model::ids::TaskId(u128::from(id))).collect();
    let current = by_provider(sight.state, service, deployment, strategy);
    let placed = capacity::place(&mut index, &template.place_request(&ids, 0), strategy, &current);
    if is_fargate && placed.placed.len() < ids.len() {
        return vec![no_capacity(fargate::obstacle(&placed.refusals).as_ref())];
    }
    if placed.refusals.is_empty() && placed.empty.is_empty() {
        return vec![Reason::new("STARTS", format!("{} about to be started", count(start as usize, "task")))];
    }
    let arn = |id: ContainerInstanceId| sight.scope.container_instance(&service.cluster, id);
    refused(&placed.refusals, &placed.empty, &|id| id.to_string(), &arn)
}

/// Why Fargate tasks find no place. Users are told the first half; whoever runs the machines wants the second.
pub(crate) fn no_capacity(obstacle: Option<&Rule>) -> Reason {
    let why = match obstacle {
        None => "no machine offers Fargate capacity (`berth fargate list` shows them)".to_owned(),
        Some(Rule::Cpu { wanted, free }) => format!("a task needs {wanted} CPU units, and a machine has {free} free"),
        Some(Rule::Memory { wanted, free }) => format!("a task needs {wanted} MiB, and a machine has {free} free"),
        Some(Rule::Interface) => "no subnet has an address left".to_owned(),
        Some(rule) => format!("a machine {}", rule.in_words()),
    };
    Reason { rule: obstacle.map(Rule::reason), ..Reason::new("PLACEMENT", format!("{NO_CAPACITY}: {why}")) }
}

/// Why tasks find no place: the providers without instances, then each rule with the instances that refuse by it. `name` and `arn` say how
/// a container instance is called in texts and lists.
pub(crate) fn refused(
    refusals: &[Refusal],
    empty: &[CapacityProviderName],
    name: &dyn Fn(ContainerInstanceId) -> String,
    arn: &dyn Fn(ContainerInstanceId) -> String,
) -> Vec<Reason> {
    // Of several memberOf constraints each is a reason of its own.
    let mut by_rule: BTreeMap<(&'static str, &str), Vec<&Refusal>> = BTreeMap::new();
    for refusal in refusals {
        let expression = if let Rule::MemberOf(expression) = &refusal.rule { expression } else { "" };
        by_rule.entry((refusal.rule.reason(), expression)).or_default().push(refusal);
    }
    let mut rules: Vec<_> = by_rule.into_iter().collect();
    // Those that came closest to taking it are what a user can do something about.
    rules.sort_by_key(|(_, refusals)| std::cmp::Reverse(refusals.iter().map(|refusal| refusal.closeness()).max()));
    let reason = |((rule, _), refusals): ((&'static str, &str), Vec<&Refusal>)| Reason {
        rule: Some(rule),
        ..Reason::new("PLACEMENT", in_words(&refusals, name)).about(refusals.iter().map(|refusal| arn(refusal.instance)))
    };
    let empty = empty.iter().map(|provider| Reason {
        rule: Some("EMPTY CAPACITY PROVIDER"),
        ..Reason::new("PLACEMENT", format!("capacity provider {provider} has no container instance"))
    });
    empty.chain(rules.into_iter().map(reason)).collect()
}

/// What instances say that refuse by the same rule.
fn in_words(refusals: &[&Refusal], name: &dyn Fn(ContainerInstanceId) -> String) -> String {
    let instances = count(refusals.len(), "container instance");
    let most = |free: &dyn Fn(&Rule) -> Option<u32>| {
        let most = refusals.iter().filter_map(|r| Some((free(&r.rule)?, r.instance))).max();
        most.map(|(free, on)| (free, name(on)))
    };
    let text = match &refusals[0].rule {
        Rule::Cpu { wanted, .. } => {
            let most = most(&|rule| if let Rule::Cpu { free, .. } = rule { Some(*free) } else { None });
            most.map(|(free, on)| format!("too little CPU: a task needs {wanted} units, most free are {free} on {on}"))
        }
        Rule::Memory { wanted, .. } => {
            let most = most(&|rule| if let Rule::Memory { free, .. } = rule { Some(*free) } else { None });
            most.map(|(free, on)| format!("too little memory: a task needs {wanted} MiB, most free are {free} on {on}"))
        }
        Rule::Interfaces { .. } => {
            Some(format!("as many network interfaces of tasks as it holds (attribute {INTERFACES}, else {DEFAULT_INTERFACES})"))
        }
        Rule::MemberOf(expression) => Some(format!("none of those that the memberOf constraint selects ({expression})")),
        rule => Some(rule.in_words()),
    };
    format!("{instances}: {}", text.unwrap_or_default())
}

fn starting(sight: &Sight<'_>, live: &[&Task]) -> Vec<Reason> {
    let starting = live.iter().filter(|task| task.started_at.is_none());
    let told = starting.take(MOST_STARTING).flat_map(|task| {
        let reasons = task::reasons(sight, task);
        reasons.into_iter().map(|reason| Reason { text: format!("task {}: {}", task.id, reason.text), ..reason })
    });
    told.collect()
}

/// Tasks that ended by themselves, by how: the latest kind first, the latest task of each last.
fn failures<'a>(tasks: &[&'a Task]) -> Vec<(String, Vec<&'a Task>)> {
    let mut by_text: BTreeMap<String, Vec<&Task>> = BTreeMap::new();
    let by_itself = |task: &&&Task| matches!(task.stop_code, Some(StopCode::TaskFailedToStart | StopCode::EssentialContainerExited));
    for task in tasks.iter().filter(|task| task.is_stopped()).filter(by_itself) {
        let ends: Vec<_> = task.containers.iter().filter_map(ending).collect();
        let reason = task.stopped_reason.as_deref().unwrap_or("no reason is known");
        let text = if ends.is_empty() { reason.to_owned() } else { format!("{reason}: {}", ends.join("; ")) };
        by_text.entry(text).or_default().push(task);
    }
    let mut found: Vec<_> = by_text.into_iter().collect();
    found.iter_mut().for_each(|(_, tasks)| tasks.sort_by_key(|task| task.stopped_at));
    found.sort_by_key(|(_, tasks)| std::cmp::Reverse(tasks.last().and_then(|task| task.stopped_at)));
    found
}

fn failure(sight: &Sight<'_>, text: &str, tasks: &[&Task]) -> Reason {
    let last = tasks.last().and_then(|task| task.stopped_at).map_or_else(String::new, |at| format!(", the last {}", sight.ago(at)));
    Reason::new("FAILED", format!("{} ended by themselves{last}: {text}", count(tasks.len(), "task")))
        .about(tasks.iter().rev().map(|task| sight.task_arn(task)))
}
