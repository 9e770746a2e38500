//! `berth logs` against a server on loopback and log files in a temporary folder.

use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use serde_json::{Value, json};

use super::*;
use crate::testing::{Answer, FakeServer, Written};

const PREFIX: &str = "arn:aws:ecs:us-east-1:000000000000";
const ONE: &str = "11110000000000000000000000000001";
const TWO: &str = "11112222000000000000000000000002";
const OLD: &str = "33330000000000000000000000000003";

fn arn(id: &str) -> String {
    format!("{PREFIX}:task/blue/{id}")
}

fn container(name: &str, runtime_id: Option<&str>) -> Value {
    json!({ "name": name, "runtimeId": runtime_id, "lastStatus": "RUNNING" })
}

fn task(id: &str, status: &str, deployment: &str, containers: Vec<Value>) -> Value {
    json!({
        "taskArn": arn(id), "lastStatus": status, "desiredStatus": if status == "STOPPED" { "STOPPED" } else { "RUNNING" },
        "startedBy": format!("ecs-svc/{deployment}"), "createdAt": deployment.parse::<i64>().unwrap(), "group": "service:web",
        "containerInstanceArn": format!("{PREFIX}:container-instance/blue/cafe0000000000000000000000000000"), "containers": containers,
    })
}

/// Answers as a server with these tasks does: all belong to the service `web` of the cluster `blue`.
fn answer(tasks: &[Value], operation: &str, request: &Value) -> Answer {
    Ok(match operation {
        "ListClusters" => json!({ "clusterArns": [format!("{PREFIX}:cluster/blue")] }),
        "ListTasks" => {
            if request["serviceName"].as_str().is_some_and(|name| name != "web") {
                return Err((400, json!({ "__type": "ServiceNotFoundException", "message": "Service not found." })));
            }
            let fits = |task: &&Value| task["desiredStatus"] == request["desiredStatus"];
            json!({ "taskArns": tasks.iter().filter(fits).map(|task| &task["taskArn"]).collect::<Vec<_>>() })
        }
        "DescribeTasks" => {
            let wanted: Vec<&str> = request["tasks"].as_array().unwrap().iter().map(|id| name_of(id.as_str().unwrap())).collect();
            let fits = |task: &&Value| wanted.contains(&name_of(task["taskArn"].as_str().unwrap()));
            json!({ "tasks": tasks.iter().filter(fits).collect::<Vec<_>>() })
        }
        other => panic!("{other}"),
    })
}

fn write(data_dir: &Path, runtime_id: &str, records: &[&str]) {
    let folder = containers_folder(data_dir).join(runtime_id);
    fs::create_dir_all(&folder).unwrap();
    let mut file = fs::OpenOptions::new().append(true).create(true).open(folder.join("output.log")).unwrap();
    for record in records {
        let (second, rest) = record.split_once(' ').unwrap();
        writeln!(file, "2026-11-21T04:00:{second}.000000000Z {rest}").unwrap();
    }
}

fn logs(data_dir: &Path, wanted: &str) -> Logs {
    Logs {
        task: Some(wanted.into()),
        group: None,
        stream: None,
        container: None,
        follow: false,
        tail: None,
        timestamps: false,
        cluster: None,
        output: Output::Text,
        data_dir: DataDirArgument { data_dir: Some(data_dir.to_owned()) },
    }
}

async fn run(logs: &Logs, server: &FakeServer) -> (Result<(), Failure>, Written) {
    let environment: Environment =
        [("AWS_ENDPOINT_URL", server.url.as_str()), ("AWS_ACCESS_KEY_ID", "AKIATEST"), ("AWS_SECRET_ACCESS_KEY", "secret")]
            .into_iter()
            .collect();
    let mut written = Written::default();
    let outcome = logs.run(&environment, &mut written.console()).await;
    (outcome, written)
}

/// Two running tasks of the newest deployment and one of an older, with output.
async fn house() -> (tempfile::TempDir, FakeServer) {
    let folder = tempfile::tempdir().unwrap();
    let tasks = [
        task(OLD, "RUNNING", "1", vec![container("app", Some("r3"))]),
        task(ONE, "RUNNING", "2", vec![container("app", Some("r1")), container("proxy", Some("r1p"))]),
        task(TWO, "RUNNING", "2", vec![container("app", Some("r2")), container("proxy", None)]),
    ];
    write(folder.path(), "r1", &["01 stdout F one", "04 stderr F four", "06 stdout F six"]);
    write(folder.path(), "r1p", &["02 stdout P tw", "03 stdout F o", "05 stdout F five"]);
    write(folder.path(), "r2", &["03 stdout F three"]);
    write(folder.path(), "r3", &["01 stdout F old"]);
    let server = FakeServer::start(move |operation, request| answer(&tasks, operation, &request)).await;
    (folder, server)
}

#[tokio::test]
async fn a_task_by_whatever_names_it() {
    let (folder, server) = house().await;
    for name in [OLD, &OLD[..1], "3333", &arn(OLD)] {
        let (outcome, written) = run(&logs(folder.path(), name), &server).await;
        outcome.unwrap();
        assert_eq!(written.out(), "old\n", "{name}");
    }
}

#[tokio::test]
async fn containers_are_merged_by_time() {
    let (folder, server) = house().await;
    let (outcome, written) = run(&logs(folder.path(), ONE), &server).await;
    outcome.unwrap();
    assert_eq!(written.out(), "app   | one\nproxy | two\napp   | four\nproxy | five\napp   | six\n");
    let tailed = Logs { tail: Some(1), timestamps: true, ..logs(folder.path(), ONE) };
    let (outcome, written) = run(&tailed, &server).await;
    outcome.unwrap();
    assert_eq!(
        written.out(),
        "proxy | 2026-11-21T04:00:05.000000000Z five\napp   | 2026-11-21T04:00:06.000000000Z six\n",
        "the last line of each"
    );
}

#[tokio::test]
async fn a_service_is_its_newest_deployment() {
    let (folder, server) = house().await;
    let (outcome, written) = run(&logs(folder.path(), "web"), &server).await;
    outcome.unwrap();
    assert_eq!(
        written.out(),
        "\
app 111100000000   | one
proxy 111100000000 | two
app 111122220000   | three
app 111100000000   | four
proxy 111100000000 | five
app 111100000000   | six
"
    );
    assert_eq!(written.err(), "warning: container 'proxy' of task 111122220000 has not started yet\n");
}

#[tokio::test]
async fn one_container_alone_has_no_prefix() {
    let (folder, server) = house().await;
    let one = Logs { container: Some("proxy".into()), output: Output::Json, ..logs(folder.path(), ONE) };
    let (outcome, written) = run(&one, &server).await;
    outcome.unwrap();
    let first: Value = serde_json::from_str(written.out().lines().next().unwrap()).unwrap();
    assert_eq!(
        first,
        json!({ "timestamp": "2026-11-21T04:00:02.000000000Z", "task": ONE, "container": "proxy", "stream": "stdout", "message": "two" })
    );
    let one = Logs { container: Some("sidecar".into()), ..logs(folder.path(), ONE) };
    let failure = run(&one, &server).await.0.unwrap_err();
    assert_eq!(
        failure.render().unwrap(),
        "error: task 111100000000 has no container 'sidecar'; it has app, proxy\n  name one of those with --container NAME\n"
    );
}

#[tokio::test]
async fn unclear_and_unknown_names() {
    let (folder, server) = house().await;
    let failure = run(&logs(folder.path(), "1111"), &server).await.0.unwrap_err();
    assert_eq!(
        failure.render().unwrap(),
        "error: '1111' is the beginning of more than one task's id: 111100000000, 111122220000\n  type more of the id\n"
    );
    for name in ["nothing", "dead", "44440000000000000000000000000004"] {
        let failure = run(&logs(folder.path(), name), &server).await.0.unwrap_err();
        let expected = format!("error: there is no task or service '{name}' in any cluster\n");
        assert!(failure.render().unwrap().starts_with(&expected), "{name}");
    }
}

#[tokio::test]
async fn output_on_another_machine() {
    let (folder, server) = house().await;
    fs::remove_dir_all(containers_folder(folder.path()).join("r3")).unwrap();
    let text = run(&logs(folder.path(), OLD), &server).await.0.unwrap_err().render().unwrap();
    assert!(text.contains("the output of container 'app' of task 333300000000 is not on this machine"), "{text}");
    assert!(
        text.contains("placed on container instance cafe0000000000000000000000000000: run `berth logs 333300000000` on that machine"),
        "{text}"
    );
    // One of two is a warning.
    fs::remove_dir_all(containers_folder(folder.path()).join("r1p")).unwrap();
    let (outcome, written) = run(&logs(folder.path(), ONE), &server).await;
    outcome.unwrap();
    assert_eq!(written.out(), "app   | one\napp   | four\napp   | six\n");
    assert!(written.err().starts_with("warning: the output of container 'proxy' of task 111100000000 is not on this machine"));
}

#[tokio::test]
async fn a_container_that_never_ran_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let mut never = task(ONE, "STOPPED", "1", vec![container("app", None)]);
    never["containers"][0]["reason"] = json!("CannotPullContainerError: no such image");
    let server = FakeServer::start(move |operation, request| answer(std::slice::from_ref(&never), operation, &request)).await;
    for name in [ONE, "web"] {
        let text = run(&logs(folder.path(), name), &server).await.0.unwrap_err().render().unwrap();
        assert!(
            text.starts_with("error: container 'app' of task 111100000000 never ran: CannotPullContainerError: no such image\n"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_runtime_id_cannot_lead_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let evil = task(ONE, "RUNNING", "1", vec![container("app", Some("../../etc"))]);
    let server = FakeServer::start(move |operation, request| answer(std::slice::from_ref(&evil), operation, &request)).await;
    let text = run(&logs(folder.path(), ONE), &server).await.0.unwrap_err().render().unwrap();
    assert!(text.contains("a runtime id that cannot be one"), "{text}");
}

/// The server plays the story: each question about the task moves it on, and what the container writes in between, rotation
/// included, must all be shown before the command ends by itself.
#[tokio::test]
async fn following_goes_on_to_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().to_owned();
    let step = Arc::new(AtomicU32::new(0));
    let at = Arc::clone(&step);
    let server = FakeServer::start(move |operation, request| {
        if operation != "DescribeTasks" {
            return answer(&[], operation, &request);
        }
        let log = containers_folder(&data_dir).join("r1").join("output.log");
        let (status, runtime_id) = match at.fetch_add(1, Ordering::SeqCst) {
            0 => ("PENDING", None),
            1 => {
                write(&data_dir, "r1", &["01 stdout F one"]);
                ("RUNNING", Some("r1"))
            }
            2 => {
                write(&data_dir, "r1", &["02 stdout F two"]);
                fs::rename(&log, log.with_extension("log.1")).unwrap();
                write(&data_dir, "r1", &["03 stdout F three", "04 stdout P fo"]);
                ("RUNNING", Some("r1"))
            }
            3 => return Err((503, json!("restarting"))),
            _ => {
                write(&data_dir, "r1", &["05 stdout F ur"]);
                ("STOPPED", Some("r1"))
            }
        };
        answer(&[task(ONE, status, "1", vec![container("app", runtime_id)])], operation, &request)
    })
    .await;
    let follow = Logs { follow: true, ..logs(folder.path(), ONE) };
    let (outcome, written) = run(&follow, &server).await;
    outcome.unwrap();
    assert_eq!(written.out(), "one\ntwo\nthree\nfour\n");
    let warnings: Vec<&str> = written.err().lines().collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert_eq!(warnings[0], "warning: container 'app' of task 111100000000 has not started yet; waiting for it");
    assert!(warnings[1].contains("following goes on"), "{warnings:?}");
    assert_eq!(step.load(Ordering::SeqCst), 5);
}

/// Following begins with the last lines only, and a task that has been forgotten meanwhile is an end like any other.
#[tokio::test]
async fn following_from_the_last_lines() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "r1", &["01 stdout F one", "02 stdout F two"]);
    let data_dir = folder.path().to_owned();
    let is_first = AtomicBool::new(true);
    let server = FakeServer::start(move |operation, request| {
        if operation == "DescribeTasks" && !is_first.swap(false, Ordering::SeqCst) {
            write(&data_dir, "r1", &["03 stdout F three"]);
            return answer(&[], operation, &request);
        }
        answer(&[task(ONE, "RUNNING", "1", vec![container("app", Some("r1"))])], operation, &request)
    })
    .await;
    let follow = Logs { follow: true, tail: Some(1), ..logs(folder.path(), ONE) };
    let (outcome, written) = run(&follow, &server).await;
    outcome.unwrap();
    assert_eq!((written.out(), written.err()), ("two\nthree\n", ""));
}
