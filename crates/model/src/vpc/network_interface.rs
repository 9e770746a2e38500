//! Network interfaces: a private address in a subnet, with security groups, at a task or a machine.
//!
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/using-eni.html>

use core::net::Ipv4Addr;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::ids::{NetworkInterfaceId, SecurityGroupId, SubnetId, VpcId};
use super::security_group::{MAX_GROUPS_OF_INTERFACE, SecurityGroup};
use super::{Subnet, Taken};
use crate::ids::TaskId;
use crate::tags::Tags;
use crate::time::UnixMillis;

/// A MAC address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The address of an interface: locally administered, one that no two interfaces of a VPC share, because their private
    /// addresses are in it.
    #[must_use]
    pub fn of(id: NetworkInterfaceId, address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, id.bits().to_be_bytes()[15], a, b, c, d])
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a MAC address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not six pairs of hexadecimal digits with colons between them")]
pub struct MacAddressError;

impl FromStr for MacAddress {
    type Err = MacAddressError;

    fn from_str(text: &str) -> Result<Self, MacAddressError> {
        let pair = |text: &str| {
            let legal = text.len() == 2 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
            u8::from_str_radix(text, 16).ok().filter(|_| legal)
        };
        let bytes: Option<Vec<u8>> = text.split(':').map(pair).collect();
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or(MacAddressError)
    }
}

impl Serialize for MacAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

wire_enum!(
    /// How far an interface's attachment is.
    AttachmentStatus {
        /// It is being attached.
        Attaching = "attaching",
        /// It is attached.
        Attached = "attached",
        /// It is being detached.
        Detaching = "detaching",
        /// It is detached.
        Detached = "detached",
    }
);

/// What an interface is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceAttachment {
    /// Its id: `eni-attach-` and 17 digits.
    pub id: String,
    /// The machine: a container instance's `ec2InstanceId`; none where tasks have no machine of their account's (Fargate).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The task that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// Which of the machine's interfaces it is.
    pub device_index: i32,
    /// How far it is.
    pub status: AttachmentStatus,
    /// Since when.
    pub attached_at: UnixMillis,
    /// Whether the interface goes when the machine does.
    pub delete_on_termination: bool,
}

wire_enum!(
    /// An interface's status.
    InterfaceStatus {
        /// Nothing has it.
        Available = "available",
        /// Something has it.
        InUse = "in-use",
    }
);

/// A network interface. Every one is a record from the moment that its address is given until it is free again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInterface {
    /// Its id.
    pub id: NetworkInterfaceId,
    /// Its VPC.
    pub vpc: VpcId,
    /// Its subnet.
    pub subnet: SubnetId,
    /// Its address in the subnet.
    pub private_address: Ipv4Addr,
    /// Its address on the link.
    pub mac_address: MacAddress,
    /// The address that stands for it outside; no other interface has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_address: Option<Ipv4Addr>,
    /// Its security groups, at most five.
    pub groups: Vec<SecurityGroupId>,
    /// What it is for; of a task's interface the ARN of its attachment.
    pub description: String,
    /// `interfaceType`, e.g. `interface`.
    pub interface_type: String,
    /// Who made it on somebody's behalf, e.g. an account or `amazon-elb`; none where its owner made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requester: Option<String>,
    /// `requesterManaged`: its owner may not change it.
    pub requester_managed: bool,
    /// What it is attached to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment: Option<InterfaceAttachment>,
    /// Its tags.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
}

/// Why there can be no new interface.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InterfaceError {
    /// All addresses are taken: EC2's `InsufficientFreeAddressesInSubnet`, ECS's `RESOURCE:ENI`.
    #[error("The specified subnet does not have enough free addresses to satisfy the request: {0}")]
    NoFreeAddress(SubnetId),
    /// A group of another VPC than the subnet's.
    #[error("The security group '{0}' and the subnet belong to different networks.")]
    OtherVpc(SecurityGroupId),
    /// One group twice.
    #[error("The security group '{0}' is specified more than once.")]
    GroupTwice(SecurityGroupId),
    /// No group, or more than five.
    #[error("A network interface has 1 to {MAX_GROUPS_OF_INTERFACE} security groups.")]
    GroupCount,
}

impl NetworkInterface {
    /// A new interface, attached to nothing, with the next free address of the subnet; and the subnet as it is to be written with it.
    /// Its requester, attachment and tags are the caller's to set.
    ///
    /// # Errors
    /// [`InterfaceError`].
    pub fn plan(
        id: NetworkInterfaceId,
        subnet: &Subnet,
        groups: &[&SecurityGroup],
        description: &str,
        taken: &Taken,
    ) -> Result<(Self, Subnet), InterfaceError> {
        if groups.is_empty() || groups.len() > MAX_GROUPS_OF_INTERFACE {
            return Err(InterfaceError::GroupCount);
        }
        for (nth, group) in groups.iter().enumerate() {
            if group.vpc != subnet.vpc {
                return Err(InterfaceError::OtherVpc(group.id));
            }
            if groups[..nth].iter().any(|other| other.id == group.id) {
                return Err(InterfaceError::GroupTwice(group.id));
            }
        }
        let mut subnet = subnet.clone();
        let private_address = subnet.next_address(taken).ok_or(InterfaceError::NoFreeAddress(subnet.id))?;
        subnet.last_address = Some(private_address);
        let interface = Self {
            id,
            vpc: subnet.vpc,
            subnet: subnet.id,
            private_address,
            mac_address: MacAddress::of(id, private_address),
            public_address: None,
            groups: groups.iter().map(|group| group.id).collect(),
            description: description.to_owned(),
            interface_type: "interface".to_owned(),
            requester: None,
            requester_managed: false,
            attachment: None,
            tags: Tags::new(),
        };
        Ok((interface, subnet))
    }

    /// Its status: attached or not.
    #[must_use]
    pub fn status(&self) -> InterfaceStatus {
        if self.attachment.is_some() { InterfaceStatus::InUse } else { InterfaceStatus::Available }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::vpc::default_vpc::default_group;

    #[test]
    fn a_mac_address_is_local_and_holds_the_address() {
        let mac = MacAddress::of(NetworkInterfaceId::from_random(0xabc), Ipv4Addr::new(172, 31, 0, 4));
        assert_eq!(mac.to_string(), "02:bc:ac:1f:00:04");
        assert_eq!(mac.0[0] & 3, 2, "locally administered, for one receiver");
    }

    #[test]
    fn other_texts_are_no_mac_addresses() {
        for text in ["", "02", "02:bc:ac:1f:00", "02:bc:ac:1f:00:04:05", "02:bc:ac:1f:00:4", "02:bc:ac:1f:00:0g", "02:bc:ac:1f:00:+4"] {
            assert_eq!(text.parse::<MacAddress>(), Err(MacAddressError), "{text}");
        }
    }

    fn subnet(vpc: VpcId) -> Subnet {
        let (id, cidr) = (SubnetId::from_random(1), "10.0.0.0/28".parse().unwrap());
        Subnet { id, vpc, zone: "z".into(), cidr, is_default: false, map_public_ip_on_launch: false, last_address: None, tags: Tags::new() }
    }

    fn group(vpc: VpcId, number: u128) -> SecurityGroup {
        SecurityGroup { name: number.to_string(), ..default_group(vpc, number, [0, 1]) }
    }

    #[test]
    fn an_interface_has_groups_of_its_vpc() {
        let (here, there) = (VpcId::from_random(1), VpcId::from_random(2));
        let plan =
            |groups: &[&SecurityGroup]| NetworkInterface::plan(NetworkInterfaceId::from_random(1), &subnet(here), groups, "", &Taken::NONE);
        let groups: Vec<_> = (0..6).map(|number| group(here, number)).collect();
        let all: Vec<_> = groups.iter().collect();
        let (interface, subnet) = plan(&all[..5]).unwrap();
        assert_eq!(
            (interface.groups.len(), interface.status(), subnet.last_address),
            (5, InterfaceStatus::Available, Some(interface.private_address))
        );
        assert_eq!(plan(&[]).unwrap_err(), InterfaceError::GroupCount);
        assert_eq!(plan(&all).unwrap_err(), InterfaceError::GroupCount);
        assert_eq!(plan(&[&groups[0], &groups[0]]).unwrap_err(), InterfaceError::GroupTwice(groups[0].id));
        let foreign = group(there, 7);
        assert_eq!(plan(&[&groups[0], &foreign]).unwrap_err(), InterfaceError::OtherVpc(foreign.id));
    }

    #[test]
    fn a_subnet_has_interfaces_until_it_is_full() {
        let vpc = VpcId::from_random(1);
        let (mut subnet, groups, mut made) = (subnet(vpc), group(vpc, 1), Vec::<NetworkInterface>::new());
        let mut taken = Taken::NONE;
        for number in 0..11 {
            let (interface, after) =
                NetworkInterface::plan(NetworkInterfaceId::from_random(number), &subnet, &[&groups], "", &taken).unwrap();
            assert!(taken.insert(interface.private_address));
            made.push(interface);
            subnet = after;
        }
        let macs: std::collections::BTreeSet<_> = made.iter().map(|one| one.mac_address).collect();
        assert_eq!(macs.len(), 11);
        let full = NetworkInterface::plan(NetworkInterfaceId::from_random(99), &subnet, &[&groups], "", &taken);
        assert_eq!(full.unwrap_err(), InterfaceError::NoFreeAddress(subnet.id));
    }

    proptest! {
        #[test]
        fn a_mac_address_reads_back(bytes: [u8; 6]) {
            prop_assert_eq!(MacAddress(bytes).to_string().parse(), Ok(MacAddress(bytes)));
        }
    }
}
