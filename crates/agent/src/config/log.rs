//! How the agent writes its log: amazon-ecs-agent's `ECS_LOG*` variables, parsed. Writes nothing itself.

use std::path::PathBuf;

use super::ConfigError;
use super::environment::Variables;

/// Most megabytes that a log file may have before it is rotated: nobody reads a larger one.
const MOST_FILE_MB: f64 = 10_000.0;
/// Most rotated files that may be kept.
const MOST_ROLLS: usize = 10_000;

/// `ECS_LOGLEVEL`'s words; those beyond the official agent's are not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// `none`: nothing.
    None,
    /// `crit`: what ends the agent; this one logs such things as errors, so the two are the same.
    Crit,
    /// `error`
    Error,
    /// `warn`
    Warn,
    /// `info`
    Info,
    /// `debug`
    Debug,
}

/// `ECS_LOG_ROLLOVER_TYPE`: when a new file is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rollover {
    /// When the file would become larger than this many bytes.
    Size(u64),
    /// At every full hour (UTC).
    Hourly,
}

/// `ECS_LOG_OUTPUT_FORMAT`: what a line of the file looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputFormat {
    /// `level=info time=2026-01-01T00:00:00Z msg="..." name=value`
    Logfmt,
    /// A JSON object with the same members.
    Json,
}

/// Where and how the agent's log is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentLog {
    /// `ECS_LOGLEVEL`: how much goes to stderr; none if it is not set.
    pub level: Option<LogLevel>,
    /// `ECS_LOGFILE`; none if it is not set. Whether there is a default is for whoever starts the agent to say.
    pub file: Option<PathBuf>,
    /// `ECS_LOGLEVEL_ON_INSTANCE`, else `ECS_LOGLEVEL`, else info: how much goes to the file.
    pub file_level: LogLevel,
    /// When a new file is begun.
    pub rollover: Rollover,
    /// `ECS_LOG_MAX_ROLL_COUNT`: how many rotated files are kept besides the one that is written.
    pub most_rolls: usize,
    /// What a line looks like.
    pub format: OutputFormat,
}

pub(super) fn read(variables: &Variables<'_>) -> Result<AgentLog, ConfigError> {
    let level = level(variables, "ECS_LOGLEVEL")?;
    let megabytes = variables.parsed("ECS_LOG_MAX_FILE_SIZE_MB", "a number of megabytes")?.unwrap_or(5.0);
    if !(megabytes > 0.0 && megabytes <= MOST_FILE_MB) {
        let problem = format!("'{megabytes}' is not more than 0 and at most {MOST_FILE_MB}");
        return Err(ConfigError { name: "ECS_LOG_MAX_FILE_SIZE_MB", problem });
    }
    let most_rolls = variables.parsed("ECS_LOG_MAX_ROLL_COUNT", "a number of files")?.unwrap_or(24);
    if most_rolls > MOST_ROLLS {
        return Err(ConfigError { name: "ECS_LOG_MAX_ROLL_COUNT", problem: format!("'{most_rolls}' is more than {MOST_ROLLS}") });
    }
    // A megabyte is a million bytes, as for the official agent.
    let bytes = (megabytes * 1_000_000.0) as u64;
    Ok(AgentLog {
        level,
        file: variables.text("ECS_LOGFILE").map(PathBuf::from),
        file_level: self::level(variables, "ECS_LOGLEVEL_ON_INSTANCE")?.or(level).unwrap_or(LogLevel::Info),
        rollover: variables.one_of("ECS_LOG_ROLLOVER_TYPE", &[("size", Rollover::Size(bytes)), ("hourly", Rollover::Hourly)])?,
        most_rolls,
        format: variables.one_of("ECS_LOG_OUTPUT_FORMAT", &[("logfmt", OutputFormat::Logfmt), ("json", OutputFormat::Json)])?,
    })
}

fn level(variables: &Variables<'_>, name: &'static str) -> Result<Option<LogLevel>, ConfigError> {
    let Some(text) = variables.text(name) else { return Ok(None) };
    let level = match text.to_ascii_lowercase().as_str() {
        "none" => LogLevel::None,
        "crit" => LogLevel::Crit,
        "error" => LogLevel::Error,
        "warn" => LogLevel::Warn,
        "info" => LogLevel::Info,
        "debug" => LogLevel::Debug,
        _ => return Err(ConfigError { name, problem: format!("'{text}' is none of none, crit, error, warn, info, debug") }),
    };
    Ok(Some(level))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(pairs: &[(&str, &str)]) -> Result<AgentLog, ConfigError> {
        read(&Variables::new(&|name| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())))
    }

    #[test]
    fn the_official_defaults() {
        let log = log(&[]).unwrap();
        let defaults = AgentLog {
            level: None,
            file: None,
            file_level: LogLevel::Info,
            rollover: Rollover::Size(5_000_000),
            most_rolls: 24,
            format: OutputFormat::Logfmt,
        };
        assert_eq!(log, defaults);
    }

    #[test]
    fn all_of_them() {
        let log = log(&[
            ("ECS_LOGLEVEL", "Debug"),
            ("ECS_LOGLEVEL_ON_INSTANCE", "none"),
            ("ECS_LOGFILE", "/l"),
            ("ECS_LOG_ROLLOVER_TYPE", "hourly"),
            ("ECS_LOG_MAX_ROLL_COUNT", "0"),
            ("ECS_LOG_OUTPUT_FORMAT", "json"),
            ("ECS_LOG_MAX_FILE_SIZE_MB", "0.5"),
        ])
        .unwrap();
        let wanted = AgentLog {
            level: Some(LogLevel::Debug),
            file: Some("/l".into()),
            file_level: LogLevel::None,
            rollover: Rollover::Hourly,
            most_rolls: 0,
            format: OutputFormat::Json,
        };
        assert_eq!(log, wanted);
        assert_eq!(
            super::read(&Variables::new(&|name| (name == "ECS_LOGLEVEL").then(|| "warn".into()))).unwrap().file_level,
            LogLevel::Warn
        );
    }

    #[test]
    fn what_cannot_be_read() {
        for (name, value) in [
            ("ECS_LOGLEVEL", "trace"),
            ("ECS_LOGLEVEL_ON_INSTANCE", "loud"),
            ("ECS_LOG_ROLLOVER_TYPE", "daily"),
            ("ECS_LOG_OUTPUT_FORMAT", "xml"),
            ("ECS_LOG_MAX_FILE_SIZE_MB", "0"),
            ("ECS_LOG_MAX_FILE_SIZE_MB", "NaN"),
            ("ECS_LOG_MAX_ROLL_COUNT", "-1"),
            ("ECS_LOG_MAX_ROLL_COUNT", "99999999"),
        ] {
            assert_eq!(log(&[(name, value)]).unwrap_err().name, name, "{value}");
        }
    }
}
