//! Joining a cluster: what is announced, which answers are taken, what is tried again.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_shapes::ecs::{
    Attribute, CreateClusterRequest, CreateClusterResponse, RegisterContainerInstanceRequest, RegisterContainerInstanceResponse, Resource,
    Tag,
};

use crate::capabilities;
use crate::config::AgentConfig;
use crate::ecs_client::{CallError, EcsClient};
use crate::machine;

/// Between tries while the server is busy, as the official agent's.
const BUSY: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(192));
/// Between tries while nobody answers: a server that starts beside its agent is there within a second.
const AWAY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// The attribute whose value is the machine's address as others reach it.
const HOST_IPV4: &str = "berth.host-ipv4";

/// The attribute of a machine that takes tasks of Fargate, with the value `true`.
const FARGATE: &str = "berth.fargate";

/// The attribute of a machine that gives tasks of Fargate public addresses: which.
const PUBLIC_ADDRESSES: &str = "berth.public-addresses";

/// Why this machine is no container instance.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The server said no, or was not there for too long.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The server answered without an ARN.
    #[error("RegisterContainerInstance: the answer names no container instance")]
    NoArn,
    /// The server does not repeat an attribute: it would place tasks by others than were announced.
    #[error("RegisterContainerInstance: the answer does not repeat the attribute {0}")]
    Attribute(String),
}

/// Registers this machine, with `runtime` as the names of what its runtime honours and `known` as the ARN that it had. An ARN that the server does not know any more is dropped and a
/// new one taken.
///
/// # Errors
/// [`RegisterError`] once trying again is of no use or `registration_patience` is over.
pub async fn register(client: &EcsClient, config: &AgentConfig, runtime: &[&str], known: Option<String>) -> Result<String, RegisterError> {
    let started = tokio::time::Instant::now();
    let (mut busy, mut away) = (BUSY.0, AWAY.0);
    let mut known = known.filter(|arn| !arn.is_empty());
    let mut may_create = config.create_cluster;
    let token = client.chance().uuid();
    loop {
        let error = match announce(client, config, runtime, known.as_deref(), &token).await {
            Ok(arn) => return Ok(arn),
            Err(RegisterError::Call(error)) => error,
            Err(other) => return Err(other),
        };
        let delay = match error.kind() {
            "ClusterNotFoundException" if std::mem::take(&mut may_create) => {
                let request = CreateClusterRequest { cluster_name: Some(config.cluster.clone()), ..Default::default() };
                client.call::<CreateClusterResponse>("CreateCluster", &request).await?;
                continue;
            }
            "ClientException" | "InvalidParameterException" if known.is_some() => {
                tracing::warn!(%error, container_instance = known, "the server does not know this container instance; it registers anew");
                known = None;
                continue;
            }
            _ if error.is_busy() => doubled(&mut busy, BUSY.1),
            _ if matches!(error, CallError::Unreachable { .. }) => doubled(&mut away, AWAY.1),
            _ => return Err(error.into()),
        };
        if started.elapsed() + delay > config.registration_patience {
            return Err(error.into());
        }
        tracing::warn!(%error, "registration is tried again");
        tokio::time::sleep(delay.mul_f64(1.0 + 0.2 * client.chance().unit())).await;
    }
}

/// The present delay; the next one is twice as long, up to a limit.
pub(crate) fn doubled(delay: &mut Duration, longest: Duration) -> Duration {
    let present = *delay;
    *delay = (present * 2).min(longest);
    present
}

async fn announce(
    client: &EcsClient,
    config: &AgentConfig,
    runtime: &[&str],
    known: Option<&str>,
    token: &str,
) -> Result<String, RegisterError> {
    let request = request(config, runtime, known);
    let sent = request.attributes.clone().unwrap_or_default();
    // The model does not have the token, and the official agent sends it.
    let mut json = serde_json::to_value(&request).expect("a request has a JSON form");
    json["clientToken"] = token.into();
    let answer: RegisterContainerInstanceResponse = client.call("RegisterContainerInstance", &json).await?;
    let instance = answer.container_instance.ok_or(RegisterError::NoArn)?;
    if let Some(name) = unrepeated(&sent, instance.attributes.as_deref().unwrap_or_default()) {
        return Err(RegisterError::Attribute(name));
    }
    // The official agent keeps the ARN it had, whatever is answered.
    known.map(str::to_owned).or(instance.container_instance_arn).filter(|arn| !arn.is_empty()).ok_or(RegisterError::NoArn)
}

/// The first attribute that was sent and did not come back with its value.
fn unrepeated(sent: &[Attribute], answered: &[Attribute]) -> Option<String> {
    let value = |attribute: &Attribute| attribute.value.clone().unwrap_or_default();
    let answered: BTreeMap<_, _> = answered.iter().map(|attribute| (attribute.name.clone(), value(attribute))).collect();
    let missing = sent.iter().find(|attribute| answered.get(&attribute.name) != Some(&value(attribute)))?;
    missing.name.clone()
}

fn request(config: &AgentConfig, runtime: &[&str], known: Option<&str>) -> RegisterContainerInstanceRequest {
    let cpu = config.total_cpu.unwrap_or_else(machine::cpu_units);
    let memory = config.total_memory_mib.or_else(machine::memory_mib).unwrap_or(0).saturating_sub(config.reserved_memory_mib);
    let tags = config.tags.iter().map(|(key, value)| Tag { key: Some(key.clone()), value: Some(value.clone()) });
    let tags: Vec<_> = if known.is_none() { tags.collect() } else { Vec::new() };
    RegisterContainerInstanceRequest {
        cluster: Some(config.cluster.clone()),
        instance_identity_document: Some(String::new()),
        instance_identity_document_signature: Some(String::new()),
        total_resources: Some(vec![
            integer("CPU", u64::from(cpu)),
            integer("MEMORY", memory),
            ports("PORTS", &config.reserved_ports),
            ports("PORTS_UDP", &config.reserved_ports_udp),
        ]),
        container_instance_arn: known.map(str::to_owned),
        attributes: Some(attributes(config, runtime, known.is_none())),
        tags: Some(tags).filter(|tags| !tags.is_empty()),
        ..Default::default()
    }
}

/// A user's attributes go along the first time only: later ones are changed by `PutAttributes`.
fn attributes(config: &AgentConfig, runtime: &[&str], first_time: bool) -> Vec<Attribute> {
    let attribute = |name: &str, value: Option<String>| Attribute { name: Some(name.to_owned()), value, ..Default::default() };
    let zone = config.availability_zone.clone().unwrap_or_else(|| format!("{}a", config.region));
    let mut list: Vec<_> = config.announced.names(runtime).iter().map(|name| attribute(name, None)).collect();
    let valued = capabilities::valued(&zone, config.os_family_detailed.as_deref());
    list.extend(valued.into_iter().map(|(name, value)| attribute(name, Some(value))));
    // Every time: it may have been switched on or off since.
    list.extend((config.fargate == Some(true)).then(|| attribute(FARGATE, Some("true".to_owned()))));
    let public = config.public_addresses.clone().filter(|_| config.fargate == Some(true));
    list.extend(public.map(|addresses| attribute(PUBLIC_ADDRESSES, Some(addresses))));
    // Where a service's tasks are found in Cloud Map. What the owner says of it stands.
    if !config.attributes.contains_key(HOST_IPV4) {
        list.extend(machine::ipv4().map(|address| attribute(HOST_IPV4, Some(address.to_string()))));
    }
    if first_time {
        list.extend(config.attributes.iter().map(|(name, value)| attribute(name, value.clone())));
    }
    list
}

fn integer(name: &str, value: u64) -> Resource {
    let value = i32::try_from(value).unwrap_or(i32::MAX);
    Resource { name: Some(name.to_owned()), r#type: Some("INTEGER".to_owned()), integer_value: Some(value), ..Default::default() }
}

fn ports(name: &str, ports: &[u16]) -> Resource {
    let set = ports.iter().map(u16::to_string).collect();
    Resource { name: Some(name.to_owned()), r#type: Some("STRINGSET".to_owned()), string_set_value: Some(set), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced() {
        let config = AgentConfig {
            region: "eu-west-1".into(),
            total_cpu: Some(2048),
            total_memory_mib: Some(1000),
            reserved_memory_mib: 100,
            attributes: BTreeMap::from([("stack".into(), Some("prod".into()))]),
            tags: BTreeMap::from([("a".into(), "b".into())]),
            ..Default::default()
        };
        let first = request(&config, &["ecs.capability.x"], None);
        let json = serde_json::to_value(&first).unwrap();
        assert_eq!(json["totalResources"][0], serde_json::json!({"name": "CPU", "type": "INTEGER", "integerValue": 2048}));
        assert_eq!(json["totalResources"][1]["integerValue"], 900);
        assert_eq!(json["totalResources"][2]["stringSetValue"], serde_json::json!(["22", "2375", "2376", "51678", "51679"]));
        assert_eq!(json["totalResources"][3]["stringSetValue"], serde_json::json!([]));
        let names: Vec<_> = first.attributes.clone().unwrap().into_iter().map(|a| (a.name.unwrap(), a.value)).collect();
        assert!(names.contains(&("ecs.availability-zone".into(), Some("eu-west-1a".into()))));
        assert!(names.contains(&("stack".into(), Some("prod".into()))));
        assert!(names.contains(&("ecs.capability.x".into(), None)));
        assert!(!names.iter().any(|(name, _)| name.contains("1.25")));
        let own = |request: &RegisterContainerInstanceRequest| {
            let list = request.attributes.iter().flatten().filter(|attribute| attribute.name.as_deref() == Some(HOST_IPV4));
            list.map(|attribute| attribute.value.clone()).collect::<Vec<_>>()
        };
        assert_eq!(own(&first), Vec::from_iter(machine::ipv4().map(|address| Some(address.to_string()))));
        let said = BTreeMap::from([(HOST_IPV4.to_owned(), Some("203.0.113.7".to_owned()))]);
        let said = AgentConfig { attributes: said, ..config.clone() };
        assert_eq!(own(&request(&said, &[], None)), [Some("203.0.113.7".to_owned())]);
        assert_eq!(own(&request(&said, &[], Some("arn:x"))), [], "what its owner said once is not taken back");

        let offers = |request: &RegisterContainerInstanceRequest| {
            let attribute = request.attributes.iter().flatten().find(|attribute| attribute.name.as_deref() == Some(FARGATE));
            attribute.and_then(|attribute| attribute.value.clone())
        };
        let public = Some("192.0.2.10-192.0.2.20".to_owned());
        let fargate = AgentConfig { fargate: Some(true), public_addresses: public.clone(), ..config.clone() };
        assert_eq!(offers(&request(&fargate, &[], Some("arn:x"))).as_deref(), Some("true"));
        let gives = |config: &AgentConfig| {
            let own = attributes(config, &[], false).into_iter().find(|attribute| attribute.name.as_deref() == Some(PUBLIC_ADDRESSES));
            own.and_then(|attribute| attribute.value)
        };
        assert_eq!(gives(&fargate), public);
        assert_eq!(gives(&AgentConfig { fargate: None, ..fargate }), None, "nobody else can ask for one");
        assert_eq!(offers(&first), None);

        let again = request(&config, &[], Some("arn:x"));
        assert_eq!(again.container_instance_arn.as_deref(), Some("arn:x"));
        assert!(again.tags.is_none() && !again.attributes.unwrap().iter().any(|a| a.name.as_deref() == Some("stack")));
    }

    #[test]
    fn attributes_must_come_back() {
        let attribute =
            |name: &str, value: Option<&str>| Attribute { name: Some(name.into()), value: value.map(Into::into), ..Default::default() };
        let sent = [attribute("a", None), attribute("b", Some("1"))];
        assert_eq!(unrepeated(&sent, &[attribute("b", Some("1")), attribute("a", Some("")), attribute("c", None)]), None);
        assert_eq!(unrepeated(&sent, &[attribute("a", None), attribute("b", Some("2"))]).as_deref(), Some("b"));
    }
}
