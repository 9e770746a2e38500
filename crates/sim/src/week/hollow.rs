//! A hollow container instance: it speaks the agent protocol over the real websocket and reports over the real action, and keeps of its
//! tasks no more than whether they run. Nothing wakes it while nothing happens to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use berth_acs::messages::{
    AckRequest, AgentFrame, DesiredStatus, HeartbeatAckRequest, ServerFrame, Task, TaskIdentifier, TaskManifestMessage,
    TaskStopVerificationMessage,
};
use berth_acs::{AcsQuery, AgentConnection, ConnectError, DialOptions, Dialer, RefusalKind, Wire};
use berth_agent::capabilities;
use berth_shapes::ecs::Operation;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::duplex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::chance::Chance;
use crate::checker::Checker;
use crate::server::Server;
use crate::trace::Trace;

/// Bytes that a connection holds in each direction.
const BUFFER: usize = 64 * 1024;
/// For how long a connection may say nothing before an agent gives it up, with what is lost of its way.
pub const AGENT_PATIENCE: Duration = Duration::from_secs(10);
/// From one heartbeat to the next: within this a server asks for the pulse of a machine that has gone silent.
const BEAT_MILLIS: u64 = 2_500;
/// How long an agent knows what it ran after it has reported the end: what asks for it again may still be on its way.
const REMEMBERS: Duration = Duration::from_secs(60);
/// Between two tries, in milliseconds.
const AGAIN: (u64, u64) = (500, 5_000);

/// What becomes of the containers of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nature {
    Lasting,
    NeverStarts,
    MayCrash,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It comes up.
    Starting,
    Runs,
    /// It was told to end, or ended.
    Ends,
}

/// A hollow container instance.
pub struct Hollow {
    number: usize,
    server: Arc<Server>,
    chance: Chance,
    trace: Trace,
    checker: Arc<Checker>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    arn: String,
    boots: u64,
    timeline: i64,
    tasks: BTreeMap<String, Stage>,
    /// Stop candidates of the last manifest.
    candidates: (String, BTreeSet<String>),
    /// Power is off: its processes stand still, since all they do goes over the way, and end when it is switched on again.
    is_down: bool,
    /// Ends the processes of this boot.
    over: CancellationToken,
    /// Which cut this is, and what tells that the way is open again.
    cut: Option<(u64, CancellationToken)>,
    cuts: u64,
    /// Its tasks' own lives, and their reports.
    lives: JoinSet<()>,
}

impl Inner {
    fn begin_cut(&mut self) -> u64 {
        self.cuts += 1;
        self.cut = Some((self.cuts, CancellationToken::new()));
        self.cuts
    }
}

impl Hollow {
    /// One that is switched off.
    pub fn new(number: usize, server: Arc<Server>, chance: Chance, trace: Trace, checker: Arc<Checker>) -> Arc<Self> {
        Arc::new(Self { number, server, chance, trace, checker, inner: Mutex::default() })
    }

    /// Its container instance.
    pub fn arn(&self) -> String {
        self.inner.lock().arn.clone()
    }

    /// The containers that run now, as machines name them.
    pub fn running(&self) -> BTreeSet<String> {
        let inner = self.inner.lock();
        let running = inner.tasks.iter().filter(|(_, stage)| **stage == Stage::Runs);
        running.map(|(arn, _)| container(arn)).collect()
    }

    /// Switches it on.
    pub fn boot(self: &Arc<Self>) {
        let over = CancellationToken::new();
        {
            let mut inner = self.inner.lock();
            inner.boots += 1;
            inner.is_down = false;
            std::mem::replace(&mut inner.over, over.clone()).cancel();
            inner.cut.take().into_iter().for_each(|(_, cut)| cut.cancel());
            // Its agent finds what was there, and that it is no more.
            inner.tasks.values_mut().for_each(|stage| *stage = Stage::Ends);
            let dead: Vec<_> = inner.tasks.keys().cloned().collect();
            for arn in dead {
                let report = stopped(&arn, None, "Container instance restarted");
                inner.lives.spawn(Arc::clone(self).bury(arn, report));
            }
        }
        let own = Arc::clone(self);
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = over.cancelled() => {}
                () = own.live() => {}
            }
        });
    }

    /// Power fails for a while: nobody is told, and what ran is gone.
    pub async fn crash(self: &Arc<Self>, lasts: Duration) {
        {
            let mut inner = self.inner.lock();
            if inner.is_down {
                return;
            }
            inner.is_down = true;
            inner.lives = JoinSet::new();
            if inner.cut.is_none() {
                inner.begin_cut();
            }
        }
        self.trace.line(format_args!("host {}: without power for {lasts:?}", self.number));
        self.goes_silent();
        tokio::time::sleep(lasts).await;
        self.boot();
    }

    /// Its way to the server is cut for a while; what is sent meanwhile arrives later, or never if that takes too long.
    pub async fn partition(self: &Arc<Self>, lasts: Duration) {
        let number = {
            let mut inner = self.inner.lock();
            if inner.cut.is_some() {
                return;
            }
            inner.begin_cut()
        };
        self.trace.line(format_args!("host {}: cut off for {lasts:?}", self.number));
        self.goes_silent();
        tokio::time::sleep(lasts).await;
        let mut inner = self.inner.lock();
        let is_own = |(own, _): &mut (u64, CancellationToken)| *own == number;
        if !inner.is_down
            && let Some((_, cut)) = inner.cut.take_if(is_own)
        {
            cut.cancel();
        }
    }

    /// The one event that stands for all heartbeats: within the time between two of them the server asks for its pulse.
    fn goes_silent(&self) {
        let (server, arn, after) = (Arc::clone(&self.server), self.arn(), self.chance.millis(0, BEAT_MILLIS));
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            server.ask_pulse(&arn);
        });
    }

    /// One of the tasks that run ends by itself; `false` if none runs.
    pub fn kill_one(self: &Arc<Self>) -> bool {
        let running: Vec<_> = {
            let inner = self.inner.lock();
            if inner.is_down {
                return false;
            }
            inner.tasks.iter().filter(|(_, stage)| **stage == Stage::Runs).map(|(arn, _)| arn.clone()).collect()
        };
        if running.is_empty() {
            return false;
        }
        let arn: &String = self.chance.pick(&running);
        self.end(arn, 1, "Essential container in task exited");
        true
    }

    async fn until_open(&self) {
        let cut = self.inner.lock().cut.clone();
        if let Some((_, cut)) = cut {
            cut.cancelled().await;
        }
    }

    async fn call(&self, operation: Operation, body: &Value) -> Option<(u16, Value)> {
        self.until_open().await;
        let told = self.server.call(operation, body.to_string().into_bytes()).await.ok()?;
        self.until_open().await;
        Some((told.status, serde_json::from_slice(&told.body).unwrap_or_default()))
    }

    async fn again(&self) {
        tokio::time::sleep(self.chance.millis(AGAIN.0, AGAIN.1)).await;
    }

    async fn live(self: &Arc<Self>) {
        loop {
            if self.register().await {
                break;
            }
            self.again().await;
        }
        loop {
            let dialled = self.dial().await;
            match dialled {
                Ok(mut connection) => self.serve(&mut connection).await,
                Err(ConnectError::Refused { refusal, .. }) if refusal.kind == RefusalKind::InactiveInstanceException => {
                    self.checker.violated("connectivity", format!("host {} is refused: {}", self.number, refusal.message));
                    return;
                }
                Err(_) => {}
            }
            self.again().await;
        }
    }

    async fn register(&self) -> bool {
        let attribute = |name: &str, value: Option<String>| json!({"name": name, "value": value});
        let zone = if self.number.is_multiple_of(2) { "us-east-1a" } else { "us-east-1b" };
        let mut attributes: Vec<_> = capabilities::Announced::default().names(&[]).iter().map(|name| attribute(name, None)).collect();
        attributes.extend(capabilities::valued(zone, Some("linux")).into_iter().map(|(name, value)| attribute(name, Some(value))));
        let known = self.arn();
        let mut request = json!({
            "cluster": "default",
            "totalResources": [
                {"name": "CPU", "type": "INTEGER", "integerValue": 8192},
                {"name": "MEMORY", "type": "INTEGER", "integerValue": 16384},
                {"name": "PORTS", "type": "STRINGSET", "stringSetValue": []},
                {"name": "PORTS_UDP", "type": "STRINGSET", "stringSetValue": []},
            ],
            "attributes": attributes,
        });
        if !known.is_empty() {
            request["containerInstanceArn"] = json!(known);
        }
        let Some((200, answer)) = self.call(Operation::RegisterContainerInstance, &request).await else { return false };
        let arn = answer["containerInstance"]["containerInstanceArn"].as_str().unwrap_or_default();
        if !known.is_empty() && known != arn {
            self.checker.violated("answers", format!("host {} registers again as {known} and becomes {arn}", self.number));
        }
        self.inner.lock().arn = arn.to_owned();
        true
    }

    async fn dial(self: &Arc<Self>) -> Result<AgentConnection, ConnectError> {
        let query = AcsQuery {
            agent_hash: "hollow".to_owned(),
            agent_version: "1.0.0".to_owned(),
            cluster: "default".to_owned(),
            container_instance_arn: self.arn(),
            docker_version: "DockerVersion: hollow".to_owned(),
            protocol_version: 2,
            send_credentials: false,
            seq_num: 1,
            berth_heartbeat: true,
            berth_dns: false,
            berth_differences: false,
        };
        let options =
            DialOptions { dialer: Some(Arc::new(Way(Arc::clone(self)))), timeout: Duration::from_secs(3_600), ..Default::default() };
        AgentConnection::connect("http://server", &query.render(), |_, _| Vec::new(), &options).await
    }

    async fn serve(self: &Arc<Self>, connection: &mut AgentConnection) {
        while let Some(Ok(frame)) = connection.next().await {
            let cut = self.inner.lock().cut.clone();
            if let Some((_, cut)) = cut {
                // What has arrived is read when the way is open again, if the agent has not given the connection up before.
                if tokio::time::timeout(AGENT_PATIENCE, cut.cancelled()).await.is_err() {
                    cut.cancelled().await;
                    return;
                }
            }
            let answers = self.on_frame(frame);
            if connection.send_all(&answers).await.is_err() {
                return;
            }
        }
    }

    fn on_frame(self: &Arc<Self>, frame: ServerFrame) -> Vec<AgentFrame> {
        match frame {
            ServerFrame::Heartbeat(beat) => vec![AgentFrame::HeartbeatAck(HeartbeatAckRequest { message_id: beat.message_id })],
            ServerFrame::Payload(payload) => {
                let payload = Arc::unwrap_or_clone(payload);
                let (stops, others): (Vec<_>, Vec<_>) =
                    payload.tasks.into_iter().partition(|task| task.desired_status == DesiredStatus::Stopped);
                stops.iter().for_each(|task| self.stop(&task.arn));
                others.iter().for_each(|task| self.take(task));
                vec![self.ack(payload.cluster_arn, payload.message_id)]
            }
            ServerFrame::TaskManifest(manifest) => self.manifest(manifest),
            ServerFrame::TaskStopVerificationAck(verdict) => {
                let awaited = std::mem::take(&mut self.inner.lock().candidates);
                for task in verdict.stop_tasks.iter().filter(|task| awaited.0 == verdict.message_id && awaited.1.contains(&task.task_arn)) {
                    self.stop(&task.task_arn);
                }
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn ack(&self, cluster: String, message_id: String) -> AgentFrame {
        AgentFrame::Ack(AckRequest { cluster, container_instance: self.arn(), message_id })
    }

    fn manifest(&self, manifest: TaskManifestMessage) -> Vec<AgentFrame> {
        let mut inner = self.inner.lock();
        if manifest.timeline <= inner.timeline {
            return Vec::new();
        }
        inner.timeline = manifest.timeline;
        let wanted = |task: &TaskIdentifier| task.desired_status == DesiredStatus::Running;
        let listed: BTreeSet<_> = manifest.tasks.iter().filter(|task| wanted(task)).map(|task| task.task_arn.as_str()).collect();
        let unlisted = inner.tasks.iter().filter(|(arn, stage)| **stage != Stage::Ends && !listed.contains(arn.as_str()));
        let unlisted: Vec<_> = unlisted.map(|(arn, _)| arn.clone()).collect();
        inner.candidates = (manifest.message_id.clone(), unlisted.iter().cloned().collect());
        drop(inner);
        let mut answers = vec![self.ack(manifest.cluster_arn.clone(), manifest.message_id.clone())];
        if !unlisted.is_empty() {
            let candidate = |task_arn| TaskIdentifier {
                task_arn,
                task_cluster_arn: manifest.cluster_arn.clone(),
                desired_status: DesiredStatus::Running,
            };
            let stop_candidates = unlisted.into_iter().map(candidate).collect();
            answers
                .push(AgentFrame::TaskStopVerification(TaskStopVerificationMessage { message_id: manifest.message_id, stop_candidates }));
        }
        answers
    }

    /// Takes a task on, unless it has it.
    fn take(self: &Arc<Self>, task: &Task) {
        let mut inner = self.inner.lock();
        if inner.tasks.contains_key(&task.arn) {
            return;
        }
        inner.tasks.insert(task.arn.clone(), Stage::Starting);
        let image = task.containers.first().map(|container| container.image.as_str()).unwrap_or_default();
        let nature = match image {
            "dud" => Nature::NeverStarts,
            "flaky" if self.chance.per_mille(300) => Nature::MayCrash,
            _ => Nature::Lasting,
        };
        inner.lives.spawn(Arc::clone(self).come_up(task.arn.clone(), nature));
        while inner.lives.try_join_next().is_some() {}
    }

    async fn come_up(self: Arc<Self>, arn: String, nature: Nature) {
        tokio::time::sleep(self.chance.millis(300, 3_000)).await;
        if self.inner.lock().tasks.get(&arn) != Some(&Stage::Starting) {
            return;
        }
        if nature == Nature::NeverStarts {
            self.end(&arn, -1, "CannotStartContainerError: exec: not found");
            return;
        }
        let boots = {
            let mut inner = self.inner.lock();
            inner.tasks.insert(arn.clone(), Stage::Runs);
            inner.boots
        };
        self.checker.started(self.number, boots, &container(&arn));
        let report = json!({
            "cluster": "default", "task": arn, "status": "RUNNING", "reason": "",
            "containers": [{"containerName": "main", "status": "RUNNING", "runtimeId": "hollow"}],
        });
        Arc::clone(&self).report(report).await;
        if nature == Nature::MayCrash {
            tokio::time::sleep(self.chance.millis(0, 5_000)).await;
            self.end(&arn, 1, "Essential container in task exited");
        }
    }

    fn stop(self: &Arc<Self>, arn: &str) {
        let after = self.chance.millis(0, 2_000);
        let (own, arn) = (Arc::clone(self), arn.to_owned());
        self.inner.lock().lives.spawn(async move {
            tokio::time::sleep(after).await;
            own.end(&arn, 143, "");
        });
    }

    /// A task is over, and that is reported; -1: it never ran.
    fn end(self: &Arc<Self>, arn: &str, code: i64, reason: &str) {
        let mut inner = self.inner.lock();
        let Some(stage @ (Stage::Starting | Stage::Runs)) = inner.tasks.get_mut(arn) else { return };
        let ran = *stage == Stage::Runs;
        *stage = Stage::Ends;
        let report = stopped(arn, (ran && code >= 0).then_some(code), reason);
        let own = Arc::clone(self);
        inner.lives.spawn(own.bury(arn.to_owned(), report));
    }

    /// Reports that a task is over, and forgets it when nobody can ask for it any more.
    async fn bury(self: Arc<Self>, arn: String, report: Value) {
        Arc::clone(&self).report(report).await;
        tokio::time::sleep(REMEMBERS).await;
        self.inner.lock().tasks.remove(&arn);
    }

    /// Reports until it is taken, or refused for good.
    async fn report(self: Arc<Self>, report: Value) {
        loop {
            match self.call(Operation::SubmitTaskStateChange, &report).await {
                Some((200, _)) => return,
                Some((status, body)) if status < 500 => {
                    self.trace.line(format_args!("host {}: a report is refused: {body}", self.number));
                    return;
                }
                _ => self.again().await,
            }
        }
    }
}

fn stopped(arn: &str, code: Option<i64>, reason: &str) -> Value {
    let mut main = json!({"containerName": "main", "status": "STOPPED", "reason": reason});
    if let Some(code) = code {
        main["exitCode"] = json!(code);
        main["runtimeId"] = json!("hollow");
    }
    json!({"cluster": "default", "task": arn, "status": "STOPPED", "reason": reason, "containers": [main]})
}

/// The name of a task's only container on its machine.
fn container(arn: &str) -> String {
    format!("{}-0", arn.rsplit('/').next().unwrap_or_default())
}

/// A machine's way to the server's websocket.
struct Way(Arc<Hollow>);

impl Dialer for Way {
    fn dial(
        &self,
        _endpoint: &str,
        query: &str,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Box<dyn Wire>, ConnectError>> + Send + '_>> {
        let query = query.to_owned();
        Box::pin(async move {
            self.0.until_open().await;
            let accepted = self.0.server.accept(&query).await.map_err(|down| ConnectError::Tcp {
                address: "server:80".to_owned(),
                source: std::io::Error::new(std::io::ErrorKind::ConnectionRefused, down),
            })?;
            match accepted {
                Ok(serve) => {
                    let (near, far) = duplex(BUFFER);
                    serve(far);
                    Ok(Box::new(near) as Box<dyn Wire>)
                }
                Err(refusal) => Err(ConnectError::Refused { status: refusal.kind.status(), refusal }),
            }
        })
    }
}
