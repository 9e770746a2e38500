//! The messages of one session that wait for an acknowledgement, and their sending again. It must never forget one silently:
//! each ends as acknowledged, refused, given up, replaced by a newer one for the same task, or is handed back with the session.

use super::SessionOptions;
use crate::messages::{DesiredStatus, MAX_FRAME, PayloadMessage, RoleType, ServerFrame, Task};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

/// What a payload's envelope takes beside its tasks, generously.
const ENVELOPE: usize = 4096;

/// What a message was about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A task to be started or stopped.
    Task {
        /// Its ARN.
        arn: String,
        /// What was wanted of it.
        desired_status: DesiredStatus,
        /// The number it was delivered under.
        seq: i64,
    },
    /// Credentials of a running task.
    Credentials {
        /// The task's ARN.
        task_arn: String,
        /// Which of its roles.
        role_type: RoleType,
    },
    /// Interfaces or other attachments.
    Attachment {
        /// The task's ARN; empty for the instance's own.
        task_arn: String,
        /// The attachments' ARNs.
        attachment_arns: Vec<String>,
    },
}

/// Why nothing was taken for delivery.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeliverError {
    /// The agent does not keep up.
    #[error("{pending} messages wait for the agent's acknowledgement, and {limit} is the limit")]
    Full {
        /// How many wait.
        pending: usize,
        /// How many may.
        limit: usize,
    },
    /// A task that does not fit a frame.
    #[error("task {arn} takes {size} bytes, more than a frame holds")]
    TaskTooLarge {
        /// Which.
        arn: String,
        /// Its size in bytes.
        size: usize,
    },
}

pub(super) struct Settled {
    pub(super) subjects: Vec<Subject>,
    pub(super) first_sent: i64,
}

struct Pending {
    content: Content,
    /// The number of the message it was first part of: an agent may yet acknowledge that one.
    origin: u64,
    first_sent: i64,
    sent: u32,
    due: i64,
}

enum Content {
    // The whole payload, so that it is sent again as it was.
    Payload(Arc<PayloadMessage>),
    Other(Box<ServerFrame>),
}

pub(super) struct Deliveries {
    generation: u64,
    next: u64,
    pending: BTreeMap<u64, Pending>,
    /// Which message each waiting task is in. One at most.
    by_task: HashMap<String, u64>,
    others: usize,
    /// No message is due before this; `None` if none waits.
    due: Option<i64>,
    first_wait: i64,
    longest_wait: i64,
    attempts: u32,
    limit: usize,
    tasks_per_payload: usize,
}

impl Deliveries {
    pub(super) fn new(generation: u64, options: &SessionOptions) -> Self {
        Self {
            generation,
            next: 0,
            pending: BTreeMap::new(),
            by_task: HashMap::new(),
            others: 0,
            due: None,
            first_wait: options.first_redelivery.max(1),
            longest_wait: options.longest_redelivery.max(1),
            attempts: options.attempts.max(1),
            limit: options.most_pending,
            tasks_per_payload: options.tasks_per_payload.max(1),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_task.len() + self.others
    }

    pub(super) fn due(&self) -> Option<i64> {
        self.due
    }

    /// A message id of this session that nothing has had.
    pub(super) fn next_id(&mut self) -> String {
        let number = self.next_number();
        self.id(number)
    }

    /// How long to wait for an acknowledgement after having sent so many times before.
    pub(super) fn wait(&self, sent: u32) -> i64 {
        self.first_wait.saturating_mul(1 << sent.min(20)).min(self.longest_wait)
    }

    pub(super) fn tasks(
        &mut self,
        tasks: Vec<Task>,
        seq: i64,
        cluster_arn: &str,
        container_instance_arn: &str,
        now: i64,
    ) -> Result<Vec<ServerFrame>, DeliverError> {
        let tasks = self.newest(tasks);
        let added = tasks.iter().filter(|task| !self.by_task.contains_key(&task.arn)).count();
        self.check_room(added)?;
        let chunks = self.chunks(tasks)?;
        let mut frames = Vec::with_capacity(chunks.len());
        for tasks in chunks {
            for task in &tasks {
                self.forget_task(&task.arn);
            }
            let number = self.next_number();
            self.by_task.extend(tasks.iter().map(|task| (task.arn.clone(), number)));
            let payload = Arc::new(PayloadMessage {
                cluster_arn: cluster_arn.to_owned(),
                container_instance_arn: container_instance_arn.to_owned(),
                message_id: self.id(number),
                generated_at: Some(now),
                seq_num: seq,
                tasks,
            });
            frames.push(ServerFrame::Payload(Arc::clone(&payload)));
            self.wait_for(number, Content::Payload(payload), now);
        }
        Ok(frames)
    }

    pub(super) fn frame(&mut self, mut frame: ServerFrame, now: i64) -> Result<ServerFrame, DeliverError> {
        self.check_room(1)?;
        let number = self.next_number();
        let id = self.id(number);
        match &mut frame {
            ServerFrame::IamRoleCredentials(message) => message.message_id = id,
            ServerFrame::AttachTaskNetworkInterfaces(message) => message.message_id = id,
            ServerFrame::AttachInstanceNetworkInterfaces(message) => message.message_id = id,
            ServerFrame::ConfirmAttachment(message) => message.message_id = id,
            other => unreachable!("a {} is not acknowledged one by one", other.kind()),
        }
        self.others += 1;
        self.wait_for(number, Content::Other(Box::new(frame.clone())), now);
        Ok(frame)
    }

    /// The agent has answered a message, or the one that a message was split off from: nothing of it waits any more.
    pub(super) fn settle(&mut self, message_id: &str) -> Option<Settled> {
        let number = self.number(message_id)?;
        let numbers: Vec<u64> = if self.pending.contains_key(&number) {
            vec![number]
        } else {
            // Parts of a split message have larger numbers than the whole.
            self.pending.range(number..).filter(|(_, pending)| pending.origin == number).map(|(part, _)| *part).collect()
        };
        let mut settled: Option<Settled> = None;
        for pending in numbers.iter().filter_map(|number| self.remove(*number)) {
            let settled = settled.get_or_insert(Settled { subjects: Vec::new(), first_sent: pending.first_sent });
            settled.subjects.extend(pending.content.subjects());
        }
        settled
    }

    /// The agent has credentials: either those of a message of their own, which is thereby answered, or those that came in a
    /// payload, which is not. Whether the message is known.
    pub(super) fn settle_credentials(&mut self, message_id: &str) -> bool {
        let Some(number) = self.number(message_id) else { return false };
        match self.pending.get(&number).map(|pending| &pending.content) {
            Some(Content::Other(frame)) if matches!(**frame, ServerFrame::IamRoleCredentials(_)) => self.remove(number).is_some(),
            // A payload's credentials may be acknowledged after the payload: any number given out will do.
            _ => number < self.next,
        }
    }

    pub(super) fn resend(&mut self, now: i64, frames: &mut Vec<ServerFrame>, given_up: &mut Vec<Subject>) {
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        let due: Vec<u64> = self.pending.iter().filter(|(_, pending)| pending.due <= now).map(|(number, _)| *number).collect();
        for number in due {
            let sent = self.pending[&number].sent;
            if sent >= self.attempts {
                let pending = self.remove(number).expect("it was there a moment ago");
                given_up.extend(pending.content.subjects());
                continue;
            }
            // One task that an agent cannot read keeps it from acknowledging the whole payload; alone, each shows what it is.
            let numbers = if sent >= 2 { self.split(number) } else { vec![number] };
            let wait = self.wait(sent);
            for number in numbers {
                let pending = self.pending.get_mut(&number).expect("it was there a moment ago");
                pending.sent = sent + 1;
                pending.due = now + wait;
                frames.push(pending.content.frame());
            }
        }
        self.due = self.pending.values().map(|pending| pending.due).min();
    }

    /// Nothing more is to be said of a task: it is not sent again.
    pub(super) fn withdraw(&mut self, arn: &str) {
        self.forget_task(arn);
        if self.pending.is_empty() {
            self.due = None;
        }
    }

    pub(super) fn into_subjects(self) -> Vec<Subject> {
        self.pending.into_values().flat_map(|pending| pending.content.subjects()).collect()
    }

    // The last word on each task, without starts of tasks whose stop is already on its way.
    fn newest(&self, mut tasks: Vec<Task>) -> Vec<Task> {
        let stopping = |status, task: &Task| status == DesiredStatus::Stopped && task.desired_status != DesiredStatus::Stopped;
        let is_overtaken = |task: &Task| self.waiting_status(&task.arn).is_some_and(|status| stopping(status, task));
        // Most often it is one.
        if tasks.len() < 2 {
            tasks.retain(|task| !is_overtaken(task));
            return tasks;
        }
        let mut places: HashMap<String, usize> = HashMap::with_capacity(tasks.len());
        let mut newest: Vec<Task> = Vec::with_capacity(tasks.len());
        for task in tasks {
            if is_overtaken(&task) {
                continue;
            }
            match places.get(&task.arn) {
                Some(place) if stopping(newest[*place].desired_status, &task) => {}
                Some(place) => newest[*place] = task,
                None => {
                    places.insert(task.arn.clone(), newest.len());
                    newest.push(task);
                }
            }
        }
        newest
    }

    fn waiting_status(&self, arn: &str) -> Option<DesiredStatus> {
        let Content::Payload(payload) = &self.pending.get(self.by_task.get(arn)?)?.content else { return None };
        payload.tasks.iter().find(|task| task.arn == arn).map(|task| task.desired_status)
    }

    fn check_room(&self, added: usize) -> Result<(), DeliverError> {
        if self.len() + added > self.limit {
            return Err(DeliverError::Full { pending: self.len(), limit: self.limit });
        }
        Ok(())
    }

    fn chunks(&self, tasks: Vec<Task>) -> Result<Vec<Vec<Task>>, DeliverError> {
        let sizes: Vec<usize> = tasks.iter().map(|task| json_size(task) + 1).collect();
        if let Some((task, &size)) = tasks.iter().zip(&sizes).find(|(_, size)| **size > MAX_FRAME - ENVELOPE) {
            return Err(DeliverError::TaskTooLarge { arn: task.arn.clone(), size });
        }
        // Most often they are few, and go as they are.
        if !tasks.is_empty() && tasks.len() <= self.tasks_per_payload && sizes.iter().sum::<usize>() <= MAX_FRAME - ENVELOPE {
            return Ok(vec![tasks]);
        }
        let mut chunks: Vec<Vec<Task>> = Vec::new();
        let mut room = 0;
        for (task, size) in tasks.into_iter().zip(sizes) {
            match chunks.last_mut() {
                Some(chunk) if size <= room && chunk.len() < self.tasks_per_payload => {
                    room -= size;
                    chunk.push(task);
                }
                _ => {
                    room = MAX_FRAME - ENVELOPE - size;
                    chunks.push(vec![task]);
                }
            }
        }
        Ok(chunks)
    }

    // Takes a task out of the message it waits in, because a newer one takes its place.
    fn forget_task(&mut self, arn: &str) {
        let Some(number) = self.by_task.remove(arn) else { return };
        let Some(Pending { content: Content::Payload(payload), .. }) = self.pending.get_mut(&number) else { return };
        if payload.tasks.iter().all(|task| task.arn == arn) {
            self.pending.remove(&number);
        } else {
            Arc::make_mut(payload).tasks.retain(|task| task.arn != arn);
        }
    }

    // A message of several tasks becomes messages of one; the numbers of what is there now.
    fn split(&mut self, number: u64) -> Vec<u64> {
        match &self.pending[&number].content {
            Content::Payload(payload) if payload.tasks.len() > 1 => {}
            _ => return vec![number],
        }
        let whole = self.pending.remove(&number).expect("it was there a moment ago");
        let Content::Payload(payload) = whole.content else { unreachable!("only payloads are split") };
        let mut payload = Arc::unwrap_or_clone(payload);
        let tasks = std::mem::take(&mut payload.tasks);
        let mut numbers = Vec::with_capacity(tasks.len());
        for task in tasks {
            let part = self.next_number();
            self.by_task.insert(task.arn.clone(), part);
            let payload = PayloadMessage { message_id: self.id(part), tasks: vec![task], ..payload.clone() };
            self.pending.insert(part, Pending { content: Content::Payload(Arc::new(payload)), origin: number, ..whole });
            numbers.push(part);
        }
        numbers
    }

    fn wait_for(&mut self, number: u64, content: Content, now: i64) {
        let due = now + self.first_wait;
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
        self.pending.insert(number, Pending { content, origin: number, first_sent: now, sent: 1, due });
    }

    fn remove(&mut self, number: u64) -> Option<Pending> {
        let pending = self.pending.remove(&number)?;
        match &pending.content {
            Content::Payload(payload) => {
                for task in &payload.tasks {
                    self.by_task.remove(&task.arn);
                }
            }
            Content::Other(_) => self.others -= 1,
        }
        if self.pending.is_empty() {
            self.due = None;
        }
        Some(pending)
    }

    fn next_number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    fn id(&self, number: u64) -> String {
        format!("{:016x}-{number:012x}", self.generation)
    }

    fn number(&self, message_id: &str) -> Option<u64> {
        let (generation, number) = message_id.split_once('-')?;
        let generation = u64::from_str_radix(generation, 16).ok()?;
        (generation == self.generation).then(|| u64::from_str_radix(number, 16).ok()).flatten()
    }
}

impl Content {
    fn frame(&self) -> ServerFrame {
        match self {
            Self::Payload(payload) => ServerFrame::Payload(Arc::clone(payload)),
            Self::Other(frame) => (**frame).clone(),
        }
    }

    fn subjects(&self) -> Vec<Subject> {
        match self {
            Self::Payload(payload) => {
                let subject =
                    |task: &Task| Subject::Task { arn: task.arn.clone(), desired_status: task.desired_status, seq: payload.seq_num };
                payload.tasks.iter().map(subject).collect()
            }
            Self::Other(frame) => frame_subject(frame).into_iter().collect(),
        }
    }
}

fn frame_subject(frame: &ServerFrame) -> Option<Subject> {
    let interfaces = |interfaces: &[crate::messages::ElasticNetworkInterface]| {
        interfaces.iter().map(|interface| interface.attachment_arn.clone()).collect::<Vec<_>>()
    };
    Some(match frame {
        // Without the credentials' id: subjects are logged, and it opens the door to them.
        ServerFrame::IamRoleCredentials(message) => {
            Subject::Credentials { task_arn: message.task_arn.clone(), role_type: message.role_type }
        }
        ServerFrame::AttachTaskNetworkInterfaces(message) => {
            Subject::Attachment { task_arn: message.task_arn.clone(), attachment_arns: interfaces(&message.elastic_network_interfaces) }
        }
        ServerFrame::AttachInstanceNetworkInterfaces(message) => {
            Subject::Attachment { task_arn: String::new(), attachment_arns: interfaces(&message.elastic_network_interfaces) }
        }
        ServerFrame::ConfirmAttachment(message) => {
            Subject::Attachment { task_arn: message.task_arn.clone(), attachment_arns: vec![message.attachment.attachment_arn.clone()] }
        }
        _ => return None,
    })
}

// Counted, not kept: the frame is written once more when it is sent, which is cheaper than to hold every task twice.
fn json_size(task: &Task) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, task).expect("a task has a JSON form, and counting cannot fail");
    count.0
}
