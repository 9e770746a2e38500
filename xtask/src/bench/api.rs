//! `bench api`: signed DescribeTasks and durable RunTask a second, with 1,200 tasks, at 1 and 16 connections. Tasks run on a
//! hollow agent: it takes what it is told and starts nothing. Beside it the least that any server could do on this machine:
//! an echo, and for RunTask an echo after one sync.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use berth_acs::messages::{AckRequest, HeartbeatAckRequest};
use berth_acs::{AcsQuery, AgentConnection, AgentFrame, DialOptions, ServerFrame};
use berth_identity::AccessKey;
use berth_identity::sigv4::sign_headers;
use serde_json::json;

use super::client::Client;
use super::floor::Floor;
use super::server::{Berth, text};
use super::{Peer, quantile, row};

/// Tasks that exist while calls are counted.
const TASKS: usize = 1_200;
/// Rates are medians of this many windows.
const WINDOWS: usize = 24;
const WINDOW: Duration = Duration::from_millis(250);
/// What of a window is not counted: threads wake up, caches fill.
const WARM_UP: Duration = Duration::from_millis(20);

pub(super) fn run() -> Result<(), Box<dyn Error>> {
    let berth = Berth::start("server", &[])?;
    let mut client = Client::connect(&berth.authority, &berth.key)?;
    let resources = json!([
        {"name": "CPU", "type": "INTEGER", "integerValue": 1_000_000_000},
        {"name": "MEMORY", "type": "INTEGER", "integerValue": 2_000_000_000},
    ]);
    let attributes = json!([{"name": "com.amazonaws.ecs.capability.docker-remote-api.1.18"}]);
    let instance = client.call("RegisterContainerInstance", &json!({"totalResources": resources, "attributes": attributes}))?;
    let arn = text(&instance, "/containerInstance/containerInstanceArn")?;
    let agent = HollowAgent::start(&berth.authority, &berth.key, &arn)?;
    let containers = json!([{"name": "app", "image": "hello", "cpu": 1, "memory": 6}]);
    client.call("RegisterTaskDefinition", &json!({"family": "bench", "containerDefinitions": containers}))?;
    let mut arns = Vec::new();
    while arns.len() < TASKS {
        let answer = client.call("RunTask", &json!({"taskDefinition": "bench", "count": 10}))?;
        let tasks = answer["tasks"].as_array().ok_or("RunTask gave no tasks")?;
        arns.extend(tasks.iter().filter_map(|task| task["taskArn"].as_str().map(str::to_owned)));
    }
    let describe = json!({"tasks": [arns[TASKS / 2]]});
    let launch = json!({"taskDefinition": "bench"});
    let synced = berth.dir.with_extension("floor");
    let rows = [
        ("describe-tasks", "DescribeTasks", &describe, "echo", None),
        ("run-task", "RunTask", &launch, "echo after fdatasync", Some(&synced)),
    ];
    for (row_name, operation, body, peer, durable) in rows {
        let request = client.signed(operation, body);
        let answer = client.send(&request)?.1.len();
        let floor = Floor::start(answer, durable.map(std::path::PathBuf::as_path))?;
        for connections in [1, 16] {
            let [ours, theirs] = rates([&berth.authority, &floor.authority], connections, &request)?;
            let peer = Peer { name: peer, value: theirs };
            row(&format!("api/{row_name}-c{connections}"), ours, "1/s", Some(&peer));
        }
    }
    agent.stop();
    // The tasks are nobody's; nothing has to be stopped, so the server just ends.
    super::server::signal(berth.pid(), "TERM");
    Ok(())
}

/// The median rate of each server over its windows, all connections together. The servers take turns, window by window.
fn rates<const N: usize>(authorities: [&str; N], connections: usize, request: &[u8]) -> Result<[f64; N], Box<dyn Error>> {
    const NOBODY: usize = usize::MAX;
    let turn = Arc::new(AtomicUsize::new(NOBODY));
    let stop = Arc::new(AtomicBool::new(false));
    let counts: Vec<_> = (0..N).map(|_| Arc::new(AtomicUsize::new(0))).collect();
    let mut threads = Vec::new();
    for (server, authority) in authorities.into_iter().enumerate() {
        for _ in 0..connections {
            let mut client = Client::connect(authority, &AccessKey::long_term("", "", ""))?;
            let request = request.to_vec();
            let (turn, stop, count) = (Arc::clone(&turn), Arc::clone(&stop), Arc::clone(&counts[server]));
            threads.push(std::thread::spawn(move || -> Result<(), String> {
                while !stop.load(Ordering::Relaxed) {
                    if turn.load(Ordering::Relaxed) != server {
                        std::thread::park();
                        continue;
                    }
                    let (status, answer) = client.send(&request).map_err(|error| error.to_string())?;
                    if status != 200 {
                        return Err(format!("{status}: {}", String::from_utf8_lossy(answer)));
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }));
        }
    }
    let wake = || threads.iter().for_each(|thread| thread.thread().unpark());
    let mut rates = [const { Vec::new() }; N];
    for window in 0..WINDOWS * N {
        let server = window % N;
        turn.store(server, Ordering::Relaxed);
        wake();
        std::thread::sleep(WARM_UP);
        let (before, started) = (counts[server].load(Ordering::Relaxed), Instant::now());
        std::thread::sleep(WINDOW);
        let done = counts[server].load(Ordering::Relaxed) - before;
        #[expect(clippy::cast_precision_loss, reason = "a count of calls")]
        rates[server].push(done as f64 / started.elapsed().as_secs_f64());
    }
    stop.store(true, Ordering::Relaxed);
    wake();
    for thread in threads {
        thread.join().map_err(|_| "a connection's thread panicked")??;
    }
    Ok(rates.map(|rates| quantile(&rates, 0.5)))
}

/// An agent that acknowledges everything and runs nothing.
struct HollowAgent {
    stop: tokio::sync::oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl HollowAgent {
    fn start(authority: &str, key: &AccessKey, arn: &str) -> Result<Self, Box<dyn Error>> {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (endpoint, key, arn) = (format!("http://{authority}"), key.clone(), arn.to_owned());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
            runtime.block_on(async {
                let mut connection = match connect(&endpoint, &key, &arn).await {
                    Ok(connection) => connection,
                    Err(error) => return drop(ready.send(Err(error))),
                };
                let _ = ready.send(Ok(()));
                tokio::select! {
                    () = acknowledge(&mut connection, &arn) => {}
                    _ = stopped => {}
                }
            });
        });
        is_ready.recv()??;
        Ok(Self { stop, thread })
    }

    fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

async fn connect(endpoint: &str, key: &AccessKey, arn: &str) -> Result<AgentConnection, String> {
    let query = AcsQuery {
        agent_hash: String::new(),
        agent_version: "1.0.0".into(),
        cluster: "default".into(),
        container_instance_arn: arn.to_owned(),
        docker_version: String::new(),
        protocol_version: 2,
        send_credentials: true,
        seq_num: 1,
        berth_heartbeat: false,
    };
    let sign = |host: &str, uri: &str| {
        let now_unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0));
        let signed = sign_headers(&key.signing_params("us-east-1", "ecs", now_unix), "GET", uri, &[("host", host)], b"");
        signed.pairs().filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?))).collect()
    };
    AgentConnection::connect(endpoint, &query.render(), sign, &DialOptions::default()).await.map_err(|error| error.to_string())
}

async fn acknowledge(connection: &mut AgentConnection, arn: &str) {
    while let Some(Ok(frame)) = connection.next().await {
        let ack =
            |message_id: String| AgentFrame::Ack(AckRequest { cluster: "default".into(), container_instance: arn.to_owned(), message_id });
        let answer = match frame {
            ServerFrame::Heartbeat(heartbeat) => AgentFrame::HeartbeatAck(HeartbeatAckRequest { message_id: heartbeat.message_id }),
            ServerFrame::Payload(payload) => ack(payload.message_id),
            ServerFrame::TaskManifest(manifest) => ack(manifest.message_id),
            _ => continue,
        };
        if connection.send(&answer).await.is_err() {
            return;
        }
    }
}
