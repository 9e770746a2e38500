//! Prints medians of attach, a change of groups and detach of tasks' interfaces, alone and beside many, and what two tasks move in a second
//! against a bare veth pair; in namespaces of its own: `interfaces [ROUNDS] [BESIDE]`, as root.

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("interfaces: tasks' interfaces need Linux");
    std::process::exit(2);
}

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};

    let number = |place, default| std::env::args().nth(place).map_or(Ok(default), |text| text.parse::<u16>());
    let (rounds, beside) = (number(1, 200)?, number(2, 500)?);
    // Before any other thread exists, so that all of them are inside.
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(linux::measure(rounds, beside))
}

#[cfg(target_os = "linux")]
mod linux {
    use std::error::Error;
    use std::fs::File;
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::thread;
    use std::time::{Duration, Instant};

    use berth_network::interface::{DEFAULT_MTU, MacAddress, TaskInterface};
    use berth_network::linux::{InterfaceConfig, InterfaceNetwork};
    use berth_network::port::AttachmentId;
    use berth_network::security_group::{Cidr, NetworkTable, Peer, Rule, SecurityGroup, Traffic};
    use nix::sched::{CloneFlags, setns};

    const GROUP: &str = "sg-measure";

    pub async fn measure(rounds: u16, beside: u16) -> Result<(), Box<dyn Error>> {
        let directory = tempfile::tempdir()?;
        let (state_dir, netns_dir) = (directory.path().join("state"), directory.path().join("netns"));
        let network = InterfaceNetwork::open(InterfaceConfig { name: "measure".into(), state_dir, netns_dir, metadata: None })?;
        network.apply(&table(1)).await?;
        lives(&network, rounds, "alone").await?;
        let mut times = Vec::new();
        for number in 0..beside {
            let start = Instant::now();
            network.attach(&id(number + 10_000), &interface(number + 10_000)).await?;
            times.push(start.elapsed());
        }
        print(&format!("attach of {beside} in turn"), &mut times);
        lives(&network, rounds, &format!("beside {beside}")).await?;
        let mut changes = Vec::new();
        for rules in 1..=rounds {
            let start = Instant::now();
            network.apply(&table(rules % 50 + 1)).await?;
            changes.push(start.elapsed());
        }
        print(&format!("change of groups beside {beside}"), &mut changes);
        throughput(&network).await?;
        for number in 0..beside {
            network.detach(&id(number + 10_000)).await?;
        }
        Ok(network.shutdown().await?)
    }

    async fn lives(network: &InterfaceNetwork, rounds: u16, where_: &str) -> Result<(), Box<dyn Error>> {
        let mut times = [Vec::new(), Vec::new()];
        for number in 10..rounds + 10 {
            let start = Instant::now();
            network.attach(&id(number), &interface(number)).await?;
            let attached = Instant::now();
            network.detach(&id(number)).await?;
            times[0].push(attached - start);
            times[1].push(attached.elapsed());
        }
        print(&format!("attach {where_}"), &mut times[0]);
        print(&format!("detach {where_}"), &mut times[1]);
        Ok(())
    }

    fn print(what: &str, times: &mut [Duration]) {
        times.sort_unstable();
        println!("{what} median {:?} p90 {:?}", times[times.len() / 2], times[times.len() * 9 / 10]);
    }

    /// Between two tasks, and between the two ends of a bare pair: each three times in turn, the best of each.
    async fn throughput(network: &InterfaceNetwork) -> Result<(), Box<dyn Error>> {
        let mut held = Vec::new();
        for number in [1000, 1001] {
            held.push(network.attach(&id(number), &interface(number)).await?.namespace.ok_or("no namespace")?);
        }
        // The bare pair lies between the same two namespaces, so that everything else is alike.
        let inside = |path: &PathBuf, line: &'static str| {
            let path = path.clone();
            within(&path, move || Command::new("ip").args(line.split(' ')).status())
        };
        let name = format!("link add bare0 type veth peer name bare1 netns {}", held[1].display());
        if within(&held[0], move || Command::new("ip").args(name.split(' ')).status()).is_err() {
            println!("throughput: needs the ip program");
            return Ok(());
        }
        for (path, line) in [
            (&held[0], "addr add 192.168.99.1/24 dev bare0"),
            (&held[0], "link set bare0 up"),
            (&held[1], "addr add 192.168.99.2/24 dev bare1"),
            (&held[1], "link set bare1 up"),
        ] {
            inside(path, line)?;
        }
        let (mut tasks, mut bare) = (0.0_f64, 0.0_f64);
        for _ in 0..3 {
            tasks = tasks.max(moved(&held[0], &held[1], address(1001))?);
            bare = bare.max(moved(&held[0], &held[1], Ipv4Addr::new(192, 168, 99, 2))?);
        }
        println!("throughput between tasks {tasks:.2} GB/s, bare veth pair {bare:.2} GB/s, {:.0} %", tasks / bare * 100.0);
        for number in [1000, 1001] {
            network.detach(&id(number)).await?;
        }
        Ok(())
    }

    /// Gigabytes a second over one TCP connection.
    fn moved(from: &Path, to: &Path, address: Ipv4Addr) -> Result<f64, Box<dyn Error>> {
        let listener = within(to, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, 5001)))?;
        let mut sender =
            within(from, move || TcpStream::connect_timeout(&SocketAddrV4::new(address, 5001).into(), Duration::from_secs(5)))?;
        let (mut receiver, _) = listener.accept()?;
        let sending = thread::spawn(move || {
            let (buffer, end) = (vec![0; 128 << 10], Instant::now() + Duration::from_secs(2));
            while Instant::now() < end && sender.write_all(&buffer).is_ok() {}
        });
        let (mut buffer, mut total, start) = (vec![0; 128 << 10], 0_usize, Instant::now());
        while let Ok(length @ 1..) = receiver.read(&mut buffer) {
            total += length;
        }
        let rate = total as f64 / start.elapsed().as_secs_f64() / 1e9;
        drop(sending.join());
        Ok(rate)
    }

    fn within<T: Send + 'static>(namespace: &Path, work: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = File::open(namespace).expect("open the namespace");
        let inside = thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("enter the namespace");
            work()
        });
        inside.join().expect("the thread ends with a result")
    }

    fn id(number: u16) -> AttachmentId {
        AttachmentId(format!("measure-{number}"))
    }

    fn address(number: u16) -> Ipv4Addr {
        let [high, low] = number.to_be_bytes();
        Ipv4Addr::new(10, 88, high, low)
    }

    fn interface(number: u16) -> TaskInterface {
        let [a, b, c, d] = address(number).octets();
        TaskInterface {
            id: format!("eni-{number}"),
            address: address(number),
            prefix: 16,
            ipv6: None,
            mac: MacAddress([2, 0, a, b, c, d]),
            gateway: Ipv4Addr::new(10, 88, 0, 1),
            name_servers: vec![Ipv4Addr::new(10, 88, 0, 2).into()],
            search_domains: Vec::new(),
            private_dns_name: String::new(),
            groups: vec![GROUP.into()],
            mtu: DEFAULT_MTU,
            public_address: None,
        }
    }

    fn table(rules: u16) -> NetworkTable {
        let rule = |traffic, peer| Rule { traffic, peer };
        let mut ingress: Vec<_> = (0..rules).map(|n| rule(Traffic::Tcp(8000 + n, 8000 + n), Peer::Group(GROUP.into()))).collect();
        ingress.push(rule(Traffic::All, Peer::Group(GROUP.into())));
        let egress = vec![rule(Traffic::All, Peer::Range(Cidr::ANY_V4))];
        NetworkTable { groups: [(GROUP.to_owned(), SecurityGroup { ingress, egress })].into(), ..Default::default() }
    }
}
