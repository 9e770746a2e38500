//! Host ports taken by binding them.
//!
//! Address translation takes a port even from a process that listens on it. So each published port is also bound: a port
//! that a process of the machine uses is refused, and no process can take one that is published.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, setsockopt, socket, sockopt::ReuseAddr};

use crate::port::{NetworkError, Protocol};

/// A port that is ours until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    port: u16,
    socket: OwnedFd,
    kind: Kind,
}

/// How a port is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// TCP, bound alone.
    Bound,
    /// TCP, listening beside connections of an earlier server that are not quite over.
    Listening,
    /// UDP.
    Datagram,
}

impl Reservation {
    /// Takes a port on all addresses.
    ///
    /// # Errors
    /// [`NetworkError::PortInUse`]; [`NetworkError::System`] for anything else.
    pub fn take(protocol: Protocol, port: u16) -> Result<Self, NetworkError> {
        // A reservation just given back may be held for a moment more by a child between fork and exec.
        const ATTEMPTS: u32 = 3;
        let bound = match protocol {
            Protocol::Tcp => Kind::Bound,
            Protocol::Udp => Kind::Datagram,
        };
        let mut outcome = Err(Errno::EADDRINUSE);
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                sleep(Duration::from_millis(1));
            }
            outcome = match try_bind(protocol, port) {
                Err(Errno::EADDRINUSE) if protocol == Protocol::Tcp => try_listen(port).map(|socket| (socket, Kind::Listening)),
                other => other.map(|socket| (socket, bound)),
            };
            if outcome.as_ref().err() != Some(&Errno::EADDRINUSE) {
                break;
            }
        }
        outcome.map(|(socket, kind)| Self { port, socket, kind }).map_err(|errno| refusal(errno, protocol, port))
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Lets a server bind the port beside this, if it may reuse addresses, as all do. `false`: that cannot be, and this must be dropped
    /// for a server to have the port.
    #[must_use]
    pub fn share(&self) -> bool {
        // The kernel looks at both sockets' present wish; two that listen never share.
        self.kind == Kind::Bound && setsockopt(&self.socket, ReuseAddr, &true).is_ok()
    }
}

fn refusal(errno: Errno, protocol: Protocol, port: u16) -> NetworkError {
    match errno {
        Errno::EADDRINUSE => NetworkError::PortInUse { port, protocol },
        errno => NetworkError::System(format!("reserve {protocol:?} port {port}: {}", errno.desc())),
    }
}

/// Bound and not listening, without SO_REUSEADDR: with it, a server that sets it too (all do) could bind the port as well.
fn try_bind(protocol: Protocol, port: u16) -> Result<OwnedFd, Errno> {
    let kind = match protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
    };
    let fd = socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, None)?;
    bind(fd.as_raw_fd(), &any(port))?;
    Ok(fd)
}

/// Connections in TIME_WAIT of a server that has ended refuse a plain bind for a minute, though the port is free to any
/// server. A socket that may reuse the address and listens passes them, and excludes all others as well.
fn try_listen(port: u16) -> Result<OwnedFd, Errno> {
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, ReuseAddr, &true)?;
    bind(fd.as_raw_fd(), &any(port))?;
    listen(&fd, Backlog::new(0).expect("zero is a backlog"))?;
    Ok(fd)
}

fn any(port: u16) -> SockaddrIn {
    std::net::SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into()
}

/// Gives out ports of the dynamic range, each as late as possible again.
#[derive(Debug)]
pub struct DynamicPorts {
    range: RangeInclusive<u16>,
    next: u16,
}

impl DynamicPorts {
    /// A range of which `used` were given out in an earlier life.
    #[must_use]
    pub fn new(range: RangeInclusive<u16>, used: impl IntoIterator<Item = u16>) -> Self {
        let last = used.into_iter().filter(|port| range.contains(port)).max();
        let next = last.filter(|port| port < range.end()).map_or(*range.start(), |port| port + 1);
        Self { range, next }
    }

    /// Takes the next free port.
    ///
    /// # Errors
    /// [`NetworkError::NoFreePort`]; [`NetworkError::System`] if binding fails for another reason than a port in use.
    pub fn take(&mut self, protocol: Protocol) -> Result<Reservation, NetworkError> {
        let (first, last) = (*self.range.start(), *self.range.end());
        for port in (self.next..=last).chain(first..self.next) {
            match try_bind(protocol, port) {
                Ok(socket) => {
                    self.next = if port == last { first } else { port + 1 };
                    let kind = if protocol == Protocol::Tcp { Kind::Bound } else { Kind::Datagram };
                    return Ok(Reservation { port, socket, kind });
                }
                Err(Errno::EADDRINUSE) => {}
                Err(errno) => return Err(refusal(errno, protocol, port)),
            }
        }
        Err(NetworkError::NoFreePort { first, last })
    }
}
