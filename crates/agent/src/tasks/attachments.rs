//! Interfaces that are announced before their tasks, and the table of security groups that goes with them.

use berth_acs::messages::{AttachTaskNetworkInterfacesMessage, NetworkTableMessage};
use berth_network::security_group::NetworkTable;
use berth_shapes::ecs::{AttachmentStateChange, SubmitTaskStateChangeRequest};

use super::Tasks;
use crate::plan::interface;
use crate::reports::Submission;

impl Tasks {
    /// Says of announced interfaces that they are attached. On AWS a device appears, which the agent waits for; here this machine makes it when
    /// the task comes, so that it is there as soon as it can be made.
    ///
    /// # Errors
    /// Names the member that this machine cannot honour; then nothing is said of any.
    pub async fn confirm_interfaces(&self, message: &AttachTaskNetworkInterfacesMessage) -> Result<(), String> {
        if !self.means.network.has_interfaces() {
            return Err("Network interfaces are not supported by this agent".to_owned());
        }
        if message.task_arn.is_empty() || message.wait_timeout_ms <= 0 || message.elastic_network_interfaces.is_empty() {
            return Err("taskArn, waitTimeoutMs above 0 and elasticNetworkInterfaces are required".to_owned());
        }
        for sent in &message.elastic_network_interfaces {
            if sent.attachment_arn.is_empty() {
                return Err("elasticNetworkInterfaces: attachmentArn is required".to_owned());
            }
            interface::read(sent)?;
        }
        let attached = message
            .elastic_network_interfaces
            .iter()
            .map(|sent| AttachmentStateChange { attachment_arn: Some(sent.attachment_arn.clone()), status: Some("ATTACHED".to_owned()) });
        // No status of the task's, as the official agent has it: nothing of the task is here yet.
        let request = SubmitTaskStateChangeRequest {
            cluster: Some(self.means.config.cluster.clone()),
            task: Some(message.task_arn.clone()),
            attachments: Some(attached.collect()),
            ..Default::default()
        };
        // The other end closes only when the agent ends.
        let _ = self.means.submissions.send(Submission { request, done: None }).await;
        Ok(())
    }

    /// Has the network enforce a table of security groups, or what changes of the one before.
    ///
    /// # Errors
    /// [`TableFailure`]; then the one before holds.
    pub async fn apply_network_table(&self, message: NetworkTableMessage) -> Result<(), TableFailure> {
        // Held until it is enforced: tables are enforced in the order in which they came, also over two connections.
        let mut told = self.network_table.lock().await;
        told.take(message)?;
        // What is refused is told all the same: the next changes are of it.
        self.means.network.apply_table(&told.table).await.map_err(|error| TableFailure::Refused(error.to_string()))
    }
}

/// The table of security groups and interfaces that the control plane told last.
#[derive(Debug, Default)]
pub(super) struct ToldTable {
    /// The store's revision that it was made of; `None`: nothing may be built on it.
    revision: Option<u64>,
    table: NetworkTable,
    /// The whole of it was asked for.
    asked: bool,
}

impl ToldTable {
    fn take(&mut self, message: NetworkTableMessage) -> Result<(), TableFailure> {
        let unreadable = |error: serde_json::Error| TableFailure::Refused(format!("table: {error}"));
        let Some(base) = message.base else {
            let table = serde_json::from_value(message.table).map_err(unreadable)?;
            *self = Self { revision: Some(message.revision), table, asked: false };
            return Ok(());
        };
        if self.revision != Some(base) {
            self.revision = None;
            // Once: what was sent before the question is answered is as useless.
            return Err(if std::mem::replace(&mut self.asked, true) { TableFailure::Awaited } else { TableFailure::Missing });
        }
        // What follows cannot build on what was not read.
        self.revision = None;
        self.table.change(serde_json::from_value(message.table).map_err(unreadable)?);
        self.revision = Some(message.revision);
        Ok(())
    }
}

/// Why a table of security groups is not enforced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableFailure {
    /// It is changes of a table that is not here: the whole of it is to be asked for.
    #[error("changes of a table that is not here")]
    Missing,
    /// The same, and that was asked for.
    #[error("the whole table is awaited")]
    Awaited,
    /// It cannot be read or enforced.
    #[error("{0}")]
    Refused(String),
}
