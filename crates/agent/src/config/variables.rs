//! Every variable that amazon-ecs-agent and ecs-init read, and what becomes of it here: none is passed over in silence. The table in
//! docs/agent.md lists the same names; a test holds the two together.

use super::layers::Settings;

/// What becomes of a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// It means what it means to the official agent, or what docs/agent.md says.
    Honoured,
    /// What it is for does not exist here; the text says why, in a log line.
    Ignored(&'static str),
}

use Treatment::{Honoured, Ignored};

const NO_EC2: &str = "this agent does not ask EC2";
const NO_ENI: &str = "interfaces of tasks are Berth's own, not EC2's";
const NO_OWN_CONTAINER: &str = "this agent is no container";
const NO_ECS_INIT: &str = "there is no ecs-init that it is for";
const NO_GPU: &str = "this agent announces no GPUs";
const NO_GMSA: &str = "this agent has no gMSA";
const NO_STRANGERS: &str = "containers that are not of tasks of this agent are never removed";
const NO_POLLING: &str = "use is read from control groups when it is published, never streamed";
const NO_AUDIT: &str = "who asked for credentials is told in the agent's log";
const WINDOWS: &str = "it is for Windows";

/// All variables, in order of their names.
pub const VARIABLES: [(&str, Treatment); 131] = [
    ("AWS_ACCESS_KEY_ID", Honoured),
    ("AWS_DEFAULT_REGION", Honoured),
    ("AWS_ENDPOINT_URL", Honoured),
    ("AWS_ENDPOINT_URL_ECR", Honoured),
    ("AWS_ENDPOINT_URL_S3", Honoured),
    ("AWS_ENDPOINT_URL_SECRETS_MANAGER", Honoured),
    ("AWS_ENDPOINT_URL_SSM", Honoured),
    ("AWS_SECRET_ACCESS_KEY", Honoured),
    ("AWS_SESSION_TOKEN", Honoured),
    ("BERTH_DNS", Honoured),
    ("BERTH_DNS_UPSTREAM", Honoured),
    ("BERTH_EFS", Honoured),
    ("BERTH_EFS_ACCESS_POINTS", Honoured),
    ("BERTH_FARGATE", Honoured),
    ("BERTH_IMAGE_CLEANUP_INTERVAL", Honoured),
    ("BERTH_IMAGE_DISK_BUDGET", Honoured),
    ("BERTH_INTROSPECTION", Honoured),
    ("BERTH_PREPULL_IMAGES", Honoured),
    ("BERTH_PUBLIC_ADDRESSES", Honoured),
    ("BERTH_SOURCES_ACCESS_KEY_ID", Honoured),
    ("BERTH_SOURCES_SECRET_ACCESS_KEY", Honoured),
    ("BERTH_SOURCES_SESSION_TOKEN", Honoured),
    ("BERTH_TASK_SHORTCUTS", Honoured),
    ("CREDENTIALS_FETCHER_HOST", Ignored(NO_GMSA)),
    ("CREDENTIALS_FETCHER_HOST_DIR", Ignored(NO_GMSA)),
    ("CREDENTIALS_FETCHER_SECRET_NAME_FOR_DOMAINLESS_GMSA", Ignored(NO_GMSA)),
    ("DOCKER_HOST", Honoured),
    ("ECS_AGENT_APPARMOR_PROFILE", Ignored(NO_OWN_CONTAINER)),
    ("ECS_AGENT_CONFIG_FILE_PATH", Honoured),
    ("ECS_AGENT_HEALTHCHECK_HOST", Ignored(NO_OWN_CONTAINER)),
    ("ECS_AGENT_LABELS", Ignored(NO_OWN_CONTAINER)),
    ("ECS_AGENT_PID_NAMESPACE_HOST", Ignored(NO_OWN_CONTAINER)),
    ("ECS_AGENT_RUN_PRIVILEGED", Ignored(NO_OWN_CONTAINER)),
    ("ECS_ALLOW_OFFHOST_INTROSPECTION_ACCESS", Honoured),
    ("ECS_ALTERNATE_CREDENTIAL_PROFILE", Ignored("keys are taken from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY alone")),
    ("ECS_APPARMOR_CAPABLE", Honoured),
    ("ECS_AUDIT_LOGFILE", Ignored(NO_AUDIT)),
    ("ECS_AUDIT_LOGFILE_DISABLED", Ignored(NO_AUDIT)),
    ("ECS_AVAILABLE_LOGGING_DRIVERS", Honoured),
    ("ECS_AWSVPC_ADDITIONAL_LOCAL_ROUTES", Ignored(NO_ENI)),
    ("ECS_AWSVPC_BLOCK_IMDS", Ignored(NO_ENI)),
    ("ECS_BACKEND_HOST", Honoured),
    ("ECS_CGROUP_CPU_PERIOD", Ignored("the period of a task's cpu limit is 100ms")),
    ("ECS_CGROUP_PATH", Ignored("control groups are found where the machine has mounted them")),
    ("ECS_CHECKPOINT", Honoured),
    ("ECS_CLUSTER", Honoured),
    ("ECS_CNI_PLUGINS_PATH", Ignored(NO_ENI)),
    ("ECS_CONTAINER_CREATE_TIMEOUT", Honoured),
    ("ECS_CONTAINER_INSTANCE_PROPAGATE_TAGS_FROM", Ignored(NO_EC2)),
    ("ECS_CONTAINER_INSTANCE_TAGS", Honoured),
    ("ECS_CONTAINER_START_TIMEOUT", Honoured),
    ("ECS_CONTAINER_STOP_TIMEOUT", Honoured),
    ("ECS_DATADIR", Honoured),
    ("ECS_DETAILED_OS_FAMILY", Honoured),
    ("ECS_DISABLE_DOCKER_HEALTH_CHECK", Honoured),
    ("ECS_DISABLE_IMAGE_CLEANUP", Honoured),
    ("ECS_DISABLE_METRICS", Honoured),
    ("ECS_DISABLE_PRIVILEGED", Honoured),
    ("ECS_DISABLE_TASK_METADATA_AZ", Honoured),
    ("ECS_DOMAIN_JOINED_LINUX_INSTANCE", Ignored(NO_GMSA)),
    ("ECS_DYNAMIC_HOST_PORT_RANGE", Honoured),
    ("ECS_EBSTA_SUPPORTED", Ignored("this agent attaches no EBS volumes")),
    ("ECS_ENABLE_AWSLOGS_EXECUTIONROLE_OVERRIDE", Ignored("awslogs lines are kept on this machine, which takes no credentials")),
    ("ECS_ENABLE_CONTAINER_METADATA", Honoured),
    ("ECS_ENABLE_CPU_UNBOUNDED_WINDOWS_WORKAROUND", Ignored(WINDOWS)),
    ("ECS_ENABLE_FIRELENS_ASYNC", Ignored("this agent has no FireLens")),
    ("ECS_ENABLE_GPU_SUPPORT", Ignored(NO_GPU)),
    ("ECS_ENABLE_HIGH_DENSITY_ENI", Ignored(NO_ENI)),
    ("ECS_ENABLE_INF_SUPPORT", Ignored("this agent announces no Inferentia devices")),
    ("ECS_ENABLE_MEMORY_UNBOUNDED_WINDOWS_WORKAROUND", Ignored(WINDOWS)),
    ("ECS_ENABLE_PROMETHEUS_METRICS", Ignored("this agent serves no metrics of its own")),
    ("ECS_ENABLE_RUNTIME_STATS", Ignored("it is for the profiler of the Go language")),
    ("ECS_ENABLE_SPOT_INSTANCE_DRAINING", Ignored(NO_EC2)),
    ("ECS_ENABLE_TASK_CPU_MEM_LIMIT", Honoured),
    ("ECS_ENABLE_TASK_ENI", Ignored(NO_ENI)),
    ("ECS_ENABLE_TASK_IAM_ROLE", Honoured),
    ("ECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST", Honoured),
    ("ECS_ENABLE_UNTRACKED_IMAGE_CLEANUP", Honoured),
    ("ECS_ENGINE_AUTH_DATA", Honoured),
    ("ECS_ENGINE_AUTH_TYPE", Honoured),
    ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", Honoured),
    ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION_JITTER", Ignored("tasks that are over are removed one after another, never many at once")),
    ("ECS_EXCLUDE_IPV6_PORTBINDING", Ignored("ports are published on IPv4 alone")),
    ("ECS_EXCLUDE_UNTRACKED_IMAGE", Honoured),
    ("ECS_EXTERNAL", Honoured),
    ("ECS_FSX_WINDOWS_FILE_SERVER_SUPPORTED", Ignored(WINDOWS)),
    ("ECS_GMSA_SUPPORTED", Ignored(NO_GMSA)),
    ("ECS_HOST_DATA_DIR", Honoured),
    ("ECS_IMAGE_CLEANUP_INTERVAL", Honoured),
    ("ECS_IMAGE_MINIMUM_CLEANUP_AGE", Honoured),
    ("ECS_IMAGE_PULL_BEHAVIOR", Honoured),
    ("ECS_IMAGE_PULL_INACTIVITY_TIMEOUT", Honoured),
    ("ECS_IMAGE_PULL_TIMEOUT", Honoured),
    ("ECS_INIT_DOCKER_LOG_FILE_NUM", Ignored(NO_ECS_INIT)),
    ("ECS_INIT_DOCKER_LOG_FILE_SIZE", Ignored(NO_ECS_INIT)),
    ("ECS_INSTANCE_ATTRIBUTES", Honoured),
    ("ECS_INSTANCE_IP_COMPATIBILITY", Ignored("tasks are reached by IPv4; the server by whatever address its name has")),
    ("ECS_LOGFILE", Honoured),
    ("ECS_LOGLEVEL", Honoured),
    ("ECS_LOGLEVEL_ON_INSTANCE", Honoured),
    ("ECS_LOG_DRIVER", Ignored(NO_OWN_CONTAINER)),
    ("ECS_LOG_MAX_FILE_SIZE_MB", Honoured),
    ("ECS_LOG_MAX_ROLL_COUNT", Honoured),
    ("ECS_LOG_OPTS", Ignored(NO_OWN_CONTAINER)),
    ("ECS_LOG_OUTPUT_FORMAT", Honoured),
    ("ECS_LOG_ROLLOVER_TYPE", Honoured),
    (
        "ECS_MANIFEST_PULL_TIMEOUT",
        Ignored("an image's manifest has the time that its pull has, and ECS_IMAGE_PULL_INACTIVITY_TIMEOUT in which nothing comes"),
    ),
    ("ECS_NUM_IMAGES_DELETE_PER_CYCLE", Honoured),
    ("ECS_NVIDIA_RUNTIME", Ignored(NO_GPU)),
    ("ECS_OFFHOST_INTROSPECTION_INTERFACE_NAME", Ignored("introspection is served on loopback, which needs no filter")),
    ("ECS_PAUSE_LABELS", Ignored("tasks have no pause container")),
    ("ECS_POLLING_METRICS_WAIT_DURATION", Ignored(NO_POLLING)),
    ("ECS_POLL_METRICS", Ignored(NO_POLLING)),
    ("ECS_PROPAGATE_TASK_MEMORY_LIMIT_CGROUPV2", Ignored("a task's containers are all in the control group that has its limit")),
    ("ECS_PULL_DEPENDENT_CONTAINERS_UPFRONT", Honoured),
    ("ECS_RESERVED_MEMORY", Honoured),
    ("ECS_RESERVED_PORTS", Honoured),
    ("ECS_RESERVED_PORTS_UDP", Honoured),
    ("ECS_SELINUX_CAPABLE", Honoured),
    ("ECS_SHARED_VOLUME_MATCH_FULL_CONFIG", Honoured),
    ("ECS_SKIP_LOCALHOST_TRAFFIC_FILTER", Ignored(NO_ECS_INIT)),
    ("ECS_TASK_METADATA_RPS_LIMIT", Honoured),
    ("ECS_TASK_PIDS_LIMIT", Honoured),
    ("ECS_UPDATES_ENABLED", Ignored("this agent is updated as it was installed")),
    ("ECS_UPDATE_DOWNLOAD_DIR", Ignored("this agent is updated as it was installed")),
    ("ECS_VOLUME_PLUGIN_CAPABILITIES", Ignored("EFS is mounted by the agent itself, by NFS")),
    ("ECS_WARM_POOLS_CHECK", Ignored(NO_EC2)),
    ("HTTP_PROXY", Honoured),
    ("NONECS_NUM_CONTAINERS_DELETE_PER_CYCLE", Ignored(NO_STRANGERS)),
    ("NON_ECS_IMAGE_MINIMUM_CLEANUP_AGE", Honoured),
    ("NO_PROXY", Honoured),
];

/// Variables that only the process's own environment can set: they are read by libraries, or before there is a file.
const OF_THE_PROCESS: [&str; 3] = ["ECS_AGENT_CONFIG_FILE_PATH", "HTTP_PROXY", "NO_PROXY"];

/// What becomes of a variable, if it is known.
#[must_use]
pub fn find(name: &str) -> Option<Treatment> {
    VARIABLES.iter().find(|(known, _)| *known == name).map(|(_, treatment)| *treatment)
}

/// One line for each thing that is set and has no effect.
pub(super) fn notices(settings: &Settings) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, given) in settings.all() {
        let place = &given.place;
        match find(name) {
            Some(Ignored(reason)) => lines.push(format!("{name} is ignored: {reason} ({place})")),
            Some(Honoured) if OF_THE_PROCESS.contains(&name) && place != "the environment" => {
                lines.push(format!("{name} is ignored: it counts in the agent's own environment alone ({place})"));
            }
            Some(Honoured) => {}
            None => lines.push(format!("{name} is ignored: this agent knows no such variable ({place})")),
        }
    }
    lines.extend(settings.strangers().map(|place| format!("{place} is ignored: this agent knows no such member")));
    lines
}

#[cfg(test)]
mod tests {
    use super::super::layers::Layer;
    use super::*;

    /// Name and the last column of each row of the tables in docs/agent.md.
    fn documented() -> Vec<(&'static str, &'static str)> {
        let text = include_str!("../../../../docs/agent.md");
        let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"));
        rows.filter_map(|row| Some((row.split_once('`')?.0, row.rsplit_once(" | ")?.1))).collect()
    }

    #[test]
    fn the_documentation_lists_the_same_names() {
        let documented = documented();
        let mut names: Vec<_> = documented.iter().map(|(name, _)| *name).collect();
        let known: Vec<_> = VARIABLES.iter().map(|(name, _)| *name).collect();
        assert!(known.is_sorted(), "the table in the code is in order");
        names.sort_unstable();
        assert_eq!(names, known);
        for (name, what) in documented {
            let ignored = matches!(find(name), Some(Ignored(_)));
            assert_eq!(what.starts_with("ignored"), ignored, "{name}: {what}");
        }
    }

    #[test]
    fn what_has_no_effect_is_said_once_with_its_place() {
        let own = [("ECS_CLUSTER", "c"), ("ECS_GMSA_SUPPORTED", "true"), ("ECS_CLUSTRE", "c"), ("PATH", "/bin"), ("HTTP_PROXY", "p")];
        let own = Layer::environment(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let file = Layer::lines("f", "ECS_GMSA_SUPPORTED=false\nMY_OWN=1\nHTTP_PROXY=q\nNO_PROXY=q\nECS_POLL_METRICS=").unwrap();
        let json = Layer::json("j", r#"{"PauseContainerTag": "1"}"#).unwrap();
        let lines = notices(&Settings::default().then(own).then(file).then(json));
        assert_eq!(
            lines,
            [
                "ECS_CLUSTRE is ignored: this agent knows no such variable (the environment)",
                "ECS_GMSA_SUPPORTED is ignored: this agent has no gMSA (the environment)",
                "MY_OWN is ignored: this agent knows no such variable (f, line 2)",
                "NO_PROXY is ignored: it counts in the agent's own environment alone (f, line 4)",
                "j, member PauseContainerTag is ignored: this agent knows no such member",
            ]
        );
    }
}
