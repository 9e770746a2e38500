//! The native runtime passes the suite and leaves nothing behind; an agent's death disturbs nobody.

mod native_programs;

use std::path::Path;
use std::sync::Arc;

use berth_runtime::conformance::fixture::{Packing, TestRegistry, busybox};
use berth_runtime::conformance::{Subject, run_all};
use berth_runtime::images::BerthRegistry;
use berth_runtime::native::{NativeConfig, NativeRuntime};
use berth_runtime::port::{ContainerSpec, PullBehavior, PullError, PullRequest, RegistryCredentials, RunError, Runtime, Sharing};
use native_programs::{Sweep, config, is_root};

/// Mounts, cgroups and processes that mention `word`.
fn leftovers(word: &str, folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts can be read");
    found.extend(mounts.lines().filter(|line| line.contains(folder.to_str().expect("a plain path"))).map(str::to_owned));
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").expect("cgroups are mounted").flatten() {
        let path = hierarchy.path().join(word);
        if path.exists() {
            found.push(path.display().to_string());
        }
    }
    if Path::new("/sys/fs/cgroup").join(word).exists() {
        found.push(word.to_owned());
    }
    for process in std::fs::read_dir("/proc").expect("processes can be listed").flatten() {
        let path = process.path();
        let own = path.file_name().is_some_and(|name| name.to_string_lossy().parse() == Ok(std::process::id()));
        let cwd = std::fs::read_link(path.join("cwd")).unwrap_or_default();
        if !own && cwd.starts_with(folder) {
            found.push(format!("process {}", path.display()));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_the_suite_and_leaves_nothing() {
    if !is_root() {
        println!("SKIPPED (needs root): the native runtime's conformance");
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = config(&folder.path().join("data"), "suite");
    let root = config.cgroup_root.clone();
    let _sweep = Sweep(root.clone());
    let opened = config.clone();
    let open = move || Arc::new(NativeRuntime::open(opened.clone()).expect("the runtime opens")) as Arc<dyn Runtime>;
    let own = folder.path().join("suite");
    std::fs::create_dir(&own).expect("a folder for the suite");
    run_all(Subject { open, folder: own }).await;
    for name in ["containers", "images", "seccomp", "shared"] {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(config.data_dir.join(name)).expect("the folder is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{name} is nobody else's");
    }
    let containers = std::fs::read_dir(config.data_dir.join("containers")).expect("the folder is there").count();
    let temporary = std::fs::read_dir(config.data_dir.join("images/tmp")).expect("the folder is there").count();
    let tasks = std::fs::read_dir(config.data_dir.join("shared")).expect("the folder is there").count();
    assert_eq!((containers, temporary, tasks), (0, 0, 0));
    assert_eq!(leftovers(&root, folder.path()), Vec::<String>::new());
}

#[tokio::test]
async fn a_data_directory_has_one_runtime() {
    if !is_root() {
        println!("SKIPPED (needs root): two runtimes in one data directory");
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = config(&folder.path().join("data"), "lock");
    let first = NativeRuntime::open(config.clone()).expect("the runtime opens");
    let second = NativeRuntime::open(config.clone()).err().expect("the second is refused").to_string();
    assert!(second.contains("lock") && second.contains("another process uses it"), "{second}");
    drop(first);
    NativeRuntime::open(config).expect("it is free again");
}

#[tokio::test]
async fn berths_own_registry_is_asked_first() {
    let (true, Some(layer)) = (is_root(), busybox()) else {
        println!("SKIPPED (needs root and busybox-static): Berth's own registry");
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    // One server that is down, one that does not have the image, and one that does.
    let (other, registry) = (TestRegistry::start().await, TestRegistry::start().await);
    let own = BerthRegistry {
        endpoints: vec!["http://127.0.0.1:9".to_owned(), format!("http://{}", other.host()), format!("http://{}", registry.host())],
        credentials: RegistryCredentials { username: "AWS".into(), password: "secret".into() },
        account: "000000000000".into(),
        region: "us-east-1".into(),
    };
    let runtime =
        NativeRuntime::open(NativeConfig { berth_registry: Some(own), ..config(&folder.path().join("data"), "own") }).expect("open");
    registry.put_image("team/app", "latest", &[(layer.finish(), Packing::Gzip)], serde_json::json!({}));
    let pull =
        |reference: &str, behavior| runtime.pull(PullRequest { reference: reference.to_owned(), behavior, credentials: None, login: None });
    let image = pull("team/app", PullBehavior::Default).await.expect("pull");
    registry.take_log();
    assert_eq!(pull("team/app:latest", PullBehavior::Always).await.expect("pull"), image);
    assert_eq!(registry.take_log(), ["HEAD /v2/team/app/manifests/latest"]);
    let ours = "000000000000.dkr.ecr.us-east-1.amazonaws.com";
    assert_eq!(pull(&format!("{ours}/team/app"), PullBehavior::Default).await.expect("pull").digest, image.digest);
    registry.take_log();
    // Our own account's repositories are asked for nowhere else.
    let missing = pull(&format!("{ours}/missing:1"), PullBehavior::Default).await;
    assert!(matches!(missing, Err(PullError::NotFound(_))), "{missing:?}");
    assert!(registry.take_log().iter().all(|line| line.contains("/v2/missing/")));
}

/// A runtime, and the digest of a busybox image that it has.
async fn with_busybox(config: &NativeConfig, layer: berth_runtime::conformance::fixture::Layer) -> (NativeRuntime, String) {
    let registry = TestRegistry::start().await;
    registry.put_image("busybox", "1", &[(layer.finish(), Packing::Gzip)], serde_json::json!({}));
    let runtime = NativeRuntime::open(config.clone()).expect("open");
    let reference = format!("{}/busybox:1", registry.host());
    let image =
        runtime.pull(PullRequest { reference, behavior: PullBehavior::Default, credentials: None, login: None }).await.expect("pull");
    (runtime, image.digest)
}

#[tokio::test]
async fn a_container_without_its_monitor_is_lost_and_can_be_removed() {
    let (true, Some(layer)) = (is_root(), busybox()) else {
        println!("SKIPPED (needs root and busybox-static): a killed monitor");
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = config(&folder.path().join("data"), "lost");
    let _sweep = Sweep(config.cgroup_root.clone());
    let (runtime, digest) = with_busybox(&config, layer).await;
    let mut spec = berth_runtime::conformance::plain_spec("lost", &digest);
    spec.command = Some(vec!["/bin/sleep".into(), "1000".into()]);
    let id = spec.id.clone();
    runtime.create(spec).await.expect("create");
    let started = runtime.start(&id).await.expect("start");
    let status = std::fs::read_to_string(format!("/proc/{}/status", started.pid)).expect("it runs");
    let monitor: i32 = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent").trim().parse().expect("a number");
    // SAFETY: plain kill of the container's monitor, which this test's runtime started.
    unsafe { libc::kill(monitor, libc::SIGKILL) };
    let error = runtime.wait(&id).await.expect_err("nobody saw its end").to_string();
    assert!(error.contains("lost"), "{error}");
    assert_eq!(runtime.list().await.expect("list")[0].state, berth_runtime::port::ContainerState::Lost);
    runtime.remove(&id).await.expect("remove");
    assert!(!Path::new(&format!("/proc/{}/root", started.pid)).exists(), "its process has been killed");
    drop(runtime);
    assert_eq!(leftovers(&config.cgroup_root, folder.path()), Vec::<String>::new());
}

#[tokio::test]
async fn what_every_container_has_costs_none_a_file_of_its_own() {
    let (true, Some(layer)) = (is_root(), busybox()) else {
        println!("SKIPPED (needs root and busybox-static): the layer below all images");
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = config(&folder.path().join("data"), "base");
    let _sweep = Sweep(config.cgroup_root.clone());
    let (runtime, digest) = with_busybox(&config, layer).await;
    let run = async |id: &str, script: &str| {
        let mut spec = berth_runtime::conformance::plain_spec(id, &digest);
        spec.command = Some(["/bin/sh", "-c", script].map(str::to_owned).to_vec());
        let id = spec.id.clone();
        runtime.create(spec).await.expect("create");
        runtime.start(&id).await.expect("start");
        (runtime.wait(&id).await.expect("it ends").code, id)
    };
    let written = |id: &berth_runtime::port::ContainerId| {
        let all = std::fs::read_dir(config.data_dir.join("containers").join(&id.0).join("upper")).expect("the folder is there");
        let mut all: Vec<_> = all.map(|entry| entry.expect("it can be read").file_name().into_string().expect("a plain name")).collect();
        all.sort();
        all
    };
    let (code, quiet) = run("quiet", "test -s /etc/hosts && test -d /dev/shm && test -d /proc/self && test -d /sys/kernel").await;
    assert_eq!((code, written(&quiet)), (0, Vec::new()), "places to mount on are in the layer below the image");
    // It is shared, and still every container's own.
    let (code, first) = run("first", "umask 022; echo mine > /etc/own && chmod 700 /etc").await;
    assert_eq!((code, written(&first)), (0, vec!["etc".to_owned()]));
    let (code, second) = run("second", "test ! -e /etc/own && test $(stat -c %a /etc) = 755").await;
    assert_eq!((code, written(&second)), (0, Vec::new()));
    for id in [quiet, first, second] {
        runtime.remove(&id).await.expect("remove");
    }
    drop(runtime);
    assert_eq!(leftovers(&config.cgroup_root, folder.path()), Vec::<String>::new());
}

/// Whether a process runs; one that ended and that nobody has collected does not.
fn runs(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Waits until none of them runs.
async fn until_gone(pids: &[i32]) {
    let gone = async {
        while pids.iter().any(|pid| runs(*pid)) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), gone).await.expect("they end");
}

#[tokio::test]
async fn what_a_task_shares_lives_from_its_first_start_to_its_last_removal() {
    let (true, Some(layer)) = (is_root(), busybox()) else {
        println!("SKIPPED (needs root and busybox-static): the holder of what a task shares");
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = config(&folder.path().join("data"), "holder");
    let _sweep = Sweep(config.cgroup_root.clone());
    let (runtime, digest) = with_busybox(&config, layer).await;
    let tasks = config.data_dir.join("shared");
    let holder = || -> i32 {
        let text = std::fs::read_to_string(tasks.join("task/holder")).expect("it is written down");
        text.split(' ').next().and_then(|pid| pid.parse().ok()).expect("a process")
    };
    let spec = |id: &str| ContainerSpec {
        cgroup_parent: "task".into(),
        command: Some(vec!["/bin/sleep".into(), "1000".into()]),
        pid: Sharing::Task,
        ipc: Sharing::Task,
        ..berth_runtime::conformance::plain_spec(id, &digest)
    };
    let (one, two) = (spec("one"), spec("two"));
    let (one_id, two_id) = (one.id.clone(), two.id.clone());
    runtime.create(one).await.expect("create");
    assert_eq!(std::fs::read_dir(&tasks).expect("the folder is there").count(), 0, "nothing before the first start");
    let first = runtime.start(&one_id).await.expect("start");
    let process = holder();
    assert!(runs(process));
    // It holds nothing of the agent's, and none of its rights.
    let fds: Vec<_> = std::fs::read_dir(format!("/proc/{process}/fd"))
        .expect("it runs")
        .flatten()
        .map(|entry| std::fs::read_link(entry.path()))
        .collect();
    assert!(fds.len() == 3 && fds.iter().all(|fd| fd.as_ref().is_ok_and(|path| path.ends_with("null"))), "{fds:?}");
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    assert!(status.contains("CapPrm:\t0000000000000000") && status.contains("CapBnd:\t0000000000000000"), "{status}");
    runtime.create(two).await.expect("create");
    let second = runtime.start(&two_id).await.expect("start");
    assert_eq!(holder(), process, "one for all of them");

    // Killed by a hand outside, it takes along what shares its pid namespace; what is started after that shares new ones.
    // SAFETY: plain kill of the holder, which this test's runtime started.
    unsafe { libc::kill(process, libc::SIGKILL) };
    for id in [&one_id, &two_id] {
        assert_eq!(runtime.wait(id).await.expect("its monitor has seen it").code, 137);
    }
    until_gone(&[first.pid, second.pid]).await;
    runtime.start(&one_id).await.expect("it starts again");
    let process = holder();
    runtime.remove(&one_id).await.expect("remove");
    assert!(runs(process), "an ended container of the task is still here");

    // Removals that an agent did not live to finish are finished by the next.
    drop(runtime);
    std::fs::remove_dir_all(config.data_dir.join("containers/two")).expect("its folder can be removed");
    let runtime = NativeRuntime::open(config.clone()).expect("open again");
    until_gone(&[process]).await;
    assert_eq!(std::fs::read_dir(&tasks).expect("the folder is there").count(), 0);
    // The cgroups of the one whose folder is gone go with the next of its task.
    let three = spec("three");
    let three_id = three.id.clone();
    runtime.create(three).await.expect("create");
    runtime.remove(&three_id).await.expect("remove");
    drop(runtime);
    assert_eq!(leftovers(&config.cgroup_root, folder.path()), Vec::<String>::new());
}

#[tokio::test]
async fn what_it_cannot_do_it_does_not_announce() {
    let (true, Some(layer)) = (is_root(), busybox()) else {
        println!("SKIPPED (needs root and busybox-static): what the native runtime announces");
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = config(&folder.path().join("data"), "able");
    let (runtime, digest) = with_busybox(&config, layer).await;
    let names = runtime.capabilities();
    for name in ["com.amazonaws.ecs.capability.docker-remote-api.1.25", "ecs.capability.pid-ipc-namespace-sharing"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    let plain = || berth_runtime::conformance::plain_spec("one", &digest);
    let gpus = ContainerSpec { gpus: vec!["GPU-1".into()], ..plain() };
    let profile = ContainerSpec { security_options: vec!["apparmor:no-such-profile".into()], ..plain() };
    let mut cases = vec![(gpus, "resourceRequirements")];
    // Where AppArmor is on, the profile is asked for at the start.
    if !names.contains(&"com.amazonaws.ecs.capability.apparmor") {
        cases.push((profile, "dockerSecurityOptions"));
    }
    for (spec, member) in cases {
        let error = runtime.create(spec).await.expect_err("it cannot be");
        assert!(matches!(&error, RunError::InvalidSpec(text) if text.starts_with(member)), "{error:?}");
    }
    assert!(runtime.list().await.expect("list").is_empty(), "nothing is left of them");
}

#[tokio::test]
async fn a_pull_goes_on_where_it_broke_off() {
    let (true, Some(layer)) = (is_root(), busybox()) else {
        println!("SKIPPED (needs root and busybox-static): a pull over broken connections");
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let runtime = NativeRuntime::open(config(&folder.path().join("data"), "broken")).expect("open");
    let registry = TestRegistry::start().await;
    let manifest = registry.put_image("busybox", "1", &[(layer.finish(), Packing::Gzip)], serde_json::json!({}));
    let size = |blob: &serde_json::Value| blob["size"].as_u64().expect("a size") as usize;
    let pull = || {
        let reference = format!("{}/busybox:1", registry.host());
        runtime.pull(PullRequest { reference, behavior: PullBehavior::Default, credentials: None, login: None })
    };
    // More breaks than anybody would be asked in a row: each time there was something new.
    registry.break_off(size(&manifest["layers"][0]) / 8, 7, false);
    registry.be_busy(2);
    pull().await.expect("pull");
    assert_eq!(registry.sent(), size(&manifest["config"]) + size(&manifest["layers"][0]), "every byte came once");
}
