//! `bench api`: signed calls a second and their p99, at 1 connection (with a client that waits awake, and one that sleeps) and at 16, with
//! 1,200 tasks and with 100,000. Tasks were brought to RUNNING by hollow agents, which start nothing and while calls are counted report
//! nothing. Beside it the least that any server could do on this machine: an echo, and for calls that write an echo after one sync.

use std::error::Error;

use serde_json::{Value, json};

use super::api_load::Loaded;
use super::api_turns::{Measured, Side, take_turns};
use super::client::signed;
use super::floor::Floor;
use super::scratch::{Folder, prepare};
use super::{Peer, Selection, row};

/// Tasks that exist while calls are counted.
const FEW: usize = 1_200;
const MANY: usize = 100_000;
const WAYS: [Way; 3] = [
    Way { name: "c1", connections: 1, awake: true },
    Way { name: "c1-asleep", connections: 1, awake: false },
    Way { name: "c16", connections: 16, awake: false },
];
const MEMORY: &str = "100k/bytes-task";

/// How calls are sent.
struct Way {
    /// What the row's name ends with.
    name: &'static str,
    connections: usize,
    /// Client and floor wait awake. With one connection nothing else keeps the processors busy, and to wake one that went idle takes a
    /// virtual machine as long as a whole call.
    awake: bool,
}

/// A call that is sent over and over.
struct Call {
    /// The row's name, before the way's.
    name: &'static str,
    operation: &'static str,
    /// It is answered when something is on disk.
    durable: bool,
    /// Of a connection's calls, by its number.
    body: fn(&Loaded, usize) -> Value,
}

/// Those that make tasks come last: the others find as many as were made for them.
const CALLS: &[Call] = &[
    Call { name: "describe-tasks", operation: "DescribeTasks", durable: false, body: |loaded, _| json!({"tasks": loaded.arns(1)}) },
    Call { name: "describe-tasks-100", operation: "DescribeTasks", durable: false, body: |loaded, _| json!({"tasks": loaded.arns(100)}) },
    Call { name: "list-tasks", operation: "ListTasks", durable: false, body: |_, _| json!({}) },
    Call { name: "describe-services", operation: "DescribeServices", durable: false, body: |_, _| json!({"services": [Loaded::SERVICE]}) },
    Call {
        name: "register-task-definition",
        operation: "RegisterTaskDefinition",
        durable: true,
        body: |_, connection| Loaded::another_definition(connection),
    },
    Call { name: "run-task", operation: "RunTask", durable: true, body: |_, _| json!({"taskDefinition": "bench"}) },
];

pub(super) fn run(only: Option<&str>) -> Result<(), Box<dyn Error>> {
    prepare()?;
    let names = row_names();
    let rows = Selection::new("api", &names.iter().map(String::as_str).collect::<Vec<_>>(), only)?;
    let wants_many = names.iter().any(|name| name.starts_with("100k/") && rows.has(name));
    let few = Loaded::start("few", FEW)?;
    let many = wants_many.then(|| Loaded::start("many", MANY)).transpose()?;
    if let Some(many) = many.as_ref().filter(|_| rows.has(MEMORY)) {
        row(&format!("api/{MEMORY}"), many.bytes_a_task, "B", None);
    }
    for call in CALLS {
        for way in &WAYS {
            measure(call, way, &few, many.as_ref(), &rows)?;
        }
    }
    Ok(())
}

fn row_names() -> Vec<String> {
    let mut names = vec![MEMORY.to_owned()];
    for call in CALLS {
        for way in &WAYS {
            for name in [format!("{}-{}", call.name, way.name), format!("100k/{}-{}", call.name, way.name)] {
                names.extend([format!("{name}-p99-us"), name]);
            }
        }
    }
    names
}

/// The servers and the floor take turns, so that what the machine does besides falls on all of them.
fn measure(call: &Call, way: &Way, few: &Loaded, many: Option<&Loaded>, rows: &Selection) -> Result<(), Box<dyn Error>> {
    let Way { connections, awake, .. } = *way;
    let name = format!("{}-{}", call.name, way.name);
    let asked = |name: &str| rows.has(name) || rows.has(&format!("{name}-p99-us"));
    let many = many.filter(|_| asked(&format!("100k/{name}")));
    if !asked(&name) && many.is_none() {
        return Ok(());
    }
    let side = |loaded: &Loaded| {
        let server = &loaded.server;
        let body = |connection| (call.body)(loaded, connection).to_string();
        let requests = (0..connections).map(|connection| signed(&server.authority, &server.key, call.operation, &body(connection)));
        Side { authority: server.authority.clone(), requests: requests.collect(), awake }
    };
    let answer = few.server.client()?.call(call.operation, &(call.body)(few, 0))?.to_string().len();
    let folder = Folder::make("floor")?;
    let synced = folder.path().join("synced");
    let floor = Floor::start(answer, call.durable.then_some(synced.as_path()), awake)?;
    let mut sides = vec![side(few), Side { authority: floor.authority.clone(), ..side(few) }];
    sides.extend(many.map(side));
    let measured = take_turns(sides)?;
    let print = |name: &str, ours: &Measured, peer: &'static str, theirs: &Measured| {
        let rate = Peer { name: peer, value: theirs.rate };
        let p99 = Peer { name: peer, value: theirs.p99_us };
        if rows.has(name) {
            row(&format!("api/{name}"), ours.rate, "1/s", Some(&rate));
        }
        if rows.has(&format!("{name}-p99-us")) {
            row(&format!("api/{name}-p99-us"), ours.p99_us, "us", Some(&p99));
        }
    };
    let floor = if call.durable { "echo after fdatasync" } else { "echo" };
    print(&name, &measured[0], floor, &measured[1]);
    if let Some(many) = measured.get(2) {
        print(&format!("100k/{name}"), many, "1,200 tasks", &measured[0]);
    }
    Ok(())
}
