//! The ACS connection's life: dial, serve, come back. It decides when to dial and nothing about tasks.

use std::sync::Arc;
use std::time::Duration;

use berth_acs::reconnect::{Backoff, Ending, IdleTimer};
use berth_acs::{AcsQuery, AgentConnection, DialOptions, RefusalKind};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::conversation::Conversation;
use super::{AGENT_HASH, AGENT_VERSION, Link, RUNTIME_VERSION};
use crate::registration::doubled;
use crate::tasks::Tasks;

/// A connection is renewed after this long, and up to five minutes more.
const RENEW_AFTER: Duration = Duration::from_secs(30 * 60);
const RENEW_SPREAD: Duration = Duration::from_secs(5 * 60);
/// Before a deregistered instance registers anew; doubles. The official agent waits an hour: its server has millions to bear.
const INACTIVE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Keeps the agent connected until `stop`. `connected` tells whether it is; `nudge` wakes reports that wait for the server.
pub async fn run(
    link: Arc<Link>,
    tasks: Arc<Tasks>,
    options: DialOptions,
    connected: watch::Sender<bool>,
    nudge: Arc<Notify>,
    stop: CancellationToken,
) {
    let mut session = Session { link, tasks, options, connected, nudge, send_credentials: true };
    let mut backoff = Backoff::default();
    let mut inactive = INACTIVE.0;
    loop {
        let ending = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            ending = session.once(&stop) => ending,
        };
        session.connected.send_replace(false);
        let delay = match &ending {
            Ending::Refused(RefusalKind::InactiveInstanceException) => doubled(&mut inactive, INACTIVE.1),
            other => {
                if matches!(other, Ending::Closed { .. } | Ending::Faulty { .. }) {
                    inactive = INACTIVE.0;
                }
                backoff.after(other, session.link.client.chance().unit())
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(delay) => {}
        }
        if ending == Ending::Refused(RefusalKind::InactiveInstanceException) {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                renewed = session.link.renew() => if let Err(error) = renewed {
                    tracing::error!(%error, "this container instance is not registered any more and cannot register anew");
                },
            }
        }
    }
}

struct Session {
    link: Arc<Link>,
    tasks: Arc<Tasks>,
    options: DialOptions,
    connected: watch::Sender<bool>,
    nudge: Arc<Notify>,
    /// Until the first connection: this process has no task's credentials yet.
    send_credentials: bool,
}

impl Session {
    async fn once(&mut self, stop: &CancellationToken) -> Ending {
        let link = self.link.clone();
        let endpoint = match link.endpoints().await {
            Ok(endpoints) => endpoints.acs,
            Err(error) => {
                tracing::warn!(%error, "nobody says where to connect");
                return Ending::Unreachable;
            }
        };
        let query = AcsQuery {
            agent_hash: AGENT_HASH.to_owned(),
            agent_version: AGENT_VERSION.to_owned(),
            cluster: link.config.cluster.clone(),
            container_instance_arn: link.identity().container_instance_arn,
            docker_version: format!("DockerVersion: {RUNTIME_VERSION}"),
            protocol_version: 2,
            send_credentials: self.send_credentials,
            seq_num: 1,
            berth_heartbeat: true,
            berth_dns: self.tasks.names().wants_tables(),
            berth_differences: true,
        };
        let sign = |host: &str, path: &str| link.sign_handshake(host, path);
        match AgentConnection::connect(&endpoint, &query.render(), sign, &self.options).await {
            Ok(connection) => {
                self.send_credentials = false;
                self.serve(connection, stop).await
            }
            Err(error) => {
                tracing::warn!(%error, endpoint, "no connection to the control plane");
                if error.ending() == Ending::Unreachable {
                    link.doubt_endpoints();
                }
                error.ending()
            }
        }
    }

    async fn serve(&mut self, mut connection: AgentConnection, stop: &CancellationToken) -> Ending {
        let chance = self.link.client.chance().clone();
        let opened = Instant::now();
        let renew_at = opened + RENEW_AFTER + RENEW_SPREAD.mul_f64(chance.unit());
        // By how long it has lived, not by the clock: a clock that is set must neither end connections nor keep dead ones.
        let age = || i64::try_from(opened.elapsed().as_millis()).unwrap_or(i64::MAX);
        let mut idle = IdleTimer::new(age(), true, chance.unit());
        let mut conversation = Conversation::new(self.link.clone(), self.tasks.clone());
        tracing::info!(container_instance = self.link.identity().container_instance_arn, "connected to the control plane");
        self.connected.send_replace(true);
        self.nudge.notify_waiters();
        loop {
            let lived = || opened.elapsed();
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ending::Closed { lived: lived() },
                frame = connection.next() => match frame {
                    None => return Ending::Closed { lived: lived() },
                    Some(Ok(frame)) => {
                        idle.on_frame(age());
                        let answers = conversation.on_frame(frame).await;
                        if let Err(error) = connection.send_all(&answers).await {
                            tracing::warn!(%error, "the control plane cannot be answered");
                            if error.is_fatal() {
                                return Ending::Closed { lived: lived() };
                            }
                        }
                    }
                    Some(Err(error)) => {
                        tracing::warn!(%error, "a frame of the control plane's cannot be read");
                        if error.is_fatal() {
                            return Ending::Closed { lived: lived() };
                        }
                    }
                },
                () = tokio::time::sleep_until(opened + Duration::from_millis(idle.wake_at().unsigned_abs())) => if idle.expired(age()) {
                    tracing::warn!("the control plane is silent; it is dialled again");
                    return Ending::Faulty { lived: lived() };
                },
                () = tokio::time::sleep_until(renew_at) => {
                    // The other side may be gone already.
                    let _ = connection.close(1000, "ConnectionExpired: Reconnect to continue").await;
                    return Ending::Closed { lived: lived() };
                }
            }
        }
    }
}
