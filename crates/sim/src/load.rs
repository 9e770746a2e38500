//! What users do: start, stop, deploy, look. Each remembers what it was answered and holds the server to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use berth_model::ids::TaskId;
use berth_shapes::ecs::Operation;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::chance::Chance;
use crate::checker::Checker;
use crate::host::Host;
use crate::net::Net;
use crate::server::Told;
use crate::trace::Trace;

/// Families of task definitions: name, image, whether the container has a host port.
const FAMILIES: [(&str, &str, bool); 8] = [
    ("web", "web", false),
    ("pair", "web-pair", false),
    ("job", "job", false),
    ("port", "web-port", true),
    ("broken", "broken-web", false),
    ("dud", DUD, false),
    ("flaky", "flaky", false),
    ("log", "web", false),
];
/// The family and image whose containers never start, in good times neither.
pub const DUD: &str = "dud";
/// How many of [`FAMILIES`] everybody takes from; the last is that of DAEMON services.
const COMMON: usize = 7;
/// What a task of that last takes, in CPU units and in MiB: all others take multiples of 64, and machines have a little more than that, so
/// that a DAEMON service that comes to full machines is not in the way of a simulation's end.
const SMALL: u64 = 8;
/// What services run: families whose containers, once up, do not end by themselves in good times, so that they come to rest; and one whose
/// never come up, which only circuit breakers and users end.
const SERVED: [&str; 6] = ["web", "pair", "port", "broken", DUD, "flaky"];
/// What a failure of the server's own may say: these troubles are made by the simulation.
const KNOWN_TROUBLE: [&str; 9] = [
    "no space left",
    "space exceeded",
    "is closed",
    "is dead",
    "cannot be reached",
    "did not answer",
    "etcd's watch does not show",
    "etcd has answered nothing",
    "fell behind the log",
];
/// How often a call whose outcome is unknown is made again under the same token.
const TRIES: usize = 4;

/// Why a call gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoAnswer {
    /// The server said no.
    Refused(String),
    /// A server said no that did not know yet what others had been told.
    Stale(String),
    /// Nobody knows whether it happened.
    Unknown,
}

/// What all users have.
#[derive(Clone)]
pub struct Desk {
    /// Their way to the server.
    pub net: Net,
    /// Who is told of answers.
    pub checker: Arc<Checker>,
    /// What happened.
    pub trace: Trace,
    /// Ends the load.
    pub over: CancellationToken,
    /// What services are to be: their desired count, if the last change was answered.
    pub services: Arc<Mutex<BTreeMap<String, Option<u64>>>>,
}

impl Desk {
    /// Calls the API.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn call(&self, operation: Operation, body: Value) -> Result<Value, NoAnswer> {
        self.ask(operation, body).await.map(|(answer, _)| answer)
    }

    /// [`Desk::call`], which also says whether the server that answered did not yet know all that was committed.
    async fn ask(&self, operation: Operation, body: Value) -> Result<(Value, bool), NoAnswer> {
        let bytes = serde_json::to_vec(&body).expect("a value has a JSON form");
        match self.net.ask(operation, bytes).await {
            Ok(Told { status: 200, body, lags }) => Ok((serde_json::from_slice(&body).unwrap_or_default(), lags)),
            Ok(Told { status, body, lags }) => {
                let text = String::from_utf8_lossy(&body).into_owned();
                if status >= 500 {
                    if !KNOWN_TROUBLE.iter().any(|reason| text.contains(reason)) {
                        self.checker.violated("answers", format!("{} is answered with {status} {text}", operation.name()));
                    }
                    // Whether a server that fails half-way has done it, nobody knows.
                    return Err(NoAnswer::Unknown);
                }
                self.trace.line(format_args!("user: {} refused{}: {text}", operation.name(), if lags { " by one that lags" } else { "" }));
                Err(if lags { NoAnswer::Stale(text) } else { NoAnswer::Refused(text) })
            }
            Err(problem) => {
                self.trace.line(format_args!("user: {}: {problem}", operation.name()));
                Err(NoAnswer::Unknown)
            }
        }
    }

    /// Calls until there is an answer, if it is about what there is by a server that knows everything; for the operator who puts things right.
    pub async fn insist(&self, operation: Operation, body: Value) -> Result<Value, String> {
        loop {
            match self.ask(operation, body.clone()).await {
                Ok((answer, lags)) if !lags || !operation.name().starts_with("Describe") => return Ok(answer),
                Err(NoAnswer::Refused(text)) => return Err(text),
                Ok(_) | Err(NoAnswer::Unknown | NoAnswer::Stale(_)) => tokio::time::sleep(Duration::from_millis(500)).await,
            }
        }
    }

    /// Registers a new revision of each family.
    pub async fn register_all(&self, chance: &Chance) {
        for index in 0..FAMILIES.len() {
            let _ = self.insist(Operation::RegisterTaskDefinition, document(index, chance)).await;
        }
    }

    async fn pause(&self, chance: &Chance, first: u64, last: u64) -> bool {
        tokio::select! {
            biased;
            () = self.over.cancelled() => false,
            () = tokio::time::sleep(chance.millis(first, last)) => true,
        }
    }
}

fn document(index: usize, chance: &Chance) -> Value {
    let (family, image, has_port) = FAMILIES[index];
    let mut first = json!({
        "name": "main", "image": image, "cpu": chance.within(1, 8) * 64, "memory": chance.within(1, 8) * 64, "stopTimeout": chance.within(2, 12),
    });
    if index == COMMON {
        first["cpu"] = json!(SMALL);
        first["memory"] = json!(SMALL);
    } else if has_port {
        first["portMappings"] = json!([{"containerPort": 80, "hostPort": 8000 + chance.below(2)}]);
    } else if chance.per_mille(300) {
        first["portMappings"] = json!([{"containerPort": 80}]);
    }
    let mut containers = vec![first];
    if family == "pair" {
        containers.push(json!({
            "name": "side", "image": "web", "memory": 64, "essential": chance.per_mille(500),
            "dependsOn": [{"containerName": "main", "condition": "START"}],
        }));
    }
    json!({"family": family, "containerDefinitions": containers})
}

fn task_ids(answer: &Value) -> Vec<TaskId> {
    let arns = answer["tasks"].as_array().into_iter().flatten().filter_map(|task| task["taskArn"].as_str());
    arns.filter_map(|arn| arn.rsplit('/').next()?.parse().ok()).collect()
}

/// Starts, stops and looks at tasks.
pub async fn task_user(desk: Desk, chance: Chance, number: u64, hosts: Arc<Mutex<Vec<Arc<Host>>>>) {
    let mut known: BTreeMap<TaskId, u8> = BTreeMap::new();
    let mut tokens = 0;
    while desk.pause(&chance, 100, 4_000).await {
        match chance.below(10) {
            0..5 => {
                let (family, ..) = *chance.pick(&FAMILIES[..COMMON]);
                let mut request = json!({"taskDefinition": family, "count": chance.within(1, if chance.per_mille(300) { 10 } else { 3 })});
                let token = chance.per_mille(600).then(|| {
                    tokens += 1;
                    format!("token-{number}-{tokens}")
                });
                if let Some(token) = &token {
                    request["clientToken"] = json!(token);
                }
                if chance.per_mille(200) {
                    request["placementConstraints"] = json!([{"type": "distinctInstance"}]);
                }
                if chance.per_mille(300) {
                    request["placementStrategy"] = json!([{"type": "binpack", "field": "memory"}]);
                }
                for _ in 0..TRIES {
                    match desk.call(Operation::RunTask, request.clone()).await {
                        Ok(answer) => {
                            let tasks = task_ids(&answer);
                            desk.checker.acknowledged(&tasks, token.as_deref());
                            known.extend(tasks.into_iter().map(|task| (task, 0)));
                            // Sometimes it is asked once more, as by somebody who did not hear.
                            if token.is_none() || !chance.per_mille(200) {
                                break;
                            }
                        }
                        Err(NoAnswer::Unknown) if token.is_some() => {}
                        Err(_) => break,
                    }
                }
            }
            5 => {
                let arns: Vec<_> = hosts.lock().iter().map(|host| host.arn()).filter(|arn| !arn.is_empty()).collect();
                if arns.is_empty() {
                    continue;
                }
                let request = json!({"taskDefinition": chance.pick(&FAMILIES[..COMMON]).0, "containerInstances": [chance.pick(&arns)]});
                if let Ok(answer) = desk.call(Operation::StartTask, request).await {
                    let tasks = task_ids(&answer);
                    desk.checker.acknowledged(&tasks, None);
                    known.extend(tasks.into_iter().map(|task| (task, 0)));
                }
            }
            6..9 if !known.is_empty() => {
                let tasks: Vec<_> = known.keys().copied().collect();
                let task = *chance.pick(&tasks);
                if desk.call(Operation::StopTask, json!({"task": task.to_string()})).await.is_ok() {
                    desk.checker.acknowledged_stop(task);
                }
            }
            _ if !known.is_empty() => look(&desk, &chance, &mut known).await,
            _ => {}
        }
    }
}

/// A task that was acknowledged is there, and its status never goes back from one answer to the next.
async fn look(desk: &Desk, chance: &Chance, known: &mut BTreeMap<TaskId, u8>) {
    let ids: Vec<_> = known.keys().copied().collect();
    let skip = usize::try_from(chance.below(ids.len() as u64)).unwrap_or(0);
    let asked: Vec<_> = ids.iter().skip(skip).take(100).map(ToString::to_string).collect();
    // What one server has shown another may not know yet; it says nothing of either.
    let Ok((answer, false)) = desk.ask(Operation::DescribeTasks, json!({"tasks": asked})).await else { return };
    if let Some(failure) = answer["failures"].as_array().into_iter().flatten().next() {
        desk.checker.violated("acknowledged", format!("DescribeTasks does not know an acknowledged task: {failure}"));
    }
    for task in answer["tasks"].as_array().into_iter().flatten() {
        let order = ["PENDING", "RUNNING", "STOPPED"];
        let status = task["lastStatus"].as_str().unwrap_or_default();
        let Some(place) = order.iter().position(|known| *known == status).and_then(|place| u8::try_from(place).ok()) else {
            desk.checker.violated("answers", format!("DescribeTasks shows the status {status}"));
            continue;
        };
        let Some(id) = task["taskArn"].as_str().and_then(|arn| arn.rsplit('/').next()?.parse().ok()) else { continue };
        if let Some(before) = known.insert(id, place)
            && place < before
        {
            desk.checker.violated("status", format!("DescribeTasks shows task {id} {status} after {}", order[usize::from(before)]));
        }
    }
}

/// Owns one service: creates, changes and deletes it.
pub async fn service_user(desk: Desk, chance: Chance, name: String) {
    let (mut is_daemon, mut is_staged) = (false, false);
    while desk.pause(&chance, 200, 20_000).await {
        let exists = desk.services.lock().contains_key(&name);
        is_daemon = if exists { is_daemon } else { chance.per_mille(250) };
        is_staged = if exists { is_staged } else { chance.per_mille(150) };
        // Few, so that what has a host port finds room on the machines there are.
        let count = chance.within(0, 4);
        let family = if is_daemon { FAMILIES[COMMON].0 } else { *chance.pick(&SERVED) };
        let (operation, mut request, after) = match chance.below(8) {
            _ if !exists => {
                let mut request = json!({"serviceName": name, "taskDefinition": family, "desiredCount": count});
                if chance.per_mille(400) {
                    let (minimum, maximum) = *chance.pick(&[(0, 100), (50, 100), (50, 150), (100, 150)]);
                    request["deploymentConfiguration"] = json!({"minimumHealthyPercent": minimum, "maximumPercent": maximum});
                }
                if is_staged {
                    request["deploymentConfiguration"]["strategy"] = json!("BLUE_GREEN");
                    request["deploymentConfiguration"]["bakeTimeInMinutes"] = json!(chance.within(0, 3));
                }
                (Operation::CreateService, request, Some(count))
            }
            0 => (Operation::DeleteService, json!({"service": name, "force": true}), None),
            1..4 => (Operation::UpdateService, json!({"service": name, "desiredCount": count}), Some(count)),
            4..6 => (Operation::UpdateService, json!({"service": name, "taskDefinition": family, "desiredCount": count}), Some(count)),
            _ => {
                let request = json!({"service": name, "forceNewDeployment": true, "desiredCount": count});
                (Operation::UpdateService, request, Some(count))
            }
        };
        if matches!(operation, Operation::CreateService | Operation::UpdateService) && chance.per_mille(250) {
            // A small threshold: a seed is short.
            request["deploymentConfiguration"]["deploymentCircuitBreaker"] = json!({
                "enable": chance.per_mille(800),
                "rollback": chance.per_mille(700),
                "thresholdConfiguration": {"type": "COUNT", "value": chance.within(1, 3)},
            });
        }
        let (request, after) = if is_daemon { (as_daemon(request, operation), None) } else { (request, after) };
        let outcome = desk.call(operation, request).await;
        let mut services = desk.services.lock();
        match (operation, outcome, after) {
            (Operation::DeleteService, Ok(_), _) => drop(services.remove(&name)),
            (_, Ok(_), count) => drop(services.insert(name.clone(), count)),
            (_, Err(NoAnswer::Unknown), _) => drop(services.insert(name.clone(), None)),
            (Operation::CreateService, Err(NoAnswer::Refused(text)), _) if text.contains("not idempotent") => {
                services.insert(name.clone(), None);
            }
            (_, Err(NoAnswer::Refused(text)), _) if text.contains("ServiceNotFound") || text.contains("ServiceNotActive") => {
                if services.get(&name).is_some_and(Option::is_some) {
                    desk.checker.violated("acknowledged", format!("service {name} was acknowledged: {text}"));
                }
                services.remove(&name);
            }
            (_, Err(NoAnswer::Refused(_) | NoAnswer::Stale(_)), _) => {}
        }
    }
}

/// The same of a DAEMON service, whose count and maximum are not the user's.
fn as_daemon(mut request: Value, operation: Operation) -> Value {
    if let Some(members) = request.as_object_mut() {
        members.remove("desiredCount");
        if operation == Operation::CreateService {
            members.insert("schedulingStrategy".to_owned(), json!("DAEMON"));
            let half = members.remove("deploymentConfiguration").is_some();
            members.insert("deploymentConfiguration".to_owned(), json!({"minimumHealthyPercent": if half { 50 } else { 0 }}));
        }
    }
    request
}

/// Registers new revisions and takes old ones back.
pub async fn definition_user(desk: Desk, chance: Chance) {
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    while desk.pause(&chance, 1_000, 15_000).await {
        let index = usize::try_from(chance.below(FAMILIES.len() as u64)).unwrap_or(0);
        let family = FAMILIES[index].0;
        if chance.per_mille(750) {
            let Ok(answer) = desk.call(Operation::RegisterTaskDefinition, document(index, &chance)).await else { continue };
            let revision = answer["taskDefinition"]["revision"].as_u64().unwrap_or(0);
            let before = last.insert(family.to_owned(), revision).unwrap_or(0);
            if revision <= before {
                desk.checker.violated("acknowledged", format!("revision {revision} of {family} comes after {before}"));
            }
        } else if let Some(revision) = last.get(family).filter(|revision| **revision > 1) {
            let old = format!("{family}:{}", revision - 1);
            let _ = desk.call(Operation::DeregisterTaskDefinition, json!({"taskDefinition": old})).await;
        }
    }
}
