//! The monitor: what is left of the shim beside a running container. It reaps it, keeps its output and answers about it.
//!
//! Must never depend on the agent or anything else being alive, never block on anything but `poll`, and stay small:
//! there is one per container.

#[cfg(target_os = "linux")]
mod clients;
#[cfg(target_os = "linux")]
mod exit;
#[cfg(target_os = "linux")]
mod log;
#[cfg(target_os = "linux")]
mod members;
#[cfg(target_os = "linux")]
mod watch;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let parsed = match arguments.as_slice() {
        [_, pid, at, limit, oom_file, members, ..] => (pid.parse::<i32>(), at.parse::<u64>(), limit.parse::<u64>(), [oom_file, members]),
        _ => {
            eprintln!("berth-monitor is started by berth-shim");
            return std::process::ExitCode::from(2);
        }
    };
    match parsed {
        (Ok(pid), Ok(at), Ok(limit), [oom_file, members]) => watch::run(pid, at, limit, oom_file, members),
        _ => std::process::ExitCode::from(2),
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("berth-monitor runs on Linux only");
    std::process::ExitCode::from(2)
}
