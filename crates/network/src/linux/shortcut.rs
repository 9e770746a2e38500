//! A shorter way for connections that move much between two tasks of this machine.
//!
//! The long way is a second link, a route, connection tracking and the rules; together they cost a fifth of what two tasks could move.
//! None of it has anything left to say of a connection that was let in once, until it ends. So a program at the sender's link hands its
//! packets straight to the receiver's end (`bpf_redirect_peer`, Linux 5.10), and lets its beginning and end go the long way.
//!
//! Tracking then misses what was sent between, and would take the end for somebody else's. It is told beforehand not to watch the windows of that
//! connection. For the sake of its timeouts every connection takes the long way again once a minute, for a moment.
//!
//! Nothing is attached to a link until much comes from it, since to attach the first program to a link waits for the kernel. Where
//! the kernel has no such programs everything goes on the long way.

mod kernel;
mod program;
mod queue;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};
use std::{fmt, io};

use kernel::Map;
use program::{COUNT, KEY, WAY};

use super::conntrack::{self, TcpFlow};
use super::link;
use super::netlink::{NetlinkError, Socket};
use super::task_link::GATEWAY;

/// How often links are looked at.
pub const EVERY: Duration = Duration::from_millis(250);
/// Bytes that came by a link since the last look for it to be worth a program: 16 MiB a second.
const BUSY: u64 = 4 << 20;
/// Bytes of a connection in one direction for it to be worth the shorter way.
const LARGE: u64 = 1 << 20;
/// How often all connections take the long way again, so that tracking sees that they live: well below any timeout that somebody may have set.
pub const SWEEP: Duration = Duration::from_secs(60);
/// Most connections, in one direction, that take the shorter way, and most that are counted.
const MOST: u32 = 4096;

/// Whether the kernel has what the shorter way takes, and this process may use it: the program is made ready, and given back.
///
/// # Errors
/// Why not.
pub fn try_shortcut() -> io::Result<()> {
    Loaded::new().map(drop)
}

/// Takes off a link what was attached to it; that there is none, or no such link, is no error.
///
/// # Errors
/// The kernel's refusal.
pub fn clear(route: &mut Socket, name: &str) -> Result<(), NetlinkError> {
    match link::index(route, name)? {
        Some(index) => queue::detach(route, index),
        None => Ok(()),
    }
}

/// What is on the shorter way, and what may come to be. In the network namespace of the thread that first looks.
#[derive(Debug)]
pub struct Shortcuts {
    /// How often all of them take the long way for a moment.
    sweep_every: Duration,
    kernel: Kernel,
    /// By name.
    links: BTreeMap<String, Link>,
    flows: BTreeSet<TcpFlow>,
}

#[derive(Debug, Default)]
enum Kernel {
    #[default]
    Untried,
    /// Links can be looked at; nothing was worth a program yet.
    Watching(Sockets),
    Ready(Sockets, Box<Loaded>, Instant),
    /// It has no such programs, or does not allow them.
    Unfit,
}

#[derive(Debug)]
struct Sockets {
    route: Socket,
    netfilter: Socket,
}

#[derive(Debug)]
struct Loaded {
    flows: Map<KEY, WAY>,
    seen: Map<KEY, COUNT>,
    program: OwnedFd,
}

/// A link of a task.
#[derive(Debug)]
struct Link {
    index: u32,
    end: End,
    received: u64,
    /// Much came by it since the last sweep.
    was_busy: bool,
    has_program: bool,
}

/// A task's end of its interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its hardware address.
    pub hardware: [u8; 6],
}

/// Why there is no shorter way.
#[derive(Debug)]
enum Obstacle {
    Kernel(io::Error),
    Netlink(NetlinkError),
}

impl From<io::Error> for Obstacle {
    fn from(error: io::Error) -> Self {
        Self::Kernel(error)
    }
}

impl From<NetlinkError> for Obstacle {
    fn from(error: NetlinkError) -> Self {
        Self::Netlink(error)
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(error) => error.fmt(f),
            Self::Netlink(error) => error.fmt(f),
        }
    }
}

impl Loaded {
    fn new() -> io::Result<Self> {
        let (flows, seen) = (Map::create(MOST)?, Map::create(MOST)?);
        let program = kernel::load("berth_shortcut", &program::program(flows.as_fd(), seen.as_fd()))?;
        Ok(Self { flows, seen, program })
    }
}

/// A flow as the program knows it.
fn key(link: u32, flow: TcpFlow) -> [u8; KEY] {
    let mut key = [0; KEY];
    key[..4].copy_from_slice(&link.to_ne_bytes());
    key[4..8].copy_from_slice(&flow.source.ip().octets());
    key[8..12].copy_from_slice(&flow.destination.ip().octets());
    key[12..14].copy_from_slice(&flow.source.port().to_be_bytes());
    key[14..].copy_from_slice(&flow.destination.port().to_be_bytes());
    key
}

fn flow(key: [u8; KEY]) -> (u32, TcpFlow) {
    let [l0, l1, l2, l3, a, b, c, d, e, f, g, h, from_high, from_low, to_high, to_low] = key;
    let source = (Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([from_high, from_low]));
    let destination = (Ipv4Addr::new(e, f, g, h), u16::from_be_bytes([to_high, to_low]));
    (u32::from_ne_bytes([l0, l1, l2, l3]), TcpFlow::new(source, destination))
}

impl Shortcuts {
    /// None yet; all that come to be take the long way for a moment that often.
    pub fn new(sweep_every: Duration) -> Self {
        Self { sweep_every, kernel: Kernel::default(), links: BTreeMap::new(), flows: BTreeSet::new() }
    }

    /// Looks at the links of tasks, and lets what moves much take the shorter way. `ends` are all there are, by link. May be called as often as
    /// one likes; whatever is refused is tried again when it is worth it again.
    pub fn look(&mut self, ends: &BTreeMap<String, End>, now: Instant) {
        if let Err(obstacle) = self.try_look(ends, now) {
            tracing::debug!(%obstacle, "what tasks of this machine send each other takes the long way");
        }
    }

    fn try_look(&mut self, ends: &BTreeMap<String, End>, now: Instant) -> Result<(), Obstacle> {
        if let Kernel::Untried = self.kernel {
            self.kernel = Kernel::Watching(Sockets { route: Socket::route()?, netfilter: Socket::netfilter()? });
        }
        let (Kernel::Watching(sockets) | Kernel::Ready(sockets, ..)) = &mut self.kernel else { return Ok(()) };
        self.links.retain(|name, link| ends.get(name) == Some(&link.end));
        for (name, end) in ends {
            if !self.links.contains_key(name)
                && let Some(index) = link::index(&mut sockets.route, name)?
            {
                self.links.insert(name.clone(), Link::new(index, *end));
            }
        }
        let received = queue::received(&mut sockets.route)?;
        let mut is_busy = false;
        for link in self.links.values_mut() {
            is_busy |= link.note(received.get(&link.index).copied());
        }
        if is_busy && let Kernel::Watching(_) = self.kernel {
            self.load(now);
        }
        let Kernel::Ready(sockets, loaded, swept) = &mut self.kernel else { return Ok(()) };
        for link in self.links.values_mut().filter(|link| link.was_busy && !link.has_program) {
            link.attach(&mut sockets.route, loaded);
        }
        if now.duration_since(*swept) >= self.sweep_every {
            *swept = now;
            return self.sweep();
        }
        self.take_over()
    }

    /// Makes the program ready, if the kernel can.
    fn load(&mut self, now: Instant) {
        let Kernel::Watching(sockets) = std::mem::replace(&mut self.kernel, Kernel::Unfit) else { return };
        match Loaded::new() {
            Ok(loaded) => self.kernel = Kernel::Ready(sockets, Box::new(loaded), now),
            Err(error) => {
                tracing::info!(%error, "the kernel takes no programs at links (Linux 5.10); what tasks of this machine send each other goes by route and rules");
            }
        }
    }

    /// Lets what was counted to be large take the shorter way.
    fn take_over(&mut self) -> Result<(), Obstacle> {
        let Kernel::Ready(sockets, loaded, _) = &mut self.kernel else { return Ok(()) };
        let by_address: BTreeMap<Ipv4Addr, String> = self.links.iter().map(|(name, link)| (link.end.address, name.clone())).collect();
        for counted in loaded.seen.keys() {
            if loaded.seen.get(&counted).is_none_or(|count| u64::from_ne_bytes(count) < LARGE) {
                continue;
            }
            loaded.seen.remove(&counted);
            let (from, flow) = flow(counted);
            let sender = self.links.values().find(|link| link.index == from && link.end.address == *flow.source.ip());
            let receiver = by_address.get(flow.destination.ip());
            let (Some(sender), Some(receiver)) = (sender, receiver.and_then(|name| self.links.get(name))) else { continue };
            if !conntrack::loosen(&mut sockets.netfilter, flow)? {
                continue;
            }
            loaded.flows.set(&key(sender.index, flow), &receiver.way())?;
            loaded.flows.set(&key(receiver.index, flow.turned()), &sender.way())?;
            self.flows.insert(flow);
            let receiver = by_address.get(flow.destination.ip()).and_then(|name| self.links.get_mut(name));
            // What it answers takes the shorter way too.
            if let Some(receiver) = receiver.filter(|link| !link.has_program) {
                receiver.attach(&mut sockets.route, loaded);
            }
        }
        Ok(())
    }

    /// Sends everything the long way again, and takes the program off links that have nothing large any more.
    fn sweep(&mut self) -> Result<(), Obstacle> {
        let Kernel::Ready(sockets, loaded, _) = &mut self.kernel else { return Ok(()) };
        loaded.flows.keys().iter().for_each(|key| loaded.flows.remove(key));
        loaded.seen.keys().iter().for_each(|key| loaded.seen.remove(key));
        let peers: BTreeSet<Ipv4Addr> =
            std::mem::take(&mut self.flows).iter().flat_map(|flow| [*flow.source.ip(), *flow.destination.ip()]).collect();
        for link in self.links.values_mut().filter(|link| link.has_program) {
            if !link.was_busy && !peers.contains(&link.end.address) {
                queue::detach(&mut sockets.route, link.index)?;
                link.has_program = false;
            }
            link.was_busy = false;
        }
        Ok(())
    }

    /// Takes everything of these addresses off the shorter way: somebody else may have them next.
    pub fn forget(&mut self, addresses: &BTreeSet<IpAddr>) {
        let is_theirs = |address: &Ipv4Addr| addresses.contains(&IpAddr::V4(*address));
        self.links.retain(|_, link| !is_theirs(&link.end.address));
        if let Kernel::Ready(_, loaded, _) = &self.kernel
            && self.flows.iter().any(|flow| is_theirs(flow.source.ip()) || is_theirs(flow.destination.ip()))
        {
            for key in loaded.flows.keys() {
                let (_, flow) = flow(key);
                if is_theirs(flow.source.ip()) || is_theirs(flow.destination.ip()) {
                    loaded.flows.remove(&key);
                }
            }
        }
        self.flows.retain(|flow| !is_theirs(flow.source.ip()) && !is_theirs(flow.destination.ip()));
    }

    /// How many connections take the shorter way now, each direction counted; `None` if the kernel has no such way.
    pub fn count(&self) -> Option<usize> {
        match &self.kernel {
            Kernel::Unfit => None,
            Kernel::Ready(_, loaded, _) => Some(loaded.flows.keys().len()),
            Kernel::Untried | Kernel::Watching(_) => Some(0),
        }
    }
}

impl Link {
    fn new(index: u32, end: End) -> Self {
        // What it got before is not known; the first look says nothing.
        Self { index, end, received: u64::MAX, was_busy: false, has_program: false }
    }

    /// Notes what ever came by it; is it busy?
    fn note(&mut self, received: Option<u64>) -> bool {
        let received = received.unwrap_or(self.received);
        let is_busy = received.saturating_sub(self.received) >= BUSY;
        self.received = received;
        self.was_busy |= is_busy;
        is_busy
    }

    /// One that is gone by now, or that somebody has put a program of his own on, holds up no other.
    fn attach(&mut self, socket: &mut Socket, loaded: &Loaded) {
        match queue::attach(socket, self.index, loaded.program.as_fd()) {
            Ok(()) => self.has_program = true,
            Err(error) => {
                tracing::debug!(%error, link = self.index, "what a task sends takes the long way");
                self.was_busy = false;
            }
        }
    }

    /// How a packet gets to it.
    fn way(&self) -> [u8; WAY] {
        let mut way = [0; WAY];
        way[..4].copy_from_slice(&self.index.to_ne_bytes());
        way[4..10].copy_from_slice(&self.end.hardware);
        way[10..].copy_from_slice(&GATEWAY);
        way
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_read_as_it_was_written() {
        let one = TcpFlow::new((Ipv4Addr::new(10, 0, 0, 1), 40_000), (Ipv4Addr::new(10, 0, 0, 2), 80));
        assert_eq!(flow(key(7, one)), (7, one));
        assert_eq!(key(7, one)[12..], [0x9c, 0x40, 0, 80]);
        assert_eq!(one.turned().turned(), one);
    }
}
