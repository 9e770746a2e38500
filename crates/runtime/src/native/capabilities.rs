//! Which capabilities a container keeps.

use std::collections::BTreeSet;

/// Docker's default set: enough for set-user-id programs, package managers and low ports inside the container.
/// <https://docs.docker.com/engine/containers/run/#runtime-privilege-and-linux-capabilities>
pub const DEFAULT: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// All names by number, as in linux/capability.h.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// All that there are.
pub fn all() -> BTreeSet<&'static str> {
    NAMES.into_iter().collect()
}

/// A set as the kernel and `berth-shim` have it: bit n is the capability of that number. Names that are none count for nothing: what a
/// container keeps was resolved by [`resolve`].
pub fn bits<'a>(names: impl IntoIterator<Item = &'a str>) -> u64 {
    let number = |name: &str| NAMES.iter().position(|known| *known == name);
    names.into_iter().filter_map(number).fold(0, |bits, number| bits | 1 << number)
}

/// What this process could give at all (its bounding set).
pub fn available() -> BTreeSet<&'static str> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap_or_default();
    let bits = u64::from_str_radix(line.trim(), 16).unwrap_or(u64::MAX);
    NAMES.iter().enumerate().filter(|(number, _)| bits & (1 << number) != 0).map(|(_, name)| *name).collect()
}

/// The set of a container. Names may have the `CAP_` prefix, in any case; `ALL` means all that are available.
///
/// # Errors
/// The text names the member and the capability that is unknown or that this machine does not have.
pub fn resolve(
    add: &[String],
    drop: &[String],
    privileged: bool,
    default: &[&'static str],
    available: &BTreeSet<&'static str>,
) -> Result<BTreeSet<&'static str>, String> {
    if privileged {
        return Ok(available.clone());
    }
    let mut set: BTreeSet<&'static str> = default.iter().copied().filter(|name| available.contains(name)).collect();
    // Dropping ALL means: only what is added. Adding ALL means: all but what is dropped. As in Docker.
    if drop.iter().any(|name| plain(name) == "ALL") {
        set.clear();
    }
    if add.iter().any(|name| plain(name) == "ALL") {
        set = available.clone();
    }
    for name in drop.iter().map(|name| plain(name)).filter(|name| name != "ALL") {
        set.remove(known("drop", &name)?);
    }
    for name in add.iter().map(|name| plain(name)).filter(|name| name != "ALL") {
        let name = known("add", &name)?;
        if !available.contains(name) {
            return Err(format!("linuxParameters.capabilities.add: {name} is not available on this machine"));
        }
        set.insert(name);
    }
    Ok(set)
}

fn plain(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    upper.strip_prefix("CAP_").map(str::to_owned).unwrap_or(upper)
}

fn known(member: &str, name: &str) -> Result<&'static str, String> {
    let found = NAMES.iter().find(|known| **known == name);
    found.copied().ok_or_else(|| format!("linuxParameters.capabilities.{member}: unknown capability {name:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(add: &[&str], drop: &[&str]) -> Result<Vec<&'static str>, String> {
        let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let available = NAMES.into_iter().filter(|name| *name != "SYS_RESOURCE").collect();
        resolve(&own(add), &own(drop), false, &DEFAULT, &available).map(|set| set.into_iter().collect())
    }

    #[test]
    fn defaults_additions_and_drops() {
        assert_eq!(set(&[], &[]).unwrap(), DEFAULT);
        assert_eq!(set(&["NET_ADMIN"], &["ALL"]).unwrap(), ["NET_ADMIN"]);
        assert_eq!(set(&["ALL"], &["SYS_ADMIN"]).unwrap().len(), NAMES.len() - 2);
        assert!(set(&["cap_net_admin"], &["CAP_CHOWN"]).unwrap().contains(&"NET_ADMIN"));
        assert!(!set(&[], &["CAP_CHOWN"]).unwrap().contains(&"CHOWN"));
    }

    #[test]
    fn names_are_bits() {
        assert_eq!(bits(["CHOWN", "SETPCAP", "CHECKPOINT_RESTORE", "FLY"]), 1 | 1 << 8 | 1 << 40);
        assert_eq!(bits([]), 0);
    }

    #[test]
    fn unknown_and_unavailable_ones_are_named() {
        assert!(set(&["FLY"], &[]).unwrap_err().contains("capabilities.add: unknown capability \"FLY\""));
        assert!(set(&["SYS_RESOURCE"], &[]).unwrap_err().contains("SYS_RESOURCE is not available"));
    }
}
