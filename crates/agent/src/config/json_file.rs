//! amazon-ecs-agent's JSON file: which of its members is which variable, and what its values are as text. Names are compared without
//! regard to case, as Go does; durations are numbers of nanoseconds, as Go writes them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::layers::{FileError, Given, Layer};

/// What a member's value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Text, numbers, truth values, or JSON of its own: as it is.
    Plain,
    /// Nanoseconds.
    Duration,
    /// A list that the variable has with commas.
    Commas,
    /// A number: the place in a list of words.
    Word(&'static [&'static str]),
}

/// The members of the official agent's `Config` (`agent/config/types.go`) that a variable stands for.
const MEMBERS: [(&str, &str, Form); 70] = [
    ("AWSRegion", "AWS_DEFAULT_REGION", Form::Plain),
    ("AWSVPCAdditionalLocalRoutes", "ECS_AWSVPC_ADDITIONAL_LOCAL_ROUTES", Form::Plain),
    ("AWSVPCBlockInstanceMetdata", "ECS_AWSVPC_BLOCK_IMDS", Form::Plain),
    ("APIEndpoint", "ECS_BACKEND_HOST", Form::Plain),
    ("AppArmorCapable", "ECS_APPARMOR_CAPABLE", Form::Plain),
    ("AvailableLoggingDrivers", "ECS_AVAILABLE_LOGGING_DRIVERS", Form::Plain),
    ("CgroupCPUPeriod", "ECS_CGROUP_CPU_PERIOD", Form::Duration),
    ("CgroupPath", "ECS_CGROUP_PATH", Form::Plain),
    ("Checkpoint", "ECS_CHECKPOINT", Form::Plain),
    ("Cluster", "ECS_CLUSTER", Form::Plain),
    ("ClusterArn", "ECS_CLUSTER", Form::Plain),
    ("CNIPluginsPath", "ECS_CNI_PLUGINS_PATH", Form::Plain),
    ("ContainerCreateTimeout", "ECS_CONTAINER_CREATE_TIMEOUT", Form::Duration),
    ("ContainerInstancePropagateTagsFrom", "ECS_CONTAINER_INSTANCE_PROPAGATE_TAGS_FROM", Form::Word(&["none", "ec2_instance"])),
    ("ContainerInstanceTags", "ECS_CONTAINER_INSTANCE_TAGS", Form::Plain),
    ("ContainerMetadataEnabled", "ECS_ENABLE_CONTAINER_METADATA", Form::Plain),
    ("ContainerStartTimeout", "ECS_CONTAINER_START_TIMEOUT", Form::Duration),
    ("CredentialsAuditLogDisabled", "ECS_AUDIT_LOGFILE_DISABLED", Form::Plain),
    ("CredentialsAuditLogFile", "ECS_AUDIT_LOGFILE", Form::Plain),
    ("DataDir", "ECS_DATADIR", Form::Plain),
    ("DataDirOnHost", "ECS_HOST_DATA_DIR", Form::Plain),
    ("DeleteNonECSImagesEnabled", "ECS_ENABLE_UNTRACKED_IMAGE_CLEANUP", Form::Plain),
    ("DependentContainersPullUpfront", "ECS_PULL_DEPENDENT_CONTAINERS_UPFRONT", Form::Plain),
    ("DisableDockerHealthCheck", "ECS_DISABLE_DOCKER_HEALTH_CHECK", Form::Plain),
    ("DisableMetrics", "ECS_DISABLE_METRICS", Form::Plain),
    ("DockerEndpoint", "DOCKER_HOST", Form::Plain),
    ("DockerStopTimeout", "ECS_CONTAINER_STOP_TIMEOUT", Form::Duration),
    ("DynamicHostPortRange", "ECS_DYNAMIC_HOST_PORT_RANGE", Form::Plain),
    ("EBSTASupportEnabled", "ECS_EBSTA_SUPPORTED", Form::Plain),
    ("EnableRuntimeStats", "ECS_ENABLE_RUNTIME_STATS", Form::Plain),
    ("EngineAuthData", "ECS_ENGINE_AUTH_DATA", Form::Plain),
    ("EngineAuthType", "ECS_ENGINE_AUTH_TYPE", Form::Plain),
    ("External", "ECS_EXTERNAL", Form::Plain),
    ("FirelensAsyncEnabled", "ECS_ENABLE_FIRELENS_ASYNC", Form::Plain),
    ("FSxWindowsFileServerCapable", "ECS_FSX_WINDOWS_FILE_SERVER_SUPPORTED", Form::Plain),
    ("GMSACapable", "ECS_GMSA_SUPPORTED", Form::Plain),
    ("GPUSupportEnabled", "ECS_ENABLE_GPU_SUPPORT", Form::Plain),
    ("ImageCleanupDisabled", "ECS_DISABLE_IMAGE_CLEANUP", Form::Plain),
    ("ImageCleanupExclusionList", "ECS_EXCLUDE_UNTRACKED_IMAGE", Form::Commas),
    ("ImageCleanupInterval", "ECS_IMAGE_CLEANUP_INTERVAL", Form::Duration),
    ("ImagePullBehavior", "ECS_IMAGE_PULL_BEHAVIOR", Form::Word(&["default", "always", "once", "prefer-cached"])),
    ("ImagePullInactivityTimeout", "ECS_IMAGE_PULL_INACTIVITY_TIMEOUT", Form::Duration),
    ("ImagePullTimeout", "ECS_IMAGE_PULL_TIMEOUT", Form::Duration),
    ("InferentiaSupportEnabled", "ECS_ENABLE_INF_SUPPORT", Form::Plain),
    ("InstanceAttributes", "ECS_INSTANCE_ATTRIBUTES", Form::Plain),
    ("ManifestPullTimeout", "ECS_MANIFEST_PULL_TIMEOUT", Form::Duration),
    ("MinimumImageDeletionAge", "ECS_IMAGE_MINIMUM_CLEANUP_AGE", Form::Duration),
    ("NonECSMinimumImageDeletionAge", "NON_ECS_IMAGE_MINIMUM_CLEANUP_AGE", Form::Duration),
    ("NumImagesToDeletePerCycle", "ECS_NUM_IMAGES_DELETE_PER_CYCLE", Form::Plain),
    ("NumNonECSContainersToDeletePerCycle", "NONECS_NUM_CONTAINERS_DELETE_PER_CYCLE", Form::Plain),
    ("NvidiaRuntime", "ECS_NVIDIA_RUNTIME", Form::Plain),
    ("OverrideAWSLogsExecutionRole", "ECS_ENABLE_AWSLOGS_EXECUTIONROLE_OVERRIDE", Form::Plain),
    ("PollingMetricsWaitDuration", "ECS_POLLING_METRICS_WAIT_DURATION", Form::Duration),
    ("PollMetrics", "ECS_POLL_METRICS", Form::Plain),
    ("PrivilegedDisabled", "ECS_DISABLE_PRIVILEGED", Form::Plain),
    ("ReservedMemory", "ECS_RESERVED_MEMORY", Form::Plain),
    ("ReservedPorts", "ECS_RESERVED_PORTS", Form::Plain),
    ("ReservedPortsUDP", "ECS_RESERVED_PORTS_UDP", Form::Plain),
    ("SELinuxCapable", "ECS_SELINUX_CAPABLE", Form::Plain),
    ("SharedVolumeMatchFullConfig", "ECS_SHARED_VOLUME_MATCH_FULL_CONFIG", Form::Plain),
    ("ShouldExcludeIPv6PortBinding", "ECS_EXCLUDE_IPV6_PORTBINDING", Form::Plain),
    ("SpotInstanceDrainingEnabled", "ECS_ENABLE_SPOT_INSTANCE_DRAINING", Form::Plain),
    ("TaskCleanupWaitDuration", "ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", Form::Duration),
    ("TaskCleanupWaitDurationJitter", "ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION_JITTER", Form::Duration),
    ("TaskCPUMemLimit", "ECS_ENABLE_TASK_CPU_MEM_LIMIT", Form::Plain),
    ("TaskENIEnabled", "ECS_ENABLE_TASK_ENI", Form::Plain),
    ("TaskPidsLimit", "ECS_TASK_PIDS_LIMIT", Form::Plain),
    ("TaskIAMRoleEnabled", "ECS_ENABLE_TASK_IAM_ROLE", Form::Plain),
    ("TaskIAMRoleEnabledForNetworkHost", "ECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST", Form::Plain),
    ("UpdatesEnabled", "ECS_UPDATES_ENABLED", Form::Plain),
];

/// Reads the file's text.
pub(super) fn read(file: &str, text: &str) -> Result<Layer, FileError> {
    if text.trim().is_empty() {
        return Ok(Layer::default());
    }
    let object: Map<String, Value> = serde_json::from_str(text).map_err(|error| {
        // The parser's own words may repeat what it stumbled over.
        let problem = if error.is_data() { "is no JSON object" } else { "is no JSON" };
        FileError { file: file.to_owned(), line: Some(error.line()).filter(|line| *line > 0), problem: problem.to_owned() }
    })?;
    let (mut values, mut strangers) = (BTreeMap::new(), Vec::new());
    for (name, value) in object {
        let Some((member, variable, form)) = MEMBERS.iter().find(|(member, ..)| member.eq_ignore_ascii_case(&name)) else {
            strangers.push(format!("{file}, member {name}"));
            continue;
        };
        let line = text.lines().position(|line| line.contains(&format!("\"{name}\""))).map(|index| index + 1);
        let wanted = render(&value, *form).map_err(|problem| FileError {
            file: file.to_owned(),
            line,
            problem: format!("{name} ({variable}): {problem}"),
        })?;
        let Some(text) = wanted else { continue };
        let place = format!("{file}{}, member {name}", line.map(|line| format!(", line {line}")).unwrap_or_default());
        // The deprecated ClusterArn gives way to Cluster.
        if *member == "ClusterArn" && values.contains_key(*variable) {
            continue;
        }
        values.insert((*variable).to_owned(), Given { text, place });
    }
    Ok(Layer { values, strangers, ..Layer::default() })
}

/// A value as the variable would have it; `None` for `null`.
fn render(value: &Value, form: Form) -> Result<Option<String>, String> {
    let text = match (form, value) {
        (_, Value::Null) => return Ok(None),
        (Form::Duration, Value::Number(number)) => {
            format!("{}ns", number.as_u64().ok_or("is no whole number of nanoseconds, 0 or more")?)
        }
        (Form::Duration, _) => return Err("is no number of nanoseconds".to_owned()),
        (Form::Commas, Value::Array(list)) => {
            let words: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
            words.ok_or("is no list of texts")?.join(",")
        }
        (Form::Commas, _) => return Err("is no list of texts".to_owned()),
        (Form::Word(words), Value::Number(number)) => {
            let place = number.as_u64().and_then(|number| usize::try_from(number).ok());
            let word = place.and_then(|place| words.get(place));
            (*word.ok_or_else(|| format!("is no number from 0 to {}", words.len() - 1))?).to_owned()
        }
        (_, Value::String(text)) => text.clone(),
        (_, other) => other.to_string(),
    };
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_become_variables() {
        let text = r#"{
            "cluster": "c", "ClusterArn": "deprecated",
            "ReservedPorts": [22, 80],
            "DockerStopTimeout": 5000000000,
            "DisableMetrics": true,
            "ImagePullBehavior": 3,
            "ImageCleanupExclusionList": ["a:1", "b"],
            "EngineAuthData": {"r": {"username": "u"}},
            "InstanceAttributes": {"stack": "prod"},
            "DataDir": null,
            "PauseContainerTag": "1"
        }"#;
        let layer = read("/c.json", text).unwrap();
        let value = |name: &str| layer.values.get(name).map(|given| given.text.as_str());
        assert_eq!(value("ECS_CLUSTER"), Some("c"));
        assert_eq!(value("ECS_RESERVED_PORTS"), Some("[22,80]"));
        assert_eq!(value("ECS_CONTAINER_STOP_TIMEOUT"), Some("5000000000ns"));
        assert_eq!(value("ECS_DISABLE_METRICS"), Some("true"));
        assert_eq!(value("ECS_IMAGE_PULL_BEHAVIOR"), Some("prefer-cached"));
        assert_eq!(value("ECS_EXCLUDE_UNTRACKED_IMAGE"), Some("a:1,b"));
        assert_eq!(value("ECS_ENGINE_AUTH_DATA"), Some(r#"{"r":{"username":"u"}}"#));
        assert_eq!(value("ECS_DATADIR"), None);
        assert_eq!(layer.values["ECS_RESERVED_PORTS"].place, "/c.json, line 3, member ReservedPorts");
        assert_eq!(layer.strangers, ["/c.json, member PauseContainerTag"]);
        assert_eq!(read("/c.json", "  \n").unwrap(), Layer::default());
        let deprecated = read("/c.json", r#"{"ClusterArn": "arn"}"#).unwrap();
        assert_eq!(deprecated.values["ECS_CLUSTER"].text, "arn");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (text, words) in [
            ("{\n\"Cluster\": ", "/c.json, line 2"),
            ("[1]", "no JSON object"),
            ("{\n\"DockerStopTimeout\": \"5s\"}", "/c.json, line 2: DockerStopTimeout (ECS_CONTAINER_STOP_TIMEOUT): is no number"),
            ("{\"ImagePullBehavior\": 9}", "is no number from 0 to 3"),
            ("{\"ImageCleanupExclusionList\": [1]}", "is no list of texts"),
        ] {
            let error = read("/c.json", text).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn every_member_is_a_variable_that_is_known() {
        for (member, variable, _) in MEMBERS {
            assert!(super::super::variables::find(variable).is_some(), "{member}: {variable}");
        }
    }
}
