//! Cases about the first process: its terminal, its standard input, the init above it, and how it is confined.

use super::{Bench, exec_spec};
use crate::port::{ContainerSpec, ContainerState, RunError};

pub(super) async fn run(bench: &Bench) {
    terminals(bench).await;
    standard_input(bench).await;
    init(bench).await;
    init_fails_as_the_program_does(bench).await;
    security_options(bench).await;
}

async fn terminals(bench: &Bench) {
    // stdout and stderr as they are: both are the terminal.
    let script = "test -t 0 && test -t 1 && test -t 2 && echo all three; echo mine > /dev/tty && echo error >&2; seq 1 3000; exit 4";
    let id = bench.begin(ContainerSpec { terminal: true, ..bench.spec(&["sh", "-c", script]) }).await;
    assert_eq!(bench.end(&id).await.code, 4);
    let records = bench.records(&id);
    bench.remove(&id).await;
    assert!(records.iter().all(|(stream, ..)| stream == "stdout"), "a terminal has one output");
    let lines: Vec<&str> = records.iter().map(|(_, _, text)| text.trim_end_matches('\r')).collect();
    assert_eq!(lines[..3], ["all three", "mine", "error"]);
    assert_eq!((lines.len(), lines.last().copied()), (3003, Some("3000")), "the last of it is there too");

    // It is the user's, by name too; and its input does not end though nobody holds the other side for writing.
    let script = "echo by name > /dev/stdout; test -t 0 && echo input; stat -c %u $(readlink /proc/self/fd/0)";
    let output = bench.say(ContainerSpec { terminal: true, user: Some("web".into()), ..bench.script(script) }).await;
    assert_eq!(output.replace('\r', ""), "by name\ninput\n33\n");
    // Without one there is none.
    let (exit, _) = bench.run(bench.script("test -t 0 || test -t 1 || true > /dev/tty")).await;
    assert_ne!(exit.code, 0);
}

async fn standard_input(bench: &Bench) {
    let open = bench.begin(ContainerSpec { stdin_open: true, ..bench.spec(&["cat"]) }).await;
    let both = bench.begin(ContainerSpec { stdin_open: true, terminal: true, ..bench.spec(&["cat"]) }).await;
    // One that was begun later comes to its end: its input is empty.
    assert_eq!(bench.say(bench.script("cat; echo at the end")).await, "at the end\n");
    for id in [open, both] {
        assert!(matches!(bench.state(&id).await, Some(ContainerState::Running(_))), "its input has not ended");
        bench.runtime.signal(&id, libc::SIGKILL).await.expect("signal");
        assert_eq!(bench.end(&id).await.code, 137);
        bench.remove(&id).await;
    }
}

async fn init(bench: &Bench) {
    let with_init = |spec: ContainerSpec| ContainerSpec { init: true, ..spec };
    // The program is the init's child; what its own children leave behind goes to the init, and away.
    let script = "test $$ -ne 1 && test $PPID -eq 1 && echo below; sh -c 'true & echo $! > /tmp/orphan'
        while test -d /proc/$(cat /tmp/orphan); do sleep 0.01; done; echo collected; exit 7";
    let (exit, output) = bench.run(with_init(bench.script(script))).await;
    assert_eq!((exit.code, output.as_str()), (7, "below\ncollected\n"));

    // A signal reaches the program; one that it does not handle ends it, as it would outside of a container.
    let id = bench.begin(with_init(bench.script("trap 'echo got; exit 5' USR1; echo ready; while :; do sleep 0.01; done"))).await;
    bench.until_said(&id, "ready").await;
    bench.runtime.signal(&id, libc::SIGUSR1).await.expect("signal");
    assert_eq!(bench.end(&id).await.code, 5);
    bench.remove(&id).await;
    let id = bench.begin(with_init(bench.spec(&["sleep", "1000"]))).await;
    assert_eq!(bench.exec(&id, "exit 9").await.0, Some(9));
    bench.runtime.signal(&id, libc::SIGTERM).await.expect("signal");
    assert_eq!(bench.end(&id).await.code, 128 + libc::SIGTERM);
    bench.remove(&id).await;

    // All else holds for it too.
    let script = "echo $(id -u); grep -E '^(Seccomp|CapEff):' /proc/self/status; grep Uid: /proc/1/status; grep Seccomp: /proc/1/status";
    let output = bench.say(ContainerSpec { user: Some("web".into()), ..with_init(bench.script(script)) }).await;
    assert!(output.starts_with("33\n") && output.contains("CapEff:\t0000000000000000"), "{output}");
    assert_eq!(output.matches("Seccomp:\t2").count(), 2, "{output}");
    // The terminal is the program's, which is foremost there: in the background it could not set it.
    let script = "test -t 0 && echo terminal; true > /dev/tty && echo its own";
    let output = bench.say(ContainerSpec { terminal: true, ..with_init(bench.script(script)) }).await;
    assert_eq!(output.replace('\r', ""), "terminal\nits own\n");
}

async fn init_fails_as_the_program_does(bench: &Bench) {
    let spec = ContainerSpec { init: true, ..bench.spec(&["nothing"]) };
    let id = spec.id.clone();
    bench.runtime.create(spec).await.expect("create");
    if bench.differences.late_format_errors {
        // Docker's init is the program that is started; it ends as a shell would that finds nothing.
        bench.runtime.start(&id).await.expect("its init runs");
        assert_eq!(bench.end(&id).await.code, 127);
        return bench.remove(&id).await;
    }
    let error = bench.runtime.start(&id).await.expect_err("there is no such program");
    assert!(matches!(&error, RunError::Exec(text) if text.contains("\"nothing\": executable file not found in $PATH")), "{error:?}");
    assert_eq!(bench.state(&id).await, Some(ContainerState::Created));
    bench.remove(&id).await;
}

async fn security_options(bench: &Bench) {
    let with = |options: &[&str], script: &str| ContainerSpec {
        security_options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..bench.script(script)
    };
    let look = "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status";
    assert_eq!(bench.say(with(&[], look)).await, "NoNewPrivs:\t0\nSeccomp:\t2\n");
    assert_eq!(bench.say(with(&["no-new-privileges"], look)).await, "NoNewPrivs:\t1\nSeccomp:\t2\n");
    assert_eq!(bench.say(with(&["no-new-privileges:false"], look)).await, "NoNewPrivs:\t0\nSeccomp:\t2\n");
    assert_eq!(bench.say(with(&["seccomp=unconfined"], look)).await, "NoNewPrivs:\t0\nSeccomp:\t0\n");
    let both = with(&["no-new-privileges:true", "label:disable", "apparmor:unconfined"], "echo ready; sleep 1000");
    let id = bench.begin(both).await;
    bench.until_said(&id, "ready").await;
    let outcome = bench.runtime.exec(&id, exec_spec(look)).await.expect("exec");
    assert_eq!(String::from_utf8_lossy(&outcome.output), "NoNewPrivs:\t1\nSeccomp:\t2\n", "what is run later has no more rights");
    bench.remove(&id).await;
    bench.refuses(with(&["fly:high"], "true"), "fly:high").await;
    bench.refuses(with(&["no-new-privileges:perhaps"], "true"), "no-new-privileges:perhaps").await;
}
