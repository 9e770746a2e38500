//! Settings of a bridge network, and why it cannot be opened.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::netlink::NetlinkError;
use super::record::RecordsError;
use crate::port::NetworkError;
use crate::subnet::Subnet;

/// Settings of a [`super::BridgeNetwork`].
#[derive(Debug, Clone)]
pub struct BridgeConfig {
    /// Tells the networks of one machine apart, one for each data directory: 1 to 12 of `[a-z0-9]`. The bridge is called
    /// `br-<name>`, the nft table `berth_<name>`.
    pub name: String,
    /// Where records of attachments are kept; one process at a time.
    pub state_dir: PathBuf,
    /// Where namespaces are held; a directory of its own that does not outlive the machine, such as
    /// `/run/berth/<name>/netns`. What lies in it without a record is removed at opening.
    pub netns_dir: PathBuf,
    /// The bridge's subnet; none: a free `/20` of the private ranges, kept from then on.
    pub subnet: Option<Subnet>,
    /// Where ports come from that a task leaves open. ECS's default is the machine's ephemeral range (see "hostPort" at
    /// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_PortMapping.html>).
    pub dynamic_ports: RangeInclusive<u16>,
    /// Held while a subnet is chosen; the same file for all networks of the machine, so that no two choose alike.
    pub subnet_lock: PathBuf,
}

impl BridgeConfig {
    /// Defaults: a free subnet, and the machine's ephemeral ports.
    #[must_use]
    pub fn new(name: impl Into<String>, state_dir: impl Into<PathBuf>, netns_dir: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            state_dir: state_dir.into(),
            netns_dir: netns_dir.into(),
            subnet: None,
            dynamic_ports: dynamic_ports(),
            subnet_lock: Path::new("/run/berth/subnet.lock").to_owned(),
        }
    }
}

/// The machine's ephemeral port range; the kernel's usual one if it cannot be read.
#[must_use]
pub fn dynamic_ports() -> RangeInclusive<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) if first <= last => first..=last,
        _ => 32768..=60999,
    }
}

/// Why a bridge network cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The name would not fit where it is used.
    #[error("network name {0:?}: expected 1 to 12 of a-z and 0-9")]
    Name(String),
    /// The range has no port, or port 0.
    #[error("dynamic ports {0}-{1}: expected first <= last and no port 0")]
    DynamicPorts(u16, u16),
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] RecordsError),
    /// The configured subnet is used on this machine.
    #[error("subnet {subnet}: this machine already uses {network}/{prefix}")]
    SubnetInUse {
        /// The configured subnet.
        subnet: Subnet,
        /// What it overlaps.
        network: Ipv4Addr,
        /// Prefix length of what it overlaps.
        prefix: u8,
    },
    /// The configured subnet is not the one that running containers have.
    #[error("subnet {configured}: {attachments} running attachments use {current}; stop them before the subnet is changed")]
    SubnetChanged {
        /// The configured subnet.
        configured: Subnet,
        /// The subnet in use.
        current: Subnet,
        /// How many attachments there are.
        attachments: usize,
    },
    /// Every candidate overlaps a route or address of this machine.
    #[error("subnet: none of the private ranges 172.20.0.0/14 and 10.176.0.0/12 has a free /20; configure one")]
    NoFreeSubnet,
    /// The kernel refuses a request.
    #[error(transparent)]
    Kernel(#[from] NetlinkError),
    /// Something else fails; the text says at which step.
    #[error(transparent)]
    Network(#[from] NetworkError),
}
