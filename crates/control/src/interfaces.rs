//! Interfaces of tasks' own (`networkMode: awsvpc`): which address a task gets, in the commit that makes the task. What is chosen here
//! stands only once that commit does; nothing is remembered from one to the next.

mod release;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use berth_model::container_instance::ContainerInstance;
use berth_model::ids::{AttachmentId, TaskId};
use berth_model::record::Key;
use berth_model::task_interface::{AttachmentStatus, AwsvpcConfiguration, TaskInterface, private_dns_name};
use berth_model::vpc::network_interface::{AttachmentStatus as InterfaceStatus, InterfaceAttachment, MacAddress};
use berth_model::vpc::{
    MAX_INTERFACES, NetworkInterface, NetworkInterfaceId, ResourceId, SecurityGroupId, Subnet, SubnetId, VpcId, addresses,
};
use berth_scheduler::placement::{Constraint, Rule};
use berth_scheduler::service::rebalance::ZONE;
use berth_store::{Entry, State, Transaction};

use crate::constraints::Constraints;
use crate::environment::Environment;
use crate::fargate::ZoneChoice;

pub(crate) use release::run;
pub(crate) use table::{Table, Tables, Whole};

/// The first of a task's interfaces on its machine is the machine's own.
const DEVICE_INDEX: i32 = 1;

/// The interfaces that one commit gives.
#[derive(Default)]
pub(crate) struct Interfaces {
    /// Subnets that gave an address, with the one that they gave last.
    subnets: BTreeMap<SubnetId, Subnet>,
    given: BTreeMap<SubnetId, BTreeSet<Ipv4Addr>>,
    given_public: BTreeSet<Ipv4Addr>,
    made: Vec<NetworkInterface>,
    /// The default groups of VPCs that were asked for theirs.
    default_groups: BTreeMap<VpcId, Option<SecurityGroupId>>,
}

impl Interfaces {
    /// An interface for a task that was placed on this machine, with one of its public addresses if `wants_public`.
    ///
    /// # Errors
    /// [`Rule::Interface`] if no subnet in the zones of its choice has an address left, or none of its security groups is there any more;
    /// [`Rule::PublicAddresses`] if the machine has none left, which it may after a task has ended and before what it had is given back.
    pub(crate) fn give(
        &mut self,
        state: &State,
        wanted: &AwsvpcConfiguration,
        (task, wants_public): (TaskId, bool),
        instance: Option<&ContainerInstance>,
        zones: &mut ZoneChoice,
        environment: &Environment,
    ) -> Result<TaskInterface, Rule> {
        let resources = state.vpc_resources();
        if resources.interface_count() + self.made.len() >= MAX_INTERFACES {
            return Err(Rule::Interface);
        }
        let public_address = if wants_public { Some(self.public_address(state, instance)?) } else { None };
        let near = |subnet: &Subnet| zones.admits(subnet, instance);
        // The emptiest first, so that several subnets of a zone are filled evenly.
        let mut subnets: Vec<_> = wanted.subnets.iter().filter_map(|id| resources.subnet(*id)).filter(|subnet| near(subnet)).collect();
        let held = |id: SubnetId| {
            let new = self.given.get(&id).map_or(0, BTreeSet::len);
            resources.taken(id).count().saturating_add(u64::try_from(new).unwrap_or(u64::MAX))
        };
        subnets.sort_by_cached_key(|subnet| {
            (zones.rank(subnet), std::cmp::Reverse(addresses::capacity(subnet.cidr).saturating_sub(held(subnet.id))))
        });
        for known in subnets {
            let groups = self.groups(state, wanted, &known.value).ok_or(Rule::Interface)?;
            let subnet = self.subnets.entry(known.id).or_insert_with(|| (*known.value).clone());
            let given = self.given.entry(known.id).or_default();
            // The search goes round the subnet behind the address given last. If it comes to one that this commit gave, it has been all
            // the way round: whatever was free is given.
            let Some(address) = subnet.next_address(resources.taken(known.id)).filter(|address| given.insert(*address)) else { continue };
            subnet.last_address = Some(address);
            zones.given(known);
            // Machines that offer Fargate capacity are no instances of the account's.
            let shown = instance.filter(|_| matches!(zones, ZoneChoice::OfMachine));
            let mut one = made(state, known, address, groups, task, shown, environment);
            one.1.public_address = public_address;
            self.given_public.extend(public_address);
            let vpc = resources.vpc(known.vpc).filter(|vpc| vpc.enable_dns_support && vpc.enable_dns_hostnames);
            let interface = TaskInterface {
                attachment: one.0,
                status: AttachmentStatus::Precreated,
                interface: one.1.id,
                subnet: known.id,
                subnet_cidr: known.cidr,
                private_address: address,
                mac_address: one.1.mac_address,
                private_dns_name: vpc.map(|_| private_dns_name(&environment.scope.region, address)),
                public_address,
                groups: one.1.groups.clone(),
            };
            self.made.push(one.1);
            return Ok(interface);
        }
        Err(Rule::Interface)
    }

    /// An address of the machine's that stands for nobody. That no two commits give the same is what each commit's condition on the machine
    /// is for.
    fn public_address(&self, state: &State, instance: Option<&ContainerInstance>) -> Result<Ipv4Addr, Rule> {
        let is_taken = |address| self.given_public.contains(&address) || state.vpc_resources().public_holder(address).is_some();
        let pool = instance.and_then(ContainerInstance::public_addresses);
        pool.and_then(|pool| pool.first_free(is_taken)).ok_or(Rule::PublicAddresses { wanted: 1, free: 0 })
    }

    /// The security groups of an interface in this subnet; `None` if one is gone.
    fn groups(&mut self, state: &State, wanted: &AwsvpcConfiguration, subnet: &Subnet) -> Option<Vec<SecurityGroupId>> {
        let resources = state.vpc_resources();
        if wanted.security_groups.is_empty() {
            let found = || resources.default_group(subnet.vpc).map(|group| group.id);
            return self.default_groups.entry(subnet.vpc).or_insert_with(found).map(|group| vec![group]);
        }
        let is_there = wanted.security_groups.iter().all(|id| resources.group(*id).is_some_and(|group| group.vpc == subnet.vpc));
        is_there.then(|| wanted.security_groups.clone())
    }

    /// Adds what was given to the commit of the tasks. Of two commits that give addresses of one subnet only one gets through; a security
    /// group that is deleted at this moment sees the interface, or this sees the deletion.
    pub(crate) fn write(self, state: &State, transaction: &mut Transaction) {
        let resources = state.vpc_resources();
        let used: BTreeSet<SubnetId> = self.made.iter().map(|one| one.subnet).collect();
        // One that was asked and had none left is as it was.
        for subnet in self.subnets.into_values().filter(|subnet| used.contains(&subnet.id)) {
            if let Some(known) = resources.subnet(subnet.id) {
                transaction.expect(Key::VpcResource(ResourceId::Subnet(subnet.id)), known.modified);
                transaction.put(subnet);
            }
        }
        let groups: BTreeSet<SecurityGroupId> = self.made.iter().flat_map(|one| one.groups.iter().copied()).collect();
        for group in groups.into_iter().filter_map(|id| resources.group(id)) {
            transaction.expect(Key::VpcResource(ResourceId::SecurityGroup(group.id)), group.modified);
        }
        for one in self.made {
            transaction.expect_absent(Key::VpcResource(ResourceId::NetworkInterface(one.id)));
            transaction.put(one);
        }
    }
}

fn made(
    state: &State,
    subnet: &Subnet,
    address: Ipv4Addr,
    groups: Vec<SecurityGroupId>,
    task: TaskId,
    instance: Option<&ContainerInstance>,
    environment: &Environment,
) -> (AttachmentId, NetworkInterface) {
    debug_assert!(state.vpc_resources().holder(subnet.id, address).is_none(), "{address} is somebody's");
    let attachment = AttachmentId(environment.entropy.bits());
    let id = NetworkInterfaceId::from_random(environment.entropy.bits());
    let interface = NetworkInterface {
        id,
        vpc: subnet.vpc,
        subnet: subnet.id,
        private_address: address,
        mac_address: MacAddress::of(id, address),
        public_address: None,
        groups,
        description: environment.scope.attachment(attachment),
        interface_type: "interface".to_owned(),
        requester: Some(environment.scope.account.to_string()),
        requester_managed: true,
        attachment: Some(InterfaceAttachment {
            id: format!("eni-attach-{:017x}", environment.entropy.bits() >> 60),
            instance: instance.and_then(|instance| instance.ec2_instance_id.clone()).map(|id| id.to_string()),
            task: Some(task),
            device_index: DEVICE_INDEX,
            status: InterfaceStatus::Attached,
            attached_at: environment.now(),
            delete_on_termination: true,
        }),
        tags: Default::default(),
    };
    (attachment, interface)
}

/// What keeps tasks from such interfaces on whichever machine, in words: nothing that a machine could change.
pub(crate) fn obstacle(state: &State, wanted: &AwsvpcConfiguration) -> Option<String> {
    let resources = state.vpc_resources();
    let open: Vec<_> = open_subnets(state, wanted).collect();
    if open.is_empty() {
        let names: Vec<_> = wanted.subnets.iter().map(ToString::to_string).collect();
        return Some(format!("no subnet has an address left ({})", names.join(", ")));
    }
    if resources.interface_count() >= MAX_INTERFACES {
        return Some(format!("there are {MAX_INTERFACES} network interfaces, as many as there may be"));
    }
    let mut groups = Interfaces::default();
    let has_groups = open.iter().any(|subnet| groups.groups(state, wanted, &subnet.value).is_some());
    (!has_groups).then(|| "one of the security groups is not there any more".to_owned())
}

/// The subnets that have an address left.
fn open_subnets<'a>(state: &'a State, wanted: &'a AwsvpcConfiguration) -> impl Iterator<Item = &'a Entry<Subnet>> {
    let resources = state.vpc_resources();
    let subnets = wanted.subnets.iter().filter_map(move |id| resources.subnet(*id));
    subnets.filter(move |subnet| resources.taken(subnet.id).count() < addresses::capacity(subnet.cidr))
}

/// Where tasks with such interfaces may go: to container instances in the availability zones of the subnets, and to those that name none.
/// A zone whose subnets are full is left out while another has room. `None`: no subnet is there any more.
pub fn zone_constraint(state: &State, wanted: &AwsvpcConfiguration, known: &Constraints) -> Option<Constraint> {
    let resources = state.vpc_resources();
    let mut zones: BTreeSet<&str> = open_subnets(state, wanted).map(|subnet| &*subnet.zone).collect();
    if zones.is_empty() {
        zones = wanted.subnets.iter().filter_map(|id| resources.subnet(*id)).map(|subnet| &*subnet.zone).collect();
    }
    let zones: Vec<&str> = zones.into_iter().collect();
    if zones.is_empty() {
        return None;
    }
    let text = format!("attribute:{ZONE} in [{}] or attribute:{ZONE} !exists", zones.join(", "));
    known.expression(&text).ok().map(Constraint::MemberOf)
}

#[cfg(test)]
mod tests;
