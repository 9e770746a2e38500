//! Netlink by hand: messages are written into one buffer, sent in one call and answered within it.
//!
//! One small codec serves routing, nftables and connection tracking, so that nothing on the launch path forks a tool or
//! waits for an event loop. The kernel handles a request inside `send`, so every answer is already queued when it returns;
//! only dumps go on while they are read.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

const HEADER: usize = 16;
const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
/// Ask for an answer even where nothing fails.
pub const ACK: u16 = 0x4;
/// Dump everything.
pub const DUMP: u16 = 0x300;
/// Replace what exists.
pub const REPLACE: u16 = 0x100;
/// Fail if it exists.
pub const EXCLUSIVE: u16 = 0x200;
/// Make it if it does not exist.
pub const CREATE: u16 = 0x400;
/// Put a rule at the end of its chain.
pub const APPEND: u16 = 0x800;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
const NESTED: u16 = 0x8000;

/// A refused request: which step, which error number, and the kernel's own words where it has any.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{step}: {}{}", errno.desc(), detail.as_deref().map(|d| format!(" ({d})")).unwrap_or_default())]
pub struct NetlinkError {
    /// What was being done.
    pub step: &'static str,
    /// The kernel's answer.
    pub errno: Errno,
    /// The kernel's extended answer.
    pub detail: Option<String>,
}

impl NetlinkError {
    fn new(step: &'static str, errno: Errno) -> Self {
        Self { step, errno, detail: None }
    }
}

/// Messages that are sent together, each with the name of its step.
#[derive(Debug, Default)]
pub struct Request {
    bytes: Vec<u8>,
    steps: Vec<(&'static str, bool)>,
}

impl Request {
    /// An empty request.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a message: its type, flags, fixed header and attributes.
    pub fn message(&mut self, step: &'static str, kind: u16, flags: u16, header: &[u8], attributes: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.bytes.len();
        self.steps.push((step, flags & ACK != 0));
        let sequence = u32::try_from(self.steps.len()).expect("a request has few messages");
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(header);
        pad(&mut self.bytes);
        attributes(&mut Attributes { bytes: &mut self.bytes });
        let length = u32::try_from(self.bytes.len() - start).expect("a message is small");
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// How many messages there are to send.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    fn step(&self, sequence: u32) -> &'static str {
        let index = (sequence as usize).saturating_sub(1);
        self.steps.get(index).or(self.steps.first()).map_or("netlink", |(step, _)| step)
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Writes attributes at the end of a message.
#[derive(Debug)]
pub struct Attributes<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Attributes<'_> {
    /// An attribute of raw bytes.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).expect("an attribute is below 64 KiB");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        pad(self.bytes);
    }

    /// A zero-terminated text.
    pub fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes);
    }

    /// A number in network order, as netfilter wants it.
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// A number in the machine's order, as rtnetlink wants it.
    pub fn ne32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// Attributes inside an attribute.
    pub fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Attributes<'_>)) {
        self.nest_after(kind, &[], inner);
    }

    /// Attributes inside an attribute, already written.
    pub fn nested_bytes(&mut self, kind: u16, value: &[u8]) {
        self.bytes(kind | NESTED, value);
    }

    /// Attributes inside an attribute, after a fixed header.
    pub fn nest_after(&mut self, kind: u16, header: &[u8], inner: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        self.bytes.extend_from_slice(header);
        inner(&mut Attributes { bytes: self.bytes });
        let length = u16::try_from(self.bytes.len() - start).expect("callers keep a nest below 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }
}

/// A message of an answer, without its netlink header.
#[derive(Debug)]
pub struct Reply {
    /// Fixed header and attributes.
    pub body: Vec<u8>,
}

impl Reply {
    /// The attributes after a fixed header of `header` bytes.
    pub fn attributes(&self, header: usize) -> impl Iterator<Item = (u16, &[u8])> {
        attributes(self.body.get(header..).unwrap_or_default())
    }
}

/// Walks attributes; stops at the first malformed one.
pub fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(rest.get(0..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?) & 0x3fff;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of a kind.
pub fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// The first four bytes of an attribute as they are in memory.
pub fn word(value: &[u8]) -> Option<[u8; 4]> {
    value.get(..4)?.try_into().ok()
}

/// A netlink socket. It belongs to the network namespace of the thread that opened it, whoever uses it afterwards.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl Socket {
    /// A routing socket in the calling thread's namespace.
    ///
    /// # Errors
    /// The step of opening that failed.
    pub fn route() -> Result<Self, NetlinkError> {
        Self::open(SockProtocol::NetlinkRoute)
    }

    /// A netfilter socket in the calling thread's namespace.
    ///
    /// # Errors
    /// The step of opening that failed.
    pub fn netfilter() -> Result<Self, NetlinkError> {
        Self::open(SockProtocol::NetlinkNetFilter)
    }

    fn open(protocol: SockProtocol) -> Result<Self, NetlinkError> {
        let failed = |errno| NetlinkError::new("open a netlink socket", errno);
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).map_err(failed)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(failed)?;
        // A dump that the kernel never finishes must become an error, not a hang.
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(5)).map_err(failed)?;
        // Room for the largest batch (a ruleset with tens of thousands of rules; it is taken only when it is used), and for the answers to a
        // request.
        setsockopt(&fd, sockopt::SndBufForce, &(32 << 20)).map_err(failed)?;
        setsockopt(&fd, sockopt::RcvBufForce, &(1 << 20)).map_err(failed)?;
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            let on: libc::c_int = 1;
            // SAFETY: the descriptor is ours and open; the option value is an int that lives through the call. Old kernels
            // refuse the option and then answer less talkatively, which is why the result does not matter.
            unsafe {
                libc::setsockopt(
                    fd.as_raw_fd(),
                    libc::SOL_NETLINK,
                    option,
                    (&raw const on).cast(),
                    size_of::<libc::c_int>() as libc::socklen_t,
                );
            }
        }
        Ok(Self { fd, buffer: vec![0; 64 << 10] })
    }

    /// Sends a request and returns what its messages brought back besides acknowledgements.
    ///
    /// # Errors
    /// The first message that was refused.
    pub fn call(&mut self, request: &Request) -> Result<Vec<Reply>, NetlinkError> {
        self.send(request)?;
        let mut replies = Vec::new();
        let mut refused: Option<NetlinkError> = None;
        let mut acknowledged = 0;
        loop {
            let length = match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => length,
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(NetlinkError::new(request.step(0), errno)),
            };
            for message in messages(&self.buffer[..length]) {
                match message.kind {
                    NLMSG_NOOP => {}
                    NLMSG_ERROR => match message.outcome(request) {
                        Ok(()) => acknowledged += 1,
                        Err(error) => drop(refused.get_or_insert(error)),
                    },
                    _ => replies.push(Reply { body: message.body.to_vec() }),
                }
            }
        }
        if let Some(error) = refused {
            return Err(error);
        }
        let expected = request.steps.iter().filter(|(_, ack)| *ack).count();
        if acknowledged < expected {
            return Err(NetlinkError {
                step: request.step(0),
                errno: Errno::EPROTO,
                detail: Some(format!("{acknowledged} of {expected} answers came")),
            });
        }
        Ok(replies)
    }

    /// Sends one dump request and reads the answer to its end.
    ///
    /// # Errors
    /// The kernel's refusal, or `EINTR` if what is dumped changed under three attempts.
    pub fn dump(&mut self, request: &Request) -> Result<Vec<Reply>, NetlinkError> {
        for _ in 0..3 {
            if let Some(replies) = self.dump_once(request)? {
                return Ok(replies);
            }
        }
        Err(NetlinkError::new(request.step(0), Errno::EINTR))
    }

    fn dump_once(&mut self, request: &Request) -> Result<Option<Vec<Reply>>, NetlinkError> {
        self.send(request)?;
        let mut replies = Vec::new();
        let mut consistent = true;
        loop {
            let length = match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(length) => length,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(NetlinkError::new(request.step(0), errno)),
            };
            for message in messages(&self.buffer[..length]) {
                consistent &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_DONE => return Ok(consistent.then_some(replies)),
                    NLMSG_ERROR => message.outcome(request)?,
                    NLMSG_NOOP => {}
                    _ => replies.push(Reply { body: message.body.to_vec() }),
                }
            }
        }
    }

    fn send(&mut self, request: &Request) -> Result<(), NetlinkError> {
        sendmsg(self.fd.as_raw_fd(), &[IoSlice::new(&request.bytes)], &[], MsgFlags::empty(), Some(&NetlinkAddr::new(0, 0)))
            .map(drop)
            .map_err(|errno| NetlinkError::new(request.step(0), errno))
    }
}

struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

impl Message<'_> {
    fn outcome(&self, request: &Request) -> Result<(), NetlinkError> {
        let code = self.body.get(..4).and_then(word).map_or(-libc::EPROTO, i32::from_ne_bytes);
        if code == 0 {
            return Ok(());
        }
        let detail = (self.flags & NLM_F_ACK_TLVS != 0)
            .then(|| attribute(self.body.get(4 + HEADER..).unwrap_or_default(), NLMSGERR_ATTR_MSG))
            .flatten()
            .map(|text| String::from_utf8_lossy(text).trim_end_matches('\0').to_owned());
        Err(NetlinkError { step: request.step(self.sequence), errno: Errno::from_raw(-code), detail })
    }
}

fn messages(mut rest: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(word(rest)?) as usize;
        let message = Message {
            kind: u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?),
            flags: u16::from_ne_bytes(rest.get(6..8)?.try_into().ok()?),
            sequence: u32::from_ne_bytes(rest.get(8..12)?.try_into().ok()?),
            body: rest.get(HEADER..length)?,
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let mut request = Request::new();
        request.message("test", 7, ACK, &[1, 2, 3, 4], |m| {
            m.text(3, "br-0");
            m.nest(18, |m| m.be32(1, 0x0102_0304));
        });
        let message = messages(&request.bytes).next().expect("one message");
        assert_eq!((message.kind, message.sequence), (7, 1));
        let all: Vec<_> = attributes(&message.body[4..]).collect();
        assert_eq!(all[0], (3, &b"br-0\0"[..]));
        assert_eq!(all[1].0, 18);
        assert_eq!(attribute(all[1].1, 1).and_then(word), Some([1, 2, 3, 4]));
    }

    #[test]
    fn malformed_answers_end_the_walk() {
        assert_eq!(attributes(&[200, 0, 1, 0, 5]).count(), 0);
        assert_eq!(attributes(&[2, 0, 1, 0]).count(), 0);
        assert_eq!(messages(&[255; 15]).count(), 0);
    }
}
