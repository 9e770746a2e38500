//! Ports for servers that must be told theirs before they bind it.
//!
//! A port that the system gave out, and that was let go, may be given to the next test before the server comes to bind it: two tests then
//! talk to one etcd, and one of them ends it. These lie below the range that the system gives out, and are held by the name of an abstract
//! socket until the test ends, against whoever asks here and in tests/ports.py.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 10_240;
const COUNT: u16 = 9_760;

/// A port that is this test's until it is dropped.
pub struct Port {
    pub number: u16,
    _held: UnixDatagram,
}

impl Port {
    pub fn free() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let first = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap();
        (0..COUNT)
            .find_map(|_| {
                let number = FIRST + (first.wrapping_mul(7).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed))) % COUNT;
                let name = SocketAddr::from_abstract_name(format!("berth-test-port-{number}")).unwrap();
                let held = UnixDatagram::bind_addr(&name).ok()?;
                TcpListener::bind(("127.0.0.1", number)).ok()?;
                Some(Self { number, _held: held })
            })
            .expect("one of thousands of ports is free")
    }
}
