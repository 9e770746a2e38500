//! Tasks driven over a fake machine under virtual time: what is reported, in which order, and what is left.

use std::time::Duration;

use berth_acs::messages as acs;
use berth_shapes::ecs::{ContainerStateChange, SubmitTaskStateChangeRequest};
use tempfile::TempDir;

use super::*;
use crate::fakes::{FakeNetwork, FakeRuntime, arn, machine, stopped, task};
use crate::sources::AwsSources;

mod clock;
mod health;
mod host_restart;
mod interfaces;
mod links;
mod metadata_file;
mod port_ranges;
mod pulls;
mod refusals;
mod restarts;

struct World {
    runtime: Arc<FakeRuntime>,
    network: Arc<FakeNetwork>,
    dir: TempDir,
    config: AgentConfig,
    tasks: Arc<Tasks>,
    inbox: mpsc::Receiver<Submission>,
    stop: CancellationToken,
    clock: Clock,
}

fn tasks(
    world: (&Arc<FakeRuntime>, &Arc<FakeNetwork>),
    config: &AgentConfig,
    clock: Clock,
    stop: &CancellationToken,
) -> (Arc<Tasks>, mpsc::Receiver<Submission>) {
    let (submissions, inbox) = mpsc::channel(64);
    let ledger = Ledger::open(&config.data_dir).unwrap();
    let images = Images::open(config, world.0.clone(), ledger.clone(), clock.clone()).unwrap();
    let means = Means {
        config: config.clone(),
        runtime: world.0.clone(),
        network: world.1.clone(),
        names: crate::names::Names::new(config.dns.clone(), ledger.clone()),
        sources: Arc::new(AwsSources::new(config.service_endpoints.clone(), config.access_key.clone(), clock.clone())),
        ledger,
        clock,
        pulls: PullGate::new(4),
        images: Arc::new(images),
        submissions,
        volumes: Default::default(),
        shared: Default::default(),
        port_ranges: PortRanges::new(config.dynamic_host_ports.clone()),
        endpoint: Default::default(),
    };
    (Tasks::new(Arc::new(means), stop.clone()), inbox)
}

impl World {
    fn new() -> Self {
        Self::with(Clock::Tokio(tokio::time::Instant::now(), 4_000_000))
    }

    fn with(clock: Clock) -> Self {
        let (runtime, network) = machine();
        let dir = tempfile::tempdir().unwrap();
        let config = AgentConfig { region: "eu-west-1".into(), data_dir: dir.path().to_owned(), ..Default::default() };
        let stop = CancellationToken::new();
        let (tasks, inbox) = tasks((&runtime, &network), &config, clock.clone(), &stop);
        Self { runtime, network, dir, config, tasks, inbox, stop, clock }
    }

    async fn take(&self, task: &acs::Task) {
        self.tasks.take(task.clone()).await.unwrap();
    }

    /// The next report, which is accepted.
    async fn report(&mut self) -> SubmitTaskStateChangeRequest {
        let submission = tokio::time::timeout(Duration::from_secs(3600), self.inbox.recv()).await.expect("no report came").unwrap();
        if let Some(done) = submission.done {
            done.send(()).unwrap();
        }
        submission.request
    }

    /// The next report's statuses, `TASK name=STATUS(exit code) ..`.
    async fn word(&mut self) -> String {
        summary(&self.report().await)
    }

    async fn is_quiet(&mut self) -> bool {
        tokio::time::timeout(Duration::from_secs(1), self.inbox.recv()).await.is_err()
    }

    /// The agent is killed and comes back.
    async fn restart(&mut self) {
        self.restart_in("the same boot").await;
    }

    /// The agent comes back in a boot of the machine.
    async fn restart_in(&mut self, boot_id: &str) {
        self.stop.cancel();
        self.tasks.ended().await;
        self.stop = CancellationToken::new();
        (self.tasks, self.inbox) = tasks((&self.runtime, &self.network), &self.config, self.clock.clone(), &self.stop);
        self.tasks.recover(boot_id).await.unwrap();
    }

    /// How many tasks the ledger keeps.
    fn kept(&self) -> usize {
        self.tasks.means.ledger.tasks().unwrap().0.len()
    }
}

fn summary(request: &SubmitTaskStateChangeRequest) -> String {
    let one = |change: &ContainerStateChange| {
        let code = change.exit_code.map(|code| format!("({code})")).unwrap_or_default();
        format!(" {}={}{code}", change.container_name.as_deref().unwrap(), change.status.as_deref().unwrap())
    };
    let containers: String = request.containers.iter().flatten().map(one).collect();
    format!("{}{containers}", request.status.as_deref().unwrap())
}

fn reason(request: &SubmitTaskStateChangeRequest, index: usize) -> String {
    request.containers.as_ref().unwrap()[index].reason.clone().unwrap_or_default()
}

fn depends(task: &mut acs::Task, index: usize, on: &str, condition: &str) {
    task.containers[index].depends_on.push(acs::ContainerDependency { container_name: on.into(), condition: condition.into() });
}

#[tokio::test(start_paused = true)]
async fn a_task_runs_and_is_stopped() {
    let mut world = World::new();
    let mut task = task("t1", &[("main", "app")]);
    task.containers[0].port_mappings = vec![acs::PortMapping { container_port: 80, host_port: 8080, ..Default::default() }];
    world.take(&task).await;
    let running = world.report().await;
    assert_eq!(summary(&running), "RUNNING main=RUNNING");
    let container = &running.containers.as_ref().unwrap()[0];
    assert_eq!(container.runtime_id.as_deref(), Some("t1-0"));
    assert_eq!(container.image_digest.as_deref(), Some("sha256:app"));
    let binding = &container.network_bindings.as_ref().unwrap()[0];
    assert_eq!((binding.bind_ip.as_deref(), binding.container_port, binding.host_port), (Some("0.0.0.0"), Some(80), Some(8080)));
    assert!(running.pull_started_at.is_some() && running.pull_stopped_at.is_some() && running.execution_stopped_at.is_none());
    assert_eq!(world.network.ids(), ["t1-0"]);

    world.take(&task).await;
    assert!(world.is_quiet().await, "a task that is known is not started twice");
    world.take(&stopped(&task)).await;
    let over = world.report().await;
    assert_eq!(summary(&over), "STOPPED main=STOPPED(143)");
    assert!(over.execution_stopped_at.is_some() && over.containers.unwrap()[0].network_bindings.is_some());
    assert!(world.network.ids().is_empty(), "the port is free before anybody is told of the end");
    assert_eq!(world.runtime.ids(), ["t1-0"], "its output is kept for a while");
    assert_eq!(world.runtime.called("signal t1-0 15"), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_waits_on_the_way_to_running() {
    let mut world = World::new();
    let before = world.clock.now();
    world.take(&task("t1", &[("a", "app"), ("b", "other")])).await;
    assert_eq!(world.word().await, "RUNNING a=RUNNING b=RUNNING");
    assert_eq!(world.clock.now(), before, "no timer lies between a payload and its report");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ends_at_once_is_reported_running_first() {
    let mut world = World::new();
    world.take(&task("t1", &[("main", "job.exit=3")])).await;
    assert_eq!(world.word().await, "RUNNING main=RUNNING");
    assert_eq!(world.word().await, "STOPPED main=STOPPED(3)");
}

#[tokio::test(start_paused = true)]
async fn an_essential_end_stops_the_rest_and_the_deaf_are_killed() {
    let mut world = World::new();
    world.take(&task("t1", &[("main", "job.exit=0.after=50"), ("side", "deaf")])).await;
    assert_eq!(world.word().await, "RUNNING main=RUNNING side=RUNNING");
    let before = world.clock.now();
    assert_eq!(world.word().await, "STOPPED main=STOPPED(0) side=STOPPED(137)");
    assert_eq!(world.clock.now() - before, 30_050);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_not_essential_may_end() {
    let mut world = World::new();
    let mut task = task("t1", &[("main", "app"), ("side", "job.exit=1.after=50")]);
    task.containers[1].essential = false;
    world.take(&task).await;
    assert_eq!(world.word().await, "RUNNING main=RUNNING side=RUNNING");
    assert_eq!(world.word().await, "RUNNING main=RUNNING side=RUNNING side=STOPPED(1)");
    assert!(world.is_quiet().await);
    world.take(&stopped(&task)).await;
    assert_eq!(world.word().await, "STOPPED main=STOPPED(143) side=STOPPED(1)");
}

#[tokio::test(start_paused = true)]
async fn reasons_carry_their_class() {
    for (image, class, created) in [
        ("x.pull=error", "CannotPullContainerError: pull access denied or image not found: x.pull=error", false),
        ("x.create=error", "CannotCreateContainerError: sysctl x is not known", false),
        ("x.create=slow", "DockerTimeoutError: Could not transition to created; timed out after waiting 240s", false),
        ("x.start=error", "CannotStartContainerError: exec: \"nope\": executable file not found in $PATH", true),
    ] {
        let mut world = World::new();
        world.take(&task("t1", &[("main", image)])).await;
        let over = world.report().await;
        assert_eq!(summary(&over), "STOPPED main=STOPPED", "{image}");
        assert_eq!(reason(&over, 0), class);
        assert_eq!(over.containers.as_ref().unwrap()[0].runtime_id.is_some(), created, "{image}");
        assert!(world.runtime.ids().is_empty() && world.network.ids().is_empty(), "{image} leaves something");
    }
    let mut world = World::new();
    world.take(&task("t1", &[("main", "x.exit=137.oom")])).await;
    world.report().await;
    let over = world.report().await;
    assert_eq!(
        (summary(&over).as_str(), reason(&over, 0).as_str()),
        ("STOPPED main=STOPPED(137)", "OutOfMemoryError: Container killed due to memory usage")
    );
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_honoured_is_refused_before_anything_is_pulled() {
    let mut world = World::new();
    let mut bad = task("t1", &[("main", "app"), ("side", "app")]);
    bad.containers[1].firelens_configuration = Some(acs::FirelensConfiguration::default());
    world.take(&bad).await;
    let over = world.report().await;
    assert_eq!(summary(&over), "STOPPED main=STOPPED side=STOPPED");
    assert_eq!(reason(&over, 1), "CannotCreateContainerError: firelensConfiguration is not supported by this agent");

    let mut circle = task("t2", &[("a", "app"), ("b", "app")]);
    depends(&mut circle, 0, "b", "START");
    depends(&mut circle, 1, "a", "START");
    world.take(&circle).await;
    let over = world.report().await;
    assert_eq!(
        (over.status.as_deref(), over.reason.unwrap()),
        (Some("STOPPED"), format!("Task dependencies cannot be resolved, taskArn: {}", arn("t2")))
    );

    let mut unreadable = task("t3", &[("a", "app")]);
    unreadable.containers[0].overrides = acs::JsonText(r#"{"cpu":1}"#.into());
    assert!(matches!(world.tasks.take(unreadable).await, Err(TakeError::Plan(PlanError::Unreadable(_)))), "it is not acknowledged");
    assert!(world.report().await.reason.unwrap().starts_with("UnrecogniedTaskError: Error loading task - "));
    assert_eq!(world.kept(), 1, "only the first is in the ledger");
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_a_pull() {
    let mut world = World::new();
    let task = task("t1", &[("main", "app.pull=slow")]);
    world.take(&task).await;
    assert!(world.is_quiet().await);
    let before = world.clock.now();
    world.take(&stopped(&task)).await;
    let mut words = vec![world.word().await];
    if words[0].starts_with("PENDING") {
        words.push(world.word().await);
    }
    assert_eq!(words.last().unwrap(), "STOPPED main=STOPPED");
    assert_eq!(world.clock.now(), before);
    assert!(world.network.ids().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stop_of_what_was_never_here_is_answered() {
    let mut world = World::new();
    world.take(&stopped(&task("t9", &[("main", "app")]))).await;
    assert_eq!(world.word().await, "STOPPED");
    assert_eq!(world.kept(), 0);
}

#[tokio::test(start_paused = true)]
async fn order_of_start_and_stop() {
    let mut world = World::new();
    let mut task = task("t1", &[("app", "app"), ("migrate", "job.exit=0.after=100"), ("db", "db")]);
    task.containers[1].essential = false;
    depends(&mut task, 0, "migrate", "SUCCESS");
    depends(&mut task, 0, "db", "START");
    depends(&mut task, 1, "db", "START");
    world.take(&task).await;
    assert_eq!(world.word().await, "RUNNING app=RUNNING migrate=RUNNING db=RUNNING migrate=STOPPED(0)");
    let order = |what: &str, world: &World| {
        let calls = world.runtime.calls.lock();
        calls.iter().filter(|call| call.starts_with(what)).map(|call| call.split(' ').nth(1).unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(order("start", &world), ["t1-2", "t1-1", "t1-0"]);
    world.take(&stopped(&task)).await;
    assert_eq!(world.word().await, "STOPPED app=STOPPED(143) migrate=STOPPED(0) db=STOPPED(143)");
    assert_eq!(order("signal", &world), ["t1-0", "t1-2"]);
}

#[tokio::test(start_paused = true)]
async fn a_dependency_that_fails_ends_the_task() {
    let mut world = World::new();
    let mut task = task("t1", &[("app", "app"), ("migrate", "job.exit=9")]);
    task.containers[1].essential = false;
    depends(&mut task, 0, "migrate", "SUCCESS");
    world.take(&task).await;
    let over = world.report().await;
    assert_eq!(summary(&over), "STOPPED app=STOPPED migrate=STOPPED(9)");
    assert_eq!(reason(&over, 0), "dependency migrate ended with exit code 9, and SUCCESS was required");
}

#[tokio::test(start_paused = true)]
async fn a_dependency_has_its_start_timeout() {
    let mut world = World::new();
    let mut task = task("t1", &[("app", "app"), ("slow", "app")]);
    task.containers[1].start_timeout = 10;
    task.containers[1].essential = false;
    depends(&mut task, 0, "slow", "COMPLETE");
    world.take(&task).await;
    let mut report = world.report().await;
    while report.status.as_deref() != Some("STOPPED") {
        report = world.report().await;
    }
    assert_eq!(reason(&report, 0), "dependency slow did not end within its startTimeout");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_killed_is_given_up() {
    let mut world = World::new();
    let task = task("t1", &[("main", "immortal")]);
    world.take(&task).await;
    world.report().await;
    world.take(&stopped(&task)).await;
    let over = world.report().await;
    assert_eq!(summary(&over), "STOPPED main=STOPPED");
    assert!(reason(&over, 0).starts_with("CannotStopContainerError: "));
    assert_eq!(world.runtime.called("signal t1-0 9"), 5);
}

#[tokio::test(start_paused = true)]
async fn what_is_over_goes_when_its_time_has_come() {
    let mut world = World::new();
    tokio::spawn(world.tasks.clone().sweep());
    let mut task = task("t1", &[("main", "job.exit=0")]);
    task.volumes = vec![acs::Volume { name: "data".into(), kind: "host".into(), ..Default::default() }];
    task.containers[0].mount_points =
        vec![acs::MountPoint { source_volume: "data".into(), container_path: "/data".into(), read_only: false }];
    world.take(&task).await;
    world.report().await;
    world.report().await;
    let volume = world.dir.path().join("volumes/t1/data");
    assert!(volume.is_dir());
    assert_eq!(world.runtime.spec("t1-0").mounts[0].source, volume);
    tokio::time::sleep(Duration::from_secs(3 * 3600 - 10)).await;
    assert_eq!((world.runtime.ids().len(), world.kept(), world.tasks.records().len()), (1, 1, 1));
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!((world.runtime.ids().len(), world.kept(), world.tasks.records().len()), (0, 0, 0));
    assert!(!world.dir.path().join("volumes/t1").exists());
}

#[tokio::test(start_paused = true)]
async fn only_so_many_ended_tasks_are_kept() {
    let mut world = World::new();
    world.config.most_kept_tasks = 2;
    (world.tasks, world.inbox) = tasks((&world.runtime, &world.network), &world.config, world.clock.clone(), &world.stop);
    tokio::spawn(world.tasks.clone().sweep());
    for id in ["t1", "t2", "t3"] {
        world.take(&task(id, &[("main", "job.exit=0")])).await;
        world.report().await;
        world.report().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(world.runtime.ids(), ["t2-0", "t3-0"]);
}

#[tokio::test(start_paused = true)]
async fn a_killed_agent_goes_on_where_it_was() {
    let mut world = World::new();
    let kept = task("t1", &[("main", "app")]);
    let ended = task("t2", &[("main", "app")]);
    let lost = task("t3", &[("main", "app")]);
    let gone = task("t4", &[("main", "app")]);
    for task in [&kept, &ended, &lost, &gone] {
        world.take(task).await;
        assert_eq!(world.word().await, "RUNNING main=RUNNING");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.stop.cancel();
    world.tasks.ended().await;
    world.runtime.end("t2-0", 4);
    world.runtime.lose("t3-0");
    world.runtime.forget("t4-0");
    world.restart().await;

    let mut reports = [world.report().await, world.report().await, world.report().await];
    reports.sort_by_key(|report| report.task.clone());
    assert_eq!(summary(&reports[0]), "STOPPED main=STOPPED(4)");
    assert_eq!(reports[0].containers.as_ref().unwrap()[0].image_digest.as_deref(), Some("sha256:app"));
    assert_eq!(
        (summary(&reports[1]).as_str(), reason(&reports[1], 0).as_str()),
        ("STOPPED main=STOPPED", "ContainerVanishedError: nobody can say how the container ended")
    );
    assert_eq!(reason(&reports[2], 0), "ContainerVanishedError: the container is gone");
    assert!(world.is_quiet().await, "what runs and was reported is not reported again");
    assert_eq!(world.network.ids(), ["t1-0"]);

    world.take(&stopped(&kept)).await;
    assert_eq!(world.word().await, "STOPPED main=STOPPED(143)");
    assert_eq!(world.runtime.called("start"), 4, "nothing was started again");
}

#[tokio::test(start_paused = true)]
async fn a_report_that_was_not_accepted_is_sent_again_after_a_restart() {
    let mut world = World::new();
    world.take(&task("t1", &[("main", "job.exit=5")])).await;
    let submission = world.inbox.recv().await.unwrap();
    assert_eq!(summary(&submission.request), "RUNNING main=RUNNING");
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.restart().await;
    assert_eq!(world.word().await, "RUNNING main=RUNNING");
    assert_eq!(world.word().await, "STOPPED main=STOPPED(5)");
}

#[tokio::test(start_paused = true)]
async fn a_half_started_task_is_started_from_the_beginning() {
    let mut world = World::new();
    world.take(&task("t1", &[("main", "app.pull=slow")])).await;
    assert!(world.is_quiet().await);
    world.restart().await;
    assert_eq!(world.word().await, "RUNNING main=RUNNING");
    assert_eq!((world.runtime.called("pull"), world.runtime.called("start")), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_stop_survives_the_agent() {
    let mut world = World::new();
    let task = task("t1", &[("main", "deaf")]);
    world.take(&task).await;
    world.report().await;
    world.take(&stopped(&task)).await;
    assert!(world.is_quiet().await);
    world.restart().await;
    assert_eq!(world.word().await, "STOPPED main=STOPPED(137)");
}

#[tokio::test(start_paused = true)]
async fn strays_are_removed_and_kept_tasks_stay() {
    let mut world = World::new();
    world.take(&task("t1", &[("main", "job.exit=0")])).await;
    world.report().await;
    world.report().await;
    world.take(&task("t2", &[("main", "app")])).await;
    world.report().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let ledger = world.dir.path().join("tasks.log");
    let text = std::fs::read_to_string(&ledger).unwrap();
    assert!(text.contains(r#"{"id":"t2""#));
    std::fs::write(&ledger, text.replace(r#"{"id":"t2""#, r#"{"id":"T2""#)).unwrap();
    world.restart().await;
    assert_eq!(world.runtime.ids(), ["t1-0"], "the container of a task that nobody can read is removed");
    assert!(world.network.ids().is_empty());
    assert_eq!(world.tasks.records().len(), 1);
    assert!(world.is_quiet().await);
}

#[tokio::test(start_paused = true)]
async fn purging_leaves_nothing() {
    let mut world = World::new();
    world.take(&task("t1", &[("main", "app")])).await;
    world.report().await;
    world.stop.cancel();
    world.tasks.ended().await;
    world.tasks.purge().await.unwrap();
    assert_eq!((world.runtime.ids().len(), world.network.ids().len(), world.kept()), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_manifest_names_who_is_not_listed() {
    let mut world = World::new();
    for id in ["t1", "t2", "t3"] {
        world.take(&task(id, &[("main", "app")])).await;
        world.report().await;
    }
    let listed = |id: &str, desired_status| TaskIdentifier { task_arn: arn(id), desired_status, ..Default::default() };
    let unlisted = world.tasks.unlisted(&[listed("t1", DesiredStatus::Running), listed("t2", DesiredStatus::Stopped)]);
    assert_eq!(unlisted.iter().map(|task| task.task_arn.clone()).collect::<Vec<_>>(), [arn("t2"), arn("t3")]);
    assert!(unlisted.iter().all(|task| task.desired_status == DesiredStatus::Stopped));
}
