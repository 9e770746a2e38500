//! A task's own network interface (`networkMode: awsvpc`): what is asked for, and what the task has. The interface itself is a record
//! of the VPC model's; what stands here stays with the task when that is gone.
//!
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-networking-awsvpc.html>

use core::net::Ipv4Addr;

use berth_shapes::ecs;
use serde::{Deserialize, Serialize};

use crate::ids::{AttachmentId, uuid};
use crate::vpc::network_interface::MacAddress;
use crate::vpc::{Ipv4Cidr, NetworkInterfaceId, SecurityGroupId, SubnetId};

/// Most subnets of a task or a service.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_AwsVpcConfiguration.html>
pub const MAX_SUBNETS: usize = 16;

/// `networkConfiguration.awsvpcConfiguration`: where tasks get their interfaces. All of it is of one VPC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwsvpcConfiguration {
    /// Its subnets, 1 to [`MAX_SUBNETS`].
    pub subnets: Vec<SubnetId>,
    /// Its security groups, at most five; none stands for the VPC's default group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub security_groups: Vec<SecurityGroupId>,
    /// `assignPublicIp`, which launch type FARGATE alone can ask for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub assign_public_ip: bool,
}

impl AwsvpcConfiguration {
    /// `networkConfiguration`, as ECS shows it.
    #[must_use]
    pub fn to_wire(&self) -> ecs::NetworkConfiguration {
        ecs::NetworkConfiguration {
            awsvpc_configuration: Some(ecs::AwsVpcConfiguration {
                subnets: Some(self.subnets.iter().map(ToString::to_string).collect()),
                security_groups: Some(self.security_groups.iter().map(ToString::to_string).collect()),
                assign_public_ip: Some(if self.assign_public_ip { "ENABLED" } else { "DISABLED" }.into()),
            }),
        }
    }
}

wire_enum!(
    /// How far a task's attachment is. It never goes back.
    /// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Attachment.html>
    AttachmentStatus {
        /// Its address is given; its container instance has not made it yet.
        Precreated = "PRECREATED",
        /// Its container instance has it.
        Attached = "ATTACHED",
        /// The task has stopped; its address is not free yet.
        Detaching = "DETACHING",
        /// Its address is free again.
        Deleted = "DELETED",
    }
);

/// The interface of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskInterface {
    /// The attachment's id.
    pub attachment: AttachmentId,
    /// How far it is.
    pub status: AttachmentStatus,
    /// The interface.
    pub interface: NetworkInterfaceId,
    /// Its subnet.
    pub subnet: SubnetId,
    /// The subnet's addresses, of which the second is the gateway's.
    pub subnet_cidr: Ipv4Cidr,
    /// Its address.
    pub private_address: Ipv4Addr,
    /// Its address on the link.
    pub mac_address: MacAddress,
    /// Its name, where its VPC gives names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_dns_name: Option<String>,
    /// The address of its machine's that stands for it outside, if it asked for one (`assignPublicIp`) and its machine has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_address: Option<Ipv4Addr>,
    /// The security groups that it began with.
    pub groups: Vec<SecurityGroupId>,
}

impl TaskInterface {
    /// Notes how far the attachment is, unless it is further.
    pub fn advance(&mut self, status: AttachmentStatus) {
        self.status = self.status.max(status);
    }

    /// `attachments[]` of DescribeTasks.
    #[must_use]
    pub fn to_wire(&self) -> ecs::Attachment {
        let pair = |name: &str, value: String| ecs::KeyValuePair { name: Some(name.to_owned()), value: Some(value) };
        let mut details = vec![
            pair("subnetId", self.subnet.to_string()),
            pair("networkInterfaceId", self.interface.to_string()),
            pair("macAddress", self.mac_address.to_string()),
        ];
        details.extend(self.private_dns_name.clone().map(|name| pair("privateDnsName", name)));
        details.push(pair("privateIPv4Address", self.private_address.to_string()));
        ecs::Attachment {
            id: Some(uuid(self.attachment.0)),
            r#type: Some("ElasticNetworkInterface".to_owned()),
            status: Some(self.status.to_string()),
            details: Some(details),
        }
    }
}

/// The private DNS name of an address: `ip-172-31-0-4.ec2.internal`, and elsewhere than in `us-east-1`
/// `ip-172-31-0-4.eu-west-1.compute.internal`.
/// <https://docs.aws.amazon.com/vpc/latest/userguide/vpc-dns.html#vpc-dns-hostnames>
#[must_use]
pub fn private_dns_name(region: &str, address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    match region {
        "us-east-1" => format!("ip-{a}-{b}-{c}-{d}.ec2.internal"),
        region => format!("ip-{a}-{b}-{c}-{d}.{region}.compute.internal"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attachment_never_goes_back() {
        let mut one = TaskInterface {
            attachment: AttachmentId(1),
            status: AttachmentStatus::Precreated,
            interface: NetworkInterfaceId::from_random(1),
            subnet: SubnetId::from_random(2),
            subnet_cidr: "10.0.0.0/24".parse().unwrap(),
            private_address: Ipv4Addr::new(10, 0, 0, 4),
            mac_address: MacAddress([2, 0, 10, 0, 0, 4]),
            private_dns_name: None,
            public_address: None,
            groups: Vec::new(),
        };
        for (told, status) in [
            (AttachmentStatus::Attached, "ATTACHED"),
            (AttachmentStatus::Precreated, "ATTACHED"),
            (AttachmentStatus::Deleted, "DELETED"),
            (AttachmentStatus::Detaching, "DELETED"),
        ] {
            one.advance(told);
            assert_eq!(one.to_wire().status.as_deref(), Some(status));
        }
        let details = one.to_wire().details.unwrap();
        let names: Vec<_> = details.iter().filter_map(|pair| pair.name.as_deref()).collect();
        assert_eq!(names, ["subnetId", "networkInterfaceId", "macAddress", "privateIPv4Address"], "no name, no member");
    }

    #[test]
    fn names_are_as_aws_makes_them() {
        let address = Ipv4Addr::new(172, 31, 0, 4);
        assert_eq!(private_dns_name("us-east-1", address), "ip-172-31-0-4.ec2.internal");
        assert_eq!(private_dns_name("eu-west-1", address), "ip-172-31-0-4.eu-west-1.compute.internal");
    }
}
