//! What carries calls to one of etcd's members: gRPC over a socket, or a simulation's line. It tries once and never again.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tonic::{Code, Status, Streaming};

use super::rpc::{WatchKind, WatchRequest, WatchResponse};
use super::simulated::{Answer, Fate, Line, SimulatedEtcd};

/// Answers of a watch that may wait for who watches.
const WAITING: usize = 16;

/// What a watch is asked.
pub(super) type Requests = Pin<Box<dyn Stream<Item = WatchRequest> + Send>>;

/// A simulation's way to a member.
#[derive(Clone)]
pub(super) struct SimulatedWire {
    pub(super) etcd: Arc<SimulatedEtcd>,
    pub(super) line: Arc<dyn Line>,
}

/// Why a simulated call gave nothing.
pub(super) enum Lost {
    /// It was never there.
    Unsent,
    /// It was there; its answer was not.
    Unanswered,
}

/// A watch's answers.
pub(super) enum Answers {
    Grpc(Box<Streaming<WatchResponse>>),
    Simulated(mpsc::Receiver<Result<WatchResponse, Status>>),
}

impl Answers {
    /// The next one; `None` at the end. Cancel-safe.
    pub(super) async fn message(&mut self) -> Result<Option<WatchResponse>, Status> {
        match self {
            Self::Grpc(answers) => answers.message().await,
            Self::Simulated(answers) => answers.recv().await.transpose(),
        }
    }
}

impl SimulatedWire {
    /// One call and its answer. What is on its way arrives also if nobody waits for the answer any more. Never ends if it vanishes.
    pub(super) async fn call(&self, path: &'static str, request: Vec<u8>) -> Result<Answer, Lost> {
        let Self { etcd, line } = self.clone();
        let there = line.fate();
        if there == Fate::Breaks {
            return Err(Lost::Unsent);
        }
        let (reply, answer) = oneshot::channel();
        tokio::spawn(async move {
            arrive(there).await;
            let answer = etcd.call(path, &request);
            let back = line.fate();
            if back == Fate::Breaks {
                return drop(reply);
            }
            arrive(back).await;
            let _ = reply.send(answer);
        });
        answer.await.map_err(|_| Lost::Unanswered)
    }

    /// A watch: what happens at etcd as answers, in order.
    pub(super) fn watch(&self, requests: Requests) -> mpsc::Receiver<Result<WatchResponse, Status>> {
        let (sender, answers) = mpsc::channel(WAITING);
        tokio::spawn(self.clone().serve_watch(requests, sender));
        answers
    }

    async fn serve_watch(self, mut requests: Requests, answers: mpsc::Sender<Result<WatchResponse, Status>>) {
        let Some(WatchRequest { kind: Some(WatchKind::Create(create)) }) = requests.next().await else { return };
        let mut next = create.start_revision;
        loop {
            let mut grown = std::pin::pin!(self.etcd.grown.notified());
            grown.as_mut().enable();
            let answer = match self.etcd.events(next, &create.key, &create.range_end) {
                Err(compacted) => WatchResponse { canceled: true, compact_revision: compacted, ..Default::default() },
                Ok((events, after)) => {
                    next = after;
                    WatchResponse { events, ..Default::default() }
                }
            };
            if !answer.events.is_empty() || answer.canceled {
                let last = answer.canceled;
                if !self.deliver(answer, &answers).await || last {
                    return;
                }
                continue;
            }
            tokio::select! {
                biased;
                () = answers.closed() => return,
                // A sign of life was asked for.
                Some(_) = requests.next() => if !self.deliver(WatchResponse::default(), &answers).await {
                    return;
                },
                () = grown => {}
            }
        }
    }

    /// Whether the watch goes on.
    async fn deliver(&self, answer: WatchResponse, answers: &mpsc::Sender<Result<WatchResponse, Status>>) -> bool {
        match self.line.fate() {
            Fate::Breaks => {
                let _ = answers.send(Err(Status::new(Code::Unavailable, "connection reset"))).await;
                false
            }
            // What is lost is sent again until the connection is given up: nothing comes before it.
            Fate::Vanishes => {
                answers.closed().await;
                false
            }
            fate @ Fate::Arrives(_) => {
                arrive(fate).await;
                answers.send(Ok(answer)).await.is_ok()
            }
        }
    }
}

async fn arrive(fate: Fate) {
    match fate {
        Fate::Arrives(after) => sleep(after).await,
        Fate::Vanishes | Fate::Breaks => std::future::pending().await,
    }
}
