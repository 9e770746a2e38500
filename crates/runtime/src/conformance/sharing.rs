//! Cases about pid and ipc namespaces: a container's own, the machine's, the task's.

use std::time::Duration;

use super::{Bench, patiently};
use crate::port::{ContainerId, ContainerSpec, ContainerState, Sharing};

/// Prints which namespaces a process is in.
const LOOK: &str = "readlink /proc/self/ns/pid; readlink /proc/self/ns/ipc";

pub(super) async fn run(bench: &Bench) {
    of_its_own(bench).await;
    of_the_machine(bench).await;
    if !shares(bench) {
        bench.refuses(of_task(bench, "task-apart", Sharing::Task, Sharing::Own, "true"), "pidMode").await;
        return bench.refuses(of_task(bench, "task-apart", Sharing::Own, Sharing::Task, "true"), "ipcMode").await;
    }
    processes_of_a_task(bench).await;
    memory_of_a_task(bench).await;
    an_end_is_ones_own(bench).await;
    processes_of_a_task_are_counted_together(bench).await;
}

/// Whether the runtime says that a task's containers can share namespaces.
fn shares(bench: &Bench) -> bool {
    bench.runtime.capabilities().contains(&"ecs.capability.pid-ipc-namespace-sharing")
}

fn of_this_process() -> String {
    let read = |kind: &str| std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("a namespace").display().to_string();
    format!("{}\n{}\n", read("pid"), read("ipc"))
}

/// Containers of one task that share what is said.
fn of_task(bench: &Bench, task: &str, pid: Sharing, ipc: Sharing, script: &str) -> ContainerSpec {
    ContainerSpec { cgroup_parent: task.to_owned(), pid, ipc, ..bench.script(script) }
}

async fn of_its_own(bench: &Bench) {
    let (one, two) = (bench.say(bench.script(LOOK)).await, of_this_process());
    assert!(one.lines().all(|line| !two.contains(line)), "{one}");
    let closed = ContainerSpec { ipc: Sharing::Closed, ..bench.script(&format!("{LOOK}; grep -c ' /dev/shm ' /proc/mounts; true")) };
    let output = bench.say(closed).await;
    assert!(output.ends_with("\n0\n") && output.lines().take(2).all(|line| !two.contains(line)), "without shared memory: {output}");
}

async fn of_the_machine(bench: &Bench) {
    let name = format!("berth-suite-{}", std::process::id());
    let file = std::path::Path::new("/dev/shm").join(&name);
    std::fs::write(&file, "the machine's\n").expect("/dev/shm can be written");
    let own = std::process::id();
    let script = format!("{LOOK}; cat /dev/shm/{name}; test -d /proc/{own} && echo seen");
    let host = |script: &str| ContainerSpec { pid: Sharing::Host, ipc: Sharing::Host, ..bench.script(script) };
    let (exit, output) = bench.run(host(&script)).await;
    std::fs::remove_file(&file).expect("it is still there");
    assert_eq!((exit.code, output), (0, of_this_process() + "the machine's\nseen\n"));

    // Its end ends its own processes, here where no namespace does that.
    let (exit, output) = bench.run(host("sleep 1000 & echo $!; exit 3")).await;
    assert_eq!(exit.code, 3);
    let left: i32 = output.trim().parse().expect("the number of a process");
    patiently(gone(left)).await;
}

/// Until a process of the machine has ended; nobody may have collected it.
async fn gone(pid: i32) {
    let lives = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let state = stat.rsplit_once(')')?.1.trim().chars().next()?;
        (state != 'Z' && stat.contains("(sleep)")).then_some(())
    };
    while lives().is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn processes_of_a_task(bench: &Bench) {
    let task = "task-of-processes";
    let of_task = |script: &str| of_task(bench, task, Sharing::Task, Sharing::Own, script);
    let first = bench.begin(of_task("echo ready; sleep 1111")).await;
    bench.until_said(&first, "ready").await;
    let namespaces = bench.exec(&first, LOOK).await.1;
    // A second one sees the first one's processes, and its own by the same numbers.
    let see = format!("{LOOK}; grep -l 1111 /proc/[0-9]*/cmdline | grep -vc /$$/; test -d /proc/$$ && echo itself");
    let seen = bench.say(of_task(&see)).await;
    assert_eq!(seen.lines().next(), namespaces.lines().next(), "one pid namespace");
    assert_ne!(seen.lines().nth(1), namespaces.lines().nth(1), "two of ipc");
    assert!(seen.lines().nth(2).and_then(|count| count.parse::<u32>().ok()).is_some_and(|count| count >= 1), "{seen}");
    assert!(seen.ends_with("itself\n"), "{seen}");
    // All that holds otherwise.
    let script = "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status; echo 1 > /proc/sys/kernel/core_uses_pid || echo fixed; test -t 0 && echo terminal";
    let full = ContainerSpec { terminal: true, init: true, user: Some("web".into()), ..of_task(script) };
    let output = bench.say(full).await.replace('\r', "");
    assert!(output.contains("Seccomp:\t2\n") && output.contains("fixed\n") && output.ends_with("terminal\n"), "{output}");
    // The namespace's first process is nobody's of them, and survives their hands.
    let (exit, output) = bench.run(of_task("kill -9 1; kill -15 1; kill -2 1; test -d /proc/1 && echo still there; exit 4")).await;
    assert!(exit.code == 4 && output.ends_with("still there\n"), "{output}");
    let init = ContainerSpec {
        init: true,
        ..of_task("sh -c 'true & echo $! > /tmp/orphan'; while test -d /proc/$(cat /tmp/orphan); do sleep 0.01; done")
    };
    bench.say(init).await;
    // A program that cannot be run is told of as ever.
    let missing = ContainerSpec { entry_point: Some(vec!["nothing".into()]), ..of_task("") };
    let id = missing.id.clone();
    bench.runtime.create(missing).await.expect("create");
    let error = bench.runtime.start(&id).await.expect_err("there is no such program").to_string();
    assert!(error.contains("\"nothing\": executable file not found in $PATH"), "{error}");
    bench.remove(&id).await;
    // The first one ends; it was not the namespace.
    let last = bench.begin(of_task("echo ready; sleep 2222")).await;
    bench.until_said(&last, "ready").await;
    bench.remove(&first).await;
    let later = bench.say(of_task(LOOK)).await;
    assert_eq!(later.lines().next(), namespaces.lines().next(), "those that come later share it too");
    assert!(matches!(bench.state(&last).await, Some(ContainerState::Running(_))));
    // Another task's is another; looked at while this one is there, since the kernel gives numbers of namespaces out again.
    let other = self::of_task(bench, "task-elsewhere", Sharing::Task, Sharing::Task, LOOK);
    assert_ne!(bench.say(other).await.lines().next(), namespaces.lines().next());
    bench.remove(&last).await;
}

async fn memory_of_a_task(bench: &Bench) {
    let of_task = |script: &str| of_task(bench, "task-of-memory", Sharing::Own, Sharing::Task, script);
    let first = bench.begin(of_task("echo told > /dev/shm/it; echo ready; sleep 1000")).await;
    bench.until_said(&first, "ready").await;
    let namespaces = bench.exec(&first, LOOK).await.1;
    let second = bench.say(of_task(&format!("{LOOK}; cat /dev/shm/it"))).await;
    assert_ne!(second.lines().next(), namespaces.lines().next(), "two pid namespaces");
    assert_eq!(second.lines().nth(1), namespaces.lines().nth(1), "one of ipc");
    assert!(second.ends_with("told\n"), "{second}");
    // What one has left, the next finds though nobody runs in between.
    let keeper = of_task("true");
    let kept = keeper.id.clone();
    bench.runtime.create(keeper).await.expect("create");
    bench.remove(&first).await;
    assert_eq!(bench.say(of_task("cat /dev/shm/it")).await, "told\n");
    bench.remove(&kept).await;
    assert_eq!(bench.say(of_task("cat /dev/shm/it || echo nothing")).await.lines().last(), Some("nothing"), "gone with the last of them");
    assert_eq!(bench.say(bench.script("ls /dev/shm")).await, "", "another task's is another");
}

/// Two containers share a pid namespace; the end of one is not the other's.
async fn an_end_is_ones_own(bench: &Bench) {
    let of_task = |script: &str| of_task(bench, "task-of-ends", Sharing::Task, Sharing::Task, script);
    let stays = bench.begin(of_task("sleep 1000 & echo $! > /dev/shm/stays; echo ready; sleep 1000")).await;
    bench.until_said(&stays, "ready").await;
    let goes = bench.begin(of_task("sleep 1000 & echo $! > /dev/shm/goes; exit 5")).await;
    assert_eq!(bench.end(&goes).await.code, 5);
    let script = "test -d /proc/$(cat /dev/shm/stays) && echo stayed; while grep -q sleep /proc/$(cat /dev/shm/goes)/cmdline; do sleep 0.01; done; echo went";
    let output = bench.exec(&stays, script).await.1;
    assert!(output.starts_with("stayed\n") && output.ends_with("went\n"), "{output}");
    bench.remove(&goes).await;
    bench.remove(&stays).await;
}

/// No namespace is shared here; only the count is the task's.
async fn processes_of_a_task_are_counted_together(bench: &Bench) {
    let of_task = |task: &str, script: &str| ContainerSpec {
        task_pids_limit: Some(8),
        ..self::of_task(bench, task, Sharing::Own, Sharing::Own, script)
    };
    // Four sleeps and the shell.
    let many = "for i in 1 2 3 4; do sleep 1000 & done; echo all";
    let first = bench.begin(of_task("task-of-few", &format!("{many}; wait"))).await;
    bench.until_said(&first, "all").await;
    let (exit, output) = bench.run(of_task("task-of-few", many)).await;
    assert!(exit.code != 0 && !output.contains("all"), "a second one of them has room for three: {output}");
    let (exit, output) = bench.run(of_task("task-of-others", many)).await;
    assert_eq!((exit.code, output.as_str()), (0, "all\n"), "in a task of its own it has enough");
    bench.remove(&first).await;
}

/// One that shares, and what it shares.
pub(super) struct Survivor {
    id: ContainerId,
    namespaces: String,
}

pub(super) async fn before_restart(bench: &Bench) -> Option<Survivor> {
    if !shares(bench) {
        return None;
    }
    let id = bench.begin(of_task(bench, "task-that-survives", Sharing::Task, Sharing::Task, "echo ready; sleep 1000")).await;
    bench.until_said(&id, "ready").await;
    let namespaces = bench.exec(&id, LOOK).await.1;
    Some(Survivor { id, namespaces })
}

pub(super) async fn after_restart(bench: &Bench, survivor: Option<Survivor>) {
    let Some(Survivor { id, namespaces }) = survivor else { return };
    assert_eq!(bench.say(of_task(bench, "task-that-survives", Sharing::Task, Sharing::Task, LOOK)).await, namespaces);
    bench.remove(&id).await;
}
