//! Requests of containers to the DNS server: whatever the bytes are, an answer that fits and names the request, or none. The same bytes are
//! also taken for what another name server answered.
#![no_main]

use std::sync::LazyLock;

use berth_network::dns::{Answer, Random, Record, Routing, Table, Transport, Verdict, Zone, verdict};
use libfuzzer_sys::fuzz_target;

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let record = |name: &str, answers: Vec<Answer>| Record { name: name.to_owned(), ttl_seconds: 1, routing: Routing::Multivalue, answers };
    let addresses = |count: u8| (1..=count).map(|last| Answer::A([10, 0, 0, last].into())).collect::<Vec<_>>();
    let srv = |target: &str| Answer::Srv { priority: 1, weight: 1, port: 80, target: target.to_owned() };
    let records = vec![
        record("a", addresses(3)),
        record("b", addresses(20)),
        record("s", vec![srv("a.n"), srv("b.n"), srv("gone.n")]),
        record("c", vec![Answer::Cname("s.n".into())]),
        record("o", vec![Answer::Cname("x.example".into())]),
    ];
    Table::new(1, &[Zone { name: "n".into(), records }]).0
});

fuzz_target!(|bytes: &[u8]| {
    for transport in [Transport::Udp, Transport::Tcp] {
        match verdict(&TABLE, bytes, transport, &mut Random::seeded(bytes.len() as u64)) {
            Verdict::Answer(answer) => {
                assert_eq!(answer[..2], bytes[..2]);
                assert!(transport == Transport::Tcp || answer.len() <= 1232);
            }
            Verdict::Chase(chase) => {
                chase.request(1).expect("it can be asked");
                chase.finish(Some(bytes)).expect("it can be answered");
            }
            Verdict::Silence | Verdict::Forward => {}
        }
    }
});
