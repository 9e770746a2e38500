//! A tiny web server to run as a first task: it says who and where it is, can fail on demand, and stops at once when
//! asked to. Linked statically, it is the only file of its image.

mod page;
mod request;
mod task;

use std::io::{self, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use page::{Answer, Greeting};
use request::{Broken, Request};
use task::TaskArn;

/// Connections served at once, one thread each; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 256;
/// Above this many connections nobody is allowed to stay for a second request.
const CROWDED: usize = MAX_CONNECTIONS / 2;
/// How long one request may take to arrive, and a kept connection may lie idle.
const PATIENCE: Duration = Duration::from_secs(5);
/// Ample for formatting a page; 256 threads then reserve 32 MiB of addresses and touch a tenth of it.
const STACK: usize = 128 * 1024;

struct Site {
    host: String,
    task: TaskArn,
    requests: AtomicU64,
    open: Mutex<usize>,
    closed: Condvar,
}

fn main() -> ExitCode {
    stop_on_signals();
    let port = std::env::var("PORT").unwrap_or_else(|_| "80".into());
    let Ok(port) = port.parse::<u16>() else {
        eprintln!("hello: PORT must be a port number, not {port:?}");
        return ExitCode::from(2);
    };
    let listener = match TcpListener::bind(("0.0.0.0".parse::<std::net::Ipv4Addr>().expect("an address"), port)) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("hello: cannot listen on port {port} (PORT): {error}");
            return ExitCode::FAILURE;
        }
    };
    match listener.local_addr() {
        Ok(address) => println!("hello: listening on {address}"),
        Err(_) => println!("hello: listening on port {port}"),
    }
    serve(&listener, &Arc::new(Site::here()))
}

/// A handler of its own, because as pid 1 of a pid namespace a process has no default action for SIGTERM.
fn stop_on_signals() {
    extern "C" fn stop(_signal: libc::c_int) {
        // SAFETY: `_exit` is async-signal-safe and does not return.
        unsafe { libc::_exit(0) }
    }
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: the handler only calls an async-signal-safe function.
        unsafe { libc::signal(signal, stop as extern "C" fn(libc::c_int) as libc::sighandler_t) };
    }
}

fn serve(listener: &TcpListener, site: &Arc<Site>) -> ! {
    loop {
        site.enter();
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                site.leave();
                // A connection reset before accept, or no file descriptor free: both pass.
                eprintln!("hello: accept: {error}");
                thread::sleep(Duration::from_millis(20));
                continue;
            }
        };
        let guest = site.clone();
        let started = thread::Builder::new().stack_size(STACK).spawn(move || {
            // A client that goes away is no event worth a line.
            let _ = guest.converse(stream);
            guest.leave();
        });
        if let Err(error) = started {
            eprintln!("hello: no thread for a connection: {error}");
            site.leave();
        }
    }
}

impl Site {
    fn here() -> Site {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = match host.trim() {
            "" => std::env::var("HOSTNAME").unwrap_or_else(|_| "unknown".into()),
            host => host.to_owned(),
        };
        Site { host, task: TaskArn::from_environment(), requests: AtomicU64::new(0), open: Mutex::new(0), closed: Condvar::new() }
    }

    fn enter(&self) {
        let open = self.open.lock().expect("nobody panics with the count");
        let mut open = self.closed.wait_while(open, |n| *n >= MAX_CONNECTIONS).expect("nobody panics with the count");
        *open += 1;
    }

    fn leave(&self) {
        *self.open.lock().expect("nobody panics with the count") -= 1;
        self.closed.notify_one();
    }

    fn is_crowded(&self) -> bool {
        *self.open.lock().expect("nobody panics with the count") > CROWDED
    }

    fn converse(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let mut held = Vec::new();
        loop {
            let request = match Request::read(&mut stream, &mut held, Instant::now() + PATIENCE) {
                Ok(Some(request)) => request,
                Ok(None) => return Ok(()),
                Err(Broken::Io(error)) => return Err(error),
                Err(Broken::Malformed(why)) => {
                    stream.write_all(&Answer::text(400, format!("{why}\n")).render(false, false))?;
                    return stream.shutdown(Shutdown::Write);
                }
            };
            let keep = request.keep_alive && !self.is_crowded();
            let answer = self.answer(&request);
            stream.write_all(&answer.render(keep, request.method == "HEAD"))?;
            if let Some(code) = answer.exit {
                println!("hello: asked to exit with {code}");
                let _ = stream.shutdown(Shutdown::Write);
                std::process::exit(code.into());
            }
            if !keep {
                return stream.shutdown(Shutdown::Write);
            }
        }
    }

    fn answer(&self, request: &Request) -> Answer {
        if request.method != "GET" && request.method != "HEAD" {
            return Answer::text(405, "only GET and HEAD\n".into());
        }
        match request.path.as_str() {
            "/" => {
                let count = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
                let task = self.task.get();
                Greeting { host: &self.host, task: task.as_deref(), count }.answer(request.wants_html)
            }
            "/healthz" => Answer::text(200, "ok\n".into()),
            "/env" => page::environment(),
            "/exit" => page::exit(request.query("code")),
            _ => Answer::text(404, "nothing here; try /, /healthz, /env or /exit?code=N\n".into()),
        }
    }
}
