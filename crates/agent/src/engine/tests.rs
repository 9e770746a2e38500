//! Single decisions, looked at one by one.

use super::*;
use crate::fakes::task;
use crate::plan::{PlanContext, TaskPlan, plan};

pub(super) fn context() -> PlanContext {
    PlanContext {
        region: "r".into(),
        volumes_dir: "/v".into(),
        efs: Default::default(),
        stop_timeout: 30_000,
        log_limit: 1,
        pull_upfront: true,
        task_pids_limit: None,
    }
}

fn two() -> (TaskPlan, TaskState) {
    let plan = plan(&task("t1", &[("a", "x"), ("b", "y")]), &context()).unwrap();
    (plan, TaskState::new(2))
}

fn run() -> Run {
    Run {
        image_digest: Some("sha256:x".into()),
        bindings: Vec::new(),
        address: None,
        created_at: 9,
        started_at: 10,
        restarts: 0,
        health: Health::default(),
    }
}

fn exit(code: i32) -> ExitRecord {
    ExitRecord { code, oom_killed: false, at: 77 }
}

#[test]
fn one_step_at_a_time_and_none_twice() {
    let (plan, mut state) = two();
    for expected in [Step::Prepare(0), Step::Prepare(1)] {
        assert_eq!(next_step(&plan, &state, 5), Some(expected.clone()));
        state.begin(&expected, 5);
    }
    assert_eq!(next_step(&plan, &state, 6), None);
    assert_eq!((state.pull_started_at, wake_at(&plan, &state, 6)), (Some(5), None));
}

#[test]
fn a_stop_goes_from_signal_to_kill_to_giving_up() {
    let (plan, mut state) = two();
    state.containers = vec![Phase::Running(run()), Phase::Stopped(Ended::NeverStarted { reached: Reached::Nothing, reason: None })];
    state.apply(&plan, Fact::StopWanted, 100);
    assert_eq!(next_step(&plan, &state, 100), Some(Step::Stop(0)));
    state.begin(&Step::Stop(0), 100);
    assert_eq!((next_step(&plan, &state, 30_099), wake_at(&plan, &state, 101)), (None, Some(30_100)));
    for kill in 0..5 {
        let at = 30_100 + kill * 10_000;
        assert_eq!(next_step(&plan, &state, at), Some(Step::Kill(0)));
        state.begin(&Step::Kill(0), at);
        assert_eq!((next_step(&plan, &state, at), wake_at(&plan, &state, at)), (None, Some(at + 10_000)));
    }
    assert_eq!(next_step(&plan, &state, 80_100), Some(Step::GiveUp(0)));
    state.begin(&Step::GiveUp(0), 80_100);
    assert!(state.is_over());
}

#[test]
fn what_comes_too_late_changes_nothing() {
    let (plan, mut state) = two();
    state.containers[0] = Phase::Stopped(Ended::Exited { run: run(), exit: exit(0) });
    let before = state.containers.clone();
    for fact in [Fact::Exited(0, Ok(exit(9))), Fact::Launched(0, Ok(run())), Fact::Prepared(0, Err("x".into())), Fact::Abandoned(0)] {
        state.apply(&plan, fact, 100);
    }
    assert_eq!(state.containers, before);
    assert_eq!(state.execution_stopped_at, Some(77), "the container's own time, not the report's");
}

#[test]
fn a_slow_stop_before_running_is_told_as_pending_once() {
    let (plan, mut state) = two();
    state.begin(&Step::Prepare(0), 1);
    state.containers = vec![Phase::Running(run()), Phase::Preparing];
    assert_eq!(next_report(&plan, &state), None);
    state.apply(&plan, Fact::StopWanted, 2);
    let report = next_report(&plan, &state).unwrap();
    assert_eq!((report.status, report.pull_started_at), (TaskWord::Pending, Some(1)));
    state.apply(&plan, Fact::Reported(report), 3);
    assert_eq!(next_report(&plan, &state), None);
}

#[test]
fn a_task_whose_essential_container_never_started_was_never_running() {
    let (plan, mut state) = two();
    let never = Phase::Stopped(Ended::NeverStarted { reached: Reached::Created("sha256:x".into()), reason: Some("why".into()) });
    state.containers = vec![never, Phase::Running(run())];
    assert_eq!(next_report(&plan, &state), None);
    state.containers[1] = Phase::Stopped(Ended::Exited { run: run(), exit: exit(143) });
    let report = next_report(&plan, &state).unwrap();
    assert_eq!(report.status, TaskWord::Stopped);
    assert!(report.containers[0].has_runtime_id && report.containers[0].exit_code.is_none());
}

#[test]
fn what_was_told_never_goes_back() {
    let report = |status| Report {
        status,
        reason: None,
        containers: Vec::new(),
        pull_started_at: None,
        pull_stopped_at: None,
        execution_stopped_at: None,
    };
    let running = Told::Nothing.after(&report(TaskWord::Running));
    assert_eq!(running.clone().after(&report(TaskWord::Pending)), running);
    assert_eq!(Told::Stopped.after(&report(TaskWord::Running)), Told::Stopped);
}
