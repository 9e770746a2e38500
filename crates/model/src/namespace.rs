//! Cloud Map's namespaces, and the operations that its slow actions answer with.
//!
//! <https://docs.aws.amazon.com/cloud-map/latest/api/API_Namespace.html>

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::arn::Scope;
use crate::tags::Tags;
use crate::time::UnixMillis;

/// Most namespaces of an account in a region: AWS's quota.
/// <https://docs.aws.amazon.com/cloud-map/latest/dg/cloud-map-limits.html>
pub const MAX_NAMESPACES: usize = 50;
/// TTL of a hosted zone's SOA record where nobody says another, in seconds.
pub const DEFAULT_SOA_TTL_SECONDS: u32 = 15;

/// Lower-case letters and digits out of random bits, at most 24 of them: what Cloud Map's ids are made of.
#[must_use]
pub fn letters(mut bits: u128, count: usize) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut text = String::with_capacity(count);
    for _ in 0..count.min(24) {
        let digit = usize::try_from(bits % 36).unwrap_or_default();
        text.push(char::from(DIGITS[digit]));
        bits /= 36;
    }
    text
}

/// A number that stands for some texts, the same on every machine and in every version: FNV-1a of 128 bits. It guards nothing: whoever
/// finds two names with one id is told that the second is there already.
#[must_use]
pub(crate) fn digest(texts: &[&str]) -> u128 {
    let bytes = texts.iter().flat_map(|text| text.bytes().chain([0]));
    let hash = bytes.fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    });
    // The last bytes have hardly reached the upper half: both are mixed.
    hash ^ hash.rotate_right(64)
}

/// Declares an id of Cloud Map's: a prefix and 16 lower-case letters and digits.
macro_rules! cloud_map_id {
    ($(#[$meta:meta])* $name:ident, $prefix:literal) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(#[serde(deserialize_with = "crate::shared_text::deserialize")] std::sync::Arc<str>);

        impl $name {
            /// The id of these bits, of which it holds about 82.
            #[must_use]
            pub fn from_bits(bits: u128) -> Self {
                Self(format!(concat!($prefix, "{}"), crate::namespace::letters(bits, 16)).into())
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The id, if the text could be one: the prefix, then letters and digits, 64 characters at most.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                let rest = text.strip_prefix($prefix)?;
                let legal = !rest.is_empty()
                    && text.len() <= 64
                    && rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
                legal.then(|| Self(text.into()))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }
    };
}
pub(crate) use cloud_map_id;

cloud_map_id!(
    /// A namespace's id: `ns-` and 16 letters and digits.
    NamespaceId,
    "ns-"
);

impl NamespaceId {
    /// The id of the namespace of this name. As on AWS, one that is deleted and made again has the same; and since a record's key is its
    /// id, two calls that make the same namespace at once cannot both succeed. DNS does not tell upper from lower case.
    #[must_use]
    pub fn of(scope: &Scope, name: &str, has_dns: bool) -> Self {
        let name = if has_dns { name.to_ascii_lowercase() } else { name.to_owned() };
        Self::from_bits(digest(&[&scope.region, &scope.account, &name]))
    }
}

wire_enum!(
    /// How a namespace's instances are found: `NamespaceType`.
    NamespaceType {
        /// By API calls, and by DNS from everywhere.
        DnsPublic = "DNS_PUBLIC",
        /// By API calls, and by DNS within a VPC.
        DnsPrivate = "DNS_PRIVATE",
        /// By API calls.
        Http = "HTTP",
    }
);

/// What a DNS namespace has in place of Route 53's hosted zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostedZone {
    /// `HostedZoneId`. There is no Route 53 here; tools want to see one all the same.
    pub id: String,
    /// TTL of its SOA record, in seconds: how long a resolver may keep that a name is not there.
    pub soa_ttl_seconds: u32,
}

impl HostedZone {
    /// A zone's id from random bits, in the form of Route 53's.
    #[must_use]
    pub fn from_random(bits: u128, soa_ttl_seconds: u32) -> Self {
        Self { id: format!("Z{}", letters(bits, 20).to_ascii_uppercase()), soa_ttl_seconds }
    }
}

/// What a namespace's type brings with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum NamespaceKind {
    /// DNS within a VPC.
    #[serde(rename = "DNS_PRIVATE")]
    Private {
        /// The VPC's id.
        vpc: String,
        /// Its zone.
        zone: HostedZone,
    },
    /// DNS from everywhere.
    #[serde(rename = "DNS_PUBLIC")]
    Public {
        /// Its zone.
        zone: HostedZone,
    },
    /// No DNS.
    #[serde(rename = "HTTP")]
    Http,
}

/// A namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Its id.
    pub id: NamespaceId,
    /// Its name, unique in the account whatever its type: calls of DiscoverInstances and DNS questions know no more than that.
    pub name: String,
    /// Its type.
    pub kind: NamespaceKind,
    /// What its owner says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// `CreatorRequestId` of its creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creator_request_id: Option<String>,
    /// The operation that made it.
    pub operation: OperationId,
    /// Its tags.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    /// When it was created.
    pub created_at: UnixMillis,
}

impl Namespace {
    /// Its type as AWS says it.
    #[must_use]
    pub const fn namespace_type(&self) -> NamespaceType {
        match self.kind {
            NamespaceKind::Private { .. } => NamespaceType::DnsPrivate,
            NamespaceKind::Public { .. } => NamespaceType::DnsPublic,
            NamespaceKind::Http => NamespaceType::Http,
        }
    }

    /// Its zone; none without DNS.
    #[must_use]
    pub const fn zone(&self) -> Option<&HostedZone> {
        match &self.kind {
            NamespaceKind::Private { zone, .. } | NamespaceKind::Public { zone } => Some(zone),
            NamespaceKind::Http => None,
        }
    }
}

/// Is it a name that DNS can have: labels of 1 to 63 letters, digits, `-` and `_` with dots between, 253 characters at most?
#[must_use]
pub fn is_dns_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// An operation's id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OperationId(#[serde(deserialize_with = "crate::shared_text::deserialize")] Arc<str>);

impl OperationId {
    /// An id from two draws of random bits: 32 letters and digits, `-`, eight more.
    #[must_use]
    pub fn from_random(first: u128, second: u128) -> Self {
        let (first, second) = (letters(first, 20), letters(second, 20));
        Self(format!("{first}{}-{}", &second[..12], &second[12..]).into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id, if the text could be one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let legal =
            (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        legal.then(|| Self(text.into()))
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

wire_enum!(
    /// What an operation does.
    OperationType {
        /// Makes a namespace.
        CreateNamespace = "CREATE_NAMESPACE",
        /// Deletes one.
        DeleteNamespace = "DELETE_NAMESPACE",
        /// Changes one.
        UpdateNamespace = "UPDATE_NAMESPACE",
        /// Changes a service.
        UpdateService = "UPDATE_SERVICE",
        /// Registers an instance.
        RegisterInstance = "REGISTER_INSTANCE",
        /// Deregisters one.
        DeregisterInstance = "DEREGISTER_INSTANCE",
    }
);

wire_enum!(
    /// What an operation's target is.
    OperationTarget {
        /// A namespace.
        Namespace = "NAMESPACE",
        /// A service.
        Service = "SERVICE",
        /// An instance.
        Instance = "INSTANCE",
    }
);

/// How long an operation is shown, in milliseconds: Cloud Map's 30 days.
pub const KEEP_OPERATIONS_MILLIS: i64 = 30 * 24 * 60 * 60 * 1000;
/// Most operations that are kept; the oldest go first.
pub const MAX_OPERATIONS: usize = 10_000;

/// What an action did. It is written in the same commit as what it did, so it is never seen unfinished: on AWS Route 53 has to follow,
/// here nothing has to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// What it did.
    #[serde(rename = "type")]
    pub kind: OperationType,
    /// To what, by the ids of the targets.
    pub targets: Vec<(OperationTarget, String)>,
    /// When.
    pub created_at: UnixMillis,
}

impl Operation {
    /// The id of its target of this kind.
    #[must_use]
    pub fn target(&self, of: OperationTarget) -> Option<&str> {
        self.targets.iter().find(|(kind, _)| *kind == of).map(|(_, id)| id.as_str())
    }
}

impl Scope {
    fn cloud_map(&self, resource: impl fmt::Display) -> String {
        format!("arn:aws:servicediscovery:{}:{}:{resource}", self.region, self.account)
    }

    /// `arn:aws:servicediscovery:REGION:ACCOUNT:namespace/ns-ID`
    #[must_use]
    pub fn namespace(&self, id: &NamespaceId) -> String {
        self.cloud_map(format_args!("namespace/{id}"))
    }

    /// `arn:aws:servicediscovery:REGION:ACCOUNT:service/srv-ID`
    #[must_use]
    pub fn discovery_service(&self, id: &crate::discovery::DiscoveryServiceId) -> String {
        self.cloud_map(format_args!("service/{id}"))
    }

    /// What stands after `arn:aws:servicediscovery:REGION:ACCOUNT:` in an ARN of this account and region: `service/srv-ID`.
    #[must_use]
    pub fn strip_cloud_map<'a>(&self, arn: &'a str) -> Option<&'a str> {
        let rest = arn.strip_prefix("arn:aws:servicediscovery:")?.strip_prefix(&*self.region)?.strip_prefix(':')?;
        rest.strip_prefix(&*self.account)?.strip_prefix(':')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_form_of_cloud_maps() {
        for bits in [0, 1, u128::MAX, 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef] {
            let id = NamespaceId::from_bits(bits);
            assert_eq!((id.as_str().len(), NamespaceId::parse(id.as_str())), (19, Some(id)));
            let operation = OperationId::from_random(bits, !bits);
            assert_eq!((operation.as_str().len(), OperationId::parse(operation.as_str())), (41, Some(operation)));
        }
        assert_ne!(NamespaceId::from_bits(1), NamespaceId::from_bits(2));
        for text in ["", "ns-", "srv-abc", "ns-ABC", "ns-a/b"] {
            assert_eq!(NamespaceId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn names_that_dns_can_have() {
        for name in ["local", "a.b", "_http._tcp", "x1-y.example.com", &"a".repeat(63)] {
            assert!(is_dns_name(name), "{name}");
        }
        for name in ["", ".", "a.", ".a", "a..b", "a b", "ä", &"a".repeat(64), &vec!["a"; 128].join(".")] {
            assert!(!is_dns_name(name), "{name}");
        }
    }

    #[test]
    fn arns_are_of_this_account_and_region() {
        let scope = Scope { region: "eu-west-1".into(), account: "000000000000".into() };
        let id = NamespaceId::from_bits(7);
        let arn = scope.namespace(&id);
        assert_eq!(arn, format!("arn:aws:servicediscovery:eu-west-1:000000000000:namespace/{id}"));
        assert_eq!(scope.strip_cloud_map(&arn), Some(format!("namespace/{id}").as_str()));
        for other in [arn.replace("eu-west-1", "eu-west-10"), arn.replace("0000:", "0001:"), arn.replace("servicediscovery", "ecs")] {
            assert_eq!(scope.strip_cloud_map(&other), None, "{other}");
        }
    }
}
