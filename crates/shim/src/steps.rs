//! How the process inside the container tells the shim outside which step failed. The pipe closes by itself when the program
//! executes: that silence is the success.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use crate::fds;
use crate::request::{Blame, Failure};

/// A failure is a line; the first word is who is to blame.
const MAX_REPORT: u64 = 64 << 10;

/// The outside.
pub struct Listener(OwnedFd);

/// The inside.
pub struct Reporter(OwnedFd);

/// Makes both ends.
pub fn channel() -> io::Result<(Listener, Reporter)> {
    let (reader, writer) = fds::pipe()?;
    Ok((Listener(reader), Reporter(writer)))
}

impl Reporter {
    /// Tells; the process should end after that.
    pub fn report(self, failure: &Failure) {
        let blame = match failure.blame {
            Blame::Spec => "spec",
            Blame::Exec => "exec",
            Blame::System => "system",
        };
        let _ = std::fs::File::from(self.0).write_all(format!("{blame} {}", failure.text).as_bytes());
    }
}

impl Listener {
    /// Waits until the program executes or has failed to.
    pub fn outcome(self) -> Result<(), Failure> {
        let mut report = Vec::new();
        let read = std::fs::File::from(self.0).take(MAX_REPORT).read_to_end(&mut report);
        read.map_err(|e| Failure::system("hear from the container", e))?;
        if report.is_empty() {
            return Ok(());
        }
        let report = String::from_utf8_lossy(&report);
        let (blame, text) = report.split_once(' ').unwrap_or(("system", &report));
        let blame = match blame {
            "spec" => Blame::Spec,
            "exec" => Blame::Exec,
            _ => Blame::System,
        };
        Err(Failure { blame, text: text.to_owned() })
    }
}
