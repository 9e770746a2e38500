//! Seccomp filters: compiled once by libseccomp into a file, installed from it in microseconds.
//!
//! Compiling Docker's profile takes libseccomp 2 to 4 ms, a quarter of a container's start, for the same bytes every time.

use std::io::{self, Read};
use std::process::ExitCode;

use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};

/// One class BPF instruction is 8 bytes; the kernel takes at most 4096 of them.
const MAX_FILTER: usize = 4096 * 8;

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

/// `berth-shim seccomp`: a profile on stdin, its compiled filter on stdout.
pub fn run() -> ExitCode {
    match compile_stdin() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth-shim seccomp: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compile_stdin() -> Result<(), Box<dyn std::error::Error>> {
    let mut text = Vec::new();
    io::stdin().take(1 << 20).read_to_end(&mut text)?;
    compile(&serde_json::from_slice(&text)?)?.export_bpf(io::stdout())?;
    Ok(())
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
    crate::fds::check(result as i32).map(drop)
}
