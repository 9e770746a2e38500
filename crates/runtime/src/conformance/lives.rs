//! Cases about containers that have ended and are started again.

use super::Bench;
use crate::port::{ContainerSpec, ContainerState, RunError};

pub(super) async fn run(bench: &Bench) {
    one_after_the_other(bench).await;
    a_running_one_stays(bench).await;
    one_that_cannot_start_again(bench).await;
    memory_of_another_life(bench).await;
}

async fn one_after_the_other(bench: &Bench) {
    let script = "echo x >> /lives; n=$(wc -l < /lives); echo life $n; cat /proc/self/cgroup > /dev/null; exit $n";
    for terminal in [false, true] {
        let id = bench.begin(ContainerSpec { terminal, ..bench.script(script) }).await;
        let first = bench.end(&id).await;
        assert_eq!(first.code, 1);
        for code in [2, 3] {
            bench.runtime.start(&id).await.expect("it starts again");
            let exit = bench.end(&id).await;
            assert_eq!(exit.code, code, "its files are those that it left");
            assert!(exit.at > first.at);
            assert_eq!(bench.state(&id).await, Some(ContainerState::Exited(exit)));
        }
        assert_eq!(bench.output(&id).replace('\r', ""), "life 1\nlife 2\nlife 3\n", "its output goes on");
        bench.remove(&id).await;
    }
}

async fn a_running_one_stays(bench: &Bench) {
    let id = bench
        .begin(bench.script("test -e /been && trap 'exit 6' USR1; touch /been; echo ready; while test -e /been; do sleep 0.01; done"))
        .await;
    bench.until_said(&id, "ready").await;
    bench.runtime.signal(&id, libc::SIGKILL).await.expect("signal");
    assert_eq!(bench.end(&id).await.code, 137);
    let second = bench.runtime.start(&id).await.expect("it starts again");
    let same = bench.runtime.start(&id).await.expect("it runs already");
    assert_eq!(same.pid, second.pid);
    // Everything that is asked of a running container can be asked of this one.
    super::patiently(async {
        while bench.output(&id) != "ready\nready\n" {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(matches!(bench.state(&id).await, Some(ContainerState::Running(_))));
    assert_eq!(bench.exec(&id, "ls /been").await, (Some(0), "/been\n".into()));
    assert!(bench.runtime.stats(&id).await.expect("stats").pids >= 1);
    let waiting = bench.end(&id);
    let signal = async { bench.runtime.signal(&id, libc::SIGUSR1).await.expect("signal") };
    let (exit, ()) = tokio::join!(waiting, signal);
    assert_eq!(exit.code, 6, "the end of the new life is what was waited for");
    bench.remove(&id).await;
}

async fn one_that_cannot_start_again(bench: &Bench) {
    let id = bench.begin(bench.script("rm /bin/sh; exit 3")).await;
    let exit = bench.end(&id).await;
    assert_eq!(exit.code, 3);
    let error = bench.runtime.start(&id).await.expect_err("its program is gone");
    assert!(matches!(error, RunError::Exec(_)), "{error:?}");
    if !bench.differences.failed_starts_are_ends {
        assert_eq!(bench.state(&id).await, Some(ContainerState::Exited(exit.clone())), "it is as it was before");
        assert_eq!(bench.end(&id).await, exit);
    }
    bench.remove(&id).await;
}

/// What the first life was killed for is not the second one's.
async fn memory_of_another_life(bench: &Bench) {
    let script = "test -e /been && exit 0; touch /been; exec dd if=/dev/zero of=/dev/shm/x bs=1M count=60";
    let id = bench.begin_out_of_memory(script).await;
    bench.runtime.start(&id).await.expect("it starts again");
    let second = bench.end(&id).await;
    assert_eq!((second.code, second.oom_killed), (0, false));
    bench.remove(&id).await;
}
