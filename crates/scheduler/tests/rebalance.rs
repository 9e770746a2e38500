//! Balancing a service's tasks over availability zones, under a virtual clock: what is promised holds after every step.

use std::collections::BTreeMap;

use berth_model::ids::{ContainerInstanceId, DeploymentId, TaskId};
use berth_model::service::{DeploymentStatus, RolloutState, Service};
use berth_model::task::{DesiredStatus, LaunchType, StopCode, TaskStatus};
use berth_model::time::UnixMillis;
use berth_scheduler::placement::{SpreadField, Strategy};
use berth_scheduler::service::rebalance::{Ineligible, ineligible};
use berth_scheduler::service::{Machine, ServicePlan, ServiceView, TaskView, Zones, plan};
use proptest::prelude::*;
use proptest::strategy::Strategy as _;

#[allow(dead_code, reason = "each test binary uses its own part")]
mod world;

use world::{HEALTHY_AFTER, deployment, service};

/// A service whose tasks are on one machine a zone, each with room for some.
struct Zoned {
    service: Service,
    tasks: Vec<TaskView>,
    /// By zone, how many tasks it can hold; one that is not here takes none.
    room: BTreeMap<String, usize>,
    strategies: Vec<Strategy>,
    now: UnixMillis,
    next: u128,
    events: Vec<String>,
    /// Tasks that are told to start in this zone never run.
    broken: Option<String>,
    changes: u32,
}

fn zone(number: usize) -> String {
    ["a", "b", "c", "d"][number].to_owned()
}

impl Zoned {
    /// A steady service with so many tasks in each zone.
    fn new(tasks: &[usize], room: &[usize], maximum: u32) -> Self {
        let desired = u32::try_from(tasks.iter().sum::<usize>()).unwrap();
        let mut service = service(desired, 100, maximum);
        service.settings.availability_zone_rebalancing = Some("ENABLED".to_owned());
        service.deployments[0].rollout_state = RolloutState::Completed;
        service.announced_steady = true;
        let mut zoned = Self {
            service,
            tasks: Vec::new(),
            room: room.iter().enumerate().map(|(number, room)| (zone(number), *room)).collect(),
            strategies: Strategy::service_default(),
            now: UnixMillis(1_000_000),
            next: 1,
            events: Vec::new(),
            broken: None,
            changes: 0,
        };
        for (number, count) in tasks.iter().enumerate() {
            (0..*count).for_each(|_| zoned.start(&zone(number)));
        }
        for task in &mut zoned.tasks {
            (task.last, task.started_at) = (TaskStatus::Running, Some(UnixMillis(0)));
        }
        zoned
    }

    fn start(&mut self, zone: &str) {
        let task = TaskView {
            zone: Some(zone.into()),
            ..TaskView::placed(
                TaskId(self.next),
                self.service.primary().expect("it has one").id,
                ContainerInstanceId(u128::from(zone.as_bytes()[0])),
                self.tasks.len() as u64,
                self.now,
            )
        };
        self.next += 1;
        self.tasks.push(task);
    }

    fn is_live(task: &&TaskView) -> bool {
        task.desired == DesiredStatus::Running && task.last != TaskStatus::Stopped
    }

    fn live(&self) -> usize {
        self.tasks.iter().filter(Self::is_live).count()
    }

    fn counts(&self) -> Vec<usize> {
        let of = |zone: &String| self.tasks.iter().filter(Self::is_live).filter(|task| task.zone.as_deref() == Some(zone.as_str())).count();
        self.room.keys().map(of).collect()
    }

    fn healthy(&self) -> usize {
        let counts =
            |task: &&TaskView| task.last == TaskStatus::Running && task.started_at.is_some_and(|at| self.now.since(at) >= HEALTHY_AFTER);
        self.tasks.iter().filter(Self::is_live).filter(counts).count()
    }

    fn left_in(&self, zone: &str) -> usize {
        let holds = self.tasks.iter().filter(|task| task.last != TaskStatus::Stopped && task.zone.as_deref() == Some(zone)).count();
        self.room.get(zone).copied().unwrap_or(0).saturating_sub(holds)
    }

    fn plan(&self, full: &[String]) -> ServicePlan {
        let open: Vec<String> = self.room.keys().cloned().collect();
        let attributes: BTreeMap<ContainerInstanceId, BTreeMap<String, Option<String>>> = open
            .iter()
            .map(|zone| {
                let attributes = BTreeMap::from([("ecs.availability-zone".to_owned(), Some(zone.clone()))]);
                (ContainerInstanceId(u128::from(zone.as_bytes()[0])), attributes)
            })
            .collect();
        let view = ServiceView {
            alarms: &[],
            service: &self.service,
            tasks: &self.tasks,
            healthy_after_millis: HEALTHY_AFTER,
            minute_millis: 60_000,
            blocked: false,
            zones: Zones { open: &open, full },
            strategies: &self.strategies,
            machine: &|id| Machine { attributes: attributes.get(&id), ..Default::default() },
        };
        plan(&view, self.now)
    }

    /// What the services loop does with a plan.
    fn step(&mut self) -> ServicePlan {
        let mut full = Vec::new();
        let mut steps = self.plan(&full);
        loop {
            let mut started = 0;
            for (zone, count) in &steps.spread {
                let count = self.left_in(zone).min(*count as usize);
                (0..count).for_each(|_| self.start(zone));
                started += count;
            }
            if steps.spread.is_empty() || started > 0 {
                break;
            }
            full.extend(steps.spread.iter().map(|(zone, _)| zone.clone()));
            steps = self.plan(&full);
        }
        let before = self.tasks.len();
        for _ in 0..steps.start {
            // As placement does by default: where fewest are.
            let fewest = self.room.keys().zip(self.counts()).filter(|(zone, _)| self.left_in(zone) > 0).min_by_key(|(_, count)| *count);
            if let Some(zone) = fewest.map(|(zone, _)| zone.clone()) {
                self.start(&zone);
            }
        }
        // A start that finds no room changes nothing.
        let seen = ServicePlan { start: 0, ..steps.clone() };
        self.changes += u32::from(self.tasks.len() > before || !seen.is_idle(&self.service));
        for stop in &steps.stop {
            let task = self.tasks.iter_mut().find(|task| task.id == stop.task).expect("a plan stops tasks that are there");
            task.desired = DesiredStatus::Stopped;
            task.stop_code = Some(stop.code);
        }
        self.service.deployments.clone_from(&steps.deployments);
        self.service.announced_steady = steps.steady;
        self.events.extend(steps.announcements.iter().cloned());
        steps
    }

    fn end(&mut self, at: usize, code: StopCode) {
        let now = self.now;
        let task = &mut self.tasks[at];
        (task.desired, task.last, task.stopped_at) = (DesiredStatus::Stopped, TaskStatus::Stopped, Some(now));
        task.stop_code.get_or_insert(code);
    }

    /// Agents do what is asked, and a second passes.
    fn pass(&mut self) {
        for at in 0..self.tasks.len() {
            let task = &mut self.tasks[at];
            match (task.desired, task.last) {
                (DesiredStatus::Running, TaskStatus::Pending) if task.zone.as_deref() == self.broken.as_deref() => {
                    self.end(at, StopCode::TaskFailedToStart)
                }
                (DesiredStatus::Running, TaskStatus::Pending) => {
                    (task.last, task.started_at) = (TaskStatus::Running, Some(self.now));
                }
                (DesiredStatus::Stopped, last) if last != TaskStatus::Stopped => self.end(at, StopCode::UserInitiated),
                _ => {}
            }
        }
        self.now = self.now.plus_millis(1_000);
    }

    fn run(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.step();
            self.pass();
        }
    }

    fn said(&self, text: &str) -> usize {
        self.events.iter().filter(|event| event.contains(text)).count()
    }
}

#[test]
fn the_emptiest_zone_gets_one_and_when_that_is_healthy_the_fullest_gives_one_up() {
    let mut zoned = Zoned::new(&[2, 0], &[9, 9], 200);
    let first = zoned.step();
    assert_eq!((first.spread, first.stop.len(), first.steady), (vec![("b".to_owned(), 1)], 0, true));
    zoned.run(40);
    assert_eq!(zoned.counts(), [2, 1], "the new one does not count as healthy before 40 s");
    zoned.run(2);
    let second = zoned.step();
    assert_eq!((zoned.counts(), second.is_idle(&zoned.service)), (vec![1, 1], true));
    assert_eq!(
        zoned.events,
        [
            "is not AZ balanced with 2 tasks in a and 0 in b. AZ Rebalancing in progress.",
            "is AZ balanced with 1 tasks in a and 1 tasks in b."
        ]
    );
    let before = zoned.changes;
    zoned.run(3_600);
    assert_eq!(zoned.changes, before, "then it is silent");
    assert_eq!(zoned.service.deployments[0].progress, Default::default(), "and remembers nothing");
}

#[test]
fn a_difference_of_one_is_balanced() {
    for tasks in [&[2, 1][..], &[1, 2, 2], &[1, 1, 0], &[0, 1]] {
        let mut zoned = Zoned::new(tasks, &[9; 4][..tasks.len()], 200);
        zoned.run(100);
        assert_eq!((zoned.changes, zoned.counts()), (0, tasks.to_vec()));
    }
}

#[test]
fn as_many_move_at_once_as_the_maximum_allows() {
    let mut zoned = Zoned::new(&[9, 0, 0], &[20; 3], 200);
    assert_eq!(zoned.step().spread, [("b".to_owned(), 3), ("c".to_owned(), 3)]);
    let mut zoned = Zoned::new(&[9, 0, 0], &[20; 3], 125);
    assert_eq!(zoned.step().spread, [("b".to_owned(), 1), ("c".to_owned(), 1)]);
    zoned.run(200);
    assert_eq!(zoned.counts(), [3, 3, 3]);
    assert_eq!((zoned.said("is not AZ balanced"), zoned.said("is AZ balanced"), zoned.said("steady state")), (1, 1, 0));
}

#[test]
fn a_maximum_that_leaves_no_room_says_so_and_nothing_happens() {
    let mut zoned = Zoned::new(&[2, 0], &[9, 9], 149);
    zoned.run(10);
    assert_eq!((zoned.changes, zoned.counts()), (0, vec![2, 0]));
    assert!(zoned.plan(&[]).why[0].contains("maximumPercent 149 leaves no room"), "{:?}", zoned.plan(&[]).why);
}

#[test]
fn a_zone_without_room_is_told_of_once_and_goes_on_when_it_has_some() {
    let mut zoned = Zoned::new(&[4, 0], &[9, 0], 200);
    zoned.run(600);
    assert_eq!(zoned.events.len(), 2, "{:?}", zoned.events);
    assert_eq!(zoned.events[1], "is unable to place a task in b because no container instance met all of its requirements.");
    assert_eq!((zoned.changes, zoned.counts()), (1, vec![4, 0]));
    zoned.now = zoned.now.plus_millis(6 * 60 * 60 * 1_000);
    zoned.run(600);
    assert_eq!(zoned.said("is unable to place"), 2, "six hours later it is news again");
    zoned.room.insert("b".to_owned(), 1);
    zoned.run(100);
    assert_eq!(zoned.counts(), [3, 1], "as far as there is room");
    zoned.room.insert("b".to_owned(), 9);
    zoned.run(100);
    assert_eq!((zoned.counts(), zoned.said("is AZ balanced")), (vec![2, 2], 1));
}

#[test]
fn the_next_emptiest_zone_is_taken_where_the_emptiest_is_full() {
    let mut zoned = Zoned::new(&[6, 0, 1], &[9, 0, 9], 200);
    zoned.run(200);
    assert_eq!(zoned.counts(), [4, 0, 3]);
}

#[test]
fn protected_tasks_are_never_stopped_nor_is_anything_started_for_them() {
    let mut zoned = Zoned::new(&[4, 0], &[9, 9], 200);
    let until = zoned.now.plus_millis(500_000);
    zoned.tasks.iter_mut().for_each(|task| task.protected_until = Some(until));
    zoned.run(400);
    assert_eq!((zoned.counts(), zoned.live(), zoned.changes), (vec![4, 0], 4, 1));
    assert_eq!(zoned.events[1], "was unable to AZ Rebalance because (taskSet ecs-svc/1) was unable to scale in due to task protection.");
    zoned.run(300);
    assert_eq!(zoned.counts(), [2, 2]);
    // Protected after the start: the one that was started has to go again, once.
    let mut zoned = Zoned::new(&[2, 0], &[9, 9], 200);
    zoned.step();
    let until = zoned.now.plus_millis(10_000_000);
    zoned.tasks[..2].iter_mut().for_each(|task| task.protected_until = Some(until));
    zoned.run(2_000);
    assert_eq!((zoned.counts(), zoned.tasks.len()), (vec![2, 0], 3));
}

#[test]
fn tasks_that_never_run_there_are_tried_ever_more_rarely() {
    let mut zoned = Zoned::new(&[4, 0], &[9, 9], 125);
    zoned.broken = Some("b".to_owned());
    zoned.run(7_200);
    let tried = zoned.tasks.len() - 4;
    assert!((4..15).contains(&tried), "{tried}");
    assert_eq!((zoned.counts(), zoned.said("is not AZ balanced")), (vec![4, 0], 1));
    zoned.broken = None;
    zoned.run(1_800);
    assert_eq!(zoned.counts(), [2, 2]);
}

#[test]
fn what_never_becomes_healthy_goes_after_a_while() {
    let mut zoned = Zoned::new(&[2, 0], &[9, 9], 200);
    zoned.step();
    zoned.tasks[2].has_check = true;
    zoned.run(29 * 60);
    assert_eq!(zoned.counts(), [2, 1]);
    zoned.run(62);
    assert!(zoned.tasks[2].desired == DesiredStatus::Stopped && zoned.counts()[0] == 2, "{:?}", zoned.counts());
}

#[test]
fn what_the_service_needs_comes_first() {
    // A deployment: what was started is part of it.
    let mut zoned = Zoned::new(&[4, 0], &[9, 9], 200);
    zoned.step();
    assert_eq!(zoned.counts(), [4, 2]);
    zoned.service.demote_primary(zoned.now);
    zoned.service.deployments.insert(0, deployment(2, DeploymentStatus::Primary));
    zoned.service.announced_steady = false;
    assert!(zoned.service.deployments[1].progress.rebalancing.is_none());
    zoned.run(300);
    assert!(zoned.tasks.iter().filter(Zoned::is_live).all(|task| task.deployment == DeploymentId(2)));
    assert_eq!(zoned.counts(), [2, 2]);
    // A scale-in: at once.
    let mut zoned = Zoned::new(&[4, 0], &[9, 9], 200);
    zoned.step();
    zoned.service.set_desired_count(3);
    assert_eq!(zoned.step().stop.len(), 3);
    // A task that ends: the one that was started takes its place.
    let mut zoned = Zoned::new(&[3, 0], &[9, 9], 200);
    zoned.step();
    zoned.end(0, StopCode::EssentialContainerExited);
    let steps = zoned.step();
    assert_eq!((steps.start, steps.stop.len(), zoned.counts()), (0, 0, vec![2, 1]));
    // Switched off in between.
    let mut zoned = Zoned::new(&[4, 0], &[9, 9], 200);
    zoned.step();
    zoned.service.settings.availability_zone_rebalancing = Some("DISABLED".to_owned());
    zoned.run(3);
    assert_eq!((zoned.live(), zoned.healthy()), (4, 4));
}

#[test]
fn a_zone_whose_agents_are_away_is_waited_for() {
    let mut zoned = Zoned::new(&[4, 1], &[9, 9], 200);
    zoned.tasks[4].lost_at = Some(zoned.now.plus_millis(600_000));
    zoned.run(30);
    assert_eq!((zoned.changes, zoned.counts()), (0, vec![4, 1]));
    assert!(zoned.plan(&[]).why[0].contains("are away"));
}

#[test]
fn only_some_services_are_eligible() {
    let spread = |name: &str| Strategy::Spread(SpreadField::Attribute(name.to_owned()));
    let zones = [spread("ecs.availability-zone"), Strategy::BinpackMemory];
    assert_eq!(ineligible(&service(2, 100, 200), &zones), None);
    assert_eq!(ineligible(&service(2, 100, 200), &Strategy::service_default()), None);
    assert_eq!(ineligible(&service(2, 100, 200), &[Strategy::BinpackMemory, zones[0].clone()]), Some(Ineligible::Strategy));
    assert_eq!(ineligible(&service(2, 100, 200), &[spread("rack")]), Some(Ineligible::Strategy));
    assert_eq!(ineligible(&service(2, 0, 100), &zones), Some(Ineligible::MaximumPercent));
    let mut outside = service(2, 100, 200);
    outside.launch_type = LaunchType::External;
    assert_eq!(ineligible(&outside, &zones), Some(Ineligible::LaunchType));
    let mut zoned = Zoned::new(&[4, 0], &[9, 9], 200);
    zoned.service.settings.availability_zone_rebalancing = None;
    zoned.run(3);
    zoned.service.settings.availability_zone_rebalancing = Some("ENABLED".to_owned());
    zoned.strategies = vec![Strategy::Spread(SpreadField::Instance)];
    zoned.run(3);
    assert_eq!((zoned.changes, zoned.counts()), (0, vec![4, 0]), "never set is DISABLED");
}

/// What happens to a service in between.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// A task ends by itself.
    End(usize),
    /// A task is protected for so many seconds.
    Protect(usize, i64),
    /// A zone has room for so many tasks.
    Room(usize, usize),
    /// So many tasks are wanted.
    Scale(u32),
}

fn faults() -> impl proptest::strategy::Strategy<Value = Fault> {
    prop_oneof![
        any::<usize>().prop_map(Fault::End),
        (any::<usize>(), 1_i64..200).prop_map(|(task, seconds)| Fault::Protect(task, seconds)),
        (0_usize..4, 0_usize..12).prop_map(|(zone, room)| Fault::Room(zone, room)),
        (1_u32..14).prop_map(Fault::Scale),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..Default::default() })]

    /// Whatever happens in between: never more than the maximum, never fewer healthy ones than are wanted by a decision of ours, protected
    /// ones are left alone, in the end the zones are as even as their room allows, and then it is silent.
    #[test]
    fn it_keeps_its_promises(
        tasks in prop::collection::vec(0_usize..6, 2..=4),
        room in prop::collection::vec(0_usize..12, 4),
        maximum in 101_u32..=250,
        faults in prop::collection::vec((0_u32..400, faults()), 0..8),
    ) {
        prop_assume!(tasks.iter().sum::<usize>() > 0);
        let room: Vec<_> = tasks.iter().zip(&room).map(|(has, room)| *room.max(has)).collect();
        let mut zoned = Zoned::new(&tasks, &room, maximum);
        for second in 0..1_800 {
            for (_, fault) in faults.iter().filter(|(at, _)| *at == second) {
                match *fault {
                    Fault::End(at) => {
                        let live: Vec<_> = (0..zoned.tasks.len()).filter(|at| Zoned::is_live(&&zoned.tasks[*at])).collect();
                        if !live.is_empty() {
                            zoned.end(live[at % live.len()], StopCode::EssentialContainerExited);
                        }
                    }
                    Fault::Protect(at, seconds) => {
                        let at = at % zoned.tasks.len();
                        zoned.tasks[at].protected_until = Some(zoned.now.plus_millis(seconds * 1_000));
                    }
                    Fault::Room(number, more) if number < tasks.len() => drop(zoned.room.insert(zone(number), more)),
                    Fault::Room(..) => {}
                    Fault::Scale(count) => {
                        zoned.service.set_desired_count(count);
                        zoned.service.announced_steady = false;
                    }
                }
            }
            let (before, live_before) = (zoned.healthy(), zoned.live());
            let desired = zoned.service.desired_count as usize;
            let steps = zoned.step();
            let upper = zoned.service.percentages.upper(zoned.service.desired_count) as usize;
            prop_assert!(zoned.live() <= upper.max(live_before), "{} of {upper}", zoned.live());
            if !steps.freed.is_empty() {
                prop_assert!(zoned.healthy() >= desired.min(before), "{before} healthy, then {}, wanted {desired}", zoned.healthy());
            }
            for stop in &steps.stop {
                let task = zoned.tasks.iter().find(|task| task.id == stop.task).unwrap();
                prop_assert!(task.protected_until.is_none_or(|until| until <= zoned.now), "a protected task was stopped");
            }
            zoned.pass();
        }
        let counts = zoned.counts();
        let keeps_room = zoned.service.percentages.upper(zoned.service.desired_count) > zoned.service.desired_count;
        let open = zoned.room.iter().zip(&counts).filter(|((zone, _), _)| zoned.left_in(zone) > 0).map(|(_, count)| *count).min();
        if let Some(least) = open.filter(|_| keeps_room && zoned.live() == zoned.service.desired_count as usize) {
            let most = counts.iter().max().unwrap();
            prop_assert!(*most <= least + 1, "{counts:?} with room {:?}, {:?}", zoned.room, zoned.plan(&[]).why);
        }
        let changes = zoned.changes;
        zoned.run(100);
        prop_assert_eq!(zoned.changes, changes, "it is silent: {:?}", zoned.events);
    }
}
