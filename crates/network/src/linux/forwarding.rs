//! What the kernel must be told by `/proc/sys` for a machine to be its tasks' router.

use std::fs;
use std::io;

use crate::port::NetworkError;

const V4: &str = "/proc/sys/net/ipv4/ip_forward";
const V6: &str = "/proc/sys/net/ipv6/conf";

/// Has IPv4 packets forwarded.
///
/// # Errors
/// [`NetworkError::System`].
pub fn ensure_v4() -> Result<(), NetworkError> {
    set(V4, "1").map_err(|error| NetworkError::System(format!("set to 1 {V4}: {error}")))
}

/// Has IPv6 packets forwarded. A machine that forwards hears no router advertisements unless it is told to; where it heard them before
/// it goes on, since its own default route may be of one.
///
/// # Errors
/// [`NetworkError::System`], also where the kernel has no IPv6.
pub fn ensure_v6() -> Result<(), NetworkError> {
    let all = format!("{V6}/all/forwarding");
    let failed = |error: io::Error| NetworkError::System(format!("set to 1 {all}: {error}"));
    if fs::read_to_string(&all).map_err(failed)?.trim() == "1" {
        return Ok(());
    }
    for link in fs::read_dir(V6).map_err(failed)?.flatten() {
        let advertisements = link.path().join("accept_ra");
        if fs::read_to_string(&advertisements).is_ok_and(|value| value.trim() == "1") {
            fs::write(&advertisements, "2").map_err(failed)?;
        }
    }
    set(&all, "1").map_err(failed)
}

/// What Docker does for its bridge networks: a container's own user may listen on any port and send pings. In the calling
/// thread's namespace; without it containers run all the same, so a refusal is passed over.
pub fn open_to_unprivileged() {
    for (path, value) in [("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"), ("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")] {
        if let Err(error) = fs::write(path, value) {
            tracing::debug!(path, %error, "a container keeps the kernel's default");
        }
    }
}

fn set(path: &str, value: &str) -> io::Result<()> {
    if fs::read_to_string(path)?.trim() != value {
        fs::write(path, value)?;
    }
    Ok(())
}
