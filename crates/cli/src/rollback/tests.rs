//! The command against a server that answers as ECS does.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::*;
use crate::deploy::sample::{self, PREFIX};
use crate::testing::{Answer, FakeServer, Written};

fn answer(operation: &str, request: &Value, status: &str) -> Answer {
    let brief = |number: u8, id: &str, status: &str| json!({ "serviceDeploymentArn": format!("{PREFIX}:service-deployment/blue/web/{}", id.repeat(21)), "status": status, "targetServiceRevisionArn": sample::revision(number) });
    Ok(match operation {
        "DescribeServices" => json!({ "services": [sample::service()] }),
        "ListServiceDeployments" => json!({ "serviceDeployments": [brief(2, "B", status), brief(1, "A", "SUCCESSFUL")] }),
        "DescribeServiceDeployments" => json!({ "serviceDeployments": [sample::service_deployment(status)] }),
        "DescribeServiceRevisions" => {
            let revision = |number: u8| json!({ "serviceRevisionArn": sample::revision(number), "taskDefinition": format!("{PREFIX}:task-definition/web:{number}") });
            json!({ "serviceRevisions": [revision(1), revision(2)] })
        }
        "DescribeTaskDefinition" if request["taskDefinition"].as_str().unwrap().ends_with("web:9") => {
            json!({ "taskDefinition": { "taskDefinitionArn": request["taskDefinition"], "status": "INACTIVE" } })
        }
        "DescribeTaskDefinition" if request["taskDefinition"] == "web" => {
            json!({ "taskDefinition": { "taskDefinitionArn": format!("{PREFIX}:task-definition/web:2"), "status": "ACTIVE" } })
        }
        "DescribeTaskDefinition" => json!({ "taskDefinition": { "taskDefinitionArn": request["taskDefinition"], "status": "ACTIVE" } }),
        "StopServiceDeployment" => {
            assert_eq!(request["stopType"], "ROLLBACK");
            json!({ "serviceDeploymentArn": request["serviceDeploymentArn"] })
        }
        "UpdateService" => {
            assert_eq!(request.as_object().unwrap().len(), 3, "nothing else is changed: {request}");
            let arn = format!("{PREFIX}:service-deployment/blue/web/{}", "C".repeat(21));
            json!({ "service": { "currentServiceDeployment": arn } })
        }
        other => panic!("{other}"),
    })
}

/// Runs `berth rollback web` with more arguments while its newest deployment has this status; gives the calls that change something too.
async fn ran(arguments: &str, status: &'static str) -> (Result<(), Failure>, Written, Vec<String>) {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        rollback: Rollback,
    }
    let changes = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&changes);
    let server = FakeServer::start(move |operation, request| {
        if !operation.starts_with("Describe") && !operation.starts_with("List") {
            seen.lock().unwrap().push(format!("{operation} {}", request.get("taskDefinition").unwrap_or(&Value::Null)));
        }
        answer(operation, &request, status)
    })
    .await;
    let environment: Environment =
        [("AWS_ENDPOINT_URL", server.url.as_str()), ("AWS_ACCESS_KEY_ID", "AKIATEST"), ("AWS_SECRET_ACCESS_KEY", "secret")]
            .into_iter()
            .collect();
    let all = format!("x web --cluster blue {arguments}");
    let line = <Line as clap::Parser>::try_parse_from(all.split_whitespace()).unwrap_or_else(|error| panic!("{error}"));
    let mut written = Written::default();
    let outcome = line.rollback.run(&environment, &mut written.console()).await;
    let changes = changes.lock().unwrap().clone();
    (outcome, written, changes)
}

#[tokio::test]
async fn in_the_middle_of_a_deployment_it_is_stopped() {
    let (outcome, written, changes) = ran("", "IN_PROGRESS").await;
    outcome.unwrap();
    assert_eq!(changes, ["StopServiceDeployment null"]);
    assert_eq!(
        written.out(),
        "service web in cluster blue: stop deployment BBBBBBBBBBBBBBBBBBBBB of web:2 (revision 2222222222222222222) and go back to web:1 \
         (revision 1111111111111111111)\nwatch it with `berth deploy status web --watch`\n"
    );
}

#[tokio::test]
async fn after_one_the_definition_before_is_deployed() {
    let (outcome, written, changes) = ran("--output json", "SUCCESSFUL").await;
    outcome.unwrap();
    assert_eq!(changes, [format!("UpdateService \"{PREFIX}:task-definition/web:1\"")]);
    let done: Value = serde_json::from_str(written.out()).unwrap();
    assert_eq!(
        done,
        json!({
            "action": "UpdateService", "dryRun": false, "cluster": "blue", "service": "web",
            "serviceDeploymentArn": format!("{PREFIX}:service-deployment/blue/web/CCCCCCCCCCCCCCCCCCCCC"),
            "from": { "serviceRevisionArn": sample::revision(2), "taskDefinition": format!("{PREFIX}:task-definition/web:2") },
            "to": { "serviceRevisionArn": sample::revision(1), "taskDefinition": format!("{PREFIX}:task-definition/web:1") },
        })
    );
}

#[tokio::test]
async fn a_rehearsal_and_one_that_goes_back_already_change_nothing() {
    for (status, words) in
        [("IN_PROGRESS", "would stop deployment"), ("SUCCESSFUL", "would go from web:2"), ("ROLLBACK_IN_PROGRESS", "nothing to do")]
    {
        let (outcome, written, changes) = ran("--dry-run", status).await;
        outcome.unwrap();
        assert!(changes.is_empty() && written.out().contains(words), "{status}: {changes:?} {}", written.out());
    }
    let (outcome, _, changes) = ran("", "ROLLBACK_IN_PROGRESS").await;
    outcome.unwrap();
    assert!(changes.is_empty());
}

#[tokio::test]
async fn what_is_named_is_looked_at_first() {
    let (outcome, _, changes) = ran("--to web:3", "IN_PROGRESS").await;
    outcome.unwrap();
    assert_eq!(changes, ["UpdateService \"web:3\""]);
    for (to, words) in [
        ("web:9", "task definition web:9 is INACTIVE and cannot be deployed\n  name another one"),
        ("web", "web:2 is what the service is set to already"),
        ("web:2", "web:2 is what the service is set to already"),
        ("4444444444444444444", "there is no service revision 4444444444444444444 of this service"),
        ("arn:aws:ecs:us-east-1:000000000000:service-revision/blue/other/1111111111111111111", "there is no service revision"),
    ] {
        let (outcome, written, changes) = ran(&format!("--to {to}"), "SUCCESSFUL").await;
        let text = outcome.unwrap_err().render().unwrap();
        assert!(text.contains(words), "{to}: {text}");
        assert!(changes.is_empty() && written.out().is_empty(), "{to}: {changes:?}");
    }
}
