//! The VPC model: networks, their subnets in zones, security groups, and the interfaces that tasks and machines have in them.
//! What EC2's actions change and what tasks in awsvpc mode are given their addresses from. Pure nouns and decisions.
//!
//! <https://docs.aws.amazon.com/vpc/latest/userguide/how-it-works.html>

pub mod addresses;
pub mod cidr;
pub mod default_vpc;
pub mod ids;
pub mod network_interface;
pub mod security_group;
pub mod zones;

use core::net::Ipv4Addr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::addresses::Taken;
pub use self::cidr::{Ipv4Cidr, Ipv6Cidr};
pub use self::ids::{
    InternetGatewayId, NetworkInterfaceId, ResourceId, RouteTableId, SecurityGroupId, SecurityGroupRuleId, SubnetId, VpcId,
};
pub use self::network_interface::NetworkInterface;
pub use self::security_group::{SecurityGroup, SecurityGroupRule};
use crate::tags::Tags;

/// Most VPCs in a region; AWS's default.
/// <https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html>
pub const MAX_VPCS: usize = 5;
/// Most subnets of a VPC; AWS's default.
pub const MAX_SUBNETS: usize = 200;
/// Most network interfaces in a region; AWS's default.
pub const MAX_INTERFACES: usize = 5_000;
/// The shortest prefix that a VPC or a subnet may have.
const SHORTEST_PREFIX: u8 = 16;
/// The longest.
const LONGEST_PREFIX: u8 = 28;

/// May a VPC or a subnet have this block, as far as its size goes? AWS: /16 to /28.
#[must_use]
pub fn is_legal_size(cidr: Ipv4Cidr) -> bool {
    (SHORTEST_PREFIX..=LONGEST_PREFIX).contains(&cidr.prefix())
}

/// A VPC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vpc {
    /// Its id.
    pub id: VpcId,
    /// Its addresses.
    pub cidr: Ipv4Cidr,
    /// Is it the one that is there from the start?
    pub is_default: bool,
    /// `enableDnsSupport`: names are resolved in it.
    pub enable_dns_support: bool,
    /// `enableDnsHostnames`: its interfaces have names.
    pub enable_dns_hostnames: bool,
    /// Only of the default VPC: somebody deleted it. Its record stays, so that a later start does not make it again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_deleted: bool,
    /// Its tags.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
}

/// A subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// Its id.
    pub id: SubnetId,
    /// Its VPC.
    pub vpc: VpcId,
    /// Its availability zone's name, e.g. `us-east-1a`.
    pub zone: Arc<str>,
    /// Its addresses.
    pub cidr: Ipv4Cidr,
    /// `defaultForAz`: is it the one of its zone that is there from the start?
    pub is_default: bool,
    /// `mapPublicIpOnLaunch`.
    pub map_public_ip_on_launch: bool,
    /// The address that was given last: the next one is looked for after it. Whoever gives one writes it, so that of two who give
    /// addresses of one subnet at once only one gets through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_address: Option<Ipv4Addr>,
    /// Its tags.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
}

impl Subnet {
    /// The next free address of the subnet, which whoever gives it writes to [`Self::last_address`]; `None` if there is none:
    /// `InsufficientFreeAddressesInSubnet`, or ECS's `RESOURCE:ENI`.
    #[must_use]
    pub fn next_address(&self, taken: &Taken) -> Option<Ipv4Addr> {
        taken.next_free(self.cidr, self.last_address)
    }
}

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// To whoever has the address, in the VPC itself.
    Local,
    /// Out of the VPC.
    InternetGateway(InternetGatewayId),
}

/// A route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// For which addresses.
    pub destination: Ipv4Cidr,
    /// Where to.
    pub target: Target,
}

/// A VPC's main route table, which all of its subnets use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTable {
    /// Its id.
    pub id: RouteTableId,
    /// Its VPC.
    pub vpc: VpcId,
    /// Its routes.
    pub routes: Vec<Route>,
    /// Its tags.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
}

/// An internet gateway, attached to a VPC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InternetGateway {
    /// Its id.
    pub id: InternetGatewayId,
    /// The VPC it is attached to.
    pub vpc: VpcId,
    /// Its tags.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
}

/// A resource, as the store keeps it. One kind of record for all of them: what deals with records as such needs to know one only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "resource", content = "value")]
pub enum Resource {
    /// A VPC.
    Vpc(Arc<Vpc>),
    /// A subnet.
    Subnet(Arc<Subnet>),
    /// A security group.
    SecurityGroup(Arc<SecurityGroup>),
    /// A network interface.
    NetworkInterface(Arc<NetworkInterface>),
    /// A route table.
    RouteTable(Arc<RouteTable>),
    /// An internet gateway.
    InternetGateway(Arc<InternetGateway>),
}

impl Resource {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> ResourceId {
        match self {
            Self::Vpc(one) => ResourceId::Vpc(one.id),
            Self::Subnet(one) => ResourceId::Subnet(one.id),
            Self::SecurityGroup(one) => ResourceId::SecurityGroup(one.id),
            Self::NetworkInterface(one) => ResourceId::NetworkInterface(one.id),
            Self::RouteTable(one) => ResourceId::RouteTable(one.id),
            Self::InternetGateway(one) => ResourceId::InternetGateway(one.id),
        }
    }

    /// Its tags.
    #[must_use]
    pub fn tags(&self) -> &Tags {
        match self {
            Self::Vpc(one) => &one.tags,
            Self::Subnet(one) => &one.tags,
            Self::SecurityGroup(one) => &one.tags,
            Self::NetworkInterface(one) => &one.tags,
            Self::RouteTable(one) => &one.tags,
            Self::InternetGateway(one) => &one.tags,
        }
    }

    /// Its tags, to be changed.
    pub fn tags_mut(&mut self) -> &mut Tags {
        match self {
            Self::Vpc(one) => &mut Arc::make_mut(one).tags,
            Self::Subnet(one) => &mut Arc::make_mut(one).tags,
            Self::SecurityGroup(one) => &mut Arc::make_mut(one).tags,
            Self::NetworkInterface(one) => &mut Arc::make_mut(one).tags,
            Self::RouteTable(one) => &mut Arc::make_mut(one).tags,
            Self::InternetGateway(one) => &mut Arc::make_mut(one).tags,
        }
    }
}

macro_rules! from_noun {
    ($($noun:ident),+ $(,)?) => {
        $(
            impl From<$noun> for Resource {
                fn from(noun: $noun) -> Self {
                    Self::$noun(Arc::new(noun))
                }
            }

            impl From<$noun> for crate::record::Record {
                fn from(noun: $noun) -> Self {
                    Self::VpcResource(noun.into())
                }
            }
        )+
    };
}

from_noun!(Vpc, Subnet, SecurityGroup, NetworkInterface, RouteTable, InternetGateway);
