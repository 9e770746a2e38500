//! Addresses that stand for a task outside are this machine's while they do: it answers for them on its links, and takes what is sent to them.
//!
//! Each is a route of type `local`, not an address of a link: whoever lists the machine's addresses does not take them for its own, one that
//! its owner gave the machine by `ip addr add` stays where it is, and those of this network are told from others by number and priority.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use nix::errno::Errno;

use super::link::{LOOPBACK_INDEX, RTA_DST, RTA_OIF, RTM_GETROUTE, RTM_NEWROUTE};
use super::netlink::{ACK, Attributes, CREATE, DUMP, NetlinkError, REPLACE, Reply, Request, Socket, word};
use super::peers::{RTA_PRIORITY, RTM_DELROUTE, priority};
use super::task_link::PROTOCOL;

/// The public addresses of one network's tasks.
#[derive(Debug, Clone, Copy)]
pub struct PublicAddresses {
    priority: u32,
}

impl PublicAddresses {
    /// `mark` tells the networks of one machine apart.
    pub fn new(mark: u16) -> Self {
        Self { priority: priority(mark) }
    }

    /// Has this machine answer for an address. May be repeated.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn add(self, socket: &mut Socket, address: Ipv4Addr) -> Result<(), NetlinkError> {
        self.set(socket, "answer for a public address", RTM_NEWROUTE, ACK | CREATE | REPLACE, address)
    }

    /// It no longer answers for it; that it did not is no error.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn remove(self, socket: &mut Socket, address: Ipv4Addr) -> Result<(), NetlinkError> {
        match self.set(socket, "give up a public address", RTM_DELROUTE, ACK, address) {
            Err(error) if error.errno != Errno::ESRCH => Err(error),
            _ => Ok(()),
        }
    }

    /// Has it answer for exactly these, whatever an earlier life left.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn replace(self, socket: &mut Socket, wanted: &BTreeSet<Ipv4Addr>) -> Result<(), NetlinkError> {
        let mut request = Request::new();
        let mut header = [0; 12];
        header[0] = libc::AF_INET as u8;
        request.message("list routes", RTM_GETROUTE, DUMP, &header, |_: &mut Attributes<'_>| {});
        let present: BTreeSet<Ipv4Addr> = socket.dump(&request)?.iter().filter_map(|reply| self.own(reply)).collect();
        present.difference(wanted).try_for_each(|address| self.remove(socket, *address))?;
        wanted.difference(&present).try_for_each(|address| self.add(socket, *address))
    }

    fn own(self, reply: &Reply) -> Option<Ipv4Addr> {
        let header = reply.body.get(..8)?;
        if (header[4], header[5], header[7]) != (libc::RT_TABLE_LOCAL, PROTOCOL, libc::RTN_LOCAL) {
            return None;
        }
        let value = |wanted| reply.attributes(12).find(|(kind, _)| *kind == wanted).and_then(|(_, value)| word(value));
        (value(RTA_PRIORITY).map(u32::from_ne_bytes) == Some(self.priority)).then(|| value(RTA_DST).map(Ipv4Addr::from))?
    }

    fn set(self, socket: &mut Socket, step: &'static str, kind: u16, flags: u16, address: Ipv4Addr) -> Result<(), NetlinkError> {
        let mut request = Request::new();
        let header = [libc::AF_INET as u8, 32, 0, 0, libc::RT_TABLE_LOCAL, PROTOCOL, libc::RT_SCOPE_HOST, libc::RTN_LOCAL, 0, 0, 0, 0];
        request.message(step, kind, flags, &header, |m| {
            m.bytes(RTA_DST, &address.octets());
            m.ne32(RTA_OIF, LOOPBACK_INDEX);
            m.ne32(RTA_PRIORITY, self.priority);
        });
        socket.call(&request).map(drop)
    }
}
