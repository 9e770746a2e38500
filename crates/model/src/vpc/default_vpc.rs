//! New VPCs with all that belongs to them: the one that is there from the start, and those that `CreateVpc` makes.
//!
//! The default VPC's ids are derived from account and region and not random: servers that start at the same time over one store
//! make the same records, and it is the same VPC to whoever looks.
//! <https://docs.aws.amazon.com/vpc/latest/userguide/default-vpc-components.html>

use core::net::Ipv4Addr;

use super::cidr::Ipv4Cidr;
use super::ids::{InternetGatewayId, RouteTableId, SecurityGroupId, SecurityGroupRuleId, SubnetId, VpcId};
use super::security_group::{DEFAULT_GROUP, Direction, Peer, Permission, SecurityGroup, SecurityGroupRule, Traffic};
use super::{InternetGateway, Resource, Route, RouteTable, Subnet, Target, Vpc, zones};
use crate::arn::Scope;
use crate::tags::Tags;

/// The default VPC's block.
const BLOCK: (Ipv4Addr, u8) = (Ipv4Addr::new(172, 31, 0, 0), 16);
/// How many bits of an address say which of its subnets.
const SUBNET_PREFIX: u8 = 20;

/// The id of the default VPC.
#[must_use]
pub fn default_vpc_id(scope: &Scope) -> VpcId {
    VpcId::from_random(derived(scope, "vpc"))
}

/// The default VPC, three subnets of 4,096 addresses in the region's zones, the default security group, the main route table, an
/// internet gateway. The first is the VPC.
#[must_use]
pub fn default_vpc(scope: &Scope) -> Vec<Resource> {
    let vpc = default_vpc_id(scope);
    let gateway = InternetGatewayId::from_random(derived(scope, "internet-gateway"));
    let cidr = Ipv4Cidr::containing(BLOCK.0, BLOCK.1).unwrap_or(Ipv4Cidr::ANYWHERE);
    let mut parts: Vec<Resource> = vec![
        Vpc { id: vpc, cidr, is_default: true, enable_dns_support: true, enable_dns_hostnames: true, is_deleted: false, tags: Tags::new() }
            .into(),
    ];
    for (zone, nth) in zones::of_region(&scope.region).into_iter().zip(0_u32..) {
        let first = Ipv4Addr::from(u32::from(BLOCK.0) + (nth << (32 - SUBNET_PREFIX)));
        let subnet = Subnet {
            id: SubnetId::from_random(derived(scope, &format!("subnet {nth}"))),
            vpc,
            zone: zone.into(),
            cidr: Ipv4Cidr::containing(first, SUBNET_PREFIX).unwrap_or(cidr),
            is_default: true,
            map_public_ip_on_launch: true,
            last_address: None,
            tags: Tags::new(),
        };
        parts.push(subnet.into());
    }
    let bits = |what: &str| derived(scope, what);
    parts.push(default_group(vpc, bits("security-group"), [bits("ingress rule"), bits("egress rule")]).into());
    let mut table = main_route_table(vpc, cidr, bits("route-table"));
    table.routes.push(Route { destination: Ipv4Cidr::ANYWHERE, target: Target::InternetGateway(gateway) });
    parts.push(table.into());
    parts.push(InternetGateway { id: gateway, vpc, tags: Tags::new() }.into());
    parts
}

/// The group that a VPC has from the start: whoever has it may be talked to by whoever has it, and may talk to everybody. `bits` are
/// the group's, and those of its two rules.
#[must_use]
pub fn default_group(vpc: VpcId, bits: u128, rules: [u128; 2]) -> SecurityGroup {
    let id = SecurityGroupId::from_random(bits);
    let own = Permission { direction: Direction::Ingress, traffic: Traffic::ALL, peer: Peer::Group(id) };
    let rule = SecurityGroupRule { id: SecurityGroupRuleId::from_random(rules[0]), permission: own, description: None, tags: Tags::new() };
    SecurityGroup {
        id,
        vpc,
        name: DEFAULT_GROUP.to_owned(),
        description: "default VPC security group".to_owned(),
        rules: vec![rule, egress_to_everybody(rules[1])],
        tags: Tags::new(),
    }
}

/// The rule that every new group has.
#[must_use]
pub fn egress_to_everybody(bits: u128) -> SecurityGroupRule {
    let permission = Permission { direction: Direction::Egress, traffic: Traffic::ALL, peer: Peer::Ipv4(Ipv4Cidr::ANYWHERE) };
    SecurityGroupRule { id: SecurityGroupRuleId::from_random(bits), permission, description: None, tags: Tags::new() }
}

/// The route table that a VPC has from the start: to itself.
#[must_use]
pub fn main_route_table(vpc: VpcId, cidr: Ipv4Cidr, bits: u128) -> RouteTable {
    let local = Route { destination: cidr, target: Target::Local };
    RouteTable { id: RouteTableId::from_random(bits), vpc, routes: vec![local], tags: Tags::new() }
}

/// Bits that are the same for everybody of this account and region: FNV-1a with 128 bits, of which ids take the lowest 68.
fn derived(scope: &Scope, what: &str) -> u128 {
    fnv(&format!("{}\n{}\n{what}", scope.account, scope.region))
}

fn fnv(text: &str) -> u128 {
    const PRIME: u128 = (1 << 88) + 0x13b;
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    text.bytes().fold(BASIS, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::vpc::{addresses, is_legal_size};

    fn scope(region: &str, account: &str) -> Scope {
        Scope { region: region.into(), account: account.into() }
    }

    #[test]
    fn everybody_makes_the_same_and_other_places_another() {
        let here = default_vpc(&scope("us-east-1", "000000000000"));
        assert_eq!(here, default_vpc(&scope("us-east-1", "000000000000")));
        let ids = |parts: &[Resource]| parts.iter().map(Resource::id).collect::<BTreeSet<_>>();
        assert_eq!(ids(&here).len(), here.len());
        for elsewhere in [scope("us-east-2", "000000000000"), scope("us-east-1", "000000000001")] {
            assert!(ids(&default_vpc(&elsewhere)).is_disjoint(&ids(&here)));
        }
    }

    #[test]
    fn it_is_as_aws_makes_it() {
        let parts = default_vpc(&scope("eu-west-1", "000000000000"));
        let Resource::Vpc(vpc) = &parts[0] else { panic!("the first is the VPC") };
        assert_eq!((vpc.cidr.to_string(), vpc.id), ("172.31.0.0/16".into(), default_vpc_id(&scope("eu-west-1", "000000000000"))));
        let subnets: Vec<&Subnet> =
            parts.iter().filter_map(|part| if let Resource::Subnet(one) = part { Some(&**one) } else { None }).collect();
        let shown: Vec<_> = subnets.iter().map(|subnet| (&*subnet.zone, subnet.cidr.to_string())).collect();
        let expected = [("eu-west-1a", "172.31.0.0/20"), ("eu-west-1b", "172.31.16.0/20"), ("eu-west-1c", "172.31.32.0/20")];
        assert_eq!(shown, expected.map(|(zone, cidr)| (zone, cidr.to_owned())));
        assert!(subnets.iter().all(|one| vpc.cidr.covers(one.cidr) && is_legal_size(one.cidr) && addresses::capacity(one.cidr) == 4_091));
        let group = parts.iter().find_map(|part| if let Resource::SecurityGroup(one) = part { Some(one) } else { None }).unwrap();
        assert!(group.is_default() && group.refers_to(group.id) && group.rules_of(Direction::Egress).count() == 1);
        let table = parts.iter().find_map(|part| if let Resource::RouteTable(one) = part { Some(one) } else { None }).unwrap();
        assert_eq!(table.routes.len(), 2);
    }

    #[test]
    fn the_hash_is_fnv() {
        // Of its authors' test vectors. A hash that changed would make a second default VPC in every store.
        assert_eq!(fnv("a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
        assert_eq!(default_vpc_id(&scope("us-east-1", "000000000000")).to_string(), "vpc-4612c44ac82bc7856");
    }
}
