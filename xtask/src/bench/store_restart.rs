//! How soon the server is back: started over a million tasks, and after `kill -9` under light load.

use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use berth_identity::AccessKey;
use serde_json::{Value, json};

use super::client::Client;
use super::restartable::Server;
use super::scratch::{Folder, free_port};
use super::store_tasks::fill;
use super::{quantile, row, wait};

/// Tasks of the large data folder.
pub(super) const MILLION: usize = 1_000_000;
/// Tasks of the server that is killed.
const FEW: usize = 10_000;
/// Most restarts a row rests on.
const RUNS: usize = 20;
/// Between two calls of the light load.
const PAUSE: Duration = Duration::from_millis(1);
/// Load before each kill.
const LOAD: Duration = Duration::from_millis(300);
/// How long the server may stay away.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn restart(runs: usize) -> Result<(), Box<dyn Error>> {
    let folder = Folder::make("restart")?;
    fill(folder.path(), MILLION)?;
    let mut seconds = Vec::new();
    // The first start finds what the fill left in the log, and is not counted.
    for run in 0..=runs.min(RUNS) {
        let mut server = Server::start(folder.path())?;
        eprintln!("run {run}: ready after {:.2} s, {:.0} MB", server.ready_after.as_secs_f64(), server.process.resident()? / 1e6);
        if run > 0 {
            seconds.push(server.ready_after.as_secs_f64());
        }
        server.process.terminate();
    }
    row("store/restart-1m-s", quantile(&seconds, 0.5), "s", None);
    Ok(())
}

pub(super) fn kill(runs: usize) -> Result<(), Box<dyn Error>> {
    let folder = Folder::make("kill")?;
    fill(folder.path(), FEW)?;
    let authority = format!("127.0.0.1:{}", free_port());
    let mut server = Server::start_at(folder.path(), &authority)?;
    let load = Load::start(&authority, &server.key);
    let mut millis = Vec::new();
    for run in 0..runs.min(RUNS) {
        std::thread::sleep(LOAD);
        load.check()?;
        load.longest_gap.store(0, Ordering::Relaxed);
        if load.answered.load(Ordering::Acquire) == 0 {
            return Err("no call of the light load was answered".into());
        }
        server.process.kill();
        server = Server::start_at(folder.path(), &authority)?;
        // An answer may have been on its way when the server died, so this counts only now.
        let answered = load.answered.load(Ordering::Acquire);
        let next = wait::until(PATIENCE, PAUSE, || {
            load.check()?;
            Ok((load.answered.load(Ordering::Acquire) != answered).then_some(()))
        });
        next?.ok_or_else(|| format!("no call was answered {PATIENCE:?} after the restart"))?;
        #[expect(clippy::cast_precision_loss, reason = "microseconds")]
        let gap = load.longest_gap.load(Ordering::Relaxed) as f64 / 1000.0;
        eprintln!("run {run}: {gap:.1} ms without an answer");
        millis.push(gap);
    }
    let acknowledged = load.stop()?;
    let kept = tag(&mut server.client()?)?;
    if kept < acknowledged {
        return Err(format!("LOST: the change {acknowledged} was acknowledged before a kill, and {kept} is there").into());
    }
    row("store/kill9-gap-ms", quantile(&millis, 0.5), "ms", None);
    Ok(())
}

const CLUSTER: &str = "arn:aws:ecs:us-east-1:000000000000:cluster/default";

fn tag(client: &mut Client) -> Result<u64, Box<dyn Error>> {
    let answer = client.call("ListTagsForResource", &json!({"resourceArn": CLUSTER}))?;
    let value = answer.pointer("/tags/0/value").and_then(Value::as_str).ok_or_else(|| format!("no tag is left: {answer}"))?;
    Ok(value.parse()?)
}

/// One client that reads, and at every tenth call writes; it connects again for as long as it takes.
struct Load {
    answered: Arc<AtomicU64>,
    /// Microseconds.
    longest_gap: Arc<AtomicU64>,
    acknowledged: Arc<AtomicU64>,
    refusal: Arc<Mutex<Option<String>>>,
    ends: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Load {
    fn start(authority: &str, key: &AccessKey) -> Self {
        let (answered, longest_gap, acknowledged) = (Arc::default(), Arc::default(), Arc::default());
        let (refusal, ends) = (Arc::<Mutex<Option<String>>>::default(), Arc::<AtomicBool>::default());
        let mut caller = Caller {
            authority: authority.to_owned(),
            key: key.clone(),
            answered: Arc::clone(&answered),
            longest_gap: Arc::clone(&longest_gap),
            acknowledged: Arc::clone(&acknowledged),
            number: 0,
        };
        let (told, end) = (Arc::clone(&refusal), Arc::clone(&ends));
        let thread = std::thread::spawn(move || {
            if let Err(error) = caller.run(&end) {
                *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
        });
        Self { answered, longest_gap, acknowledged, refusal, ends, thread }
    }

    fn check(&self) -> Result<(), Box<dyn Error>> {
        let refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone();
        refusal.map_or(Ok(()), |refusal| Err(refusal.into()))
    }

    /// Ends it; the last change that was acknowledged.
    fn stop(self) -> Result<u64, Box<dyn Error>> {
        self.ends.store(true, Ordering::Relaxed);
        self.check()?;
        let _ = self.thread.join();
        Ok(self.acknowledged.load(Ordering::Relaxed))
    }
}

struct Caller {
    authority: String,
    key: AccessKey,
    answered: Arc<AtomicU64>,
    longest_gap: Arc<AtomicU64>,
    acknowledged: Arc<AtomicU64>,
    number: u64,
}

impl Caller {
    fn run(&mut self, end: &AtomicBool) -> Result<(), String> {
        const EVERY: u64 = 10;
        let mut client = None;
        let mut last = Instant::now();
        while !end.load(Ordering::Relaxed) {
            std::thread::sleep(PAUSE);
            let Some(open) = client.as_mut() else {
                client = Client::connect(&self.authority, &self.key).ok();
                continue;
            };
            self.number += 1;
            let writes = self.number.is_multiple_of(EVERY);
            let tags = json!({"resourceArn": CLUSTER, "tags": [{"key": "number", "value": self.number.to_string()}]});
            let request = if writes { open.signed("TagResource", &tags) } else { open.signed("DescribeClusters", &json!({})) };
            match open.send(&request) {
                Ok((200, _)) => {
                    let gap = u64::try_from(last.elapsed().as_micros()).unwrap_or(u64::MAX);
                    last = Instant::now();
                    self.longest_gap.fetch_max(gap, Ordering::Relaxed);
                    if writes {
                        self.acknowledged.store(self.number, Ordering::Relaxed);
                    }
                    self.answered.fetch_add(1, Ordering::Release);
                }
                // It listens before it is ready.
                Ok((503, _)) => client = None,
                Ok((status, answer)) => return Err(format!("the light load was answered {status}: {}", String::from_utf8_lossy(answer))),
                Err(_) => client = None,
            }
        }
        Ok(())
    }
}
