//! Network interfaces come and go by a commit that keeps the model whole: no address is given twice, and no subnet and no security group
//! goes while an interface has it. Whoever makes interfaces does it through these two.

use berth_model::record::Key;
use berth_model::vpc::network_interface::InterfaceError;
use berth_model::vpc::{MAX_INTERFACES, NetworkInterface, NetworkInterfaceId, ResourceId, SecurityGroup, SecurityGroupId, SubnetId};

use super::{Entry, VpcResources};
use crate::transaction::Transaction;

/// Why an interface is not added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddInterfaceError {
    /// No such subnet.
    #[error("The subnet ID '{0}' does not exist")]
    NoSubnet(SubnetId),
    /// No such security group.
    #[error("The security group '{0}' does not exist")]
    NoGroup(SecurityGroupId),
    /// As many as an account may have.
    #[error("The maximum number of network interfaces has been reached.")]
    TooMany,
    /// The subnet has none for it, or not with these groups.
    #[error(transparent)]
    Refused(#[from] InterfaceError),
}

impl VpcResources {
    /// Adds a new interface to a transaction, with the next free address of the subnet, and gives it; without groups it gets the VPC's
    /// default one. One interface of a subnet in a transaction: its conditions are about the state as it is.
    ///
    /// `finish` sets what is the caller's to say, as attachment and requester.
    ///
    /// # Errors
    /// [`AddInterfaceError`]; then nothing is added.
    pub fn add_interface(
        &self,
        transaction: &mut Transaction,
        id: NetworkInterfaceId,
        subnet: SubnetId,
        groups: &[SecurityGroupId],
        description: &str,
        finish: impl FnOnce(&mut NetworkInterface),
    ) -> Result<NetworkInterface, AddInterfaceError> {
        if self.interface_count() >= MAX_INTERFACES {
            return Err(AddInterfaceError::TooMany);
        }
        let entry = self.subnet(subnet).ok_or(AddInterfaceError::NoSubnet(subnet))?;
        let named: Result<Vec<_>, _> = groups.iter().map(|id| self.group(*id).ok_or(AddInterfaceError::NoGroup(*id))).collect();
        let entries: Vec<&Entry<SecurityGroup>> = match named? {
            named if named.is_empty() => self.default_group(entry.vpc).into_iter().collect(),
            named => named,
        };
        let groups: Vec<&SecurityGroup> = entries.iter().map(|group| &*group.value).collect();
        let (mut interface, after) = NetworkInterface::plan(id, entry, &groups, description, self.taken(subnet))?;
        finish(&mut interface);
        transaction.expect(Key::VpcResource(ResourceId::Subnet(subnet)), entry.modified).put(after);
        for group in entries {
            let key = Key::VpcResource(ResourceId::SecurityGroup(group.id));
            transaction.expect(key.clone(), group.modified).touch(key);
        }
        transaction.expect_absent(Key::VpcResource(ResourceId::NetworkInterface(id))).put(interface.clone());
        Ok(interface)
    }

    /// Adds the end of an interface to a transaction: its address is free then. Nothing if there is none.
    pub fn remove_interface(&self, transaction: &mut Transaction, id: NetworkInterfaceId) {
        if let Some(interface) = self.interface(id) {
            let key = Key::VpcResource(ResourceId::NetworkInterface(id));
            transaction.expect(key.clone(), interface.modified).delete(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use berth_model::arn::Scope;
    use berth_model::record::Record;
    use berth_model::vpc::default_vpc::default_vpc;

    use super::*;
    use crate::{CommitError, Memory, Store};

    fn store() -> Store {
        let store = Store::open_inline(Memory).unwrap();
        let mut transaction = Transaction::new();
        for resource in default_vpc(&Scope { region: "us-east-1".into(), account: "000000000000".into() }) {
            transaction.put(Record::VpcResource(resource));
        }
        store.commit_blocking(transaction).unwrap();
        store
    }

    fn first_subnet(store: &Store) -> SubnetId {
        store.state().vpc_resources().subnets().next().unwrap().id
    }

    /// A transaction that makes the interface of this number.
    fn add(store: &Store, number: u128) -> Transaction {
        let (mut transaction, subnet) = (Transaction::new(), first_subnet(store));
        let state = store.state();
        let finish = |interface: &mut NetworkInterface| interface.requester_managed = true;
        let id = NetworkInterfaceId::from_random(number);
        let made = state.vpc_resources().add_interface(&mut transaction, id, subnet, &[], "attachment", finish).unwrap();
        assert!(made.requester_managed && made.groups.len() == 1);
        transaction
    }

    #[test]
    fn of_two_at_once_in_a_subnet_one_looks_again() {
        let store = store();
        let (one, other) = (add(&store, 1), add(&store, 2));
        store.commit_blocking(one).unwrap();
        assert!(matches!(store.commit_blocking(other), Err(CommitError::Conflict(_))));
        store.commit_blocking(add(&store, 2)).unwrap();
        let state = store.state();
        let addresses: Vec<_> = state.vpc_resources().addresses_of(first_subnet(&store)).map(|(address, _)| address.octets()[3]).collect();
        assert_eq!(addresses, [4, 5]);
    }

    #[test]
    fn what_an_interface_needs_is_not_deleted_beside_it() {
        let store = store();
        let deletions = {
            let state = store.state();
            let resources = state.vpc_resources();
            let subnet = resources.subnet(first_subnet(&store)).unwrap();
            let group = resources.default_group(subnet.vpc).unwrap();
            [
                (Key::VpcResource(ResourceId::Subnet(subnet.id)), subnet.modified),
                (Key::VpcResource(ResourceId::SecurityGroup(group.id)), group.modified),
            ]
        };
        let late = add(&store, 2);
        store.commit_blocking(add(&store, 1)).unwrap();
        for (key, modified) in deletions {
            let mut transaction = Transaction::new();
            transaction.expect(key.clone(), modified).delete(key);
            assert!(matches!(store.commit_blocking(transaction), Err(CommitError::Conflict(_))));
        }
        assert!(matches!(store.commit_blocking(late), Err(CommitError::Conflict(_))));
    }

    #[test]
    fn an_address_is_free_again_when_its_interface_is_gone() {
        let store = store();
        store.commit_blocking(add(&store, 1)).unwrap();
        let mut transaction = Transaction::new();
        store.state().vpc_resources().remove_interface(&mut transaction, NetworkInterfaceId::from_random(1));
        store.commit_blocking(transaction).unwrap();
        assert_eq!(store.state().vpc_resources().addresses_of(first_subnet(&store)).count(), 0);
        let mut nothing = Transaction::new();
        store.state().vpc_resources().remove_interface(&mut nothing, NetworkInterfaceId::from_random(1));
        assert!(nothing.is_empty());
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let store = store();
        let (subnet, state) = (first_subnet(&store), store.state());
        let refused = |subnet, groups: &[SecurityGroupId]| {
            let mut transaction = Transaction::new();
            let id = NetworkInterfaceId::from_random(1);
            let error = state.vpc_resources().add_interface(&mut transaction, id, subnet, groups, "", |_| {}).unwrap_err();
            assert!(transaction.is_empty() && transaction.expects.is_empty());
            error
        };
        let (nowhere, nobody) = (SubnetId::from_random(1), SecurityGroupId::from_random(1));
        assert_eq!(refused(nowhere, &[]), AddInterfaceError::NoSubnet(nowhere));
        assert_eq!(refused(subnet, &[nobody]), AddInterfaceError::NoGroup(nobody));
    }
}
