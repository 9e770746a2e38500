//! Cloud Map's services and their instances: what is found under a name, and whether it is healthy.
//!
//! <https://docs.aws.amazon.com/cloud-map/latest/api/API_Service.html>,
//! <https://docs.aws.amazon.com/cloud-map/latest/api/API_RegisterInstance.html>

use core::net::{Ipv4Addr, Ipv6Addr};
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::dns::Routing;
use crate::ids::{ClusterName, ServiceName, TaskId};
use crate::namespace::{NamespaceId, OperationId, cloud_map_id, digest};
use crate::tags::Tags;
use crate::time::UnixMillis;

/// Most instances of a service: AWS's quota.
/// <https://docs.aws.amazon.com/cloud-map/latest/dg/cloud-map-limits.html>
pub const MAX_INSTANCES: usize = 1_000;
/// Most attributes of an instance, and of a service.
pub const MAX_ATTRIBUTES: usize = 30;
/// Most characters of all names and values of an instance's attributes together.
pub const MAX_ATTRIBUTES_LENGTH: usize = 5_000;

/// An instance's IPv4 address.
pub const IPV4: &str = "AWS_INSTANCE_IPV4";
/// An instance's IPv6 address.
pub const IPV6: &str = "AWS_INSTANCE_IPV6";
/// An instance's port.
pub const PORT: &str = "AWS_INSTANCE_PORT";
/// The name that an instance stands for.
pub const CNAME: &str = "AWS_INSTANCE_CNAME";
/// The custom health that an instance begins with.
pub const INIT_HEALTH: &str = "AWS_INIT_HEALTH_STATUS";

cloud_map_id!(
    /// A Cloud Map service's id: `srv-` and 16 letters and digits.
    DiscoveryServiceId,
    "srv-"
);

impl DiscoveryServiceId {
    /// The id of the service of this name, as [`NamespaceId::of`]. DNS does not tell upper from lower case, so where there is DNS two such
    /// names are one.
    #[must_use]
    pub fn of(namespace: &NamespaceId, name: &str, has_dns: bool) -> Self {
        let name = if has_dns { name.to_ascii_lowercase() } else { name.to_owned() };
        Self::from_bits(digest(&[namespace.as_str(), &name]))
    }
}

wire_enum!(
    /// A DNS record's type.
    RecordType {
        /// A name's machine and port.
        Srv = "SRV",
        /// An IPv4 address.
        A = "A",
        /// An IPv6 address.
        Aaaa = "AAAA",
        /// Another name.
        Cname = "CNAME",
    }
);

wire_enum!(
    /// What is said of an instance's health.
    CustomHealth {
        /// It is well.
        Healthy = "HEALTHY",
        /// It is not.
        Unhealthy = "UNHEALTHY",
    }
);

/// A record that each instance gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordSetting {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: RecordType,
    /// How long resolvers may keep it, in seconds.
    pub ttl_seconds: u32,
}

/// A service's `DnsConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsSettings {
    /// How many answers one question gets.
    pub routing: Routing,
    /// The records of each instance, no type twice.
    pub records: Vec<RecordSetting>,
}

impl DnsSettings {
    /// Have instances a record of this type?
    #[must_use]
    pub fn has(&self, kind: RecordType) -> bool {
        self.records.iter().any(|record| record.kind == kind)
    }
}

/// A Cloud Map service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscoveryService {
    /// Its id.
    pub id: DiscoveryServiceId,
    /// Its name, unique in its namespace.
    pub name: String,
    /// Its namespace.
    pub namespace: NamespaceId,
    /// What its owner says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its DNS records; without them it is found by API calls only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsSettings>,
    /// `HealthCheckCustomConfig`: somebody says how each instance is.
    #[serde(default)]
    pub has_custom_health: bool,
    /// The attributes of the service itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// `CreatorRequestId` of its creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creator_request_id: Option<String>,
    /// Its tags.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    /// When it was created.
    pub created_at: UnixMillis,
}

/// The ECS task that an instance stands for; it comes and goes with the task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceOwner {
    /// Its cluster.
    pub cluster: ClusterName,
    /// The ECS service that the task belongs to.
    pub service: ServiceName,
    /// The task.
    pub task: TaskId,
}

/// An instance of a Cloud Map service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscoveryInstance {
    /// Its id, unique in its service.
    pub id: String,
    /// Its service.
    pub service: DiscoveryServiceId,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
    /// Its health; none where its service has no custom health.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<CustomHealth>,
    /// The task that it stands for; none where somebody registered it by RegisterInstance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<InstanceOwner>,
    /// `CreatorRequestId` of its last registration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creator_request_id: Option<String>,
    /// The operation that registered it last; ECS's registrations have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationId>,
    /// When it was registered first.
    pub created_at: UnixMillis,
}

impl DiscoveryInstance {
    fn parsed<T: std::str::FromStr>(&self, attribute: &str) -> Option<T> {
        self.attributes.get(attribute)?.parse().ok()
    }

    /// Its IPv4 address.
    #[must_use]
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        self.parsed(IPV4)
    }

    /// Its IPv6 address.
    #[must_use]
    pub fn ipv6(&self) -> Option<Ipv6Addr> {
        self.parsed(IPV6)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.parsed(PORT)
    }

    /// The name that it stands for.
    #[must_use]
    pub fn cname(&self) -> Option<&str> {
        self.attributes.get(CNAME).map(String::as_str)
    }

    /// Nobody says that it is not well.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.health != Some(CustomHealth::Unhealthy)
    }
}

/// Is it a name that a service may have: labels of letters, digits, `_` and inner `-`, with dots between, 127 characters at most; or one dot?
/// (The model's pattern looks ahead, which ours do not.)
#[must_use]
pub fn is_service_name(name: &str) -> bool {
    let is_end = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_label = |label: &str| match label.as_bytes() {
        [] => false,
        [one] => one.is_ascii_alphanumeric(),
        [first, inner @ .., last] => {
            label.len() <= 63 && is_end(*first) && is_end(*last) && inner.iter().all(|byte| is_end(*byte) || *byte == b'-')
        }
    };
    name == "." || name.len() <= 127 && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_names_follow_the_models_pattern() {
        for name in ["a", "api", "_http._tcp", "a-b", "a.b.c", ".", &"a".repeat(63), "_x_"] {
            assert!(is_service_name(name), "{name}");
        }
        for name in ["", "-a", "a-", "_", "a..b", "a.", "a b", "ä", &"a".repeat(64), &vec!["ab"; 43].join(".")] {
            assert!(!is_service_name(name), "{name}");
        }
    }

    #[test]
    fn a_name_has_one_id_and_others_have_others() {
        let (one, other) = (NamespaceId::from_bits(1), NamespaceId::from_bits(2));
        let id = DiscoveryServiceId::of(&one, "api", true);
        assert_eq!(id, DiscoveryServiceId::of(&one, "API", true));
        let mut ids = vec![id, DiscoveryServiceId::of(&one, "API", false), DiscoveryServiceId::of(&other, "api", true)];
        ids.extend((0..1_000).map(|number| DiscoveryServiceId::of(&one, &format!("s{number}"), true)));
        let count = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }

    #[test]
    fn an_instances_attributes_are_read_where_they_are_what_they_should_be() {
        let attributes = [(IPV4, "10.0.0.7"), (IPV6, "::1"), (PORT, "80"), (CNAME, "b.c")];
        let mut instance = DiscoveryInstance {
            id: "i-1".to_owned(),
            service: DiscoveryServiceId::from_bits(1),
            attributes: attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            health: None,
            owner: None,
            creator_request_id: None,
            operation: None,
            created_at: UnixMillis(0),
        };
        assert_eq!((instance.ipv4(), instance.port()), (Some(Ipv4Addr::new(10, 0, 0, 7)), Some(80)));
        assert_eq!((instance.ipv6(), instance.cname()), (Some(Ipv6Addr::LOCALHOST), Some("b.c")));
        instance.attributes.insert(PORT.to_owned(), "65536".to_owned());
        assert_eq!(instance.port(), None);
        assert!(instance.is_healthy());
        instance.health = Some(CustomHealth::Unhealthy);
        assert!(!instance.is_healthy());
    }
}
