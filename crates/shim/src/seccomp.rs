//! Installs a seccomp filter that `berth-seccomp` has compiled.

use std::io;

/// One class BPF instruction is 8 bytes; the kernel takes at most 4096 of them.
const MAX_FILTER: usize = 4096 * 8;

/// Confines the calling process. Needs CAP_SYS_ADMIN, so it must come before capabilities are dropped.
pub fn install(filter: &[u8]) -> io::Result<()> {
    if filter.is_empty() || filter.len() > MAX_FILTER || !filter.len().is_multiple_of(8) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the compiled seccomp filter is damaged"));
    }
    // The kernel copies the instructions; a Vec<u64> gives them the alignment that a Vec<u8> does not promise.
    let words: Vec<u64> = filter.chunks_exact(8).map(|chunk| u64::from_ne_bytes(chunk.try_into().expect("chunks of eight"))).collect();
    let program = libc::sock_fprog { len: words.len() as u16, filter: words.as_ptr() as *mut libc::sock_filter };
    const SECCOMP_SET_MODE_FILTER: libc::c_ulong = 1;
    // SAFETY: `program` points to `len` instructions that live until the call returns.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0 as libc::c_ulong, &raw const program) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
