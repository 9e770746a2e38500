//! Deployment alarms: an alarm that goes off while a deployment goes on ends it, and only then.

#[allow(dead_code, reason = "each test binary uses its own part")]
mod shifting;
#[allow(dead_code, reason = "each test binary uses its own part")]
mod world;

use berth_model::alarm::AlarmState;
use berth_model::ids::DeploymentId;
use berth_model::rollout::LifecycleStage as Stage;
use berth_model::service::{RolloutState, ServiceSettings};
use berth_model::service_deployment::ServiceDeploymentStatus as Status;
use berth_scheduler::service::{ALARM_TRIGGERED, ServicePlan};
use shifting::{Shifting, bake};
use world::{World, service};

fn watch(settings: &mut ServiceSettings, enable: bool) {
    let alarms = settings.deployment_configuration.alarms.get_or_insert_default();
    (alarms.enable, alarms.rollback) = (Some(enable), Some(true));
    alarms.alarm_names = Some(vec!["slow".to_owned(), "errors".to_owned()]);
}

fn state(world: &World) -> RolloutState {
    world.service.primary().unwrap().rollout_state
}

/// A service of two whose revision 2 begins to come out.
fn deploying(enable: bool) -> World {
    let mut world = World::new(service(2, 100, 200));
    world.run(60);
    watch(&mut world.service.settings, enable);
    world.deploy(2);
    world
}

#[test]
fn an_alarm_ends_a_deployment_whose_tasks_run_and_asks_to_go_back_once() {
    let mut world = deploying(true);
    world.run(3);
    world.alarm("slow", AlarmState::Alarm);
    // It is over before anybody looks; that it came is not forgotten.
    world.alarm("slow", AlarmState::Ok);
    let plans: Vec<ServicePlan> = (0..30).map(|_| world.step()).collect();
    assert_eq!(state(&world), RolloutState::Failed);
    assert_eq!(plans.iter().filter_map(|plan| plan.rollback).collect::<Vec<_>>(), [ALARM_TRIGGERED]);
    let primary = world.service.primary().unwrap();
    assert_eq!((primary.progress.triggered_alarms.join(","), primary.rollout_state_reason.contains("alarm")), ("slow".to_owned(), true));
    assert_eq!(world.events.iter().filter(|event| event.ends_with("deployment failed: alarm detected.")).count(), 1);
    assert!(world.healthy() >= 2, "the old tasks stay");
}

#[test]
fn alarms_of_others_and_alarms_from_before_say_nothing() {
    let mut world = deploying(true);
    world.alarm("slow", AlarmState::Alarm);
    world.run(3);
    world.alarm("another", AlarmState::Alarm);
    world.run(300);
    assert!(world.is_steady_on(2), "{:?}", world.plan(false).why);
    // It goes off when the deployment is over.
    world.alarm("errors", AlarmState::Alarm);
    world.run(10);
    assert!(world.is_steady_on(2));

    let mut off = deploying(false);
    off.run(3);
    off.alarm("slow", AlarmState::Alarm);
    off.run(60);
    assert!(off.is_steady_on(2));
}

#[test]
fn a_deployment_bakes_for_as_long_as_its_alarms_need_to_notice() {
    let mut world = deploying(true);
    world.alarm("slow", AlarmState::Ok);
    world.run(45);
    assert_eq!(state(&world), RolloutState::InProgress);
    assert!(world.plan(false).why.iter().any(|why| why.contains("alarms' window")), "{:?}", world.plan(false).why);
    world.alarm("errors", AlarmState::Alarm);
    world.run(2);
    assert_eq!(state(&world), RolloutState::Failed);

    let mut quiet = deploying(true);
    quiet.alarm("slow", AlarmState::Ok);
    quiet.run(120);
    assert!(quiet.is_steady_on(2));
}

#[test]
fn an_alarm_sends_a_blue_green_deployment_back_until_blue_stops() {
    let mut shifting = Shifting::new(2);
    shifting.deploy(|record| {
        bake(record, 1_000);
        let mut settings = ServiceSettings::default();
        watch(&mut settings, true);
        record.configuration.alarms = settings.deployment_configuration.alarms;
    });
    shifting.run_until(Stage::BakeTime);
    shifting.world.alarm("errors", AlarmState::Alarm);
    shifting.run(60);
    let record = shifting.record();
    assert_eq!((record.status, record.triggered_alarms.join(",")), (Status::RollbackSuccessful, "errors".to_owned()));
    assert_eq!(record.rollback.as_ref().map(|back| back.reason.as_str()), Some(ALARM_TRIGGERED));
    assert!(shifting.is_back_on(1));
    assert_eq!(shifting.of(DeploymentId(2)).filter(|task| task.stopped_at.is_none()).count(), 0);
}
