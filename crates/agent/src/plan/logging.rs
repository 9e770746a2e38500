//! `logConfiguration`: what of a log driver's options this agent honours, and how much of a container's output it keeps.
//!
//! Whatever the driver, output is kept in files of this machine, where `berth logs` finds it. With `awslogs` the options are checked as
//! Docker's driver checks them, and the group and stream that they name are how `berth logs --group` finds the lines; there is no log
//! service that they are sent to. Options that are secrets (`secretOptions`) are checked once they are here.

use std::collections::BTreeMap;

use berth_acs::messages::HostConfig;

use super::docker::parse_size;

/// Docker's `awslogs` options, and those of every driver.
/// <https://docs.docker.com/engine/logging/drivers/awslogs/>
const AWSLOGS: [&str; 14] = [
    "awslogs-create-group",
    "awslogs-create-stream",
    "awslogs-credentials-endpoint",
    "awslogs-datetime-format",
    "awslogs-endpoint",
    "awslogs-force-flush-interval-seconds",
    "awslogs-format",
    "awslogs-group",
    "awslogs-max-buffered-events",
    "awslogs-multiline-pattern",
    "awslogs-region",
    "awslogs-stream",
    "awslogs-stream-prefix",
    "tag",
];
/// Of every driver.
const COMMON: [&str; 2] = ["mode", "max-buffer-size"];

/// A log driver some of whose options are secrets, which are not here before the container is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogDriver {
    kind: String,
    options: BTreeMap<String, String>,
    default: u64,
}

impl LogDriver {
    /// The driver of a container; none where it names none. `default` is how many bytes are kept where the driver does not say.
    pub(super) fn of(host: &HostConfig, default: u64) -> Option<Self> {
        let log = host.log_config.as_ref().filter(|log| !log.kind.is_empty())?;
        Some(Self { kind: log.kind.clone(), options: log.config.clone(), default })
    }

    /// Most bytes of output to keep, with the options that were fetched, which are stronger: the official agent puts them in last
    /// (`agent/engine/docker_task_engine.go`).
    ///
    /// # Errors
    /// What is wrong with the options, in Docker's words; a secret's value is not among them.
    pub fn limit(&self, secret: &BTreeMap<String, String>) -> Result<u64, String> {
        let mut options = self.options.clone();
        options.extend(secret.iter().map(|(name, value)| (name.clone(), value.clone())));
        limit(&self.kind, &options, self.default).map_err(|problem| {
            let names = || secret.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            match secret.values().any(|value| !value.is_empty() && problem.contains(value.as_str())) {
                true => format!("logConfiguration: log driver {} does not take the value of one of secretOptions {}", self.kind, names()),
                false => problem,
            }
        })
    }
}

/// Most bytes of output to keep, by the log driver; `default` where the driver does not say.
fn limit(kind: &str, options: &BTreeMap<String, String>, default: u64) -> Result<u64, String> {
    match kind {
        "none" => Ok(0),
        "json-file" => json_file(options, default),
        "awslogs" => awslogs(options).map(|()| default),
        other => Err(format!("log driver {other} is not supported by this agent")),
    }
}

fn json_file(options: &BTreeMap<String, String>, default: u64) -> Result<u64, String> {
    let Some(size) = options.get("max-size") else { return Ok(default) };
    let size = parse_size(size).ok_or_else(|| format!("logConfiguration: max-size '{size}' is no size"))?;
    let files = options.get("max-file").map_or(Ok(1), |text| text.parse::<u64>());
    let files = files.map_err(|_| "logConfiguration: max-file is no number".to_owned())?;
    Ok(size.saturating_mul(files.max(1)))
}

/// Checks the options of `awslogs`, in Docker's words.
fn awslogs(options: &BTreeMap<String, String>) -> Result<(), String> {
    let given = |name: &str| options.get(name).map(String::as_str).filter(|value| !value.is_empty());
    if let Some(unknown) = options.keys().find(|name| !AWSLOGS.contains(&name.as_str()) && !COMMON.contains(&name.as_str())) {
        return Err(format!("unknown log opt '{unknown}' for awslogs log driver"));
    }
    if given("awslogs-group").is_none() {
        return Err("must specify a value for log opt 'awslogs-group'".to_owned());
    }
    for name in ["awslogs-create-group", "awslogs-create-stream"] {
        if let Some(value) =
            given(name).filter(|value| !matches!(*value, "true" | "false" | "1" | "0" | "t" | "f" | "TRUE" | "FALSE" | "True" | "False"))
        {
            return Err(format!("must specify valid value for log opt '{name}': '{value}' is neither true nor false"));
        }
    }
    if given("awslogs-datetime-format").is_some() && given("awslogs-multiline-pattern").is_some() {
        return Err("you cannot configure log opt 'awslogs-datetime-format' and 'awslogs-multiline-pattern' at the same time".to_owned());
    }
    match given("mode") {
        None | Some("blocking" | "non-blocking") => {}
        Some(other) => return Err(format!("logger: log mode {other} is not supported")),
    }
    match given("max-buffer-size").map(|size| (size, parse_size(size))) {
        Some(_) if given("mode") != Some("non-blocking") => {
            Err("logger: max-buffer-size option is only supported with 'mode=non-blocking'".to_owned())
        }
        Some((size, None)) => Err(format!("error parsing option max-buffer-size: invalid size: '{size}'")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use berth_acs::messages::LogConfig;

    use super::*;

    fn limited(kind: &str, options: &[(&str, &str)]) -> Result<u64, String> {
        let config = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        driver(kind, config).limit(&BTreeMap::new())
    }

    fn driver(kind: &str, config: BTreeMap<String, String>) -> LogDriver {
        let host = HostConfig { log_config: Some(LogConfig { kind: kind.to_owned(), config }), ..HostConfig::default() };
        LogDriver::of(&host, 7).unwrap()
    }

    #[test]
    fn options_that_are_secret_count_and_are_not_repeated() {
        let options = |list: &[(&str, &str)]| list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let file = driver("json-file", options(&[("max-size", "1m"), ("max-file", "2")]));
        assert_eq!(file.limit(&BTreeMap::new()), Ok(2 << 20));
        assert_eq!(file.limit(&options(&[("max-size", "3m")])), Ok(6 << 20), "the secret is stronger");
        let refused = file.limit(&options(&[("max-size", "hunter2")])).unwrap_err();
        assert!(refused.contains("max-size") && refused.contains("json-file") && !refused.contains("hunter2"), "{refused}");
        let group = driver("awslogs", options(&[("awslogs-region", "r")]));
        assert!(group.limit(&BTreeMap::new()).unwrap_err().contains("awslogs-group"));
        assert_eq!(group.limit(&options(&[("awslogs-group", "/secret/group")])), Ok(7));
        assert!(group.limit(&options(&[("splunk-token", "t0")])).unwrap_err().contains("'splunk-token'"), "an option's name is no secret");
    }

    #[test]
    fn how_much_is_kept() {
        assert_eq!(LogDriver::of(&HostConfig::default(), 7), None);
        assert_eq!(limited("none", &[]), Ok(0));
        assert_eq!(limited("json-file", &[]), Ok(7));
        assert_eq!(limited("json-file", &[("max-size", "1m"), ("max-file", "3")]), Ok(3 << 20));
        assert_eq!(limited("awslogs", &[("awslogs-group", "g"), ("awslogs-region", "r"), ("awslogs-stream-prefix", "p")]), Ok(7));
        assert_eq!(limited("awslogs", &[("awslogs-group", "g"), ("mode", "non-blocking"), ("max-buffer-size", "25m")]), Ok(7));
    }

    #[test]
    fn what_docker_would_refuse() {
        let group = ("awslogs-group", "g");
        for (options, words) in [
            (&[][..], "'awslogs-group'"),
            (&[group, ("awslogs-colour", "red")], "unknown log opt 'awslogs-colour'"),
            (&[group, ("awslogs-create-group", "yes")], "'awslogs-create-group'"),
            (&[group, ("awslogs-datetime-format", "%Y"), ("awslogs-multiline-pattern", "^a")], "at the same time"),
            (&[group, ("mode", "sometimes")], "log mode sometimes"),
            (&[group, ("max-buffer-size", "1m")], "mode=non-blocking"),
            (&[group, ("mode", "non-blocking"), ("max-buffer-size", "much")], "invalid size: 'much'"),
        ] {
            let error = limited("awslogs", options).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        assert!(limited("splunk", &[]).unwrap_err().contains("splunk"));
    }
}
