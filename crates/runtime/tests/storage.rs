//! What containers keep on disk: a limit that a task's containers share, and mounts whose files are another user's. On a disk of the test's
//! own, since few machines' disks keep project quotas.

mod native_programs;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use berth_runtime::conformance::fixture::{Layer, Packing, TestRegistry, busybox};
use berth_runtime::conformance::plain_spec;
use berth_runtime::native::NativeRuntime;
use berth_runtime::port::{BindMount, ContainerSpec, FileOwner, PullBehavior, PullRequest, Runtime, StorageLimit};
use berth_runtime::quota::{self, Unavailable};
use native_programs::{Sweep, is_root};

const MIB: u64 = 1 << 20;
const CAPABILITY: &str = "ecs.capability.berth.ephemeral-storage";

/// An ext4 of the test's own, in a file.
struct Disk(PathBuf);

impl Disk {
    /// `Err`: why there is none, for people.
    fn make(folder: &Path, features: &str, options: &str) -> Result<Disk, String> {
        if !is_root() {
            return Err("root".to_owned());
        }
        let (file, place) = (folder.join("disk"), folder.join("mounted"));
        fs::File::create(&file).and_then(|file| file.set_len(256 * MIB)).map_err(|error| error.to_string())?;
        fs::create_dir(&place).map_err(|error| error.to_string())?;
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let run = |command: &mut Command| match command.env("PATH", &path).output() {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned()),
            Err(error) => Err(error.to_string()),
        };
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-O", features]).arg(&file)).map_err(|error| format!("mkfs.ext4: {error}"))?;
        // Busybox looks for a free loop device and takes it in two steps.
        static MOUNTING: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _turn = MOUNTING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mounted = run(Command::new("mount").args(["-t", "ext4", "-o", &format!("loop{options}")]).arg(&file).arg(&place));
        mounted.map_err(|error| format!("loop devices and ext4 that is mounted with loop{options}: {error}"))?;
        Ok(Disk(place))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The shim that was kept ready for the next start ends when its runtime is dropped, and not at once.
        let unmounted = |_| {
            let done = Command::new("umount").arg(&self.0).output().is_ok_and(|output| output.status.success());
            if !done {
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            done
        };
        let done = (0..200).any(unmounted);
        if !std::thread::panicking() {
            assert!(done, "{} is free to be unmounted", self.0.display());
        }
    }
}

struct World {
    runtime: NativeRuntime,
    digest: String,
    _sweep: Sweep,
}

impl World {
    async fn open(data_dir: &Path, name: &str, layer: Layer) -> World {
        let config = native_programs::config(data_dir, name);
        let sweep = Sweep(config.cgroup_root.clone());
        let registry = TestRegistry::start().await;
        registry.put_image("busybox", "1", &[(layer.finish(), Packing::Gzip)], serde_json::json!({}));
        let runtime = NativeRuntime::open(config).expect("open");
        let reference = format!("{}/busybox:1", registry.host());
        let image =
            runtime.pull(PullRequest { reference, behavior: PullBehavior::Default, credentials: None, login: None }).await.expect("pull");
        World { runtime, digest: image.digest, _sweep: sweep }
    }

    fn spec(&self, id: &str, script: &str) -> ContainerSpec {
        let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        ContainerSpec { entry_point: Some(command), command: None, ..plain_spec(id, &self.digest) }
    }

    /// Exit code and output of a container, which stays.
    async fn run(&self, spec: ContainerSpec) -> Result<(i32, String), String> {
        let id = spec.id.clone();
        self.runtime.create(spec).await.map_err(|error| error.to_string())?;
        if let Err(error) = self.runtime.start(&id).await {
            self.runtime.remove(&id).await.expect("remove");
            return Err(error.to_string());
        }
        let exit = self.runtime.wait(&id).await.expect("it ends");
        let text = |path: &PathBuf| fs::read_to_string(path).unwrap_or_default();
        Ok((exit.code, self.runtime.log_files(&id).iter().map(text).collect()))
    }
}

#[tokio::test]
async fn a_tasks_containers_share_a_limit_on_what_they_write() {
    let test = "a_tasks_containers_share_a_limit_on_what_they_write";
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(layer) = busybox() else { return println!("SKIPPED (needs busybox-static): {test}") };
    let disk = match Disk::make(folder.path(), "project,quota", ",prjquota") {
        Ok(disk) => disk,
        Err(missing) => return println!("SKIPPED (needs {missing}): {test}"),
    };
    assert_eq!(quota::available(&disk.0), Ok(()));
    let world = World::open(&disk.0.join("data"), "quota", layer).await;
    assert!(world.runtime.capabilities().contains(&CAPABILITY));
    let limit = Some(StorageLimit { project: quota::FIRST_PROJECT + 7, bytes: 16 * MIB });
    let fill = "/bin/busybox dd if=/dev/zero of=/big bs=1M count=10 || exit 3";
    let (code, said) = world.run(ContainerSpec { storage: limit, ..world.spec("one", fill) }).await.expect("it runs");
    assert_eq!(code, 0, "{said}");
    let (code, said) = world.run(ContainerSpec { storage: limit, ..world.spec("two", fill) }).await.expect("it runs");
    assert!(code == 3 && (said.contains("Disk quota exceeded") || said.contains("No space left")), "{said}");
    let usage = quota::usage(&disk.0, quota::FIRST_PROJECT + 7).expect("it is counted");
    assert!(usage.limit == 16 * MIB && usage.used > 10 * MIB && usage.used <= 16 * MIB, "{usage:?}");
    // Another task has its own, and one without a size has none.
    let other = Some(StorageLimit { project: quota::FIRST_PROJECT + 8, bytes: 16 * MIB });
    assert_eq!(world.run(ContainerSpec { storage: other, ..world.spec("three", fill) }).await.expect("it runs").0, 0);
    assert_eq!(world.run(world.spec("four", "/bin/busybox dd if=/dev/zero of=/big bs=1M count=40 || exit 3")).await.expect("it runs").0, 0);
    // What a container wrote counts no more once it is removed.
    for id in ["one", "two"] {
        world.runtime.remove(&berth_runtime::port::ContainerId(id.to_owned())).await.expect("remove");
    }
    assert_eq!(quota::usage(&disk.0, quota::FIRST_PROJECT + 7).expect("it is counted").files, 0);
    assert_eq!(world.run(ContainerSpec { storage: limit, ..world.spec("five", fill) }).await.expect("it runs").0, 0);
    for id in ["three", "four", "five"] {
        world.runtime.remove(&berth_runtime::port::ContainerId(id.to_owned())).await.expect("remove");
    }
    drop(world);
}

#[tokio::test]
async fn where_nothing_keeps_to_a_limit_it_is_neither_announced_nor_taken() {
    let test = "where_nothing_keeps_to_a_limit_it_is_neither_announced_nor_taken";
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(layer) = busybox() else { return println!("SKIPPED (needs busybox-static): {test}") };
    let disk = match Disk::make(folder.path(), "^project,^quota", "") {
        Ok(disk) => disk,
        Err(missing) => return println!("SKIPPED (needs {missing}): {test}"),
    };
    assert_eq!(quota::available(&disk.0), Err(Unavailable::Off("ext4".into())));
    let world = World::open(&disk.0.join("data"), "unlimited", layer).await;
    assert!(!world.runtime.capabilities().contains(&CAPABILITY));
    let limit = Some(StorageLimit { project: quota::FIRST_PROJECT, bytes: MIB });
    let refusal = world.run(ContainerSpec { storage: limit, ..world.spec("one", "true") }).await.expect_err("it cannot be kept");
    assert!(refusal.starts_with("ephemeralStorage: "), "{refusal}");
    assert!(world.runtime.list().await.expect("list").is_empty() && !disk.0.join("data/containers/one").exists());
    drop(world);
}

#[tokio::test]
async fn files_of_a_mount_are_another_users() {
    let test = "files_of_a_mount_are_another_users";
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(layer) = busybox() else { return println!("SKIPPED (needs busybox-static): {test}") };
    let disk = match Disk::make(folder.path(), "^project", "") {
        Ok(disk) => disk,
        Err(missing) => return println!("SKIPPED (needs {missing}): {test}"),
    };
    let world = World::open(&folder.path().join("data"), "owner", layer).await;
    let files = disk.0.join("files");
    fs::create_dir(&files).expect("a folder");
    fs::set_permissions(&files, fs::Permissions::from_mode(0o755)).expect("its rights");
    std::os::unix::fs::chown(&files, Some(1234), Some(100)).expect("its owner");
    fs::write(files.join("roots"), "secret").expect("a file of root's");
    fs::set_permissions(files.join("roots"), fs::Permissions::from_mode(0o600)).expect("its rights");
    let owner = Some(FileOwner { uid: 1234, gid: 100 });
    let mount = || vec![BindMount { source: files.clone(), destination: "/data".into(), read_only: false, owner, remote: false }];
    // As root, and as a user of its own: on the disk each is the one that is told, and root is no more than that one.
    for (id, user) in [("as-root", None), ("as-user", Some("33:34".to_owned()))] {
        let script = format!(
            "B=/bin/busybox; $B stat -c %u:%g /data && echo hi > /data/{id} && $B stat -c %u:%g /data/{id} && ! $B cat /data/roots"
        );
        let spec = ContainerSpec { mounts: mount(), user: user.clone(), ..world.spec(id, &script) };
        let (code, said) = world.run(spec).await.expect("it runs");
        let seen = user.unwrap_or_else(|| "0:0".to_owned());
        assert!(code == 0 && said.matches(&format!("{seen}\n")).count() == 2, "{said}");
        let found = fs::metadata(files.join(id)).expect("it was written");
        assert_eq!((found.uid(), found.gid()), (1234, 100));
        world.runtime.remove(&berth_runtime::port::ContainerId(id.to_owned())).await.expect("remove");
    }
    // proc has no idmapped mounts, and says so by the member that asked.
    let none = vec![BindMount { source: "/proc/sys".into(), destination: "/data".into(), read_only: false, owner, remote: false }];
    let refusal = world.run(ContainerSpec { mounts: none, ..world.spec("refused", "true") }).await.expect_err("it cannot be");
    assert!(refusal.starts_with("accessPointId: ") && refusal.contains("1234:100"), "{refusal}");
    drop(world);
}
