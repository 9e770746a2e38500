//! The container shim: a short-lived, single-threaded process that turns one bundle into one running container and then
//! becomes its monitor, or runs one process inside a running container.
//!
//! Never uses threads or an async runtime (it clones without exec), and is never called in-process.

#[cfg(target_os = "linux")]
mod capabilities;
#[cfg(target_os = "linux")]
mod cgroups;
#[cfg(target_os = "linux")]
mod config;
#[cfg(target_os = "linux")]
mod devices;
#[cfg(target_os = "linux")]
mod exec;
#[cfg(target_os = "linux")]
mod fds;
#[cfg(target_os = "linux")]
mod hold;
#[cfg(target_os = "linux")]
mod idmap;
#[cfg(target_os = "linux")]
mod inheritance;
#[cfg(target_os = "linux")]
mod init;
#[cfg(target_os = "linux")]
mod payload;
#[cfg(target_os = "linux")]
mod places;
#[cfg(target_os = "linux")]
mod remap;
#[cfg(target_os = "linux")]
mod request;
#[cfg(target_os = "linux")]
mod rootfs;
#[cfg(target_os = "linux")]
mod seccomp;
#[cfg(target_os = "linux")]
mod shared;
#[cfg(target_os = "linux")]
mod start;
#[cfg(target_os = "linux")]
mod steps;
#[cfg(target_os = "linux")]
mod terminal;
#[cfg(target_os = "linux")]
mod users;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    // It runs from a copy in memory, whose name says nothing.
    // SAFETY: the name is a literal.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"berth-shim".as_ptr(), 0, 0, 0) };
    inheritance::expect_children();
    if let Err(error) = fds::close_from(libc::STDERR_FILENO + 1) {
        eprintln!("berth-shim: close inherited descriptors: {error}");
        return std::process::ExitCode::FAILURE;
    }
    let mode = std::env::args().nth(1).unwrap_or_default();
    match mode.as_str() {
        "start" => start::run(),
        "exec" => exec::run(),
        "hold" => hold::run(),
        "remap" => remap::run(),
        _ => {
            eprintln!("usage: berth-shim start|exec|hold|remap   (the request comes on stdin; started by berth's agent)");
            std::process::ExitCode::from(2)
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("berth-shim runs on Linux only");
    std::process::ExitCode::from(2)
}
