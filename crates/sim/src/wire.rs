//! One agent's connection as bytes on their way: ordered, late, and at times cut, swallowed or stuck. Knows no message.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::chance::Chance;

/// Bytes that fit into each end's buffer; small, so that who does not read is noticed by who writes.
const BUFFER: usize = 2 * 1024;

/// How often it is looked whether what is stuck goes on.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// How a machine's way to the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It works.
    Open,
    /// What is sent never arrives, and nobody is told.
    Swallows,
    /// Nothing is taken on.
    Stuck,
}

/// Both ends' ways.
#[derive(Clone)]
pub struct Ways {
    /// The machine's that dials.
    pub own: watch::Receiver<Way>,
    /// The machine's that is dialled.
    pub other: watch::Receiver<Way>,
}

impl Ways {
    fn state(&self) -> Way {
        let (own, other) = (*self.own.borrow(), *self.other.borrow());
        if own == Way::Open { other } else { own }
    }
}

/// Makes a connection over a way; it ends when either side hangs up, or with `cut`. Returns both ends and what carries the
/// bytes between them.
pub fn connect(
    ways: &Ways,
    cut: CancellationToken,
    chance: &Chance,
    slowest: u64,
) -> (DuplexStream, DuplexStream, impl Future<Output = ()> + Send + use<>) {
    let (agent, near) = duplex(BUFFER);
    let (server, far) = duplex(BUFFER);
    let (near_read, near_write) = split(near);
    let (far_read, far_write) = split(far);
    let up = carry(near_read, far_write, ways.clone(), chance.part("up", 0), slowest);
    let down = carry(far_read, near_write, ways.clone(), chance.part("down", 0), slowest);
    let carried = async move {
        tokio::select! {
            biased;
            () = cut.cancelled() => {}
            () = async { tokio::join!(up, down); } => {}
        }
    };
    (agent, server, carried)
}

async fn carry(mut from: ReadHalf<DuplexStream>, mut to: WriteHalf<DuplexStream>, ways: Ways, chance: Chance, slowest: u64) {
    let mut buffer = vec![0; 4096];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        tokio::time::sleep(Duration::from_millis(chance.below(slowest + 1))).await;
        // Not by waiting for a change: tokio's `watch` wakes its receivers in an order of chance.
        while ways.state() == Way::Stuck {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let state = ways.state();
        match (state, read) {
            // Who has vanished cannot say so either.
            (Way::Swallows, 0) => return std::future::pending().await,
            (Way::Swallows, _) => {}
            (_, 0) => {
                let _ = to.shutdown().await;
                return;
            }
            (_, read) => {
                if to.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}
