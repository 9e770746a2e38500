//! Real mounts: of directories, and of an NFS server's export where `BERTH_TEST_NFS` names one (HOST:PORT/EXPORT, writable by root).

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;
use crate::config::Creation;

fn is_root(test: &str) -> bool {
    let is_root = nix::unistd::Uid::effective().is_root();
    if !is_root {
        eprintln!("SKIPPED (needs root): {test}: mounting");
    }
    is_root
}

/// Unmounts on the way out, whatever came before.
struct World(tempfile::TempDir);

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("files")).unwrap();
        World(dir)
    }

    fn files(&self) -> PathBuf {
        self.0.path().join("files")
    }

    fn volumes(&self) -> PathBuf {
        self.0.path().join("volumes")
    }

    fn mount(&self, task: &str, root: &str, backend: EfsBackend) -> EfsMount {
        EfsMount {
            file_system_id: "fs-1".into(),
            backend,
            whole: self.volumes().join("_efs/fs-1"),
            root: root.into(),
            creation: None,
            access_point: None,
            folder: self.volumes().join(task).join("v"),
        }
    }

    fn directory(&self, task: &str, root: &str) -> EfsMount {
        self.mount(task, root, EfsBackend::Directory(self.files()))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let outcome = super::super::sweep(&self.volumes(), |_| false, true);
        if !std::thread::panicking() {
            outcome.unwrap();
        }
    }
}

#[test]
fn a_directory_is_shown_once_and_stays_when_its_task_goes() {
    if !is_root("a_directory_is_shown_once_and_stays_when_its_task_goes") {
        return;
    }
    let (world, turns) = (World::new(), super::super::Turns::default());
    fs::create_dir_all(world.files().join("sub/deep")).unwrap();
    fs::write(world.files().join("sub/deep/precious"), "x").unwrap();
    let wanted = world.directory("t1", "/sub/deep");
    for _ in 0..2 {
        ensure(&wanted, &turns.efs).unwrap();
    }
    assert_eq!(fs::read_to_string(wanted.folder.join("precious")).unwrap(), "x");
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let place = wanted.folder.canonicalize().unwrap();
    assert_eq!(text.lines().filter(|line| line.split(' ').nth(4) == place.to_str()).count(), 1, "once, however often it is asked for");
    super::super::remove_of_task(&world.volumes(), "t1", &turns).unwrap();
    assert!(!wanted.folder.exists() && world.files().join("sub/deep/precious").exists());
}

#[test]
fn no_link_in_a_file_system_leads_out_of_it() {
    if !is_root("no_link_in_a_file_system_leads_out_of_it") {
        return;
    }
    let (world, turns) = (World::new(), EfsTurns::default());
    let outside = world.0.path().join("outside");
    fs::create_dir_all(outside.join("etc")).unwrap();
    symlink(&outside, world.files().join("away")).unwrap();
    symlink("../../outside", world.files().join("up")).unwrap();
    for root in ["/away", "/up", "/away/etc", "/none"] {
        let reason = ensure(&world.directory("t1", root), &turns).unwrap_err();
        let expected = format!("ResourceInitializationError: EFS file system fs-1: rootDirectory {root}: No such file or directory");
        assert!(reason.starts_with(&expected), "{reason}");
    }
    // Nor is anything made at its other end.
    let through = EfsMount { creation: Some(Creation { uid: 1, gid: 1, mode: 0o777 }), ..world.directory("t1", "/away/made") };
    let _ = ensure(&through, &turns);
    assert!(!outside.join("made").exists());
    let missing = EfsMount { backend: EfsBackend::Directory(world.0.path().join("gone")), ..world.directory("t1", "/") };
    let reason = ensure(&missing, &turns).unwrap_err();
    assert!(reason.contains("EFS file system fs-1: ") && reason.contains("/gone: No such file"), "{reason}");
}

#[test]
fn an_access_points_root_is_made_as_told_and_never_changed() {
    if !is_root("an_access_points_root_is_made_as_told_and_never_changed") {
        return;
    }
    let (world, turns) = (World::new(), EfsTurns::default());
    fs::create_dir(world.files().join("apps")).unwrap();
    fs::set_permissions(world.files().join("apps"), fs::Permissions::from_mode(0o700)).unwrap();
    let creation = Some(Creation { uid: 1000, gid: 100, mode: 0o2750 });
    let point = |task: &str| EfsMount { creation, access_point: Some("fsap-1".into()), ..world.directory(task, "/apps/shop/data") };
    ensure(&point("t1"), &turns).unwrap();
    for made in ["apps/shop", "apps/shop/data"] {
        let found = fs::metadata(world.files().join(made)).unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (1000, 100, 0o2750), "{made}");
    }
    let was_there = fs::metadata(world.files().join("apps")).unwrap();
    assert_eq!((was_there.uid(), was_there.mode() & 0o7777), (0, 0o700));
    fs::set_permissions(world.files().join("apps/shop/data"), fs::Permissions::from_mode(0o755)).unwrap();
    ensure(&point("t2"), &turns).unwrap();
    assert_eq!(fs::metadata(world.files().join("apps/shop/data")).unwrap().mode() & 0o7777, 0o755, "what is there stays as it is");
    let refused = EfsMount { creation: None, access_point: Some("fsap-2".into()), ..world.directory("t3", "/nothing") };
    let reason = ensure(&refused, &turns).unwrap_err();
    assert!(reason.contains("the root directory /nothing of access point fsap-2: No such file"), "{reason}");
}

#[test]
fn the_options_of_amazon_efs_utils() {
    let (device, options) = nfs_mount("10.0.0.7".parse().unwrap(), 2049, "/export");
    assert_eq!(device, "10.0.0.7:/export");
    assert_eq!(
        options,
        "nfsvers=4.1,rsize=1048576,wsize=1048576,hard,timeo=600,retrans=2,noresvport,proto=tcp,port=2049,addr=10.0.0.7,clientaddr=0.0.0.0"
    );
    let (device, options) = nfs_mount("fd00::7".parse().unwrap(), 20490, "/");
    assert!(device == "[fd00::7]:/" && options.ends_with("proto=tcp6,port=20490,addr=fd00::7,clientaddr=::"), "{device} {options}");
    assert!(resolve("127.0.0.1", 2049).unwrap().is_loopback());
}

#[test]
fn an_export_is_idle_when_only_its_own_mount_shows_it() {
    let whole = Path::new("/v/_efs/fs-1");
    let own = "36 35 0:60 / /v/_efs/fs-1 rw - nfs4 h:/e rw\n37 35 8:1 / / rw - ext4 /dev/sda rw\n";
    assert!(is_idle(own, whole));
    assert!(!is_idle(&format!("{own}38 35 0:60 /sub /v/t1/v rw - nfs4 h:/e rw\n"), whole));
    assert!(is_idle("37 35 8:1 / / rw - ext4 /dev/sda rw\n", whole), "one that is not mounted");
}

#[test]
#[expect(clippy::zombie_processes, reason = "what is tested waits for it")]
fn a_child_that_is_silent_is_given_up_and_killed() {
    let (reader, _held) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    assert!(matches!(steps::hear(&reader, Duration::from_millis(50)), Err(Failed::TimedOut)));
    let child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    steps::reap(child.id() as i32, true);
    // SAFETY: signal 0 only asks.
    assert_eq!(unsafe { libc::kill(child.id() as i32, 0) }, -1, "it is gone");
}

#[test]
fn a_server_that_does_not_answer_is_given_up() {
    let test = "a_server_that_does_not_answer_is_given_up";
    if !is_root(test) {
        return;
    }
    if !crate::capabilities::has_nfs() {
        eprintln!("SKIPPED (needs a kernel with NFS 4.1): {test}");
        return;
    }
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (world, turns) = (World::new(), EfsTurns::default());
    let backend = EfsBackend::Nfs { host: "127.0.0.1".into(), port: silent.local_addr().unwrap().port(), export: "/e".into() };
    let reason = ensure_within(&world.mount("t1", "/", backend), &turns, Duration::from_secs(3)).unwrap_err();
    assert!(reason.contains("does not answer: not mounted within 3 s"), "{reason}");
    assert!(!mounted_at(&world.volumes().canonicalize().unwrap().join("_efs/fs-1")).unwrap());
}

#[test]
fn an_export_is_mounted_once_for_all_and_goes_with_the_last() {
    let test = "an_export_is_mounted_once_for_all_and_goes_with_the_last";
    let Ok(server) = std::env::var("BERTH_TEST_NFS") else {
        eprintln!("SKIPPED (needs BERTH_TEST_NFS, an NFS server to write to): {test}");
        return;
    };
    let (world, turns) = (World::new(), super::super::Turns::default());
    let settings = crate::config::EfsSettings::parse(Some(&format!("fs-1=nfs://{server}")), None).unwrap();
    let backend = settings.file_systems["fs-1"].clone();
    let creation = Some(Creation { uid: 1000, gid: 100, mode: 0o755 });
    let point = EfsMount { creation, access_point: Some("fsap-1".into()), ..world.mount("t1", "/apps/shop", backend.clone()) };
    ensure(&point, &turns.efs).unwrap();
    let plain = world.mount("t2", "/apps", backend);
    ensure(&plain, &turns.efs).unwrap();
    fs::write(point.folder.join("written"), "by one").unwrap();
    assert_eq!(fs::read_to_string(plain.folder.join("shop/written")).unwrap(), "by one");
    let made = fs::metadata(&point.folder).unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (1000, 100, 0o755));
    let whole = world.volumes().canonicalize().unwrap().join("_efs/fs-1");
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = text.lines().find(|line| line.split(' ').nth(4) == whole.to_str()).unwrap();
    // The sizes are the server's to lower.
    for option in ["nfs4", "vers=4.1", "hard", "noresvport", "timeo=600", "retrans=2"] {
        assert!(line.contains(option), "{option} in {line}");
    }
    super::super::remove_of_task(&world.volumes(), "t1", &turns).unwrap();
    assert!(mounted_at(&whole).unwrap(), "somebody uses it");
    // A restarted agent, to which everything is new, finds what is mounted.
    let again = super::super::Turns::default();
    ensure(&plain, &again.efs).unwrap();
    super::super::remove_of_task(&world.volumes(), "t2", &again).unwrap();
    assert!(!mounted_at(&whole).unwrap() && !whole.exists(), "nobody uses it");
}
