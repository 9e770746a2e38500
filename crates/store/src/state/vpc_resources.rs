//! The resources of the VPC model in the state: what readers ask for, and whose address is whose.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use berth_model::record::Record;
use berth_model::vpc::{
    InternetGateway, InternetGatewayId, NetworkInterface, NetworkInterfaceId, Resource, ResourceId, RouteTable, RouteTableId,
    SecurityGroup, SecurityGroupId, Subnet, SubnetId, Taken, Vpc, VpcId,
};

use super::{Entry, State};
use crate::backend::Stored;
use crate::transaction::Revision;

/// VPCs and all that is in them.
#[derive(Debug, Default)]
pub struct VpcResources {
    vpcs: BTreeMap<VpcId, Entry<Vpc>>,
    subnets: BTreeMap<SubnetId, Entry<Subnet>>,
    groups: BTreeMap<SecurityGroupId, Entry<SecurityGroup>>,
    interfaces: BTreeMap<NetworkInterfaceId, Entry<NetworkInterface>>,
    route_tables: BTreeMap<RouteTableId, Entry<RouteTable>>,
    gateways: BTreeMap<InternetGatewayId, Entry<InternetGateway>>,
    addresses: BTreeMap<(SubnetId, Ipv4Addr), NetworkInterfaceId>,
    /// The same as runs, for who looks for a free one. A subnet without an interface is not here.
    taken: BTreeMap<SubnetId, Taken>,
    /// Addresses that stand for an interface outside.
    public_addresses: BTreeMap<Ipv4Addr, NetworkInterfaceId>,
}

impl State {
    /// The resources of the VPC model.
    #[must_use]
    pub fn vpc_resources(&self) -> &VpcResources {
        &self.vpc_resources
    }
}

impl VpcResources {
    /// All VPCs by id; a default VPC that somebody deleted is not among them.
    pub fn vpcs(&self) -> impl DoubleEndedIterator<Item = &Entry<Vpc>> {
        self.vpcs.values().filter(|vpc| !vpc.is_deleted)
    }

    /// A VPC, if nobody deleted it.
    #[must_use]
    pub fn vpc(&self, id: VpcId) -> Option<&Entry<Vpc>> {
        self.vpcs.get(&id).filter(|vpc| !vpc.is_deleted)
    }

    /// The default VPC, if nobody deleted it.
    #[must_use]
    pub fn default_vpc(&self) -> Option<&Entry<Vpc>> {
        self.vpcs().find(|vpc| vpc.is_default)
    }

    /// The record of the default VPC, which stays when somebody deletes it; none before the first start.
    #[must_use]
    pub fn default_vpc_record(&self) -> Option<&Entry<Vpc>> {
        self.vpcs.values().find(|vpc| vpc.is_default)
    }

    /// All subnets by id.
    pub fn subnets(&self) -> impl DoubleEndedIterator<Item = &Entry<Subnet>> {
        self.subnets.values()
    }

    /// A subnet.
    #[must_use]
    pub fn subnet(&self, id: SubnetId) -> Option<&Entry<Subnet>> {
        self.subnets.get(&id)
    }

    /// The subnets of a VPC by id.
    pub fn subnets_of(&self, vpc: VpcId) -> impl Iterator<Item = &Entry<Subnet>> {
        self.subnets().filter(move |subnet| subnet.vpc == vpc)
    }

    /// All security groups by id.
    pub fn groups(&self) -> impl DoubleEndedIterator<Item = &Entry<SecurityGroup>> {
        self.groups.values()
    }

    /// A security group.
    #[must_use]
    pub fn group(&self, id: SecurityGroupId) -> Option<&Entry<SecurityGroup>> {
        self.groups.get(&id)
    }

    /// The security groups of a VPC by id.
    pub fn groups_of(&self, vpc: VpcId) -> impl Iterator<Item = &Entry<SecurityGroup>> {
        self.groups().filter(move |group| group.vpc == vpc)
    }

    /// The group of a VPC that is an interface's where nobody names one.
    #[must_use]
    pub fn default_group(&self, vpc: VpcId) -> Option<&Entry<SecurityGroup>> {
        self.groups_of(vpc).find(|group| group.is_default())
    }

    /// All network interfaces by id.
    pub fn interfaces(&self) -> impl DoubleEndedIterator<Item = &Entry<NetworkInterface>> {
        self.interfaces.values()
    }

    /// How many network interfaces there are.
    #[must_use]
    pub fn interface_count(&self) -> usize {
        self.interfaces.len()
    }

    /// A network interface.
    #[must_use]
    pub fn interface(&self, id: NetworkInterfaceId) -> Option<&Entry<NetworkInterface>> {
        self.interfaces.get(&id)
    }

    /// The addresses of a subnet that interfaces have, ascending, each with its interface.
    pub fn addresses_of(&self, subnet: SubnetId) -> impl Iterator<Item = (Ipv4Addr, NetworkInterfaceId)> {
        let all = (subnet, Ipv4Addr::UNSPECIFIED)..=(subnet, Ipv4Addr::BROADCAST);
        self.addresses.range(all).map(|((_, address), interface)| (*address, *interface))
    }

    /// The addresses of a subnet that interfaces have.
    #[must_use]
    pub fn taken(&self, subnet: SubnetId) -> &Taken {
        static NONE: Taken = Taken::NONE;
        self.taken.get(&subnet).unwrap_or(&NONE)
    }

    /// Whose an address is; `None` if it is free.
    #[must_use]
    pub fn holder(&self, subnet: SubnetId, address: Ipv4Addr) -> Option<NetworkInterfaceId> {
        self.addresses.get(&(subnet, address)).copied()
    }

    /// Whom a public address stands for; `None` if it is free.
    #[must_use]
    pub fn public_holder(&self, address: Ipv4Addr) -> Option<NetworkInterfaceId> {
        self.public_addresses.get(&address).copied()
    }

    /// All route tables by id.
    pub fn route_tables(&self) -> impl DoubleEndedIterator<Item = &Entry<RouteTable>> {
        self.route_tables.values()
    }

    /// A route table.
    #[must_use]
    pub fn route_table(&self, id: RouteTableId) -> Option<&Entry<RouteTable>> {
        self.route_tables.get(&id)
    }

    /// All internet gateways by id.
    pub fn internet_gateways(&self) -> impl DoubleEndedIterator<Item = &Entry<InternetGateway>> {
        self.gateways.values()
    }

    /// An internet gateway.
    #[must_use]
    pub fn internet_gateway(&self, id: InternetGatewayId) -> Option<&Entry<InternetGateway>> {
        self.gateways.get(&id)
    }

    /// A resource of whichever kind, with the commit that changed it last.
    #[must_use]
    pub fn resource(&self, id: ResourceId) -> Option<(Resource, Revision)> {
        self.stored(id).map(|stored| (stored.0, stored.1.1))
    }

    fn stored(&self, id: ResourceId) -> Option<(Resource, (Revision, Revision, u64))> {
        fn of<T>(entry: Option<&Entry<T>>, resource: impl Fn(Arc<T>) -> Resource) -> Option<(Resource, (Revision, Revision, u64))> {
            entry.map(|entry| (resource(Arc::clone(&entry.value)), (entry.created, entry.modified, entry.version)))
        }
        match id {
            ResourceId::Vpc(id) => of(self.vpcs.get(&id), Resource::Vpc),
            ResourceId::Subnet(id) => of(self.subnets.get(&id), Resource::Subnet),
            ResourceId::SecurityGroup(id) => of(self.groups.get(&id), Resource::SecurityGroup),
            ResourceId::NetworkInterface(id) => of(self.interfaces.get(&id), Resource::NetworkInterface),
            ResourceId::RouteTable(id) => of(self.route_tables.get(&id), Resource::RouteTable),
            ResourceId::InternetGateway(id) => of(self.gateways.get(&id), Resource::InternetGateway),
        }
    }

    fn ids(&self) -> impl Iterator<Item = ResourceId> {
        let vpcs = self.vpcs.keys().copied().map(ResourceId::Vpc);
        let subnets = self.subnets.keys().copied().map(ResourceId::Subnet);
        let groups = self.groups.keys().copied().map(ResourceId::SecurityGroup);
        let interfaces = self.interfaces.keys().copied().map(ResourceId::NetworkInterface);
        let route_tables = self.route_tables.keys().copied().map(ResourceId::RouteTable);
        let gateways = self.gateways.keys().copied().map(ResourceId::InternetGateway);
        vpcs.chain(subnets).chain(groups).chain(interfaces).chain(route_tables).chain(gateways)
    }

    /// All resources, kind by kind.
    pub fn resources(&self) -> impl Iterator<Item = Resource> {
        self.ids().filter_map(|id| self.stored(id)).map(|(resource, _)| resource)
    }

    pub(super) fn records(&self) -> impl Iterator<Item = Stored> {
        self.ids().filter_map(|id| self.stored(id)).map(|(resource, (created, modified, version))| Stored {
            record: Record::VpcResource(resource),
            created,
            modified,
            version,
        })
    }

    pub(super) fn counters(&self, id: ResourceId) -> Option<(Revision, Revision, u64)> {
        self.stored(id).map(|(_, counters)| counters)
    }

    pub(super) fn holds(&self, resource: &Resource) -> bool {
        self.stored(resource.id()).is_some_and(|(there, _)| there == *resource)
    }

    pub(super) fn restore(&mut self, resource: Resource, created: Revision, modified: Revision, version: u64) {
        match resource {
            Resource::Vpc(value) => drop(self.vpcs.insert(value.id, Entry { value, created, modified, version })),
            Resource::Subnet(value) => drop(self.subnets.insert(value.id, Entry { value, created, modified, version })),
            Resource::SecurityGroup(value) => drop(self.groups.insert(value.id, Entry { value, created, modified, version })),
            Resource::NetworkInterface(value) => {
                self.forget_interface(value.id);
                self.addresses.insert((value.subnet, value.private_address), value.id);
                if let Some(public) = value.public_address {
                    self.public_addresses.insert(public, value.id);
                }
                self.taken.entry(value.subnet).or_default().insert(value.private_address);
                self.interfaces.insert(value.id, Entry { value, created, modified, version });
            }
            Resource::RouteTable(value) => drop(self.route_tables.insert(value.id, Entry { value, created, modified, version })),
            Resource::InternetGateway(value) => drop(self.gateways.insert(value.id, Entry { value, created, modified, version })),
        }
    }

    pub(super) fn touch(&mut self, id: ResourceId, modified: Revision, version: u64) {
        if let Some((resource, (created, ..))) = self.stored(id) {
            self.restore(resource, created, modified, version);
        }
    }

    pub(super) fn delete(&mut self, id: ResourceId) {
        match id {
            ResourceId::Vpc(id) => drop(self.vpcs.remove(&id)),
            ResourceId::Subnet(id) => drop(self.subnets.remove(&id)),
            ResourceId::SecurityGroup(id) => drop(self.groups.remove(&id)),
            ResourceId::NetworkInterface(id) => self.forget_interface(id),
            ResourceId::RouteTable(id) => drop(self.route_tables.remove(&id)),
            ResourceId::InternetGateway(id) => drop(self.gateways.remove(&id)),
        }
    }

    fn forget_interface(&mut self, id: NetworkInterfaceId) {
        let Some(interface) = self.interfaces.remove(&id) else { return };
        if let Some(public) = interface.public_address
            && self.public_addresses.get(&public) == Some(&id)
        {
            self.public_addresses.remove(&public);
        }
        let place = (interface.subnet, interface.private_address);
        if self.addresses.get(&place) == Some(&id) {
            self.addresses.remove(&place);
            if let Some(taken) = self.taken.get_mut(&interface.subnet) {
                taken.remove(interface.private_address);
                if taken.count() == 0 {
                    self.taken.remove(&interface.subnet);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use berth_model::arn::Scope;
    use berth_model::vpc::default_vpc::default_vpc;
    use berth_model::vpc::network_interface::MacAddress;
    use proptest::prelude::*;

    use super::*;

    fn resources() -> VpcResources {
        let mut state = VpcResources::default();
        for resource in default_vpc(&Scope { region: "us-east-1".into(), account: "000000000000".into() }) {
            state.restore(resource, Revision(1), Revision(1), 1);
        }
        state
    }

    fn interface(subnet: &Subnet, number: u8, host: u8) -> NetworkInterface {
        let id = NetworkInterfaceId::from_random(u128::from(number));
        let private_address = Ipv4Addr::from(u32::from(subnet.cidr.first()) + u32::from(host));
        NetworkInterface {
            id,
            vpc: subnet.vpc,
            subnet: subnet.id,
            private_address,
            mac_address: MacAddress::of(id, private_address),
            public_address: None,
            groups: Vec::new(),
            description: String::new(),
            interface_type: "interface".into(),
            requester: None,
            requester_managed: false,
            attachment: None,
            tags: Default::default(),
        }
    }

    #[test]
    fn a_public_address_stands_for_who_has_it_now() {
        let mut state = resources();
        let subnet = (*state.subnets().next().unwrap().value).clone();
        let public = Ipv4Addr::new(192, 0, 2, 10);
        let seen = |number, public_address| NetworkInterface { public_address, ..interface(&subnet, number, 10 + number) };
        state.restore(seen(1, Some(public)).into(), Revision(1), Revision(1), 1);
        assert_eq!(state.public_holder(public), Some(seen(1, None).id));
        state.restore(seen(1, None).into(), Revision(1), Revision(2), 2);
        assert_eq!(state.public_holder(public), None, "it was taken away");
        state.restore(seen(1, Some(public)).into(), Revision(1), Revision(3), 3);
        state.restore(seen(2, Some(public)).into(), Revision(4), Revision(4), 1);
        state.delete(ResourceId::NetworkInterface(seen(1, None).id));
        assert_eq!(state.public_holder(public), Some(seen(2, None).id), "who had it before does not take it along");
        state.delete(ResourceId::NetworkInterface(seen(2, None).id));
        assert_eq!(state.public_holder(public), None);
    }

    #[test]
    fn a_deleted_default_vpc_is_kept_and_not_shown() {
        let mut state = resources();
        let vpc = Vpc { is_deleted: true, ..(*state.default_vpc().unwrap().value).clone() };
        let id = vpc.id;
        state.restore(vpc.into(), Revision(1), Revision(2), 2);
        assert!(state.default_vpc().is_none() && state.vpc(id).is_none() && state.vpcs().next().is_none());
        assert!(state.default_vpc_record().is_some_and(|record| record.id == id));
    }

    #[test]
    fn a_resource_is_found_by_its_id_and_counted() {
        let mut state = resources();
        let all: Vec<Resource> = state.resources().collect();
        assert_eq!(all.len(), 7);
        for resource in all {
            assert!(state.holds(&resource));
            state.touch(resource.id(), Revision(5), 2);
            assert_eq!(state.counters(resource.id()), Some((Revision(1), Revision(5), 2)));
            state.delete(resource.id());
            assert_eq!(state.resource(resource.id()), None);
        }
        assert_eq!(state.records().count(), 0);
    }

    proptest! {
        #[test]
        fn addresses_are_those_of_the_interfaces_that_there_are(
            changes in prop::collection::vec((0..12_u8, 0..3_usize, prop::option::of(4..200_u8)), 0..60),
        ) {
            let mut state = resources();
            let subnets: Vec<Subnet> = state.subnets().map(|subnet| (*subnet.value).clone()).collect();
            for (number, subnet, host) in changes {
                match host {
                    Some(host) if state.holder(subnets[subnet].id, interface(&subnets[subnet], number, host).private_address).is_none() => {
                        state.restore(interface(&subnets[subnet], number, host).into(), Revision(1), Revision(1), 1);
                    }
                    Some(_) => {}
                    None => state.delete(ResourceId::NetworkInterface(NetworkInterfaceId::from_random(u128::from(number)))),
                }
            }
            let held: Vec<_> = subnets.iter().flat_map(|subnet| state.addresses_of(subnet.id).map(|(at, whose)| (subnet.id, at, whose))).collect();
            let mut expected: Vec<_> = state.interfaces().map(|one| (one.subnet, one.private_address, one.id)).collect();
            let mut held_sorted = held.clone();
            expected.sort();
            held_sorted.sort();
            prop_assert_eq!(held_sorted, expected);
            prop_assert_eq!(state.interface_count(), state.interfaces().count());
            for subnet in &subnets {
                let mut taken = Taken::NONE;
                prop_assert!(state.addresses_of(subnet.id).all(|(address, _)| taken.insert(address)));
                prop_assert_eq!(state.taken(subnet.id), &taken);
            }
        }
    }
}
