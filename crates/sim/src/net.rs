//! Everybody's way to the servers: to one of them at a time, late, at times lost, doubled, or with an answer that never comes back.
//! Decides by chance alone.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use berth_acs::{ConnectError, Dialer, Wire};
use berth_agent::ecs_client::{Answer, Carrier};
use berth_shapes::ecs::Operation;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::chance::Chance;
use crate::server::{Server, Told};
use crate::trace::Trace;
use crate::wire::{Way, Ways, connect};

/// How long a caller waits for an answer that does not come.
const PATIENCE: Duration = Duration::from_secs(6);

/// One machine's network: clones share it.
#[derive(Clone)]
pub struct Net {
    servers: Arc<[Arc<Server>]>,
    /// Which of them is asked; the next one after it did not answer.
    current: Arc<AtomicUsize>,
    chance: Chance,
    trace: Trace,
    /// Whether chance may do harm.
    harm: Arc<AtomicBool>,
    name: Arc<str>,
    way: watch::Sender<Way>,
    connections: Arc<Mutex<CancellationToken>>,
    slowest: u64,
}

impl Net {
    /// A network that works. `harm` says whether single calls may fail; `slowest` is the longest way in milliseconds.
    pub fn new(servers: Arc<[Arc<Server>]>, chance: Chance, trace: Trace, harm: Arc<AtomicBool>, name: &str, slowest: u64) -> Self {
        let current = Arc::new(AtomicUsize::new(usize::try_from(chance.part("first", 0).below(servers.len() as u64)).unwrap_or(0)));
        let way = watch::Sender::new(Way::Open);
        Self { servers, current, chance, trace, harm, name: name.into(), way, connections: Arc::default(), slowest }
    }

    /// Changes how the way is.
    pub fn set_way(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// Breaks all connections.
    pub fn cut(&self) {
        std::mem::take(&mut *self.connections.lock()).cancel();
    }

    async fn travel(&self) {
        tokio::time::sleep(Duration::from_millis(self.chance.below(self.slowest + 1))).await;
    }

    /// The server that is asked next: mostly the last one, at times another, as a load balancer has it.
    fn server(&self) -> Arc<Server> {
        let number = self.servers.len();
        if number > 1 && self.chance.per_mille(100) {
            self.current.fetch_add(1, Ordering::Relaxed);
        }
        Arc::clone(&self.servers[self.current.load(Ordering::Relaxed) % number])
    }

    fn is_open(&self, server: &Server) -> bool {
        *self.way.borrow() == Way::Open && *server.way.borrow() == Way::Open
    }

    /// Calls the API, or says why no answer came. The call may have happened all the same.
    ///
    /// # Errors
    /// Why no answer came, for people.
    pub async fn ask(&self, operation: Operation, body: Vec<u8>) -> Result<Told, String> {
        let told = self.try_to_ask(operation, body).await;
        if told.is_err() {
            self.current.fetch_add(1, Ordering::Relaxed);
        }
        told
    }

    async fn try_to_ask(&self, operation: Operation, body: Vec<u8>) -> Result<Told, String> {
        let server = self.server();
        self.travel().await;
        let harm = self.harm.load(Ordering::Relaxed);
        if !self.is_open(&server) || (harm && self.chance.per_mille(15)) {
            tokio::time::sleep(PATIENCE).await;
            return Err("the request was lost".to_owned());
        }
        if harm && may_come_twice(operation, &body) && self.chance.per_mille(40) {
            // The same bytes come once more, perhaps much later: a client or a proxy sent them again.
            let (net, body, late) = (self.clone(), body.clone(), self.chance.millis(0, 4_000));
            // To any of the servers, and at times at once.
            let late = if self.chance.per_mille(300) { Duration::ZERO } else { late };
            let other = Arc::clone(self.chance.pick(&self.servers));
            tokio::spawn(async move {
                tokio::time::sleep(late).await;
                net.trace.line(format_args!("{}: {} comes once more", net.name, operation.name()));
                let _ = other.call(operation, body).await;
            });
        }
        let answer = match tokio::time::timeout(PATIENCE * 5, server.call(operation, body)).await {
            Ok(answer) => answer.map_err(|down| down.to_string())?,
            Err(_) => return Err("no answer in time".to_owned()),
        };
        if !self.is_open(&server) || (harm && self.chance.per_mille(25)) {
            self.trace.line(format_args!("{}: the answer to {} is lost", self.name, operation.name()));
            tokio::time::sleep(self.chance.millis(0, 3_000)).await;
            return Err("the answer was lost".to_owned());
        }
        self.travel().await;
        Ok(answer)
    }
}

/// Calls that a client may send again by itself, because a second one changes nothing.
fn may_come_twice(operation: Operation, body: &[u8]) -> bool {
    let has_token = || body.windows(11).any(|window| window == b"clientToken");
    match operation {
        Operation::SubmitTaskStateChange | Operation::SubmitContainerStateChange | Operation::StopTask => true,
        Operation::RunTask => has_token(),
        _ => false,
    }
}

impl Carrier for Net {
    fn carry(&self, operation: &'static str, body: Vec<u8>) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
        let operation = Operation::from_name(operation).expect("an agent calls operations of ECS");
        Box::pin(async move { self.ask(operation, body).await.map(|told| (told.status, told.body)) })
    }
}

impl Dialer for Net {
    fn dial(&self, _endpoint: &str, query: &str) -> Pin<Box<dyn Future<Output = Result<Box<dyn Wire>, ConnectError>> + Send + '_>> {
        let query = query.to_owned();
        let refused = |down: crate::server::Down| ConnectError::Tcp {
            address: "server:80".to_owned(),
            source: std::io::Error::new(std::io::ErrorKind::ConnectionRefused, down),
        };
        Box::pin(async move {
            let server = self.server();
            self.travel().await;
            if !self.is_open(&server) {
                self.current.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(PATIENCE).await;
                return Err(ConnectError::Timeout(PATIENCE));
            }
            let accepted = tokio::time::timeout(PATIENCE * 5, server.accept(&query)).await;
            let Ok(accepted) = accepted else {
                self.current.fetch_add(1, Ordering::Relaxed);
                return Err(ConnectError::Timeout(PATIENCE * 5));
            };
            if accepted.is_err() {
                self.current.fetch_add(1, Ordering::Relaxed);
            }
            match accepted.map_err(refused)? {
                Ok(serve) => {
                    self.travel().await;
                    let cut = self.connections.lock().clone();
                    let ways = Ways { own: self.way.subscribe(), other: server.way.subscribe() };
                    let (near, far, carried) = connect(&ways, cut, &self.chance, self.slowest);
                    tokio::spawn(carried);
                    serve(far);
                    self.trace.line(format_args!("{}: agent connected to server {}", self.name, server.number));
                    Ok(Box::new(near) as Box<dyn Wire>)
                }
                Err(refusal) => {
                    self.travel().await;
                    self.trace.line(format_args!("{}: agent refused: {}", self.name, refusal.kind.name()));
                    Err(ConnectError::Refused { status: refusal.kind.status(), refusal })
                }
            }
        })
    }
}
