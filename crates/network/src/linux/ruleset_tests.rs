//! Rulesets for tables and interfaces, and what is between two of them.

use std::net::Ipv6Addr;

use super::*;
use crate::interface::{DEFAULT_MTU, MacAddress};
use crate::security_group::{KnownInterface, SecurityGroup};

fn interface(number: u8, groups: &[&str]) -> TaskInterface {
    TaskInterface {
        id: format!("eni-{number}"),
        address: Ipv4Addr::new(10, 0, 0, number),
        prefix: 24,
        ipv6: None,
        mac: MacAddress([2, 0, 0, 0, 0, number]),
        gateway: Ipv4Addr::new(10, 0, 0, 1),
        name_servers: Vec::new(),
        search_domains: Vec::new(),
        private_dns_name: String::new(),
        groups: groups.iter().map(ToString::to_string).collect(),
        mtu: DEFAULT_MTU,
        public_address: None,
    }
}

/// A web tier that a group of clients may call, and clients that may call everybody.
fn table() -> NetworkTable {
    let from = |id: &str| Rule { traffic: Traffic::Tcp(80, 80), peer: Peer::Group(id.into()) };
    let anywhere = Rule { traffic: Traffic::All, peer: Peer::Range(Cidr::ANY_V4) };
    let groups = [
        ("sg-web".to_owned(), SecurityGroup { ingress: vec![from("sg-client")], egress: Vec::new() }),
        ("sg-client".to_owned(), SecurityGroup { ingress: Vec::new(), egress: vec![anywhere] }),
    ];
    NetworkTable { groups: groups.into(), ..Default::default() }
}

fn elements<'a>(ruleset: &'a Ruleset, set: &str) -> Vec<&'a [u8]> {
    ruleset.sets[set].elements.keys().map(Vec::as_slice).collect()
}

#[test]
fn interfaces_of_the_same_groups_share_their_chains() {
    let (one, two, three) = (interface(5, &["sg-web"]), interface(6, &["sg-web"]), interface(7, &["sg-web", "sg-client"]));
    let ruleset = rules(&table(), [("t1", &one), ("t2", &two), ("t3", &three)]);
    let leads: Vec<_> = ruleset.sets[TO].elements.values().collect();
    let chain = |name: &str| Lead::Chain(name.to_owned());
    assert_eq!(leads, [&chain("all-in/sg-web"), &chain("all-in/sg-web"), &chain("all-in/sg-client/sg-web")]);
    assert_eq!(ruleset.chains["all-in/sg-client/sg-web"], [Line::Jump("in/sg-client".into()), Line::Jump("in/sg-web".into())]);
    assert_eq!(ruleset.chains["in/sg-client"], []);
    let by_set =
        |family| Line::Pass { traffic: Traffic::Tcp(80, 80), end: End::Source, peer: Match::Set(family, members(family, "sg-client")) };
    assert_eq!(ruleset.chains["in/sg-web"], [by_set(Family::V4), by_set(Family::V6)]);
    assert_eq!(elements(&ruleset, "members4/sg-client"), [[10, 0, 0, 7]]);
    assert!(!ruleset.sets.contains_key("members4/sg-web"), "no rule names it");
    assert_eq!(elements(&ruleset, INTERFACES), [[10, 0, 0, 5], [10, 0, 0, 6], [10, 0, 0, 7]]);
}

#[test]
fn members_are_those_of_all_machines_and_the_table_is_stronger() {
    let mut table = table();
    let known = |address: IpAddr, groups: &[&str]| KnownInterface {
        addresses: vec![address],
        groups: groups.iter().map(ToString::to_string).collect(),
        instance: None,
    };
    let far = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9);
    table.interfaces.insert("eni-9".into(), known(far.into(), &["sg-client"]));
    table.interfaces.insert("eni-5".into(), known(Ipv4Addr::new(10, 0, 0, 5).into(), &["sg-web"]));
    let ruleset = rules(&table, [("t1", &interface(5, &["sg-client"]))]);
    assert_eq!(elements(&ruleset, "members6/sg-client"), [far.octets()]);
    assert_eq!(elements(&ruleset, "members4/sg-client"), Vec::<&[u8]>::new(), "it came with the group, and was taken out of it");
    assert_eq!(ruleset.sets[FROM].elements.values().next(), Some(&Lead::Chain("all-out/sg-web".into())));
}

#[test]
fn a_group_that_nobody_told_of_passes_nothing() {
    let ruleset = rules(&NetworkTable::default(), [("t1", &interface(5, &["sg-new"]))]);
    assert_eq!((ruleset.chains["all-in/sg-new"].len(), ruleset.chains["all-out/sg-new"].len()), (0, 0));
    assert!(rules(&NetworkTable::default(), []).sets.values().all(|set| set.elements.is_empty()));
}

#[test]
fn what_an_interface_may_send_from_is_bound_to_its_link() {
    let own = TaskInterface { ipv6: Some(Ipv6Addr::LOCALHOST), name_servers: vec![Ipv4Addr::new(10, 0, 0, 2).into()], ..interface(5, &[]) };
    let ruleset = rules(&NetworkTable::default(), [("t1", &own)]);
    let mut key = padded("t1").to_vec();
    key.extend([10, 0, 0, 5, 2, 0, 0, 0, 0, 5, 0, 0]);
    assert_eq!(elements(&ruleset, OWNED_V4), [key.as_slice()]);
    assert_eq!(key.len() as u32, Kind::Owned(Family::V4).key().length);
    assert_eq!(elements(&ruleset, OWNED_V6)[0].len() as u32, Kind::Owned(Family::V6).key().length);
    assert_eq!(elements(&ruleset, RESOLVERS_V4)[0].len() as u32, Kind::LinkAddresses(Family::V4).key().length);
}

#[test]
fn names_of_many_groups_stay_short_and_differ() {
    let many = |last: &str| -> BTreeSet<String> { (0..15).map(|n| format!("sg-{n:017}")).chain([last.to_owned()]).collect() };
    let (one, two) = (many("sg-a"), many("sg-b"));
    let name = |groups: &BTreeSet<String>| profile(End::Source, &groups.iter().map(String::as_str).collect());
    assert!(name(&one).len() < 64 && name(&one) != name(&two));
}

#[test]
fn a_change_takes_the_one_into_the_other() {
    let (one, two) = (interface(5, &["sg-web"]), interface(6, &["sg-client"]));
    let before = rules(&table(), [("t1", &one)]);
    let after = rules(&table(), [("t1", &one), ("t2", &two)]);
    assert!(change(&before, &before, false).is_empty());
    let there = change(&before, &after, false);
    assert_eq!(there.new_chains, ["all-in/sg-client", "all-out/sg-client"]);
    assert_eq!((there.gone_chains.len(), there.gone_elements.len(), there.new_sets.len()), (0, 0, 0));
    let back = change(&after, &before, false);
    assert_eq!(back.gone_chains, there.new_chains);
    let count = |elements: &[(&str, Vec<&[u8]>)]| elements.iter().map(|(_, keys)| keys.len()).sum::<usize>();
    assert_eq!(count(&back.gone_elements), there.new_elements.iter().map(|(_, keys)| keys.len()).sum::<usize>());
    // What comes with one interface is the difference that it makes.
    let referring = table();
    let addition = interface_rules(&referring, &referenced(&referring), "t2", &two);
    assert_eq!(change(&before, &addition, true).new_elements, there.new_elements);
    let mut sum = before.clone();
    sum.extend(addition);
    assert_eq!(sum, after);
}

#[test]
fn a_moved_element_is_taken_out_first_and_a_gone_rule_empties_its_chain() {
    let one = interface(5, &["sg-web"]);
    let before = rules(&table(), [("t1", &one)]);
    let mut table = table();
    table.groups.get_mut("sg-web").expect("it is there").ingress.clear();
    table.interfaces.insert("eni-5".into(), KnownInterface { addresses: Vec::new(), groups: vec!["sg-client".into()], instance: None });
    let after = rules(&table, [("t1", &one)]);
    let change = change(&before, &after, false);
    let link = padded("t1");
    assert!(change.gone_elements.contains(&(FROM, vec![&link[..]])) && change.gone_elements.contains(&(TO, vec![&link[..]])));
    assert!(change.rewritten.contains(&("in/sg-web", &[])));
    assert_eq!(change.gone_sets, ["members4/sg-client", "members6/sg-client"]);
    assert_eq!(change.gone_chains, ["all-in/sg-web", "all-out/sg-web"]);
}
