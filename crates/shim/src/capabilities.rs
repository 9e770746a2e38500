//! Capability sets by system call. A set is a number of 64 bits, as in linux/capability.h; names are the runtime's alone.

use std::io;

use crate::fds::check;

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
