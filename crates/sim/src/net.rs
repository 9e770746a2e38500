//! Everybody's way to the server: late, at times lost, doubled, or with an answer that never comes back. Decides by chance alone.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use berth_acs::{ConnectError, Dialer, Wire};
use berth_agent::ecs_client::{Answer, Carrier};
use berth_shapes::ecs::Operation;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::chance::Chance;
use crate::server::Server;
use crate::trace::Trace;
use crate::wire::{Way, connect};

/// How long a caller waits for an answer that does not come.
const PATIENCE: Duration = Duration::from_secs(6);

/// One machine's network: clones share it.
#[derive(Clone)]
pub struct Net {
    server: Arc<Server>,
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
    pub fn new(server: Arc<Server>, chance: Chance, trace: Trace, harm: Arc<AtomicBool>, name: &str, slowest: u64) -> Self {
        Self { server, chance, trace, harm, name: name.into(), way: watch::Sender::new(Way::Open), connections: Arc::default(), slowest }
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

    /// Calls the API: status and body, or why no answer came. The call may have happened all the same.
    pub async fn call(&self, operation: Operation, body: Vec<u8>) -> Answer {
        self.travel().await;
        let harm = self.harm.load(Ordering::Relaxed);
        if *self.way.borrow() != Way::Open || (harm && self.chance.per_mille(15)) {
            tokio::time::sleep(PATIENCE).await;
            return Err("the request was lost".to_owned());
        }
        if harm && may_come_twice(operation, &body) && self.chance.per_mille(40) {
            // The same bytes come once more, perhaps much later: a client or a proxy sent them again.
            let (net, body, late) = (self.clone(), body.clone(), self.chance.millis(0, 4_000));
            tokio::spawn(async move {
                tokio::time::sleep(late).await;
                net.trace.line(format_args!("{}: {} comes once more", net.name, operation.name()));
                let _ = net.server.call(operation, body).await;
            });
        }
        let answer = match tokio::time::timeout(PATIENCE * 5, self.server.call(operation, body)).await {
            Ok(answer) => answer.map_err(|down| down.to_string())?,
            Err(_) => return Err("no answer in time".to_owned()),
        };
        if *self.way.borrow() != Way::Open || (harm && self.chance.per_mille(25)) {
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
        Box::pin(self.call(operation, body))
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
            self.travel().await;
            if *self.way.borrow() != Way::Open {
                tokio::time::sleep(PATIENCE).await;
                return Err(ConnectError::Timeout(PATIENCE));
            }
            match self.server.accept(&query).await.map_err(refused)? {
                Ok(serve) => {
                    self.travel().await;
                    let cut = self.connections.lock().clone();
                    let (agent, server, carried) = connect(&self.way.subscribe(), cut, &self.chance, self.slowest);
                    tokio::spawn(carried);
                    serve(server);
                    self.trace.line(format_args!("{}: agent connected", self.name));
                    Ok(Box::new(agent) as Box<dyn Wire>)
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
