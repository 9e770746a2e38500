//! `POST /why`: why a task, a service or a container instance is as it is. No AWS service has such a call, so it is Berth's own: a JSON
//! object with `of` (an ARN, an id, the beginning of one, or a service's name) and perhaps `cluster`, signed like any other.

use std::collections::BTreeSet;

use berth_control::Subject;
use berth_model::arn::{Resource, parse_resource};
use berth_model::ids::{ClusterName, ServiceName};
use berth_shapes::ecs::ErrorCode;
use berth_store::State;
use bytes::Bytes;
use serde::Deserialize;

use crate::context::{Api, active};
use crate::failure::Failure;

/// Shortest beginning of an id that is looked for.
const SHORTEST: usize = 4;
/// Most things that an ambiguous name is said to mean.
const NAMED: usize = 5;

#[derive(Debug, Deserialize)]
struct Question {
    of: String,
    cluster: Option<String>,
}

/// Answers a question.
pub(crate) fn answer(api: &Api, body: &[u8]) -> Result<Bytes, Failure> {
    let question: Question =
        serde_json::from_slice(body).map_err(|error| Failure::common("SerializationException", 400, error.to_string()))?;
    let subject = {
        let state = api.store.state();
        find(api, &state, &question)?
    };
    let why = api.control.why(&subject).ok_or_else(|| unknown(&question.of))?;
    serde_json::to_vec(&why).map(Bytes::from).map_err(|error| Failure::modelled(ErrorCode::Server, error.to_string()))
}

fn unknown(of: &str) -> Failure {
    let of: String = of.chars().take(256).collect();
    Failure::modelled(ErrorCode::ResourceNotFound, format!("There is no task, service or container instance '{of}': of"))
}

fn find(api: &Api, state: &State, question: &Question) -> Result<Subject, Failure> {
    let of = question.of.as_str();
    if of.starts_with("arn:") {
        return match parse_resource(api.scope(), of).map_err(|error| Failure::invalid(format!("{error} of: '{of}'")))? {
            Resource::Task(_, id) => Ok(Subject::Task(id)),
            Resource::Service(cluster, name) => Ok(Subject::Service(cluster, name)),
            Resource::ContainerInstance(_, id) => Ok(Subject::Instance(id)),
            _ => Err(Failure::invalid("Only tasks, services and container instances have reasons: of")),
        };
    }
    let within = match &question.cluster {
        Some(cluster) => {
            let name = api.cluster_name(Some(cluster))?;
            active(state, &name)?;
            Some(name)
        }
        None => None,
    };
    let mut found = named(state, within.as_ref(), of);
    if found.is_empty() {
        found = beginning_with(state, within.as_ref(), of);
    }
    match found.len() {
        0 => Err(unknown(of)),
        1 => found.pop_first().ok_or_else(|| unknown(of)),
        _ => Err(Failure::invalid(format!("'{of}' is more than one thing: {}: of", list(&found)))),
    }
}

/// Services of this name. A name is stronger than the beginning of an id.
fn named(state: &State, within: Option<&ClusterName>, of: &str) -> BTreeSet<Subject> {
    let Some(name) = ServiceName::parse(of) else { return BTreeSet::new() };
    let services = state.services().filter(|service| service.name == name && within.is_none_or(|cluster| service.cluster == *cluster));
    services.map(|service| Subject::Service(service.cluster.clone(), service.name.clone())).collect()
}

/// Tasks and container instances whose id begins so.
fn beginning_with(state: &State, within: Option<&ClusterName>, of: &str) -> BTreeSet<Subject> {
    let of = of.to_ascii_lowercase();
    if of.len() < SHORTEST || of.len() > 32 || !of.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return BTreeSet::new();
    }
    let fits = |id: u128, cluster: &ClusterName| format!("{id:032x}").starts_with(&of) && within.is_none_or(|wanted| wanted == cluster);
    let tasks = state.tasks().filter(|task| fits(task.id.0, &task.cluster)).map(|task| Subject::Task(task.id));
    let instances = state.instances().filter(|one| !one.is_hidden() && fits(one.id.0, &one.cluster)).map(|one| Subject::Instance(one.id));
    tasks.chain(instances).take(NAMED + 1).collect()
}

fn list(found: &BTreeSet<Subject>) -> String {
    let mut names: Vec<_> = found
        .iter()
        .take(NAMED)
        .map(|subject| match subject {
            Subject::Task(id) => format!("task {id}"),
            Subject::Service(cluster, name) => format!("service {name} in cluster {cluster}"),
            Subject::Instance(id) => format!("container instance {id}"),
        })
        .collect();
    if found.len() > NAMED {
        names.push("...".to_owned());
    }
    names.join(", ")
}
