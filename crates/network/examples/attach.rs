//! Prints medians of attach, publish and detach, in namespaces of its own: `attach [ROUNDS]`, as root.

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("attach: the bridge network needs Linux");
    std::process::exit(2);
}

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};

    let rounds = std::env::args().nth(1).map_or(Ok(200), |text| text.parse())?;
    // Before any other thread exists, so that all of them are inside.
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(measure(rounds))
}

#[cfg(target_os = "linux")]
async fn measure(rounds: usize) -> Result<(), Box<dyn std::error::Error>> {
    use std::time::Instant;

    use berth_network::linux::{BridgeConfig, BridgeNetwork};
    use berth_network::port::{AttachmentId, AttachmentKind, Network, PortRequest, Protocol};

    let directory = tempfile::tempdir()?;
    let mut config = BridgeConfig::new("measure", directory.path().join("state"), directory.path().join("netns"));
    config.subnet_lock = directory.path().join("subnet.lock");
    let start = Instant::now();
    let network = BridgeNetwork::open(config)?;
    println!("open {:?}", start.elapsed());
    let ports = [PortRequest { container_port: 80, host_port: None, protocol: Protocol::Tcp }];
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..rounds {
        let id = AttachmentId(format!("round-{round}"));
        let start = Instant::now();
        network.attach(&id, AttachmentKind::Bridge).await?;
        let attached = Instant::now();
        network.publish(&id, &ports).await?;
        let published = Instant::now();
        network.detach(&id).await?;
        times[0].push(attached - start);
        times[1].push(published - attached);
        times[2].push(published.elapsed());
    }
    for (name, times) in ["attach", "publish", "detach"].iter().zip(&mut times) {
        times.sort_unstable();
        println!("{name} median {:?} p90 {:?}", times[times.len() / 2], times[times.len() * 9 / 10]);
    }
    network.shutdown().await?;
    Ok(())
}
