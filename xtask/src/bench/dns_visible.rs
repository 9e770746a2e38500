//! How soon the DNS server of a machine answers what Cloud Map was told: RegisterInstance is called, and the name asked for again and again
//! until the answer is the new address. From the call's start, so that its own commit counts.

use std::error::Error;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{Client, Service};
use super::dns::ask_for;
use super::scratch::free_port;
use super::server::{Berth, text};
use super::{quantile, row_noted, wait};

const CLOUD_MAP: Service = Service { signing: "servicediscovery", target: "Route53AutoNaming_v20170314" };
const NAMESPACE: &str = "bench.internal";
/// How long a change may take.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn run(runs: usize) -> Result<(), Box<dyn Error>> {
    let server = format!("127.0.0.1:{}", free_port());
    let berth = Berth::start_with("up", &["--ephemeral"], &[("BERTH_DNS", &server)])?;
    let mut client = Client::connect(&berth.authority, &berth.key)?;
    let made = client.call_to(&CLOUD_MAP, "CreatePrivateDnsNamespace", &json!({"Name": NAMESPACE, "Vpc": "vpc-1"}));
    let operation = text(&made?, "/OperationId")?;
    let namespace = wait::until(PATIENCE, Duration::from_millis(5), || {
        let answer = client.call_to(&CLOUD_MAP, "GetOperation", &json!({"OperationId": operation}))?;
        Ok(answer.pointer("/Operation/Targets/NAMESPACE").and_then(Value::as_str).map(str::to_owned))
    })?;
    let namespace = namespace.ok_or("the namespace does not come")?;
    let service = json!({"Name": "web", "NamespaceId": namespace, "DnsConfig": {"DnsRecords": [{"Type": "A", "TTL": 0}]}});
    let service = text(&client.call_to(&CLOUD_MAP, "CreateService", &service)?, "/Service/Id")?;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(&server)?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut times = Vec::new();
    // The first finds everything cold; it is not counted.
    for (run, last) in (0..=runs).zip((1..=250_u8).cycle()) {
        let address = Ipv4Addr::new(10, 9, u8::try_from(run % 250)?, last);
        let attributes = json!({"AWS_INSTANCE_IPV4": address.to_string()});
        let started = Instant::now();
        client.call_to(&CLOUD_MAP, "RegisterInstance", &json!({"ServiceId": service, "InstanceId": "one", "Attributes": attributes}))?;
        let question = ask_for(run, &["web", "bench", "internal"]);
        wait::until(PATIENCE, Duration::from_micros(200), || {
            socket.send(&question)?;
            let mut answer = [0; 512];
            let length = socket.recv(&mut answer)?;
            // The one A record is the last thing in the answer: there is no EDNS.
            Ok(answer[..length].ends_with(&address.octets()).then_some(()))
        })?
        .ok_or("the change is never answered")?;
        if run > 0 {
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
    }
    let note = format!("from the start of RegisterInstance; p99 {:.1}", quantile(&times, 0.99));
    row_noted("dns/visible-p50-ms", quantile(&times, 0.5), "ms", None, &note);
    Ok(())
}
