//! Any order of steps and losses: nothing is acknowledged that was not, and everything ends.

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Run(u8),
    Stop(u8),
    RunMany(u8),
    /// Of all payloads ever sent in this session, this one arrives and is acknowledged.
    Ack(prop::sample::Index),
    Nack(prop::sample::Index),
    Wait(i64),
    LoseSocket,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..12_u8).prop_map(Step::Run),
        2 => (0..12_u8).prop_map(Step::Stop),
        1 => (1..40_u8).prop_map(Step::RunMany),
        4 => any::<prop::sample::Index>().prop_map(Step::Ack),
        1 => any::<prop::sample::Index>().prop_map(Step::Nack),
        3 => (1..70_000_i64).prop_map(Step::Wait),
        1 => Just(Step::LoseSocket),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    /// Whatever the order of acknowledgements and losses: the last word on every task ends exactly once, as acknowledged,
    /// refused, given up or handed back; and a word that ends is one that was sent.
    #[test]
    fn no_task_is_ever_forgotten(steps in steps()) {
        let mut session = session();
        let mut generation = 7;
        let (mut now, mut seq) = (0, 0);
        let mut sent: Vec<String> = Vec::new();
        // What the model expects to be waiting: task -> (status, seq).
        let mut waiting: BTreeMap<String, (DesiredStatus, i64)> = BTreeMap::new();
        let mut delivered: BTreeSet<(String, i64)> = BTreeSet::new();
        let finish = |subjects: Vec<Subject>, waiting: &mut BTreeMap<String, (DesiredStatus, i64)>| {
            for subject in subjects {
                let Subject::Task { arn, desired_status, seq } = subject else { panic!("only tasks were sent") };
                assert_eq!(waiting.remove(&arn), Some((desired_status, seq)), "{arn} was not waiting in this form");
            }
        };
        for step in steps {
            let tasks = match &step {
                Step::Run(number) => vec![run(&format!("t{number}"))],
                Step::Stop(number) => vec![stop(&format!("t{number}"))],
                Step::RunMany(count) => (0..*count).map(|number| run(&format!("t{number}"))).collect(),
                _ => vec![],
            };
            if !tasks.is_empty() {
                seq += 1;
                for frame in session.deliver(tasks.clone(), seq, now).unwrap() {
                    sent.push(payload(&frame).message_id.clone());
                    delivered.extend(payload(&frame).tasks.iter().map(|task| (task.arn.clone(), seq)));
                }
                for task in tasks {
                    let stopping = waiting.get(&task.arn).is_some_and(|old| old.0 == DesiredStatus::Stopped);
                    if !(stopping && task.desired_status == DesiredStatus::Running) {
                        waiting.insert(task.arn.clone(), (task.desired_status, seq));
                    }
                }
            }
            match step {
                Step::Ack(which) if !sent.is_empty() => {
                    for effect in session.on_frame(ack(which.get::<String>(&sent)), now) {
                        if let Effect::Acked { subjects, .. } = effect { finish(subjects, &mut waiting) }
                    }
                }
                Step::Nack(which) if !sent.is_empty() => {
                    let nack = NackRequest { message_id: which.get::<String>(&sent).clone(), ..NackRequest::default() };
                    for effect in session.on_frame(AgentFrame::Nack(nack), now) {
                        if let Effect::Nacked { subjects, .. } = effect { finish(subjects, &mut waiting) }
                    }
                }
                Step::Wait(time) => {
                    now += time;
                    let tick = session.on_tick(now);
                    prop_assert!(tick.wake_at > now || tick.close.is_some());
                    for again in payloads(&tick.frames) {
                        prop_assert!(again.tasks.iter().all(|task| waiting[&task.arn].0 == task.desired_status));
                        sent.push(again.message_id.clone());
                    }
                    finish(tick.given_up, &mut waiting);
                }
                Step::LoseSocket => {
                    generation += 1;
                    let next = ServerSession::on_connect(query(2, "1"), CLUSTER, INSTANCE, generation, SessionOptions::default(), now);
                    finish(std::mem::replace(&mut session, next).into_unacked(), &mut waiting);
                    prop_assert!(waiting.is_empty(), "lost with the socket: {waiting:?}");
                }
                _ => {}
            }
            prop_assert_eq!(session.pending(), waiting.len());
        }
        finish(session.into_unacked(), &mut waiting);
        prop_assert!(waiting.is_empty(), "never heard of again: {waiting:?}");
    }

    /// With an agent that acknowledges whatever reaches it, over a socket that drops any part of the frames, everything is
    /// acknowledged or given up in bounded time.
    #[test]
    fn lossy_delivery_ends(drops in proptest::collection::vec(any::<bool>(), 40), count in 1..20_usize) {
        let mut session = session();
        let tasks: Vec<Task> = (0..count).map(|number| run(&number.to_string())).collect();
        let mut ended = 0;
        let mut drops = drops.into_iter().cycle();
        let mut frames = session.deliver(tasks, 1, 0).unwrap();
        let mut now = 0;
        while session.pending() > 0 {
            prop_assert!(now <= 400_000, "bounded");
            for sent in payloads(&frames) {
                if drops.next() == Some(false) {
                    for effect in session.on_frame(ack(&sent.message_id), now) {
                        if let Effect::Acked { subjects, .. } = effect { ended += subjects.len() }
                    }
                }
            }
            session.on_frame(heartbeat_ack(), now);
            now = session.wake_at();
            let tick = session.on_tick(now);
            ended += tick.given_up.len();
            frames = tick.frames;
        }
        prop_assert_eq!(ended, count);
    }
}
