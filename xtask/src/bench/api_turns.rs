//! Servers that are called in turn, window by window, over connections that stay open: calls a second and how long the slowest took.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use berth_identity::AccessKey;

use super::client::Client;
use super::quantile;

/// Rates are medians of this many windows.
const WINDOWS: usize = 20;
const WINDOW: Duration = Duration::from_millis(200);
/// What of a window is not counted: threads wake up, caches fill.
const WARM_UP: Duration = Duration::from_millis(20);
/// Nobody's turn.
const NOBODY: usize = usize::MAX;

/// What came of one server's windows.
pub(super) struct Measured {
    /// Calls a second, all connections together: the median window's.
    pub(super) rate: f64,
    /// Microseconds that 99 of 100 calls took at most, over all windows.
    pub(super) p99_us: f64,
}

/// Whose turn it is, and whether calls count.
struct Turn {
    server: AtomicUsize,
    counts: AtomicBool,
    stop: AtomicBool,
    /// Calls that counted, by server.
    done: Vec<AtomicUsize>,
}

/// One connection that calls while it is its server's turn.
struct Caller {
    server: usize,
    client: Client,
    request: Vec<u8>,
    turn: Arc<Turn>,
}

/// A server and what it is asked.
pub(super) struct Side {
    pub(super) authority: String,
    /// A request for each connection.
    pub(super) requests: Vec<Vec<u8>>,
    /// Its clients wait for answers awake.
    pub(super) awake: bool,
}

/// Calls each side over as many connections as there are requests for it.
pub(super) fn take_turns(sides: Vec<Side>) -> Result<Vec<Measured>, Box<dyn Error>> {
    let servers = sides.len();
    let turn = Arc::new(Turn {
        server: AtomicUsize::new(NOBODY),
        counts: AtomicBool::new(false),
        stop: AtomicBool::new(false),
        done: sides.iter().map(|_| AtomicUsize::new(0)).collect(),
    });
    let mut threads = Vec::new();
    for (server, Side { authority, requests, awake }) in sides.into_iter().enumerate() {
        for request in requests {
            let client = Client::connect(&authority, &AccessKey::long_term("", "", ""))?;
            let client = if awake { client.wait_awake() } else { client };
            let caller = Caller { server, client, request, turn: Arc::clone(&turn) };
            threads.push((server, std::thread::spawn(move || caller.run().map_err(|error| error.to_string()))));
        }
    }
    let wake = || threads.iter().for_each(|(_, thread)| thread.thread().unpark());
    let mut rates = vec![Vec::new(); servers];
    for window in 0..WINDOWS * servers {
        let server = window % servers;
        turn.server.store(server, Ordering::Relaxed);
        wake();
        std::thread::sleep(WARM_UP);
        turn.counts.store(true, Ordering::Relaxed);
        let (before, started) = (turn.done[server].load(Ordering::Relaxed), Instant::now());
        std::thread::sleep(WINDOW);
        let done = turn.done[server].load(Ordering::Relaxed) - before;
        turn.counts.store(false, Ordering::Relaxed);
        #[expect(clippy::cast_precision_loss, reason = "a count of calls")]
        rates[server].push(done as f64 / started.elapsed().as_secs_f64());
    }
    turn.stop.store(true, Ordering::Relaxed);
    wake();
    let mut micros = vec![Vec::new(); servers];
    for (server, thread) in threads {
        micros[server].extend(thread.join().map_err(|_| "a connection's thread panicked")??);
    }
    let both = rates.iter().zip(&micros);
    Ok(both.map(|(rates, micros)| Measured { rate: quantile(rates, 0.5), p99_us: quantile(micros, 0.99) }).collect())
}

impl Caller {
    /// Calls until told to stop; the microseconds that each call that counted took.
    fn run(mut self) -> Result<Vec<f64>, Box<dyn Error>> {
        let mut micros = Vec::new();
        while !self.turn.stop.load(Ordering::Relaxed) {
            if self.turn.server.load(Ordering::Relaxed) != self.server {
                std::thread::park();
                continue;
            }
            let started = Instant::now();
            let (status, answer) = self.client.send(&self.request)?;
            if status != 200 {
                return Err(format!("{status}: {}", String::from_utf8_lossy(answer)).into());
            }
            if self.turn.counts.load(Ordering::Relaxed) {
                self.turn.done[self.server].fetch_add(1, Ordering::Relaxed);
                micros.push(started.elapsed().as_secs_f64() * 1e6);
            }
        }
        Ok(micros)
    }
}
