//! Capability sets by system call.

use std::io;

use crate::fds::check;

/// Names by number, as in linux/capability.h.
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

/// The kernel's highest possible number.
const HIGHEST: u32 = 63;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const VERSION_3: u32 = 0x2008_0522;

/// A set of names (without `CAP_`) as bits.
pub fn bits(names: &[String]) -> Result<u64, String> {
    names.iter().try_fold(0, |bits, name| {
        let number = NAMES.iter().position(|known| known == name);
        number.map(|number| bits | 1 << number).ok_or_else(|| format!("unknown capability {name:?}"))
    })
}

/// Takes everything else from the bounding set, so that no program can ever give it back.
pub fn drop_bounding(keep: u64) -> io::Result<()> {
    for number in (0..=HIGHEST).filter(|number| keep & (1 << number) == 0) {
        // SAFETY: no memory arguments.
        match check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) }) {
            // Past the last one that this kernel has.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(()),
            result => drop(result?),
        }
    }
    Ok(())
}

/// Makes effective what is permitted, after a change of user has taken it away.
pub fn raise_all() -> io::Result<()> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: header and data are as version 3 wants them and outlive the calls.
    unsafe {
        check(libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) as i32)?;
        for half in &mut data {
            half.effective = half.permitted;
        }
        check(libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) as i32).map(drop)
    }
}

/// Leaves only these. Inheritable and ambient become empty: a program run by another user gains nothing (CVE-2022-24769).
pub fn keep(bits: u64) -> io::Result<()> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let half = |bits: u32| Data { effective: bits, permitted: bits, inheritable: 0 };
    let data = [half(bits as u32), half((bits >> 32) as u32)];
    // SAFETY: as in `raise_all`; prctl has no memory arguments.
    unsafe {
        check(libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))?;
        check(libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) as i32).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bits() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(bits(&names(&["CHOWN", "SETPCAP", "CHECKPOINT_RESTORE"])), Ok(1 | 1 << 8 | 1 << 40));
        assert!(bits(&names(&["FLY"])).is_err());
    }
}
