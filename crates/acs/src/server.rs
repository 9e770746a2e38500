//! The server's side of one agent's ACS connection as a state machine: what is sent, what is acknowledged, what is sent again,
//! when the agent counts as gone. Pure: it has no socket, no clock and no store. The caller writes the frames it returns, feeds
//! the frames that come, and calls [`ServerSession::on_tick`] when `wake_at` is reached. All times are Unix milliseconds.

mod delivery;
mod heartbeat;

pub use delivery::{DeliverError, Subject};

use crate::messages::{
    AckRequest, AgentFrame, AttachInstanceNetworkInterfacesMessage, AttachTaskNetworkInterfacesMessage, ConfirmAttachmentMessage,
    IamRoleCredentialsMessage, ServerFrame, TableKind, Task, TaskIdentifier, TaskManifestMessage, TaskStopVerificationAck,
};
use crate::query::AcsQuery;
use delivery::Deliveries;
use heartbeat::Heartbeat;
use std::collections::HashSet;

/// The timing and the limits of a session. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionOptions {
    /// From one heartbeat to the next. The official agent gives up after 60 seconds without one.
    pub heartbeat_every: i64,
    /// How long one may stay unanswered.
    pub patience: i64,
    /// From one heartbeat to the next, for an agent that asked for brisk ones. A thousand idle agents cost their server a
    /// fiftieth of a processor at this pace.
    pub brisk_heartbeat_every: i64,
    /// How long one of these may stay unanswered: an agent on a machine that is busy starting containers is not gone before.
    pub brisk_patience: i64,
    /// How long a message may stay unacknowledged at first; doubles each time.
    pub first_redelivery: i64,
    /// How long at the most.
    pub longest_redelivery: i64,
    /// How often a message is sent before it is given up.
    pub attempts: u32,
    /// How many tasks and other messages may be unacknowledged at once.
    pub most_pending: usize,
    /// How many tasks go into one payload. Small, because an agent acknowledges a payload as a whole.
    pub tasks_per_payload: usize,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            heartbeat_every: 20_000,
            patience: 60_000,
            brisk_heartbeat_every: 2_500,
            brisk_patience: 4_000,
            first_redelivery: 5_000,
            longest_redelivery: 60_000,
            attempts: 8,
            most_pending: 4096,
            tasks_per_payload: 32,
        }
    }
}

/// What a frame from the agent means to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The agent has taken these on.
    Acked {
        /// What the message held, as far as nothing newer had replaced it.
        subjects: Vec<Subject>,
        /// Milliseconds from the first sending.
        after: i64,
    },
    /// The agent refuses these; they are not sent again.
    Nacked {
        /// What the message held.
        subjects: Vec<Subject>,
        /// Why.
        reason: String,
    },
    /// The agent has seen the manifest.
    ManifestAcked {
        /// The manifest's number.
        timeline: i64,
    },
    /// The agent runs tasks that the manifest does not list as running. Nothing is stopped until the caller has looked up each
    /// one and called [`ServerSession::confirm_stops`].
    StopsToVerify {
        /// To be given back.
        message_id: String,
        /// The tasks.
        candidates: Vec<TaskIdentifier>,
    },
    /// The agent holds credentials now.
    CredentialsAcked {
        /// When they end, as given.
        expiration: String,
    },
    /// An answer to something that is not waiting for one: a repeated one, a late one, or one meant for an older connection.
    Stray {
        /// The message's.
        message_id: String,
    },
    /// The agent misses a change of this table: the next that it is sent is to be the whole of it.
    TableWanted(TableKind),
}

/// What is to be done because time has passed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tick {
    /// To be sent, in order.
    pub frames: Vec<ServerFrame>,
    /// When to call again at the latest; sooner does no harm.
    pub wake_at: i64,
    /// What the agent never acknowledged, however often it was sent. It is not sent again.
    pub given_up: Vec<Subject>,
    /// The manifest was not acknowledged. The caller makes a new one with a larger number, since an agent silently drops one
    /// whose number it knows.
    pub manifest_due: bool,
    /// Why to close the connection, if it is to be.
    pub close: Option<CloseReason>,
}

/// Why a session ends itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The agent has been silent for too long.
    #[error("no heartbeat was answered for {silent_ms} ms")]
    HeartbeatsUnanswered {
        /// For how long.
        silent_ms: i64,
    },
}

struct Manifest {
    message_id: String,
    timeline: i64,
    /// When to ask for a new one; `None` once acknowledged or given up.
    due: Option<i64>,
    candidates: HashSet<String>,
    confirmed: bool,
}

/// One agent's connection, from handshake to loss.
pub struct ServerSession {
    generation: u64,
    query: AcsQuery,
    cluster_arn: String,
    container_instance_arn: String,
    options: SessionOptions,
    deliveries: Deliveries,
    heartbeat: Heartbeat,
    manifest: Option<Manifest>,
    manifests_unanswered: u32,
}

impl ServerSession {
    /// A session for a connection whose handshake is done. `generation` must be larger than that of any session there has been
    /// for this container instance: it goes into every message id, so that nothing an old connection still says is mistaken.
    pub fn on_connect(
        query: AcsQuery,
        cluster_arn: impl Into<String>,
        container_instance_arn: impl Into<String>,
        generation: u64,
        options: SessionOptions,
        now: i64,
    ) -> Self {
        let brisk = is_berths(&query);
        let (every, patience) =
            if brisk { (options.brisk_heartbeat_every, options.brisk_patience) } else { (options.heartbeat_every, options.patience) };
        // An agent of protocol version 1 may leave heartbeats unanswered.
        let patience = (query.protocol_version >= 2).then_some(patience);
        Self {
            generation,
            query,
            cluster_arn: cluster_arn.into(),
            container_instance_arn: container_instance_arn.into(),
            deliveries: Deliveries::new(generation, &options),
            heartbeat: Heartbeat::new(every, patience, now),
            manifest: None,
            manifests_unanswered: 0,
            options,
        }
    }

    /// Something says that the agent may be away: the next heartbeat is due now, whenever it would have been.
    pub fn ask_pulse(&mut self, now: i64) {
        self.heartbeat.hurry(now);
    }

    /// Which connection of the container instance this is.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What the agent said of itself.
    pub fn query(&self) -> &AcsQuery {
        &self.query
    }

    /// The container instance's ARN.
    pub fn container_instance_arn(&self) -> &str {
        &self.container_instance_arn
    }

    /// Whether the agent wants the credentials of its running tasks, because it has none.
    pub fn wants_credentials(&self) -> bool {
        self.query.send_credentials
    }

    /// Whether the agent is Berth's own.
    pub fn is_berths(&self) -> bool {
        is_berths(&self.query)
    }

    /// How many tasks and other messages wait for an acknowledgement.
    pub fn pending(&self) -> usize {
        self.deliveries.len()
    }

    /// Tasks to be started or stopped, as frames to send now. Each is sent again until it is acknowledged. A task that is
    /// already waiting is replaced, except that a stop is never replaced by a start. `seq` must be larger than any before, here
    /// and in [`ServerSession::manifest`]: the store's revision is.
    ///
    /// # Errors
    /// When too much is unacknowledged, or a task does not fit a frame. Nothing is taken then.
    pub fn deliver(&mut self, tasks: Vec<Task>, seq: i64, now: i64) -> Result<Vec<ServerFrame>, DeliverError> {
        self.deliveries.tasks(tasks, seq, &self.cluster_arn, &self.container_instance_arn, now)
    }

    /// A task has ended: whatever of it waits for an acknowledgement is not sent again. The official agent acknowledges no payload
    /// with a task that it cannot load, but reports that task as STOPPED.
    pub fn withdraw(&mut self, task_arn: &str) {
        self.deliveries.withdraw(task_arn);
    }

    /// New credentials for a running task, as a frame to send now. The message id is filled in.
    ///
    /// # Errors
    /// When too much is unacknowledged.
    pub fn send_credentials(&mut self, message: IamRoleCredentialsMessage, now: i64) -> Result<ServerFrame, DeliverError> {
        self.deliveries.frame(ServerFrame::IamRoleCredentials(message), now)
    }

    /// Interfaces for a task that is to come, as a frame to send now. Message id and ARNs of cluster and instance are filled in.
    ///
    /// # Errors
    /// When too much is unacknowledged.
    pub fn attach_task_interfaces(
        &mut self,
        mut message: AttachTaskNetworkInterfacesMessage,
        now: i64,
    ) -> Result<ServerFrame, DeliverError> {
        message.cluster_arn.clone_from(&self.cluster_arn);
        message.container_instance_arn.clone_from(&self.container_instance_arn);
        self.deliveries.frame(ServerFrame::AttachTaskNetworkInterfaces(message), now)
    }

    /// A trunk interface for the instance, as a frame to send now. Message id and ARNs are filled in.
    ///
    /// # Errors
    /// When too much is unacknowledged.
    pub fn attach_instance_interfaces(
        &mut self,
        mut message: AttachInstanceNetworkInterfacesMessage,
        now: i64,
    ) -> Result<ServerFrame, DeliverError> {
        message.cluster_arn.clone_from(&self.cluster_arn);
        message.container_instance_arn.clone_from(&self.container_instance_arn);
        self.deliveries.frame(ServerFrame::AttachInstanceNetworkInterfaces(message), now)
    }

    /// Another attachment, as a frame to send now. Message id and ARNs of cluster and instance are filled in.
    ///
    /// # Errors
    /// When too much is unacknowledged.
    pub fn confirm_attachment(&mut self, mut message: ConfirmAttachmentMessage, now: i64) -> Result<ServerFrame, DeliverError> {
        message.cluster_arn.clone_from(&self.cluster_arn);
        message.container_instance_arn.clone_from(&self.container_instance_arn);
        self.deliveries.frame(ServerFrame::ConfirmAttachment(message), now)
    }

    /// All tasks that ought to be on the instance, as a frame to send now. No tasks means that all are to be stopped. An older
    /// manifest's question, if still open, will not be answered any more. `timeline` counts together with
    /// [`ServerSession::deliver`]'s `seq`.
    pub fn manifest(&mut self, tasks: Vec<TaskIdentifier>, timeline: i64, now: i64) -> ServerFrame {
        let message_id = self.deliveries.next_id();
        let wait = self.deliveries.wait(self.manifests_unanswered);
        self.manifest = Some(Manifest {
            message_id: message_id.clone(),
            timeline,
            due: (self.manifests_unanswered < self.options.attempts).then_some(now + wait),
            candidates: HashSet::new(),
            confirmed: false,
        });
        ServerFrame::TaskManifest(TaskManifestMessage {
            cluster_arn: self.cluster_arn.clone(),
            container_instance_arn: self.container_instance_arn.clone(),
            message_id,
            generated_at: Some(now),
            timeline,
            tasks,
        })
    }

    /// The answer to [`Effect::StopsToVerify`], to be sent: of the candidates, those that really are to be stopped. `None` where
    /// there is nothing to say: the manifest is no longer the current one, has been answered before, or none is to be stopped.
    pub fn confirm_stops(&mut self, message_id: &str, stops: Vec<TaskIdentifier>, now: i64) -> Option<ServerFrame> {
        let manifest = self.manifest.as_mut().filter(|manifest| manifest.message_id == message_id && !manifest.confirmed)?;
        // Only what the agent asked about: a task that came meanwhile must not be stopped by an answer about others.
        let stop_tasks: Vec<_> = stops.into_iter().filter(|task| manifest.candidates.contains(&task.task_arn)).collect();
        if stop_tasks.is_empty() {
            return None;
        }
        manifest.confirmed = true;
        Some(ServerFrame::TaskStopVerificationAck(TaskStopVerificationAck {
            message_id: message_id.to_owned(),
            generated_at: Some(now),
            stop_tasks,
        }))
    }

    /// What a frame from the agent means. Any frame counts as a sign of life.
    pub fn on_frame(&mut self, frame: AgentFrame, now: i64) -> Vec<Effect> {
        self.heartbeat.on_frame();
        match frame {
            AgentFrame::HeartbeatAck(_) | AgentFrame::Unknown { .. } => Vec::new(),
            AgentFrame::Ack(ack) => vec![self.on_ack(ack, now)],
            AgentFrame::TableRequest(request) => vec![Effect::TableWanted(request.table)],
            AgentFrame::Nack(nack) => vec![match self.deliveries.settle(&nack.message_id) {
                Some(settled) => Effect::Nacked { subjects: settled.subjects, reason: nack.reason },
                None => Effect::Stray { message_id: nack.message_id },
            }],
            AgentFrame::CredentialsAck(ack) => {
                // With a payload's message id it speaks of the credentials alone: the tasks have an acknowledgement of their own.
                let known = self.deliveries.settle_credentials(&ack.message_id);
                let acked = Effect::CredentialsAcked { expiration: ack.expiration };
                vec![if known { acked } else { Effect::Stray { message_id: ack.message_id } }]
            }
            AgentFrame::TaskStopVerification(question) => {
                let current = self.manifest.as_mut();
                let Some(manifest) = current.filter(|manifest| manifest.message_id == question.message_id && !manifest.confirmed) else {
                    return vec![Effect::Stray { message_id: question.message_id }];
                };
                manifest.candidates = question.stop_candidates.iter().map(|task| task.task_arn.clone()).collect();
                vec![Effect::StopsToVerify { message_id: question.message_id, candidates: question.stop_candidates }]
            }
        }
    }

    /// What is to be done at `now`.
    pub fn on_tick(&mut self, now: i64) -> Tick {
        let mut tick = Tick::default();
        if let Some(silent_ms) = self.heartbeat.silent_for(now) {
            tick.close = Some(CloseReason::HeartbeatsUnanswered { silent_ms });
        }
        if self.heartbeat.due(now) {
            tick.frames.push(self.heartbeat.beat(self.deliveries.next_id(), now));
        }
        self.deliveries.resend(now, &mut tick.frames, &mut tick.given_up);
        if let Some(manifest) = &mut self.manifest
            && manifest.due.is_some_and(|due| due <= now)
        {
            manifest.due = None;
            self.manifests_unanswered += 1;
            tick.manifest_due = true;
        }
        tick.wake_at = self.wake_at();
        tick
    }

    /// When to call [`ServerSession::on_tick`] at the latest.
    pub fn wake_at(&self) -> i64 {
        let manifest = self.manifest.as_ref().and_then(|manifest| manifest.due);
        [self.deliveries.due(), manifest].into_iter().flatten().fold(self.heartbeat.wake_at(), i64::min)
    }

    /// The connection is lost: whatever was not acknowledged, in the order in which it was given. The agent may have it or not;
    /// to deliver it again over the next connection does no harm.
    pub fn into_unacked(self) -> Vec<Subject> {
        self.deliveries.into_subjects()
    }

    fn on_ack(&mut self, ack: AckRequest, now: i64) -> Effect {
        if let Some(manifest) = &mut self.manifest
            && manifest.message_id == ack.message_id
        {
            manifest.due = None;
            self.manifests_unanswered = 0;
            return Effect::ManifestAcked { timeline: manifest.timeline };
        }
        match self.deliveries.settle(&ack.message_id) {
            Some(settled) => Effect::Acked { subjects: settled.subjects, after: now - settled.first_sent },
            None => Effect::Stray { message_id: ack.message_id },
        }
    }
}

/// Whether an agent is Berth's own, by what it says of itself.
fn is_berths(query: &AcsQuery) -> bool {
    query.berth_heartbeat || query.agent_version.to_ascii_lowercase().contains("berth")
}
