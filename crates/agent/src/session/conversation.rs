//! What is answered to each frame of ACS. It takes tasks on and stops them; it holds no socket.

use std::collections::HashSet;
use std::sync::Arc;

use berth_acs::messages::{
    AckRequest, AgentFrame, DesiredStatus, HeartbeatAckRequest, IamRoleCredentialsAckRequest, IamRoleCredentialsMessage, NackRequest,
    NameNews, PayloadMessage, ReceivedNames, RoleCredentials, RoleType, ServerFrame, TableKind, TableRequest, TaskManifestMessage,
    TaskStopVerificationAck, TaskStopVerificationMessage,
};

use super::Link;
use crate::tasks::{TableFailure, Tasks};

/// A manifest whose stop candidates were sent: its message and the candidates.
#[derive(Debug, Default)]
struct AwaitedVerdict {
    message_id: String,
    candidates: HashSet<String>,
}

/// The conversation over one connection.
pub struct Conversation {
    link: Arc<Link>,
    tasks: Arc<Tasks>,
    verdict: Option<AwaitedVerdict>,
    names: ReceivedNames,
}

impl Conversation {
    pub fn new(link: Arc<Link>, tasks: Arc<Tasks>) -> Self {
        Self { link, tasks, verdict: None, names: ReceivedNames::default() }
    }

    /// Does what a frame asks for and says what to answer.
    pub async fn on_frame(&mut self, frame: ServerFrame) -> Vec<AgentFrame> {
        match frame {
            ServerFrame::Heartbeat(heartbeat) => vec![AgentFrame::HeartbeatAck(HeartbeatAckRequest { message_id: heartbeat.message_id })],
            ServerFrame::Payload(payload) => self.payload(Arc::unwrap_or_clone(payload)).await,
            ServerFrame::TaskManifest(manifest) => self.manifest(manifest),
            ServerFrame::TaskStopVerificationAck(verdict) => {
                self.verdict(verdict);
                Vec::new()
            }
            ServerFrame::IamRoleCredentials(message) => self.credentials(message),
            ServerFrame::StageUpdate(update) | ServerFrame::PerformUpdate(update) => {
                self.nack(update.cluster_arn, update.container_instance_arn, update.message_id, "Updates are disabled")
            }
            ServerFrame::AttachTaskNetworkInterfaces(message) => {
                let outcome = self.tasks.confirm_interfaces(&message).await;
                self.answer(message.cluster_arn, message.container_instance_arn, message.message_id, outcome)
            }
            ServerFrame::NetworkTable(message) => {
                let (cluster, instance, id) =
                    (message.cluster_arn.clone(), message.container_instance_arn.clone(), message.message_id.clone());
                match self.tasks.apply_network_table(message).await {
                    Err(TableFailure::Missing) => vec![wanted(TableKind::Network)],
                    Err(TableFailure::Awaited) => Vec::new(),
                    outcome => self.answer(cluster, instance, id, outcome.map_err(|failure| failure.to_string())),
                }
            }
            ServerFrame::AttachInstanceNetworkInterfaces(message) => self.nack(
                message.cluster_arn,
                message.container_instance_arn,
                message.message_id,
                "Network interfaces are not supported by this agent",
            ),
            ServerFrame::ConfirmAttachment(message) => self.nack(
                message.cluster_arn,
                message.container_instance_arn,
                message.message_id,
                "Attachments are not supported by this agent",
            ),
            ServerFrame::BerthDnsTable(message) => match self.names.take(message) {
                NameNews::Changed => {
                    self.tasks.names().take(self.names.revision().unwrap_or_default(), self.names.table().zones());
                    Vec::new()
                }
                NameNews::Waits => Vec::new(),
                NameNews::Lost => vec![wanted(TableKind::Names)],
            },
            // Words without consequences; a deregistered instance learns of it at the next handshake.
            ServerFrame::Close(text)
            | ServerFrame::Error(text)
            | ServerFrame::ServerException(text)
            | ServerFrame::BadRequestException(text)
            | ServerFrame::InvalidClusterException(text)
            | ServerFrame::InvalidInstanceException(text)
            | ServerFrame::AccessDeniedException(text)
            | ServerFrame::InactiveInstanceException(text) => {
                tracing::info!(message = text.message, "the control plane says");
                Vec::new()
            }
            ServerFrame::Unknown { kind } => {
                tracing::info!(kind, "a message of a type that this agent does not know");
                Vec::new()
            }
        }
    }

    /// Acknowledged once every task of it is in the ledger. Stops come first: they may free what the starts need.
    async fn payload(&self, payload: PayloadMessage) -> Vec<AgentFrame> {
        if payload.message_id.is_empty() {
            return Vec::new();
        }
        let ack = self.ack(payload.cluster_arn, &payload.message_id);
        let (stops, others): (Vec<_>, Vec<_>) = payload.tasks.into_iter().partition(|task| task.desired_status == DesiredStatus::Stopped);
        let mut answers = Vec::new();
        let mut all_taken = true;
        for task in stops.into_iter().chain(others) {
            let arn = task.arn.clone();
            let roles = [
                (RoleType::TaskApplication, task.role_credentials.clone()),
                (RoleType::TaskExecution, task.execution_role_credentials.clone()),
            ];
            if let Err(error) = self.tasks.take(task).await {
                tracing::error!(task = arn, %error, "a task is not taken on, and its message not acknowledged");
                all_taken = false;
                continue;
            }
            for (role, credentials) in roles {
                let Some(credentials) = credentials else { continue };
                answers.push(credentials_ack(&payload.message_id, &credentials));
                self.tasks.keep_credentials(&arn, role, credentials);
            }
        }
        if all_taken {
            answers.push(ack);
        }
        answers
    }

    fn manifest(&mut self, manifest: TaskManifestMessage) -> Vec<AgentFrame> {
        match self.link.advance_timeline(manifest.timeline) {
            Ok(true) => {}
            Ok(false) => return Vec::new(),
            Err(error) => {
                tracing::error!(%error, "a manifest is left alone");
                return Vec::new();
            }
        }
        let mut answers = vec![self.ack(manifest.cluster_arn, &manifest.message_id)];
        let stop_candidates = self.tasks.unlisted(&manifest.tasks);
        let candidates: HashSet<String> = stop_candidates.iter().map(|task| task.task_arn.clone()).collect();
        self.verdict = Some(AwaitedVerdict { message_id: manifest.message_id.clone(), candidates });
        if !stop_candidates.is_empty() {
            answers
                .push(AgentFrame::TaskStopVerification(TaskStopVerificationMessage { message_id: manifest.message_id, stop_candidates }));
        }
        answers
    }

    /// Good once for each manifest, and only for what was asked about.
    fn verdict(&mut self, verdict: TaskStopVerificationAck) {
        let Some(awaited) = self.verdict.take_if(|awaited| awaited.message_id == verdict.message_id) else { return };
        for task in verdict.stop_tasks.iter().filter(|task| awaited.candidates.contains(&task.task_arn)) {
            tracing::warn!(task = task.task_arn, "stopped, because the control plane does not know it");
            self.tasks.stop(&task.task_arn);
        }
    }

    fn credentials(&self, message: IamRoleCredentialsMessage) -> Vec<AgentFrame> {
        if message.message_id.is_empty() {
            return Vec::new();
        }
        let ack = credentials_ack(&message.message_id, &message.role_credentials);
        if self.tasks.keep_credentials(&message.task_arn, message.role_type, message.role_credentials) { vec![ack] } else { Vec::new() }
    }

    fn ack(&self, cluster: String, message_id: &str) -> AgentFrame {
        let container_instance = self.link.identity().container_instance_arn;
        AgentFrame::Ack(AckRequest { cluster, container_instance, message_id: message_id.to_owned() })
    }

    fn answer(&self, cluster: String, container_instance: String, message_id: String, outcome: Result<(), String>) -> Vec<AgentFrame> {
        match outcome {
            Ok(()) => vec![self.ack(cluster, &message_id)],
            Err(reason) => {
                tracing::warn!(message = message_id, reason, "a message of the control plane's is refused");
                self.nack(cluster, container_instance, message_id, &reason)
            }
        }
    }

    fn nack(&self, cluster: String, container_instance: String, message_id: String, reason: &str) -> Vec<AgentFrame> {
        vec![AgentFrame::Nack(NackRequest { cluster, container_instance, message_id, reason: reason.to_owned() })]
    }
}

/// Asks for the whole of a table.
fn wanted(table: TableKind) -> AgentFrame {
    tracing::warn!(?table, "a change of a table was missed; the whole of it is asked for");
    AgentFrame::TableRequest(TableRequest { table })
}

fn credentials_ack(message_id: &str, credentials: &RoleCredentials) -> AgentFrame {
    AgentFrame::CredentialsAck(IamRoleCredentialsAckRequest {
        message_id: message_id.to_owned(),
        expiration: credentials.expiration.clone(),
        credentials_id: credentials.credentials_id.clone(),
    })
}
