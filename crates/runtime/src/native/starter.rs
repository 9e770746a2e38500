//! The process that a container's start was given to: the shim, later the monitor, which it becomes in place. An agent that died in
//! the middle of a start finds by it, in its next life, whether the start still goes on.

use std::io;

/// A process, told apart from later ones of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Starter {
    pid: i32,
    /// When it began, in clock ticks since the machine's boot: `/proc/PID/stat`'s 22nd field (proc_pid_stat(5)).
    began: u64,
}

impl Starter {
    /// A process that has not been reaped.
    ///
    /// # Errors
    /// Of the system; it has been reaped.
    pub fn of(pid: i32) -> io::Result<Starter> {
        let (_, began) = look(pid)?;
        Ok(Starter { pid, began })
    }

    /// Whether it runs. One that ended and was not reaped does not.
    pub fn is_alive(self) -> bool {
        look(self.pid).is_ok_and(|(state, began)| began == self.began && !matches!(state, 'Z' | 'X' | 'x'))
    }

    /// Kills it, if it runs.
    pub fn kill(self) {
        if self.is_alive() {
            // SAFETY: no memory arguments.
            unsafe { libc::kill(self.pid, libc::SIGKILL) };
        }
    }

    /// As it stands in the mark of a start.
    pub fn to_text(self) -> String {
        format!("{} {}\n", self.pid, self.began)
    }

    /// Reads the mark; `None` if it holds no process.
    pub fn parse(text: &str) -> Option<Starter> {
        let mut words = text.split_whitespace();
        Some(Starter { pid: words.next()?.parse().ok()?, began: words.next()?.parse().ok()? })
    }
}

/// A process's state and when it began.
fn look(pid: i32) -> io::Result<(char, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let strange = || io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat: {stat:?}"));
    // The second field is the program's name in parentheses, which may hold anything.
    let (_, rest) = stat.rsplit_once(')').ok_or_else(strange)?;
    let fields: Vec<_> = rest.split_whitespace().collect();
    let state = fields.first().and_then(|word| word.chars().next()).ok_or_else(strange)?;
    let began = fields.get(19).and_then(|word| word.parse().ok()).ok_or_else(strange)?;
    Ok((state, began))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_number_and_its_beginning() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep starts");
        let pid = i32::try_from(child.id()).expect("a process's number");
        let starter = Starter::of(pid).expect("it runs");
        assert!(starter.is_alive());
        assert_eq!(Starter::parse(&starter.to_text()), Some(starter));
        assert!(!Starter { began: starter.began + 1, ..starter }.is_alive(), "another process of that number");
        starter.kill();
        // Not reaped yet: it lies there as a zombie.
        while Starter::of(pid).is_ok() && starter.is_alive() {
            std::thread::yield_now();
        }
        assert!(Starter::of(pid).is_ok(), "nobody has reaped it");
        child.wait().expect("it ended");
        assert!(!starter.is_alive());
    }

    #[test]
    fn a_mark_without_a_process_names_none() {
        assert_eq!(Starter::parse(""), None);
        assert_eq!(Starter::parse("12"), None);
    }
}
