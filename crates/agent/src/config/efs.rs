//! Which EFS file systems there are, and their access points: what AWS's EFS service knows, told by the machine's owner.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::ConfigError;

/// The setting that says where each file system is.
pub const FILE_SYSTEMS: &str = "BERTH_EFS";
/// The setting that says what its access points are.
pub const ACCESS_POINTS: &str = "BERTH_EFS_ACCESS_POINTS";

/// NFS's own port.
const NFS_PORT: u16 = 2049;

/// Where file systems are, by their ids, and access points by theirs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EfsSettings {
    /// `fs-..` to where it is.
    pub file_systems: BTreeMap<String, EfsBackend>,
    /// `fsap-..` to what it is.
    pub access_points: BTreeMap<String, AccessPoint>,
}

/// Where a file system is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EfsBackend {
    /// On a server of NFS 4.1, as EFS is one.
    Nfs {
        /// The server's name or address.
        host: String,
        /// Its TCP port.
        port: u16,
        /// What it exports; the file system's root.
        export: String,
    },
    /// A directory of this machine: a disk of its own, or what the owner has mounted there.
    Directory(PathBuf),
}

/// An access point, in the words of EFS's `DescribeAccessPoints`
/// (<https://docs.aws.amazon.com/efs/latest/ug/API_AccessPointDescription.html>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessPoint {
    /// Of which file system.
    pub file_system_id: String,
    /// Its root directory, an absolute path in the file system.
    pub path: String,
    /// How that directory is made where it is missing.
    pub creation: Option<Creation>,
    /// Who its users are on the disk, whoever they are in the container: user and group.
    pub posix_user: Option<(u32, u32)>,
}

/// `CreationInfo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Creation {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Rights as chmod(1) writes them.
    pub mode: u32,
}

impl EfsBackend {
    /// Whether nobody else sees what goes between this machine and the file system. A directory's files go nowhere; to a server they go
    /// through a tunnel whose end is on this machine, as amazon-efs-utils has it.
    #[must_use]
    pub fn is_private(&self) -> bool {
        match self {
            Self::Directory(_) => true,
            Self::Nfs { host, .. } => host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Described {
    Answer {
        #[serde(rename = "AccessPoints")]
        access_points: Vec<DescribedPoint>,
    },
    List(Vec<DescribedPoint>),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DescribedPoint {
    access_point_id: String,
    file_system_id: String,
    posix_user: Option<DescribedUser>,
    root_directory: Option<DescribedRoot>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DescribedUser {
    uid: u32,
    gid: u32,
    #[serde(default)]
    secondary_gids: Vec<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DescribedRoot {
    path: Option<String>,
    creation_info: Option<DescribedCreation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DescribedCreation {
    owner_uid: u32,
    owner_gid: u32,
    permissions: String,
}

impl EfsSettings {
    /// Reads both settings: `fs-12345678=nfs://10.0.0.7:2049/export,fs-87654321=/srv/efs`, and JSON as `aws efs describe-access-points`
    /// prints it, or the list in it.
    ///
    /// # Errors
    /// [`ConfigError`], which names the setting and what of it cannot be read or honoured.
    pub fn parse(file_systems: Option<&str>, access_points: Option<&str>) -> Result<Self, ConfigError> {
        let wrong = |problem: String| ConfigError { name: FILE_SYSTEMS, problem };
        let mut settings = Self::default();
        for entry in file_systems.unwrap_or_default().split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let (id, place) = entry.split_once('=').ok_or_else(|| wrong(format!("'{entry}' is not FILE-SYSTEM-ID=PLACE")))?;
            let (id, place) = (id.trim(), place.trim());
            if !is_id(id, "fs-") {
                return Err(wrong(format!("'{id}' is no id of a file system")));
            }
            let backend = backend(place).ok_or_else(|| {
                wrong(format!("'{place}' of {id} is neither nfs://HOST[:PORT]/EXPORT nor an absolute path of this machine"))
            })?;
            if settings.file_systems.insert(id.to_owned(), backend).is_some() {
                return Err(wrong(format!("{id} is named twice")));
            }
        }
        let wrong = |problem: String| ConfigError { name: ACCESS_POINTS, problem };
        if let Some(text) = access_points.filter(|text| !text.trim().is_empty()) {
            let described = serde_json::from_str(text).map_err(|error| {
                wrong(format!("is not the JSON that `aws efs describe-access-points` prints, nor the list in it: {error}"))
            })?;
            let (Described::Answer { access_points } | Described::List(access_points)) = described;
            for point in access_points {
                let (id, point) = access_point(point).map_err(wrong)?;
                settings.access_points.insert(id, point);
            }
        }
        Ok(settings)
    }
}

/// Ids become names of folders.
fn is_id(text: &str, prefix: &str) -> bool {
    let rest = text.strip_prefix(prefix).unwrap_or_default();
    (1..=40).contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

fn backend(place: &str) -> Option<EfsBackend> {
    let Some(rest) = place.strip_prefix("nfs://") else {
        return plain_absolute(place).then(|| EfsBackend::Directory(PathBuf::from(place)));
    };
    let (authority, export) = match rest.find('/') {
        Some(slash) => (&rest[..slash], &rest[slash..]),
        None => (rest, "/"),
    };
    // An IPv6 address is in brackets, as in every URL.
    let (host, port) = match authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
        None => (authority, NFS_PORT),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let fits = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:".contains(&b)) && plain_absolute(export);
    fits.then(|| EfsBackend::Nfs { host: host.to_owned(), port, export: export.to_owned() })
}

fn plain_absolute(path: &str) -> bool {
    path.starts_with('/') && !path.split('/').any(|part| part == "..") && !path.contains('\0')
}

fn access_point(described: DescribedPoint) -> Result<(String, AccessPoint), String> {
    let DescribedPoint { access_point_id: id, file_system_id, posix_user, root_directory } = described;
    if !is_id(&id, "fsap-") {
        return Err(format!("'{id}' is no id of an access point"));
    }
    if posix_user.as_ref().is_some_and(|user| !user.secondary_gids.is_empty()) {
        return Err(format!("{id}: SecondaryGids cannot be honoured: no mount gives a process groups that it does not have"));
    }
    let root = root_directory.unwrap_or(DescribedRoot { path: None, creation_info: None });
    let path = root.path.unwrap_or_else(|| "/".to_owned());
    if !plain_absolute(&path) {
        return Err(format!("{id}: Path '{path}' is not an absolute path"));
    }
    let creation = match root.creation_info {
        Some(DescribedCreation { owner_uid: uid, owner_gid: gid, permissions }) => {
            let mode = u32::from_str_radix(&permissions, 8).ok().filter(|mode| *mode <= 0o7777);
            let mode = mode.ok_or_else(|| format!("{id}: Permissions '{permissions}' are not octal digits"))?;
            Some(Creation { uid, gid, mode })
        }
        None => None,
    };
    let posix_user = posix_user.map(|user| (user.uid, user.gid));
    Ok((id, AccessPoint { file_system_id, path, creation, posix_user }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let nfs = |host: &str, port, export: &str| EfsBackend::Nfs { host: host.into(), port, export: export.into() };
        for (place, expected) in [
            ("nfs://127.0.0.1:20490/export", nfs("127.0.0.1", 20490, "/export")),
            ("nfs://files.example/a/b", nfs("files.example", 2049, "/a/b")),
            ("nfs://[fd00::7]:2049/", nfs("fd00::7", 2049, "/")),
            ("nfs://[fd00::7]", nfs("fd00::7", 2049, "/")),
            ("/srv/efs", EfsBackend::Directory("/srv/efs".into())),
        ] {
            let settings = EfsSettings::parse(Some(&format!(" fs-1a = {place} , ")), None).unwrap();
            assert_eq!(settings.file_systems, BTreeMap::from([("fs-1a".to_owned(), expected)]), "{place}");
        }
        for (text, problem) in [
            ("fs-1", "'fs-1' is not FILE-SYSTEM-ID=PLACE"),
            ("vol-1=/srv", "'vol-1' is no id"),
            ("fs-../x=/srv", "is no id"),
            ("fs-1=srv", "'srv' of fs-1 is neither"),
            ("fs-1=/srv/../etc", "is neither"),
            ("fs-1=nfs://h:0/x", "is neither"),
            ("fs-1=nfs:///x", "is neither"),
            ("fs-1=/a,fs-1=/b", "fs-1 is named twice"),
        ] {
            let error = EfsSettings::parse(Some(text), None).unwrap_err();
            assert!(error.name == "BERTH_EFS" && error.problem.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn access_points_as_aws_describes_them() {
        let point = r#"{"AccessPointId": "fsap-1", "FileSystemId": "fs-1", "LifeCycleState": "available", "PosixUser": {"Uid": 1000, "Gid": 100},
            "RootDirectory": {"Path": "/apps/a", "CreationInfo": {"OwnerUid": 1, "OwnerGid": 2, "Permissions": "0750"}}}"#;
        let expected = AccessPoint {
            file_system_id: "fs-1".into(),
            path: "/apps/a".into(),
            creation: Some(Creation { uid: 1, gid: 2, mode: 0o750 }),
            posix_user: Some((1000, 100)),
        };
        for text in [format!("[{point}]"), format!(r#"{{"AccessPoints": [{point}]}}"#)] {
            let settings = EfsSettings::parse(None, Some(&text)).unwrap();
            assert_eq!(settings.access_points["fsap-1"], expected);
        }
        let bare = EfsSettings::parse(None, Some(r#"[{"AccessPointId": "fsap-2", "FileSystemId": "fs-1"}]"#)).unwrap();
        assert_eq!((bare.access_points["fsap-2"].path.as_str(), bare.access_points["fsap-2"].posix_user), ("/", None));
        for (text, problem) in [
            ("{}", "is not the JSON"),
            (r#"[{"AccessPointId": "x", "FileSystemId": "fs-1"}]"#, "'x' is no id"),
            (
                r#"[{"AccessPointId": "fsap-1", "FileSystemId": "fs-1", "PosixUser": {"Uid": 1, "Gid": 1, "SecondaryGids": [2]}}]"#,
                "SecondaryGids",
            ),
            (r#"[{"AccessPointId": "fsap-1", "FileSystemId": "fs-1", "RootDirectory": {"Path": "a"}}]"#, "Path 'a'"),
            (
                r#"[{"AccessPointId": "fsap-1", "FileSystemId": "fs-1",
                "RootDirectory": {"Path": "/a", "CreationInfo": {"OwnerUid": 1, "OwnerGid": 2, "Permissions": "rwx"}}}]"#,
                "Permissions 'rwx'",
            ),
        ] {
            let error = EfsSettings::parse(None, Some(text)).unwrap_err();
            assert!(error.name == "BERTH_EFS_ACCESS_POINTS" && error.problem.contains(problem), "{text}: {error}");
        }
    }
}
