//! Deployments with stages, by a small simulation under a virtual clock: blue stays whole until the last stage, stages go forward only, and
//! every deployment ends or says what it waits for.

mod shifting;
#[allow(dead_code, reason = "each test binary uses its own part")]
mod world;

use berth_model::ids::DeploymentId;
use berth_model::rollout::{ALL_TRAFFIC, HookKind, HookStatus, LifecycleStage as Stage};
use berth_model::service::RolloutState;
use berth_model::service_deployment::{ServiceDeployment, ServiceDeploymentStatus as Status, ServiceRevisionId};
use berth_model::task::{DesiredStatus, HealthStatus, StopCode, TaskStatus};
use proptest::prelude::*;
use shifting::{MINUTE, Shifting, bake, hook};

#[test]
fn green_comes_up_beside_blue_takes_over_and_bakes() {
    let mut shifting = Shifting::new(3);
    shifting.deploy(|record| bake(record, 5));
    shifting.run_until(Stage::ScaleUp);
    shifting.run(20);
    assert_eq!(shifting.world.live(), 6, "maximumPercent does not bind");
    shifting.run_until(Stage::BakeTime);
    assert_eq!(shifting.world.live(), 6);
    let why = shifting.run(5);
    assert!(why.iter().any(|why| why.contains("BAKE_TIME")), "{why:?}");
    assert_eq!(shifting.stage(), Stage::BakeTime, "ten seconds are five minutes here");
    shifting.run(20);
    assert_eq!(shifting.record().status, Status::Successful);
    assert!(shifting.is_back_on(2));
    assert!(shifting.world.events.contains(&"(deployment ecs-svc/2) deployment completed.".to_owned()));
    let stages: Vec<_> = shifting.seen.iter().map(|seen| seen.0).collect();
    assert_eq!(stages, [Stage::ScaleUp, Stage::BakeTime, Stage::CleanUp], "what waits for nothing is passed at once");
    assert_eq!(shifting.world.service.completed_revision, Some(ServiceRevisionId(2)));
}

#[test]
fn linear_and_canary_go_in_steps() {
    let mut linear = Shifting::new(1);
    linear.deploy(|record| {
        record.configuration.strategy = Some("LINEAR".into());
        let rules = record.configuration.linear_configuration.get_or_insert_default();
        rules.step_percent = Some(30.0);
        rules.step_bake_time_in_minutes = Some(3);
    });
    linear.run(100);
    let weights: Vec<_> = linear.seen.iter().map(|seen| seen.2).filter(|weight| *weight > 0).collect();
    assert_eq!(weights, [300, 600, 900, 1_000]);
    assert_eq!(linear.record().status, Status::Successful);

    let mut canary = Shifting::new(1);
    canary.deploy(|record| {
        record.configuration.strategy = Some("CANARY".into());
        record.configuration.canary_configuration.get_or_insert_default().canary_percent = Some(0.1);
        hook(record, HookKind::Pause, &[Stage::PreProductionTrafficShift]);
    });
    let mut pauses = 0;
    for _ in 0..120 {
        canary.run(1);
        pauses += canary.settle(HookKind::Pause, HookStatus::Succeeded);
    }
    let weights: Vec<_> = canary.seen.iter().map(|seen| seen.2).filter(|weight| *weight > 0).collect();
    assert_eq!((pauses, weights.first(), weights.last()), (2, Some(&1), Some(&1_000)), "one before each step");
    assert_eq!(canary.record().status, Status::Successful);
}

#[test]
fn a_rollback_takes_the_traffic_back_before_green_stops() {
    let mut shifting = Shifting::new(2);
    shifting.deploy(|record| {
        bake(record, 100);
        hook(record, HookKind::Lambda, &[Stage::ProductionTrafficShift, Stage::TestTrafficShift]);
    });
    let mut calls = 0;
    for _ in 0..60 {
        shifting.run(1);
        calls += shifting.settle(HookKind::Lambda, HookStatus::Succeeded);
    }
    assert_eq!((shifting.stage(), calls), (Stage::BakeTime, 2));
    let blue: Vec<_> = shifting.of(DeploymentId(1)).map(|task| task.id).collect();
    shifting.ask_back();
    shifting.run(3);
    assert_eq!(shifting.stage(), Stage::ProductionTrafficShift);
    let rollout = shifting.record().rollout.clone().unwrap();
    assert_eq!((rollout.test_weight, rollout.production_weight), (ALL_TRAFFIC, 0));
    assert_eq!(shifting.of(DeploymentId(2)).filter(|task| task.desired == DesiredStatus::Running).count(), 2, "its hook has not answered");
    // What a hook says on the way back stops nobody.
    assert_eq!(shifting.settle(HookKind::Lambda, HookStatus::Failed), 1);
    shifting.run(1);
    assert_eq!(shifting.stage(), Stage::TestTrafficShift);
    shifting.settle(HookKind::Lambda, HookStatus::Succeeded);
    shifting.run(3);
    assert_eq!(shifting.record().status, Status::RollbackSuccessful);
    assert!(shifting.is_back_on(1));
    assert!(shifting.of(DeploymentId(1)).map(|task| task.id).eq(blue), "no task of blue was touched, and none is new");
    assert_eq!(shifting.record().rollback.as_ref().and_then(|back| back.revision), Some(ServiceRevisionId(1)));
}

#[test]
fn a_hook_that_fails_or_times_out_sends_it_back() {
    for (status, word) in [(Some(HookStatus::Failed), "said so"), (None, "timed out")] {
        let mut shifting = Shifting::new(1);
        shifting.deploy(|record| {
            hook(record, HookKind::Lambda, &[Stage::PostScaleUp]);
            let hook = record.configuration.lifecycle_hooks.as_mut().unwrap().last_mut().unwrap();
            hook.timeout_configuration.get_or_insert_default().timeout_in_minutes = Some(10);
        });
        shifting.run_until(Stage::PostScaleUp);
        if let Some(status) = status {
            assert_eq!(shifting.settle(HookKind::Lambda, status), 1);
        }
        shifting.run(30);
        let record = shifting.record();
        assert_eq!(record.status, Status::RollbackSuccessful);
        assert!(record.rollback.as_ref().is_some_and(|back| back.reason.contains(word)), "{:?}", record.rollback);
        assert!(shifting.is_back_on(1));
    }
}

#[test]
fn a_timeout_may_be_told_to_go_on() {
    let mut shifting = Shifting::new(1);
    shifting.deploy(|record| {
        hook(record, HookKind::Pause, &[Stage::PreScaleUp]);
        let hook = record.configuration.lifecycle_hooks.as_mut().unwrap().last_mut().unwrap();
        let timeout = hook.timeout_configuration.get_or_insert_default();
        (timeout.timeout_in_minutes, timeout.action) = (Some(10), Some("CONTINUE".into()));
    });
    let why = shifting.run(10);
    assert!(why.iter().any(|why| why.contains("ContinueServiceDeployment")), "{why:?}");
    assert_eq!(shifting.world.live(), 1, "green has not started");
    shifting.run(80);
    assert_eq!(shifting.record().status, Status::Successful);
    assert_eq!(shifting.record().rollout.as_ref().map(|rollout| rollout.hooks[0].status), Some(HookStatus::TimedOut));
}

#[test]
fn green_that_cannot_start_waits_or_breaks() {
    let mut waits = Shifting::new(2);
    waits.broken.push(DeploymentId(2));
    waits.deploy(|_| {});
    let why = waits.run(300);
    assert_eq!((waits.stage(), waits.record().status), (Stage::ScaleUp, Status::InProgress));
    assert!(why.iter().any(|why| why.contains("come up")), "{why:?}");
    let mut breaks = Shifting::new(2);
    breaks.broken.push(DeploymentId(2));
    breaks.deploy(|record| record.configuration.deployment_circuit_breaker.get_or_insert_default().enable = Some(true));
    breaks.run(300);
    assert_eq!(breaks.record().status, Status::RollbackSuccessful, "{:?}", breaks.record());
    assert!(breaks.is_back_on(1));
}

#[test]
fn what_fails_its_health_check_is_replaced_in_its_own_revision() {
    let mut shifting = Shifting::new(2);
    shifting.deploy(|record| bake(record, 1_000));
    shifting.run_until(Stage::BakeTime);
    for id in [1, 2] {
        let sick = shifting.world.tasks.iter_mut().find(|task| task.deployment == DeploymentId(id)).unwrap();
        (sick.has_check, sick.health) = (true, HealthStatus::Unhealthy);
    }
    shifting.run(10);
    assert_eq!(shifting.world.live(), 6, "both stay until others are healthy");
    shifting.run(60);
    assert_eq!((shifting.healthy(DeploymentId(1)), shifting.healthy(DeploymentId(2)), shifting.world.live()), (2, 2, 4));
    assert_eq!(shifting.stage(), Stage::BakeTime);
}

#[test]
fn a_stage_that_takes_longer_than_a_day_fails() {
    let mut shifting = Shifting::new(1);
    shifting.broken.push(DeploymentId(2));
    shifting.deploy(|_| {});
    shifting.run(1_440 * MINUTE / 1_000 + 60);
    assert_eq!(shifting.record().status, Status::RollbackSuccessful);
    assert!(shifting.record().rollback.as_ref().is_some_and(|back| back.reason.contains("SCALE_UP timed out")));
}

#[test]
fn a_newer_deployment_reconciles_first_and_keeps_blue() {
    let mut shifting = Shifting::new(2);
    shifting.deploy(|record| bake(record, 100));
    shifting.run_until(Stage::BakeTime);
    shifting.deploy(|record| hook(record, HookKind::Pause, &[Stage::ReconcileService]));
    assert_eq!(shifting.stage(), Stage::ReconcileService);
    shifting.run(5);
    assert!(shifting.of(DeploymentId(2)).all(|task| task.desired == DesiredStatus::Stopped), "what never came out goes");
    assert_eq!(shifting.world.live(), 2);
    shifting.settle(HookKind::Pause, HookStatus::Succeeded);
    shifting.run(70);
    assert_eq!(shifting.record().status, Status::Successful);
    assert!(shifting.is_back_on(3));
}

#[test]
fn a_blue_revision_that_never_starts_holds_up_nothing() {
    for replaced in [false, true] {
        let mut shifting = Shifting::new(0);
        // It came out while nothing was wanted of it.
        shifting.world.fates.insert(DeploymentId(1), world::Fate::NeverRun);
        shifting.world.service.desired_count = 2;
        shifting.world.service.announced_steady = false;
        shifting.world.run(20);
        shifting.deploy(|_| {});
        if replaced {
            shifting.run(20);
            shifting.deploy(|_| {});
        }
        let why = shifting.run(600);
        assert_eq!(shifting.record().status, Status::Successful, "{replaced}: {why:?}");
        assert_eq!(shifting.world.live(), 2);
    }
}

#[test]
fn a_rolling_update_is_held_back_before_its_first_task_and_its_end() {
    let mut shifting = Shifting::new(2);
    shifting.deploy(|record| {
        record.configuration.strategy = Some("ROLLING".into());
        hook(record, HookKind::Pause, &[Stage::PreScaleUp, Stage::PostScaleUp]);
    });
    shifting.run(5);
    shifting.world.stop(0, StopCode::EssentialContainerExited);
    shifting.run(60);
    assert_eq!(
        (shifting.of(DeploymentId(2)).count(), shifting.healthy(DeploymentId(1))),
        (0, 2),
        "what dies is replaced in its own revision"
    );
    shifting.settle(HookKind::Pause, HookStatus::Succeeded);
    shifting.run(120);
    assert_eq!((shifting.stage(), shifting.record().status), (Stage::PostScaleUp, Status::InProgress));
    assert_eq!(shifting.world.service.deployments[0].rollout_state, RolloutState::InProgress);
    shifting.settle(HookKind::Pause, HookStatus::Succeeded);
    shifting.run(2);
    assert_eq!(shifting.record().status, Status::Successful);
    assert!(shifting.is_back_on(2));
}

#[test]
fn a_rolling_update_that_is_refused_at_its_end_goes_back() {
    let mut shifting = Shifting::new(1);
    shifting.deploy(|record| {
        record.configuration.strategy = Some("ROLLING".into());
        hook(record, HookKind::Pause, &[Stage::PostScaleUp]);
    });
    shifting.run_until(Stage::PostScaleUp);
    shifting.settle(HookKind::Pause, HookStatus::Failed);
    shifting.run(100);
    assert_eq!(shifting.record().status, Status::RollbackSuccessful);
    assert_eq!(shifting.world.service.primary().and_then(|primary| primary.revision), Some(ServiceRevisionId(1)));
}

#[test]
fn a_first_deployment_walks_through_and_does_not_bake() {
    let mut shifting = Shifting::new(1);
    shifting.world.service.completed_revision = None;
    shifting.world.service.deployments.clear();
    shifting.world.tasks.clear();
    shifting.world.service.settings.deployment_configuration.bake_time_in_minutes = Some(1_000);
    shifting.deploy(|record| {
        bake(record, 1_000);
        hook(record, HookKind::Pause, &[Stage::PostScaleUp, Stage::PostProductionTrafficShift]);
    });
    for _ in 0..10 {
        shifting.run(10);
        shifting.settle(HookKind::Pause, HookStatus::Succeeded);
    }
    assert_eq!(shifting.record().status, Status::Successful);
    let rollout = shifting.record().rollout.clone().unwrap();
    assert_eq!((rollout.production_weight, rollout.hooks.len()), (ALL_TRAFFIC, 2));
}

#[derive(Debug, Clone)]
enum Fate {
    Nothing,
    Dies(usize),
    Scale(u32),
    Back,
    Deploy(u8),
    Break(bool),
    Settle(bool, bool),
    Drain(u128),
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        12 => Just(Fate::Nothing),
        4 => (0_usize..64).prop_map(Fate::Dies),
        2 => (0_u32..6).prop_map(Fate::Scale),
        1 => Just(Fate::Back),
        2 => (0_u8..16).prop_map(Fate::Deploy),
        1 => any::<bool>().prop_map(Fate::Break),
        8 => (any::<bool>(), prop::bool::weighted(0.15)).prop_map(|(kind, fails)| Fate::Settle(kind, fails)),
        1 => (0_u128..2).prop_map(Fate::Drain),
    ]
}

fn kind(is_pause: bool) -> HookKind {
    if is_pause { HookKind::Pause } else { HookKind::Lambda }
}

/// A strategy and hooks out of four bits.
fn configure(record: &mut ServiceDeployment, bits: u8) {
    let name = ["BLUE_GREEN", "LINEAR", "CANARY", "ROLLING"][usize::from(bits & 3)];
    record.configuration.strategy = Some(name.into());
    bake(record, i32::from(bits) * 2);
    if name == "LINEAR" {
        record.configuration.linear_configuration.get_or_insert_default().step_percent = Some(25.0);
    }
    let is_pause = bits & 4 != 0;
    if bits & 8 != 0 || name == "ROLLING" {
        hook(record, kind(is_pause), &[Stage::PreScaleUp, Stage::PostScaleUp, Stage::PreProductionTrafficShift]);
        hook(record, HookKind::Lambda, &[Stage::TestTrafficShift, Stage::ProductionTrafficShift]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..Default::default() })]

    /// Whatever happens, the auditor finds nothing, and in the end every deployment has ended or says what it waits for.
    #[test]
    fn blue_serves_until_the_end_whatever_happens(desired in 0_u32..5, first in 0_u8..16, fates in prop::collection::vec(fate(), 1..60)) {
        let mut shifting = Shifting::new(desired);
        shifting.deploy(|record| configure(record, first));
        for fate in fates {
            match fate {
                Fate::Nothing => {}
                Fate::Dies(at) => {
                    let live: Vec<_> = (0..shifting.world.tasks.len()).filter(|at| shifting.world.tasks[*at].last == TaskStatus::Running).collect();
                    if !live.is_empty() {
                        shifting.world.stop(live[at % live.len()], StopCode::EssentialContainerExited);
                    }
                }
                Fate::Scale(desired) => shifting.world.service.desired_count = desired,
                Fate::Back => shifting.ask_back(),
                Fate::Deploy(bits) => shifting.deploy(|record| configure(record, bits)),
                Fate::Break(is_broken) => {
                    let primary = shifting.world.service.primary().unwrap().id;
                    shifting.broken.retain(|id| *id != primary);
                    if is_broken {
                        shifting.broken.push(primary);
                    }
                }
                Fate::Settle(is_pause, fails) => {
                    shifting.settle(kind(is_pause), if fails { HookStatus::Failed } else { HookStatus::Succeeded });
                }
                Fate::Drain(machine) => shifting.world.drain(machine),
            }
            shifting.run(7);
        }
        shifting.broken.clear();
        for _ in 0..400 {
            shifting.settle(HookKind::Pause, HookStatus::Succeeded);
            shifting.settle(HookKind::Lambda, HookStatus::Succeeded);
            shifting.run(5);
        }
        let why = shifting.step();
        prop_assert!(shifting.record().status.is_finished(), "{:?} in {}: {why:?}", shifting.record().status, shifting.stage());
        prop_assert_eq!(shifting.world.live(), shifting.world.service.desired_count);
        prop_assert_eq!(shifting.world.service.deployments.len(), 1);
    }
}
