//! The container's terminal: a pseudo terminal of its own /dev/pts. What the container writes to it is read from its other side, which
//! goes out of the container to the monitor.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::{fds, places};

const DEVPTS_MAGIC: u64 = 0x1cd1;

/// Both sides.
pub struct Terminal {
    /// The one that a program has as its input and outputs.
    pub inside: OwnedFd,
    outside: OwnedFd,
}

/// Makes one. Must be called inside the container's root.
pub fn open() -> io::Result<Terminal> {
    // Not by /dev/ptmx: where somebody else filled /dev, that is anything.
    let flags = libc::O_NOCTTY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let outside: OwnedFd = std::fs::OpenOptions::new().read(true).write(true).custom_flags(flags).open("/dev/pts/ptmx")?.into();
    if fds::file_system(&outside)? != DEVPTS_MAGIC {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "/dev/pts is not one of pseudo terminals"));
    }
    let unlock: libc::c_int = 0;
    // SAFETY: `unlock` outlives the call.
    fds::check(unsafe { libc::ioctl(outside.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) })?;
    Ok(Terminal { inside: other_side(&outside)?, outside })
}

/// The inner side by the outer one, whatever /dev/pts looks like to the caller.
pub fn other_side(outside: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: no memory arguments.
    let fd = fds::check(unsafe { libc::ioctl(outside.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: the kernel has just made this descriptor; it belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

impl Terminal {
    /// Shows it as /dev/console, where programs write that know nothing better. Must be called inside the container's root.
    pub fn be_console(&self) -> io::Result<()> {
        let root = fds::open_place(Path::new("/"), libc::O_DIRECTORY)?;
        let place = places::ensure_file(&root, "/dev/console")?;
        let tree = fds::open_tree(&self.inside, false)?;
        fds::set_mount(&tree, fds::NOSUID | fds::NOEXEC, false)?;
        fds::move_mount(&tree, &place)
    }

    /// Gives the outer side away.
    pub fn hand_out(self, to: &UnixStream) -> io::Result<OwnedFd> {
        send(to, &self.outside)?;
        Ok(self.inside)
    }
}

/// Room for one descriptor beside a byte, aligned as the kernel's header wants it.
#[repr(C, align(8))]
struct Control([u8; 32]);

fn with_message<T>(use_it: impl FnOnce(&mut libc::msghdr) -> io::Result<T>) -> io::Result<T> {
    let (mut byte, mut control) = ([0u8; 1], Control([0; 32]));
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: zero is a valid value for this plain structure.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: plain arithmetic.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(4) } as _;
    use_it(&mut message)
}

fn send(to: &UnixStream, fd: &OwnedFd) -> io::Result<()> {
    with_message(|message| {
        // SAFETY: the message has room for one header with one descriptor; all of it outlives the call.
        let sent = unsafe {
            let header = libc::CMSG_FIRSTHDR(message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(4) as _;
            libc::CMSG_DATA(header).cast::<libc::c_int>().write_unaligned(fd.as_raw_fd());
            libc::sendmsg(to.as_raw_fd(), message, libc::MSG_NOSIGNAL)
        };
        fds::check(sent as i32).map(drop)
    })
}

/// Takes what [`Terminal::hand_out`] gave.
pub fn receive(from: &UnixStream) -> io::Result<OwnedFd> {
    with_message(|message| {
        // SAFETY: the message has room for one header with one descriptor; a descriptor that came is this process's own.
        unsafe {
            fds::check(libc::recvmsg(from.as_raw_fd(), message, libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT) as i32)?;
            let header = libc::CMSG_FIRSTHDR(message);
            if header.is_null() || (*header).cmsg_type != libc::SCM_RIGHTS {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "no descriptor came"));
            }
            Ok(OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<libc::c_int>().read_unaligned()))
        }
    })
}

/// Makes the terminal on standard input the controlling one of this session, of which the caller must be the leader.
pub fn control() -> io::Result<()> {
    // SAFETY: no memory arguments.
    fds::check(unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) }).map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn what_is_written_inside_comes_out() {
        let Ok(terminal) = open() else {
            println!("SKIPPED (needs /dev/pts): a pseudo terminal");
            return;
        };
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let inside = terminal.hand_out(&theirs).expect("it is sent");
        let outside = receive(&ours).expect("it came");
        let mut writer = std::fs::File::from(other_side(&outside).expect("the inner side again"));
        drop(inside);
        writer.write_all(b"hello\n").expect("it takes it");
        let (mut text, mut reader) = ([0; 7], std::fs::File::from(outside));
        // SAFETY: plain fcntl on a descriptor we own.
        unsafe { libc::fcntl(reader.as_raw_fd(), libc::F_SETFL, 0) };
        reader.read_exact(&mut text).expect("it comes out");
        assert_eq!(&text, b"hello\r\n");
        assert!(receive(&ours).is_err(), "nothing more was sent");
    }
}
