//! Many hollow agents in one process of their own, with one thread, so that what they cost can be told from what Berth costs.
//! Each registers, keeps its ACS connection, acknowledges what it is sent, and reports tasks RUNNING and STOPPED.

use std::collections::HashSet;
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use berth_acs::ServerFrame;
use berth_acs::messages::{DesiredStatus, Task};
use berth_identity::AccessKey;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};

use super::hollow_agent::{acknowledgement, connect};
use super::hollow_calls::Calls;
use super::restartable::Server;
use super::scratch::{Process, prepare};
use super::store_tasks::instance;

/// Agents that register and connect at once.
const JOINING: usize = 32;
/// How long an agent waits before it connects again.
const PAUSE: Duration = Duration::from_millis(200);
/// How long tasks may take to become RUNNING.
const PATIENCE: Duration = Duration::from_secs(60);

/// A fleet, seen from the bench.
pub(super) struct Fleet {
    pub(super) process: Process,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// How many agents are connected.
    pub(super) size: usize,
    /// Why not all.
    pub(super) held_back: Option<String>,
}

impl Fleet {
    /// Starts it, and waits until as many as can be are connected.
    pub(super) fn start(server: &Server, wanted: usize) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bench", "hollow", "--fleet", &format!("{wanted}@{}", server.authority)]);
        command.env("AWS_ACCESS_KEY_ID", &server.key.id).env("AWS_SECRET_ACCESS_KEY", server.key.secret.expose());
        let mut process = Process::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let orders = process.child.stdin.take().ok_or("the fleet has no stdin")?;
        let answers = BufReader::new(process.child.stdout.take().ok_or("the fleet has no stdout")?);
        let mut fleet = Self { process, orders, answers, size: 0, held_back: None };
        let joined = fleet.read()?;
        let (size, held_back) = joined.split_once(' ').unwrap_or((&joined, ""));
        fleet.size = size.parse()?;
        fleet.held_back = Some(held_back.to_owned()).filter(|text| !text.is_empty());
        if fleet.size == 0 { Err(format!("no agent could join: {held_back}").into()) } else { Ok(fleet) }
    }

    /// How many tasks it has reported RUNNING, and how many reports were refused.
    pub(super) fn running(&mut self) -> Result<(u64, u64), Box<dyn Error>> {
        let answer = self.ask("running")?;
        let (running, refused) = answer.split_once(' ').ok_or("the fleet answers oddly")?;
        Ok((running.parse()?, refused.parse()?))
    }

    /// How many tasks it has reported RUNNING of so many that should; an error if reports were refused, or if it is a minute since `since` and
    /// they are not all there.
    pub(super) fn running_of(&mut self, wanted: u64, since: Instant) -> Result<u64, Box<dyn Error>> {
        let (running, refused) = self.running()?;
        if running < wanted && (refused > 0 || since.elapsed() > PATIENCE) {
            return Err(format!("of {wanted} tasks {running} came to RUNNING; {refused} reports were refused").into());
        }
        Ok(running)
    }

    /// The ARN of an agent's container instance.
    pub(super) fn arn(&mut self, agent: usize) -> Result<String, Box<dyn Error>> {
        self.ask(&format!("arn {agent}"))
    }

    /// Makes an agent fall silent: its connections stay open, and nothing more comes from it.
    pub(super) fn silence(&mut self, agent: usize) -> Result<(), Box<dyn Error>> {
        self.ask(&format!("silence {agent}")).map(drop)
    }

    /// Lets an agent speak again, over a new connection.
    pub(super) fn wake(&mut self, agent: usize) -> Result<(), Box<dyn Error>> {
        self.ask(&format!("wake {agent}")).map(drop)
    }

    /// Lets no agent report anything any more: they acknowledge, and that is all.
    pub(super) fn mute(&mut self) -> Result<(), Box<dyn Error>> {
        self.ask("mute").map(drop)
    }

    fn ask(&mut self, order: &str) -> Result<String, Box<dyn Error>> {
        writeln!(self.orders, "{order}")?;
        self.orders.flush()?;
        self.read()
    }

    fn read(&mut self) -> Result<String, Box<dyn Error>> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err("the hollow agents' process has ended".into());
        }
        Ok(line.trim().to_owned())
    }
}

/// An agent as the thread that takes orders knows it.
struct Known {
    arn: String,
    silent: watch::Sender<bool>,
}

/// What all agents share.
struct Shared {
    endpoint: String,
    key: AccessKey,
    calls: Calls,
    known: Mutex<Vec<Known>>,
    running: AtomicU64,
    refused: AtomicU64,
    mute: AtomicBool,
}

/// The fleet's process: says how many agents have joined, answers orders until stdin ends.
pub(super) fn serve(fleet: &str) -> Result<(), Box<dyn Error>> {
    prepare()?;
    let (count, authority) = fleet.split_once('@').ok_or("--fleet is COUNT@HOST:PORT")?;
    let count: usize = count.parse()?;
    let key = AccessKey::long_term(std::env::var("AWS_ACCESS_KEY_ID")?, std::env::var("AWS_SECRET_ACCESS_KEY")?, "");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let shared = Arc::new(Shared {
            endpoint: format!("http://{authority}"),
            calls: Calls::start(authority, &key),
            key,
            known: Mutex::default(),
            running: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            mute: AtomicBool::new(false),
        });
        let held_back = join(&shared, count).await;
        println!("{} {}", lock(&shared).len(), held_back.unwrap_or_default().replace('\n', " "));
        let obeying = Arc::clone(&shared);
        std::thread::spawn(move || {
            obey(&obeying);
            std::process::exit(0);
        });
        std::future::pending().await
    })
}

fn lock(shared: &Shared) -> std::sync::MutexGuard<'_, Vec<Known>> {
    shared.known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets agents join until all have or one cannot; why it could not.
async fn join(shared: &Arc<Shared>, count: usize) -> Option<String> {
    let places = Arc::new(Semaphore::new(JOINING));
    let failure = Arc::new(Mutex::new(None));
    for number in 0..count {
        let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
        if failure.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            break;
        }
        if number > 0 && number % 1_000 == 0 {
            eprintln!("{number} hollow agents have joined");
        }
        let (shared, failure) = (Arc::clone(shared), Arc::clone(&failure));
        tokio::spawn(async move {
            match Agent::join(&shared).await {
                Ok(agent) => drop(tokio::spawn(agent.live())),
                Err(error) => *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error),
            }
            drop(place);
        });
    }
    let _ = places.acquire_many(u32::try_from(JOINING).unwrap_or(1)).await;
    failure.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Answers each order with a line.
fn obey(shared: &Shared) {
    for order in std::io::stdin().lock().lines().map_while(Result::ok) {
        let (word, number) = order.split_once(' ').unwrap_or((&order, "0"));
        let known = lock(shared);
        let agent = number.parse::<usize>().ok().and_then(|number| known.get(number));
        match (word, agent) {
            ("running", _) => println!("{} {}", shared.running.load(Ordering::Relaxed), shared.refused.load(Ordering::Relaxed)),
            ("mute", _) => {
                shared.mute.store(true, Ordering::Relaxed);
                println!("done");
            }
            ("arn", Some(agent)) => println!("{}", agent.arn),
            ("silence" | "wake", Some(agent)) => {
                agent.silent.send_replace(word == "silence");
                println!("done");
            }
            _ => println!("not understood"),
        }
    }
}

/// An agent.
struct Agent {
    shared: Arc<Shared>,
    arn: String,
    connection: berth_acs::AgentConnection,
    silent: watch::Receiver<bool>,
    /// Tasks reported RUNNING: a payload may come twice.
    running: HashSet<String>,
}

impl Agent {
    async fn join(shared: &Arc<Shared>) -> Result<Self, String> {
        let answer = shared.calls.call("RegisterContainerInstance", &instance()).await?;
        let answer: Value = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
        let arn = answer.pointer("/containerInstance/containerInstanceArn").and_then(Value::as_str);
        let arn = arn.ok_or("RegisterContainerInstance gave no ARN")?.to_owned();
        let connection = connect(&shared.endpoint, &shared.key, &arn, true).await?;
        let (order, silent) = watch::channel(false);
        lock(shared).push(Known { arn: arn.clone(), silent: order });
        Ok(Self { shared: Arc::clone(shared), arn, connection, silent, running: HashSet::new() })
    }

    async fn live(mut self) {
        loop {
            let frame = tokio::select! {
                biased;
                _ = self.silent.wait_for(|silent| *silent) => None,
                frame = self.connection.next() => frame,
            };
            match frame {
                Some(Ok(frame)) => {
                    if let Some(answer) = acknowledgement(&frame, &self.arn)
                        && self.connection.send(&answer).await.is_err()
                    {
                        self.reconnect().await;
                    }
                    if let ServerFrame::Payload(payload) = frame {
                        payload.tasks.iter().for_each(|task| self.obey(task));
                    }
                }
                Some(Err(error)) if !error.is_fatal() => eprintln!("a hollow agent cannot read a frame: {error}"),
                Some(Err(_)) | None => self.reconnect().await,
            }
        }
    }

    /// Connects again, once it may speak. The old connection stays open until then.
    async fn reconnect(&mut self) {
        if self.silent.wait_for(|silent| !*silent).await.is_err() {
            std::future::pending::<()>().await;
        }
        loop {
            match connect(&self.shared.endpoint, &self.shared.key, &self.arn, true).await {
                Ok(connection) => break self.connection = connection,
                Err(error) => eprintln!("a hollow agent connects again: {error}"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Reports what a real agent would once the containers are as they should be.
    fn obey(&mut self, task: &Task) {
        if self.shared.mute.load(Ordering::Relaxed) {
            return;
        }
        let is_stop = task.desired_status == DesiredStatus::Stopped;
        let is_news = if is_stop { self.running.remove(&task.arn) } else { self.running.insert(task.arn.clone()) };
        if !is_news {
            return;
        }
        let report = report(task, is_stop);
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            match shared.calls.call("SubmitTaskStateChange", &report).await {
                Ok(_) if is_stop => {}
                Ok(_) => drop(shared.running.fetch_add(1, Ordering::Relaxed)),
                Err(error) => {
                    if shared.refused.fetch_add(1, Ordering::Relaxed) == 0 {
                        eprintln!("a hollow agent's report is refused: {error}");
                    }
                }
            }
        });
    }
}

/// A report with all that the official agent puts in.
fn report(task: &Task, is_stop: bool) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    let id = task.arn.rsplit('/').next().unwrap_or_default();
    let status = if is_stop { "STOPPED" } else { "RUNNING" };
    let containers = task.containers.iter().map(|container| {
        let mut report = json!({
            "containerName": container.name, "runtimeId": format!("{id}{id}"), "imageDigest": format!("sha256:{id}{id}"), "status": status,
        });
        if is_stop {
            report["exitCode"] = 0.into();
        }
        report
    });
    let mut report = json!({
        "cluster": "default", "task": task.arn, "status": status, "reason": "", "containers": containers.collect::<Vec<_>>(),
        "pullStartedAt": now, "pullStoppedAt": now,
    });
    if is_stop {
        report["executionStoppedAt"] = now.into();
    }
    report
}
