//! A service's history as its planner makes it: each deployment ends in the state that ECS gives it, and a rollback is the next plan.

#[allow(dead_code, reason = "each test binary uses its own part")]
mod world;

use berth_model::ids::{ContainerId, DeploymentId};
use berth_model::rollout::{LifecycleStage, Rollout};
use berth_model::service::{DeploymentStatus, RolloutState, Service};
use berth_model::service_deployment::{
    RevisionImage, RevisionTally, ServiceDeployment, ServiceDeploymentId, ServiceDeploymentStatus as Status, ServiceRevision,
    ServiceRevisionId,
};
use berth_model::task::{Container, ContainerStatus, HealthStatus};
use berth_model::time::UnixMillis;
use berth_scheduler::service::history::{NO_CANDIDATE, advance, deployment, roll_back, with_digests};
use world::{World, service};

fn revision(number: u64) -> ServiceRevision {
    let of = world::deployment(number, DeploymentStatus::Primary);
    let service = service(1, 100, 200);
    ServiceRevision {
        id: ServiceRevisionId(number),
        cluster: service.cluster,
        service: service.name,
        definition: of.definition,
        launch_type: service.launch_type,
        capacity_provider_strategy: Vec::new(),
        settings: service.settings,
        images: Vec::new(),
        created_at: UnixMillis(0),
    }
}

fn id(number: u128) -> ServiceDeploymentId {
    ServiceDeploymentId::from_random(number << 2)
}

fn record(number: u64, candidate: Option<u64>) -> ServiceDeployment {
    let service = service(1, 100, 200);
    ServiceDeployment {
        id: id(number.into()),
        cluster: service.cluster,
        service: service.name,
        status: Status::Pending,
        status_reason: None,
        sources: candidate.map(|of| RevisionTally::none(ServiceRevisionId(of))).into_iter().collect(),
        target: RevisionTally::none(ServiceRevisionId(number)),
        candidate: candidate.map(ServiceRevisionId),
        configuration: Default::default(),
        rollback: None,
        breaker: None,
        triggered_alarms: Vec::new(),
        rollout: None,
        created_at: UnixMillis(0),
        started_at: None,
        finished_at: None,
        stopped_at: None,
        updated_at: UnixMillis(0),
    }
}

/// A world whose service deploys revision 1 under service deployment 1.
fn begun() -> (World, ServiceDeployment) {
    let mut world = World::new(service(2, 100, 200));
    world.service.deployments = vec![deployment(DeploymentId(1), &revision(1), id(1), world.now)];
    (world, record(1, None))
}

fn deploy(world: &mut World, number: u64) {
    for old in &mut world.service.deployments {
        old.status = DeploymentStatus::Active;
    }
    world.service.deployments.insert(0, deployment(DeploymentId(number), &revision(number), id(number.into()), world.now));
    world.service.announced_steady = false;
}

/// Counts as if every revision had two running tasks.
fn two(revision: ServiceRevisionId) -> RevisionTally {
    RevisionTally { revision, requested: 2, running: 2, pending: 0 }
}

fn follow(record: &mut ServiceDeployment, service: &Service, now: UnixMillis) -> bool {
    let next = advance(record, service, None, two, now);
    let changes = next.is_some();
    if let Some(next) = next {
        *record = next;
    }
    changes
}

#[test]
fn it_begins_and_succeeds_with_the_plan_and_then_stays() {
    let (mut world, mut record) = begun();
    assert!(follow(&mut record, &world.service, UnixMillis(5)));
    assert_eq!((record.status, record.started_at, record.finished_at), (Status::InProgress, Some(UnixMillis(5)), None));
    assert!(!follow(&mut record, &world.service, UnixMillis(6)), "nothing is new");
    assert_eq!(record.target.running, 0, "counted only at the end");
    world.run(60);
    assert!(follow(&mut record, &world.service, world.now));
    assert_eq!((record.status, record.finished_at, record.stopped_at), (Status::Successful, Some(world.now), None));
    assert_eq!(record.target, two(ServiceRevisionId(1)));
    deploy(&mut world, 2);
    assert!(!follow(&mut record, &world.service, world.now), "what ended stays as it ended");
}

#[test]
fn what_stages_counted_is_not_counted_again_by_what_the_service_is_set_to_meanwhile() {
    let (mut world, mut record) = begun();
    assert!(follow(&mut record, &world.service, UnixMillis(5)));
    assert_eq!(record.breaker, None, "it is off");
    let breaker = world.service.settings.deployment_configuration.deployment_circuit_breaker.get_or_insert_default();
    breaker.enable = Some(true);
    let mut rolling = record.clone();
    assert!(follow(&mut rolling, &world.service, UnixMillis(6)));
    assert!(rolling.breaker.is_some(), "a rolling update goes by what the service is set to");
    record.rollout = Some(Rollout {
        stage: LifecycleStage::ScaleUp,
        since: UnixMillis(5),
        is_entered: true,
        visit: 1,
        step: 0,
        test_weight: 0,
        production_weight: 0,
        blue: Some(DeploymentId(9)),
        green: Some(DeploymentId(1)),
        hooks: Vec::new(),
    });
    assert!(!follow(&mut record, &world.service, UnixMillis(6)), "two revisions side by side go by what the deployment began with");
}

#[test]
fn one_that_has_nothing_to_do_succeeds_at_once() {
    let (mut world, mut record) = begun();
    world.service.desired_count = 0;
    world.step();
    assert!(follow(&mut record, &world.service, world.now));
    assert_eq!((record.status, record.started_at), (Status::Successful, record.finished_at));
}

#[test]
fn a_newer_one_stops_it_and_makes_a_rollback_fail() {
    let (mut world, mut stopped) = begun();
    let mut returning = ServiceDeployment { status: Status::RollbackInProgress, ..stopped.clone() };
    follow(&mut stopped, &world.service, UnixMillis(1));
    deploy(&mut world, 2);
    assert!(follow(&mut stopped, &world.service, UnixMillis(9)));
    assert_eq!((stopped.status, stopped.stopped_at, stopped.finished_at), (Status::Stopped, Some(UnixMillis(9)), Some(UnixMillis(9))));
    assert!(follow(&mut returning, &world.service, UnixMillis(9)));
    assert_eq!(returning.status, Status::RollbackFailed);
    assert!(returning.status_reason.is_some_and(|why| why.contains("newer")));
}

#[test]
fn a_rollback_is_a_new_deployment_of_the_earlier_revision() {
    let (mut world, _) = begun();
    world.run(60);
    deploy(&mut world, 2);
    world.service.settings.enable_execute_command = true;
    world.service.settings.health_check_grace_period_seconds = Some(9);
    let mut record = record(2, Some(1));
    follow(&mut record, &world.service, world.now);
    assert!(roll_back(&world.service, &record, Some(&revision(1)), DeploymentId(3), world.now).is_none(), "nobody asked for it");
    record.status = Status::RollbackRequested;
    record.status_reason = Some("why".to_owned());
    let back = roll_back(&world.service, &record, Some(&revision(1)), DeploymentId(3), world.now).expect("it was asked for");
    assert_eq!(back.announcement, "rolling back to deployment ecs-svc/3.");
    assert_eq!(back.record.status, Status::RollbackInProgress);
    let rollback = back.record.rollback.clone().expect("it says so");
    assert_eq!((rollback.revision, &*rollback.reason), (Some(ServiceRevisionId(1)), "why"));
    let primary = back.service.primary().expect("one is PRIMARY");
    assert_eq!((primary.id, primary.revision, primary.service_deployment), (DeploymentId(3), Some(ServiceRevisionId(1)), Some(record.id)));
    assert_eq!(primary.definition.revision, 1);
    assert_eq!(back.service.deployments.iter().filter(|one| one.status == DeploymentStatus::Primary).count(), 1);
    assert_eq!(back.service.deployments[1].rollout_state, RolloutState::Failed);
    let settings = &back.service.settings;
    assert_eq!((settings.enable_execute_command, settings.health_check_grace_period_seconds), (false, Some(9)));
    (world.service, record) = (back.service, back.record);
    assert!(roll_back(&world.service, &record, Some(&revision(1)), DeploymentId(4), world.now).is_none(), "it goes back once");
    assert!(!follow(&mut record, &world.service, world.now), "its own deployment is PRIMARY");
    world.run(120);
    assert!(follow(&mut record, &world.service, world.now));
    assert_eq!(record.status, Status::RollbackSuccessful);
    assert!(world.is_steady_on(3));
}

#[test]
fn without_a_candidate_it_fails_and_starts_nothing_more() {
    let (mut world, mut record) = begun();
    record.status = Status::RollbackRequested;
    let back = roll_back(&world.service, &record, None, DeploymentId(3), UnixMillis(7)).expect("it was asked for");
    assert_eq!((back.record.status, back.record.status_reason.as_deref()), (Status::RollbackFailed, Some(NO_CANDIDATE)));
    assert_eq!(back.record.finished_at, Some(UnixMillis(7)));
    world.service = back.service;
    let steps = world.step();
    assert_eq!((steps.start, world.service.deployments.len()), (0, 1));
    assert!(steps.why.iter().any(|why| why.contains("failed")), "{:?}", steps.why);
    world.run(100);
    assert_eq!(world.service.deployments[0].rollout_state, RolloutState::Failed);
}

#[test]
fn digests_are_filled_in_once() {
    let image = |name: &str, digest: Option<&str>| RevisionImage {
        container: name.to_owned(),
        image: "web:1".to_owned(),
        digest: digest.map(str::to_owned),
    };
    let container = |name: &str, digest: Option<&str>| Container {
        id: ContainerId(1),
        name: name.into(),
        image: "web:1".into(),
        last_status: ContainerStatus::Running,
        exit_code: None,
        reason: None,
        runtime_id: None,
        image_digest: digest.map(Into::into),
        network_bindings: Vec::new(),
        gpu_ids: Vec::new(),
        health_status: HealthStatus::Unknown,
    };
    let open = ServiceRevision { images: vec![image("a", None), image("b", None)], ..revision(1) };
    assert_eq!(with_digests(&open, &[container("a", None)]), None);
    let half = with_digests(&open, &[container("a", Some("one")), container("a", Some("two"))]).expect("one is told");
    assert_eq!(half.images, [image("a", Some("one")), image("b", None)]);
    let whole = with_digests(&half, &[container("a", Some("two")), container("b", Some("three"))]).expect("the other is told");
    assert_eq!(whole.images, [image("a", Some("one")), image("b", Some("three"))]);
    assert_eq!(with_digests(&whole, &[container("a", Some("two"))]), None);
}
