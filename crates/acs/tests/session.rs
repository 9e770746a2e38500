//! The server's state machine under virtual time: every way in which a message can be lost, late, repeated or refused.

mod session_properties;

use berth_acs::messages::*;
use berth_acs::server::{CloseReason, DeliverError};
use berth_acs::{AcsQuery, AgentFrame, Effect, ServerFrame, ServerSession, SessionOptions, Subject};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const CLUSTER: &str = "arn:aws:ecs:us-east-1:000000000000:cluster/default";
const INSTANCE: &str = "arn:aws:ecs:us-east-1:000000000000:container-instance/default/0123";

fn query(protocol_version: u32, agent_version: &str) -> AcsQuery {
    AcsQuery {
        agent_hash: String::new(),
        agent_version: agent_version.into(),
        cluster: "default".into(),
        container_instance_arn: INSTANCE.into(),
        docker_version: String::new(),
        protocol_version,
        send_credentials: true,
        seq_num: 1,
        berth_heartbeat: false,
        berth_dns: false,
        berth_differences: false,
    }
}

fn session_with(options: SessionOptions) -> ServerSession {
    ServerSession::on_connect(query(2, "1.105.1"), CLUSTER, INSTANCE, 7, options, 0)
}

fn session() -> ServerSession {
    session_with(SessionOptions::default())
}

fn run(arn: &str) -> Task {
    Task { arn: arn.into(), desired_status: DesiredStatus::Running, ..Task::default() }
}

fn stop(arn: &str) -> Task {
    Task { arn: arn.into(), desired_status: DesiredStatus::Stopped, ..Task::default() }
}

fn subject(arn: &str, desired_status: DesiredStatus, seq: i64) -> Subject {
    Subject::Task { arn: arn.into(), desired_status, seq }
}

fn running(arn: &str, seq: i64) -> Subject {
    subject(arn, DesiredStatus::Running, seq)
}

fn payload(frame: &ServerFrame) -> &PayloadMessage {
    match frame {
        ServerFrame::Payload(payload) => payload,
        other => panic!("expected a payload, not {other:?}"),
    }
}

fn arns(frame: &ServerFrame) -> Vec<&str> {
    payload(frame).tasks.iter().map(|task| task.arn.as_str()).collect()
}

fn ack(message_id: &str) -> AgentFrame {
    AgentFrame::Ack(AckRequest { cluster: "default".into(), container_instance: INSTANCE.into(), message_id: message_id.into() })
}

fn heartbeat_ack() -> AgentFrame {
    AgentFrame::HeartbeatAck(HeartbeatAckRequest::default())
}

fn stray(message_id: &str) -> Vec<Effect> {
    vec![Effect::Stray { message_id: message_id.into() }]
}

fn payloads(frames: &[ServerFrame]) -> Vec<&PayloadMessage> {
    frames.iter().filter_map(|frame| if let ServerFrame::Payload(payload) = frame { Some(&**payload) } else { None }).collect()
}

#[test]
fn a_payload_is_acknowledged_once() {
    let mut session = session();
    let frames = session.deliver(vec![run("a"), run("b")], 41, 1000).unwrap();
    assert_eq!(frames.len(), 1);
    let sent = payload(&frames[0]);
    assert_eq!((sent.seq_num, sent.cluster_arn.as_str(), sent.container_instance_arn.as_str()), (41, CLUSTER, INSTANCE));
    assert_eq!((sent.generated_at, arns(&frames[0])), (Some(1000), vec!["a", "b"]));
    assert_eq!(session.pending(), 2);
    assert_eq!(
        session.on_frame(ack(&sent.message_id), 1300),
        [Effect::Acked { subjects: vec![running("a", 41), running("b", 41)], after: 300 }]
    );
    assert_eq!(session.pending(), 0);
    assert_eq!(session.on_frame(ack(&sent.message_id), 1301), stray(&sent.message_id));
    assert_eq!(session.into_unacked(), []);
}

#[test]
fn what_is_not_acknowledged_is_sent_again_with_growing_delays_and_then_given_up() {
    let mut session = session();
    session.on_tick(0);
    let frames = session.deliver(vec![run("a")], 1, 0).unwrap();
    let id = payload(&frames[0]).message_id.clone();
    let mut sent_at = vec![0];
    let mut now = 0;
    let given_up = loop {
        session.on_frame(heartbeat_ack(), now);
        let next = session.wake_at();
        assert!(next > now, "time must go on");
        now = next;
        let tick = session.on_tick(now);
        assert_eq!(tick.close, None);
        for again in payloads(&tick.frames) {
            assert_eq!(again.message_id, id, "a lone task keeps its message id, so that a late acknowledgement finds it");
            sent_at.push(now);
        }
        if !tick.given_up.is_empty() {
            break tick.given_up;
        }
    };
    assert_eq!(sent_at, [0, 5_000, 15_000, 35_000, 75_000, 135_000, 195_000, 255_000]);
    assert_eq!((now, given_up), (315_000, vec![running("a", 1)]));
    assert_eq!(session.pending(), 0);
    assert_eq!(session.on_frame(ack(&id), now), stray(&id));
}

#[test]
fn what_has_ended_is_not_sent_again_and_the_rest_of_its_payload_is() {
    let mut session = session();
    session.deliver(vec![run("ended"), run("other")], 1, 0).unwrap();
    session.withdraw("ended");
    session.withdraw("never heard of");
    assert_eq!(session.pending(), 1);
    let tick = session.on_tick(5_000);
    assert_eq!(payloads(&tick.frames).iter().map(|again| again.tasks[0].arn.as_str()).collect::<Vec<_>>(), ["other"]);
    session.withdraw("other");
    assert_eq!((session.pending(), payloads(&session.on_tick(60_000).frames).len()), (0, 0));
}

#[test]
fn a_late_acknowledgement_counts() {
    let mut session = session();
    let id = payload(&session.deliver(vec![run("a")], 1, 0).unwrap()[0]).message_id.clone();
    assert_eq!(payloads(&session.on_tick(5_000).frames).len(), 1);
    assert_eq!(session.on_frame(ack(&id), 9_000), [Effect::Acked { subjects: vec![running("a", 1)], after: 9_000 }]);
    assert_eq!(payloads(&session.on_tick(60_000).frames).len(), 0);
}

#[test]
fn a_task_that_cannot_be_taken_does_not_hold_back_the_others() {
    let mut session = session();
    let whole = payload(&session.deliver(vec![run("good"), run("bad"), run("fine")], 1, 0).unwrap()[0]).message_id.clone();
    assert_eq!(payloads(&session.on_tick(5_000).frames)[0].tasks.len(), 3);
    let tick = session.on_tick(15_000);
    let parts = payloads(&tick.frames);
    assert_eq!(parts.iter().map(|part| part.tasks.len()).collect::<Vec<_>>(), [1, 1, 1]);
    assert!(parts.iter().all(|part| part.seq_num == 1 && part.message_id != whole));
    assert_eq!(session.on_frame(ack(&parts[0].message_id), 15_100), [Effect::Acked { subjects: vec![running("good", 1)], after: 15_100 }]);
    assert_eq!(session.pending(), 2);
    // An acknowledgement of the whole that was on its way meanwhile settles what is left.
    assert_eq!(
        session.on_frame(ack(&whole), 15_200),
        [Effect::Acked { subjects: vec![running("bad", 1), running("fine", 1)], after: 15_200 }]
    );
    assert_eq!(session.pending(), 0);
}

#[test]
fn a_newer_word_on_a_task_replaces_the_older() {
    let mut session = session();
    let first = payload(&session.deliver(vec![run("a"), run("b")], 1, 0).unwrap()[0]).message_id.clone();
    let second = payload(&session.deliver(vec![stop("a")], 2, 10).unwrap()[0]).message_id.clone();
    assert_eq!(session.pending(), 2);
    // A start that comes after the stop is old news.
    assert_eq!(session.deliver(vec![run("a")], 3, 20).unwrap(), []);
    let tick = session.on_tick(6_000);
    let again = payloads(&tick.frames);
    assert_eq!(again.iter().map(|sent| (sent.tasks[0].arn.as_str(), sent.tasks.len())).collect::<Vec<_>>(), [("b", 1), ("a", 1)]);
    assert_eq!(session.on_frame(ack(&first), 6_100), [Effect::Acked { subjects: vec![running("b", 1)], after: 6_100 }]);
    assert_eq!(
        session.on_frame(ack(&second), 6_100),
        [Effect::Acked { subjects: vec![subject("a", DesiredStatus::Stopped, 2)], after: 6_090 }]
    );
    // Replaced as a whole, the first message waits for nothing.
    let first = payload(&session.deliver(vec![run("c")], 4, 7_000).unwrap()[0]).message_id.clone();
    session.deliver(vec![stop("c")], 5, 7_000).unwrap();
    assert_eq!(session.on_frame(ack(&first), 7_001), stray(&first));
    assert_eq!(session.into_unacked(), [subject("c", DesiredStatus::Stopped, 5)]);
}

#[test]
fn one_delivery_holds_the_last_word_only() {
    let mut session = session();
    let frames = session.deliver(vec![run("a"), run("b"), stop("a"), run("a")], 1, 0).unwrap();
    assert_eq!(arns(&frames[0]), ["a", "b"]);
    assert_eq!(payload(&frames[0]).tasks[0].desired_status, DesiredStatus::Stopped);
}

#[test]
fn large_deliveries_become_several_payloads() {
    let mut session = session();
    let many: Vec<Task> = (0..70).map(|number| run(&number.to_string())).collect();
    let sizes: Vec<usize> = session.deliver(many, 1, 0).unwrap().iter().map(|frame| arns(frame).len()).collect();
    assert_eq!(sizes, [32, 32, 6]);

    let large = |arn: &str, size: usize| Task { family: "x".repeat(size), ..run(arn) };
    let frames = session.deliver(vec![large("l1", 600_000), large("l2", 600_000), run("l3")], 2, 0).unwrap();
    assert_eq!(frames.iter().map(|frame| arns(frame).len()).collect::<Vec<_>>(), [1, 2]);
    assert!(frames.iter().all(|frame| frame.encode().is_ok()));

    let before = session.pending();
    let error = session.deliver(vec![run("ok"), large("huge", 1_100_000)], 3, 0).unwrap_err();
    assert!(matches!(&error, DeliverError::TaskTooLarge { arn, .. } if arn == "huge"), "{error}");
    assert_eq!(session.pending(), before, "nothing is taken");
}

#[test]
fn what_waits_is_bounded() {
    let mut session = session_with(SessionOptions { most_pending: 3, ..SessionOptions::default() });
    session.deliver(vec![run("a"), run("b")], 1, 0).unwrap();
    assert_eq!(session.deliver(vec![run("c"), run("d")], 2, 0), Err(DeliverError::Full { pending: 2, limit: 3 }));
    // A replacement needs no room.
    assert!(session.deliver(vec![stop("a"), run("c")], 3, 0).is_ok());
    assert!(session.send_credentials(IamRoleCredentialsMessage::default(), 0).is_err());
    assert!(session.deliver(vec![stop("b")], 4, 0).is_ok());
    assert_eq!(session.pending(), 3);
}

#[test]
fn refusals_and_credentials() {
    let mut session = session();
    assert!(session.wants_credentials());
    let message = IamRoleCredentialsMessage {
        task_arn: "t".into(),
        role_type: RoleType::TaskExecution,
        role_credentials: RoleCredentials { credentials_id: "c".into(), ..RoleCredentials::default() },
        ..IamRoleCredentialsMessage::default()
    };
    let ServerFrame::IamRoleCredentials(sent) = session.send_credentials(message.clone(), 0).unwrap() else { panic!("credentials") };
    assert!(!sent.message_id.is_empty());
    let credentials_ack = |message_id: &str| {
        AgentFrame::CredentialsAck(IamRoleCredentialsAckRequest {
            message_id: message_id.into(),
            expiration: "e".into(),
            credentials_id: "c".into(),
        })
    };
    let acked = vec![Effect::CredentialsAcked { expiration: "e".into() }];
    assert_eq!(session.on_frame(credentials_ack(&sent.message_id), 1), acked);
    assert_eq!(session.pending(), 0);

    // Those that came in a payload are acknowledged under its id, in any order with its own acknowledgement.
    let id = payload(&session.deliver(vec![run("a")], 1, 0).unwrap()[0]).message_id.clone();
    assert_eq!(session.on_frame(credentials_ack(&id), 1), acked);
    assert_eq!(session.pending(), 1);
    session.on_frame(ack(&id), 1);
    assert_eq!(session.on_frame(credentials_ack(&id), 1), acked);
    assert_eq!(session.on_frame(credentials_ack("elsewhere"), 1), stray("elsewhere"));

    let ServerFrame::ConfirmAttachment(sent) = session.confirm_attachment(ConfirmAttachmentMessage::default(), 0).unwrap() else {
        panic!("an attachment")
    };
    assert_eq!((sent.cluster_arn.as_str(), sent.container_instance_arn.as_str()), (CLUSTER, INSTANCE));
    let nack = NackRequest { message_id: sent.message_id.clone(), reason: "no".into(), ..NackRequest::default() };
    let attachment = Subject::Attachment { task_arn: String::new(), attachment_arns: vec![String::new()] };
    assert_eq!(session.on_frame(AgentFrame::Nack(nack.clone()), 1), [Effect::Nacked { subjects: vec![attachment], reason: "no".into() }]);
    assert_eq!(session.on_frame(AgentFrame::Nack(nack), 1), stray(&sent.message_id));

    session.send_credentials(message, 2).unwrap();
    let again = session.on_tick(6_000).frames;
    assert!(again.iter().any(|frame| matches!(frame, ServerFrame::IamRoleCredentials(_))), "{again:?}");
    let lost = Subject::Credentials { task_arn: "t".into(), role_type: RoleType::TaskExecution };
    assert_eq!(session.into_unacked(), [lost]);
}

fn identifier(arn: &str) -> TaskIdentifier {
    TaskIdentifier { task_arn: arn.into(), task_cluster_arn: CLUSTER.into(), desired_status: DesiredStatus::Stopped }
}

fn manifest_id(frame: &ServerFrame) -> String {
    match frame {
        ServerFrame::TaskManifest(manifest) => manifest.message_id.clone(),
        other => panic!("expected a manifest, not {other:?}"),
    }
}

fn question(message_id: &str, arns: &[&str]) -> AgentFrame {
    AgentFrame::TaskStopVerification(TaskStopVerificationMessage {
        message_id: message_id.into(),
        stop_candidates: arns.iter().map(|arn| identifier(arn)).collect(),
    })
}

#[test]
fn a_manifest_stops_only_what_was_asked_about_and_once() {
    let mut session = session();
    let id = manifest_id(&session.manifest(vec![], 9, 0));
    assert_eq!(session.confirm_stops(&id, vec![identifier("a")], 0), None, "nobody has asked");
    assert_eq!(session.on_frame(ack(&id), 1), [Effect::ManifestAcked { timeline: 9 }]);
    let asked = Effect::StopsToVerify { message_id: id.clone(), candidates: vec![identifier("a"), identifier("b")] };
    assert_eq!(session.on_frame(question(&id, &["a", "b"]), 2), [asked]);
    assert_eq!(session.confirm_stops(&id, vec![], 3), None);
    let Some(ServerFrame::TaskStopVerificationAck(answer)) = session.confirm_stops(&id, vec![identifier("a"), identifier("new")], 3) else {
        panic!("an answer")
    };
    assert_eq!((answer.message_id.as_str(), answer.stop_tasks), (id.as_str(), vec![identifier("a")]));
    assert_eq!(session.confirm_stops(&id, vec![identifier("b")], 4), None, "good once for each manifest");
    assert_eq!(session.on_frame(question(&id, &["b"]), 5), stray(&id));
}

#[test]
fn an_old_manifests_question_is_not_answered() {
    let mut session = session();
    let old = manifest_id(&session.manifest(vec![], 9, 0));
    session.on_frame(question(&old, &["a"]), 1);
    let new = manifest_id(&session.manifest(vec![identifier("a")], 10, 2));
    assert_eq!(session.confirm_stops(&old, vec![identifier("a")], 3), None);
    assert_eq!(session.on_frame(question(&old, &["a"]), 3), stray(&old));
    assert_eq!(session.on_frame(ack(&old), 3), stray(&old));
    assert_eq!(session.on_frame(ack(&new), 3), [Effect::ManifestAcked { timeline: 10 }]);
}

#[test]
fn an_unanswered_manifest_asks_for_a_newer_one_ever_more_rarely() {
    let mut session = session();
    session.manifest(vec![], 1, 0);
    assert!(!session.on_tick(4_999).manifest_due);
    assert!(session.on_tick(5_000).manifest_due);
    assert!(!session.on_tick(5_001).manifest_due, "once");
    session.manifest(vec![], 2, 5_001);
    assert!(!session.on_tick(15_000).manifest_due);
    assert!(session.on_tick(15_001).manifest_due);
    let id = manifest_id(&session.manifest(vec![], 3, 15_001));
    session.on_frame(ack(&id), 15_002);
    assert!(!session.on_tick(1_000_000).manifest_due);
    // An agent that knows no manifests is left in peace in the end.
    for number in 0..8 {
        session.manifest(vec![], 4 + number, 2_000_000 * (number + 1));
        assert!(session.on_tick(2_000_000 * (number + 1) + 60_000).manifest_due, "{number}");
    }
    session.manifest(vec![], 99, 20_000_000);
    assert!(!session.on_tick(30_000_000).manifest_due);
}

#[test]
fn heartbeats_come_in_time_and_silence_ends_the_session() {
    let mut session = session();
    let beats = |frames: &[ServerFrame]| frames.iter().filter(|frame| matches!(frame, ServerFrame::Heartbeat(_))).count();
    let first = session.on_tick(0);
    assert_eq!((beats(&first.frames), first.wake_at), (1, 20_000));
    assert_eq!(beats(&session.on_tick(19_999).frames), 0);
    session.on_frame(heartbeat_ack(), 19_999);
    let second = session.on_tick(20_000);
    assert_eq!((beats(&second.frames), second.close), (1, None));
    assert_eq!(session.on_tick(40_000).close, None);
    assert_eq!(session.on_tick(60_000).wake_at, 80_000);
    assert_eq!(session.on_tick(79_999).close, None);
    assert_eq!(session.on_tick(80_000).close, Some(CloseReason::HeartbeatsUnanswered { silent_ms: 60_000 }));
    // Anything at all is a sign of life.
    session.on_frame(AgentFrame::Unknown { kind: "New".into() }, 80_001);
    assert_eq!(session.on_tick(80_001).close, None);
}

#[test]
fn a_heartbeat_that_is_late_does_not_move_those_after_it() {
    let mut session = session();
    assert_eq!(session.on_tick(300).wake_at, 20_000);
    session.on_frame(heartbeat_ack(), 400);
    assert_eq!(session.on_tick(29_000).wake_at, 40_000);
    session.on_frame(heartbeat_ack(), 29_001);
    assert_eq!(session.on_tick(65_000).wake_at, 85_000, "what was missed is not made up for");
    session.ask_pulse(70_000);
    session.on_frame(heartbeat_ack(), 70_000);
    assert_eq!(session.on_tick(70_000).wake_at, 90_000, "asked for, and counted from then on");
}

#[test]
fn heartbeats_fit_the_agent() {
    let wake = |query: AcsQuery| {
        let mut session = ServerSession::on_connect(query, CLUSTER, INSTANCE, 1, SessionOptions::default(), 0);
        let wake = session.on_tick(0).wake_at;
        (wake, session.on_tick(5_000).close.is_some(), session.on_tick(600_000).close.is_some())
    };
    assert_eq!(wake(query(2, "1.105.1")), (20_000, false, true));
    assert_eq!(wake(query(1, "1.105.1")), (20_000, false, false), "protocol version 1 knows no missing acknowledgements");
    assert_eq!(wake(query(2, "Berth 0.1.0")), (2_500, true, true));
    assert_eq!(wake(AcsQuery { berth_heartbeat: true, ..query(2, "x") }), (2_500, true, true));
}

#[test]
fn nothing_an_old_connection_says_counts_in_a_new_one() {
    let mut old = session();
    let id = payload(&old.deliver(vec![run("a")], 1, 0).unwrap()[0]).message_id.clone();
    let unacked = old.into_unacked();
    assert_eq!(unacked, [running("a", 1)]);
    let mut new = ServerSession::on_connect(query(2, "1.105.1"), CLUSTER, INSTANCE, 8, SessionOptions::default(), 100);
    assert_eq!(new.generation(), 8);
    let again = payload(&new.deliver(vec![run("a")], 2, 100).unwrap()[0]).message_id.clone();
    assert_ne!(id, again);
    assert_eq!(new.on_frame(ack(&id), 101), stray(&id));
    assert_eq!(new.pending(), 1);
    for nonsense in ["", "-", "7-zz", "no dash", "0000000000000008-ffffffffffff"] {
        assert_eq!(new.on_frame(ack(nonsense), 101), stray(nonsense));
    }
}
