//! An EFS volume: what of its configuration this agent honours, and what must be mounted where. Pure.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/efs-volumes.html>

use std::path::{Path, PathBuf};

use berth_acs::messages::EfsVolumeConfiguration;
use berth_runtime::port::FileOwner;

use crate::config::{Creation, EfsBackend, EfsSettings};

/// The folder below that of all volumes for file systems that are mounted once for all tasks.
pub const EFS: &str = "_efs";

/// A directory of an EFS file system, shown to one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EfsMount {
    /// The file system's id.
    pub file_system_id: String,
    /// Where it is.
    pub backend: EfsBackend,
    /// Where all of an NFS server's export is mounted, for as long as a task uses it.
    pub whole: PathBuf,
    /// What of it the task sees, an absolute path in the file system.
    pub root: String,
    /// How that is made where it is missing.
    pub creation: Option<Creation>,
    /// The access point, for people.
    pub access_point: Option<String>,
    /// Where the task's own mount is.
    pub folder: PathBuf,
}

/// What is to be mounted, and who the container's user is there; or why the task cannot have it, with the member's name.
pub(super) fn mount(
    configuration: &EfsVolumeConfiguration,
    settings: &EfsSettings,
    volumes_dir: &Path,
    folder: PathBuf,
) -> Result<(EfsMount, Option<FileOwner>), String> {
    let id = configuration.file_system_id.as_str();
    let backend = settings.file_systems.get(id).ok_or_else(|| {
        format!("fileSystemId: this container instance does not know where file system '{id}' is; its setting BERTH_EFS has to say so")
    })?;
    let authorization = configuration.authorization_config.clone().unwrap_or_default();
    if authorization.iam == "ENABLED" {
        return Err("authorizationConfig.iam: neither an NFS server nor a directory asks for IAM's leave; set it to DISABLED".to_owned());
    }
    if configuration.transit_encryption == "ENABLED" {
        encrypted(backend, configuration.transit_encryption_port)?;
    }
    let root = if configuration.root_directory.is_empty() { "/" } else { &configuration.root_directory };
    if !root.starts_with('/') || root.split('/').any(|part| part == "..") {
        return Err(format!("rootDirectory: '{root}' is not an absolute path"));
    }
    let mut mount = EfsMount {
        file_system_id: id.to_owned(),
        backend: backend.clone(),
        whole: volumes_dir.join(EFS).join(id),
        root: root.to_owned(),
        creation: None,
        access_point: None,
        folder,
    };
    if authorization.access_point_id.is_empty() {
        return Ok((mount, None));
    }
    let name = authorization.access_point_id;
    let point = settings.access_points.get(&name).filter(|point| point.file_system_id == id).ok_or_else(|| {
        format!("accessPointId: this container instance knows no access point '{name}' of {id}; its setting BERTH_EFS_ACCESS_POINTS has to say what it is")
    })?;
    if root != "/" {
        return Err(format!("rootDirectory: with an access point it must be left out or '/', not '{root}'"));
    }
    if point.posix_user.is_some() && matches!(backend, EfsBackend::Nfs { .. }) {
        return Err(format!(
            "accessPointId: {name} has a PosixUser, which no client of NFS can enforce: its files stay those of whoever the server says"
        ));
    }
    mount.root.clone_from(&point.path);
    mount.creation = point.creation;
    mount.access_point = Some(name);
    Ok((mount, point.posix_user.map(|(uid, gid)| FileOwner { uid, gid })))
}

/// Whether what goes between this machine and the file system is seen by nobody else, and by way of the port that is asked for.
fn encrypted(backend: &EfsBackend, port_asked: i64) -> Result<(), String> {
    let EfsBackend::Nfs { host, port, .. } = backend else { return Ok(()) };
    if !backend.is_private() {
        return Err(format!(
            "transitEncryption: the way to {host} is not encrypted; start a TLS tunnel on this machine and name its end in BERTH_EFS (nfs://127.0.0.1:PORT/..)"
        ));
    }
    if port_asked != 0 && port_asked != i64::from(*port) {
        return Err(format!("transitEncryptionPort: the tunnel's end is at port {port}, as BERTH_EFS says, not at {port_asked}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use berth_acs::messages::EfsAuthorizationConfig;

    use super::*;

    fn settings() -> EfsSettings {
        let points = r#"[{"AccessPointId": "fsap-1", "FileSystemId": "fs-d", "PosixUser": {"Uid": 1000, "Gid": 100},
            "RootDirectory": {"Path": "/apps", "CreationInfo": {"OwnerUid": 1, "OwnerGid": 2, "Permissions": "755"}}},
            {"AccessPointId": "fsap-2", "FileSystemId": "fs-n", "PosixUser": {"Uid": 1, "Gid": 1}},
            {"AccessPointId": "fsap-3", "FileSystemId": "fs-n", "RootDirectory": {"Path": "/r"}}]"#;
        EfsSettings::parse(Some("fs-d=/srv/efs,fs-n=nfs://10.0.0.7/e,fs-t=nfs://127.0.0.1:2050/e"), Some(points)).unwrap()
    }

    fn plan(change: impl FnOnce(&mut EfsVolumeConfiguration)) -> Result<(EfsMount, Option<FileOwner>), String> {
        let mut configuration = EfsVolumeConfiguration { file_system_id: "fs-d".into(), ..Default::default() };
        change(&mut configuration);
        mount(&configuration, &settings(), Path::new("/v"), "/v/t/data".into())
    }

    fn point(id: &str) -> Option<EfsAuthorizationConfig> {
        Some(EfsAuthorizationConfig { access_point_id: id.into(), iam: "DISABLED".into() })
    }

    #[test]
    fn a_directory_an_export_and_an_access_point() {
        let (plain, owner) = plan(|asked| asked.root_directory = "/sub".into()).unwrap();
        assert_eq!((plain.root.as_str(), plain.backend, owner), ("/sub", EfsBackend::Directory("/srv/efs".into()), None));
        let (plain, _) = plan(|asked| asked.file_system_id = "fs-n".into()).unwrap();
        assert_eq!((plain.whole.to_str().unwrap(), plain.root.as_str()), ("/v/_efs/fs-n", "/"));
        let (through, owner) = plan(|asked| {
            asked.authorization_config = point("fsap-1");
            asked.transit_encryption = "ENABLED".into();
        })
        .unwrap();
        assert_eq!((through.root.as_str(), through.creation), ("/apps", Some(Creation { uid: 1, gid: 2, mode: 0o755 })));
        assert_eq!(owner, Some(FileOwner { uid: 1000, gid: 100 }));
        let (tunnel, _) = plan(|asked| {
            asked.file_system_id = "fs-t".into();
            asked.transit_encryption = "ENABLED".into();
            asked.transit_encryption_port = 2050;
        })
        .unwrap();
        assert_eq!(tunnel.backend, EfsBackend::Nfs { host: "127.0.0.1".into(), port: 2050, export: "/e".into() });
    }

    #[test]
    fn what_cannot_be_names_its_member() {
        type Change = fn(&mut EfsVolumeConfiguration);
        let changes: [(Change, &str, &str); 9] = [
            (|asked| asked.file_system_id = "fs-x".into(), "fileSystemId: ", "'fs-x'"),
            (|asked| asked.authorization_config = point("fsap-9"), "accessPointId: ", "'fsap-9' of fs-d"),
            (|asked| asked.authorization_config = point("fsap-3"), "accessPointId: ", "'fsap-3' of fs-d"),
            (
                |asked| {
                    asked.authorization_config = point("fsap-1");
                    asked.root_directory = "/x".into();
                },
                "rootDirectory: ",
                "'/x'",
            ),
            (|asked| asked.root_directory = "/a/../../etc".into(), "rootDirectory: ", "absolute"),
            (
                |asked| asked.authorization_config = Some(EfsAuthorizationConfig { iam: "ENABLED".into(), ..Default::default() }),
                "authorizationConfig.iam: ",
                "IAM",
            ),
            (
                |asked| {
                    asked.file_system_id = "fs-n".into();
                    asked.authorization_config = point("fsap-2");
                },
                "accessPointId: ",
                "PosixUser",
            ),
            (
                |asked| {
                    asked.file_system_id = "fs-n".into();
                    asked.transit_encryption = "ENABLED".into();
                },
                "transitEncryption: ",
                "10.0.0.7",
            ),
            (
                |asked| {
                    asked.file_system_id = "fs-t".into();
                    asked.transit_encryption = "ENABLED".into();
                    asked.transit_encryption_port = 2049;
                },
                "transitEncryptionPort: ",
                "2050",
            ),
        ];
        for (change, member, text) in changes {
            let refusal = plan(change).unwrap_err();
            assert!(refusal.starts_with(member) && refusal.contains(text), "{refusal}");
        }
    }
}
