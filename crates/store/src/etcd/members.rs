//! The cluster's members as seen by one peer: every call goes to one of them, and to the next one once that fails.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{Stream, stream};
use http::uri::PathAndQuery;
use parking_lot::Mutex;
use prost::Message;
use tokio::time::{Instant, sleep, timeout};
use tonic::client::Grpc;

use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, ConnectError, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::access::{EtcdAccess, Pass};
use super::rpc;
use super::simulated::{Line, SimulatedEtcd};
use super::wire::{Answers, Lost, Requests, SimulatedWire};

/// How long making a connection may take.
const CONNECT: Duration = Duration::from_secs(1);
/// How long one try may take before the next member is asked: several times what an election takes.
pub(super) const TRY: Duration = Duration::from_secs(3);
/// Pauses between tries double from the first to the second of these.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// Largest answer taken: a page of records or a revision's events; both are far smaller.
const LARGEST_ANSWER: usize = 256 * 1024 * 1024;

/// Why a call did not succeed.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum CallError {
    /// It was never sent, or sent back unread.
    #[error("{member} cannot be reached: {reason}")]
    Unsent {
        /// Which member.
        member: String,
        /// Why.
        reason: String,
    },
    /// It was sent and may have taken effect.
    #[error("{member} did not answer: {reason}")]
    Unanswered {
        /// Which member.
        member: String,
        /// Why.
        reason: String,
    },
    /// etcd refused it: it has no effect, and would be refused again.
    #[error("etcd refuses: {message}")]
    Refused {
        /// gRPC's word for the kind.
        code: Code,
        /// etcd's own words.
        message: String,
    },
}

struct Member {
    name: String,
    wire: Wire,
}

enum Wire {
    Grpc(Channel),
    Simulated(SimulatedWire),
}

pub(super) struct Members {
    list: Vec<Member>,
    /// Counts up; the member in use is this modulo their number.
    current: AtomicUsize,
    /// When any of them last answered.
    answered: Mutex<Instant>,
    pass: Pass,
    /// TLS without a certificate of our own. A member that wants one says so after the handshake, and closes; which of the two is seen
    /// first is chance.
    is_nameless: bool,
}

impl Members {
    /// Connects to nobody yet. Needs a runtime.
    pub(super) fn new(names: &[String], access: &EtcdAccess) -> Result<Self, String> {
        let member = |(name, endpoint): (&String, tonic::transport::Endpoint)| {
            let channel = endpoint.connect_timeout(CONNECT).tcp_nodelay(true).connect_lazy();
            Member { name: name.clone(), wire: Wire::Grpc(channel) }
        };
        let list: Vec<_> = names.iter().zip(access.endpoints(names)?).map(member).collect();
        if list.is_empty() {
            return Err("no member is named".to_owned());
        }
        let is_nameless = access.tls.as_ref().is_some_and(|tls| tls.identity.is_none());
        let pass = Pass::new(access.user.clone());
        Ok(Self { list, current: AtomicUsize::new(0), answered: Mutex::new(Instant::now()), pass, is_nameless })
    }

    /// The members of a simulation, one a line.
    pub(super) fn simulated(etcd: &Arc<SimulatedEtcd>, lines: Vec<Arc<dyn Line>>) -> Result<Self, String> {
        let member = |(number, line)| {
            let wire = Wire::Simulated(SimulatedWire { etcd: Arc::clone(etcd), line });
            Member { name: format!("etcd-{number}"), wire }
        };
        let list: Vec<_> = lines.into_iter().enumerate().map(member).collect();
        if list.is_empty() {
            return Err("no member is named".to_owned());
        }
        Ok(Self { list, current: AtomicUsize::new(0), answered: Mutex::new(Instant::now()), pass: Pass::new(None), is_nameless: false })
    }

    /// Which member calls go to; a word for [`Members::leave`].
    pub(super) fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    /// The member failed: the next one, unless another call has moved on already.
    pub(super) fn leave(&self, failed: usize) {
        let _ = self.current.compare_exchange(failed, failed.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed);
    }

    fn member(&self, number: usize) -> &Member {
        &self.list[number % self.list.len()]
    }

    /// A token that etcd does not know is as good as none; a new one is asked for.
    pub(super) fn forget_token(&self) {
        self.pass.forget();
    }

    async fn unary<Q, A>(&self, number: usize, path: &'static str, request: Q) -> Result<A, CallError>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
    {
        match &self.member(number).wire {
            Wire::Grpc(channel) => {
                let mut client = client(channel);
                let answer = async {
                    ready(&mut client).await?;
                    let mut request = Request::new(request);
                    self.pass.show(channel, request.metadata_mut()).await?;
                    client.unary(request, PathAndQuery::from_static(path), ProstCodec::<Q, A>::default()).await
                };
                answer.await.map(tonic::Response::into_inner).map_err(|status| self.error(number, &status))
            }
            Wire::Simulated(wire) => self.simulated_unary(number, wire, path, request.encode_to_vec()).await,
        }
    }

    async fn simulated_unary<A>(&self, number: usize, wire: &SimulatedWire, path: &'static str, request: Vec<u8>) -> Result<A, CallError>
    where
        A: Message + Default,
    {
        let member = || self.member(number).name.clone();
        let answer = wire.call(path, request).await.map_err(|lost| match lost {
            Lost::Unsent => CallError::Unsent { member: member(), reason: "connection refused".to_owned() },
            Lost::Unanswered => CallError::Unanswered { member: member(), reason: "connection reset".to_owned() },
        })?;
        let bytes = answer.map_err(|(code, message)| self.error(number, &Status::new(code, message)))?;
        A::decode(bytes.as_slice()).map_err(|error| CallError::Unanswered { member: member(), reason: error.to_string() })
    }

    fn error(&self, number: usize, status: &Status) -> CallError {
        let member = self.member(number).name.clone();
        if never_sent(status) {
            return CallError::Unsent { member, reason: self.reason(status) };
        }
        // Only what etcd itself says is a refusal: transport and codec have the same codes for what is lost on the way.
        let (code, message) = (status.code(), status.message());
        let lost =
            matches!(code, Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled | Code::DeadlineExceeded | Code::Aborted);
        if Pass::is_stale(message) {
            self.pass.forget();
            return CallError::Unsent { member, reason: message.to_owned() };
        }
        match message {
            "etcdserver: too many requests" => CallError::Unsent { member, reason: message.to_owned() },
            _ if !lost && message.starts_with("etcdserver:") => CallError::Refused { code, message: message.to_owned() },
            _ => CallError::Unanswered { member, reason: self.reason(status) },
        }
    }

    /// Why there was no answer, with what may be behind it.
    fn reason(&self, status: &Status) -> String {
        let reason = innermost(status);
        if self.is_nameless && !reason.to_ascii_lowercase().contains("certificate") {
            return format!("{reason} (etcd may want a certificate of its clients: cert=FILE&key=FILE)");
        }
        reason
    }

    /// One try of a call, at one member.
    pub(super) async fn once<Q, A>(&self, path: &'static str, request: Q) -> Result<A, CallError>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
    {
        let number = self.current();
        let outcome = match timeout(TRY, self.unary(number, path, request)).await {
            Ok(answer) => answer,
            Err(_) => Err(CallError::Unanswered { member: self.member(number).name.clone(), reason: format!("silent for {TRY:?}") }),
        };
        match outcome {
            Ok(_) | Err(CallError::Refused { .. }) => *self.answered.lock() = Instant::now(),
            Err(_) => self.leave(number),
        }
        outcome
    }

    /// When etcd last answered anything.
    pub(super) fn answered(&self) -> Instant {
        *self.answered.lock()
    }

    /// A call that may safely happen twice: tried again, at the next member, until the deadline.
    pub(super) async fn call<Q, A>(&self, path: &'static str, request: Q, deadline: Instant) -> Result<A, CallError>
    where
        Q: Message + Default + Clone + 'static,
        A: Message + Default + 'static,
    {
        let mut pauses = Pauses::default();
        loop {
            match self.once(path, request.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error @ CallError::Refused { .. }) => return Err(error),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => pauses.pause().await,
            }
        }
    }

    /// Opens a stream of requests and answers at the current member, which must have a leader all the while.
    async fn stream<Q, A>(
        &self,
        number: usize,
        channel: &Channel,
        path: &'static str,
        requests: impl Stream<Item = Q> + Send + 'static,
    ) -> Result<Streaming<A>, CallError>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
    {
        let mut client = client(channel);
        let mut request = Request::new(requests);
        // A member cut off from the others ends the stream instead of keeping still.
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        let opened = timeout(TRY, async {
            ready(&mut client).await?;
            self.pass.show(channel, request.metadata_mut()).await?;
            client.streaming(request, PathAndQuery::from_static(path), ProstCodec::<Q, A>::default()).await
        });
        let outcome = match opened.await {
            Ok(opened) => opened.map(tonic::Response::into_inner).map_err(|status| self.error(number, &status)),
            Err(_) => Err(CallError::Unanswered { member: self.member(number).name.clone(), reason: format!("silent for {TRY:?}") }),
        };
        if outcome.is_err() {
            self.leave(number);
        }
        outcome
    }

    /// Watches at the current member, whose number is given too.
    pub(super) async fn watch(&self, requests: Requests) -> Result<(usize, Answers), CallError> {
        let number = self.current();
        let answers = match &self.member(number).wire {
            Wire::Grpc(channel) => Answers::Grpc(Box::new(self.stream(number, channel, rpc::WATCH, requests).await?)),
            Wire::Simulated(wire) => Answers::Simulated(wire.watch(requests)),
        };
        Ok((number, answers))
    }

    /// One request and its one answer over a streaming call.
    pub(super) async fn exchange<Q, A>(&self, path: &'static str, request: Q, patience: Duration) -> Result<A, CallError>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
    {
        let number = self.current();
        let silent = |members: &Self, reason: &str| {
            members.leave(number);
            CallError::Unanswered { member: members.member(number).name.clone(), reason: reason.to_owned() }
        };
        let exchange = async {
            let channel = match &self.member(number).wire {
                Wire::Grpc(channel) => channel,
                Wire::Simulated(wire) => {
                    let answer = self.simulated_unary(number, wire, path, request.encode_to_vec()).await;
                    if answer.is_err() {
                        self.leave(number);
                    }
                    return answer;
                }
            };
            let mut answers = self.stream(number, channel, path, stream::iter([request])).await?;
            match answers.message().await {
                Ok(Some(answer)) => Ok(answer),
                Ok(None) => Err(silent(self, "ended the stream")),
                Err(status) => {
                    self.leave(number);
                    Err(self.error(number, &status))
                }
            }
        };
        timeout(patience, exchange).await.unwrap_or_else(|_| Err(silent(self, "silent")))
    }
}

fn client(channel: &Channel) -> Grpc<Channel> {
    Grpc::new(channel.clone()).max_decoding_message_size(LARGEST_ANSWER)
}

async fn ready(client: &mut Grpc<Channel>) -> Result<(), Status> {
    client.ready().await.map_err(|error| Status::from_error(Box::new(error)))
}

fn never_sent(status: &Status) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(status);
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The cause that says most.
fn innermost(status: &Status) -> String {
    let mut last = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        last = error.to_string();
        cause = error.source();
    }
    last
}

/// Growing pauses between tries.
#[derive(Default)]
pub(super) struct Pauses {
    last: Duration,
}

impl Pauses {
    pub(super) async fn pause(&mut self) {
        self.last = (self.last * 2).clamp(PAUSES.0, PAUSES.1);
        sleep(self.last).await;
    }
}
