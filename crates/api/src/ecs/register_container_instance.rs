//! `RegisterContainerInstance`: an agent joins a cluster, or comes back with the ARN it was given.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use berth_model::arn::parse_container_instance;
use berth_model::container_instance::{AgentVersion, ContainerInstance, ContainerInstanceStatus, FARGATE, MAX_GPUS, Resources};
use berth_model::fargate;
use berth_model::ids::ContainerInstanceId;
use berth_model::record::Key;
use berth_model::tags::parse_tags;
use berth_shapes::ecs::{self, RegisterContainerInstanceRequest, RegisterContainerInstanceResponse};
use berth_store::Entry;

use super::attributes::is_reserved;
use super::render;
use crate::context::{Api, active, expect_cluster};
use crate::failure::Failure;

/// Most attributes; the official agent announces about sixty.
const MAX_ATTRIBUTES: usize = 500;

pub(crate) async fn run(api: &Api, request: RegisterContainerInstanceRequest) -> Result<RegisterContainerInstanceResponse, Failure> {
    let cluster = api.agents_cluster(request.cluster.as_deref())?;
    let is_hidden = fargate::is_reserved(&cluster);
    let registered = parse_resources(request.total_resources.as_deref().unwrap_or_default())?;
    let identity = request.instance_identity_document.as_deref().map(Identity::parse).unwrap_or_default();
    // What the agent says itself is stronger.
    let mut attributes = identity.attributes;
    attributes.extend(parse_attributes(request.attributes.as_deref().unwrap_or_default())?);
    let tags = parse_tags(request.tags.as_deref())?;
    let known = match request.container_instance_arn.as_deref().filter(|arn| !arn.is_empty()) {
        Some(arn) => Some(parse_container_instance(api.scope(), &cluster, arn)?),
        None => None,
    };
    let offers_fargate = attributes.get(FARGATE).is_some_and(|value| value.as_deref() == Some("true"));
    if is_hidden && !offers_fargate {
        return Err(Failure::invalid(format!("A machine that belongs to no cluster offers Fargate capacity: attribute {FARGATE}")));
    }
    let (ec2_instance_id, private_address) = (identity.instance_id, identity.private_address);
    let fresh = ContainerInstanceId(api.environment.entropy.bits());
    api.change(|state, transaction| {
        // The reserved name is no cluster: nobody can delete it meanwhile.
        let holder = if is_hidden { None } else { Some(active(state, &cluster)?) };
        let instance = match known {
            None => {
                if let Some(holder) = holder {
                    expect_cluster(transaction, holder);
                }
                transaction.expect_absent(Key::ContainerInstance(fresh));
                ContainerInstance {
                    id: fresh,
                    cluster: cluster.clone(),
                    // What belongs to no cluster is no instance of the account's either.
                    ec2_instance_id: ec2_instance_id.clone().or_else(|| Some(format!("i-{:017x}", fresh.0 >> 60))).filter(|_| !is_hidden),
                    private_address,
                    status: ContainerInstanceStatus::Active,
                    status_reason: None,
                    agent_connected: false,
                    connection: 0,
                    away: None,
                    registered: registered.clone(),
                    attributes: attributes.clone(),
                    registered_at: api.now(),
                    agent: AgentVersion::default(),
                    tags: tags.clone(),
                }
            }
            Some(id) => {
                let entry = state.instance(id).filter(|instance| instance.cluster == cluster);
                let entry =
                    entry.ok_or_else(|| Failure::client("The referenced container instance was not found: containerInstanceArn"))?;
                if entry.status == ContainerInstanceStatus::Inactive {
                    return Err(Failure::client("Container instance is inactive: containerInstanceArn"));
                }
                transaction.expect(Key::ContainerInstance(id), entry.modified);
                let mut instance = (*entry.value).clone();
                // Attributes that users set stay; the agent's own are replaced by what it says now.
                instance.attributes.retain(|name, _| !is_reserved(name));
                instance.attributes.extend(attributes.clone());
                instance.registered = registered.clone();
                instance.private_address = private_address.or(instance.private_address);
                instance
            }
        };
        let shown = Entry { value: std::sync::Arc::new(instance), created: state.revision, modified: state.revision, version: 1 };
        transaction.put(berth_model::record::Record::ContainerInstance(std::sync::Arc::clone(&shown.value)));
        let mut shown = render::container_instance(state, api.scope(), &shown, true);
        if offers_fargate {
            // Agents look for all that they said in the answer; no user gets this one.
            let own = ecs::Attribute { name: Some(FARGATE.to_owned()), value: Some("true".to_owned()), ..Default::default() };
            shown.attributes.get_or_insert_default().push(own);
        }
        Ok(RegisterContainerInstanceResponse { container_instance: Some(shown) })
    })
    .await
}

/// What an instance identity document says; outside EC2 there is none. Its signature is not looked at: whoever may register can say the same
/// by attributes.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-identity-documents.html>
#[derive(Debug, Default, PartialEq, Eq)]
struct Identity {
    instance_id: Option<String>,
    private_address: Option<Ipv4Addr>,
    /// Those that ECS itself makes of it, which no agent announces.
    /// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-placement-constraints.html#attributes>
    attributes: BTreeMap<String, Option<String>>,
}

impl Identity {
    fn parse(document: &str) -> Self {
        let document: serde_json::Value = serde_json::from_str(document).unwrap_or_default();
        let member = |name: &str| document.get(name)?.as_str().filter(|text| !text.is_empty()).map(|text| text.chars().take(64).collect());
        let names = [("ecs.ami-id", "imageId"), ("ecs.instance-type", "instanceType"), ("ecs.availability-zone", "availabilityZone")];
        let known = names.into_iter().filter_map(|(attribute, name)| Some((attribute.to_owned(), Some(member(name)?))));
        let private_address = member("privateIp").and_then(|address: String| address.parse().ok());
        Self { instance_id: member("instanceId"), private_address, attributes: known.collect() }
    }
}

fn parse_resources(list: &[ecs::Resource]) -> Result<Resources, Failure> {
    let find = |name: &str| list.iter().find(|resource| resource.name.as_deref() == Some(name));
    let amount = |name: &str| {
        let value = find(name).and_then(|resource| resource.integer_value).unwrap_or(0);
        u32::try_from(value).map_err(|_| Failure::invalid(format!("totalResources: {name} must not be negative")))
    };
    let ports = |name: &str| {
        let texts = find(name).and_then(|resource| resource.string_set_value.as_deref()).unwrap_or_default();
        let parse =
            |text: &String| text.parse::<u16>().map_err(|_| Failure::invalid(format!("totalResources: {name} holds no port: '{text}'")));
        texts.iter().map(parse).collect::<Result<BTreeSet<_>, _>>()
    };
    let gpus: BTreeSet<_> = find("GPU").and_then(|resource| resource.string_set_value.clone()).into_iter().flatten().collect();
    if gpus.len() > MAX_GPUS || gpus.iter().any(|id| id.is_empty() || id.len() > 128) {
        return Err(Failure::invalid(format!("totalResources: GPU holds at most {MAX_GPUS} ids of 1 to 128 characters.")));
    }
    let (cpu, memory) = (amount("CPU")?, amount("MEMORY")?);
    Ok(Resources { cpu, memory, ports_tcp: ports("PORTS")?, ports_udp: ports("PORTS_UDP")?, gpus })
}

fn parse_attributes(list: &[ecs::Attribute]) -> Result<BTreeMap<String, Option<String>>, Failure> {
    if list.len() > MAX_ATTRIBUTES {
        return Err(Failure::invalid(format!("attributes can have at most {MAX_ATTRIBUTES} items.")));
    }
    let mut attributes = BTreeMap::new();
    for attribute in list {
        let name = attribute.name.clone().unwrap_or_default();
        let legal = (1..=128).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_/\\.".contains(&b));
        if !legal {
            return Err(Failure::invalid(format!("Invalid attribute name: '{}'", name.chars().take(128).collect::<String>())));
        }
        if attribute.value.as_ref().is_some_and(|value| value.chars().count() > 1_024) {
            return Err(Failure::invalid(format!("The value of attribute {name} is too long.")));
        }
        attributes.insert(name, attribute.value.clone().filter(|value| !value.is_empty()));
    }
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_identity_document_says() {
        let identity = Identity::parse(
            r#"{"accountId": "1", "instanceId": "i-1", "imageId": "ami-1", "instanceType": "m5.large", "availabilityZone": "us-east-1c", "ramdiskId": null}"#,
        );
        assert_eq!(identity.instance_id.as_deref(), Some("i-1"));
        let attributes: Vec<_> = identity.attributes.iter().map(|(name, value)| (name.as_str(), value.as_deref().unwrap())).collect();
        assert_eq!(attributes, [("ecs.ami-id", "ami-1"), ("ecs.availability-zone", "us-east-1c"), ("ecs.instance-type", "m5.large")]);
        assert_eq!(Identity::parse(r#"{"instanceId": "", "imageId": 7}"#), Identity::default());
        assert_eq!(Identity::parse("no JSON"), Identity::default());
    }
}
