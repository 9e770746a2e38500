//! Cases about the machine's devices and its swap.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use super::Bench;
use crate::port::{ContainerSpec, DeviceMapping};

pub(super) async fn run(bench: &Bench) {
    devices(bench).await;
    swap(bench).await;
}

/// Devices that no container has, and that may be opened without consequence.
const HARMLESS: [&str; 5] = ["/dev/tty63", "/dev/fuse", "/dev/net/tun", "/dev/loop0", "/dev/hpet"];

async fn devices(bench: &Bench) {
    let map = |host_path: PathBuf, container_path: &str, permissions: &str| DeviceMapping {
        host_path,
        container_path: container_path.into(),
        permissions: permissions.into(),
    };
    let none = map(bench.folder.clone().join("no-device"), "/dev/x", "r");
    std::fs::write(&none.host_path, "").expect("the suite's folder can be written");
    bench.refuses(ContainerSpec { devices: vec![none], ..bench.script("true") }, "not a device node").await;

    let opens = |path: &&&str| std::fs::File::options().read(true).write(true).open(path).is_ok();
    let Some(path) = HARMLESS.iter().find(opens).map(PathBuf::from) else {
        println!("SKIPPED (needs one of {HARMLESS:?}): devices in a container");
        return;
    };
    let meta = std::fs::metadata(&path).expect("it has just been opened");
    let kind = if meta.file_type().is_block_device() { 'b' } else { 'c' };
    let (major, minor) = (libc::major(meta.rdev()), libc::minor(meta.rdev()));
    let script = format!(
        "stat -c '%t:%T %a' /dev/some/where; true < /dev/some/where && echo reads; true >> /dev/some/where && echo writes;
         mknod /tmp/other {kind} {major} {minor} && true >> /tmp/other && echo writes under another name; test -e {} && echo twice; true",
        path.display()
    );
    let all = bench.say(ContainerSpec { devices: vec![map(path.clone(), "/dev/some/where", "rwm")], ..bench.script(&script) }).await;
    let number = format!("{major:x}:{minor:x} {:o}\n", meta.mode() & 0o777);
    assert_eq!(all, number.clone() + "reads\nwrites\nwrites under another name\n");
    let read = bench.say(ContainerSpec { devices: vec![map(path.clone(), "/dev/some/where", "r")], ..bench.script(&script) }).await;
    assert!(read.starts_with(&(number + "reads\n")) && !read.contains("writes"), "only what the permissions say: {read}");
    assert!(read.contains("Operation not permitted"), "{read}");
    // One without it cannot use it, though it can make the file.
    let script = format!("mknod /tmp/other {kind} {major} {minor}; true < /tmp/other && echo reads; true");
    assert!(!bench.say(bench.script(&script)).await.contains("reads"));
}

async fn swap(bench: &Bench) {
    const MIB: i64 = 1 << 20;
    // Version 1 counts both together, version 2 swap by itself.
    let look = "cat /sys/fs/cgroup/memory/memory.memsw.limit_in_bytes 2> /dev/null || cat /sys/fs/cgroup/memory.swap.max 2> /dev/null || echo unknown";
    let with = |memory_swap| ContainerSpec { memory_limit: Some(32 << 20), memory_swap, ..bench.script(look) };
    let usual = bench.say(with(None)).await;
    if usual == "unknown\n" {
        println!("SKIPPED (needs a kernel that counts swap): limits of swap");
        assert_eq!(bench.say(with(Some(48 * MIB))).await, usual, "the container runs all the same");
        return;
    }
    let together = usual == format!("{}\n", 64 * MIB);
    assert!(together || usual == format!("{}\n", 32 * MIB), "as much swap as memory: {usual}");
    let expected = |swap: i64| format!("{}\n", if together { 32 * MIB + swap } else { swap });
    assert_eq!(bench.say(with(Some(48 * MIB))).await, expected(16 * MIB));
    assert_eq!(bench.say(with(Some(32 * MIB))).await, expected(0), "no swap at all");
    let unlimited = bench.say(with(Some(-1))).await;
    assert!(unlimited == "max\n" || unlimited.trim().parse::<i64>().is_ok_and(|limit| limit > 1 << 60), "{unlimited}");
    bench.refuses(with(Some(MIB)), "memory").await;

    let look = "cat /sys/fs/cgroup/memory/memory.swappiness 2> /dev/null || echo unknown";
    let swappiness = bench.say(ContainerSpec { swappiness: Some(7), ..bench.script(look) }).await;
    assert!(swappiness == "7\n" || (!together && swappiness == "unknown\n"), "{swappiness}");
}
