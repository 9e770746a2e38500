//! The monitor's socket: `state`, `signal N`, `wait`, one line each, one line back.

/// Most connections at once; a further one waits in the socket's backlog.
pub const MAX_CLIENTS: usize = 64;

/// The longest command is "signal 64\n".
const MAX_COMMAND: usize = 32;

/// The connections.
pub struct Clients {
    listener: i32,
    running: String,
    open: Vec<Client>,
}

struct Client {
    fd: i32,
    command: [u8; MAX_COMMAND],
    length: usize,
    waits: bool,
}

impl Clients {
    /// `running` is the answer to `state` for as long as there is a monitor at all.
    pub fn new(listener: i32, running: String) -> Clients {
        Clients { listener, running, open: Vec::new() }
    }

    /// Whether a further connection can be taken.
    pub fn has_room(&self) -> bool {
        self.open.len() < MAX_CLIENTS
    }

    /// Adds the connections to the poll set, in order.
    pub fn watch(&self, watched: &mut Vec<libc::pollfd>) {
        watched.extend(self.open.iter().map(|client| libc::pollfd { fd: client.fd, events: libc::POLLIN, revents: 0 }));
    }

    /// Takes one new connection.
    pub fn accept(&mut self) {
        // SAFETY: no address is asked for.
        let fd =
            unsafe { libc::accept4(self.listener, std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) };
        if fd >= 0 {
            self.open.push(Client { fd, command: [0; MAX_COMMAND], length: 0, waits: false });
        }
    }

    /// Reads and answers those that `polled` (as many as [`Clients::watch`] added) says are ready.
    pub fn serve(&mut self, polled: &[libc::pollfd], pidfd: i32) {
        let running = &self.running;
        let mut index = 0;
        self.open.retain_mut(|client| {
            let ready = polled.get(index).is_some_and(|entry| entry.revents != 0);
            index += 1;
            let stays = !ready || client.serve(running, pidfd);
            if !stays {
                // SAFETY: the descriptor is this client's own and is forgotten right after.
                unsafe { libc::close(client.fd) };
            }
            stays
        });
    }

    /// Tells the end to all that wait and hangs up on everybody.
    pub fn tell(&mut self, line: &str) {
        for client in self.open.drain(..) {
            if client.waits {
                answer(client.fd, line);
            }
            // SAFETY: as in `serve`.
            unsafe { libc::close(client.fd) };
        }
    }
}

impl Client {
    /// Gives whether the connection stays.
    fn serve(&mut self, running: &str, pidfd: i32) -> bool {
        let room = &mut self.command[self.length..];
        // SAFETY: `room` is valid for its length.
        let count = unsafe { libc::read(self.fd, room.as_mut_ptr().cast(), room.len()) };
        if count <= 0 {
            return count < 0 && std::io::Error::last_os_error().kind() == std::io::ErrorKind::WouldBlock;
        }
        self.length += count as usize;
        while let Some(end) = self.command[..self.length].iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&self.command[..end]).into_owned();
            self.command.copy_within(end + 1..self.length, 0);
            self.length -= end + 1;
            match line.split_once(' ') {
                None if line == "state" => answer(self.fd, running),
                None if line == "wait" => self.waits = true,
                Some(("signal", number)) => answer(self.fd, &signal(pidfd, number)),
                _ => answer(self.fd, "error unknown command\n"),
            }
        }
        // A line that does not end is no command.
        self.length < MAX_COMMAND
    }
}

fn signal(pidfd: i32, number: &str) -> String {
    let Ok(number) = number.parse::<i32>() else { return "error not a number\n".into() };
    // SAFETY: no siginfo is passed.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd, number, std::ptr::null::<u8>(), 0) };
    if result == 0 { "ok\n".into() } else { format!("error {}\n", std::io::Error::last_os_error()) }
}

/// Best effort: answers are shorter than any socket buffer, and a client that is gone needs none.
fn answer(fd: i32, line: &str) {
    // SAFETY: the buffer is valid for its length.
    unsafe { libc::write(fd, line.as_ptr().cast(), line.len()) };
}
