//! What must hold for the storage of a task definition: EFS volumes and ephemeral storage.
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_EFSVolumeConfiguration.html>,
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_EphemeralStorage.html>

use berth_shapes::ecs;

use crate::failure::Failure;

/// Sizes that ECS takes, in GiB.
const EPHEMERAL_GIB: std::ops::RangeInclusive<i32> = 21..=200;

/// The first thing that is wrong with a definition's volumes.
pub(crate) fn check_volumes(volumes: &[ecs::Volume]) -> Result<(), Failure> {
    volumes.iter().filter_map(|volume| Some((volume, volume.efs_volume_configuration.as_ref()?))).try_for_each(|(volume, efs)| {
        let name = volume.name.as_deref().unwrap_or_default();
        check_efs(name, efs)
    })
}

fn check_efs(name: &str, efs: &ecs::EFSVolumeConfiguration) -> Result<(), Failure> {
    let refuse = |problem: &str| Err(Failure::client(format!("Volume '{name}': {problem}")));
    if efs.file_system_id.as_deref().unwrap_or_default().is_empty() {
        return refuse("fileSystemId of efsVolumeConfiguration must be specified.");
    }
    let root = efs.root_directory.as_deref().unwrap_or_default();
    let encrypted = efs.transit_encryption.as_ref().is_some_and(|encryption| encryption.as_str() == "ENABLED");
    let authorization = efs.authorization_config.as_ref();
    let point = authorization.and_then(|config| config.access_point_id.as_deref()).is_some_and(|id| !id.is_empty());
    if point && !matches!(root, "" | "/") {
        return Err(Failure::client("When using an EFS access point, the root directory must either be set to \"/\" or be omitted."));
    }
    if point && !encrypted {
        return refuse("transitEncryption must be ENABLED when an EFS access point (accessPointId) is used.");
    }
    if authorization.and_then(|config| config.iam.as_ref()).is_some_and(|iam| iam.as_str() == "ENABLED") && !encrypted {
        return refuse("transitEncryption must be ENABLED when EFS IAM authorization (iam) is used.");
    }
    match efs.transit_encryption_port {
        Some(_) if !encrypted => refuse("transitEncryptionPort needs transitEncryption to be ENABLED."),
        Some(port) if !(0..=65_535).contains(&port) => refuse("transitEncryptionPort must be between 0 and 65535."),
        _ => Ok(()),
    }
}

/// The size of a task's own storage.
pub(crate) fn check_ephemeral(storage: Option<&ecs::EphemeralStorage>) -> Result<(), Failure> {
    match storage.map(|storage| storage.size_in_gib.unwrap_or_default()) {
        Some(size) if !EPHEMERAL_GIB.contains(&size) => {
            let (least, most) = (EPHEMERAL_GIB.start(), EPHEMERAL_GIB.end());
            Err(Failure::client(format!("ephemeralStorage: sizeInGiB must be between {least} and {most}, not {size}.")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal(efs: serde_json::Value) -> Option<String> {
        let volume = serde_json::from_value(json!({"name": "v", "efsVolumeConfiguration": efs})).unwrap();
        check_volumes(&[volume]).err().map(|failure| failure.message)
    }

    #[test]
    fn efs_volumes() {
        let point = json!({"accessPointId": "fsap-1"});
        for good in [
            json!({"fileSystemId": "fs-1"}),
            json!({"fileSystemId": "fs-1", "rootDirectory": "/a", "transitEncryption": "ENABLED", "transitEncryptionPort": 2049}),
            json!({"fileSystemId": "fs-1", "rootDirectory": "/", "transitEncryption": "ENABLED", "authorizationConfig": point}),
            json!({"fileSystemId": "fs-1", "authorizationConfig": {"iam": "DISABLED"}}),
        ] {
            assert_eq!(refusal(good.clone()), None, "{good}");
        }
        for (bad, text) in [
            (json!({"fileSystemId": ""}), "fileSystemId"),
            (
                json!({"fileSystemId": "fs-1", "rootDirectory": "/a", "transitEncryption": "ENABLED", "authorizationConfig": point}),
                "the root directory must either be set to \"/\" or be omitted",
            ),
            (json!({"fileSystemId": "fs-1", "authorizationConfig": point}), "access point (accessPointId)"),
            (json!({"fileSystemId": "fs-1", "authorizationConfig": {"iam": "ENABLED"}}), "authorization (iam)"),
            (json!({"fileSystemId": "fs-1", "transitEncryptionPort": 2049}), "transitEncryptionPort needs"),
            (json!({"fileSystemId": "fs-1", "transitEncryption": "ENABLED", "transitEncryptionPort": 70000}), "65535"),
        ] {
            let said = refusal(bad.clone()).unwrap_or_default();
            assert!(said.contains(text), "{bad}: {said}");
        }
    }

    #[test]
    fn sizes() {
        let check = |size| check_ephemeral(Some(&ecs::EphemeralStorage { size_in_gib: Some(size) })).is_ok();
        assert!(check(21) && check(200) && !check(20) && !check(201) && !check(0));
        assert!(check_ephemeral(None).is_ok());
    }
}
