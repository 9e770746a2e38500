//! Finds and makes the places inside a container's root that something is mounted on or started in.
//!
//! Every step is resolved by the kernel inside the root and never through /proc's magic links: neither a path nor a link in an
//! image may make or enter anything outside (as in CVE-2024-21626).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::fds;

/// For opening a folder as a place, not for reading.
pub const FOLDER: i32 = libc::O_PATH | libc::O_DIRECTORY;

/// Links that are followed one after another where they lead to nothing yet; the kernel's own number.
const MAX_LINKS: u32 = 40;

/// Opens a folder inside `root`; makes it, and its parents, if missing. New folders are root's, as Docker makes them.
pub fn ensure_folder(root: &OwnedFd, path: &str) -> io::Result<OwnedFd> {
    ensure_folder_after(root, path, 0)
}

fn ensure_folder_after(root: &OwnedFd, path: &str, links: u32) -> io::Result<OwnedFd> {
    if let Ok(found) = fds::open_in_root(root, path, FOLDER) {
        return Ok(found);
    }
    let mut so_far = String::from("/");
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        let parent = fds::open_in_root(root, &so_far, FOLDER)?;
        let target = if part == ".." { None } else { make_or_follow(&parent, part, links)? };
        if let Some(target) = target {
            ensure_folder_after(root, &joined(&so_far, &target), links + 1)?;
        }
        so_far.push_str(part);
        so_far.push('/');
    }
    fds::open_in_root(root, path, FOLDER)
}

/// Makes a folder where nothing is; gives the target where a link is, which may lead to nothing.
fn make_or_follow(parent: &OwnedFd, name: &str, links: u32) -> io::Result<Option<String>> {
    match make_folder_at(parent, name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match read_link_at(parent, name)? {
            Some(_) if links >= MAX_LINKS => Err(io::Error::from_raw_os_error(libc::ELOOP)),
            target => Ok(target),
        },
        result => result.map(|()| None),
    }
}

/// Opens a file inside `root`; makes an empty one if missing, also where a link of the image leads to nothing yet: whole systems
/// have /etc/resolv.conf as a link to a file that their boot makes.
pub fn ensure_file(root: &OwnedFd, path: &str) -> io::Result<OwnedFd> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fds::open_in_root(root, &path, libc::O_PATH) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
        let parent = ensure_folder(root, if folder.is_empty() { "/" } else { folder })?;
        let c_name = CString::new(name)?;
        // SAFETY: `c_name` is NUL-terminated and outlives the call.
        match fds::check(unsafe { libc::mknodat(parent.as_raw_fd(), c_name.as_ptr(), libc::S_IFREG | 0o644, 0) }) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let target = read_link_at(&parent, name)?;
                path = joined(&format!("{folder}/"), &target.ok_or(error)?);
            }
            result => drop(result?),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

/// Where a link in `folder` (which ends with a slash) leads, from the root.
fn joined(folder: &str, target: &str) -> String {
    if target.starts_with('/') { target.to_owned() } else { format!("{folder}{target}") }
}

/// The target of a link; `None` if it is no link.
fn read_link_at(folder: &OwnedFd, name: &str) -> io::Result<Option<String>> {
    let name = CString::new(name)?;
    let mut target = vec![0; libc::PATH_MAX as usize];
    // SAFETY: `name` is NUL-terminated and `target` valid for its length.
    let result = unsafe { libc::readlinkat(folder.as_raw_fd(), name.as_ptr(), target.as_mut_ptr().cast(), target.len()) };
    match fds::check(result as i32) {
        Ok(length) => {
            target.truncate(length as usize);
            let text = String::from_utf8(target).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a link that is no text"))?;
            Ok(Some(text))
        }
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes a folder that is not there.
pub fn make_folder_at(folder: &OwnedFd, name: &str) -> io::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: `name` is NUL-terminated and outlives the call.
    fds::check(unsafe { libc::mkdirat(folder.as_raw_fd(), name.as_ptr(), 0o755) }).map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    struct Tree {
        folder: tempfile::TempDir,
        root: OwnedFd,
    }

    fn tree() -> Tree {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("root")).expect("a folder");
        let root = fds::open_place(&folder.path().join("root"), libc::O_DIRECTORY).expect("it is there");
        Tree { folder, root }
    }

    impl Tree {
        fn link(&self, target: &str, at: &str) {
            symlink(target, self.folder.path().join("root").join(at)).expect("a link");
        }

        fn has(&self, path: &str) -> bool {
            self.folder.path().join("root").join(path).exists()
        }
    }

    #[test]
    fn folders_are_made_where_links_lead() {
        let tree = tree();
        tree.link("../../../../run", "up");
        tree.link("/deep/down", "down");
        tree.link("second", "first");
        tree.link("third", "second");
        for path in ["/up/a", "/down/b/c", "first/x", "/plain/./d", "/plain/../side"] {
            ensure_folder(&tree.root, path).unwrap_or_else(|e| panic!("{path}: {e}"));
        }
        for path in ["run/a", "deep/down/b/c", "third/x", "plain/d", "side"] {
            assert!(tree.has(path), "{path}");
        }
        assert!(!tree.folder.path().join("run").exists() && !Path::new("/deep/down").exists());
    }

    #[test]
    fn files_are_made_where_links_lead() {
        let tree = tree();
        tree.link("../../run/resolve/stub.conf", "resolv.conf");
        ensure_file(&tree.root, "/resolv.conf").expect("a file");
        ensure_file(&tree.root, "/a/b/file").expect("a file");
        assert!(tree.has("run/resolve/stub.conf") && tree.has("a/b/file"));
    }

    #[test]
    fn circles_and_files_on_the_way_end() {
        let tree = tree();
        tree.link("b", "a");
        tree.link("a", "b");
        tree.link("self/self", "self");
        for path in ["/a", "/a/x", "/self", "/self/x"] {
            assert!(ensure_folder(&tree.root, path).is_err(), "{path}");
            assert!(ensure_file(&tree.root, path).is_err(), "{path}");
        }
        ensure_file(&tree.root, "/file").expect("a file");
        assert!(ensure_folder(&tree.root, "/file/x").is_err());
    }
}
