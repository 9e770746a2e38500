//! Ids and names. Ids are 128-bit values; they become text only at the edge.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Text that is not the id it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a {kind}: {text}")]
pub struct IdError {
    /// What it should have been.
    pub kind: &'static str,
    /// What it was.
    pub text: String,
}

/// 128 bits as 32 hexadecimal digits. Every answer is full of ids, and so is every record: formatting a `u128` takes five times as long.
#[derive(Debug, Clone, Copy)]
pub struct HexDigits([u8; 32]);

impl HexDigits {
    /// The digits of an id.
    #[must_use]
    pub fn of(bits: u128) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 32];
        for (pair, byte) in text.chunks_exact_mut(2).zip(bits.to_be_bytes()) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        Self(text)
    }

    /// The digits as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits are ASCII")
    }

    /// The parts of a UUID, between which dashes stand.
    #[must_use]
    pub fn uuid_parts(&self) -> [&str; 5] {
        let hex = self.as_str();
        [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]]
    }
}

/// What a hexadecimal digit is worth; of all other bytes more than any of them.
const DIGITS: [u8; 256] = {
    let mut digits = [u8::MAX; 256];
    let mut value = 0;
    while value < 16 {
        digits[b"0123456789abcdef"[value as usize] as usize] = value;
        digits[b"0123456789ABCDEF"[value as usize] as usize] = value;
        value += 1;
    }
    digits
};

/// Exactly 32 hexadecimal digits. A start reads millions of them, so a digit costs a look into a table and no decision.
fn parse_hex(text: &[u8]) -> Option<u128> {
    // In halves: the processor has no registers of 128 bits.
    let half = |text: &[u8; 16]| {
        text.iter().fold((0_u64, 0), |(bits, seen), byte| {
            let digit = DIGITS[usize::from(*byte)];
            (bits << 4 | u64::from(digit & 15), seen | digit)
        })
    };
    let (high, low) = text.split_first_chunk()?;
    let ((high, in_high), (low, in_low)) = (half(high), half(low.try_into().ok()?));
    (in_high | in_low < 16).then_some(u128::from(high) << 64 | u128::from(low))
}

/// Reads an id out of a text wherever that lies; asking serde for a string would copy it first.
struct FromText<T> {
    kind: &'static str,
    parse: fn(&str) -> Result<T, IdError>,
}

impl<T> de::Visitor<'_> for FromText<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.kind)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).map_err(E::custom)
    }
}

macro_rules! hex_id {
    ($(#[$meta:meta])* $name:ident, $kind:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(HexDigits::of(self.0).as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:032x})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            /// Reads 32 hexadecimal digits, or the 36 characters of ECS's ids before 2018 (a UUID with dashes).
            fn from_str(text: &str) -> Result<Self, IdError> {
                let error = || IdError { kind: $kind, text: text.chars().take(64).collect() };
                let plain = match text.len() {
                    32 => parse_hex(text.as_bytes()),
                    36 if [8, 13, 18, 23].iter().all(|&at| text.as_bytes()[at] == b'-') => parse_hex(text.replace('-', "").as_bytes()),
                    _ => None,
                };
                plain.map($name).ok_or_else(error)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(HexDigits::of(self.0).as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(FromText { kind: $kind, parse: Self::from_str })
            }
        }
    };
}

hex_id!(
    /// A task's id: the last part of its ARN.
    TaskId,
    "task id"
);
hex_id!(
    /// A container instance's id: the last part of its ARN.
    ContainerInstanceId,
    "container instance id"
);
hex_id!(
    /// A container's id; ARNs show it as a UUID.
    ContainerId,
    "container id"
);

hex_id!(
    /// The id of what is attached to a task; ARNs show it as a UUID.
    AttachmentId,
    "attachment id"
);
hex_id!(
    /// A daemon revision's id: the last part of its ARN.
    DaemonRevisionId,
    "daemon revision id"
);
hex_id!(
    /// A daemon deployment's id: the last part of its ARN.
    DaemonDeploymentId,
    "daemon deployment id"
);

impl ContainerId {
    /// The form that container ARNs end with: a UUID with dashes.
    #[must_use]
    pub fn to_uuid(self) -> String {
        uuid(self.0)
    }
}

/// 128 bits as a UUID's text.
#[must_use]
pub fn uuid(bits: u128) -> String {
    let mut text = String::with_capacity(36);
    for (at, part) in HexDigits::of(bits).uuid_parts().into_iter().enumerate() {
        if at > 0 {
            text.push('-');
        }
        text.push_str(part);
    }
    text
}

/// A deployment's id: `ecs-svc/<19 digits>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeploymentId(pub u64);

impl DeploymentId {
    /// An id of 19 digits from random bits, as ECS's are.
    #[must_use]
    pub const fn from_random(bits: u64) -> Self {
        const FIRST: u64 = 1_000_000_000_000_000_000;
        Self(FIRST + bits % (9 * FIRST - 1))
    }
}

impl fmt::Display for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ecs-svc/{}", self.0)
    }
}

macro_rules! name {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(#[serde(deserialize_with = "crate::shared_text::deserialize")] pub Arc<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The name, if it keeps ECS's rule: 1 to 255 letters (upper and lower case), digits, `_` and `-`.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                let legal = (1..=255).contains(&text.len())
                    && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
                legal.then(|| Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }
    };
}

name!(
    /// A cluster's name, unique in an account and region.
    ClusterName
);
name!(
    /// A service's name, unique in its cluster.
    ServiceName
);
name!(
    /// A task definition's family.
    Family
);
name!(
    /// A gateway's name, unique in an account and region.
    GatewayName
);
name!(
    /// A capacity provider's name, unique in an account and region.
    CapacityProviderName
);
name!(
    /// A daemon's name, unique in its cluster.
    DaemonName
);

/// A revision of a task definition: `family:revision`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DefinitionId {
    /// The family.
    pub family: Family,
    /// The revision, from 1.
    pub revision: u32,
}

impl fmt::Display for DefinitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.family, self.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_thirty_two_digits_and_read_back() {
        let id = TaskId(0xab);
        assert_eq!(id.to_string(), "000000000000000000000000000000ab");
        assert_eq!(id.to_string().parse::<TaskId>(), Ok(id));
        assert_eq!(serde_json::from_str::<TaskId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
    }

    #[test]
    fn old_ids_with_dashes_are_accepted() {
        assert_eq!("00000000-0000-0000-0000-0000000000ab".parse::<TaskId>(), Ok(TaskId(0xab)));
    }

    #[test]
    fn other_text_is_no_id() {
        for text in ["", "ab", "+0000000000000000000000000000ab0", "zz000000000000000000000000000000", "ünïcode-0000-0000-0000-0000000000"]
        {
            assert!(text.parse::<TaskId>().is_err(), "{text}");
        }
    }

    #[test]
    fn each_digit_of_an_id_counts_and_each_must_be_one() {
        let digits = *b"0123456789abcdefFEDCBA9876543210";
        let read = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse::<TaskId>().ok();
        assert_eq!(read(&digits), Some(TaskId(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210)));
        for at in 0..digits.len() {
            for wrong in *b"/:@G`g \x7f" {
                let mut digits = digits;
                digits[at] = wrong;
                assert_eq!(read(&digits), None, "{wrong} at {at}");
            }
        }
        assert_eq!(read(&digits[1..]), None);
    }

    #[test]
    fn names_follow_ecs_rule() {
        assert!(ClusterName::parse("my-cluster_1").is_some());
        for text in ["", "a b", "a/b", "ä", &"x".repeat(256)] {
            assert!(ClusterName::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn deployment_ids_have_nineteen_digits() {
        for bits in [0, 1, u64::MAX, 8_999_999_999_999_999_999] {
            assert_eq!(DeploymentId::from_random(bits).0.to_string().len(), 19);
        }
    }
}
