//! Security groups and who is in them: the table that the control plane pushes to each machine.
//!
//! Pure. The table says everything that a machine must know of interfaces that are not its own.
//! <https://docs.aws.amazon.com/vpc/latest/userguide/security-group-rules.html>

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::interface::{MOST_GROUPS, is_plain};

/// Rules of one group and direction. EC2's quota is 60 and can be raised; the product with groups per interface stays below 1000.
/// <https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html>
pub const MOST_RULES: usize = 1000;

/// An address range of either family, `10.0.0.0/8` or `2001:db8::/32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// The range of all IPv4 addresses.
    pub const ANY_V4: Self = Self { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), prefix: 0 };
    /// The range of all IPv6 addresses.
    pub const ANY_V6: Self = Self { address: IpAddr::V6(Ipv6Addr::UNSPECIFIED), prefix: 0 };

    /// Its first address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// The prefix length in bits.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.prefix
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = TableError;

    /// Bits right of the prefix are dropped, as EC2 does.
    fn from_str(text: &str) -> Result<Self, TableError> {
        let wrong = || TableError::Cidr(text.chars().take(60).collect());
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let (address, prefix): (IpAddr, u8) = (address.parse().map_err(|_| wrong())?, prefix.parse().map_err(|_| wrong())?);
        let address = match address {
            IpAddr::V4(v4) if prefix <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V4((u32::from(v4) & mask).into())
            }
            IpAddr::V6(v6) if prefix <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V6((u128::from(v6) & mask).into())
            }
            _ => return Err(wrong()),
        };
        Ok(Self { address, prefix })
    }
}

impl TryFrom<String> for Cidr {
    type Error = TableError;

    fn try_from(text: String) -> Result<Self, TableError> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

/// What of the traffic a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Traffic {
    /// Everything (`IpProtocol` -1).
    All,
    /// TCP to ports from the first to the second, both included.
    Tcp(u16, u16),
    /// UDP to ports from the first to the second, both included.
    Udp(u16, u16),
    /// ICMP of a type and a code; none: of any (`FromPort`, `ToPort` -1).
    Icmp {
        /// The type.
        kind: Option<u8>,
        /// The code; only with a type.
        code: Option<u8>,
    },
    /// ICMPv6 of a type and a code; none: of any.
    Icmpv6 {
        /// The type.
        kind: Option<u8>,
        /// The code; only with a type.
        code: Option<u8>,
    },
    /// Another protocol, by its number.
    Other(u8),
}

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Peer {
    /// Addresses of a range.
    Range(Cidr),
    /// Interfaces of a security group, by their private addresses.
    Group(String),
}

/// Traffic that passes. What no rule of any group of the interface names does not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Rule {
    /// What.
    pub traffic: Traffic,
    /// From whom (ingress) or to whom (egress).
    pub peer: Peer,
}

/// A security group's rules.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SecurityGroup {
    /// What may come in.
    pub ingress: Vec<Rule>,
    /// What may go out.
    pub egress: Vec<Rule>,
}

/// An interface somewhere: of this machine or another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownInterface {
    /// Its private addresses.
    pub addresses: Vec<IpAddr>,
    /// Its security groups, now.
    pub groups: Vec<String>,
    /// The address at which other machines reach the container instance that has it.
    pub instance: Option<Ipv4Addr>,
}

/// How a machine and others reach each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineLink {
    /// The address at which other machines reach this one.
    pub address: Ipv4Addr,
    /// When packets are carried inside others.
    #[serde(default)]
    pub overlay: Overlay,
    /// The overlay's number, below 2^24; the same on all machines.
    #[serde(default = "MachineLink::default_vni")]
    pub vni: u32,
    /// The overlay's UDP port; the same on all machines. The default is not the registered 4789, which Docker's and Kubernetes' overlays use.
    #[serde(default = "MachineLink::default_port")]
    pub port: u16,
}

/// When packets for tasks of other machines are carried inside others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overlay {
    /// To machines that are not on a link of this one.
    #[default]
    WhereNeeded,
    /// Always: for links that drop addresses that they do not know, as clouds' do.
    Always,
}

impl MachineLink {
    /// Defaults for a machine of this address.
    #[must_use]
    pub fn new(address: Ipv4Addr) -> Self {
        Self { address, overlay: Overlay::default(), vni: Self::default_vni(), port: Self::default_port() }
    }

    const fn default_vni() -> u32 {
        190
    }

    const fn default_port() -> u16 {
        4790
    }
}

/// All that a machine is told of the network beyond its own tasks. A new table replaces the one before as a whole, also where what it was
/// told of are [`TableChanges`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NetworkTable {
    /// Security groups by their ids.
    pub groups: BTreeMap<String, SecurityGroup>,
    /// Interfaces by their ids, `eni-...`.
    pub interfaces: BTreeMap<String, KnownInterface>,
    /// How this machine and others reach each other; none: tasks of other machines are not reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineLink>,
}

/// What makes a newer table of an older one: by id, what is new or otherwise, and `None` for what is gone. It says nothing of the machine itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TableChanges {
    /// Security groups.
    #[serde(default)]
    pub groups: BTreeMap<String, Option<SecurityGroup>>,
    /// Interfaces.
    #[serde(default)]
    pub interfaces: BTreeMap<String, Option<KnownInterface>>,
}

/// Why a table cannot be used; then the one before stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Not `address/prefix`.
    #[error("CIDR {0:?}: expected an address, a slash and a prefix length")]
    Cidr(String),
    /// An id that cannot be a name in the kernel.
    #[error("{0:?}: expected 1 to 64 of a-z, 0-9 and -")]
    Id(String),
    /// First port above last.
    #[error("security group {0}: a rule's first port is above its last")]
    Ports(String),
    /// The overlay's number has 24 bits.
    #[error("overlay {0}: expected a number below 16777216")]
    Overlay(u32),
    /// More than [`MOST_RULES`].
    #[error("security group {0}: more than {MOST_RULES} rules")]
    Rules(String),
    /// More than [`MOST_GROUPS`].
    #[error("network interface {0}: more than {MOST_GROUPS} security groups")]
    Groups(String),
}

impl NetworkTable {
    /// Makes it the newer one that the changes lead to.
    pub fn change(&mut self, changes: TableChanges) {
        fn merge<T>(known: &mut BTreeMap<String, T>, changes: BTreeMap<String, Option<T>>) {
            for (id, change) in changes {
                match change {
                    Some(value) => drop(known.insert(id, value)),
                    None => drop(known.remove(&id)),
                }
            }
        }
        merge(&mut self.groups, changes.groups);
        merge(&mut self.interfaces, changes.interfaces);
    }

    /// Says whether a machine can use it.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn check(&self) -> Result<(), TableError> {
        let named = |id: &String| if is_plain(id) { Ok(()) } else { Err(TableError::Id(id.chars().take(80).collect())) };
        if let Some(link) = self.machine.as_ref().filter(|link| link.vni >= 1 << 24) {
            return Err(TableError::Overlay(link.vni));
        }
        for (id, group) in &self.groups {
            named(id)?;
            if group.ingress.len() > MOST_RULES || group.egress.len() > MOST_RULES {
                return Err(TableError::Rules(id.clone()));
            }
            for rule in group.ingress.iter().chain(&group.egress) {
                if let Peer::Group(peer) = &rule.peer {
                    named(peer)?;
                }
                if matches!(rule.traffic, Traffic::Tcp(first, last) | Traffic::Udp(first, last) if first > last) {
                    return Err(TableError::Ports(id.clone()));
                }
            }
        }
        for (id, interface) in &self.interfaces {
            named(id)?;
            interface.groups.iter().try_for_each(named)?;
            if interface.groups.len() > MOST_GROUPS {
                return Err(TableError::Groups(id.clone()));
            }
        }
        Ok(())
    }

    /// The groups of an interface: what the table says, or without a word what it came with.
    #[must_use]
    pub fn groups_of<'a>(&'a self, id: &str, own: &'a [String]) -> &'a [String] {
        self.interfaces.get(id).map_or(own, |known| &known.groups)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_lose_the_bits_right_of_their_prefix() {
        let read = |text: &str| text.parse::<Cidr>().map(|cidr| cidr.to_string());
        assert_eq!(read("10.1.2.3/8"), Ok("10.0.0.0/8".into()));
        assert_eq!(read("0.0.0.0/0"), Ok(Cidr::ANY_V4.to_string()));
        assert_eq!(read("2001:db8::1/32"), Ok("2001:db8::/32".into()));
        assert_eq!(read("::/0"), Ok(Cidr::ANY_V6.to_string()));
        assert_eq!(read("1.2.3.4/32"), Ok("1.2.3.4/32".into()));
        for wrong in ["10.0.0.0", "10.0.0.0/33", "::/129", "x/8", "10.0.0.0/-1"] {
            assert_eq!(read(wrong), Err(TableError::Cidr(wrong.into())));
        }
    }

    #[test]
    fn changes_say_only_what_is_otherwise() {
        let known = |group: &str| KnownInterface { addresses: Vec::new(), groups: vec![group.to_owned()], instance: None };
        let link = MachineLink::new(Ipv4Addr::LOCALHOST);
        let mut table = NetworkTable {
            groups: [("sg-1".to_owned(), SecurityGroup::default()), ("sg-2".to_owned(), SecurityGroup::default())].into(),
            interfaces: [("eni-1".to_owned(), known("sg-1")), ("eni-2".to_owned(), known("sg-2"))].into(),
            machine: Some(link.clone()),
        };
        let changes = r#"{"groups": {"sg-2": null}, "interfaces": {"eni-1": {"addresses": [], "groups": ["sg-3"], "instance": null},
                          "eni-2": null, "eni-4": null}}"#;
        table.change(serde_json::from_str(changes).unwrap());
        assert_eq!(table.groups.keys().collect::<Vec<_>>(), ["sg-1"]);
        assert_eq!(table.interfaces, [("eni-1".to_owned(), known("sg-3"))].into());
        assert_eq!(table.machine, Some(link), "nobody told of it");
        let before = table.clone();
        table.change(serde_json::from_str("{}").unwrap());
        assert_eq!(table, before);
    }

    #[test]
    fn a_table_that_no_machine_can_use_is_refused() {
        let group = |traffic, peer| SecurityGroup { ingress: vec![Rule { traffic, peer }], egress: Vec::new() };
        let table = |id: &str, group| NetworkTable { groups: [(id.to_owned(), group)].into(), ..Default::default() };
        let any = || Peer::Range(Cidr::ANY_V4);
        assert_eq!(table("sg-1", group(Traffic::Tcp(80, 80), any())).check(), Ok(()));
        assert_eq!(table("sg-1", group(Traffic::Udp(81, 80), any())).check(), Err(TableError::Ports("sg-1".into())));
        assert_eq!(table("sg 1", group(Traffic::All, any())).check(), Err(TableError::Id("sg 1".into())));
        assert_eq!(table("sg-1", group(Traffic::All, Peer::Group("\n".into()))).check(), Err(TableError::Id("\n".into())));
        let known = KnownInterface { addresses: Vec::new(), groups: vec!["sg-1".into(); 17], instance: None };
        let table = NetworkTable { interfaces: [("eni-1".to_owned(), known)].into(), ..Default::default() };
        assert_eq!(table.check(), Err(TableError::Groups("eni-1".into())));
        assert_eq!(table.groups_of("eni-2", &["sg-own".into()]), ["sg-own"]);
        assert_eq!(table.groups_of("eni-1", &["sg-own".into()]).len(), 17, "the table is stronger");
    }
}
