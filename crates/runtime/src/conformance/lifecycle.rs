//! Cases about a container's life: start, end, signals, logs, exec, removal, a restart of the agent.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Bench, exec_spec, patiently};
use crate::port::{ContainerId, ContainerObservation, ContainerSpec, ContainerState, ExecSpec, RunError};

pub(super) async fn run(bench: &Bench) {
    exit_codes(bench).await;
    output_goes_to_the_log(bench).await;
    log_is_bounded(bench).await;
    signals(bench).await;
    waiting(bench).await;
    execs(bench).await;
    statistics(bench).await;
    memory(bench).await;
    programs_that_cannot_run(bench).await;
    what_is_not_there(bench).await;
    removal(bench).await;
    many_at_once(bench).await;
    looking_while_starting(bench).await;
    if !bench.differences.no_privileged {
        cgroups_of_its_own(bench).await;
    }
}

async fn exit_codes(bench: &Bench) {
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$; sleep 100", 137)] {
        // The first process of a pid namespace cannot kill itself: the shell is its child here.
        let (exit, output) = bench.run(bench.script(&format!("sh -c '{script}'; exit $?"))).await;
        assert_eq!((exit.code, exit.oom_killed), (code, false), "{script}: {output}");
    }
}

async fn output_goes_to_the_log(bench: &Bench) {
    let id = bench.begin(bench.spec(&["sh", "-c", "echo out; echo err >&2; printf unfinished; head -c 20000 /dev/zero >&2"])).await;
    assert_eq!(bench.end(&id).await.code, 0);
    let records = bench.records(&id);
    let of = |stream: &str| records.iter().filter(|r| r.0 == stream).map(|r| (r.1.as_str(), r.2.len())).collect::<Vec<_>>();
    assert_eq!(of("stdout"), [("F", 3), ("F", 10)]);
    assert_eq!(of("stderr"), [("F", 3), ("P", 16 << 10), ("F", 20_000 - (16 << 10))]);
    bench.remove(&id).await;
    assert!(bench.runtime.log_files(&id).is_empty());
}

async fn log_is_bounded(bench: &Bench) {
    let limit = 64 << 10;
    let id = bench.begin(ContainerSpec { log_limit: limit, ..bench.script("seq 1 20000") }).await;
    assert_eq!(bench.end(&id).await.code, 0);
    let size: u64 = bench.runtime.log_files(&id).iter().map(|file| std::fs::metadata(file).expect("the file is there").len()).sum();
    assert!(size <= limit && size > limit / 3, "{size}");
    assert!(bench.output(&id).ends_with("19999\n20000\n"));
    bench.remove(&id).await;
}

async fn signals(bench: &Bench) {
    let id = bench.begin(bench.script("trap 'echo got; exit 5' USR1; trap 'exit 6' QUIT; echo ready; while :; do sleep 0.01; done")).await;
    bench.until_said(&id, "ready").await;
    assert_eq!(bench.runtime.stop_signal(&id).await.expect("stop signal"), libc::SIGQUIT);
    bench.runtime.signal(&id, libc::SIGUSR1).await.expect("signal");
    assert_eq!(bench.end(&id).await.code, 5);
    assert!(bench.output(&id).contains("got"));
    bench.runtime.signal(&id, libc::SIGKILL).await.expect("signalling what has ended is no error");
    bench.remove(&id).await;

    let id = bench.begin(bench.script("echo ready; sleep 1000")).await;
    bench.until_said(&id, "ready").await;
    bench.runtime.signal(&id, libc::SIGTERM).await.expect("signal");
    // A first process without a handler does not notice: as in Docker, SIGKILL must follow.
    bench.runtime.signal(&id, libc::SIGKILL).await.expect("signal");
    assert_eq!(bench.end(&id).await.code, 137);
    bench.remove(&id).await;
}

async fn waiting(bench: &Bench) {
    let id = bench.begin(bench.script("trap 'exit 3' USR1; echo ready; while :; do sleep 0.01; done")).await;
    bench.until_said(&id, "ready").await;
    let early = async {
        let many = (0..8).map(|_| bench.end(&id));
        futures_util::future::join_all(many).await
    };
    let signal = async { bench.runtime.signal(&id, libc::SIGUSR1).await.expect("signal") };
    let (exits, ()) = tokio::join!(early, signal);
    let late = bench.end(&id).await;
    assert_eq!(late.code, 3);
    assert!(exits.iter().all(|exit| *exit == late));
    bench.remove(&id).await;
}

async fn execs(bench: &Bench) {
    let environment = BTreeMap::from([("A".to_owned(), "container".to_owned())]);
    let id = bench.begin(ContainerSpec { environment, ..bench.script("echo ready; sleep 1000") }).await;
    bench.until_said(&id, "ready").await;
    let (code, said) = bench.exec(&id, "echo out; echo err >&2; exit 7").await;
    let in_order = said == "out\nerr\n" || (bench.differences.two_exec_streams && said == "err\nout\n");
    assert!(code == Some(7) && in_order, "{code:?} {said}");
    assert_eq!(bench.exec(&id, "echo $A $FROM_IMAGE $(id -u) $(pwd)").await.1, "container yes 0 /srv/app\n");
    let confined = bench.exec(&id, "grep -E '^(Seccomp|CapEff|CapInh):' /proc/self/status").await.1;
    assert!(confined.contains("Seccomp:\t2"), "{confined}");
    assert!(confined.contains("CapEff:\t00000000a80425fb") || confined.contains("CapEff:\t00000000a00425fb"), "{confined}");

    let other = ExecSpec {
        environment: BTreeMap::from([("A".into(), "exec".into())]),
        user: Some("web".into()),
        ..exec_spec("echo $A $(id -u):$(id -g) $(id -G) $HOME")
    };
    let outcome = bench.runtime.exec(&id, other).await.expect("exec");
    assert_eq!(String::from_utf8_lossy(&outcome.output), "exec 33:34 34 4 /var/www\n");

    let other = bench.begin(ContainerSpec {
        ulimits: vec![crate::port::Ulimit { name: "nofile".into(), soft: 70, hard: 80 }],
        ..bench.script("echo ready; sleep 1000")
    });
    let other = other.await;
    bench.until_said(&other, "ready").await;
    assert_eq!(bench.exec(&other, "ulimit -n; ulimit -Hn").await, (Some(0), "70\n80\n".into()), "limits are the container's");
    bench.remove(&other).await;

    let slow = ExecSpec { timeout: Duration::from_millis(300), ..exec_spec("echo begun; sleep 1000") };
    let outcome = patiently(bench.runtime.exec(&id, slow)).await.expect("exec");
    assert_eq!(outcome.code, None);
    let much = ExecSpec { output_limit: 10, ..exec_spec("seq 1 100000") };
    let outcome = patiently(bench.runtime.exec(&id, much)).await.expect("exec");
    assert_eq!((outcome.code, outcome.output.len()), (Some(0), 10));
    let missing = ExecSpec { command: vec!["nothing".into()], ..exec_spec("") };
    let error = bench.runtime.exec(&id, missing).await.expect_err("there is no such program");
    assert_eq!(error.to_string(), "exec: \"nothing\": executable file not found in $PATH");
    assert_eq!(bench.exec(&id, "echo again").await, (Some(0), "again\n".into()));
    bench.remove(&id).await;
    assert!(matches!(bench.runtime.exec(&id, exec_spec("true")).await, Err(RunError::NoContainer(_))));
}

async fn statistics(bench: &Bench) {
    let script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; dd if=/dev/zero of=/dev/shm/x bs=1M count=8; echo ready; sleep 1000";
    let id = bench.begin(bench.script(script)).await;
    bench.until_said(&id, "ready").await;
    let stats = bench.runtime.stats(&id).await.expect("stats");
    assert!(stats.cpu_nanos > 0 && stats.memory_bytes > 8 << 20 && stats.pids >= 1, "{stats:?}");
    bench.runtime.signal(&id, libc::SIGKILL).await.expect("signal");
    bench.end(&id).await;
    assert!(matches!(bench.runtime.stats(&id).await, Err(RunError::NoContainer(_))));
    bench.remove(&id).await;
}

async fn memory(bench: &Bench) {
    // Pages of /dev/shm count; no program of the suite is needed to use them up.
    let eat = "dd if=/dev/zero of=/dev/shm/x bs=1M count=60";
    let id = bench.begin_out_of_memory(&format!("exec {eat}")).await;
    bench.remove(&id).await;
    let (exit, output) = bench.run(ContainerSpec { memory_limit: Some(20 << 20), ..bench.script("echo small") }).await;
    assert_eq!((exit.code, exit.oom_killed, output.as_str()), (0, false, "small\n"));
}

async fn programs_that_cannot_run(bench: &Bench) {
    let cases: [(&[&str], &str); 5] = [
        (&["nothing"], "exec: \"nothing\": executable file not found in $PATH"),
        (&["/no/such"], "exec: \"/no/such\": stat /no/such: no such file or directory"),
        (&["/etc/passwd"], "exec: \"/etc/passwd\": permission denied"),
        (&["/etc"], "exec: \"/etc\": is a directory"),
        (&["/srv/script"], "exec /srv/script: exec format error"),
    ];
    for (command, text) in cases {
        let mut spec = bench.spec(command);
        let file = bench.folder.join("script");
        std::fs::write(&file, "no magic\n").expect("the suite's folder can be written");
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
        spec.mounts.push(crate::port::BindMount {
            source: file,
            destination: "/srv/script".into(),
            read_only: true,
            owner: None,
            remote: false,
        });
        let id = spec.id.clone();
        bench.runtime.create(spec).await.expect("create");
        if bench.differences.late_format_errors && text.ends_with("exec format error") {
            bench.runtime.start(&id).await.expect("it is found too late");
            assert_ne!(bench.end(&id).await.code, 0);
            assert_eq!(bench.output(&id), format!("{text}\n"));
            bench.remove(&id).await;
            continue;
        }
        let error = bench.runtime.start(&id).await.expect_err("it cannot run");
        assert!(matches!(&error, RunError::Exec(found) if found == text), "{error:?}");
        // As after create: it can be tried again, and removed.
        assert_eq!(bench.state(&id).await, Some(ContainerState::Created));
        let error = bench.runtime.start(&id).await.expect_err("it still cannot run");
        assert!(matches!(error, RunError::Exec(_)), "{error:?}");
        bench.remove(&id).await;
    }
}

async fn what_is_not_there(bench: &Bench) {
    let unknown = ContainerId("unknown".into());
    assert!(matches!(bench.runtime.start(&unknown).await, Err(RunError::NoContainer(_))));
    assert!(matches!(bench.runtime.signal(&unknown, 9).await, Err(RunError::NoContainer(_))));
    assert!(matches!(bench.runtime.wait(&unknown).await, Err(RunError::NoContainer(_))));
    assert!(matches!(bench.runtime.stats(&unknown).await, Err(RunError::NoContainer(_))));
    assert!(matches!(bench.runtime.stop_signal(&unknown).await, Err(RunError::NoContainer(_))));
    bench.runtime.remove(&unknown).await.expect("removing nothing is no error");
    let mut spec = bench.script("true");
    spec.image_digest = format!("sha256:{}", "0".repeat(64));
    assert!(matches!(bench.runtime.create(spec).await, Err(RunError::NoImage(_))));
    let mut spec = bench.script("true");
    spec.user = Some("stranger".into());
    let id = spec.id.clone();
    bench.runtime.create(spec).await.expect("create");
    let error = bench.runtime.start(&id).await.expect_err("there is no such user").to_string();
    assert!(error.contains("unable to find user stranger: no matching entries in passwd file"), "{error}");
    bench.remove(&id).await;
}

async fn removal(bench: &Bench) {
    let id = bench.begin(bench.script("sleep 1000 & sleep 1000")).await;
    bench.remove(&id).await;
    bench.remove(&id).await;
    let spec = bench.script("true");
    let id = spec.id.clone();
    bench.runtime.create(spec.clone()).await.expect("create");
    assert!(matches!(bench.runtime.create(spec.clone()).await, Err(RunError::InvalidSpec(_))), "two of one name");
    bench.remove(&id).await;
    bench.runtime.create(spec).await.expect("the name is free again");
    bench.remove(&id).await;
}

/// A container that is about to run must not be taken for one that was lost, and killed for it.
async fn looking_while_starting(bench: &Bench) {
    for _ in 0..15 {
        let spec = bench.script("sleep 1000");
        let id = spec.id.clone();
        bench.runtime.create(spec).await.expect("create");
        let look = async {
            for _ in 0..20 {
                let state = bench.state(&id).await.expect("it is listed");
                assert!(matches!(state, ContainerState::Created | ContainerState::Running(_)), "{state:?}");
            }
        };
        let (started, ()) = tokio::join!(bench.runtime.start(&id), look);
        started.expect("start");
        assert!(matches!(bench.state(&id).await, Some(ContainerState::Running(_))));
        bench.remove(&id).await;
    }
}

/// A whole system in a privileged container makes cgroups below its own, and moves itself there.
async fn cgroups_of_its_own(bench: &Bench) {
    let script = "for place in /sys/fs/cgroup /sys/fs/cgroup/*; do [ -f $place/cgroup.procs ] || continue; mkdir -p $place/a/b
        echo $$ > $place/a/b/cgroup.procs; done; echo ready; sleep 1000";
    let id = bench.begin(ContainerSpec { privileged: true, ..bench.script(script) }).await;
    bench.until_said(&id, "ready").await;
    assert_eq!(bench.exec(&id, "echo joined").await, (Some(0), "joined\n".into()));
    bench.remove(&id).await;
}

async fn many_at_once(bench: &Bench) {
    let all = (0..12).map(|number| async move {
        let (exit, output) = bench.run(bench.script(&format!("echo {number}; exit {number}"))).await;
        assert_eq!((exit.code, output), (number, format!("{number}\n")));
    });
    futures_util::future::join_all(all).await;
}

/// What must be found again.
pub(super) struct Survivors {
    running: ContainerId,
    ended: ContainerId,
    created: ContainerId,
    before: Vec<ContainerObservation>,
}

pub(super) async fn before_restart(bench: &Bench) -> Survivors {
    let labels = BTreeMap::from([("task".to_owned(), "t-1".to_owned())]);
    let script = "trap 'exit 9' USR1; echo ready; i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done";
    let running = bench.begin(ContainerSpec { labels, ..bench.script(script) }).await;
    bench.until_said(&running, "ready").await;
    let ended = bench.begin(bench.script("exit 4")).await;
    bench.end(&ended).await;
    let spec = bench.script("true");
    let created = spec.id.clone();
    bench.runtime.create(spec).await.expect("create");
    let before = bench.runtime.list().await.expect("list");
    Survivors { running, ended, created, before }
}

pub(super) async fn after_restart(bench: &Bench, survivors: Survivors) {
    let Survivors { running, ended, created, before } = survivors;
    let after = bench.runtime.list().await.expect("list");
    assert_eq!(after, before);
    let state = |id: &ContainerId| after.iter().find(|c| c.id == *id).map(|c| c.state.clone()).expect("it is listed");
    assert!(matches!(state(&running), ContainerState::Running(_)));
    assert!(matches!(state(&ended), ContainerState::Exited(exit) if exit.code == 4));
    assert_eq!(state(&created), ContainerState::Created);
    assert_eq!(after.iter().find(|c| c.id == running).expect("listed").labels["task"], "t-1");

    // It never stopped writing, and goes on.
    let lines = bench.output(&running).lines().count();
    patiently(async {
        while bench.output(&running).lines().count() <= lines {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(bench.exec(&running, "echo here").await, (Some(0), "here\n".into()));
    let waiting = bench.end(&running);
    let signal = async { bench.runtime.signal(&running, libc::SIGUSR1).await.expect("signal") };
    let (exit, ()) = tokio::join!(waiting, signal);
    assert_eq!(exit.code, 9);
    bench.runtime.start(&created).await.expect("what was made before can be started now");
    assert_eq!(bench.end(&created).await.code, 0);
    for id in [running, ended, created] {
        bench.remove(&id).await;
    }
}
