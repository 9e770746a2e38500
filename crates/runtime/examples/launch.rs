//! Measures how long a container takes from the call of `start` until its program executes, and from `create` on.
//!
//! `cargo run --release -p berth-runtime --example launch -- [RUNS]`, as root, after `cargo build --release -p berth-shim`.

use std::time::{Duration, Instant};

use berth_runtime::conformance::fixture::{Packing, TestNamespace, TestRegistry, busybox};
use berth_runtime::conformance::plain_spec;
use berth_runtime::images::PULL_INACTIVITY;
use berth_runtime::native::{NativeConfig, NativeRuntime};
use berth_runtime::port::{ContainerId, ContainerNetwork, ContainerSpec, PullBehavior, PullRequest, Runtime};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runs: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(50);
    let folder = tempfile::tempdir()?;
    let beside = |name: &str| std::env::current_exe().map(|exe| exe.with_file_name("..").join(name));
    let registry = TestRegistry::start().await;
    let layer = busybox().ok_or("busybox-static is not installed")?.finish();
    registry.put_image("busybox", "1", &[(layer, Packing::Gzip)], serde_json::json!({"Cmd": ["sleep", "100"]}));
    let runtime = NativeRuntime::open(NativeConfig {
        data_dir: folder.path().join("data"),
        cgroup_root: format!("berth-launch-{}", std::process::id()),
        shim: beside("berth-shim")?,
        monitor: beside("berth-monitor")?,
        berth_registry: None,
        pull_inactivity: PULL_INACTIVITY,
    })?;
    let pull = |behavior| PullRequest { reference: format!("{}/busybox:1", registry.host()), behavior, credentials: None, login: None };
    let image = runtime.pull(pull(PullBehavior::Default)).await?;

    for kind in ["host", "netns"] {
        let (mut creates, mut starts, mut totals, mut removes) = (vec![], vec![], vec![], vec![]);
        for run in 0..runs {
            let namespace = TestNamespace::make(folder.path()).ok_or("cannot make a network namespace")?;
            let network = match kind {
                "host" => ContainerNetwork::Host,
                _ => ContainerNetwork::Namespace(namespace.path()),
            };
            let id = ContainerId(format!("{kind}-{run}"));
            let spec = spec(&id, &image.digest, network);
            let begin = Instant::now();
            runtime.create(spec).await?;
            let created = Instant::now();
            runtime.start(&id).await?;
            let started = Instant::now();
            creates.push(created - begin);
            starts.push(started - created);
            totals.push(started - begin);
            runtime.remove(&id).await?;
            removes.push(started.elapsed());
        }
        for (what, times) in [("create", creates), ("start", starts), ("create+start", totals), ("remove", removes)] {
            report(&format!("{kind} {what}"), times);
        }
    }
    let mut asked = Vec::new();
    for _ in 0..runs {
        let begin = Instant::now();
        runtime.pull(pull(PullBehavior::Always)).await?;
        asked.push(begin.elapsed());
    }
    report("pull, unchanged", asked);
    Ok(())
}

fn report(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let ms = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1_000.0;
    println!("{name:22} median {:7.3} ms   p90 {:7.3} ms   min {:7.3} ms", ms(0.5), ms(0.9), ms(0.0));
}

fn spec(id: &ContainerId, image: &str, network: ContainerNetwork) -> ContainerSpec {
    ContainerSpec { network, memory_limit: Some(64 << 20), cpu_shares: 256, ..plain_spec(&id.0, image) }
}
