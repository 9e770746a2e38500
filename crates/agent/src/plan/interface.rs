//! From the interface that came with a task (`networkMode: awsvpc`) to the one that the network makes.

use std::net::{IpAddr, Ipv4Addr};

use berth_acs::messages as acs;
use berth_network::interface::{DEFAULT_MTU, TaskInterface};
use berth_runtime::port::ContainerSpec;

/// Longest host name that the kernel takes.
const LONGEST_HOST_NAME: usize = 64;

/// Whether the task is to have an interface of its own. The official agent goes by either of the two.
pub fn is_wanted(task: &acs::Task) -> bool {
    task.network_mode == "awsvpc" || !task.elastic_network_interfaces.is_empty()
}

/// The interface of a task, or which member cannot be honoured.
///
/// # Errors
/// Names the member.
pub fn of_task(task: &acs::Task) -> Result<TaskInterface, String> {
    match task.elastic_network_interfaces.as_slice() {
        [one] => read(one),
        [] => Err("elasticNetworkInterfaces: network mode awsvpc needs one".to_owned()),
        several => Err(format!("elasticNetworkInterfaces: {} of them; this agent gives a task one", several.len())),
    }
}

/// One interface as it was sent.
///
/// # Errors
/// Names the member.
pub fn read(sent: &acs::ElasticNetworkInterface) -> Result<TaskInterface, String> {
    let protocol = &sent.interface_association_protocol;
    if !protocol.is_empty() && protocol != "default" {
        return Err(format!("interfaceAssociationProtocol {protocol} is not supported by this agent"));
    }
    let primary = sent.ipv4_addresses.iter().find(|address| address.primary).or(sent.ipv4_addresses.first());
    let primary = primary.ok_or_else(|| "ipv4Addresses: an interface needs one".to_owned())?;
    let address: Ipv4Addr = parsed("privateAddress", &primary.private_address)?;
    let gateway = &sent.subnet_gateway_ipv4_address;
    let (gateway, prefix) = gateway.split_once('/').ok_or_else(|| format!("subnetGatewayIpv4Address {gateway:?} has no prefix length"))?;
    let ipv6 = sent.ipv6_addresses.iter().find(|address| address.primary).or(sent.ipv6_addresses.first());
    let ipv6 = ipv6.map(|ipv6| parsed("ipv6Addresses", &ipv6.address)).transpose()?;
    let name_servers: Result<Vec<IpAddr>, String> =
        sent.domain_name_servers.iter().map(|server| parsed("domainNameServers", server)).collect();
    let public_address = match sent.public_ipv4_address.as_str() {
        "" => None,
        public => Some(parsed("publicIpv4Address", public)?),
    };
    let interface = TaskInterface {
        id: sent.ec2_id.clone(),
        address,
        prefix: parsed("subnetGatewayIpv4Address", prefix)?,
        ipv6,
        mac: parsed("macAddress", &sent.mac_address)?,
        gateway: parsed("subnetGatewayIpv4Address", gateway)?,
        name_servers: name_servers?,
        search_domains: sent.domain_name.clone(),
        private_dns_name: sent.private_dns_name.clone(),
        groups: sent.security_groups.clone(),
        mtu: sent.mtu.unwrap_or(DEFAULT_MTU),
        public_address,
    };
    interface.check().map_err(|error| error.to_string())?;
    Ok(interface)
}

fn parsed<T: std::str::FromStr>(member: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{member} {:?} cannot be read", text.chars().take(80).collect::<String>()))
}

/// Tells a container of its task's interface what `/etc/hostname`, `/etc/hosts` and `/etc/resolv.conf` are to say. The task definition
/// can say none of it in this network mode.
pub fn introduce(spec: &mut ContainerSpec, interface: &TaskInterface) {
    if !interface.private_dns_name.is_empty() {
        let name = &interface.private_dns_name;
        let short = name.split('.').next().unwrap_or(name);
        spec.hostname.get_or_insert_with(|| if name.len() < LONGEST_HOST_NAME { name.clone() } else { short.to_owned() });
    }
    spec.dns_servers = interface.name_servers.iter().map(ToString::to_string).collect();
    spec.dns_search.clone_from(&interface.search_domains);
}
