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

    /// Has the network enforce a table of security groups.
    ///
    /// # Errors
    /// Says what of it cannot be read or enforced; then the one before holds.
    pub async fn apply_network_table(&self, message: NetworkTableMessage) -> Result<(), String> {
        let table: NetworkTable = serde_json::from_value(message.table).map_err(|error| format!("table: {error}"))?;
        self.means.network.apply_table(&table).await.map_err(|error| error.to_string())
    }
}
