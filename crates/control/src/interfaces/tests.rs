//! Addresses in commits: never one twice, and free again once their task has stopped.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use berth_model::arn::Scope;
use berth_model::ids::{ClusterName, ContainerInstanceId, DefinitionId, Family};
use berth_model::public_addresses::PUBLIC_ADDRESSES;
use berth_model::record::Record;
use berth_model::task::{Task, TaskStatus};
use berth_model::time::UnixMillis;
use berth_model::vpc::default_vpc::default_vpc;
use berth_model::vpc::{Ipv4Cidr, Resource};
use berth_store::backend::Memory;
use berth_store::{CommitError, Store};
use proptest::prelude::*;

use super::*;
use crate::environment::{Clock, Entropy};

struct Still;

impl Clock for Still {
    fn now(&self) -> UnixMillis {
        UnixMillis(1)
    }
}

#[derive(Default)]
struct Counter(AtomicU64);

impl Entropy for Counter {
    fn bits(&self) -> u128 {
        u128::from(self.0.fetch_add(1, Ordering::Relaxed)) << 64 | u128::from(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

fn environment() -> Environment {
    let scope = Scope { region: "us-east-1".into(), account: "000000000000".into() };
    Environment { clock: Arc::new(Still), entropy: Arc::new(Counter::default()), scope }
}

/// The default VPC, of which one subnet is cut to the eleven addresses of a /28; and what asks for it.
async fn world(environment: &Environment) -> (Store, AwsvpcConfiguration) {
    let store = Store::open_inline(Memory).expect("a store in memory");
    let mut transaction = Transaction::new();
    let mut wanted = AwsvpcConfiguration { subnets: Vec::new(), security_groups: Vec::new(), assign_public_ip: false };
    for resource in default_vpc(&environment.scope) {
        match resource {
            Resource::Subnet(subnet) if wanted.subnets.is_empty() => {
                let cidr = Ipv4Cidr::containing(subnet.cidr.first(), 28).expect("a block");
                wanted.subnets.push(subnet.id);
                transaction.put(Subnet { cidr, ..(*subnet).clone() });
            }
            other => drop(transaction.put(Record::VpcResource(other))),
        }
    }
    store.commit(transaction).await.expect("it is taken");
    (store, wanted)
}

fn task(number: u128, interface: TaskInterface) -> Task {
    let definition = DefinitionId { family: Family::parse("web").expect("a family"), revision: 1 };
    let cluster = ClusterName::parse("c").expect("a name");
    let placed = Task::placed(TaskId(number), cluster, definition, "family:web".into(), ContainerInstanceId(1), UnixMillis(1));
    Task { interface: Some(Box::new(interface)), ..placed }
}

/// Starts so many tasks in one commit, which is made of the state as it is and not committed; and their addresses.
fn started(
    store: &Store,
    wanted: &AwsvpcConfiguration,
    from: u128,
    count: u128,
    environment: &Environment,
) -> (Transaction, Vec<Ipv4Addr>) {
    let state = store.state();
    let (mut interfaces, mut transaction) = (Interfaces::default(), Transaction::new());
    let mut addresses = Vec::new();
    for number in from..from + count {
        let Ok(interface) = interfaces.give(&state, wanted, (TaskId(number), false), None, &mut ZoneChoice::OfMachine, environment) else {
            break;
        };
        addresses.push(interface.private_address);
        transaction.put(task(number, interface));
    }
    interfaces.write(&state, &mut transaction);
    (transaction, addresses)
}

#[tokio::test]
async fn of_two_commits_that_give_one_address_one_conflicts_and_gives_another() {
    let environment = environment();
    let (store, wanted) = world(&environment).await;
    let (first, one) = started(&store, &wanted, 1, 2, &environment);
    let (second, other) = started(&store, &wanted, 11, 2, &environment);
    assert_eq!(one, other, "both see them free");
    store.commit(first).await.expect("it is taken");
    assert!(matches!(store.commit(second).await, Err(CommitError::Conflict(_))));
    let (again, other) = started(&store, &wanted, 11, 2, &environment);
    store.commit(again).await.expect("it is taken");
    let held: BTreeSet<_> = one.into_iter().chain(other).collect();
    assert_eq!(held.len(), 4);
    let known: BTreeSet<_> = store.state().vpc_resources().interfaces().map(|one| one.private_address).collect();
    assert_eq!(held, known);
}

#[tokio::test]
async fn a_subnet_gives_all_that_it_has_and_then_none_until_a_task_stops() {
    let environment = environment();
    let (store, wanted) = world(&environment).await;
    let (all, addresses) = started(&store, &wanted, 1, 20, &environment);
    assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), 11);
    store.commit(all).await.expect("it is taken");
    assert!(started(&store, &wanted, 30, 1, &environment).1.is_empty());
    assert_eq!(release::released(&store.state()).len(), 0, "all of them live");

    let mut stop = Transaction::new();
    let ended = Task { last_status: TaskStatus::Stopped, ..(*store.state().task(TaskId(5)).expect("it is there").value).clone() };
    stop.put(ended).delete(Key::Task(TaskId(7)));
    store.commit(stop).await.expect("it is taken");
    let mut back = Transaction::new();
    {
        let state = store.state();
        let found = release::released(&state);
        assert_eq!(found.len(), 2, "one stopped, one is not known any more");
        found.into_iter().for_each(|one| release::write(&state, one, &mut back));
    }
    store.commit(back).await.expect("it is taken");
    let kept = store.state().task(TaskId(5)).and_then(|task| task.interface.clone()).expect("what it had stays with it");
    assert_eq!((kept.status, kept.private_address), (AttachmentStatus::Deleted, addresses[4]));
    let (_, again) = started(&store, &wanted, 30, 3, &environment);
    assert_eq!(again.into_iter().collect::<BTreeSet<_>>(), [addresses[4], addresses[6]].into());
}

#[tokio::test]
async fn a_group_that_is_gone_gives_nothing() {
    let environment = environment();
    let (store, wanted) = world(&environment).await;
    let gone = AwsvpcConfiguration { security_groups: vec![SecurityGroupId::from_random(1)], ..wanted };
    assert!(started(&store, &gone, 1, 1, &environment).1.is_empty());
}

#[tokio::test]
async fn full_zones_are_left_out_while_another_has_room() {
    let environment = environment();
    let (store, mut wanted) = world(&environment).await;
    let (all, _) = started(&store, &wanted, 1, 11, &environment);
    store.commit(all).await.expect("it is taken");
    let other = store.state().vpc_resources().subnets().find(|subnet| !wanted.subnets.contains(&subnet.id)).map(|subnet| subnet.id);
    let shown = |wanted: &AwsvpcConfiguration| match zone_constraint(&store.state(), wanted, &Constraints::default()) {
        Some(Constraint::MemberOf(expression)) => expression.to_string(),
        other => panic!("{other:?}"),
    };
    let full = shown(&wanted);
    assert!(full.contains("us-east-1"), "a launch into it is refused with its own reason: {full}");
    wanted.subnets.extend(other);
    assert_ne!(shown(&wanted), full);
    wanted.subnets.remove(0);
    let alone = shown(&wanted);
    assert!(!alone.contains(full.split_once('[').map_or("", |(_, zone)| zone.split(']').next().unwrap_or_default())), "{alone}");
}

/// Two small subnets of one zone.
async fn small_world(environment: &Environment) -> (Store, AwsvpcConfiguration) {
    let (store, mut wanted) = world(environment).await;
    let first = (*store.state().vpc_resources().subnet(wanted.subnets[0]).expect("it is there").value).clone();
    let cidr = Ipv4Cidr::containing(Ipv4Addr::from(u32::from(first.cidr.first()) + 64), 28).expect("a block");
    let second = Subnet { id: SubnetId::from_random(77), cidr, ..first };
    wanted.subnets.push(second.id);
    let mut transaction = Transaction::new();
    transaction.put(second);
    store.commit(transaction).await.expect("it is taken");
    (store, wanted)
}

/// What is given, found by looking at every address of every subnet.
struct Naive {
    subnets: Vec<(SubnetId, Vec<Ipv4Addr>, Option<Ipv4Addr>)>,
    held: BTreeSet<Ipv4Addr>,
}

impl Naive {
    fn give(&mut self) -> Option<(SubnetId, Ipv4Addr)> {
        let held = &self.held;
        let free = |all: &[Ipv4Addr]| all.iter().filter(|address| !held.contains(address)).count();
        // The first of those that have the most.
        let (id, all, last) = self.subnets.iter_mut().rev().max_by_key(|(_, all, _)| free(all))?;
        let from = last.and_then(|last| all.iter().position(|one| *one == last)).map_or(0, |at| at + 1);
        let address = *all[from..].iter().chain(&all[..from]).find(|address| !held.contains(address))?;
        *last = Some(address);
        self.held.insert(address);
        Some((*id, address))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn addresses_are_those_that_looking_at_all_of_them_finds(
        steps in prop::collection::vec((0..16_u128, prop::collection::vec(any::<prop::sample::Index>(), 0..12)), 1..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let environment = environment();
            let (store, wanted) = small_world(&environment).await;
            let all = |id: SubnetId| {
                let usable = addresses::usable(store.state().vpc_resources().subnet(id).expect("it is there").cidr);
                (u32::from(*usable.start())..=u32::from(*usable.end())).map(Ipv4Addr::from).collect::<Vec<_>>()
            };
            let subnets = wanted.subnets.iter().map(|id| (*id, all(*id), None)).collect();
            let (mut naive, mut alive, mut number) = (Naive { subnets, held: BTreeSet::new() }, Vec::new(), 0);
            for (count, ended) in steps {
                let mut transaction = Transaction::new();
                {
                    let state = store.state();
                    let mut interfaces = Interfaces::default();
                    for _ in 0..count {
                        number += 1;
                        let given = interfaces.give(&state, &wanted, (TaskId(number), false), None, &mut ZoneChoice::OfMachine, &environment);
                        prop_assert_eq!(given.as_ref().ok().map(|one| (one.subnet, one.private_address)), naive.give());
                        if let Ok(interface) = given {
                            alive.push((TaskId(number), interface.private_address));
                            transaction.put(task(number, interface));
                        }
                    }
                    interfaces.write(&state, &mut transaction);
                }
                store.commit(transaction).await.expect("it is taken");

                let mut gone = Transaction::new();
                for which in ended {
                    if !alive.is_empty() {
                        let (id, address) = alive.swap_remove(which.index(alive.len()));
                        gone.delete(Key::Task(id));
                        naive.held.remove(&address);
                    }
                }
                store.commit(gone).await.expect("it is taken");
                let mut back = Transaction::new();
                {
                    let state = store.state();
                    release::released(&state).into_iter().for_each(|one| release::write(&state, one, &mut back));
                }
                store.commit(back).await.expect("it is taken");
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn fargate_tasks_go_to_the_zone_with_fewest_that_has_an_address() {
    let environment = environment();
    let (store, mut wanted) = world(&environment).await;
    let state = store.state();
    let by_zone: BTreeMap<_, _> = state.vpc_resources().subnets().map(|subnet| (subnet.zone.to_string(), subnet.id)).collect();
    let zones: Vec<_> = by_zone.keys().cloned().collect();
    wanted.subnets = by_zone.values().copied().collect();
    let zone_of = |interface: &TaskInterface| state.vpc_resources().subnet(interface.subnet).expect("its subnet").zone.to_string();
    let counts = [(Arc::from(zones[0].as_str()), 2), (Arc::from(zones[1].as_str()), 1)];
    let (mut interfaces, mut choice) = (Interfaces::default(), ZoneChoice::Fewest(counts.into_iter().collect()));
    let mut given = BTreeMap::<String, u32>::new();
    for number in 1..=6 {
        let interface = interfaces.give(&state, &wanted, (TaskId(number), false), None, &mut choice, &environment).expect("an address");
        *given.entry(zone_of(&interface)).or_default() += 1;
    }
    assert_eq!(zones.iter().map(|zone| given[zone]).collect::<Vec<_>>(), [1, 2, 3], "three in each by then");
    let mut only = ZoneChoice::Only(zones[1].clone());
    let interface = interfaces.give(&state, &wanted, (TaskId(7), false), None, &mut only, &environment).expect("an address");
    assert_eq!(zone_of(&interface), zones[1]);
    let mut nowhere = ZoneChoice::Only("us-east-1z".to_owned());
    assert_eq!(interfaces.give(&state, &wanted, (TaskId(8), false), None, &mut nowhere, &environment), Err(Rule::Interface));
}

#[tokio::test]
async fn a_machine_gives_each_of_its_public_addresses_once() {
    let environment = environment();
    let (store, wanted) = world(&environment).await;
    let of = |addresses: &str| ContainerInstance {
        attributes: [(PUBLIC_ADDRESSES.to_owned(), Some(addresses.to_owned()))].into(),
        ..super::table::tests::instance(1, 1)
    };
    let (machine, none) = (of("192.0.2.10-192.0.2.12"), super::table::tests::instance(2, 2));
    let give = |interfaces: &mut Interfaces, number, machine| {
        interfaces.give(&store.state(), &wanted, (TaskId(number), true), Some(machine), &mut ZoneChoice::OfMachine, &environment)
    };
    let mut transaction = Transaction::new();
    let mut interfaces = Interfaces::default();
    let public = |given: Result<TaskInterface, Rule>| given.map(|one| one.public_address.expect("it asked for one").octets()[3]);
    let first = give(&mut interfaces, 1, &machine).expect("an address");
    assert_eq!(first.public_address, Some(Ipv4Addr::new(192, 0, 2, 10)));
    interfaces.write(&store.state(), &mut transaction);
    transaction.put(task(1, first));
    store.commit(transaction).await.expect("it is taken");
    let mut interfaces = Interfaces::default();
    let given: Vec<_> = (2..6).map(|number| public(give(&mut interfaces, number, &machine))).collect();
    let exhausted = Rule::PublicAddresses { wanted: 1, free: 0 };
    assert_eq!(given, [Ok(11), Ok(12), Err(exhausted.clone()), Err(exhausted)]);
    assert_eq!(give(&mut interfaces, 7, &none).map(drop), Err(Rule::PublicAddresses { wanted: 1, free: 0 }), "a machine that has none");
    let asks_for_none =
        interfaces.give(&store.state(), &wanted, (TaskId(8), false), Some(&machine), &mut ZoneChoice::OfMachine, &environment);
    assert_eq!(asks_for_none.expect("a private one").public_address, None);
}
