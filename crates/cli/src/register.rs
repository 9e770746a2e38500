//! `berth register`: registers a task definition out of a file as people have it: the request, or what DescribeTaskDefinition said. It must
//! never leave out anything that it does not name, except what only the service says.

use std::io::Read;
use std::path::Path;

use berth_shapes::ecs;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::client::Client;
use crate::command::Output;
use crate::connection::DataDirArgument;
use crate::console::{Console, Style, one_line};
use crate::environment::Environment;
use crate::failure::Failure;

/// Largest file; the server takes no larger request either.
const MAX_FILE: u64 = 1024 * 1024;
/// What a task definition says of itself once it is registered: answers have it, RegisterTaskDefinition takes none of it.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_TaskDefinition.html>
const SAID_BY_THE_SERVICE: [&str; 9] = [
    "taskDefinitionArn",
    "revision",
    "status",
    "requiresAttributes",
    "compatibilities",
    "registeredAt",
    "registeredBy",
    "deregisteredAt",
    "deleteRequestedAt",
];

/// Register a task definition from a file.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  berth register web.json\n  aws ecs describe-task-definition --task-definition web:3 | berth register -\n  berth register web.json --output json | jq -r .taskDefinitionArn"
)]
pub struct Register {
    /// JSON: a request of RegisterTaskDefinition, a task definition as DescribeTaskDefinition or the console show it, or that whole answer;
    /// - reads the standard input
    #[arg(value_name = "FILE")]
    file: String,
    /// How to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
    #[command(flatten)]
    data_dir: DataDirArgument,
}

/// What came of it, for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Registered<'a> {
    task_definition_arn: &'a str,
    family: &'a str,
    revision: i32,
    /// Members of the file that were not sent.
    left_out: &'a [String],
}

impl Register {
    pub(crate) async fn run(&self, environment: &Environment, console: &mut Console<'_>) -> Result<(), Failure> {
        let bad = |problem: String| Failure::bad_arguments(format!("{}: {problem}", self.file), "give a JSON file of a task definition");
        let (request, left_out) = request(&read(&self.file).map_err(bad)?).map_err(bad)?;
        let client = Client::find(&self.data_dir, environment)?;
        let answer: ecs::RegisterTaskDefinitionResponse = client.call("RegisterTaskDefinition", &request).await?;
        let made = answer.task_definition.unwrap_or_default();
        let (arn, family) = (made.task_definition_arn.unwrap_or_default(), made.family.unwrap_or_default());
        let revision = made.revision.unwrap_or_default();
        if self.output == Output::Json {
            return Ok(console.json(&Registered { task_definition_arn: &arn, family: &family, revision, left_out: &left_out })?);
        }
        let name = console.colours.paint(Style::Bold, &one_line(&format!("{family}:{revision}")));
        writeln!(console.out, "registered {name}")?;
        if !left_out.is_empty() {
            writeln!(console.out, "left out what only the service says: {}", left_out.join(", "))?;
        }
        Ok(())
    }
}

fn read(file: &str) -> Result<String, String> {
    let mut text = String::new();
    let mut limited: Box<dyn Read> = if file == "-" {
        Box::new(std::io::stdin().take(MAX_FILE + 1))
    } else {
        let opened = std::fs::File::open(Path::new(file)).map_err(|error| error.to_string())?;
        Box::new(opened.take(MAX_FILE + 1))
    };
    limited.read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_FILE {
        return Err(format!("it has more than {MAX_FILE} bytes"));
    }
    Ok(text)
}

/// The request that a file means, and the members that were left out of it. Pure.
fn request(text: &str) -> Result<(Value, Vec<String>), String> {
    let Value::Object(mut given) = serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))? else {
        return Err("it is no JSON object".to_owned());
    };
    if let Some(inner) = given.remove("taskDefinition") {
        // The whole answer: its tags stand beside the definition, as a request has them in itself.
        let Value::Object(mut definition) = inner else { return Err("its taskDefinition is no JSON object".to_owned()) };
        let tags = given.remove("tags").filter(|tags| tags.as_array().is_none_or(|tags| !tags.is_empty()));
        if let Some(other) = given.keys().next() {
            return Err(format!("beside taskDefinition it has {other:?}, which no answer of DescribeTaskDefinition has"));
        }
        if let Some(tags) = tags {
            definition.entry("tags").or_insert(tags);
        }
        given = definition;
    }
    let is_said = |name: &str| SAID_BY_THE_SERVICE.contains(&name);
    let left_out = given.keys().filter(|name| is_said(name)).cloned().collect();
    let wanted: Map<String, Value> = given.into_iter().filter(|(name, _)| !is_said(name)).collect();
    let wanted = Value::Object(wanted);
    let read: ecs::RegisterTaskDefinitionRequest =
        serde_json::from_value(wanted.clone()).map_err(|error| format!("it is no task definition: {error}"))?;
    let understood = serde_json::to_value(&read).map_err(|error| error.to_string())?;
    let mut unknown = Vec::new();
    lost(&wanted, &understood, "", &mut unknown);
    if !unknown.is_empty() {
        // A service would pass over them: a misspelt member would be a setting that silently is not there.
        return Err(format!("a task definition has no {}", unknown.join(", ")));
    }
    Ok((wanted, left_out))
}

/// Members that are not there any more once a document was read: those that nobody knows.
fn lost(before: &Value, after: &Value, path: &str, found: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (name, value) in before.iter().filter(|(_, value)| !value.is_null()) {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match after.get(name) {
                    Some(kept) => lost(value, kept, &path, found),
                    None => found.push(path),
                }
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            for (nth, (value, kept)) in before.iter().zip(after).enumerate() {
                lost(value, kept, &format!("{path}[{nth}]"), found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{FakeServer, connection};

    fn pasted() -> Value {
        json!({
            "taskDefinitionArn": "arn:aws:ecs:us-east-1:000000000000:task-definition/dks-db:4",
            "containerDefinitions": [{
                "name": "dks-db", "image": "postgres:16.4-alpine", "cpu": 0, "essential": true, "environmentFiles": [],
                "portMappings": [{"name": "db-port", "containerPort": 5432, "hostPort": 5432, "protocol": "tcp", "appProtocol": "http"}],
                "dockerLabels": {"any.name": "is kept"},
            }],
            "family": "dks-db", "networkMode": "awsvpc", "revision": 4, "volumes": [], "status": "ACTIVE",
            "requiresAttributes": [{"name": "ecs.capability.task-eni"}], "placementConstraints": [], "compatibilities": ["EC2"],
            "cpu": "1024", "memory": "1024", "runtimePlatform": {"cpuArchitecture": "ARM64", "operatingSystemFamily": "LINUX"},
            "registeredAt": "2024-10-02T17:12:31.502Z", "registeredBy": "arn:aws:iam::000000000000:user/x",
            "enableFaultInjection": false, "tags": [],
        })
    }

    #[test]
    fn what_only_the_service_says_is_left_out_and_named() {
        let (request, left_out) = request(&pasted().to_string()).unwrap();
        let mut expected =
            ["taskDefinitionArn", "revision", "status", "requiresAttributes", "compatibilities", "registeredAt", "registeredBy"];
        let mut named = left_out;
        named.sort_unstable();
        expected.sort_unstable();
        assert_eq!(named, expected);
        let (Value::Object(mut wanted), Value::Object(sent)) = (pasted(), request) else { panic!("objects") };
        expected.iter().for_each(|name| drop(wanted.remove(*name)));
        assert_eq!(sent, wanted, "nothing else");
    }

    #[test]
    fn the_whole_answer_is_taken_with_its_tags() {
        let tags = json!([{"key": "team", "value": "a"}]);
        let mut definition = pasted();
        definition.as_object_mut().unwrap().remove("tags");
        let (request, _) = request(&json!({"taskDefinition": definition, "tags": tags}).to_string()).unwrap();
        assert_eq!((&request["tags"], &request["family"]), (&tags, &json!("dks-db")));
    }

    #[test]
    fn what_is_no_task_definition_is_named() {
        for (text, word) in [
            ("{", "no JSON"),
            ("[]", "no JSON object"),
            (r#"{"taskDefinition": 3}"#, "no JSON object"),
            (r#"{"taskDefinition": {"family": "a"}, "services": []}"#, "services"),
            (r#"{"family": 3}"#, "no task definition"),
            (r#"{"family": "a", "familly": "b"}"#, "familly"),
            (
                r#"{"family": "a", "containerDefinitions": [{"name": "a"}, {"name": "b", "enviroment": []}]}"#,
                "containerDefinitions[1].enviroment",
            ),
        ] {
            let error = request(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[tokio::test]
    async fn it_is_sent_and_what_came_of_it_is_said() {
        let server = FakeServer::start(|operation, request| {
            assert_eq!((operation, &request["family"], request.get("revision")), ("RegisterTaskDefinition", &json!("dks-db"), None));
            Ok(json!({"taskDefinition": {"taskDefinitionArn": "arn:x", "family": "dks-db", "revision": 5}}))
        })
        .await;
        let (request, _) = request(&pasted().to_string()).unwrap();
        let client = Client::new(&connection(&server.url)).unwrap();
        let answer: ecs::RegisterTaskDefinitionResponse = client.call("RegisterTaskDefinition", &request).await.unwrap();
        assert_eq!(answer.task_definition.unwrap().revision, Some(5));
    }
}
