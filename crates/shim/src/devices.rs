//! Which device files work in a container, however they got there: the usual ones, and any may be made. Version 1 of cgroups
//! has a controller for that; on version 2 the kernel asks a program that is attached to the cgroup.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use crate::config::DeviceRule;
use crate::fds;

/// Character devices of every container by major and minor number: null, zero, full, random, urandom, tty, console, ptmx, and
/// pseudo terminals whatever their minor number. As with runc.
const ALLOWED: [(u32, Option<u32>); 9] =
    [(1, Some(3)), (1, Some(5)), (1, Some(7)), (1, Some(8)), (1, Some(9)), (5, Some(0)), (5, Some(1)), (5, Some(2)), (136, None)];

/// Restricts a cgroup of version 1 by its folder in the devices hierarchy.
pub fn restrict_v1(folder: &Path, rules: &[DeviceRule]) -> io::Result<()> {
    File::options().write(true).open(folder.join("devices.deny"))?.write_all(b"a")?;
    let mut allow = File::options().write(true).open(folder.join("devices.allow"))?;
    // Making any is harmless: only opening them is not.
    let usual = ["c *:* m".to_owned(), "b *:* m".to_owned()].into_iter().chain(ALLOWED.iter().map(rule_v1));
    let own = given(rules).map(|given| format!("{} {}:{} {}", given.kind, given.major, given.minor, given.access));
    for rule in usual.chain(own) {
        allow.write_all(rule.as_bytes())?;
    }
    Ok(())
}

/// A device that a container has besides the usual ones.
struct Given<'a> {
    kind: &'a str,
    major: u32,
    minor: u32,
    access: &'a str,
}

fn given(rules: &[DeviceRule]) -> impl Iterator<Item = Given<'_>> {
    rules
        .iter()
        .filter(|rule| rule.allow && !rule.access.is_empty())
        .filter_map(|rule| Some(Given { kind: &rule.kind, major: rule.major?, minor: rule.minor?, access: &rule.access }))
}

fn rule_v1((major, minor): &(u32, Option<u32>)) -> String {
    format!("c {major}:{} rwm", minor.map_or("*".to_owned(), |minor| minor.to_string()))
}

/// One instruction of the kernel's eBPF machine.
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    /// Source in the upper, destination in the lower half.
    registers: u8,
    offset: i16,
    value: i32,
}

/// The few instructions that it takes, by their opcodes (linux/bpf_common.h, linux/bpf.h).
mod code {
    /// destination = *(u32 *)(source + offset)
    pub const LOAD_WORD: u8 = 0x61;
    /// destination = source, lower half
    pub const MOVE_REGISTER: u8 = 0xbc;
    /// destination = value
    pub const MOVE_VALUE: u8 = 0xb7;
    /// destination &= value, lower half
    pub const AND_VALUE: u8 = 0x54;
    /// destination >>= value, lower half
    pub const SHIFT_RIGHT: u8 = 0x74;
    /// if destination == value, skip `offset` instructions
    pub const JUMP_IF_EQUAL: u8 = 0x15;
    /// if destination != value, skip `offset` instructions
    pub const JUMP_UNLESS_EQUAL: u8 = 0x55;
    /// the program's result is register 0
    pub const EXIT: u8 = 0x95;
}

/// The program's argument: `{ u32 access_type, major, minor }`, the kind in the lower half of the first, the access in the upper.
const KIND_BLOCK: i32 = 1;
const KIND_CHARACTER: i32 = 2;
const ACCESS_MAKE: i32 = 1;
const ACCESS_READ: i32 = 2;
const ACCESS_WRITE: i32 = 4;

fn access_bits(letters: &str) -> i32 {
    let bit = |letter, bit| if letters.contains(letter) { bit } else { 0 };
    bit('m', ACCESS_MAKE) | bit('r', ACCESS_READ) | bit('w', ACCESS_WRITE)
}

fn program(rules: &[DeviceRule]) -> Vec<Instruction> {
    let step = |code, destination: u8, source: u8, offset, value| Instruction { code, registers: source << 4 | destination, offset, value };
    let (kind, access, major, minor, rest) = (2, 3, 4, 5, 6);
    let result = |value| [step(code::MOVE_VALUE, 0, 0, 0, value), step(code::EXIT, 0, 0, 0, 0)];
    let mut steps = vec![
        step(code::LOAD_WORD, kind, 1, 0, 0),
        step(code::MOVE_REGISTER, access, kind, 0, 0),
        step(code::SHIFT_RIGHT, access, 0, 0, 16),
        step(code::AND_VALUE, kind, 0, 0, 0xffff),
        step(code::LOAD_WORD, major, 1, 4, 0),
        step(code::LOAD_WORD, minor, 1, 8, 0),
        // Making any, and only that.
        step(code::JUMP_UNLESS_EQUAL, access, 0, 2, ACCESS_MAKE),
    ];
    steps.extend(result(1));
    for device in given(rules) {
        let wanted = if device.kind == "b" { KIND_BLOCK } else { KIND_CHARACTER };
        steps.extend([
            step(code::JUMP_UNLESS_EQUAL, kind, 0, 7, wanted),
            step(code::JUMP_UNLESS_EQUAL, major, 0, 6, device.major as i32),
            step(code::JUMP_UNLESS_EQUAL, minor, 0, 5, device.minor as i32),
            // What is wanted beyond what is allowed.
            step(code::MOVE_REGISTER, rest, access, 0, 0),
            step(code::AND_VALUE, rest, 0, 0, !access_bits(device.access)),
            step(code::JUMP_UNLESS_EQUAL, rest, 0, 2, 0),
        ]);
        steps.extend(result(1));
    }
    steps.push(step(code::JUMP_IF_EQUAL, kind, 0, 2, KIND_CHARACTER));
    steps.extend(result(0));
    for (wanted_major, wanted_minor) in ALLOWED {
        let checks_minor = wanted_minor.map(|minor_value| step(code::JUMP_UNLESS_EQUAL, minor, 0, 2, minor_value as i32));
        let past = 2 + checks_minor.iter().len() as i16;
        steps.push(step(code::JUMP_UNLESS_EQUAL, major, 0, past, wanted_major as i32));
        steps.extend(checks_minor);
        steps.extend(result(1));
    }
    steps.extend(result(0));
    steps
}

const PROGRAM_LOAD: libc::c_long = 5;
const PROGRAM_ATTACH: libc::c_long = 8;
/// Both the program's type is 15 and the attachment's is 6 for devices of a cgroup.
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Programs of the cgroups above stay in force, and others may be added below.
const ALLOW_MULTIPLE: u32 = 2;

/// The beginning of the kernel's `union bpf_attr` for loading; what is not listed is zero.
#[repr(C)]
struct LoadArguments {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
struct AttachArguments {
    cgroup: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Restricts a cgroup of version 2, given its folder. The program goes away with the cgroup.
pub fn restrict_v2(folder: &OwnedFd, rules: &[DeviceRule]) -> io::Result<()> {
    let steps = program(rules);
    let load = LoadArguments {
        kind: TYPE_CGROUP_DEVICE,
        count: steps.len() as u32,
        instructions: steps.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the arguments, and the instructions and text that they point to, outlive the call.
    let loaded = fds::check(unsafe { bpf(PROGRAM_LOAD, &load) })?;
    // SAFETY: the kernel has just made this descriptor; it belongs to nobody else.
    let loaded = unsafe { OwnedFd::from_raw_fd(loaded) };
    let attach = AttachArguments {
        cgroup: folder.as_raw_fd() as u32,
        program: loaded.as_raw_fd() as u32,
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTIPLE,
    };
    // SAFETY: the arguments outlive the call.
    fds::check(unsafe { bpf(PROGRAM_ATTACH, &attach) }).map(drop)
}

/// # Safety
/// `arguments` must be what `command` wants.
unsafe fn bpf<T>(command: libc::c_long, arguments: &T) -> i32 {
    // SAFETY: the caller's promise; the size is that of what is pointed to.
    unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(arguments), std::mem::size_of::<T>()) as i32 }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn rules_of_version_1() {
        let rules: Vec<String> = ALLOWED.iter().map(rule_v1).collect();
        assert_eq!((rules[0].as_str(), rules[8].as_str()), ("c 1:3 rwm", "c 136:* rwm"));
    }

    /// A cgroup of version 2, which hybrid machines have too, beside the controllers of version 1.
    struct Cgroup(std::path::PathBuf);

    impl Cgroup {
        fn make() -> Option<Cgroup> {
            let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
            let root = roots.into_iter().find(|root| root.join("cgroup.procs").exists() && root.join("cgroup.controllers").exists())?;
            let folder = root.join(format!("berth-devices-{}", std::process::id()));
            std::fs::create_dir(&folder).ok().map(|()| Cgroup(folder))
        }
    }

    impl Drop for Cgroup {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir(&self.0);
        }
    }

    #[test]
    fn version_2_lets_only_the_usual_devices_work() {
        let Some(cgroup) = Cgroup::make() else {
            println!("SKIPPED (needs root and cgroups of version 2): the device filter");
            return;
        };
        let rule = |kind: &str, major, minor, access: &str| DeviceRule {
            allow: true,
            kind: kind.to_owned(),
            major: Some(major),
            minor: Some(minor),
            access: access.to_owned(),
        };
        // A tty that may be read only, and a disk of its own.
        let rules = [rule("c", 4, 63, "r"), rule("b", 7, 1, "rw")];
        restrict_v2(&fds::open_place(&cgroup.0, libc::O_DIRECTORY).expect("it is there"), &rules).expect("the filter is attached");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let script = "for i in '1 3' '1 5' '1 9'; do mknod c c $i && true < c || echo refused $i; rm c; done; true > /dev/null
            mknod m c 1 11 && echo made; true < m || echo no log; rm m; mknod m c 1 4 && true < m || echo no ports; rm m
            mknod b b 7 0 && echo made; true < b || echo no disk; mknod z b 1 5 && true < z || echo no such disk; mknod n c 5 3 && true < n || echo no tty3
            mknod t c 4 63; true < t && echo may read; true > t || echo may not write; mknod d b 7 1; true < d && true >> d && echo own disk
            mknod e c 7 1; true < e || echo no other kind";
        let procs = std::ffi::CString::new(cgroup.0.join("cgroup.procs").as_os_str().as_encoded_bytes()).expect("a plain path");
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(folder.path());
        // SAFETY: only system calls between fork and exec; the path outlives them.
        unsafe {
            command.pre_exec(move || {
                let file = fds::check(libc::open(procs.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC))?;
                if libc::write(file, c"0".as_ptr().cast(), 1) == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
            });
        }
        let output = command.output().expect("a shell runs in the cgroup");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            said, "made\nno log\nno ports\nmade\nno disk\nno such disk\nno tty3\nmay read\nmay not write\nown disk\nno other kind\n",
            "{errors}"
        );
        assert_eq!(errors.matches("Operation not permitted").count(), 7, "{errors}");
    }
}
