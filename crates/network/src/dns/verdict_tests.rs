//! Requests and what comes of them, and that no bytes do harm.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::op::Query;
use proptest::prelude::*;

use super::super::table::{Answer, Record, Zone};
use super::*;

fn record(name: &str, routing: Routing, answers: Vec<Answer>) -> Record {
    Record { name: name.to_owned(), ttl_seconds: 10, routing, answers }
}

fn srv(target: &str) -> Answer {
    Answer::Srv { priority: 1, weight: 1, port: 8080, target: target.to_owned() }
}

fn address(last: u8) -> Answer {
    Answer::A(Ipv4Addr::new(10, 0, 0, last))
}

fn table() -> Table {
    let many: Vec<Answer> = (1..=20).map(address).collect();
    let machines: Vec<Answer> = (1..=20).map(|number| srv(&format!("machine-with-a-rather-long-name-{number}.srv.ns.local"))).collect();
    let mut records = vec![
        record("one", Routing::Multivalue, vec![address(1)]),
        record("two", Routing::Multivalue, vec![address(1), address(2), Answer::Aaaa(Ipv6Addr::LOCALHOST)]),
        record("many", Routing::Multivalue, many.clone()),
        record("weighted", Routing::Weighted, many),
        record("srv", Routing::Multivalue, machines),
        record("_http._tcp.deep", Routing::Multivalue, vec![srv("one.ns.local")]),
        record("alias", Routing::Weighted, vec![Answer::Cname("two.ns.local".into())]),
        record("to-nothing", Routing::Weighted, vec![Answer::Cname("gone.ns.local".into())]),
        record("out", Routing::Weighted, vec![Answer::Cname("www.example.com".into())]),
        record("ring", Routing::Weighted, vec![Answer::Cname("ring.ns.local".into())]),
    ];
    for number in 1..=20 {
        let name = format!("machine-with-a-rather-long-name-{number}.srv");
        records.push(record(&name, Routing::Multivalue, vec![address(number)]));
    }
    let below = Zone { name: "sub.ns.local".into(), records: vec![record("x", Routing::Multivalue, vec![address(9)])] };
    let (table, problems) =
        Table::new(7, &[Zone { name: "a.between.ns.local".into(), records: vec![] }, Zone { name: "ns.local".into(), records }, below]);
    assert_eq!(problems, [""; 0]);
    table
}

fn request(name: &str, kind: RecordType, payload: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(0x4242, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let mut name = Name::from_labels(name.split('.').map(str::as_bytes)).unwrap();
    name.set_fqdn(true);
    message.add_query(Query::query(name, kind));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

fn answer_to(bytes: &[u8], transport: Transport) -> Message {
    match verdict(&table(), bytes, transport, &mut Random::seeded(1)) {
        Verdict::Answer(answer) => Message::from_vec(&answer).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn ask(name: &str, kind: RecordType) -> Message {
    answer_to(&request(name, kind, Some(1232)), Transport::Udp)
}

fn code(message: &Message) -> ResponseCode {
    message.metadata.response_code
}

#[test]
fn a_name_in_any_case_comes_back_in_that_case() {
    let answer = ask("OnE.nS.LocaL", RecordType::A);
    assert_eq!((code(&answer), answer.metadata.id), (ResponseCode::NoError, 0x4242));
    assert!(answer.metadata.authoritative && answer.metadata.recursion_available && answer.metadata.recursion_desired);
    assert_eq!(answer.queries[0].name().to_ascii(), "OnE.nS.LocaL.");
    assert_eq!(answer.answers.len(), 1);
    assert_eq!(answer.answers[0].name.to_ascii(), "OnE.nS.LocaL.");
    assert_eq!((answer.answers[0].ttl, &answer.answers[0].data), (10, &RData::A("10.0.0.1".parse().unwrap())));
}

#[test]
fn what_is_not_there_and_what_has_no_such_answer() {
    for (name, kind, expected) in [
        ("gone.ns.local", RecordType::A, ResponseCode::NXDomain),
        ("gone.sub.ns.local", RecordType::A, ResponseCode::NXDomain),
        ("one.ns.local", RecordType::AAAA, ResponseCode::NoError),
        ("ns.local", RecordType::A, ResponseCode::NoError),
        ("deep.ns.local", RecordType::A, ResponseCode::NoError),
        ("_tcp.deep.ns.local", RecordType::SRV, ResponseCode::NoError),
        ("between.ns.local", RecordType::A, ResponseCode::NoError),
        ("to-nothing.ns.local", RecordType::A, ResponseCode::NXDomain),
    ] {
        let answer = ask(name, kind);
        assert_eq!(code(&answer), expected, "{name}");
        assert_eq!(answer.authorities.len(), 1, "{name}");
        let RData::SOA(soa) = &answer.authorities[0].data else { panic!("{name}") };
        assert_eq!((answer.authorities[0].ttl, soa.minimum, soa.serial), (NEGATIVE_TTL, NEGATIVE_TTL, 7), "{name}");
    }
    assert_eq!(ask("gone.sub.ns.local", RecordType::A).authorities[0].name.to_ascii(), "sub.ns.local.");
    assert_eq!(ask("to-nothing.ns.local", RecordType::A).answers.len(), 1);
    assert_eq!(ask("ns.local", RecordType::SOA).answers.len(), 1);
}

#[test]
fn names_of_others_are_forwarded_and_ours_never() {
    let table = table();
    let forwarded = |name: &str| {
        let bytes = request(name, RecordType::A, None);
        matches!(verdict(&table, &bytes, Transport::Udp, &mut Random::seeded(1)), Verdict::Forward)
    };
    for name in ["example.com", "local", "xns.local", "ns.local.example.com"] {
        assert!(forwarded(name), "{name}");
    }
    for name in ["ns.local", "NS.LOCAL", "a.b.c.ns.local", "sub.ns.local"] {
        assert!(!forwarded(name), "{name}");
    }
    assert!(matches!(
        verdict(&Table::default(), &request("one.ns.local", RecordType::A, None), Transport::Udp, &mut Random::seeded(1)),
        Verdict::Forward
    ));
}

#[test]
fn multivalue_gives_eight_of_many_in_random_order_and_weighted_one() {
    let table = table();
    let mut random = Random::seeded(3);
    let mut seen = BTreeSet::new();
    let mut first = BTreeSet::new();
    for (name, wanted) in [("many.ns.local", MAX_MULTIVALUE_ANSWERS), ("weighted.ns.local", 1)] {
        seen.clear();
        for _ in 0..200 {
            let Verdict::Answer(bytes) = verdict(&table, &request(name, RecordType::A, None), Transport::Udp, &mut random) else {
                panic!()
            };
            let message = Message::from_vec(&bytes).unwrap();
            let addresses: Vec<String> = message.answers.iter().map(|answer| answer.data.to_string()).collect();
            assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), wanted, "{addresses:?}");
            first.insert(addresses[0].clone());
            seen.extend(addresses);
        }
        assert_eq!(seen.len(), 20, "each is given at some time: {seen:?}");
    }
    assert_eq!(first.len(), 20);
    let both = ask("two.ns.local", RecordType::A).answers.len();
    assert_eq!(both, 2);
}

#[test]
fn an_alias_is_followed_to_its_end() {
    let answer = ask("alias.ns.local", RecordType::AAAA);
    assert_eq!(answer.answers.len(), 2);
    assert!(matches!(answer.answers[0].data, RData::CNAME(_)) && matches!(answer.answers[1].data, RData::AAAA(_)));
    assert_eq!(ask("alias.ns.local", RecordType::CNAME).answers.len(), 1);
    let ring = ask("ring.ns.local", RecordType::A);
    assert_eq!(ring.answers.len(), LONGEST_CHAIN);
}

#[test]
fn an_alias_that_leads_away_is_finished_by_others() {
    let chase = |transport| match verdict(&table(), &request("out.ns.local", RecordType::A, None), transport, &mut Random::seeded(1)) {
        Verdict::Chase(chase) => chase,
        other => panic!("{other:?}"),
    };
    let open = chase(Transport::Udp);
    let asked = Message::from_vec(&open.request(5).unwrap()).unwrap();
    assert_eq!((asked.queries[0].name().to_ascii().as_str(), asked.queries[0].query_type()), ("www.example.com.", RecordType::A));
    let mut found = Message::response(5, OpCode::Query);
    found.add_query(asked.queries[0].clone());
    found.add_answer(WireRecord::from_rdata(asked.queries[0].name().clone(), 60, RData::A("192.0.2.1".parse().unwrap())));
    let whole = Message::from_vec(&open.finish(Some(&found.to_vec().unwrap())).unwrap()).unwrap();
    assert_eq!((whole.answers.len(), whole.metadata.id, code(&whole)), (2, 0x4242, ResponseCode::NoError));
    assert_eq!(whole.queries[0].name().to_ascii(), "out.ns.local.");
    for nothing in [None, Some(&b"\0\0\x80\0\0\x01\xff\xff\xff\xff\xff\xff"[..])] {
        let failed = Message::from_vec(&chase(Transport::Tcp).finish(nothing).unwrap()).unwrap();
        assert_eq!((failed.answers.len(), code(&failed)), (0, ResponseCode::ServFail));
    }
}

#[test]
fn srv_comes_with_addresses_where_there_is_room() {
    let answer = ask("_http._tcp.deep.ns.local", RecordType::SRV);
    assert_eq!((answer.answers.len(), answer.additionals.len()), (1, 1));
    assert_eq!(answer.additionals[0].name.to_ascii(), "one.ns.local.");
    let whole = answer_to(&request("srv.ns.local", RecordType::SRV, None), Transport::Tcp);
    assert_eq!((whole.answers.len(), whole.additionals.len(), whole.metadata.truncation), (8, 8, false));
    // Too much for 512 bytes, even without the addresses.
    let bytes = request("srv.ns.local", RecordType::SRV, None);
    let cut = answer_to(&bytes, Transport::Udp);
    assert!(cut.metadata.truncation && cut.answers.is_empty() && cut.queries.len() == 1);
    // Room for the answers alone.
    let Verdict::Answer(answers_alone) =
        verdict(&table(), &request("srv.ns.local", RecordType::SRV, Some(650)), Transport::Udp, &mut Random::seeded(1))
    else {
        panic!()
    };
    assert!(answers_alone.len() <= 650, "{}", answers_alone.len());
    let without = Message::from_vec(&answers_alone).unwrap();
    assert_eq!((without.answers.len(), without.additionals.len(), without.metadata.truncation), (8, 0, false));
}

#[test]
fn what_nobody_gets() {
    let any = ask("many.ns.local", RecordType::ANY);
    assert_eq!(any.answers.len(), 1);
    assert!(matches!(any.answers[0].data, RData::HINFO(_)));
    assert_eq!(code(&ask("ns.local", RecordType::AXFR)), ResponseCode::Refused);
    let mut chaos = request("version.bind", RecordType::TXT, None);
    let at = chaos.len() - 1;
    chaos[at] = 3;
    assert_eq!(code(&answer_to(&chaos, Transport::Udp)), ResponseCode::Refused);
    let mut update = request("ns.local", RecordType::A, None);
    update[2] |= 0x28;
    assert_eq!(code(&answer_to(&update, Transport::Udp)), ResponseCode::NotImp);
    let mut two = request("ns.local", RecordType::A, None);
    two[5] = 2;
    assert_eq!(code(&answer_to(&two, Transport::Udp)), ResponseCode::FormErr);
}

#[test]
fn edns_is_answered_with_edns_and_a_newer_one_refused() {
    assert!(answer_to(&request("one.ns.local", RecordType::A, None), Transport::Udp).edns.is_none());
    let answer = ask("one.ns.local", RecordType::A);
    assert_eq!(answer.edns.map(|edns| (edns.version(), edns.max_payload())), Some((0, MOST_UDP)));
    let mut newer = request("one.ns.local", RecordType::A, Some(1232));
    // The version is the second byte of the OPT record's TTL, which its length follows.
    let at = newer.len() - 5;
    newer[at] = 1;
    // BADVERS and BADSIG are one number, by what it is said to.
    assert_eq!(u16::from(code(&answer_to(&newer, Transport::Udp))), u16::from(ResponseCode::BADVERS));
}

#[test]
fn a_table_leaves_out_what_cannot_be_a_name() {
    let long = "x".repeat(64);
    let zones = [
        Zone { name: "a..b".into(), records: vec![record("x", Routing::Weighted, vec![address(1)])] },
        Zone { name: String::new(), records: vec![] },
        Zone {
            name: "ns.local".into(),
            records: vec![
                record(&long, Routing::Weighted, vec![address(1)]),
                record("alias", Routing::Weighted, vec![Answer::Cname("a..b".into()), address(1), address(1)]),
            ],
        },
    ];
    let (table, problems) = Table::new(1, &zones);
    assert_eq!((table.zones(), problems.len()), (1, 4), "{problems:?}");
    let mut random = Random::seeded(1);
    let Verdict::Answer(bytes) = verdict(&table, &request("alias.ns.local", RecordType::A, None), Transport::Udp, &mut random) else {
        panic!()
    };
    assert_eq!(Message::from_vec(&bytes).unwrap().answers.len(), 1, "twice the same counts once");
}

proptest! {
    #[test]
    fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..600), seed: u64) {
        check(&bytes, seed);
    }

    #[test]
    fn no_change_to_a_request_does_harm(
        at in 0_usize..60, byte: u8, cut in 0_usize..80, name in "[a-z]{1,5}(\\.[a-z]{1,5}){0,2}", seed: u64, kind in 0_u16..300
    ) {
        let mut bytes = request(&format!("{name}.ns.local"), RecordType::from(kind), Some(seed as u16));
        let at = at % bytes.len();
        bytes[at] = byte;
        bytes.truncate(cut.max(1));
        check(&bytes, seed);
    }

    #[test]
    fn drawn_numbers_are_different_and_below_their_limit(count in 0_usize..2000, wanted in 0_usize..20, seed: u64) {
        let numbers: BTreeSet<usize> = drawn(count, wanted, &mut Random::seeded(seed)).collect();
        prop_assert_eq!(numbers.len(), wanted.min(count).min(MAX_MULTIVALUE_ANSWERS));
        prop_assert!(numbers.iter().all(|number| *number < count));
    }
}

/// Whatever is asked: an answer that can be read, has the request's id, and fits.
fn check(bytes: &[u8], seed: u64) {
    let table = table();
    for transport in [Transport::Udp, Transport::Tcp] {
        match verdict(&table, bytes, transport, &mut Random::seeded(seed)) {
            Verdict::Answer(answer) => {
                assert_eq!(answer[..2], bytes[..2]);
                assert!(transport == Transport::Tcp || answer.len() <= usize::from(MOST_UDP), "{} bytes", answer.len());
                Message::from_vec(&answer).expect("it can be read");
            }
            Verdict::Chase(chase) => {
                chase.request(1).expect("it can be asked");
                chase.finish(Some(bytes)).expect("it can be answered");
            }
            Verdict::Silence | Verdict::Forward => {}
        }
    }
}
