//! Security groups: who may talk to a network interface, and to whom it may talk. Stateful: an answer passes where its question did.
//!
//! <https://docs.aws.amazon.com/vpc/latest/userguide/vpc-security-groups.html>

use std::fmt;

use serde::{Deserialize, Serialize};

use super::cidr::{Ipv4Cidr, Ipv6Cidr};
use super::ids::{SecurityGroupId, SecurityGroupRuleId, VpcId};
use crate::tags::Tags;

/// Most rules of a group in each direction; AWS's default.
/// <https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html>
pub const MAX_RULES: usize = 60;
/// Most security groups in a region; AWS's default.
pub const MAX_GROUPS: usize = 2_500;
/// Most security groups of a network interface; AWS's default.
pub const MAX_GROUPS_OF_INTERFACE: usize = 5;
/// The name of the group that each VPC has from the start, which cannot be deleted.
pub const DEFAULT_GROUP: &str = "default";

/// A protocol that a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum IpProtocol {
    /// All of them, on all ports: `-1`.
    All,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP of IPv4.
    Icmp,
    /// ICMP of IPv6.
    Icmpv6,
    /// Another, by its number.
    Other(u8),
}

impl IpProtocol {
    /// Reads `ipProtocol`: a name or a number.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "-1" | "all" => return Some(Self::All),
            "tcp" => return Some(Self::Tcp),
            "udp" => return Some(Self::Udp),
            "icmp" => return Some(Self::Icmp),
            "icmpv6" => return Some(Self::Icmpv6),
            _ => {}
        }
        if !text.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        Some(match text.parse::<u8>().ok()? {
            1 => Self::Icmp,
            6 => Self::Tcp,
            17 => Self::Udp,
            58 => Self::Icmpv6,
            number => Self::Other(number),
        })
    }
}

impl fmt::Display for IpProtocol {
    /// As `ipProtocol` shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("-1"),
            Self::Tcp => f.write_str("tcp"),
            Self::Udp => f.write_str("udp"),
            Self::Icmp => f.write_str("icmp"),
            Self::Icmpv6 => f.write_str("icmpv6"),
            Self::Other(number) => number.fmt(f),
        }
    }
}

/// Why a protocol with its ports is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrafficError {
    /// No such protocol.
    #[error("Invalid value '{0}' for IP protocol. Unknown protocol.")]
    Protocol(String),
    /// TCP and UDP need ports.
    #[error("Invalid value 'Must specify both from and to ports with TCP/UDP.' for portRange.")]
    PortsMissing,
    /// A port is no port.
    #[error("Invalid value '{0}' for portRange. TCP/UDP port ({0}) out of range")]
    Port(i32),
    /// The range ends before it begins.
    #[error("Invalid TCP/UDP port range ({0}:{1})")]
    Range(i32, i32),
    /// An ICMP type or code is none.
    #[error("ICMP type/code ({0}:{1}) out of range")]
    Icmp(i32, i32),
}

/// A protocol, and which of its ports; or which types and codes, -1 for all, where it is ICMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Traffic {
    /// The protocol.
    pub protocol: IpProtocol,
    /// `fromPort` and `toPort`: of TCP and UDP the first port and the last, of ICMP the type and the code; the others have none.
    pub ports: Option<(i32, i32)>,
}

impl Traffic {
    /// Everything.
    pub const ALL: Self = Self { protocol: IpProtocol::All, ports: None };

    /// Reads `ipProtocol`, `fromPort` and `toPort`. Ports of protocols that have none are dropped, as AWS does.
    ///
    /// # Errors
    /// [`TrafficError`].
    pub fn parse(protocol: &str, from: Option<i32>, to: Option<i32>) -> Result<Self, TrafficError> {
        let unknown = || TrafficError::Protocol(protocol.chars().take(64).collect());
        let protocol = IpProtocol::parse(protocol).ok_or_else(unknown)?;
        let ports = match protocol {
            IpProtocol::All | IpProtocol::Other(_) => None,
            IpProtocol::Tcp | IpProtocol::Udp => {
                let (Some(from), Some(to)) = (from, to) else { return Err(TrafficError::PortsMissing) };
                if let Some(bad) = [from, to].into_iter().find(|port| !(0..=65_535).contains(port)) {
                    return Err(TrafficError::Port(bad));
                }
                if from > to {
                    return Err(TrafficError::Range(from, to));
                }
                Some((from, to))
            }
            IpProtocol::Icmp | IpProtocol::Icmpv6 => {
                let (kind, code) = (from.unwrap_or(-1), to.unwrap_or(-1));
                let is_legal = (-1..=255).contains(&kind) && (-1..=255).contains(&code) && (kind != -1 || code == -1);
                if !is_legal {
                    return Err(TrafficError::Icmp(kind, code));
                }
                Some((kind, code))
            }
        };
        Ok(Self { protocol, ports })
    }
}

/// Who stands at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Peer {
    /// Addresses of IPv4.
    Ipv4(Ipv4Cidr),
    /// Addresses of IPv6.
    Ipv6(Ipv6Cidr),
    /// Whatever interface has this security group.
    Group(SecurityGroupId),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv4(cidr) => cidr.fmt(f),
            Self::Ipv6(cidr) => cidr.fmt(f),
            Self::Group(id) => id.fmt(f),
        }
    }
}

/// Which way a rule's traffic begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Direction {
    /// From the peer.
    Ingress,
    /// To the peer.
    Egress,
}

/// What a rule allows: two rules of a group are never about the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Permission {
    /// Which way.
    pub direction: Direction,
    /// What.
    pub traffic: Traffic,
    /// From whom, or to whom.
    pub peer: Peer,
}

impl fmt::Display for Permission {
    /// As AWS's errors show it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.traffic.protocol {
            IpProtocol::All => "ALL".to_owned(),
            other => other.to_string().to_ascii_uppercase(),
        };
        write!(f, "peer: {}, {protocol}", self.peer)?;
        if let Some((from, to)) = self.traffic.ports {
            write!(f, ", from port: {from}, to port: {to}")?;
        }
        f.write_str(", ALLOW")
    }
}

/// A rule of a security group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroupRule {
    /// Its id.
    pub id: SecurityGroupRuleId,
    /// What it allows.
    pub permission: Permission,
    /// What its author says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its tags.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
}

/// Why rules cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddRuleError {
    /// There is one that allows this.
    #[error("the specified rule \"{0}\" already exists")]
    Duplicate(Permission),
    /// More than [`MAX_RULES`].
    #[error("The maximum number of rules per security group has been reached.")]
    TooMany,
}

/// A security group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroup {
    /// Its id.
    pub id: SecurityGroupId,
    /// Its VPC.
    pub vpc: VpcId,
    /// Its name, unique in its VPC.
    pub name: String,
    /// What its author says of it.
    pub description: String,
    /// Its rules, oldest first.
    pub rules: Vec<SecurityGroupRule>,
    /// Its tags.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
}

impl SecurityGroup {
    /// Is it the group that its VPC has from the start?
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.name == DEFAULT_GROUP
    }

    /// Its rules of one direction.
    pub fn rules_of(&self, direction: Direction) -> impl Iterator<Item = &SecurityGroupRule> {
        self.rules.iter().filter(move |rule| rule.permission.direction == direction)
    }

    /// Does one of its rules name that group?
    #[must_use]
    pub fn refers_to(&self, group: SecurityGroupId) -> bool {
        self.rules.iter().any(|rule| rule.permission.peer == Peer::Group(group))
    }

    /// Adds rules, all or none.
    ///
    /// # Errors
    /// [`AddRuleError`]; then the group is as it was.
    pub fn add(&mut self, rules: Vec<SecurityGroupRule>) -> Result<(), AddRuleError> {
        let before = self.rules.len();
        for rule in rules {
            let is_there = self.rules.iter().any(|there| there.permission == rule.permission);
            let is_full = self.rules_of(rule.permission.direction).count() >= MAX_RULES;
            if is_there || is_full {
                self.rules.truncate(before);
                return Err(if is_there { AddRuleError::Duplicate(rule.permission) } else { AddRuleError::TooMany });
            }
            self.rules.push(rule);
        }
        Ok(())
    }
}

/// Is the text a name or a description of a group? Up to 255 of `a-z A-Z 0-9`, spaces and `._-:/()#,@[]+=&;{}!$*`.
/// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateSecurityGroup.html>
#[must_use]
pub fn is_legal_text(text: &str) -> bool {
    text.len() <= 255 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" ._-:/()#,@[]+=&;{}!$*".contains(&byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn permission(direction: Direction, port: i32) -> Permission {
        let traffic = Traffic::parse("tcp", Some(port), Some(port)).unwrap();
        Permission { direction, traffic, peer: Peer::Ipv4(Ipv4Cidr::ANYWHERE) }
    }

    fn rule(permission: Permission, id: u128) -> SecurityGroupRule {
        SecurityGroupRule { id: SecurityGroupRuleId::from_random(id), permission, description: None, tags: Tags::new() }
    }

    fn group() -> SecurityGroup {
        let (id, vpc) = (SecurityGroupId::from_random(1), VpcId::from_random(2));
        SecurityGroup { id, vpc, name: "web".into(), description: "web".into(), rules: Vec::new(), tags: Tags::new() }
    }

    #[test]
    fn protocols_have_one_name_each() {
        for (text, shown) in
            [("-1", "-1"), ("ALL", "-1"), ("6", "tcp"), ("TCP", "tcp"), ("17", "udp"), ("1", "icmp"), ("58", "icmpv6"), ("50", "50")]
        {
            assert_eq!(IpProtocol::parse(text).unwrap().to_string(), shown);
        }
        for text in ["", "tcpx", "256", "-2", "+6"] {
            assert_eq!(IpProtocol::parse(text), None, "{text}");
        }
    }

    #[test]
    fn ports_are_checked() {
        let parse = |protocol, from, to| Traffic::parse(protocol, from, to).map(|traffic| traffic.ports);
        assert_eq!(parse("tcp", Some(80), Some(90)), Ok(Some((80, 90))));
        assert_eq!(parse("tcp", Some(80), None), Err(TrafficError::PortsMissing));
        assert_eq!(parse("udp", Some(-1), Some(-1)), Err(TrafficError::Port(-1)));
        assert_eq!(parse("tcp", Some(1), Some(65_536)), Err(TrafficError::Port(65_536)));
        assert_eq!(parse("tcp", Some(90), Some(80)), Err(TrafficError::Range(90, 80)));
        assert_eq!(parse("icmp", None, None), Ok(Some((-1, -1))));
        assert_eq!(parse("icmp", Some(8), Some(-1)), Ok(Some((8, -1))));
        assert_eq!(parse("icmp", Some(-1), Some(3)), Err(TrafficError::Icmp(-1, 3)));
        assert_eq!(parse("-1", Some(80), Some(80)), Ok(None), "all protocols means all ports");
        assert_eq!(parse("lamp", None, None), Err(TrafficError::Protocol("lamp".into())));
    }

    #[test]
    fn rules_are_added_all_or_none() {
        let mut group = group();
        group.add(vec![rule(permission(Direction::Ingress, 80), 1)]).unwrap();
        let before = group.clone();
        let twice = vec![rule(permission(Direction::Ingress, 81), 2), rule(permission(Direction::Ingress, 80), 3)];
        assert_eq!(group.add(twice), Err(AddRuleError::Duplicate(permission(Direction::Ingress, 80))));
        assert_eq!(group, before);
        group.add(vec![rule(permission(Direction::Egress, 80), 4)]).unwrap();
        let text = permission(Direction::Ingress, 80).to_string();
        assert_eq!(text, "peer: 0.0.0.0/0, TCP, from port: 80, to port: 80, ALLOW");
    }

    #[test]
    fn each_direction_has_room_for_sixty() {
        let mut group = group();
        let rules = |direction, count| (0..count).map(|port| rule(permission(direction, port), 0)).collect::<Vec<_>>();
        assert_eq!(group.add(rules(Direction::Ingress, 61)), Err(AddRuleError::TooMany));
        assert!(group.rules.is_empty());
        group.add(rules(Direction::Ingress, 60)).unwrap();
        group.add(rules(Direction::Egress, 60)).unwrap();
        assert_eq!(group.add(vec![rule(permission(Direction::Egress, 99), 0)]), Err(AddRuleError::TooMany));
        assert_eq!(group.rules.len(), 120);
    }

    proptest! {
        #[test]
        fn no_two_rules_allow_the_same(ports in prop::collection::vec((0..4_i32, any::<bool>()), 0..30)) {
            let mut group = group();
            for (port, is_egress) in ports {
                let direction = if is_egress { Direction::Egress } else { Direction::Ingress };
                let wanted = permission(direction, port);
                let known = group.rules.iter().any(|rule| rule.permission == wanted);
                prop_assert_eq!(group.add(vec![rule(wanted, 0)]).is_err(), known);
                prop_assert!(group.rules.iter().any(|rule| rule.permission == wanted));
            }
            let kept: std::collections::BTreeSet<_> = group.rules.iter().map(|rule| rule.permission).collect();
            prop_assert_eq!(kept.len(), group.rules.len());
        }
    }
}
