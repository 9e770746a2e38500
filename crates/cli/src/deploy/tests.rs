//! The command against a server that answers as ECS does.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::sample::{self, PREFIX};
use super::*;
use crate::testing::{Answer, FakeServer, Written};

/// A service whose deployment has the status that the closure gives at each look.
fn answer(operation: &str, request: &Value, status: &str) -> Answer {
    let deployment = |status: &str| {
        let mut one = sample::service_deployment(status);
        if status == "SUCCESSFUL" {
            one["finishedAt"] = 1040.into();
        }
        one
    };
    Ok(match operation {
        "ListClusters" => json!({ "clusterArns": [format!("{PREFIX}:cluster/blue"), format!("{PREFIX}:cluster/green")] }),
        "DescribeServices" if request["services"] == json!(["web"]) && request["cluster"].as_str().unwrap().ends_with("blue") => {
            json!({ "services": [sample::service()] })
        }
        "DescribeServices" => json!({ "services": [], "failures": [{ "reason": "MISSING" }] }),
        "DescribeServiceDeployments" => json!({ "serviceDeployments": [deployment(status)] }),
        "DescribeServiceRevisions" => {
            let of = |arn: &Value| {
                let number = if *arn == json!(sample::revision(2)) { 2 } else { 1 };
                json!({ "serviceRevisionArn": arn, "taskDefinition": format!("{PREFIX}:task-definition/web:{number}") })
            };
            json!({ "serviceRevisions": request["serviceRevisionArns"].as_array().unwrap().iter().map(of).collect::<Vec<_>>() })
        }
        "why" => json!({ "kind": "service", "reasons": [{ "code": "WAITS", "text": "2 older tasks wait" }] }),
        other => panic!("{other}"),
    })
}

struct Ran {
    outcome: Result<(), Failure>,
    written: Written,
    calls: Vec<String>,
}

/// Runs the command while the deployment goes through these statuses, one a look; the last one stays.
async fn ran(arguments: &str, statuses: &'static [&'static str]) -> Ran {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        status: DeployStatus,
    }
    let calls = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&calls);
    let server = FakeServer::start(move |operation, request| {
        let mut calls = seen.lock().unwrap();
        let looks = calls.iter().filter(|call| *call == "DescribeServiceDeployments").count();
        calls.push(operation.to_owned());
        answer(operation, &request, statuses[looks.min(statuses.len() - 1)])
    })
    .await;
    let environment: Environment =
        [("AWS_ENDPOINT_URL", server.url.as_str()), ("AWS_ACCESS_KEY_ID", "AKIATEST"), ("AWS_SECRET_ACCESS_KEY", "secret")]
            .into_iter()
            .collect();
    let line = <Line as clap::Parser>::try_parse_from(std::iter::once("x").chain(arguments.split(' '))).unwrap_or_else(|e| panic!("{e}"));
    let mut written = Written::default();
    let outcome = line.status.run(&environment, &mut written.console()).await;
    let calls = calls.lock().unwrap().clone();
    Ran { outcome, written, calls }
}

#[tokio::test]
async fn once_it_is_shown_whatever_the_state() {
    for status in [&["IN_PROGRESS"], &["ROLLBACK_FAILED"], &["SUCCESSFUL"]] {
        let ran = ran("web", status).await;
        ran.outcome.unwrap();
        assert!(ran.written.out().contains(&format!("of web:2: {}", status[0])), "{}", ran.written.out());
    }
}

#[tokio::test]
async fn an_arn_names_the_cluster_too() {
    let ran = ran("arn:aws:ecs:us-east-1:000000000000:service/blue/web --output json", &["IN_PROGRESS"]).await;
    ran.outcome.unwrap();
    let shown: Value = serde_json::from_str(ran.written.out()).unwrap();
    assert_eq!(shown["outcome"], "IN_PROGRESS");
    assert_eq!(shown["waitsFor"][0]["text"], "2 older tasks wait");
    assert_eq!(shown["revisions"][0]["taskDefinition"], format!("{PREFIX}:task-definition/web:2"));
    assert!(!ran.calls.iter().any(|call| call == "ListClusters"), "{:?}", ran.calls);
}

#[tokio::test]
async fn a_watch_ends_with_the_deployment() {
    let ran = ran("web --watch", &["IN_PROGRESS", "IN_PROGRESS", "SUCCESSFUL"]).await;
    ran.outcome.unwrap();
    let told: Vec<&str> = ran.written.out().lines().map(|line| line.split_once("Z ").unwrap().1).collect();
    assert_eq!(told[0], "deployment BBBBBBBBBBBBBBBBBBBBB of web:2: IN_PROGRESS");
    let count = |call: &str| ran.calls.iter().filter(|other| *other == call).count();
    assert_eq!(told[told.len() - 2..], ["deployment BBBBBBBBBBBBBBBBBBBBB of web:2: SUCCESSFUL", "completed after 40s"]);
    assert_eq!(count("DescribeServiceDeployments"), 3);
    assert_eq!(count("why"), 1, "the server is asked for reasons where something has changed");
    assert_eq!(count("DescribeServiceRevisions"), 1, "what a revision runs never changes");
}

#[tokio::test]
async fn a_wait_says_how_it_ended() {
    let ran = ran("web --wait", &["IN_PROGRESS", "ROLLBACK_IN_PROGRESS", "ROLLBACK_SUCCESSFUL"]).await;
    let failure = ran.outcome.unwrap_err();
    assert_eq!(failure.code(), 1);
    assert!(failure.render().unwrap().starts_with("error: the deployment of service web was rolled back: "));
    assert_eq!(ran.written.out().matches("ROLLBACK_SUCCESSFUL").count(), 1, "{}", ran.written.out());
}

#[tokio::test]
async fn patience_ends() {
    let ran = ran("web --watch --timeout 1 --output json", &["IN_PROGRESS"]).await;
    let failure = ran.outcome.unwrap_err();
    assert_eq!(failure.code(), 1);
    let text = failure.render().unwrap();
    assert!(text.contains("service web has not ended within 1 seconds, and goes on\n"), "{text}");
    assert_eq!(ran.written.out().lines().count(), 1, "nothing changed after the first look");
}

#[tokio::test]
async fn an_unknown_service_says_how_to_find_the_right_one() {
    let all = ran("none", &["IN_PROGRESS"]).await.outcome.unwrap_err().render().unwrap();
    assert!(
        all.starts_with("error: there is no service 'none' in any cluster\n  see which there are with `aws ecs list-services"),
        "{all}"
    );
    let one = ran("web --cluster green", &["IN_PROGRESS"]).await.outcome.unwrap_err().render().unwrap();
    assert!(one.starts_with("error: there is no service 'web' in cluster green\n"), "{one}");
}
