//! amazon-ecs-agent's environment variables.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use berth_identity::AccessKey;
use berth_identity::keys::Secret;
use berth_runtime::port::PullBehavior;
use serde::de::DeserializeOwned;

use super::log::AgentLog;
use super::{
    ACCESS_POINTS, AgentConfig, ConfigError, DNS, DNS_UPSTREAM, DnsSettings, EfsSettings, FILE_SYSTEMS, INTROSPECTION_PORT,
    PUBLIC_ADDRESSES,
};
use crate::capabilities::{self, Announced};
use crate::registry_logins::RegistryLogins;
use crate::sources::ServiceEndpoints;

const SECOND: Duration = Duration::from_secs(1);
/// The least that the official agent takes for `ECS_CONTAINER_START_TIMEOUT`.
const LEAST_START: Duration = Duration::from_secs(45);
/// The least that the official agent takes for `ECS_CONTAINER_CREATE_TIMEOUT`.
const LEAST_CREATE: Duration = Duration::from_secs(60);

/// The least that the official agent takes for `ECS_IMAGE_PULL_INACTIVITY_TIMEOUT`.
const LEAST_PULL_INACTIVITY: Duration = Duration::from_secs(60);
/// The most processes that the kernel has room for, and that the official agent takes for `ECS_TASK_PIDS_LIMIT`.
const MOST_PIDS: u32 = 4 * 1024 * 1024;

/// The variables by name, each read in its own notation; every reading names the variable in its error.
pub(super) struct Variables<'a> {
    get: &'a dyn Fn(&str) -> Option<String>,
    /// What was taken otherwise than it was given, a line each.
    notes: RefCell<Vec<String>>,
}

/// The settings, and what was taken otherwise than it was given.
pub(super) fn read(get: &dyn Fn(&str) -> Option<String>) -> Result<(AgentConfig, AgentLog, Vec<String>), ConfigError> {
    let variables = Variables::new(get);
    let default = AgentConfig::default();
    let cluster = variables.text("ECS_CLUSTER");
    let mut config = AgentConfig {
        create_cluster: cluster.is_none(),
        cluster: cluster.unwrap_or(default.cluster),
        backend: variables.text("ECS_BACKEND_HOST").map(with_scheme).unwrap_or_default(),
        region: variables.text("AWS_DEFAULT_REGION").unwrap_or_default(),
        data_dir: variables.data_dir().unwrap_or(default.data_dir),
        checkpoint: variables.truth("ECS_CHECKPOINT")?.unwrap_or(true),
        docker_host: variables.text("DOCKER_HOST"),
        attributes: variables
            .json::<BTreeMap<String, Option<String>>>("ECS_INSTANCE_ATTRIBUTES")?
            .unwrap_or_default()
            .into_iter()
            .map(|(name, value)| (name, value.filter(|value| !value.is_empty())))
            .collect(),
        os_family_detailed: variables.text("ECS_DETAILED_OS_FAMILY"),
        announced: variables.announced()?,
        tags: variables.json("ECS_CONTAINER_INSTANCE_TAGS")?.unwrap_or_default(),
        reserved_memory_mib: variables.parsed("ECS_RESERVED_MEMORY", "a number of MiB")?.unwrap_or(0),
        reserved_ports: variables.json("ECS_RESERVED_PORTS")?.unwrap_or(default.reserved_ports),
        reserved_ports_udp: variables.json("ECS_RESERVED_PORTS_UDP")?.unwrap_or_default(),
        dynamic_host_ports: variables.ports("ECS_DYNAMIC_HOST_PORT_RANGE")?,
        pull_behavior: variables.pull_behavior()?,
        images: super::images::read(&variables)?,
        pull_timeout: variables.at_least("ECS_IMAGE_PULL_TIMEOUT", SECOND)?.unwrap_or(default.pull_timeout),
        pull_inactivity: variables.at_least("ECS_IMAGE_PULL_INACTIVITY_TIMEOUT", LEAST_PULL_INACTIVITY)?.unwrap_or(default.pull_inactivity),
        pull_dependent_upfront: variables.truth("ECS_PULL_DEPENDENT_CONTAINERS_UPFRONT")?.unwrap_or(true),
        registry_logins: variables.registry_logins()?,
        container_metadata: variables.flag("ECS_ENABLE_CONTAINER_METADATA")?,
        match_shared_volumes: variables.truth("ECS_SHARED_VOLUME_MATCH_FULL_CONFIG")?.unwrap_or(true),
        container_stop_timeout: variables.at_least("ECS_CONTAINER_STOP_TIMEOUT", SECOND)?.unwrap_or(default.container_stop_timeout),
        container_create_timeout: variables
            .at_least("ECS_CONTAINER_CREATE_TIMEOUT", LEAST_CREATE)?
            .unwrap_or(default.container_create_timeout),
        container_start_timeout: variables.at_least("ECS_CONTAINER_START_TIMEOUT", LEAST_START)?.unwrap_or(default.container_start_timeout),
        task_pids_limit: variables.task_pids_limit()?,
        cleanup_wait: variables.duration("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION")?.unwrap_or(default.cleanup_wait),
        metrics: !variables.flag("ECS_DISABLE_METRICS")?,
        metadata: super::metadata::read(&variables)?,
        introspection: variables.introspection()?,
        ..AgentConfig::default()
    };
    config.service_endpoints = ServiceEndpoints {
        all: variables.text("AWS_ENDPOINT_URL"),
        ssm: variables.text("AWS_ENDPOINT_URL_SSM"),
        secrets_manager: variables.text("AWS_ENDPOINT_URL_SECRETS_MANAGER"),
        s3: variables.text("AWS_ENDPOINT_URL_S3"),
        ecr: variables.text("AWS_ENDPOINT_URL_ECR"),
    };
    config.sources_key = variables.sources_key()?;
    config.dns = DnsSettings::parse(variables.text(DNS).as_deref(), variables.text(DNS_UPSTREAM).as_deref())?;
    config.fargate = variables.truth("BERTH_FARGATE")?;
    config.task_shortcuts = variables.truth("BERTH_TASK_SHORTCUTS")?.unwrap_or(true);
    config.public_addresses = super::public_addresses::parse(variables.text(PUBLIC_ADDRESSES).as_deref())?;
    config.efs = EfsSettings::parse(variables.text(FILE_SYSTEMS).as_deref(), variables.text(ACCESS_POINTS).as_deref())?;
    config.access_key.id = variables.text("AWS_ACCESS_KEY_ID").unwrap_or_default();
    config.access_key.secret = Secret::new(variables.text("AWS_SECRET_ACCESS_KEY").unwrap_or_default());
    config.access_key.session_token = variables.text("AWS_SESSION_TOKEN").map(Secret::new);
    if config.cleanup_wait < SECOND {
        return Err(ConfigError { name: "ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", problem: "must be 1s or more".to_owned() });
    }
    let log = super::log::read(&variables)?;
    Ok((config, log, variables.notes.into_inner()))
}

/// As the official agent does: a host without a scheme is spoken to over TLS.
/// Several servers may be named, with commas between; the official agent knows one.
fn with_scheme(hosts: String) -> String {
    let one =
        |host: &str| if host.starts_with("http://") || host.starts_with("https://") { host.to_owned() } else { format!("https://{host}") };
    hosts.split(',').map(|host| one(host.trim())).collect::<Vec<_>>().join(",")
}

impl<'a> Variables<'a> {
    pub(super) fn new(get: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { get, notes: RefCell::default() }
    }
}

impl Variables<'_> {
    pub(super) fn text(&self, name: &str) -> Option<String> {
        (self.get)(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    fn note(&self, line: String) {
        self.notes.borrow_mut().push(line);
    }

    fn json<T: DeserializeOwned>(&self, name: &'static str) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| ConfigError { name, problem: format!("'{text}' is not the JSON wanted: {error}") })
    }

    pub(super) fn parsed<T: std::str::FromStr>(&self, name: &'static str, what: &str) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| ConfigError { name, problem: format!("'{text}' is not {what}") })
    }

    /// A truth value as Go's `strconv.ParseBool` takes it; none if it is not set.
    fn truth(&self, name: &'static str) -> Result<Option<bool>, ConfigError> {
        match self.text(name).as_deref() {
            None => Ok(None),
            Some("false" | "0" | "f" | "F" | "FALSE" | "False") => Ok(Some(false)),
            Some("true" | "1" | "t" | "T" | "TRUE" | "True") => Ok(Some(true)),
            Some(other) => Err(ConfigError { name, problem: format!("'{other}' is neither true nor false") }),
        }
    }

    pub(super) fn flag(&self, name: &'static str) -> Result<bool, ConfigError> {
        self.truth(name).map(Option::unwrap_or_default)
    }

    /// One of a few words; the first one if it is not set.
    pub(super) fn one_of<T: Copy>(&self, name: &'static str, words: &[(&str, T)]) -> Result<T, ConfigError> {
        let Some(text) = self.text(name) else { return Ok(words[0].1) };
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        let known = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        found.ok_or_else(|| ConfigError { name, problem: format!("'{text}' is none of {}", known()) })
    }

    /// A duration that the official agent raises to the least that it takes.
    fn at_least(&self, name: &'static str, least: Duration) -> Result<Option<Duration>, ConfigError> {
        let given = self.duration(name)?;
        if given.is_some_and(|given| given < least) {
            self.note(format!("{name} is taken as {}s, the least that it may be", least.as_secs()));
        }
        Ok(given.map(|given| given.max(least)))
    }

    /// `FIRST-LAST`.
    fn ports(&self, name: &'static str) -> Result<Option<RangeInclusive<u16>>, ConfigError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let ends = text.split_once('-').and_then(|(first, last)| Some((first.trim().parse().ok()?, last.trim().parse().ok()?)));
        let range = ends.map(|(first, last): (u16, u16)| first..=last).filter(|range| !range.is_empty() && *range.start() > 0);
        range.map(Some).ok_or_else(|| ConfigError { name, problem: format!("'{text}' is not a range of ports like 32768-60999") })
    }

    /// `ECS_DATADIR`, else where ecs-init has the official agent's: this agent is in no container, so the host's folder is its own.
    fn data_dir(&self) -> Option<PathBuf> {
        let of_host = || self.text("ECS_HOST_DATA_DIR").map(|dir| PathBuf::from(dir).join("data"));
        self.text("ECS_DATADIR").map(PathBuf::from).or_else(of_host)
    }

    /// What the instance says of itself, beyond what runtime and agent know.
    fn announced(&self) -> Result<Announced, ConfigError> {
        const DRIVERS: &str = "ECS_AVAILABLE_LOGGING_DRIVERS";
        let drivers: Option<Vec<String>> = self.json(DRIVERS)?;
        for driver in drivers.iter().flatten() {
            match driver.as_str() {
                known if capabilities::LOGGING_DRIVERS.contains(&known) => {}
                known if capabilities::DRIVERS_OF_OTHERS.contains(&known) => {
                    self.note(format!("{DRIVERS}: {known} is not announced: this agent has no such driver"));
                }
                other => return Err(ConfigError { name: DRIVERS, problem: format!("'{other}' is no logging driver of ECS") }),
            }
        }
        Ok(Announced {
            logging_drivers: drivers,
            privileged: !self.flag("ECS_DISABLE_PRIVILEGED")?,
            selinux: self.truth("ECS_SELINUX_CAPABLE")?,
            apparmor: self.truth("ECS_APPARMOR_CAPABLE")?,
            task_roles: self.truth("ECS_ENABLE_TASK_IAM_ROLE")?.unwrap_or(true),
            task_roles_host: self.truth("ECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST")?.unwrap_or(true),
            task_limits: self.truth("ECS_ENABLE_TASK_CPU_MEM_LIMIT")?.unwrap_or(true),
            health_checks: !self.flag("ECS_DISABLE_DOCKER_HEALTH_CHECK")?,
            external: self.truth("ECS_EXTERNAL")?.unwrap_or(true),
        })
    }

    /// Where introspection is served: loopback, all addresses, elsewhere, or nowhere.
    fn introspection(&self) -> Result<Option<SocketAddr>, ConfigError> {
        const NAME: &str = "BERTH_INTROSPECTION";
        let everywhere = self.flag("ECS_ALLOW_OFFHOST_INTROSPECTION_ACCESS")?;
        match self.text(NAME).as_deref() {
            None if everywhere => Ok(Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, INTROSPECTION_PORT)))),
            None => Ok(Some(SocketAddr::from((Ipv4Addr::LOCALHOST, INTROSPECTION_PORT)))),
            Some("off") => Ok(None),
            Some(text) => {
                text.parse().map(Some).map_err(|_| ConfigError { name: NAME, problem: format!("'{text}' is neither ADDRESS:PORT nor off") })
            }
        }
    }

    /// Logins of registries. The value is never repeated: it holds passwords.
    fn registry_logins(&self) -> Result<RegistryLogins, ConfigError> {
        const NAME: &str = "ECS_ENGINE_AUTH_DATA";
        let (kind, data) = (self.text("ECS_ENGINE_AUTH_TYPE"), self.text(NAME));
        match (kind, data) {
            (Some(kind), Some(data)) => RegistryLogins::parse(&kind, &data).map_err(|problem| ConfigError { name: NAME, problem }),
            (None, Some(_)) => Err(ConfigError { name: NAME, problem: "is set, and ECS_ENGINE_AUTH_TYPE is not".to_owned() }),
            (Some(kind), None) => {
                RegistryLogins::parse(&kind, "{}").map_err(|problem| ConfigError { name: "ECS_ENGINE_AUTH_TYPE", problem })
            }
            (None, None) => Ok(RegistryLogins::default()),
        }
    }

    pub(super) fn duration(&self, name: &'static str) -> Result<Option<Duration>, ConfigError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        parse_duration(&text)
            .map(Some)
            .ok_or_else(|| ConfigError { name, problem: format!("'{text}' is not a duration like 30s or 1h30m") })
    }

    /// A key for parameters, secrets and environment files, where these are kept by somebody who does not know this agent's own.
    fn sources_key(&self) -> Result<Option<AccessKey>, ConfigError> {
        const SECRET: &str = "BERTH_SOURCES_SECRET_ACCESS_KEY";
        let Some(id) = self.text("BERTH_SOURCES_ACCESS_KEY_ID") else { return Ok(None) };
        let missing = || ConfigError { name: SECRET, problem: "is not set, and BERTH_SOURCES_ACCESS_KEY_ID is".to_owned() };
        let mut key = AccessKey::long_term(id, self.text(SECRET).ok_or_else(missing)?, "");
        key.session_token = self.text("BERTH_SOURCES_SESSION_TOKEN").map(Secret::new);
        Ok(Some(key))
    }

    fn task_pids_limit(&self) -> Result<Option<u32>, ConfigError> {
        const NAME: &str = "ECS_TASK_PIDS_LIMIT";
        let Some(text) = self.text(NAME) else { return Ok(None) };
        let limit = text.parse().ok().filter(|limit| (1..=MOST_PIDS).contains(limit));
        limit.map(Some).ok_or_else(|| ConfigError { name: NAME, problem: format!("'{text}' is not a number from 1 to {MOST_PIDS}") })
    }

    fn pull_behavior(&self) -> Result<PullBehavior, ConfigError> {
        match self.text("ECS_IMAGE_PULL_BEHAVIOR").as_deref() {
            None | Some("default") => Ok(PullBehavior::Default),
            Some("always") => Ok(PullBehavior::Always),
            Some("once") => Ok(PullBehavior::Once),
            Some("prefer-cached") => Ok(PullBehavior::PreferCached),
            Some(other) => Err(ConfigError {
                name: "ECS_IMAGE_PULL_BEHAVIOR",
                problem: format!("'{other}' is none of default, always, once, prefer-cached"),
            }),
        }
    }
}

/// Go's notation: numbers with the units `ns`, `us`, `ms`, `s`, `m`, `h`, one after the other.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest[..digits].parse().ok()?;
        let after = &rest[digits..];
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        total += number
            * match &after[..end] {
                "ns" => 1e-9,
                "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &after[end..];
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(total).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::super::images::{Budget, ImageConfig};
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Result<AgentConfig, ConfigError> {
        let pairs: BTreeMap<String, String> = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        read(&|name| pairs.get(name).cloned()).map(|(config, _, _)| config)
    }

    #[test]
    fn nothing_set_gives_the_official_defaults() {
        let config = config(&[]).unwrap();
        assert!(config.create_cluster && config.cluster == "default");
        assert_eq!(config.reserved_ports, [22, 2375, 2376, 51678, 51679]);
        assert_eq!((config.container_stop_timeout.as_secs(), config.cleanup_wait.as_secs()), (30, 10800));
        assert_eq!(config.check().unwrap_err().name, "ECS_BACKEND_HOST");
    }

    #[test]
    fn all_that_can_be_set() {
        let config = config(&[
            ("ECS_CLUSTER", "c"),
            ("ECS_BACKEND_HOST", "10.0.0.5:4566"),
            ("AWS_DEFAULT_REGION", "eu-central-1"),
            ("AWS_ACCESS_KEY_ID", "AKIA"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_SESSION_TOKEN", "token"),
            ("ECS_DATADIR", "/srv/agent"),
            ("ECS_INSTANCE_ATTRIBUTES", r#"{"stack":"prod","plain":"","none":null}"#),
            ("ECS_CONTAINER_INSTANCE_TAGS", r#"{"a":"b"}"#),
            ("ECS_RESERVED_MEMORY", "256"),
            ("ECS_RESERVED_PORTS", "[22]"),
            ("ECS_RESERVED_PORTS_UDP", "[53]"),
            ("ECS_IMAGE_PULL_BEHAVIOR", "prefer-cached"),
            ("ECS_CONTAINER_STOP_TIMEOUT", "1m30s"),
            ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "1500ms"),
            ("ECS_DISABLE_METRICS", "true"),
            ("AWS_ENDPOINT_URL_SSM", "http://127.0.0.1:1"),
            ("BERTH_SOURCES_ACCESS_KEY_ID", "minio"),
            ("BERTH_SOURCES_SECRET_ACCESS_KEY", "minio-secret"),
        ])
        .unwrap();
        assert!(!config.create_cluster && !config.metrics);
        assert_eq!(config.backend, "https://10.0.0.5:4566");
        assert_eq!(with_scheme("http://a:1, b".to_owned()), "http://a:1,https://b");
        assert_eq!(config.attributes["stack"].as_deref(), Some("prod"));
        assert_eq!((config.attributes["plain"].as_deref(), config.attributes["none"].as_deref()), (None, None));
        assert_eq!((config.reserved_ports, config.reserved_ports_udp, config.reserved_memory_mib), (vec![22], vec![53], 256));
        assert_eq!(config.container_stop_timeout, Duration::from_secs(90));
        assert_eq!(config.cleanup_wait, Duration::from_millis(1500));
        assert_eq!(config.pull_behavior, PullBehavior::PreferCached);
        assert_eq!(config.service_endpoints.ssm.as_deref(), Some("http://127.0.0.1:1"));
        assert_eq!(config.sources_key.unwrap().id, "minio");
    }

    #[test]
    fn images_stay_as_the_official_agent_has_it() {
        assert_eq!(config(&[]).unwrap().images, ImageConfig::default());
        let images = config(&[
            ("ECS_DISABLE_IMAGE_CLEANUP", "true"),
            ("ECS_IMAGE_CLEANUP_INTERVAL", "10m"),
            ("ECS_IMAGE_MINIMUM_CLEANUP_AGE", "0s"),
            ("NON_ECS_IMAGE_MINIMUM_CLEANUP_AGE", "2h"),
            ("ECS_NUM_IMAGES_DELETE_PER_CYCLE", "7"),
            ("ECS_ENABLE_UNTRACKED_IMAGE_CLEANUP", "true"),
            ("ECS_EXCLUDE_UNTRACKED_IMAGE", "alpine:latest, base:1,"),
            ("BERTH_IMAGE_DISK_BUDGET", "3GiB"),
            ("BERTH_PREPULL_IMAGES", "app:1,base:1"),
        ]);
        let images = images.unwrap().images;
        assert!(!images.is_cleaned_up && images.are_untracked_removed);
        assert_eq!((images.cleanup_interval.as_secs(), images.minimum_age.as_secs()), (600, 0));
        assert_eq!((images.untracked_minimum_age.as_secs(), images.most_per_cycle), (7200, 7));
        assert_eq!(
            (images.excluded, images.prepulled),
            (vec!["alpine:latest".into(), "base:1".into()], vec!["app:1".into(), "base:1".into()])
        );
        assert_eq!(images.budget, Budget::Bytes(3 << 30));
        // Too little is ignored, as the official agent does; Berth's own interval is what it says.
        for too_little in [("ECS_IMAGE_CLEANUP_INTERVAL", "9m59s"), ("ECS_NUM_IMAGES_DELETE_PER_CYCLE", "0")] {
            assert_eq!(config(&[too_little]).unwrap().images, ImageConfig::default());
        }
        let ours = config(&[("BERTH_IMAGE_CLEANUP_INTERVAL", "500ms"), ("ECS_IMAGE_CLEANUP_INTERVAL", "1h")]).unwrap();
        assert_eq!(ours.images.cleanup_interval, Duration::from_millis(500));
    }

    #[test]
    fn what_cannot_be_read_names_its_variable() {
        for (name, value) in [
            ("ECS_RESERVED_MEMORY", "much"),
            ("ECS_RESERVED_PORTS", "22"),
            ("ECS_IMAGE_PULL_BEHAVIOR", "never"),
            ("ECS_CONTAINER_STOP_TIMEOUT", "30"),
            ("ECS_INSTANCE_ATTRIBUTES", "{"),
            ("ECS_DISABLE_METRICS", "perhaps"),
            ("BERTH_IMAGE_DISK_BUDGET", "0%"),
            ("BERTH_IMAGE_CLEANUP_INTERVAL", "0s"),
            ("ECS_NUM_IMAGES_DELETE_PER_CYCLE", "many"),
            ("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", "10ms"),
            ("ECS_DYNAMIC_HOST_PORT_RANGE", "9-8"),
            ("ECS_DYNAMIC_HOST_PORT_RANGE", "0-8"),
            ("ECS_TASK_PIDS_LIMIT", "0"),
            ("ECS_TASK_PIDS_LIMIT", "4194305"),
            ("ECS_TASK_PIDS_LIMIT", "-1"),
            ("ECS_AVAILABLE_LOGGING_DRIVERS", r#"["paper"]"#),
            ("ECS_ENGINE_AUTH_DATA", "{}"),
            ("ECS_ENGINE_AUTH_TYPE", "gpg"),
            ("ECS_SELINUX_CAPABLE", "2"),
            ("BERTH_INTROSPECTION", "51678"),
            ("BERTH_DNS", "53"),
            ("BERTH_DNS_UPSTREAM", "dns"),
            ("BERTH_TASK_SHORTCUTS", "sometimes"),
        ] {
            let error = config(&[(name, value)]).unwrap_err();
            assert_eq!(error.name, name);
            assert!(error.to_string().starts_with(name), "{error}");
        }
    }

    #[test]
    fn what_the_instance_says_of_itself() {
        let default = config(&[]).unwrap();
        assert_eq!(default.announced, Announced::default());
        assert_eq!(default.introspection, Some("127.0.0.1:51678".parse().unwrap()));
        let config = config(&[
            ("ECS_AVAILABLE_LOGGING_DRIVERS", r#"["json-file","awslogs"]"#),
            ("ECS_DISABLE_PRIVILEGED", "true"),
            ("ECS_SELINUX_CAPABLE", "true"),
            ("ECS_APPARMOR_CAPABLE", "false"),
            ("ECS_ENABLE_TASK_CPU_MEM_LIMIT", "false"),
            ("ECS_ENABLE_TASK_IAM_ROLE", "false"),
            ("ECS_ENABLE_TASK_IAM_ROLE_NETWORK_HOST", "false"),
            ("ECS_DISABLE_DOCKER_HEALTH_CHECK", "true"),
            ("ECS_EXTERNAL", "false"),
            ("ECS_ALLOW_OFFHOST_INTROSPECTION_ACCESS", "true"),
            ("ECS_DYNAMIC_HOST_PORT_RANGE", "40000-40010"),
            ("ECS_HOST_DATA_DIR", "/srv/ecs"),
            ("ECS_CHECKPOINT", "false"),
            ("BERTH_TASK_SHORTCUTS", "false"),
            ("ECS_PULL_DEPENDENT_CONTAINERS_UPFRONT", "false"),
            ("ECS_SHARED_VOLUME_MATCH_FULL_CONFIG", "false"),
            ("ECS_IMAGE_PULL_TIMEOUT", "10m"),
            ("ECS_IMAGE_PULL_INACTIVITY_TIMEOUT", "90s"),
            ("ECS_TASK_PIDS_LIMIT", "4194304"),
            ("ECS_ENGINE_AUTH_TYPE", "docker"),
            ("ECS_ENGINE_AUTH_DATA", r#"{"r.test":{"username":"u","password":"p"}}"#),
        ])
        .unwrap();
        let announced = Announced {
            logging_drivers: Some(vec!["json-file".into(), "awslogs".into()]),
            privileged: false,
            selinux: Some(true),
            apparmor: Some(false),
            task_roles: false,
            task_roles_host: false,
            task_limits: false,
            health_checks: false,
            external: false,
        };
        assert_eq!(config.announced, announced);
        assert_eq!(config.introspection, Some("0.0.0.0:51678".parse().unwrap()));
        assert_eq!(config.dynamic_host_ports, Some(40000..=40010));
        assert_eq!(config.data_dir, PathBuf::from("/srv/ecs/data"));
        assert_eq!((default.task_shortcuts, config.task_shortcuts), (true, false));
        assert!(!config.checkpoint && !config.pull_dependent_upfront && !config.match_shared_volumes);
        assert_eq!((config.pull_timeout, config.pull_inactivity), (Duration::from_secs(600), Duration::from_secs(90)));
        assert_eq!((config.task_pids_limit, default.task_pids_limit), (Some(4_194_304), None));
        assert_eq!(config.registry_logins.of("r.test/x").unwrap().username, "u");
    }

    #[test]
    fn what_is_below_the_least_is_raised_and_said() {
        let given = |name: &str| match name {
            "ECS_CONTAINER_START_TIMEOUT" | "ECS_CONTAINER_CREATE_TIMEOUT" => Some("1s".to_owned()),
            "ECS_CONTAINER_STOP_TIMEOUT" => Some("1000000000ns".to_owned()),
            "ECS_IMAGE_PULL_INACTIVITY_TIMEOUT" => Some("59s".to_owned()),
            "ECS_AVAILABLE_LOGGING_DRIVERS" => Some(r#"["json-file","syslog"]"#.to_owned()),
            "BERTH_INTROSPECTION" => Some("off".to_owned()),
            _ => None,
        };
        let (config, _, notes) = read(&given).unwrap();
        assert_eq!((config.container_start_timeout.as_secs(), config.container_create_timeout.as_secs()), (45, 60));
        assert_eq!((config.container_stop_timeout, config.pull_inactivity.as_secs()), (SECOND, 60));
        assert_eq!(config.introspection, None);
        assert_eq!(notes.len(), 4, "{notes:?}");
        assert!(notes[0].contains("syslog is not announced"), "{notes:?}");
    }
}
