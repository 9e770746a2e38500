//! `berth-seccomp`: a profile of system calls on stdin, its compiled filter on stdout.
//!
//! Filters are compiled once and kept: libseccomp takes milliseconds for Docker's profile, a quarter of a container's start, and makes the same
//! bytes of it every time. A program of its own, so that the one that is executed for each container need not load the library.

use std::io::{self, Read, Write};

use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};

/// The profile as `berth-runtime` writes it. Whatever is not listed fails with `errno`.
#[derive(serde::Deserialize)]
struct Profile {
    errno: i32,
    allow: Vec<String>,
    rules: Vec<Rule>,
}

/// A system call allowed only for some arguments, or refused with an error of its own.
#[derive(serde::Deserialize)]
struct Rule {
    name: String,
    /// `None` allows.
    errno: Option<i32>,
    /// All must hold.
    when: Vec<Condition>,
}

#[derive(serde::Deserialize)]
struct Condition {
    argument: u32,
    /// `eq`, `ne`, or `masked` (`value & mask == equals`).
    compare: String,
    value: u64,
    #[serde(default)]
    mask: u64,
}

/// Reads the profile and writes its filter.
///
/// # Errors
/// In words for the agent's log.
pub fn compile_stdin() -> Result<(), Box<dyn std::error::Error>> {
    let mut text = Vec::new();
    io::stdin().take(1 << 20).read_to_end(&mut text)?;
    io::stdout().write_all(&assemble(&serde_json::from_slice(&text)?)?)?;
    Ok(())
}

/// The whole filter as the kernel takes it.
fn assemble(profile: &Profile) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let (mut reader, writer) = io::pipe()?;
    // A pipe holds 64 KiB, twice the longest filter, so nobody needs to read meanwhile.
    compile(profile)?.export_bpf(&writer)?;
    drop(writer);
    let mut filter = unknown_to(profile);
    reader.read_to_end(&mut filter)?;
    Ok(filter)
}

/// The kernel's names of the architectures that a system call can come from (linux/audit.h), native first.
#[cfg(target_arch = "x86_64")]
const AUDIT: [(ScmpArch, u32); 2] = [(ScmpArch::X8664, 0xc000_003e), (ScmpArch::X86, 0x4000_0003)];
#[cfg(target_arch = "aarch64")]
const AUDIT: [(ScmpArch, u32); 2] = [(ScmpArch::Aarch64, 0xc000_00b7), (ScmpArch::Arm, 0x4000_0028)];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const AUDIT: [(ScmpArch, u32); 0] = [];

/// x32's numbers have this bit, and the architecture of x86-64; libseccomp's part tells them apart.
const X32_BIT: u32 = 0x4000_0000;

/// Instructions that come before libseccomp's: a call that is younger than the profile, or than this libseccomp, does not exist.
///
/// C libraries try new calls first and take the old one where there is none (ENOSYS), but not where they are refused (EPERM): with
/// a plain refusal a new image on an old machine could not even chmod. As in runc.
fn unknown_to(profile: &Profile) -> Vec<u8> {
    const LOAD: u16 = 0x20;
    const JUMP_EQUAL: u16 = 0x15;
    const JUMP_GREATER: u16 = 0x25;
    const JUMP_NOT_LESS: u16 = 0x35;
    const RETURN: u16 = 0x06;
    const RETURN_ERRNO: u32 = 0x0005_0000;
    // Places in the kernel's seccomp_data.
    const NUMBER: u32 = 0;
    const ARCHITECTURE: u32 = 4;

    let names = || profile.allow.iter().chain(profile.rules.iter().map(|rule| &rule.name));
    let blocks: Vec<Vec<(u16, u8, u8, u32)>> = AUDIT
        .iter()
        .filter_map(|(arch, audit)| {
            let number = |name: &String| ScmpSyscall::from_name_by_arch(name, *arch).ok().map(i32::from);
            let highest = names().filter_map(number).filter(|number| *number >= 0).max()? as u32;
            let x32 = cfg!(target_arch = "x86_64") && *arch == ScmpArch::native();
            let mut block: Vec<(u16, u8, u8, u32)> = vec![(LOAD, 0, 0, NUMBER)];
            // Skips the return below, and the comparison before it.
            block.extend(x32.then_some((JUMP_NOT_LESS, 2, 0, X32_BIT)));
            block.extend([(JUMP_GREATER, 0, 1, highest), (RETURN, 0, 0, RETURN_ERRNO | libc::ENOSYS as u32)]);
            let length = block.len() as u8;
            Some([vec![(LOAD, 0, 0, ARCHITECTURE), (JUMP_EQUAL, 0, length, *audit)], block].concat())
        })
        .collect();
    let all = blocks.iter().flatten();
    all.flat_map(|(code, yes, no, value)| {
        let mut bytes = code.to_ne_bytes().to_vec();
        bytes.extend([*yes, *no]);
        bytes.extend(value.to_ne_bytes());
        bytes
    })
    .collect()
}

fn compile(profile: &Profile) -> Result<ScmpFilterContext, Box<dyn std::error::Error>> {
    let mut filter = ScmpFilterContext::new(ScmpAction::Errno(profile.errno))?;
    // Binaries of the 32-bit ABIs run in containers too, and must not be a way around the filter.
    for arch in compatible_architectures() {
        filter.add_arch(*arch)?;
    }
    // A program must be able to gain rights by set-user-id inside the container, as in Docker.
    filter.set_ctl_nnp(false)?;
    // A binary tree instead of a list: fewer instructions per system call of the container.
    filter.set_ctl_optimize(2)?;
    for name in &profile.allow {
        // A name that this libseccomp does not know stays refused.
        if let Ok(call) = ScmpSyscall::from_name(name) {
            filter.add_rule(ScmpAction::Allow, call)?;
        }
    }
    for rule in &profile.rules {
        let Ok(call) = ScmpSyscall::from_name(&rule.name) else { continue };
        let action = rule.errno.map_or(ScmpAction::Allow, ScmpAction::Errno);
        let conditions = rule
            .when
            .iter()
            .map(|condition| {
                let operator = match condition.compare.as_str() {
                    "eq" => ScmpCompareOp::Equal,
                    "ne" => ScmpCompareOp::NotEqual,
                    "masked" => ScmpCompareOp::MaskedEqual(condition.mask),
                    other => return Err(format!("unknown comparison {other:?} in the rule of {}", rule.name)),
                };
                Ok(ScmpArgCompare::new(condition.argument, operator, condition.value))
            })
            .collect::<Result<Vec<_>, _>>()?;
        filter.add_rule_conditional(action, call, &conditions)?;
    }
    Ok(filter)
}

fn compatible_architectures() -> &'static [ScmpArch] {
    if cfg!(target_arch = "x86_64") {
        &[ScmpArch::X86, ScmpArch::X32]
    } else if cfg!(target_arch = "aarch64") {
        &[ScmpArch::Arm]
    } else {
        &[]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::install;

    /// The error of one system call under a filter, in a process of its own; 0 if it is allowed.
    fn result_of(filter: &[u8], number: libc::c_long) -> i32 {
        // SAFETY: the child makes nothing but system calls after its filter has been copied, and never returns.
        unsafe {
            let pid = libc::fork();
            if pid == 0 {
                let installed = install(filter).is_ok();
                let result = libc::syscall(number, -1, 0, 0, 0);
                let error = if !installed {
                    255
                } else if result == -1 {
                    *libc::__errno_location()
                } else {
                    0
                };
                libc::_exit(error);
            }
            let mut status = 0;
            libc::waitpid(pid, &raw mut status, 0);
            libc::WEXITSTATUS(status)
        }
    }

    #[test]
    fn what_is_younger_than_the_profile_does_not_exist() {
        // SAFETY: no memory arguments.
        if unsafe { libc::geteuid() } != 0 {
            println!("SKIPPED (needs root): seccomp filters");
            return;
        }
        let names = ["exit_group", "exit", "waitid", "getpid", "futex_waitv", "rt_sigprocmask", "seccomp", "mmap", "brk"];
        let rules = vec![Rule { name: "clone3".into(), errno: Some(libc::ENOSYS), when: vec![] }];
        let profile = Profile { errno: libc::EPERM, allow: names.map(str::to_owned).to_vec(), rules };
        let filter = assemble(&profile).expect("it compiles");
        assert_eq!(result_of(&filter, libc::SYS_getpid), 0);
        assert_eq!(result_of(&filter, libc::SYS_mount), libc::EPERM);
        assert_eq!(result_of(&filter, libc::SYS_openat2), libc::EPERM);
        assert_eq!(result_of(&filter, libc::SYS_clone3), libc::ENOSYS);
        for number in [480, 600, 100_000] {
            assert_eq!(result_of(&filter, number), libc::ENOSYS, "{number}");
        }
        if cfg!(target_arch = "x86_64") {
            // x32's getpid, close (whose number is another architecture's name) and mount.
            assert_ne!(result_of(&filter, 0x4000_0000 | 39), libc::EPERM);
            assert_eq!(result_of(&filter, 0x4000_0000 | 3), libc::EPERM);
            assert_eq!(result_of(&filter, 0x4000_0000 | 165), libc::EPERM);
        }
    }
}
