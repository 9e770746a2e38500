//! An agent that takes what it is told and runs nothing: the real protocol's connection, without containers.

use std::error::Error;
use std::time::{SystemTime, UNIX_EPOCH};

use berth_acs::messages::{AckRequest, HeartbeatAckRequest};
use berth_acs::{AcsQuery, AgentConnection, AgentFrame, DialOptions, ServerFrame};
use berth_identity::AccessKey;
use berth_identity::sigv4::sign_headers;

/// An agent that acknowledges everything and runs nothing.
pub(super) struct HollowAgent {
    stop: tokio::sync::oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl HollowAgent {
    pub(super) fn start(authority: &str, key: &AccessKey, arn: &str) -> Result<Self, Box<dyn Error>> {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let (endpoint, key, arn) = (format!("http://{authority}"), key.clone(), arn.to_owned());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
            runtime.block_on(async {
                let mut connection = match connect(&endpoint, &key, &arn, false).await {
                    Ok(connection) => connection,
                    Err(error) => return drop(ready.send(Err(error))),
                };
                let _ = ready.send(Ok(()));
                tokio::select! {
                    () = acknowledge(&mut connection, &arn) => {}
                    _ = stopped => {}
                }
            });
        });
        is_ready.recv()??;
        Ok(Self { stop, thread })
    }

    pub(super) fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

/// Opens an instance's connection. `brisk`: with a heartbeat every second, as Berth's own agent wants it.
pub(super) async fn connect(endpoint: &str, key: &AccessKey, arn: &str, brisk: bool) -> Result<AgentConnection, String> {
    let query = AcsQuery {
        agent_hash: String::new(),
        agent_version: "1.0.0".into(),
        cluster: "default".into(),
        container_instance_arn: arn.to_owned(),
        docker_version: String::new(),
        protocol_version: 2,
        send_credentials: true,
        seq_num: 1,
        berth_heartbeat: brisk,
    };
    let sign = |host: &str, uri: &str| {
        let now_unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0));
        let signed = sign_headers(&key.signing_params("us-east-1", "ecs", now_unix), "GET", uri, &[("host", host)], b"");
        signed.pairs().filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?))).collect()
    };
    AgentConnection::connect(endpoint, &query.render(), sign, &DialOptions::default()).await.map_err(|error| error.to_string())
}

async fn acknowledge(connection: &mut AgentConnection, arn: &str) {
    while let Some(Ok(frame)) = connection.next().await {
        if let Some(answer) = acknowledgement(&frame, arn)
            && connection.send(&answer).await.is_err()
        {
            return;
        }
    }
}

/// What an agent answers a frame with at once.
pub(super) fn acknowledgement(frame: &ServerFrame, arn: &str) -> Option<AgentFrame> {
    let ack = |message_id: &String| {
        Some(AgentFrame::Ack(AckRequest { cluster: "default".into(), container_instance: arn.to_owned(), message_id: message_id.clone() }))
    };
    match frame {
        ServerFrame::Heartbeat(heartbeat) => {
            Some(AgentFrame::HeartbeatAck(HeartbeatAckRequest { message_id: heartbeat.message_id.clone() }))
        }
        ServerFrame::Payload(payload) => ack(&payload.message_id),
        ServerFrame::TaskManifest(manifest) => ack(&manifest.message_id),
        _ => None,
    }
}
