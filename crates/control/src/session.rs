//! One agent's ACS connection: sends its tasks, sees that they are taken, keeps it alive. Everything it holds can be lost:
//! the next connection starts from the state.

mod credentials;
mod tables;

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use berth_acs::messages::{DesiredStatus, TableKind, TaskIdentifier};
use berth_acs::{AcsQuery, Effect, Refusal, RefusalKind, ServerConnection, ServerFrame, ServerSession, Subject};
use berth_model::arn::{parse_agents_cluster, parse_agents_task, parse_container_instance};
use berth_model::container_instance::{AgentVersion, ContainerInstanceStatus, Parting};
use berth_model::ids::{ClusterName, ContainerInstanceId, TaskId};
use berth_model::lifecycle;
use berth_model::record::Key;
use berth_model::task::{StopCode, Task, TaskStatus};
use berth_store::{CommitError, Entry, State};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::dispatch::{Inbox, Pending};
use crate::{Control, observe, payload, peers, trace};
use credentials::Renewals;
use tables::TableNews;

/// How long after it took a stop an agent may say nothing of a task that never started. The official agent ignores stops of
/// tasks it never knew, so nobody would ever report them.
const SILENT_STOP_MILLIS: i64 = 10_000;
/// Messages per revision: several can follow one commit, each with a number of its own, and numbers must still grow over a
/// reconnect, when only the revision is known.
const NUMBERS_PER_REVISION: i64 = 256;
/// How long an agent may leave unread what is sent to it, once all buffers between are full; pulses cannot be missed before that.
const SEND_PATIENCE: Duration = Duration::from_secs(20);
/// How long to wait before it is tried again to note that an agent is away.
const NOTE_AGAIN: Duration = Duration::from_secs(1);
/// Why a task ended that its agent was told of so often without ever taking it or reporting of it.
const NEVER_TAKEN: &str = "The container agent did not accept the task";
/// How long to wait before what did not fit is delivered again.
const RETRY_MILLIS: i64 = 1_000;

/// Why a session ended. Only for the log.
#[derive(Debug, thiserror::Error)]
pub enum AgentAway {
    /// The agent closed the connection, or it broke.
    #[error("the connection is over")]
    Closed,
    /// It could not be written to.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The agent does not answer.
    #[error("{0}")]
    Silent(String),
    /// A newer connection took over, or the instance was deregistered.
    #[error("another connection took over or the instance was deregistered")]
    Replaced,
}

/// A connection that was let in.
pub struct Session {
    control: Control,
    cluster: ClusterName,
    instance: ContainerInstanceId,
    inbox: Arc<Inbox>,
    machine: ServerSession,
    connection: u64,
    /// How it ends; whatever comes unforeseen looks like a close.
    parting: Parting,
    /// What was sent on this connection, and is not yet STOPPED.
    sent: HashMap<TaskId, DesiredStatus>,
    /// Stops that were taken, of tasks that never started, with the time when to give up waiting.
    silent: BTreeMap<(i64, TaskId), ()>,
    /// Tasks that are not to be started here after all, and why.
    doomed: Vec<(TaskId, String)>,
    retry_at: Option<i64>,
    /// When the credentials of tasks' roles are issued anew.
    renewals: Renewals,
    last_number: i64,
    /// How many tables of interfaces were sent.
    last_table: u64,
    /// Where others reach the machine, as it was told last.
    told_address: Option<Ipv4Addr>,
    /// Of tasks that go out with the next frames.
    dispatching: Vec<tracing::Span>,
    /// When it was opened, and what the clock showed then: a clock that is set must neither end connections nor keep dead ones.
    opened: (Instant, i64),
}

impl Control {
    /// Has the session of a container instance ask its agent for its pulse now, if one is open: something says that it may be away, or
    /// heartbeats are so rare that somebody else has to say it.
    pub fn ask_pulse(&self, instance: ContainerInstanceId) {
        self.shared.dispatch.ask_pulse(instance);
    }

    /// Lets an agent in, or says why not. It counts as connected from here on, until [`Session::run`] ends.
    ///
    /// # Errors
    /// A [`Refusal`] in the form that agents understand.
    pub async fn open_session(&self, query: AcsQuery) -> Result<Session, Refusal> {
        let shared = &self.shared;
        let scope = &shared.environment.scope;
        let cluster = parse_agents_cluster(scope, Some(&query.cluster))
            .map_err(|error| Refusal::new(RefusalKind::InvalidClusterException, error.to_string()))?;
        let instance = parse_container_instance(scope, &cluster, &query.container_instance_arn)
            .map_err(|error| Refusal::new(RefusalKind::InvalidInstanceException, error.to_string()))?;
        let version = AgentVersion {
            agent_version: Some(query.agent_version.clone()).filter(|text| !text.is_empty()),
            agent_hash: Some(query.agent_hash.clone()).filter(|text| !text.is_empty()),
            docker_version: Some(query.docker_version.clone()).filter(|text| !text.is_empty()),
        };
        let fails = |error: berth_store::CommitError| Refusal::new(RefusalKind::ServerException, error.to_string());
        let is_known = shared.store.state().instance(instance).is_some();
        if !is_known && peers::is_absent(&shared.store, Key::ContainerInstance(instance)).await.map_err(fails)? {
            return Err(Refusal::new(RefusalKind::InactiveInstanceException, "The container instance is not registered."));
        }
        {
            let state = shared.store.state();
            let known = state.instance(instance).filter(|known| known.cluster == cluster);
            if known.is_none_or(|known| known.status == ContainerInstanceStatus::Inactive) {
                return Err(Refusal::new(RefusalKind::InactiveInstanceException, "The container instance is not registered."));
            }
        }
        let connection = observe::connected(&shared.store, instance, version)
            .await
            .map_err(fails)?
            .ok_or_else(|| Refusal::new(RefusalKind::InactiveInstanceException, "The container instance is not registered."))?;
        let now = shared.environment.now().0;
        let machine = ServerSession::on_connect(
            query,
            scope.cluster(&cluster),
            scope.container_instance(&cluster, instance),
            connection,
            shared.sessions.clone(),
            now,
        );
        let inbox = shared.dispatch.open(instance, connection);
        if shared.store.state().instance(instance).is_none_or(|known| peers::is_over(known, connection)) {
            // It was over before its inbox was there to be told.
            inbox.end();
        }
        Ok(Session {
            control: self.clone(),
            cluster,
            instance,
            inbox,
            machine,
            connection,
            parting: Parting::Closed,
            sent: HashMap::new(),
            silent: BTreeMap::new(),
            doomed: Vec::new(),
            retry_at: None,
            renewals: Renewals::default(),
            last_number: 0,
            last_table: 0,
            told_address: None,
            dispatching: Vec::new(),
            opened: (Instant::now(), now),
        })
    }
}

impl Session {
    /// Serves the connection until it ends.
    pub async fn run<S: AsyncRead + AsyncWrite + Unpin>(mut self, mut connection: ServerConnection<S>) -> AgentAway {
        let arn = self.machine.container_instance_arn().to_owned();
        tracing::info!(container_instance = arn, "an agent is connected");
        let outcome = self.serve(&mut connection).await;
        if matches!(outcome, AgentAway::Silent(_)) {
            self.parting = Parting::Silent;
        }
        // First it counts as away: saying goodbye may take long on a connection that takes nothing.
        drop(self);
        let _ = tokio::time::timeout(SEND_PATIENCE, connection.close(1000, "")).await;
        tracing::info!(container_instance = arn, reason = %outcome, "an agent is disconnected");
        outcome
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&mut self, connection: &mut ServerConnection<S>) -> AgentAway {
        let mut frames = self.deliver(&Pending { everything: true, ..Default::default() });
        frames.push(self.manifest());
        if self.machine.wants_credentials() {
            frames.extend(self.all_credentials());
        }
        let mut tables = self.tables();
        loop {
            if let Err(error) = send(connection, &std::mem::take(&mut frames)).await {
                return error;
            }
            self.dispatching.clear();
            for (id, reason) in std::mem::take(&mut self.doomed) {
                self.end_unstarted(id, StopCode::TaskFailedToStart, &reason).await;
            }
            let inbox = Arc::clone(&self.inbox);
            let sleep = self.until_wake();
            // What is due goes first, so that an agent that never stops talking is still told of its tasks and asked for its pulse.
            tokio::select! {
                biased;
                () = tokio::time::sleep(sleep) => match self.on_tick().await {
                    Ok(due) => frames = due,
                    Err(away) => return away,
                },
                pending = inbox.next() => {
                    if pending.end {
                        return AgentAway::Replaced;
                    }
                    if pending.pulse {
                        self.machine.ask_pulse(self.now());
                    }
                    frames = self.deliver(&pending);
                },
                news = tables.next() => match news {
                    TableNews::Names(parts) => for part in parts {
                        if let Err(error) = send(connection, &part).await {
                            return error;
                        }
                    },
                    TableNews::Network(news) => match self.network_table(news) {
                        Some(told) => frames = told,
                        None => tables.forget(TableKind::Network),
                    },
                },
                frame = connection.next() => match frame {
                    None => return AgentAway::Closed,
                    Some(Ok(frame)) => {
                        let effects = self.machine.on_frame(frame, self.now());
                        for effect in effects {
                            match effect {
                                Effect::TableWanted(table) => tables.forget(table),
                                effect => frames.extend(self.on_effect(effect)),
                            }
                        }
                    }
                    Some(Err(error)) if error.is_fatal() => return AgentAway::Broken(error.to_string()),
                    Some(Err(error)) => {
                        tracing::warn!(container_instance = self.machine.container_instance_arn(), %error, "an agent sent a frame that cannot be read");
                    },
                },
            }
        }
    }

    /// Unix milliseconds that go on evenly.
    fn now(&self) -> i64 {
        let (at, clock) = self.opened;
        clock.saturating_add(i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX))
    }

    fn until_wake(&self) -> Duration {
        let silent = self.silent.keys().next().map(|(at, _)| *at);
        let renewal = self.renewals.next().map(|at| at - self.control.shared.environment.now().0 + self.now());
        let at = [silent, self.retry_at, renewal].into_iter().flatten().fold(self.machine.wake_at(), i64::min);
        Duration::from_millis(u64::try_from(at - self.now()).unwrap_or(0))
    }

    /// The next `seqNum` or `timeline`.
    fn next_number(&mut self, state_revision: u64) -> i64 {
        let floor = i64::try_from(state_revision).unwrap_or(i64::MAX / NUMBERS_PER_REVISION).saturating_mul(NUMBERS_PER_REVISION);
        self.last_number = floor.max(self.last_number + 1);
        self.last_number
    }

    /// Frames that tell the agent what it does not know yet.
    fn deliver(&mut self, pending: &Pending) -> Vec<ServerFrame> {
        let control = self.control.clone();
        let scope = &control.shared.environment.scope;
        let state = control.shared.store.state();
        let mut tasks = Vec::new();
        let mut told = Vec::new();
        let (mut ended, mut doomed, mut attach, mut renewals) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let issued = control.shared.environment.now();
        let fetches_itself = self.machine.is_berths();
        let mut consider = |entry: &Entry<Task>, sent: &mut HashMap<TaskId, DesiredStatus>| {
            if entry.container_instance != self.instance || entry.is_stopped() {
                if sent.remove(&entry.id).is_some() {
                    ended.push(scope.task(&entry.cluster, entry.id));
                }
                return;
            }
            let desired = payload::desired(&entry.value);
            if sent.get(&entry.id) != Some(&desired)
                && let Some(definition) = state.definition(&entry.definition)
            {
                let mut task = payload::render(scope, &entry.value, &definition.value);
                if let Some(issuer) = control.shared.roles.as_ref().filter(|_| desired == DesiredStatus::Running) {
                    renewals.extend(issuer.equip(&mut task, scope, &entry.value, &definition.value, issued).map(|at| (at, entry.id)));
                }
                let unmet = if fetches_itself || desired != DesiredStatus::Running { None } else { payload::unmet(&task) };
                match unmet {
                    Some(reason) => doomed.push((entry.id, reason)),
                    None => {
                        attach.extend(payload::attach(&task, &entry.value));
                        tasks.push(task);
                        told.push((entry.id, desired));
                    }
                }
            }
        };
        if pending.everything {
            for entry in state.tasks_of_machine(&self.cluster, self.instance) {
                consider(entry, &mut self.sent);
            }
        } else {
            for entry in pending.tasks.iter().filter_map(|id| state.task(*id)) {
                consider(entry, &mut self.sent);
            }
        }
        for arn in &ended {
            self.machine.withdraw(arn);
        }
        self.doomed.extend(doomed);
        if tasks.is_empty() {
            return Vec::new();
        }
        let number = self.next_number(state.revision.0);
        drop(state);
        let spans =
            trace::dispatched(tasks.iter().map(|task| (task.arn.as_str(), task.desired_status)), self.machine.container_instance_arn());
        match self.machine.deliver(tasks, number, self.now()) {
            Ok(frames) => {
                self.dispatching.extend(spans);
                self.sent.extend(told);
                self.renewals.extend(renewals);
                // An agent that cannot be told of an interface yet has it with its task.
                let now = self.now();
                let attach: Vec<_> =
                    attach.into_iter().map_while(|message| self.machine.attach_task_interfaces(message, now).ok()).collect();
                attach.into_iter().chain(frames).collect()
            }
            Err(error) => {
                tracing::warn!(%error, container_instance = self.machine.container_instance_arn(), "tasks wait for delivery");
                self.retry_at = Some(self.now() + RETRY_MILLIS);
                Vec::new()
            }
        }
    }

    /// All tasks that should be on the instance.
    fn manifest(&mut self) -> ServerFrame {
        let control = self.control.clone();
        let scope = &control.shared.environment.scope;
        let state = control.shared.store.state();
        let tasks = state.tasks_of_machine(&self.cluster, self.instance).filter(|task| !task.is_stopped()).map(|task| TaskIdentifier {
            task_arn: scope.task(&task.cluster, task.id),
            task_cluster_arn: scope.cluster(&task.cluster),
            desired_status: payload::desired(&task.value),
        });
        let tasks = tasks.collect();
        let number = self.next_number(state.revision.0);
        self.machine.manifest(tasks, number, self.now())
    }

    fn on_effect(&mut self, effect: Effect) -> Vec<ServerFrame> {
        match effect {
            Effect::Acked { subjects, .. } => {
                let due = self.now() + SILENT_STOP_MILLIS;
                for subject in subjects {
                    if let Subject::Task { arn, desired_status: DesiredStatus::Stopped, .. } = subject
                        && let Some(id) = self.task_id(&arn)
                    {
                        self.silent.insert((due, id), ());
                    }
                }
                Vec::new()
            }
            Effect::Nacked { subjects, reason } => {
                tracing::warn!(container_instance = self.machine.container_instance_arn(), ?subjects, reason, "an agent refused a message");
                Vec::new()
            }
            Effect::StopsToVerify { message_id, candidates } => {
                let stops = self.confirmed(&candidates);
                self.machine.confirm_stops(&message_id, stops, self.now()).into_iter().collect()
            }
            Effect::ManifestAcked { .. } | Effect::CredentialsAcked { .. } | Effect::TableWanted(_) | Effect::Stray { .. } => Vec::new(),
        }
    }

    /// Of the tasks that an agent runs and the manifest did not list: those that really must end.
    fn confirmed(&self, candidates: &[TaskIdentifier]) -> Vec<TaskIdentifier> {
        let state = self.control.shared.store.state();
        let must_end = |state: &State, candidate: &TaskIdentifier| {
            let wanted = self.task_id(&candidate.task_arn).and_then(|id| state.task(id)).is_some_and(|task| {
                task.container_instance == self.instance
                    && !task.is_stopped()
                    && task.desired_status == berth_model::task::DesiredStatus::Running
            });
            !wanted
        };
        candidates.iter().filter(|candidate| must_end(&state, candidate)).cloned().collect()
    }

    /// Of whatever cluster: a machine that offers Fargate capacity runs tasks of all.
    fn task_id(&self, arn: &str) -> Option<TaskId> {
        parse_agents_task(&self.control.shared.environment.scope, &self.cluster, arn).ok().map(|(_, id)| id)
    }

    async fn on_tick(&mut self) -> Result<Vec<ServerFrame>, AgentAway> {
        let now = self.now();
        let tick = self.machine.on_tick(now);
        if let Some(reason) = tick.close {
            return Err(AgentAway::Silent(reason.to_string()));
        }
        let mut frames = tick.frames;
        if !tick.given_up.is_empty() {
            tracing::warn!(container_instance = self.machine.container_instance_arn(), subjects = ?tick.given_up, "an agent never took these");
        }
        for subject in tick.given_up {
            match subject {
                Subject::Task { arn, .. } => self.doomed.extend(self.task_id(&arn).map(|id| (id, NEVER_TAKEN.to_owned()))),
                Subject::Credentials { task_arn, .. } => self.renew_again(&task_arn),
                Subject::Attachment { .. } => {}
            }
        }
        frames.extend(self.renewed_credentials());
        if tick.manifest_due {
            frames.push(self.manifest());
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            frames.extend(self.deliver(&Pending { everything: true, ..Default::default() }));
        }
        while let Some(((at, id), ())) = self.silent.first_key_value().map(|(key, ())| (*key, ())) {
            if at > now {
                break;
            }
            self.silent.remove(&(at, id));
            self.end_silent_stop(id).await;
        }
        Ok(frames)
    }

    /// The agent took the stop, said nothing, and the task never got beyond PENDING: there is nothing to stop.
    async fn end_silent_stop(&self, id: TaskId) {
        let is_stopping =
            |state: &State| state.task(id).is_some_and(|task| task.desired_status == berth_model::task::DesiredStatus::Stopped);
        if is_stopping(&self.control.shared.store.state()) {
            self.end_unstarted(id, StopCode::UserInitiated, "Task stopped before it was started").await;
        }
    }

    /// Ends a task of which its agent has never reported anything, and which it therefore does not have. A reason that the task has
    /// already, such as that of a stop, stays.
    async fn end_unstarted(&self, id: TaskId, code: StopCode, reason: &str) {
        let shared = &self.control.shared;
        let cluster = shared.store.state().task(id).map_or_else(|| self.cluster.clone(), |task| task.cluster.clone());
        let outcome = observe::change_task(&shared.store, &cluster, id, |task, _| {
            let is_made = task.containers.iter().any(|container| container.runtime_id.is_some());
            let never_started = task.last_status < TaskStatus::Running && task.pull_started_at.is_none() && !is_made;
            task.container_instance == self.instance && never_started && lifecycle::abandon(task, code, reason, shared.environment.now())
        });
        if let Err(error) = outcome.await {
            let task = shared.environment.scope.task(&cluster, id);
            tracing::warn!(%error, task, "cannot end a task that never started");
        }
    }
}

impl Drop for Session {
    /// However the session ends, the instance is no longer connected by it.
    fn drop(&mut self) {
        let shared = Arc::clone(&self.control.shared);
        shared.dispatch.close(self.instance, &self.inbox);
        let (instance, connection, parting) = (self.instance, self.connection, self.parting);
        let now = shared.environment.now();
        // Outside a runtime the process is ending, and the next one starts by forgetting connections.
        if tokio::runtime::Handle::try_current().is_ok() {
            let loops = shared.loops.clone();
            let container_instance = self.machine.container_instance_arn().to_owned();
            loops.spawn(async move {
                // Until it is noted, tasks are placed where nobody is.
                while let Err(error) = observe::disconnected(&shared.store, instance, connection, parting, now).await {
                    tracing::warn!(container_instance, %error, "cannot note that an agent is away");
                    if error == CommitError::Closed {
                        return;
                    }
                    tokio::time::sleep(NOTE_AGAIN).await;
                }
            });
        }
    }
}

async fn send<S: AsyncRead + AsyncWrite + Unpin>(connection: &mut ServerConnection<S>, frames: &[ServerFrame]) -> Result<(), AgentAway> {
    if frames.is_empty() {
        return Ok(());
    }
    match tokio::time::timeout(SEND_PATIENCE, connection.send_all(frames)).await {
        Ok(sent) => sent.map_err(|error| AgentAway::Broken(error.to_string())),
        Err(_) => Err(AgentAway::Silent(format!("it took nothing for {} s", SEND_PATIENCE.as_secs()))),
    }
}
