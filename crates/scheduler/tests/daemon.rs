//! The planner of DAEMON services on a fleet that changes under it.

mod hosts;
#[allow(dead_code, reason = "each test binary uses its own part")]
mod world;

use berth_model::ids::ContainerInstanceId;
use berth_model::service::ServiceStatus;
use berth_model::task::{HealthStatus, StopCode, TaskStatus};
use berth_scheduler::service::{FAILED_CHECK, TaskView};
use hosts::{Fleet, Host};
use proptest::prelude::*;

#[test]
fn each_instance_gets_one_and_a_new_one_too() {
    let mut fleet = Fleet::new(3, 0);
    assert_eq!(fleet.step().on.len(), 3);
    fleet.pass();
    fleet.run(1);
    assert!(fleet.is_steady() && fleet.service.desired_count == 3);
    assert!(fleet.plan().steps.is_idle(&fleet.service), "the steady state needs nothing");
    fleet.hosts.insert(7, Host::default());
    assert_eq!(fleet.step().on, [ContainerInstanceId(7)]);
    fleet.run(2);
    assert!(fleet.is_steady() && fleet.service.desired_count == 4);
}

#[test]
fn without_instances_it_is_steady_and_wants_none() {
    let mut fleet = Fleet::new(0, 50);
    fleet.run(1);
    assert!(fleet.is_steady() && fleet.service.desired_count == 0);
}

#[test]
fn an_update_stops_before_it_starts_and_keeps_the_minimum() {
    let mut fleet = Fleet::new(4, 50);
    fleet.run(10);
    fleet.deploy();
    let first = fleet.step();
    assert_eq!((first.steps.stop.len(), first.on.len()), (2, 0));
    for _ in 0..30 {
        fleet.pass();
        fleet.step();
        assert!(fleet.healthy_on(&fleet.wanted()) >= 2);
    }
    assert!(fleet.is_steady(), "{:?}", fleet.plan().steps.why);
}

#[test]
fn with_a_minimum_of_none_all_are_replaced_at_once() {
    let mut fleet = Fleet::new(4, 0);
    fleet.run(10);
    fleet.deploy();
    assert_eq!(fleet.step().steps.stop.len(), 4);
    fleet.pass();
    assert_eq!(fleet.step().on.len(), 4);
}

#[test]
fn where_the_minimum_is_rounded_to_all_of_them_it_says_so() {
    let mut fleet = Fleet::new(1, 1);
    fleet.run(10);
    fleet.deploy();
    fleet.run(10);
    assert!(!fleet.is_steady() && fleet.said("because of the service deployment configuration"));
}

#[test]
fn what_no_longer_meets_the_constraints_is_stopped_and_told_of() {
    let mut fleet = Fleet::new(2, 0);
    fleet.run(2);
    fleet.hosts.get_mut(&1).unwrap().suits = false;
    let plan = fleet.step();
    assert_eq!((plan.steps.stop.len(), plan.desired), (1, 1));
    assert!(plan.steps.stop[0].reason.contains("no longer meets the placement constraints"), "{:?}", plan.steps.stop);
    assert!(fleet.said("no longer meet the placement constraints"));
    fleet.run(2);
    assert!(fleet.is_steady() && fleet.live_on(1).is_none());
}

#[test]
fn it_is_the_last_to_leave_a_drained_instance() {
    let mut fleet = Fleet::new(2, 0);
    fleet.run(2);
    let host = fleet.hosts.get_mut(&0).unwrap();
    (host.draining, host.others) = (true, 2);
    fleet.run(3);
    assert!(fleet.live_on(0).is_some() && fleet.is_steady());
    fleet.hosts.get_mut(&0).unwrap().others = 1;
    fleet.run(3);
    assert!(fleet.live_on(0).is_some());
    fleet.hosts.get_mut(&0).unwrap().others = 0;
    fleet.run(3);
    assert!(fleet.live_on(0).is_none() && fleet.is_steady() && fleet.service.desired_count == 1);
}

#[test]
fn a_lost_instance_is_not_waited_for_and_gets_a_new_task_when_it_is_back() {
    let mut fleet = Fleet::new(2, 0);
    fleet.run(2);
    fleet.silence(1, 5);
    fleet.run(3);
    assert!(fleet.live_on(1).is_some() && fleet.service.desired_count == 2, "it may come back");
    fleet.run(4);
    assert!(fleet.live_on(1).is_none() && fleet.service.desired_count == 1 && fleet.is_steady());
    assert_eq!(fleet.tasks.len(), 2, "nobody takes its place elsewhere");
    let host = fleet.hosts.get_mut(&1).unwrap();
    (host.connected, host.lost_at) = (true, None);
    fleet.tell();
    fleet.run(4);
    assert!(fleet.live_on(1).is_some() && fleet.service.desired_count == 2 && fleet.is_steady());
}

#[test]
fn one_bad_machine_waits_alone() {
    let mut fleet = Fleet::new(3, 0);
    fleet.hosts.get_mut(&2).unwrap().broken = true;
    let mut starts = Vec::new();
    for second in 0..200 {
        if fleet.step().on.contains(&ContainerInstanceId(2)) {
            starts.push(second);
        }
        if second == 20 {
            fleet.hosts.insert(3, Host::default());
            assert_eq!(fleet.step().on, [ContainerInstanceId(3)], "another is not held up");
        }
        fleet.pass();
    }
    assert!(starts.windows(3).all(|three| three[2] - three[1] >= three[1] - three[0]), "{starts:?}");
    assert!(starts.len() < 12 && fleet.said("unable to consistently start tasks"), "{starts:?}");
}

/// The tasks of these hosts have a health check, and it says this.
fn checked(fleet: &mut Fleet, hosts: std::ops::Range<u128>, health: HealthStatus) {
    for task in fleet.tasks.iter_mut().filter(|task| Fleet::is_live(task) && hosts.contains(&task.instance.0)) {
        (task.has_check, task.health) = (true, health);
    }
}

#[test]
fn an_unhealthy_task_is_replaced_where_it_is() {
    let mut fleet = Fleet::new(3, 0);
    fleet.run(10);
    checked(&mut fleet, 0..3, HealthStatus::Healthy);
    assert!(fleet.plan().steps.is_idle(&fleet.service));
    checked(&mut fleet, 1..2, HealthStatus::Unhealthy);
    let sick = fleet.live_on(1).unwrap().id;
    let plan = fleet.step();
    let stopped: Vec<_> = plan.steps.stop.iter().map(|stop| (stop.task, stop.reason.as_str())).collect();
    assert_eq!((stopped, plan.on), (vec![(sick, FAILED_CHECK)], vec![]));
    assert!(fleet.step().on.is_empty(), "the one before has not stopped yet");
    fleet.pass();
    assert_eq!(fleet.step().on, [ContainerInstanceId(1)]);
    fleet.run(5);
    assert!(fleet.is_steady() && fleet.tasks.len() == 4, "nobody else was touched");
    // Within the grace period it is not believed.
    fleet.service.settings.health_check_grace_period_seconds = Some(60);
    checked(&mut fleet, 1..2, HealthStatus::Unhealthy);
    fleet.run(20);
    assert_eq!(fleet.tasks.len(), 4, "the service's grace period is not over");
    fleet.run(60);
    assert!(fleet.is_steady() && fleet.tasks.len() == 5);
}

#[test]
fn unhealthy_tasks_go_one_at_a_time_where_few_are_healthy() {
    let mut fleet = Fleet::new(4, 50);
    fleet.run(10);
    checked(&mut fleet, 0..4, HealthStatus::Unhealthy);
    for second in 0..60 {
        let plan = fleet.step();
        let without = (0..4).filter(|host| fleet.live_on(*host).is_none_or(|task| task.last < TaskStatus::Running)).count();
        // Two that count as healthy are the minimum: from then on the rest may go together.
        let healthy = fleet.healthy_on(&fleet.wanted());
        assert!(without <= 1 || healthy >= 2, "{second} s: {without} are without, {healthy} are healthy");
        assert!(plan.steps.stop.len() <= 1 || healthy >= 2);
        fleet.pass();
    }
    assert!(fleet.is_steady() && fleet.healthy_on(&fleet.wanted()) == 4 && fleet.tasks.len() == 8);
}

#[test]
fn an_unhealthy_task_that_is_protected_or_leaves_anyway_is_not_replaced() {
    let mut fleet = Fleet::new(3, 0);
    fleet.run(10);
    checked(&mut fleet, 0..3, HealthStatus::Unhealthy);
    let until = fleet.now.plus_millis(20_000);
    fleet.tasks[0].protected_until = Some(until);
    let host = fleet.hosts.get_mut(&1).unwrap();
    (host.draining, host.others) = (true, 1);
    fleet.run(10);
    assert!(fleet.live_on(0).is_some_and(|task| task.has_check) && fleet.live_on(1).is_some_and(|task| task.has_check));
    assert!(fleet.live_on(2).is_some_and(|task| !task.has_check), "the third was replaced");
    fleet.run(20);
    assert!(fleet.live_on(0).is_some_and(|task| !task.has_check) && fleet.live_on(1).is_some_and(|task| task.has_check));
}

#[test]
fn a_protected_task_is_left_alone_until_it_is_not() {
    let mut fleet = Fleet::new(2, 0);
    fleet.run(5);
    let until = fleet.now.plus_millis(10_000);
    fleet.tasks[0].protected_until = Some(until);
    fleet.deploy();
    let plan = fleet.step();
    assert_eq!(plan.steps.stop.len(), 1);
    assert_eq!(plan.steps.wake_at, Some(until));
    fleet.run(8);
    assert!(!fleet.is_steady() && fleet.plan().steps.why.iter().any(|why| why.contains("protected")));
    fleet.run(8);
    assert!(fleet.is_steady());
}

#[test]
fn an_update_is_not_done_while_an_older_task_still_stops() {
    let mut fleet = Fleet::new(2, 0);
    fleet.run(5);
    fleet.silence(1, 100);
    fleet.hosts.get_mut(&1).unwrap().suits = false;
    fleet.deploy();
    fleet.run(20);
    assert!(!fleet.is_steady() && fleet.service.deployments.len() == 2 && fleet.service.desired_count == 1);
    fleet.run(100);
    assert!(fleet.is_steady(), "the machine is lost with it");
}

#[test]
fn a_deleted_one_drains_and_ends() {
    let mut fleet = Fleet::new(3, 0);
    fleet.run(2);
    (fleet.service.status, fleet.service.desired_count) = (ServiceStatus::Draining, 0);
    let plan = fleet.plan();
    assert_eq!((plan.steps.stop.len(), plan.on.len(), plan.desired), (3, 0, 0));
    for task in &mut fleet.tasks {
        Fleet::end(task, fleet.now, StopCode::ServiceSchedulerInitiated);
    }
    assert_eq!(fleet.plan().steps.status, ServiceStatus::Inactive);
}

/// What happens to a fleet.
#[derive(Debug, Clone, Copy)]
enum Event {
    Join,
    Leave(u128),
    Suit(u128, bool),
    Drain(u128, u32),
    Undrain(u128),
    OtherEnds(u128),
    Silence(u128, i64),
    Return(u128),
    Break(u128, bool),
    Room(u128, bool),
    Crash(u128),
    Protect(u128, i64),
    Deploy,
    Time(usize),
}

fn events() -> impl Strategy<Value = Event> {
    let host = 0_u128..8;
    prop_oneof![
        Just(Event::Join),
        host.clone().prop_map(Event::Leave),
        (host.clone(), any::<bool>()).prop_map(|(host, suits)| Event::Suit(host, suits)),
        (host.clone(), 0_u32..3).prop_map(|(host, others)| Event::Drain(host, others)),
        host.clone().prop_map(Event::Undrain),
        host.clone().prop_map(Event::OtherEnds),
        (host.clone(), 0_i64..6).prop_map(|(host, seconds)| Event::Silence(host, seconds)),
        host.clone().prop_map(Event::Return),
        (host.clone(), any::<bool>()).prop_map(|(host, broken)| Event::Break(host, broken)),
        (host.clone(), any::<bool>()).prop_map(|(host, roomy)| Event::Room(host, roomy)),
        host.clone().prop_map(Event::Crash),
        (host, 0_i64..12).prop_map(|(host, seconds)| Event::Protect(host, seconds)),
        Just(Event::Deploy),
        (0_usize..6).prop_map(Event::Time),
    ]
}

impl Fleet {
    fn happen(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Join => drop(self.hosts.insert(self.next + 1_000, Host::default())),
            Event::Deploy => self.deploy(),
            Event::Time(seconds) => self.run(seconds),
            Event::Leave(host) => {
                self.hosts.remove(&host);
                let there = |task: &&mut TaskView| task.instance == ContainerInstanceId(host) && task.last != TaskStatus::Stopped;
                self.tasks.iter_mut().filter(there).for_each(|task| Self::end(task, now, StopCode::TerminationNotice));
            }
            Event::Silence(host, seconds) if self.hosts.contains_key(&host) => self.silence(host, seconds),
            Event::Crash(host) => {
                let there = |task: &&mut TaskView| task.instance == ContainerInstanceId(host) && task.last == TaskStatus::Running;
                self.tasks.iter_mut().filter(there).for_each(|task| Self::end(task, now, StopCode::EssentialContainerExited));
            }
            Event::Protect(host, seconds) => {
                let there = |task: &&mut TaskView| task.instance == ContainerInstanceId(host) && Self::is_live(task);
                self.tasks.iter_mut().filter(there).for_each(|task| task.protected_until = Some(now.plus_millis(seconds * 1_000)));
            }
            Event::Suit(host, _)
            | Event::Drain(host, _)
            | Event::Undrain(host)
            | Event::OtherEnds(host)
            | Event::Silence(host, _)
            | Event::Return(host)
            | Event::Break(host, _)
            | Event::Room(host, _) => {
                let Some(host) = self.hosts.get_mut(&host) else { return };
                match event {
                    Event::Suit(_, suits) => host.suits = suits,
                    Event::Drain(_, others) => (host.draining, host.others) = (true, others),
                    Event::Undrain(_) => host.draining = false,
                    Event::OtherEnds(_) => host.others = host.others.saturating_sub(1),
                    Event::Return(_) => (host.connected, host.lost_at) = (true, None),
                    Event::Break(_, broken) => host.broken = broken,
                    Event::Room(_, roomy) => host.roomy = roomy,
                    _ => {}
                }
            }
        }
        self.tell();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..Default::default() })]

    /// Whatever happens, the auditor in `step` is content; and when no more does, every instance has its task.
    #[test]
    fn it_keeps_its_promises_and_comes_to_rest(hosts in 0_u128..8, minimum in 0_u32..100, events in prop::collection::vec(events(), 0..40)) {
        let mut fleet = Fleet::new(hosts, minimum);
        for event in events {
            fleet.happen(event);
            fleet.step();
            fleet.pass();
        }
        for host in fleet.hosts.values_mut() {
            *host = Host { suits: host.suits, ..Host::default() };
        }
        fleet.tasks.iter_mut().for_each(|task| task.protected_until = None);
        fleet.tell();
        for _ in 0..1_000 {
            let plan = fleet.step();
            if fleet.is_steady() {
                let there = |id: u128| fleet.live_on(id).is_some_and(|task| task.last == TaskStatus::Running);
                prop_assert!(fleet.hosts.iter().all(|(id, host)| host.suits == there(*id)));
                return Ok(());
            }
            let idle = plan.on.is_empty() && plan.steps.stop.is_empty();
            fleet.pass();
            if let Some(at) = plan.steps.wake_at.filter(|at| idle && *at > fleet.now) {
                fleet.now = at;
            }
        }
        // It can only hang where the minimum, rounded up, is all of them; then it says what the user has to change.
        let all = fleet.service.percentages.lower(fleet.service.desired_count) == fleet.service.desired_count;
        prop_assert!(all && fleet.said("because of the service deployment configuration"), "stuck: {:?}", fleet.plan().steps.why);
    }
}
