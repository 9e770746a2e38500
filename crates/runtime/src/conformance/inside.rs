//! Cases about what a container sees and may do.

use std::collections::BTreeMap;

use super::Bench;
use crate::port::{BindMount, ContainerNetwork, ContainerSpec, RunError, TmpfsMount, Ulimit};

pub(super) async fn run(bench: &Bench) {
    process(bench).await;
    users(bench).await;
    layers(bench).await;
    read_only_root(bench).await;
    mounts(bench).await;
    names(bench).await;
    networks(bench).await;
    confinement(bench).await;
    capabilities(bench).await;
    limits(bench).await;
    isolation(bench).await;
    refusals(bench).await;
}

async fn process(bench: &Bench) {
    let environment = BTreeMap::from([("MINE".to_owned(), "a b=c".to_owned()), ("FROM_IMAGE".to_owned(), "no".to_owned())]);
    let spec = ContainerSpec { environment, hostname: Some("berth-test".into()), ..bench.script("env; echo at $(pwd) on $(hostname)") };
    let output = bench.say(spec).await;
    for line in ["MINE=a b=c", "FROM_IMAGE=no", "PATH=/bin", "HOME=/root", "HOSTNAME=berth-test", "at /srv/app on berth-test"] {
        assert!(output.lines().any(|found| found == line), "{line}: {output}");
    }
    let spec = ContainerSpec { working_directory: Some("/made/on/the/way".into()), ..bench.script("pwd; stat -c %u:%a .") };
    assert_eq!(bench.say(spec).await, "/made/on/the/way\n0:755\n");
    let spec = ContainerSpec { entry_point: Some(vec!["echo".into(), "entry".into()]), ..bench.spec(&["point"]) };
    assert_eq!(bench.say(spec).await, "entry point\n");
    let output = bench.say(bench.script("echo $$; ls /proc/self/fd; cat /proc/1/comm; echo")).await;
    // Nothing of the agent or the shim is left open: only stdio and the folder that ls reads.
    assert_eq!(output, "1\n0\n1\n2\n3\nsh\n\n");
}

async fn users(bench: &Bench) {
    let script = "echo $(id -u):$(id -g) $(id -G) $HOME; cat /etc/secret || echo refused; grep CapEff /proc/self/status";
    // Servers that are not root's open /dev/stdout by name.
    let named = bench.script("echo by name > /dev/stdout");
    assert_eq!(bench.say(ContainerSpec { user: Some("web".into()), ..named }).await, "by name\n");
    for (user, expected) in
        [("web", "33:34 34 4 /var/www"), ("33", "33:34 34 4 /var/www"), ("1234:77", "1234:77 77 /"), ("web:logs", "33:4 4 /var/www")]
    {
        let output = bench.say(ContainerSpec { user: Some(user.into()), ..bench.script(script) }).await;
        assert!(output.starts_with(&format!("{expected}\n")), "{user}: {output}");
        assert!(output.contains("refused") && output.contains("CapEff:\t0000000000000000"), "{user}: {output}");
    }
    assert!(bench.say(bench.script(script)).await.starts_with("0:0 0 /root\nfor root\n"));
}

async fn layers(bench: &Bench) {
    let output =
        bench.say(bench.script("cat /etc/above; ls /etc/plain || echo hidden; echo mine > /etc/above; cat /etc/above; id -u")).await;
    assert!(output.starts_with("upper layer\n") && output.ends_with("hidden\nmine\n0\n"), "{output}");
    assert!(bench.say(bench.script("cat /etc/above")).await.starts_with("upper layer"), "one container's writes are not another's");
}

async fn read_only_root(bench: &Bench) {
    let script = "touch /x && exit 1; echo x >> /etc/hosts && exit 2; touch /dev/shm/x && touch /mnt/a/x && echo good";
    let tmpfs = vec![TmpfsMount { destination: "/mnt/a".into(), size_mib: 1, options: vec![] }];
    let output = bench.say(ContainerSpec { read_only_root: true, tmpfs, ..bench.script(script) }).await;
    assert!(output.contains("Read-only file system") && output.ends_with("good\n"), "{output}");
}

async fn mounts(bench: &Bench) {
    let folder = bench.folder.join("volume");
    std::fs::create_dir_all(folder.join("sub")).expect("the suite's folder can be written");
    std::fs::write(folder.join("given"), "from outside\n").expect("the suite's folder can be written");
    let bind = |destination: &str, read_only| BindMount {
        source: folder.clone(),
        destination: destination.into(),
        read_only,
        owner: None,
        remote: false,
    };
    let spec = ContainerSpec {
        mounts: vec![bind("/data", false), bind("/fixed", true)],
        tmpfs: vec![TmpfsMount { destination: "/scratch".into(), size_mib: 3, options: vec!["mode=1777".into()] }],
        working_directory: Some("/data/new".into()),
        shared_memory_mib: Some(5),
        ..bench.script(
            "cat /fixed/given; echo inside > /data/written; touch /fixed/x || echo fixed; pwd; stat -c %a /scratch; \
             grep -E ' (/scratch|/dev/shm) ' /proc/mounts",
        )
    };
    let output = bench.say(spec).await;
    for part in ["from outside\n", "fixed\n", "/data/new\n", "1777\n", "size=3072k", "size=5120k"] {
        assert!(output.contains(part), "{part}: {output}");
    }
    assert_eq!(std::fs::read_to_string(folder.join("written")).expect("the container wrote it"), "inside\n");
    let missing =
        BindMount { source: bench.folder.join("missing"), destination: "/x".into(), read_only: false, owner: None, remote: false };
    let error = bench.runtime.create(ContainerSpec { mounts: vec![missing], ..bench.script("true") }).await;
    assert!(matches!(error, Err(RunError::InvalidSpec(_))), "{error:?}");
}

async fn names(bench: &Bench) {
    let (namespace, network) = bench.network();
    let spec = ContainerSpec {
        network,
        hostname: Some("me".into()),
        address: namespace.is_some().then(|| "10.1.2.3".parse().expect("an address")),
        extra_hosts: vec![("db".into(), "10.0.0.9".into())],
        dns_servers: vec!["10.0.0.1".into()],
        dns_search: vec!["internal".into()],
        ..bench.script("cat /etc/hosts /etc/resolv.conf /etc/hostname; echo more >> /etc/hosts")
    };
    let output = bench.say(spec).await;
    // A runtime with networks of its own gives addresses itself.
    let address = if bench.differences.own_networks { "127.0.0.1\tlocalhost" } else { "10.1.2.3\tme" };
    for line in ["127.0.0.1\tlocalhost", address, "10.0.0.9\tdb", "nameserver 10.0.0.1", "search internal", "me"] {
        assert!(output.lines().any(|found| found == line), "{line}: {output}");
    }
}

async fn networks(bench: &Bench) {
    let machine = std::fs::read_link("/proc/self/ns/net").expect("a network namespace");
    let own = "stat -c %N /proc/self/ns/net";
    let output = bench.say(bench.script(own)).await;
    assert!(output.contains(&*machine.to_string_lossy()), "{output}");
    let (_namespace, network) = bench.network();
    let spec = ContainerSpec {
        network,
        sysctls: BTreeMap::from([("net.ipv4.ip_forward".to_owned(), "1".to_owned())]),
        ..bench.script(&format!("{own}; cat /proc/sys/net/ipv4/ip_forward; ls /sys/class/net; hostname"))
    };
    let id = spec.id.clone();
    let output = bench.say(spec).await;
    assert!(!output.contains(&*machine.to_string_lossy()), "{output}");
    assert!(output.ends_with(&format!("1\nlo\n{id}\n")), "{output}");
    if bench.differences.own_networks {
        let spec = ContainerSpec { network: ContainerNetwork::Namespace("/proc/self/ns/net".into()), ..bench.script("true") };
        let refused = bench.runtime.create(spec).await;
        assert!(matches!(&refused, Err(RunError::InvalidSpec(text)) if text.contains("network")), "{refused:?}");
    }
}

async fn confinement(bench: &Bench) {
    let script = "grep Seccomp: /proc/self/status; mount -t tmpfs x /mnt || echo no mount; unshare -n true || echo no unshare; \
                  echo 1 > /proc/sys/kernel/panic || echo fixed; cat /proc/kcore | head -c 1; echo end";
    let output = bench.say(bench.script(script)).await;
    for part in ["Seccomp:\t2\n", "no mount\n", "no unshare\n", "fixed\n", "end\n"] {
        assert!(output.contains(part), "{part}: {output}");
    }
    if bench.differences.no_privileged {
        return;
    }
    let output = bench
        .say(ContainerSpec {
            privileged: true,
            ..bench.script("grep Seccomp: /proc/self/status; mkdir /m; mount -t tmpfs x /m && echo mounted")
        })
        .await;
    assert_eq!(output, "Seccomp:\t0\nmounted\n");
}

async fn capabilities(bench: &Bench) {
    let script = "grep -E '^Cap(Eff|Prm|Bnd|Inh|Amb):' /proc/self/status";
    // Docker's default set as the kernel prints it; without MKNOD (bit 27) where device files cannot be kept in check.
    let output = bench.say(bench.script(script)).await;
    let set = if output.contains("00000000a80425fb") { "00000000a80425fb" } else { "00000000a00425fb" };
    for (name, value) in [("Eff", set), ("Prm", set), ("Bnd", set), ("Inh", "0000000000000000"), ("Amb", "0000000000000000")] {
        assert!(output.contains(&format!("Cap{name}:\t{value}")), "{name}: {output}");
    }
    let spec = ContainerSpec { capabilities_add: vec!["NET_ADMIN".into()], capabilities_drop: vec!["ALL".into()], ..bench.script(script) };
    let output = bench.say(spec).await;
    assert!(output.contains("CapBnd:\t0000000000001000"), "{output}");
}

async fn limits(bench: &Bench) {
    let ulimits = vec![Ulimit { name: "nofile".into(), soft: 100, hard: 200 }, Ulimit { name: "core".into(), soft: 0, hard: 0 }];
    let output = bench.say(ContainerSpec { ulimits, ..bench.script("grep -E 'open files|core file' /proc/self/limits") }).await;
    let words: Vec<Vec<&str>> = output.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(words.iter().any(|line| line.starts_with(&["Max", "open", "files", "100", "200"])), "{output}");
    // Programs must not depend on what the agent was started with.
    let output = bench.say(bench.script("grep -E '^Sig(Ign|Blk)' /proc/self/status; yes | head -n 1; cat /proc/self/limits")).await;
    assert_eq!(output.matches("0000000000000000").count(), 2, "{output}");
    let files = output.lines().find_map(|line| line.strip_prefix("Max open files")).expect("it is listed");
    let soft: u64 = files.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number");
    assert!(output.contains("\ny\n") && soft > 1024, "{output}");
    let more_than_can_be = vec![Ulimit { name: "nofile".into(), soft: 1 << 20, hard: 1 << 20 }];
    bench.say(ContainerSpec { ulimits: more_than_can_be, ..bench.script("true") }).await;

    let spec = ContainerSpec { task_pids_limit: Some(5), ..bench.script("for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; echo all") };
    let (exit, output) = bench.run(spec).await;
    assert!(exit.code != 0 || !output.ends_with("all\n") || output.contains("fork"), "{output}");
}

async fn isolation(bench: &Bench) {
    // The disk under the machine's root: the one device that a container must not be able to read, however it names it.
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts can be read");
    let root = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|fields| fields[4] == "/").expect("there is a root");
    let (major, minor) = root[2].split_once(':').expect("major:minor");
    let script = format!(
        "ls /proc | grep -c '^[0-9]'; for place in /tmp /dev; do mknod $place/disk b {major} {minor} && head -c 1 $place/disk > /tmp/byte \
         && echo read the disk; done; echo x > /dev/null && head -c 1 /dev/zero | cat > /tmp/zero && echo devices work"
    );
    let output = bench.say(bench.script(&script)).await;
    let processes: u32 = output.lines().next().and_then(|line| line.parse().ok()).expect("a number");
    assert!(processes <= 4, "{output}");
    assert!(!output.contains("read the disk") && output.ends_with("devices work\n"), "{output}");
}

async fn refusals(bench: &Bench) {
    let refused = async |spec: ContainerSpec, member: &str| {
        let error = bench.runtime.create(spec).await.expect_err("it cannot be");
        assert!(matches!(error, RunError::InvalidSpec(_)) && error.to_string().contains(member), "{member}: {error:?}");
    };
    refused(ContainerSpec { capabilities_add: vec!["FLY".into()], ..bench.script("true") }, "capabilities").await;
    refused(ContainerSpec { working_directory: Some("relative".into()), ..bench.script("true") }, "workingDirectory").await;
    refused(ContainerSpec { ulimits: vec![Ulimit { name: "x".into(), soft: 1, hard: 1 }], ..bench.script("true") }, "ulimits").await;
    refused(ContainerSpec { sysctls: BTreeMap::from([("vm.swappiness".into(), "1".into())]), ..bench.script("true") }, "systemControls")
        .await;
    refused(ContainerSpec { id: crate::port::ContainerId("../up".into()), ..bench.script("true") }, "id").await;
    refused(ContainerSpec { cgroup_parent: "../up".into(), ..bench.script("true") }, "cgroup_parent").await;
}
