//! What tasks can keep, and where: storage with a size, EFS file systems.

use std::path::Path;

use berth_agent::config::{ACCESS_POINTS, EfsBackend, EfsSettings, FILE_SYSTEMS};
use berth_runtime::quota::{self, Unavailable};

use super::finding::Finding;

/// Whether `ephemeralStorage` can be kept to on the disk of the data directory.
pub(super) fn ephemeral(folder: &Path) -> Finding {
    judge_ephemeral(folder, quota::available(folder))
}

fn judge_ephemeral(folder: &Path, found: Result<(), Unavailable>) -> Finding {
    const CHECK: &str = "ephemeral storage";
    let place = folder.display();
    let Err(problem) = found else {
        return Finding::good(CHECK, format!("tasks with an ephemeralStorage are held to it at {place}"));
    };
    let mend = match &problem {
        Unavailable::Off(kind) if kind == "ext4" => {
            "with the file system unmounted `tune2fs -O project,quota DEVICE`, then mount it with the option prjquota; the kernel needs CONFIG_QFMT_V2"
        }
        Unavailable::Off(_) | Unavailable::NotEnforced => "mount the file system with the option prjquota; the kernel needs quotas for it",
        Unavailable::Kernel => "boot a kernel of 5.14 or newer",
        Unavailable::Unknown(_) => "keep the data directory (--data-dir) on ext4 or xfs, mounted with the option prjquota",
        Unavailable::Failed(_) => "run `berth doctor` as root",
    };
    Finding::warning(
        CHECK,
        format!("tasks with an ephemeralStorage are not placed here, and those of Fargate are held to none: {place}: {problem}"),
        mend,
    )
}

/// Whether the EFS file systems that the environment names can be had.
pub(super) fn efs(get: impl Fn(&str) -> Option<String>) -> Finding {
    const CHECK: &str = "efs";
    let settings = match EfsSettings::parse(get(FILE_SYSTEMS).as_deref(), get(ACCESS_POINTS).as_deref()) {
        Ok(settings) => settings,
        Err(error) => return Finding::bad(CHECK, error.to_string(), "see docs/volumes.md for what it may say"),
    };
    judge_efs(&settings, berth_agent::capabilities::has_nfs())
}

fn judge_efs(settings: &EfsSettings, has_nfs: bool) -> Finding {
    const CHECK: &str = "efs";
    for (id, backend) in &settings.file_systems {
        match backend {
            EfsBackend::Directory(folder) if !folder.is_dir() => {
                return Finding::warning(CHECK, format!("{id}: {} is no directory", folder.display()), "make it, or change BERTH_EFS");
            }
            EfsBackend::Nfs { .. } if !has_nfs => {
                let mend = "`modprobe nfsv4`, on a kernel with CONFIG_NFS_V4_1; or name a directory in BERTH_EFS";
                return Finding::warning(CHECK, format!("{id}: this kernel mounts no NFS 4.1"), mend);
            }
            _ => {}
        }
    }
    let ids: Vec<&str> = settings.file_systems.keys().map(String::as_str).collect();
    match ids.is_empty() {
        true => Finding::good(CHECK, "no file systems are named (BERTH_EFS)"),
        false => Finding::good(CHECK, ids.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn storage_with_a_size() {
        let folder = Path::new("/var/lib/berth");
        assert_eq!(judge_ephemeral(folder, Ok(())).verdict, Verdict::Good);
        let off = judge_ephemeral(folder, Err(Unavailable::Off("ext4".into())));
        assert!(off.verdict == Verdict::Warning && off.mend.unwrap().contains("tune2fs"));
        let xfs = judge_ephemeral(folder, Err(Unavailable::Off("xfs".into())));
        assert!(xfs.mend.unwrap().starts_with("mount the file system"));
        let other = judge_ephemeral(folder, Err(Unavailable::Unknown("tmpfs".into())));
        assert!(other.found.contains("(tmpfs) has no project quotas") && other.mend.unwrap().contains("--data-dir"));
    }

    #[test]
    fn file_systems() {
        let there = tempfile::tempdir().unwrap();
        let judge = |text: &str, has_nfs| judge_efs(&EfsSettings::parse(Some(text), None).unwrap(), has_nfs);
        assert_eq!(judge("", false).verdict, Verdict::Good);
        let good = judge(&format!("fs-1={},fs-2=nfs://h/e", there.path().display()), true);
        assert_eq!((good.verdict, good.found.as_str()), (Verdict::Good, "fs-1, fs-2"));
        assert!(judge("fs-2=nfs://h/e", false).found.contains("no NFS 4.1"));
        assert!(judge("fs-3=/no/such/folder", true).found.contains("fs-3: /no/such/folder is no directory"));
        assert_eq!(efs(|name| (name == "BERTH_EFS").then(|| "x".to_owned())).verdict, Verdict::Bad);
    }
}
