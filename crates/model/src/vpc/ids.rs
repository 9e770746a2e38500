//! Ids of the VPC model's resources: a prefix and 17 hexadecimal digits, as EC2's are since 2018.
//!
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/resource-ids.html>

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::ids::IdError;

/// Digits after the prefix.
const DIGITS: usize = 17;
/// The bits that those digits can tell.
const BITS: u128 = (1 << (4 * DIGITS)) - 1;

/// The number of an id; `None` unless the text is the prefix and exactly 17 lower-case hexadecimal digits, so that two texts
/// never mean one resource.
fn number(prefix: &str, text: &str) -> Option<u128> {
    let digits = text.strip_prefix(prefix)?;
    let legal = digits.len() == DIGITS && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    if legal { u128::from_str_radix(digits, 16).ok() } else { None }
}

macro_rules! ec2_id {
    ($(#[$meta:meta])* $name:ident, $prefix:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(u128);

        impl $name {
            /// What its text begins with.
            pub const PREFIX: &'static str = $prefix;

            /// An id out of random bits, of which the lowest 68 count.
            #[must_use]
            pub const fn from_random(bits: u128) -> Self {
                Self(bits & BITS)
            }

            /// Its 68 bits.
            #[must_use]
            pub const fn bits(self) -> u128 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{:017x}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let error = || IdError { kind: stringify!($name), text: text.chars().take(64).collect() };
                number($prefix, text).map(Self).ok_or_else(error)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

ec2_id!(
    /// A VPC's id.
    VpcId,
    "vpc-"
);
ec2_id!(
    /// A subnet's id.
    SubnetId,
    "subnet-"
);
ec2_id!(
    /// A security group's id.
    SecurityGroupId,
    "sg-"
);
ec2_id!(
    /// A security group rule's id.
    SecurityGroupRuleId,
    "sgr-"
);
ec2_id!(
    /// A network interface's id.
    NetworkInterfaceId,
    "eni-"
);
ec2_id!(
    /// A route table's id.
    RouteTableId,
    "rtb-"
);
ec2_id!(
    /// An internet gateway's id.
    InternetGatewayId,
    "igw-"
);

/// The id of a resource that is a record of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceId {
    /// A VPC.
    Vpc(VpcId),
    /// A subnet.
    Subnet(SubnetId),
    /// A security group.
    SecurityGroup(SecurityGroupId),
    /// A network interface.
    NetworkInterface(NetworkInterfaceId),
    /// A route table.
    RouteTable(RouteTableId),
    /// An internet gateway.
    InternetGateway(InternetGatewayId),
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vpc(id) => id.fmt(f),
            Self::Subnet(id) => id.fmt(f),
            Self::SecurityGroup(id) => id.fmt(f),
            Self::NetworkInterface(id) => id.fmt(f),
            Self::RouteTable(id) => id.fmt(f),
            Self::InternetGateway(id) => id.fmt(f),
        }
    }
}

impl FromStr for ResourceId {
    type Err = IdError;

    /// Reads an id of whichever kind: its prefix says which.
    fn from_str(text: &str) -> Result<Self, IdError> {
        match text.split_once('-').map_or("", |(prefix, _)| prefix) {
            "vpc" => text.parse().map(Self::Vpc),
            "subnet" => text.parse().map(Self::Subnet),
            "sg" => text.parse().map(Self::SecurityGroup),
            "eni" => text.parse().map(Self::NetworkInterface),
            "rtb" => text.parse().map(Self::RouteTable),
            "igw" => text.parse().map(Self::InternetGateway),
            _ => Err(IdError { kind: "resource's id", text: text.chars().take(64).collect() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_and_have_seventeen_digits() {
        for bits in [0, 1, u128::MAX, 0x0123_4567_89ab_cdef] {
            let id = SubnetId::from_random(bits);
            let text = id.to_string();
            assert_eq!(text.len(), "subnet-".len() + 17);
            assert_eq!(text.parse::<SubnetId>(), Ok(id));
            assert_eq!(text.parse::<ResourceId>(), Ok(ResourceId::Subnet(id)));
            assert_eq!(serde_json::from_str::<SubnetId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
        }
    }

    #[test]
    fn other_texts_are_no_ids() {
        let text = SubnetId::from_random(7).to_string();
        for bad in [
            "",
            "subnet-",
            "subnet-1",
            &text[1..],
            &text.to_uppercase(),
            &format!("{text}0"),
            "subnet-+000000000000000f",
            "vpc-0ü0000000000000f",
        ] {
            assert!(bad.parse::<SubnetId>().is_err() && bad.parse::<ResourceId>().is_err(), "{bad}");
        }
        assert!(text.parse::<VpcId>().is_err());
    }
}
