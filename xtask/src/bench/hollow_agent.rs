//! What an agent that runs nothing needs of the real protocol: its connection, and what it answers at once.

use std::time::{SystemTime, UNIX_EPOCH};

use berth_acs::messages::{AckRequest, HeartbeatAckRequest};
use berth_acs::{AcsQuery, AgentConnection, AgentFrame, DialOptions, ServerFrame};
use berth_identity::AccessKey;
use berth_identity::sigv4::sign_headers;

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
        berth_dns: false,
        berth_differences: false,
    };
    let sign = |host: &str, uri: &str| {
        let now_unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0));
        let signed = sign_headers(&key.signing_params("us-east-1", "ecs", now_unix), "GET", uri, &[("host", host)], b"");
        signed.pairs().filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?))).collect()
    };
    AgentConnection::connect(endpoint, &query.render(), sign, &DialOptions::default()).await.map_err(|error| error.to_string())
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
