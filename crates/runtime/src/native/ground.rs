//! What a container's folder and root need so that making one is cheap on the disk: folders spread over a file system of the ext family, and
//! a layer below all images that has the places on which every container gets something mounted.
//!
//! Both spare inodes. To make one, ext4 walks over all that were freed in the same block group during the last minute or five
//! (`recently_deleted` in the kernel's `fs/ext4/ialloc.c`), and each end of a container frees some twenty: with all containers' folders in
//! one group, as they are by default, that was nearly half of all the processor time that a start took.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The layer's name among the links of layers, which are hexadecimal.
const BASE: &str = "base";

/// Docker's list, as far as every container has it (`daemon/initlayer`).
const FOLDERS: [&str; 4] = ["dev", "etc", "proc", "sys"];
const FILES: [&str; 3] = ["etc/hosts", "etc/hostname", "etc/resolv.conf"];

/// `EXT4_SUPER_MAGIC`, which ext2 and ext3 have too (linux/magic.h).
const EXT: libc::c_long = 0xef53;
/// `FS_IOC_GETFLAGS` and `FS_IOC_SETFLAGS` (linux/fs.h), by which chattr(1) works.
const GET_FLAGS: libc::c_ulong = 0x8008_6601;
const SET_FLAGS: libc::c_ulong = 0x4008_6602;
/// `FS_TOPDIR_FL`: what is made in this folder has nothing to do with each other, so that ext4 spreads it over the disk (chattr(1), `T`).
const UNRELATED: libc::c_int = 0x0002_0000;

/// Has each folder in this one made in a part of the disk of its own, where the file system knows how to. Nothing but speed depends on it.
pub fn spread(folder: &Path) {
    if let Err(error) = try_to_spread(folder) {
        tracing::warn!(folder = %folder.display(), %error, "what is made here cannot be spread over the disk; containers will start slower");
    }
}

fn try_to_spread(folder: &Path) -> io::Result<()> {
    let place = std::fs::File::open(folder)?;
    // SAFETY: zero is a valid value for this plain structure, which outlives the call.
    let mut system: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is the one that the call writes.
    check(unsafe { libc::fstatfs(place.as_raw_fd(), &raw mut system) })?;
    if system.f_type as libc::c_long != EXT {
        return Ok(());
    }
    let mut flags: libc::c_int = 0;
    // SAFETY: the kernel writes an int, whatever the call's number says of its size.
    check(unsafe { libc::ioctl(place.as_raw_fd(), GET_FLAGS as _, &raw mut flags) })?;
    let wanted = flags | UNRELATED;
    if wanted == flags {
        return Ok(());
    }
    // SAFETY: the kernel reads an int.
    check(unsafe { libc::ioctl(place.as_raw_fd(), SET_FLAGS as _, &raw const wanted) })
}

/// Makes the layer that lies below every image's, beside the links of layers, and gives its name there. What an image has itself hides it.
///
/// # Errors
/// Of the system.
pub fn base(links: &Path) -> io::Result<&'static str> {
    let base = links.join(BASE);
    // Whatever mask the agent was started with: any user of a container may go there.
    let open_to = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
    for folder in [""].into_iter().chain(FOLDERS) {
        let path = base.join(folder);
        std::fs::create_dir_all(&path)?;
        open_to(&path, 0o755)?;
    }
    for file in FILES {
        let path = base.join(file);
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
        open_to(&path, 0o644)?;
    }
    Ok(BASE)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ext_file_system_is_told_and_any_other_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        // Twice: the second time there is nothing to do.
        try_to_spread(folder.path()).unwrap();
        try_to_spread(folder.path()).unwrap();
        try_to_spread(Path::new("/proc")).unwrap();
        assert!(try_to_spread(&folder.path().join("missing")).is_err());
        let place = std::fs::File::open(folder.path()).unwrap();
        let mut flags: libc::c_int = 0;
        // SAFETY: the kernel writes an int.
        match check(unsafe { libc::ioctl(place.as_raw_fd(), GET_FLAGS as _, &raw mut flags) }) {
            Ok(()) if flags & UNRELATED != 0 => {}
            _ => println!("SKIPPED (needs ext4 below the folder for temporary files): the flag is there afterwards"),
        }
    }

    #[test]
    fn the_base_is_open_to_all_and_stays_as_it_is() {
        let links = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            assert_eq!(base(links.path()).unwrap(), BASE);
            for (path, mode) in [("base", 0o755), ("base/etc", 0o755), ("base/proc", 0o755), ("base/etc/hosts", 0o644)] {
                let found = std::fs::metadata(links.path().join(path)).unwrap().permissions().mode();
                assert_eq!(found & 0o7777, mode, "{path}");
            }
        }
    }
}
