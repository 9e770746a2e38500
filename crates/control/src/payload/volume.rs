//! A task's volumes, each with the configuration of its kind.

use berth_acs::messages::{DockerVolumeConfiguration, EfsAuthorizationConfig, EfsVolumeConfiguration, HostVolume, Volume};
use berth_shapes::ecs;
use serde_json::{Value, json};

/// A volume. One that says nothing of its kind is a directory that lives as long as its task; one that is configured at launch would
/// be an EBS volume, and those are refused when a task is asked for.
pub(super) fn render(defined: &ecs::Volume) -> Volume {
    let name = defined.name.clone().unwrap_or_default();
    let of = |kind: &str| Volume { name: name.clone(), kind: kind.to_owned(), ..Default::default() };
    if let Some(docker) = &defined.docker_volume_configuration {
        return Volume { docker_volume_configuration: Some(docker_volume(docker)), ..of("docker") };
    }
    if let Some(efs) = &defined.efs_volume_configuration {
        return Volume { efs_volume_configuration: Some(efs_volume(efs)), ..of("efs") };
    }
    if let Some(files) = &defined.s3files_volume_configuration {
        return Volume { s3files_volume_configuration: Some(s3_files(&name, files)), ..of("s3files") };
    }
    if let Some(windows) = &defined.fsx_windows_file_server_volume_configuration {
        // The agent's names are those of the API.
        let configuration = serde_json::to_value(windows).expect("texts have a JSON form");
        return Volume { fsx_windows_file_server_volume_configuration: Some(configuration), ..of("fsxWindowsFileServer") };
    }
    let source_path = defined.host.as_ref().and_then(|host| host.source_path.clone()).unwrap_or_default();
    Volume { host: Some(HostVolume { source_path }), ..of("host") }
}

/// Docker's own: for one task unless `shared`, by Docker's own driver unless another is named.
fn docker_volume(defined: &ecs::DockerVolumeConfiguration) -> DockerVolumeConfiguration {
    DockerVolumeConfiguration {
        scope: defined.scope.as_ref().map_or("task", |scope| scope.as_str()).to_owned(),
        autoprovision: defined.autoprovision == Some(true),
        driver: defined.driver.clone().filter(|driver| !driver.is_empty()).unwrap_or_else(|| "local".to_owned()),
        driver_opts: defined.driver_opts.clone().unwrap_or_default(),
        labels: defined.labels.clone().unwrap_or_default(),
    }
}

fn efs_volume(defined: &ecs::EFSVolumeConfiguration) -> EfsVolumeConfiguration {
    EfsVolumeConfiguration {
        file_system_id: defined.file_system_id.clone().unwrap_or_default(),
        root_directory: defined.root_directory.clone().filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned()),
        transit_encryption: defined.transit_encryption.as_ref().map_or("DISABLED", |encryption| encryption.as_str()).to_owned(),
        transit_encryption_port: i64::from(defined.transit_encryption_port.unwrap_or(0)),
        authorization_config: defined.authorization_config.as_ref().map(|authorization| EfsAuthorizationConfig {
            access_point_id: authorization.access_point_id.clone().unwrap_or_default(),
            iam: authorization.iam.as_ref().map_or("DISABLED", |iam| iam.as_str()).to_owned(),
        }),
    }
}

/// S3 Files: the API names file system and access point by ARN, the agent by id, and its numbers are texts.
fn s3_files(name: &str, defined: &ecs::S3FilesVolumeConfiguration) -> Value {
    let id = |arn: Option<&String>| arn.map(|arn| arn.rsplit(['/', ':']).next().unwrap_or_default().to_owned());
    let mut configuration = json!({"volumeName": name, "volumeId": id(defined.file_system_arn.as_ref()).unwrap_or_default()});
    let optional = [
        ("s3FilesRootDirectory", defined.root_directory.clone()),
        ("s3FilesTransitEncryptionPort", defined.transit_encryption_port.map(|port| port.to_string())),
        ("s3FilesAccessPointId", id(defined.access_point_arn.as_ref())),
    ];
    for (member, value) in optional {
        if let Some(value) = value {
            configuration[member] = Value::String(value);
        }
    }
    configuration
}
