//! What a container is started as, and how it is kept in: each case is a mistake that a launcher can make, or this one made.

use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::process::CommandExt;

use serde_json::json;

use crate::bench::{Container, can, hierarchies, parent_of, pid_of};

/// The agent may have been started by `nohup`, with a tight umask, or as something that the kernel shall rather kill.
#[test]
fn nothing_of_the_agents_own_state_reaches_the_program() {
    if !can("ordinary state") {
        return;
    }
    let script = "grep -E '^(SigIgn|SigBlk|Umask):' /proc/self/status; cat /proc/self/oom_score_adj; stat -c %a /made/here; yes | head -1";
    let mut container = Container::of(script);
    container.request["working_directory"] = "/made/here".into();
    let answer = container.start_with(|command| {
        // SAFETY: only async-signal-safe calls between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::signal(libc::SIGHUP, libc::SIG_IGN);
                libc::signal(libc::SIGCHLD, libc::SIG_IGN);
                libc::umask(0o077);
                let mut set = std::mem::zeroed();
                libc::sigaddset(&raw mut set, libc::SIGUSR2);
                libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
                let file = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
                libc::write(file, c"300".as_ptr().cast(), 3);
                Ok(())
            });
        }
    });
    let pid = pid_of(&answer);
    assert!(pid > 0);
    assert_eq!(container.exit(), 0);
    let none = "0000000000000000";
    assert_eq!(container.output(), format!("Umask:\t0022\nSigBlk:\t{none}\nSigIgn:\t{none}\n0\n755\ny\n"));
}

/// Web servers log to /dev/stdout as another user than root: opening it again asks for the pipe's own rights.
#[test]
fn the_program_may_open_its_own_output_again() {
    if !can("stdout by name") {
        return;
    }
    let mut container = Container::of("echo out > /dev/stdout; echo err > /proc/self/fd/2; sleep 1000");
    container.request["user"] = "web".into();
    let pid = container.start();
    container.until_said("err");
    assert_eq!(container.output(), "out\nerr\n");
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let read = move || {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut reader, &mut text).expect("the pipe can be read");
        text
    };
    let web = |request: &mut serde_json::Value| request["user"] = "33".into();
    let (answer, output) = container.exec_into(pid, "echo again > /dev/stdout", writer.into(), web, read);
    assert_eq!((answer["exited"]["code"].as_i64(), output.as_str()), (Some(0), "again\n"));
}

/// The highest number means "leave it as it is" to setresuid(2): a container asked to be nobody would have been root.
#[test]
fn a_user_that_would_mean_root_is_refused() {
    if !can("users out of range") {
        return;
    }
    for user in ["4294967295", "33:4294967295", "2147483648"] {
        let mut container = Container::of("id");
        container.request["user"] = user.into();
        let refusal = container.refusal();
        assert!(refusal.contains("0-2147483647"), "{user}: {refusal}");
    }
}

#[test]
fn mounts_go_where_links_of_the_image_lead_and_never_outside() {
    if !can("mounts through links") {
        return;
    }
    let mut container = Container::of("cat /etc/resolv.conf /run/app/given /etc/loop; ls /run/systemd");
    let given = container.folder.join("given");
    std::fs::write(&given, "mounted\n").expect("the folder can be written");
    // As in images of whole systems: the link's goal is made at boot there, so it is not in the image.
    symlink("../run/systemd/stub.conf", container.image.join("etc/resolv.conf")).expect("the image can be written");
    std::fs::create_dir(container.image.join("var")).expect("the image can be written");
    symlink("/../../run", container.image.join("var/run")).expect("the image can be written");
    for place in ["/etc/resolv.conf", "/var/run/app/given"] {
        let mount = json!({"type": "bind", "source": given, "destination": place, "options": ["rbind", "ro"]});
        container.mounts().push(mount);
    }
    let (_, output) = container.run();
    assert!(output.starts_with("mounted\nmounted\n") && output.ends_with("stub.conf\n"), "{output}");

    let mut circle = Container::of("true");
    symlink("b", circle.image.join("etc/a")).expect("the image can be written");
    symlink("a", circle.image.join("etc/b")).expect("the image can be written");
    circle.mounts().push(json!({"type": "bind", "source": "/etc/hostname", "destination": "/etc/a", "options": []}));
    assert!(circle.refusal().contains("/etc/a"));
}

/// What is hidden in /proc, and kernel settings, are found by name: nothing may come to stand in its place (CVE-2019-19921).
#[test]
fn no_link_of_the_image_bends_a_mount_into_proc() {
    if !can("mounts into /proc") {
        return;
    }
    for kind in ["bind", "tmpfs"] {
        let mut container = Container::of("ls /proc/sys");
        symlink("/proc/sys", container.image.join("data")).expect("the image can be written");
        let source = if kind == "bind" { container.folder.join("upper") } else { "tmpfs".into() };
        container.mounts().push(json!({"type": kind, "source": source, "destination": "/data", "options": []}));
        let refusal = container.refusal();
        assert!(refusal.contains("inside /proc"), "{refusal}");
    }
}

/// With a folder of the user's own at /dev, its `null` may be anything (CVE-2025-31133), and its files are the machine's.
#[test]
fn a_dev_of_the_users_own_is_neither_filled_nor_believed() {
    if !can("a volume at /dev") {
        return;
    }
    let mut container = Container::of("cat /proc/timer_list");
    let volume = container.folder.join("volume");
    std::fs::create_dir(&volume).expect("the folder can be written");
    symlink("/etc/passwd", volume.join("null")).expect("the folder can be written");
    container.mounts().retain(|mount| !mount["destination"].as_str().is_some_and(|place| place.starts_with("/dev")));
    container.mounts().push(json!({"type": "bind", "source": volume, "destination": "/dev", "options": ["rbind"]}));
    let refusal = container.refusal();
    assert!(refusal.contains("/dev/null"), "{refusal}");
    let names: Vec<_> = std::fs::read_dir(&volume).expect("it is there").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["null"], "nothing is made in a volume");
}

/// Device files in an image, where no filter keeps them in check: the flag must outlive the change to read-only.
#[test]
fn a_read_only_root_has_no_devices_either() {
    if !can("devices in a read-only root") {
        return;
    }
    let mut container = Container::of("head -c 4 /zero | ls > /dev/null && head -c 4 /zero && echo read; touch /x");
    let node = std::ffi::CString::new(container.image.join("zero").as_os_str().as_encoded_bytes()).expect("a plain path");
    // SAFETY: the path is NUL-terminated and outlives the call.
    assert_eq!(unsafe { libc::mknod(node.as_ptr(), libc::S_IFCHR | 0o666, libc::makedev(1, 5)) }, 0);
    container.request["no_devices"] = true.into();
    container.request["config"]["root"]["readonly"] = true.into();
    let (_, output) = container.run();
    assert!(output.contains("Permission denied") && !output.contains("read\n"), "{output}");
    assert!(output.contains("Read-only file system"), "{output}");
}

/// A new tmpfs over a folder of the image has that folder's rights, as runc makes it.
#[test]
fn a_tmpfs_has_the_rights_of_what_it_covers() {
    if !can("rights of a tmpfs") {
        return;
    }
    let mut container = Container::of("stat -c %a /etc /new /tmp /set");
    let new = |at: &str, options: &[&str]| json!({"type": "tmpfs", "source": "tmpfs", "destination": at, "options": options});
    let more = [new("/etc", &[]), new("/new", &[]), new("/tmp", &["mode=700"]), new("/set", &["mode=711"])];
    container.mounts().extend(more);
    std::fs::create_dir(container.image.join("set")).expect("the image can be written");
    assert_eq!(container.run().1, "755\n1777\n700\n711\n");
}

#[test]
fn the_agents_keys_stay_outside() {
    if !can("keyrings") {
        return;
    }
    let mut container = Container::of("cat /proc/keys; echo end");
    container.request["config"]["linux"]["maskedPaths"] = json!([]);
    let name = format!("berth-launch-secret-{}", std::process::id());
    let key = std::ffi::CString::new(name.clone()).expect("no NUL");
    container.start_with(move |command| {
        // SAFETY: only system calls between fork and exec; the strings outlive them.
        unsafe {
            command.pre_exec(move || {
                const JOIN_SESSION_KEYRING: libc::c_long = 1;
                const SET_RIGHTS: libc::c_long = 5;
                const SESSION_KEYRING: libc::c_long = -3;
                libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<u8>());
                let made = libc::syscall(libc::SYS_add_key, c"user".as_ptr(), key.as_ptr(), key.as_ptr(), 4usize, SESSION_KEYRING);
                // Seen by those alone who have it in one of their keyrings, whoever they are.
                libc::syscall(libc::SYS_keyctl, SET_RIGHTS, made, 0x3f00_0000);
                Ok(())
            });
        }
    });
    container.exit();
    let output = container.output();
    assert!(output.ends_with("end\n") && !output.contains(&name), "{output}");
}

/// A folder of the machine that is left open in a container is a way out of it (CVE-2024-21626).
#[test]
fn nothing_that_the_agent_inherited_is_passed_on() {
    if !can("inherited descriptors") {
        return;
    }
    let mut container = Container::of("ls /proc/self/fd; echo end; sleep 1000");
    let root = std::fs::File::open("/").expect("the root can be opened");
    let raw = root.as_raw_fd();
    let answer = container.start_with(move |command| {
        // SAFETY: only system calls between fork and exec.
        unsafe {
            command.pre_exec(move || {
                libc::dup2(raw, 77);
                Ok(())
            });
        }
    });
    container.until_said("end");
    assert_eq!(container.output(), "0\n1\n2\n3\nend\n");
    let monitor = parent_of(pid_of(&answer));
    assert!(!std::path::Path::new(&format!("/proc/{monitor}/fd/77")).exists());
    assert_eq!(std::fs::read_link(format!("/proc/{monitor}/fd/0")).expect("it has a stdin"), std::path::Path::new("/dev/null"));
}

/// The agent knows a container by a number that the kernel may have given to another process meanwhile.
#[test]
fn exec_joins_only_the_container_that_is_meant() {
    if !can("exec into another process") {
        return;
    }
    let mut container = Container::of("echo ready; sleep 1000");
    container.start();
    container.until_said("ready");
    let (answer, output) = container.exec(std::process::id() as i32, "echo inside; readlink /proc/self/root", |_| {});
    assert!(answer["failed"]["text"].as_str().is_some_and(|text| text.contains("is not the container's")), "{answer} {output}");
}

#[test]
fn exec_is_as_ordinary_as_a_start() {
    if !can("exec") {
        return;
    }
    let mut container = Container::of("echo ready; sleep 1000");
    let pid = container.start();
    container.until_said("ready");
    let script =
        "stat -L -c %d:%i /proc/self/fd/0; stat -c %d:%i /dev/null; grep -E '^(SigIgn|Umask):' /proc/self/status; ls /proc/self/fd";
    let (answer, output) = container.exec(pid, script, |_| {});
    assert_eq!(answer["exited"]["code"], 0);
    let lines: Vec<&str> = output.lines().collect();
    // The machine's own /dev/null could be given other rights from inside.
    assert_eq!(lines[0], lines[1], "{output}");
    assert_eq!(lines[2..], ["Umask:\t0022", "SigIgn:\t0000000000000000", "0", "1", "2", "3"], "{output}");
    let flags = container.exec(pid, "grep flags /proc/self/fdinfo/0", |_| {}).1;
    let flags = flags.split_whitespace().last().and_then(|octal| i32::from_str_radix(octal, 8).ok()).expect("its flags");
    assert_eq!(flags & libc::O_NONBLOCK, 0);
    let limits = |request: &mut serde_json::Value| {
        request["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60}]);
    };
    assert_eq!(container.exec(pid, "ulimit -n", limits).1, "50\n");
}

/// Without it a limit on memory is none where there is swap. Docker's default: as much swap as memory.
#[test]
fn memory_limits_hold_for_swap_too() {
    if !can("swap limits") {
        return;
    }
    let mut container = Container::of("echo ready; sleep 1000");
    container.request["config"]["linux"]["resources"]["memory"] = json!({"limit": 32 << 20});
    container.start();
    container.until_said("ready");
    if hierarchies().is_empty() {
        assert_eq!(container.cgroup_file("memory", "memory.swap.max", 0), (32 << 20).to_string());
    } else if std::path::Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists() {
        assert_eq!(container.cgroup_file("memory", "memory.memsw.limit_in_bytes", 0), (64 << 20).to_string());
    } else {
        println!("SKIPPED (this kernel does not account for swap): swap limits");
    }
}

/// CPU units count between tasks, not only between the containers of one.
#[test]
fn a_task_has_the_cpu_shares_of_its_containers() {
    if !can("CPU shares of a task") {
        return;
    }
    let mut container = Container::of("echo ready; sleep 1000");
    container.task_cpu_shares = Some(512);
    container.start();
    container.until_said("ready");
    let file = if hierarchies().is_empty() { ("cpu.weight", "20") } else { ("cpu.shares", "512") };
    assert_eq!(container.cgroup_file("cpu", file.0, 1), file.1);
}

#[test]
fn a_monitor_that_is_not_there_is_said_before_anything_runs() {
    if !can("a missing monitor") {
        return;
    }
    let mut container = Container::of("echo ran > /tmp/ran");
    container.request["monitor"] = "/no/such/monitor".into();
    assert!(container.refusal().contains("/no/such/monitor"));
}

#[test]
fn the_roots_of_proc_and_sys_are_sealed() {
    if !can("sealed paths") {
        return;
    }
    let script = "cat /proc/timer_list /proc/keys; ls /sys/firmware; echo 1 > /proc/sys/kernel/domainname; touch /sys/x; \
                  grep -E ' /(proc/sys|proc/irq|sys/firmware) ' /proc/mounts";
    let mut container = Container::of(script);
    let (_, output) = container.run();
    assert_eq!(output.matches("Read-only file system").count(), 2, "{output}");
    for line in ["/proc/sys proc ro,nosuid,nodev,noexec", "/proc/irq proc ro,nosuid,nodev,noexec", "/sys/firmware tmpfs ro"] {
        assert!(output.contains(line), "{line}: {output}");
    }
    assert_eq!(output.lines().count(), 5, "{output}");
    let node = std::fs::metadata("/dev/null").expect("the machine has one");
    assert_eq!(node.rdev(), libc::makedev(1, 3));
}

/// A container that may trace (the one capability that Fargate lets a task add) must never see a process with more rights than its
/// own: whoever traces such a one has them too.
#[test]
fn exec_brings_no_process_in_that_can_do_more() {
    if !can("rights on the way in") {
        return;
    }
    let mut container = Container::of(
        "own=$(grep CapPrm /proc/self/status); echo ready; while :; do grep -h CapPrm /proc/[0-9]*/status | grep -v \"$own\"; done 2>/dev/null",
    );
    const SYS_PTRACE: u32 = 19;
    container.request["confinement"]["capabilities"] = json!(1 << SYS_PTRACE);
    let pid = container.start();
    container.until_said("ready");
    for _ in 0..60 {
        let (answer, _) = container.exec(pid, "true", |_| {});
        assert_eq!(answer["exited"]["code"], 0);
    }
    assert_eq!(container.output(), "ready\n");
}

#[test]
fn exec_tells_what_kept_it_from_running() {
    if !can("failures of exec") {
        return;
    }
    let mut container = Container::of("echo ready; sleep 1000");
    let pid = container.start();
    container.until_said("ready");
    let mut fail = |member: &str, value: serde_json::Value| {
        let (answer, _) = container.exec(pid, "true", |request| request[member] = value);
        answer["failed"].clone()
    };
    let failure = fail("process", json!({"args": ["nothing"], "env": ["PATH=/bin"]}));
    assert_eq!(failure, json!({"blame": "exec", "text": "exec: \"nothing\": executable file not found in $PATH"}));
    let failure = fail("process", json!({"args": ["/etc/passwd"], "env": []}));
    assert_eq!(failure["blame"], "exec", "{failure}");
    let failure = fail("user", "nobody-here".into());
    assert_eq!(failure["blame"], "spec", "{failure}");
    let (answer, output) = container.exec(pid, "echo $$; kill -9 $$", |_| {});
    assert_eq!(answer["exited"]["code"], 137, "{output}");
    assert_ne!(output.trim(), pid.to_string(), "its number is the container's own");
}

/// Whatever device file a container makes or brings along, wherever it is.
#[test]
fn only_the_usual_devices_work() {
    if !can("device rules") {
        return;
    }
    let script = "for place in /tmp /dev /dev/shm; do mknod $place/kmsg c 1 11; head -c 1 $place/kmsg; mknod $place/loop b 7 0; head -c 1 $place/loop; done
        head -c 2 /image/ports; head -c 4 /dev/zero > /tmp/zero && echo x > /dev/null && echo fine";
    let mut container = Container::of(script);
    std::fs::create_dir(container.image.join("image")).expect("the image can be written");
    let node = std::ffi::CString::new(container.image.join("image/ports").as_os_str().as_encoded_bytes()).expect("a plain path");
    // SAFETY: the path is NUL-terminated and outlives the call.
    assert_eq!(unsafe { libc::mknod(node.as_ptr(), libc::S_IFCHR | 0o666, libc::makedev(1, 4)) }, 0);
    let (_, output) = container.run();
    // /dev/shm is itself without devices.
    assert_eq!(output.matches("Operation not permitted").count(), 5, "{output}");
    assert_eq!(output.matches("Permission denied").count(), 2, "{output}");
    assert!(output.ends_with("fine\n"), "{output}");
}

#[test]
fn limits_reach_the_kernel() {
    if !can("limits") {
        return;
    }
    let mut container = Container::of("echo ready; sleep 1000");
    container.request["config"]["linux"]["resources"] = json!({
        "devices": [{"allow": false}],
        "cpu": {"shares": 1024, "quota": 25_000, "period": 100_000},
        "memory": {"limit": 64 << 20, "reservation": 32 << 20},
        "pids": {"of_task": 77},
    });
    container.start();
    container.until_said("ready");
    let version_1 = [
        ("cpu", "cpu.shares", "1024"),
        ("cpu", "cpu.cfs_quota_us", "25000"),
        ("memory", "memory.limit_in_bytes", "67108864"),
        ("memory", "memory.soft_limit_in_bytes", "33554432"),
        ("pids", "pids.max", "max"),
    ];
    let version_2 = [
        ("", "cpu.weight", "39"),
        ("", "cpu.max", "25000 100000"),
        ("", "memory.max", "67108864"),
        ("", "memory.low", "33554432"),
        ("", "pids.max", "max"),
    ];
    for (controller, file, value) in if hierarchies().is_empty() { version_2 } else { version_1 } {
        assert_eq!(container.cgroup_file(controller, file, 0), value, "{file}");
    }
    let pids = if hierarchies().is_empty() { "" } else { "pids" };
    assert_eq!(container.cgroup_file(pids, "pids.max", 1), "77", "the containers of a task are counted together");
}
