//! The file that describes a container to what runs in it (`ECS_ENABLE_CONTAINER_METADATA`): written before the container is made, and
//! again when it was started. It is among the task's own volumes on this machine, and goes with them.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/container-metadata.html>

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use berth_network::interface::TaskInterface;
use berth_network::port::Protocol;
use berth_runtime::port::{BindMount, ContainerNetwork, ContainerSpec};
use serde_json::{Map, Value, json};

use super::Means;
use crate::engine::Run;
use crate::plan::{ContainerPlan, task_id};

/// The variable that tells the container where the file is.
const VARIABLE: &str = "ECS_CONTAINER_METADATA_FILE";
const FILE: &str = "ecs-container-metadata.json";
/// Where it is in the container, in a folder of its own, as the official agent has it.
const INSIDE: &str = "/opt/ecs/metadata";
/// No volume can have this name: ECS takes no dots.
const FOLDER: &str = ".metadata";

/// A container's file, as far as it is known.
pub struct MetadataFile {
    folder: PathBuf,
    known: Map<String, Value>,
}

impl MetadataFile {
    /// Writes what is known before the container is made, and tells `spec` of the file. Without it the container is started all the same,
    /// as by the official agent.
    pub fn begin(means: &Means, container: &ContainerPlan, spec: &mut ContainerSpec) -> Option<Self> {
        let id = task_id(&container.task)?;
        let folder = means.volumes_dir().join(id).join(FOLDER).join(&container.runtime_id.0);
        let instance = means.ledger.identity().map(|identity| identity.container_instance_arn).unwrap_or_default();
        let zone = means.config.availability_zone.clone().unwrap_or_else(|| format!("{}a", means.config.region));
        let file = Self { folder, known: before(container, spec, &means.config.cluster, &instance, &zone) };
        if let Err(error) = fs::create_dir_all(&file.folder).and_then(|()| file.write()) {
            tracing::warn!(task = container.task, container = container.name, %error, "no metadata file is made for the container");
            return None;
        }
        let inside = Path::new(INSIDE).join(&container.runtime_id.0);
        spec.environment.insert(VARIABLE.to_owned(), inside.join(FILE).display().to_string());
        spec.mounts.push(BindMount { source: file.folder.clone(), destination: inside, read_only: true, owner: None, remote: false });
        Some(file)
    }

    /// Writes what is known once the container was started.
    pub fn ready(mut self, container: &ContainerPlan, run: &Run, network: &ContainerNetwork) {
        after(&mut self.known, run, network, container.interface.as_deref());
        if let Err(error) = self.write() {
            tracing::warn!(task = container.task, container = container.name, %error, "the container's metadata file is not complete");
        }
    }

    /// The whole file or the old one: a container may be reading it.
    fn write(&self) -> io::Result<()> {
        let new = self.folder.join(".new");
        fs::write(&new, serde_json::to_vec_pretty(&self.known)?)?;
        fs::rename(new, self.folder.join(FILE))
    }
}

/// What is known before the container is made.
fn before(container: &ContainerPlan, spec: &ContainerSpec, cluster: &str, instance: &str, zone: &str) -> Map<String, Value> {
    let label = |name: &str| spec.labels.get(&format!("com.amazonaws.ecs.{name}")).cloned().unwrap_or_default();
    let members = [
        ("Cluster", cluster.to_owned()),
        ("ContainerInstanceARN", instance.to_owned()),
        ("TaskARN", container.task.clone()),
        ("TaskDefinitionFamily", label("task-definition-family")),
        ("TaskDefinitionRevision", label("task-definition-version")),
        ("ContainerName", container.name.clone()),
        ("DockerContainerName", container.runtime_id.0.clone()),
        ("ImageName", container.image.clone()),
        ("AvailabilityZone", zone.to_owned()),
    ];
    let given = members.into_iter().filter(|(_, value)| !value.is_empty());
    given
        .map(|(name, value)| (name.to_owned(), Value::String(value)))
        .chain([("ContainerID".to_owned(), container.runtime_id.0.clone().into())])
        .collect()
}

/// What is known besides once it was started.
fn after(known: &mut Map<String, Value>, run: &Run, network: &ContainerNetwork, interface: Option<&TaskInterface>) {
    let ports: Vec<Value> = run
        .bindings
        .iter()
        .map(|binding| {
            let protocol = if binding.protocol == Protocol::Udp { "udp" } else { "tcp" };
            json!({"ContainerPort": binding.container_port, "HostPort": binding.host_port, "BindIp": "0.0.0.0", "Protocol": protocol})
        })
        .collect();
    let mode = match network {
        ContainerNetwork::Host => "host",
        ContainerNetwork::Isolated => "none",
        _ if run.address.is_none() => "none",
        _ => "bridge",
    };
    let addresses: Vec<String> = run.address.iter().map(ToString::to_string).collect();
    if let Some(digest) = &run.image_digest {
        known.insert("ImageID".to_owned(), digest.clone().into());
    }
    if !ports.is_empty() {
        known.insert("PortMappings".to_owned(), ports.into());
    }
    let network = match interface {
        Some(interface) => of_interface(interface),
        None => json!({"NetworkMode": mode, "IPv4Addresses": addresses}),
    };
    known.insert("Networks".to_owned(), json!([network]));
    known.insert("MetadataFileStatus".to_owned(), "READY".into());
}

/// A task's own interface, with the members that task metadata version 4 has.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4-response.html>
fn of_interface(interface: &TaskInterface) -> Value {
    let servers: Vec<String> = interface.name_servers.iter().map(ToString::to_string).collect();
    let mut network = json!({
        "NetworkMode": "awsvpc",
        "IPv4Addresses": [interface.address.to_string()],
        "AttachmentIndex": 0,
        "MACAddress": interface.mac.to_string(),
        "IPv4SubnetCIDRBlock": format!("{}/{}", interface.network(), interface.prefix),
        "SubnetGatewayIpv4Address": format!("{}/{}", interface.gateway, interface.prefix),
    });
    let given = [
        ("IPv6Addresses", json!(interface.ipv6.iter().map(ToString::to_string).collect::<Vec<_>>()), interface.ipv6.is_some()),
        ("DomainNameServers", json!(servers), !servers.is_empty()),
        ("DomainNameSearchList", json!(interface.search_domains), !interface.search_domains.is_empty()),
        ("PrivateDNSName", json!(interface.private_dns_name), !interface.private_dns_name.is_empty()),
    ];
    for (name, value, _) in given.into_iter().filter(|(_, _, is_given)| *is_given) {
        network[name] = value;
    }
    network
}
