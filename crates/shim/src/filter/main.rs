//! The program `berth-seccomp`.

#[cfg(target_os = "linux")]
mod compile;
#[cfg(all(test, target_os = "linux"))]
#[path = "../seccomp.rs"]
mod seccomp;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    match compile::compile_stdin() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth-seccomp: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("berth-seccomp runs on Linux only");
    std::process::ExitCode::from(2)
}
