//! Resolves `user[:group]` in a container's own /etc/passwd and /etc/group, which are hostile input: they are opened so that
//! no link leads out of the container, and read only up to a limit.

use std::io::Read;
use std::os::fd::OwnedFd;

use crate::fds;
use crate::request::Failure;

/// Docker reads these files whole; a container that has more is not one whose users matter.
const MAX_FILE: u64 = 4 << 20;

/// The highest number that Docker and runc take. Above all it excludes the one that setresuid(2) reads as "leave it as it is",
/// which would be root.
const HIGHEST_ID: u32 = i32::MAX as u32;

/// Who a process runs as.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups, the group itself first.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
}

/// Resolves `user` (empty: root) in the container whose root directory is `root`.
pub fn resolve(root: &OwnedFd, user: &str) -> Result<Identity, Failure> {
    let passwd = read(root, "/etc/passwd");
    let group = read(root, "/etc/group");
    resolve_in(&passwd, &group, user).map_err(Failure::spec)
}

/// A missing or unreadable file is as an empty one: images without users are common.
fn read(root: &OwnedFd, path: &str) -> String {
    // O_NONBLOCK: a FIFO put there must not hang the start.
    let Ok(file) = fds::open_in_root(root, path, libc::O_RDONLY | libc::O_NONBLOCK) else { return String::new() };
    let file = std::fs::File::from(file);
    let mut text = Vec::new();
    if !file.metadata().is_ok_and(|meta| meta.is_file()) || file.take(MAX_FILE).read_to_end(&mut text).is_err() {
        return String::new();
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn resolve_in(passwd: &str, group: &str, spec: &str) -> Result<Identity, String> {
    let (user, wanted_group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (spec, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let numeric_user = user.parse::<u32>().ok();

    let entry = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = id(fields.nth(1)?)?;
        let gid = id(fields.next()?)?;
        let home = fields.nth(1).unwrap_or_default();
        (name == user || numeric_user == Some(uid)).then_some((name, uid, gid, home))
    });
    if numeric_user.is_some_and(|uid| uid > HIGHEST_ID) {
        return Err(format!("user {user}: uids and gids must be in range 0-{HIGHEST_ID}"));
    }
    let (name, uid, mut gid, home) = match (entry, numeric_user) {
        (Some((name, uid, gid, home)), _) => (Some(name), uid, gid, home),
        (None, Some(uid)) => (None, uid, 0, ""),
        (None, None) => return Err(format!("unable to find user {user}: no matching entries in passwd file")),
    };

    let mut groups = Vec::new();
    if let Some(wanted) = wanted_group {
        let numeric = wanted.parse::<u32>().ok();
        let found = group_lines(group).find(|(name, id, _)| *name == wanted || numeric == Some(*id)).map(|(_, id, _)| id);
        gid = found.or(numeric).ok_or_else(|| format!("unable to find group {wanted}: no matching entries in group file"))?;
        if gid > HIGHEST_ID {
            return Err(format!("group {wanted}: uids and gids must be in range 0-{HIGHEST_ID}"));
        }
        groups.push(gid);
    } else {
        groups.push(gid);
        if let Some(name) = name {
            groups.extend(group_lines(group).filter(|(_, id, members)| *id != gid && members.split(',').any(|m| m == name)).map(|g| g.1));
        }
    }
    let home = if home.is_empty() { "/" } else { home };
    Ok(Identity { uid, gid, groups, home: home.to_owned() })
}

fn group_lines(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = id(fields.nth(1)?)?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

/// A number that a process can have; a line with another is as one that is not there.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id <= HIGHEST_ID)
}

/// Gives the environment a HOME where it has none.
pub fn complete(environment: &mut Vec<String>, identity: &Identity) {
    if !environment.iter().any(|entry| entry.starts_with("HOME=")) {
        environment.push(format!("HOME={}", identity.home));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:www:/var/www:/bin/false\nbroken\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nlogs:x:4:web,other\nothers:x:5:webster\n";

    fn ids(spec: &str) -> Result<(u32, u32, Vec<u32>, String), String> {
        resolve_in(PASSWD, GROUP, spec).map(|i| (i.uid, i.gid, i.groups, i.home))
    }

    #[test]
    fn names_numbers_and_groups() {
        assert_eq!(ids(""), Ok((0, 0, vec![0], "/root".into())));
        assert_eq!(ids("web"), Ok((33, 34, vec![34, 4], "/var/www".into())));
        assert_eq!(ids("33"), Ok((33, 34, vec![34, 4], "/var/www".into())));
        assert_eq!(ids("1234"), Ok((1234, 0, vec![0], "/".into())));
        assert_eq!(ids("web:logs"), Ok((33, 4, vec![4], "/var/www".into())));
        assert_eq!(ids("1234:777"), Ok((1234, 777, vec![777], "/".into())));
    }

    #[test]
    fn unknown_names_are_named() {
        assert_eq!(ids("nobody").unwrap_err(), "unable to find user nobody: no matching entries in passwd file");
        assert_eq!(ids("web:no").unwrap_err(), "unable to find group no: no matching entries in group file");
    }

    #[test]
    fn no_number_means_as_before() {
        let hostile = "ghost:x:4294967295:4294967295::/:/bin/sh\nhalf:x:5:4294967295::/:/bin/sh\n";
        for user in ["4294967295", "2147483648", "5:4294967295", "ghost", "half", "half:all"] {
            assert!(resolve_in(hostile, "all:x:4294967295:\n", user).is_err(), "{user}");
        }
        assert_eq!(resolve_in(hostile, "", "2147483647").unwrap().uid, 2_147_483_647);
    }

    #[test]
    fn an_image_without_files_has_root() {
        assert_eq!(resolve_in("", "", "").unwrap(), Identity { uid: 0, gid: 0, groups: vec![0], home: "/".into() });
    }
}
