//! An agent that dies in the middle of a start: its next life finds the container running, or as good as new, never lost.
//!
//! Alone in its process, since it looks for this process's shim.

mod native_programs;

use std::sync::Arc;
use std::time::Duration;

use berth_runtime::conformance::fixture::{Packing, TestRegistry, busybox};
use berth_runtime::conformance::plain_spec;
use berth_runtime::native::{NativeConfig, NativeRuntime};
use berth_runtime::port::{ContainerId, ContainerState, PullBehavior, PullRequest, Runtime};
use native_programs::{Sweep, config, is_root};

/// The shim that this process keeps ready.
async fn ready_shim() -> i32 {
    for _ in 0..2_000 {
        for process in std::fs::read_dir("/proc").expect("processes can be listed").flatten() {
            let Ok(pid) = process.file_name().to_string_lossy().parse::<i32>() else { continue };
            let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
            let is_child = read("status").contains(&format!("\nPPid:\t{}\n", std::process::id()));
            if is_child && read("cmdline").starts_with("berth-shim\0start\0") {
                return pid;
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("no shim is kept ready");
}

fn signal(pid: i32, number: i32) {
    // SAFETY: plain kill of a process that this test's runtime started.
    assert_eq!(unsafe { libc::kill(pid, number) }, 0, "signal {number} to {pid}");
}

/// Creates a container and begins to start it as [`die_while`] does.
async fn die_while_starting(config: &NativeConfig, digest: &str, id: &str) -> (ContainerId, i32) {
    let runtime = Arc::new(NativeRuntime::open(config.clone()).expect("open"));
    let mut spec = plain_spec(id, digest);
    spec.command = Some(vec!["/bin/sleep".into(), "1000".into()]);
    let id = spec.id.clone();
    runtime.create(spec).await.expect("create");
    let shim = die_while(runtime, config, &id).await;
    (id, shim)
}

/// Begins a start with a shim that stands still, and lets the agent die; gives the shim.
async fn die_while(runtime: Arc<NativeRuntime>, config: &NativeConfig, id: &ContainerId) -> i32 {
    let shim = ready_shim().await;
    signal(shim, libc::SIGSTOP);
    let mark = config.data_dir.join("containers").join(&id.0).join("started");
    let before = std::fs::read_to_string(&mark).ok();
    let start = tokio::spawn({
        let (runtime, id) = (Arc::clone(&runtime), id.clone());
        async move { runtime.start(&id).await.map(drop) }
    });
    while std::fs::read_to_string(&mark).ok() == before {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // The request is on its way right after the mark.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!start.is_finished(), "the shim stands still");
    start.abort();
    let _ = start.await;
    drop(Arc::into_inner(runtime).expect("nobody else has it"));
    shim
}

async fn state(runtime: &NativeRuntime, id: &ContainerId) -> Option<ContainerState> {
    runtime.list().await.expect("list").into_iter().find(|seen| seen.id == *id).map(|seen| seen.state)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_in_between_is_seen_to_its_end() {
    let (true, Some(layer)) = (is_root(), busybox()) else {
        println!("SKIPPED (needs root and busybox-static): an agent that dies while it starts a container");
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = config(&folder.path().join("data"), "death");
    let _sweep = Sweep(config.cgroup_root.clone());
    let registry = TestRegistry::start().await;
    registry.put_image("busybox", "1", &[(layer.finish(), Packing::Gzip)], serde_json::json!({}));
    let digest = {
        let runtime = NativeRuntime::open(config.clone()).expect("open");
        let reference = format!("{}/busybox:1", registry.host());
        runtime.pull(PullRequest { reference, behavior: PullBehavior::Default, credentials: None, login: None }).await.expect("pull").digest
    };

    // The shim goes on after the agent's death: the container runs, and the next life finds it.
    let (id, shim) = die_while_starting(&config, &digest, "goes-on").await;
    let runtime = NativeRuntime::open(config.clone()).expect("open again");
    let (seen, ()) = tokio::join!(state(&runtime, &id), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        signal(shim, libc::SIGCONT);
    });
    assert!(matches!(seen, Some(ContainerState::Running(_))), "{seen:?}");
    runtime.signal(&id, libc::SIGKILL).await.expect("signal");
    assert_eq!(runtime.wait(&id).await.expect("its end was seen").code, 137);
    runtime.remove(&id).await.expect("remove");
    drop(runtime);

    // The shim dies as well, before it has begun: the container can be started as if nothing had been.
    let (id, shim) = die_while_starting(&config, &digest, "never-began").await;
    let runtime = NativeRuntime::open(config.clone()).expect("open again");
    let (seen, ()) = tokio::join!(state(&runtime, &id), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        signal(shim, libc::SIGKILL);
    });
    assert_eq!(seen, Some(ContainerState::Created));
    runtime.start(&id).await.expect("start");
    assert!(matches!(state(&runtime, &id).await, Some(ContainerState::Running(_))));
    runtime.remove(&id).await.expect("remove");
    drop(runtime);

    // The same of a container that had ended: what it left says nothing of a start that goes on, and all of one that came to nothing.
    let runtime = Arc::new(NativeRuntime::open(config.clone()).expect("open again"));
    let mut spec = plain_spec("again", &digest);
    let script = "test -e /been && exec sleep 1000; touch /been; exit 4";
    spec.command = Some(vec!["/bin/sh".into(), "-c".into(), script.into()]);
    let id = spec.id.clone();
    runtime.create(spec).await.expect("create");
    runtime.start(&id).await.expect("start");
    let first = runtime.wait(&id).await.expect("its end was seen");
    assert_eq!(first.code, 4);
    let shim = die_while(runtime, &config, &id).await;
    let runtime = NativeRuntime::open(config.clone()).expect("open again");
    let (seen, ()) = tokio::join!(state(&runtime, &id), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        signal(shim, libc::SIGKILL);
    });
    assert_eq!(seen, Some(ContainerState::Exited(first.clone())), "a start that came to nothing");
    assert_eq!(runtime.wait(&id).await.expect("it has ended"), first);
    runtime.start(&id).await.expect("it starts again");
    runtime.signal(&id, libc::SIGKILL).await.expect("signal");
    let second = runtime.wait(&id).await.expect("its end was seen");
    assert_eq!(second.code, 137);
    let shim = die_while(Arc::new(runtime), &config, &id).await;
    let runtime = NativeRuntime::open(config.clone()).expect("open again");
    let (seen, ()) = tokio::join!(state(&runtime, &id), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        signal(shim, libc::SIGCONT);
    });
    assert!(matches!(seen, Some(ContainerState::Running(_))), "a start that goes on: {seen:?}");
    runtime.signal(&id, libc::SIGKILL).await.expect("signal");
    assert_eq!(runtime.wait(&id).await.expect("its end was seen").code, 137);
    runtime.remove(&id).await.expect("remove");
}
