//! The Docker runtime passes the suite, on a Docker of the test's own: Debian's, unpacked, in namespaces of its own that take everything
//! with them when they end.

mod docker_daemon;

use std::sync::Arc;

use berth_runtime::conformance::fixture::{Packing, TestRegistry, busybox};
use berth_runtime::conformance::{Differences, Subject, plain_spec, run_all_but};
use berth_runtime::docker::{DockerConfig, DockerRuntime};
use berth_runtime::images::{BerthRegistry, PULL_INACTIVITY};
use berth_runtime::native::capabilities;
use berth_runtime::port::{
    ContainerId, ContainerNetwork, ContainerState, Image, PublishedPort, PullBehavior, PullError, PullRequest, RegistryCredentials,
    RemoveImageError, RunError, Runtime,
};

use docker_daemon::{Daemon, inside};

fn config(daemon: &Daemon, name: &str) -> DockerConfig {
    DockerConfig {
        host: daemon.host(),
        data_dir: daemon.folder().join(name),
        name: name.to_owned(),
        berth_registry: None,
        pull_inactivity: PULL_INACTIVITY,
    }
}

async fn open(daemon: &Daemon, name: &str) -> DockerRuntime {
    DockerRuntime::open(config(daemon, name)).await.expect("the runtime opens")
}

/// A registry with busybox, and the image pulled from it.
async fn pulled(runtime: &DockerRuntime) -> (TestRegistry, Image) {
    let registry = TestRegistry::start().await;
    let layer = busybox().expect("the daemon is only started where busybox is").finish();
    registry.put_image("busybox", "1", &[(layer, Packing::Zstd)], serde_json::json!({"Env": ["PATH=/bin"]}));
    let reference = format!("{}/busybox:1", registry.host());
    let image =
        runtime.pull(PullRequest { reference, behavior: PullBehavior::Default, credentials: None, login: None }).await.expect("pull");
    (registry, image)
}

fn lines(runtime: &DockerRuntime, id: &ContainerId) -> Vec<String> {
    let texts = runtime.log_files(id).into_iter().map(|file| std::fs::read_to_string(file).expect("a log can be read"));
    texts.flat_map(|text| text.lines().map(|line| line.rsplit(' ').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()).collect()
}

#[test]
fn passes_the_suite() {
    inside("passes_the_suite", |daemon| async move {
        let own = daemon.folder().join("suite");
        std::fs::create_dir(&own).expect("a folder for the suite");
        let opened = Arc::clone(&daemon);
        let open = move || {
            let opening = open(&opened, "suite0");
            let runtime = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(opening));
            Arc::new(runtime) as Arc<dyn Runtime>
        };
        // Docker gives a privileged container every capability of the kernel, which this machine must have to give.
        let no_privileged = capabilities::available() != capabilities::all();
        if no_privileged {
            println!("SKIPPED (needs a machine with all capabilities): privileged containers in Docker");
        }
        let differences = Differences {
            own_networks: true,
            late_format_errors: true,
            failed_starts_are_ends: true,
            two_exec_streams: true,
            may_miss_lack_of_memory: true,
            no_privileged,
        };
        run_all_but(Subject { open, folder: own }, differences).await;
        let left = std::fs::read_dir(daemon.folder().join("suite0/containers")).expect("the folder is there").count();
        let temporary = std::fs::read_dir(daemon.folder().join("suite0/docker-images/tmp")).expect("the folder is there").count();
        assert_eq!((left, temporary), (0, 0));
    });
}

#[test]
fn output_goes_on_where_it_was_over_restarts_of_agent_and_container() {
    inside("output_goes_on_where_it_was_over_restarts_of_agent_and_container", |daemon| async move {
        let runtime = open(&daemon, "logs").await;
        let (_registry, image) = pulled(&runtime).await;
        let mut spec = plain_spec("counts", &image.digest);
        let script = "i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo $i; sleep 0.01; done; exit 3";
        spec.command = Some(vec!["sh".into(), "-c".into(), script.into()]);
        let id = spec.id.clone();
        runtime.create(spec).await.expect("create");
        runtime.start(&id).await.expect("start");
        let mut runtime = runtime;
        for part in [30, 100, 200] {
            while lines(&runtime, &id).len() < part {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            drop(runtime);
            runtime = open(&daemon, "logs").await;
        }
        assert_eq!(runtime.wait(&id).await.expect("wait").code, 3);
        let expected: Vec<String> = (1..=400).map(|number| number.to_string()).collect();
        assert_eq!(lines(&runtime, &id), expected);
        // Once more, as a restart policy does.
        runtime.start(&id).await.expect("start again");
        assert_eq!(runtime.wait(&id).await.expect("wait").code, 3);
        assert_eq!(lines(&runtime, &id), [expected.clone(), expected].concat());
        runtime.remove(&id).await.expect("remove");
    });
}

#[test]
fn ports_are_published_and_a_port_in_use_is_dockers_own_refusal() {
    inside("ports_are_published_and_a_port_in_use_is_dockers_own_refusal", |daemon| async move {
        let runtime = open(&daemon, "ports").await;
        let (_registry, image) = pulled(&runtime).await;
        let port = PublishedPort { container_port: 80, host_port: 18080, udp: false };
        let server = |name: &str| {
            let mut spec = plain_spec(name, &image.digest);
            spec.network = ContainerNetwork::Bridge(vec![port]);
            spec.command = Some(["busybox", "nc", "-ll", "-p", "80", "-e", "echo", "hello"].map(str::to_owned).to_vec());
            spec
        };
        runtime.create(server("one")).await.expect("create");
        runtime.start(&ContainerId("one".into())).await.expect("start");
        let said = async {
            loop {
                if let Ok(mut stream) = tokio::net::TcpStream::connect("127.0.0.1:18080").await {
                    let mut text = String::new();
                    let _ = tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut text).await;
                    if !text.is_empty() {
                        return text;
                    }
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let said = tokio::time::timeout(std::time::Duration::from_secs(60), said).await.expect("it answers");
        assert_eq!(said, "hello\n");
        runtime.create(server("two")).await.expect("create");
        let refused = runtime.start(&ContainerId("two".into())).await.expect_err("the port is taken").to_string();
        assert!(refused.contains("Bind for 0.0.0.0:18080 failed: port is already allocated"), "{refused}");
        for name in ["one", "two"] {
            runtime.remove(&ContainerId(name.into())).await.expect("remove");
        }
    });
}

#[test]
fn what_docker_has_by_itself_and_what_berth_serves() {
    inside("what_docker_has_by_itself_and_what_berth_serves", |daemon| async move {
        let registry = TestRegistry::start().await;
        let own = BerthRegistry {
            endpoints: vec![format!("http://{}", registry.host())],
            credentials: RegistryCredentials { username: "AWS".into(), password: "secret".into() },
            account: "000000000000".into(),
            region: "us-east-1".into(),
        };
        let runtime = DockerRuntime::open(DockerConfig { berth_registry: Some(own), ..config(&daemon, "own") }).await.expect("open");
        let layer = busybox().expect("the daemon is only started where busybox is").finish();
        registry.put_image("team/app", "latest", &[(layer, Packing::Gzip)], serde_json::json!({"Env": ["PATH=/bin"], "Cmd": ["true"]}));
        let pull = |reference: &str, behavior| {
            runtime.pull(PullRequest { reference: reference.to_owned(), behavior, credentials: None, login: None })
        };
        let image = pull("team/app", PullBehavior::Default).await.expect("pull");
        let ours = "000000000000.dkr.ecr.us-east-1.amazonaws.com";
        assert_eq!(pull(&format!("{ours}/team/app"), PullBehavior::Default).await.expect("pull"), image);
        let missing = pull(&format!("{ours}/missing:1"), PullBehavior::Default).await;
        assert!(matches!(missing, Err(PullError::NotFound(_))), "{missing:?}");

        // As after `docker build`: nobody's registry has it.
        let built = format!("{}/built", registry.host());
        daemon.docker(&["tag", &berth_runtime::docker::names::image_reference(&image.digest), &format!("{built}:3")]);
        let local = pull(&format!("{built}:3"), PullBehavior::Default).await.expect("what Docker has is taken");
        assert_eq!(local.digest, image.config_digest, "an image without a registry goes by its own id");
        assert_eq!(pull(&format!("{built}:3"), PullBehavior::PreferCached).await.expect("it is here"), local);
        let strict = pull(&format!("{built}:3"), PullBehavior::Always).await;
        assert!(matches!(strict, Err(PullError::NotFound(_))), "{strict:?}");
        let mut spec = plain_spec("built", &local.digest);
        spec.command = Some(vec!["echo".into(), "built".into()]);
        runtime.create(spec).await.expect("create");
        runtime.start(&ContainerId("built".into())).await.expect("start");
        runtime.wait(&ContainerId("built".into())).await.expect("wait");
        assert_eq!(lines(&runtime, &ContainerId("built".into())), ["built"]);
        runtime.remove(&ContainerId("built".into())).await.expect("remove");

        // What somebody removes from Docker is not here any more, and is fetched again.
        let reference = berth_runtime::docker::names::image_reference(&image.digest);
        daemon.docker(&["rmi", "--force", &image.config_digest]);
        let gone = runtime.create(plain_spec("gone", &image.digest)).await;
        assert!(matches!(gone, Err(RunError::NoImage(_))), "{gone:?} {reference}");
        assert_eq!(pull("team/app", PullBehavior::PreferCached).await.expect("pull again"), image);
        runtime.create(plain_spec("back", &image.digest)).await.expect("create");
        runtime.remove(&ContainerId("back".into())).await.expect("remove");
    });
}

#[test]
fn images_that_docker_has_by_itself_are_told_apart_and_removed_by_all_their_names() {
    inside("images_that_docker_has_by_itself_are_told_apart_and_removed_by_all_their_names", |daemon| async move {
        let runtime = open(&daemon, "theirs").await;
        let (_registry, image) = pulled(&runtime).await;
        let ours = berth_runtime::docker::names::image_reference(&image.digest);
        for name in ["theirs:1", "theirs:2"] {
            daemon.docker(&["tag", &ours, name]);
        }
        let seen = runtime.images().await.expect("images");
        assert!(seen.len() == 1 && seen[0].digest == image.digest && seen[0].foreign_names.is_none(), "{seen:?}");
        runtime.remove_image(&image.digest).await.expect("nothing has it");
        // They keep what is theirs.
        let seen = runtime.images().await.expect("images");
        assert_eq!(seen.len(), 1, "{seen:?}");
        let mut names = seen[0].foreign_names.clone().expect("no pull of ours brought it");
        names.sort();
        assert_eq!(names, ["theirs:1", "theirs:2"]);
        assert!(!seen[0].is_used && seen[0].layers[0].bytes > 100_000, "{seen:?}");

        daemon.docker(&["create", "--name", "their-own", "theirs:2", "true"]);
        assert!(runtime.images().await.expect("images")[0].is_used);
        let refused = runtime.remove_image(&seen[0].digest).await;
        assert!(matches!(refused, Err(RemoveImageError::InUse(_))), "{refused:?}");
        assert_eq!(runtime.images().await.expect("images")[0].foreign_names.as_ref().map(Vec::len), Some(2), "nothing has changed");
        daemon.docker(&["rm", "their-own"]);
        runtime.remove_image(&seen[0].digest).await.expect("nothing has it");
        assert!(runtime.images().await.expect("images").is_empty());
    });
}

#[test]
fn a_killed_daemon_comes_back_and_others_containers_are_left_alone() {
    inside("a_killed_daemon_comes_back_and_others_containers_are_left_alone", |daemon| async move {
        let (mine, other) = (open(&daemon, "mine").await, open(&daemon, "other").await);
        let (_registry, image) = pulled(&mine).await;
        let id = ContainerId("same-name".into());
        let sleeper = || {
            let mut spec = plain_spec("same-name", &image.digest);
            spec.command = Some(vec!["sh".into(), "-c".into(), "echo begun; sleep 1000".into()]);
            spec
        };
        mine.create(sleeper()).await.expect("create");
        mine.start(&id).await.expect("start");
        pulled(&other).await;
        other.create(sleeper()).await.expect("two data directories have a name each");
        assert_eq!((mine.list().await.expect("list").len(), other.list().await.expect("list").len()), (1, 1));
        assert_eq!(other.list().await.expect("list")[0].state, ContainerState::Created);
        other.remove(&id).await.expect("remove");
        assert!(matches!(mine.list().await.expect("list")[0].state, ContainerState::Running(_)));

        // dockerd without live-restore takes its containers with it; whoever waits hears of it when it is back.
        let restart = async {
            daemon.kill();
            daemon.start();
        };
        let (exit, ()) = tokio::join!(mine.wait(&id), restart);
        assert_ne!(exit.expect("its end is told").code, 0);
        assert_eq!(lines(&mine, &id), ["begun"]);
        mine.remove(&id).await.expect("remove");
        assert!(mine.list().await.expect("list").is_empty());
    });
}
