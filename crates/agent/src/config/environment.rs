//! amazon-ecs-agent's environment variables.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use berth_identity::AccessKey;
use berth_identity::keys::Secret;
use berth_runtime::port::PullBehavior;
use serde::de::DeserializeOwned;

use super::{AgentConfig, ConfigError};
use crate::sources::ServiceEndpoints;

/// The environment, with errors that name the variable.
pub(super) struct Variables<'a>(&'a dyn Fn(&str) -> Option<String>);

pub(super) fn read(get: &dyn Fn(&str) -> Option<String>) -> Result<AgentConfig, ConfigError> {
    let variables = Variables(get);
    let default = AgentConfig::default();
    let cluster = variables.text("ECS_CLUSTER");
    let mut config = AgentConfig {
        create_cluster: cluster.is_none(),
        cluster: cluster.unwrap_or(default.cluster),
        backend: variables.text("ECS_BACKEND_HOST").map(with_scheme).unwrap_or_default(),
        region: variables.text("AWS_DEFAULT_REGION").unwrap_or_default(),
        data_dir: variables.text("ECS_DATADIR").map_or(default.data_dir, PathBuf::from),
        attributes: variables
            .json::<BTreeMap<String, Option<String>>>("ECS_INSTANCE_ATTRIBUTES")?
            .unwrap_or_default()
            .into_iter()
            .map(|(name, value)| (name, value.filter(|value| !value.is_empty())))
            .collect(),
        tags: variables.json("ECS_CONTAINER_INSTANCE_TAGS")?.unwrap_or_default(),
        reserved_memory_mib: variables.parsed("ECS_RESERVED_MEMORY", "a number of MiB")?.unwrap_or(0),
        reserved_ports: variables.json("ECS_RESERVED_PORTS")?.unwrap_or(default.reserved_ports),
        reserved_ports_udp: variables.json("ECS_RESERVED_PORTS_UDP")?.unwrap_or_default(),
        pull_behavior: variables.pull_behavior()?,
        images: super::images::read(&variables)?,
        container_stop_timeout: variables.duration("ECS_CONTAINER_STOP_TIMEOUT")?.unwrap_or(default.container_stop_timeout),
        container_create_timeout: variables.duration("ECS_CONTAINER_CREATE_TIMEOUT")?.unwrap_or(default.container_create_timeout),
        container_start_timeout: variables.duration("ECS_CONTAINER_START_TIMEOUT")?.unwrap_or(default.container_start_timeout),
        cleanup_wait: variables.duration("ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION")?.unwrap_or(default.cleanup_wait),
        metrics: !variables.flag("ECS_DISABLE_METRICS")?,
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
    config.access_key.id = variables.text("AWS_ACCESS_KEY_ID").unwrap_or_default();
    config.access_key.secret = Secret::new(variables.text("AWS_SECRET_ACCESS_KEY").unwrap_or_default());
    config.access_key.session_token = variables.text("AWS_SESSION_TOKEN").map(Secret::new);
    if config.cleanup_wait < Duration::from_secs(1) {
        return Err(ConfigError { name: "ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION", problem: "must be 1s or more".to_owned() });
    }
    Ok(config)
}

/// As the official agent does: a host without a scheme is spoken to over TLS.
/// Several servers may be named, with commas between; the official agent knows one.
fn with_scheme(hosts: String) -> String {
    let one =
        |host: &str| if host.starts_with("http://") || host.starts_with("https://") { host.to_owned() } else { format!("https://{host}") };
    hosts.split(',').map(|host| one(host.trim())).collect::<Vec<_>>().join(",")
}

impl Variables<'_> {
    pub(super) fn text(&self, name: &str) -> Option<String> {
        (self.0)(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
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

    pub(super) fn flag(&self, name: &'static str) -> Result<bool, ConfigError> {
        match self.text(name).as_deref() {
            None | Some("false" | "0" | "f" | "FALSE" | "False") => Ok(false),
            Some("true" | "1" | "t" | "TRUE" | "True") => Ok(true),
            Some(other) => Err(ConfigError { name, problem: format!("'{other}' is neither true nor false") }),
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

/// Go's notation: numbers with the units `ms`, `s`, `m`, `h`, one after the other.
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
        AgentConfig::from_env(&|name| pairs.get(name).cloned())
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
        ] {
            let error = config(&[(name, value)]).unwrap_err();
            assert_eq!(error.name, name);
            assert!(error.to_string().starts_with(name), "{error}");
        }
    }
}
