//! `launch/agent-idle-mb`, `launch/container-overhead-mb`: what an agent takes that has nothing to do, and what a running container adds to
//! all of Berth's processes, its own apart; beside that what it adds to Docker's.
//!
//! In MB of a million bytes. What several processes map is divided among them (PSS): two hundred monitors have one program in memory.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::docker::Docker;
use super::memory::{self, Memory};
use super::sandbox::Sandbox;
use super::{Peer, row_noted, wait};

const CONTAINERS: usize = 200;
/// RunTask starts ten at most.
const AT_ONCE: usize = 10;
const PATIENCE: Duration = Duration::from_secs(300);
/// How long a process is left alone before its memory is looked at.
const REST: Duration = Duration::from_secs(5);
const MB: f64 = 1e6;

/// The agent alone.
pub(super) fn idle() -> Result<(), Box<dyn Error>> {
    let sandbox = Sandbox::start()?;
    std::thread::sleep(REST);
    let resident = sandbox.agent.settled_resident()?;
    let agent = sandbox.agent.child.id();
    let shared = memory::of(|pid| pid == agent).proportional;
    let note = format!("RSS; PSS {:.1} MB", shared / MB);
    row_noted("launch/agent-idle-mb", resident / MB, "MB", None, &note);
    Ok(())
}

/// What two hundred containers add.
pub(super) fn overhead(docker: Option<&Docker>, archive: &Path) -> Result<(), Box<dyn Error>> {
    let (ours, ours_resident) = berth(archive)?;
    let theirs = docker.map(engine).transpose()?;
    let peer = theirs.map(|(value, _)| Peer { name: "dockerd, containerd and shims", value });
    let resident = theirs.map(|(_, resident)| format!("; Docker's {resident:.2} MB")).unwrap_or_default();
    let note = format!("PSS a container over {CONTAINERS}, host network; RSS {ours_resident:.2} MB{resident}");
    row_noted("launch/container-overhead-mb", ours, "MB", peer.as_ref(), &note);
    Ok(())
}

/// MB a container: proportional and resident.
fn grown(before: Memory, after: Memory) -> (f64, f64) {
    #[expect(clippy::cast_precision_loss, reason = "two hundred")]
    let of = |before: f64, after: f64| (after - before) / MB / CONTAINERS as f64;
    eprintln!(
        "{} processes of {:.1} MB before, {} of {:.1} MB after",
        before.processes,
        before.proportional / MB,
        after.processes,
        after.proportional / MB
    );
    (of(before.proportional, after.proportional), of(before.resident, after.resident))
}

fn berth(archive: &Path) -> Result<(f64, f64), Box<dyn Error>> {
    let sandbox = Sandbox::start()?;
    sandbox.load_image(archive, "hello:latest")?;
    let mut client = sandbox.client()?;
    let container = json!({"name": "app", "image": "hello:latest", "memory": 16, "environment": [{"name": "PORT", "value": "0"}]});
    client.call("RegisterTaskDefinition", &json!({"family": "many", "networkMode": "host", "containerDefinitions": [container]}))?;
    let (agent, data) = (sandbox.agent.child.id(), sandbox.agent_data());
    let look = || memory::of(|pid| pid == agent || memory::is_child_of(pid, agent) || memory::stands_below(pid, &data));
    // One first: what the first container alone brings is not what a container takes.
    let mut have = 0;
    let mut before = Memory::default();
    for wanted in [1, 1 + CONTAINERS] {
        while have < wanted {
            let count = AT_ONCE.min(wanted - have);
            let answer = client.call("RunTask", &json!({"taskDefinition": "many", "count": count}))?;
            if answer["failures"].as_array().is_none_or(|failures| !failures.is_empty()) {
                return Err(format!("RunTask: {}", answer["failures"]).into());
            }
            have += count;
        }
        let come = wait::until(PATIENCE, Duration::from_millis(50), || {
            let found = client.call("DescribeClusters", &json!({}))?;
            Ok((found["clusters"][0]["runningTasksCount"].as_u64() == Some(wanted as u64)).then_some(()))
        });
        come?.ok_or("its tasks do not run")?;
        std::thread::sleep(REST);
        if wanted == 1 {
            before = look();
        }
    }
    Ok(grown(before, look()))
}

fn engine(docker: &Docker) -> Result<(f64, f64), Box<dyn Error>> {
    let mark = docker.mark();
    let own = std::process::id();
    let look = || memory::of(|pid| pid != own && memory::names(pid, &mark));
    let first = docker.start_one("hello:latest", "host")?;
    std::thread::sleep(REST);
    let before = look();
    let mut ids = vec![first];
    let mut start_all = || -> Result<(), Box<dyn Error>> {
        for _ in 0..CONTAINERS {
            ids.push(docker.start_one("hello:latest", "host")?);
        }
        Ok(())
    };
    let started = start_all();
    std::thread::sleep(REST);
    let after = look();
    // Also after a failure: the engine's own end would take long over so many.
    docker.remove(&ids)?;
    started?;
    Ok(grown(before, after))
}
