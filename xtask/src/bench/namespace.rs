//! Other network namespaces than the bench's, for talking to what listens there.

use std::error::Error;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace. It lives for as long as this or a process in it.
pub(super) struct Network(File);

impl Network {
    /// That of a process.
    pub(super) fn of(pid: u32) -> Result<Self, Box<dyn Error>> {
        Self::at(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// The one that a file stands for.
    pub(super) fn at(path: &Path) -> Result<Self, Box<dyn Error>> {
        Ok(Self(File::open(path).map_err(|error| format!("{}: {error}", path.display()))?))
    }

    /// Does something there, on a thread of its own. A socket that is made there stays there, whoever uses it afterwards.
    pub(super) fn inside<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let enter = || -> io::Result<T> {
            move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        };
        std::thread::scope(|scope| scope.spawn(enter).join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked"))))
    }
}
