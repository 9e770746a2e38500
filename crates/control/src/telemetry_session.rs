//! One agent's TCS connection: takes its telemetry, answers it, folds container health into the state. Metrics go nowhere yet
//! but to the debug log: their store is a crate of its own.

use std::time::Duration;

use berth_acs::messages::{HealthStatus as WireHealth, PublishHealthRequest};
use berth_acs::server_socket::SignedTelemetry;
use berth_acs::{TelemetryFrame, TelemetryQuery, TelemetryServerConnection};
use berth_model::arn::{parse_agents_cluster, parse_agents_task};
use berth_model::ids::ClusterName;
use berth_model::task::HealthStatus;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{Control, observe};

/// Agents publish every 20 s; one that says nothing for this long is gone.
const IDLE: Duration = Duration::from_secs(300);

/// A connection that was let in.
pub struct TelemetrySession {
    control: Control,
    cluster: ClusterName,
}

impl Control {
    /// Lets an agent's telemetry in; `None` if the cluster's name is none.
    #[must_use]
    pub fn open_telemetry(&self, query: &TelemetryQuery) -> Option<TelemetrySession> {
        let cluster = parse_agents_cluster(&self.shared.environment.scope, Some(&query.cluster)).ok()?;
        Some(TelemetrySession { control: self.clone(), cluster })
    }
}

impl TelemetrySession {
    /// Serves the connection until it ends. `is_genuine` checks a frame's signature; a frame that fails ends the connection.
    pub async fn run<S: AsyncRead + AsyncWrite + Unpin>(
        self,
        mut connection: TelemetryServerConnection<S>,
        is_genuine: impl Fn(&SignedTelemetry) -> bool,
    ) {
        while let Ok(Some(frame)) = tokio::time::timeout(IDLE, connection.next()).await {
            match frame {
                Ok(signed) if is_genuine(&signed) => {
                    if let TelemetryFrame::Health(health) = &signed.frame {
                        self.fold_health(health).await;
                    }
                    let Some(answer) = signed.frame.answer() else { continue };
                    if connection.send(&answer).await.is_err() {
                        return;
                    }
                }
                Ok(_) => {
                    tracing::warn!(cluster = %self.cluster, "a telemetry frame's signature is wrong");
                    let _ = connection.close(1008, "AccessDeniedException").await;
                    return;
                }
                Err(error) if error.is_fatal() => return,
                Err(error) => tracing::warn!(cluster = %self.cluster, %error, "an agent sent telemetry that cannot be read"),
            }
        }
        let _ = connection.close(1000, "").await;
    }

    async fn fold_health(&self, health: &PublishHealthRequest) {
        let scope = &self.control.shared.environment.scope;
        for task in &health.tasks {
            let Ok((cluster, id)) = parse_agents_task(scope, &self.cluster, &task.task_arn) else { continue };
            let containers: Vec<_> = task
                .containers
                .iter()
                .map(|container| {
                    let status = match container.health_status {
                        WireHealth::Healthy => HealthStatus::Healthy,
                        WireHealth::Unhealthy => HealthStatus::Unhealthy,
                        WireHealth::Unknown => HealthStatus::Unknown,
                    };
                    (container.container_name.clone(), status)
                })
                .collect();
            if let Err(error) = observe::container_health(&self.control.shared.store, &cluster, id, &containers).await {
                tracing::warn!(task = scope.task(&cluster, id), %error, "cannot note a container's health");
            }
        }
    }
}
