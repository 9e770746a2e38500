//! The agent's log file, beside what goes to stderr: amazon-ecs-agent's lines (`ecs-agent/logger/log.go`), as logfmt or JSON.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use berth_agent::config::log::{AgentLog, LogLevel, OutputFormat};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer};

use crate::failure::Failure;
use crate::rolling_file::RollingFile;

/// Where Amazon's packages have the agent's log.
pub(crate) const DEFAULT_FILE: &str = "/var/log/ecs/ecs-agent.log";

/// What writes the file: a layer below the process's log.
pub(crate) struct FileLayer {
    file: RollingFile,
    format: OutputFormat,
    level: LevelFilter,
}

impl FileLayer {
    /// Opens the file that is wanted, if any; `default` where none is named. What goes wrong with the default is only said.
    ///
    /// # Errors
    /// [`Failure`] if the file that was named cannot be written.
    pub(crate) fn open(log: &AgentLog, default: Option<&Path>, notices: &mut Vec<String>) -> Result<Option<Self>, Failure> {
        let level = level_filter(log.file_level);
        let Some(path) = log.file.as_deref().or(default).filter(|_| level != LevelFilter::OFF) else { return Ok(None) };
        match RollingFile::open(PathBuf::from(path), log.rollover, log.most_rolls, SystemTime::now()) {
            Ok(file) => Ok(Some(Self { file, format: log.format, level })),
            Err(error) if log.file.is_none() => {
                notices.push(format!("no log file is written (ECS_LOGFILE sets another): {}: {error}", path.display()));
                Ok(None)
            }
            Err(error) => Err(Failure::Configuration(format!("ECS_LOGFILE: {}: {error}", path.display()))),
        }
    }

    /// How much goes to the file.
    pub(crate) const fn level(&self) -> LevelFilter {
        self.level
    }
}

/// Amazon's words for the log's.
pub(crate) const fn level_filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::None => LevelFilter::OFF,
        LogLevel::Crit | LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    }
}

impl<S: Subscriber> Layer<S> for FileLayer {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let now = SystemTime::now();
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let level = metadata.level().as_str().to_ascii_lowercase();
        self.file.write(render(self.format, &level, now, metadata.target(), fields).as_bytes(), now);
    }
}

/// An event's message and other fields, in their order.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.others.push((field.name(), format!("{value:?}").into()));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.others.push((field.name(), value.into()));
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.others.push((field.name(), value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.others.push((field.name(), value.into()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.others.push((field.name(), value.into()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.others.push((field.name(), value.into()));
    }
}

/// A line with its end.
fn render(format: OutputFormat, level: &str, now: SystemTime, target: &str, fields: Fields) -> String {
    let time = jiff::Timestamp::try_from(now).unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let Fields { message, others } = fields;
    match format {
        OutputFormat::Logfmt => {
            let mut line = format!("level={level} time={time} msg={message:?}");
            for (name, value) in others {
                line.push_str(&format!(" {name}={}", quoted(&value)));
            }
            line.push_str(&format!(" module={target}\n"));
            line
        }
        OutputFormat::Json => {
            let mut object = Map::new();
            for (name, value) in others {
                object.insert(name.to_owned(), value);
            }
            // After the others: these names are the log's own.
            for (name, value) in [("level", level), ("time", &time), ("msg", &message), ("module", target)] {
                object.insert(name.to_owned(), value.into());
            }
            format!("{}\n", Value::Object(object))
        }
    }
}

/// A value that a reader of logfmt takes for one.
fn quoted(value: &Value) -> String {
    match value {
        Value::String(text)
            if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '=')) =>
        {
            format!("{text:?}")
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: OutputFormat) -> String {
        let others = vec![("task", "arn:x".into()), ("error", "a \"b\"\nc".into()), ("count", 3.into()), ("level", "no".into())];
        let fields = Fields { message: "it is \"so\"".to_owned(), others };
        render(format, "warn", SystemTime::UNIX_EPOCH, "berth_agent::tasks", fields)
    }

    #[test]
    fn one_line_whatever_is_in_it() {
        assert_eq!(
            line(OutputFormat::Logfmt),
            "level=warn time=1970-01-01T00:00:00Z msg=\"it is \\\"so\\\"\" task=arn:x error=\"a \\\"b\\\"\\nc\" count=3 level=no module=berth_agent::tasks\n"
        );
        let json: Value = serde_json::from_str(&line(OutputFormat::Json)).unwrap();
        let wanted = serde_json::json!({
            "level": "warn", "time": "1970-01-01T00:00:00Z", "msg": "it is \"so\"", "module": "berth_agent::tasks",
            "task": "arn:x", "error": "a \"b\"\nc", "count": 3,
        });
        assert_eq!(json, wanted);
        assert_eq!(line(OutputFormat::Json).matches('\n').count(), 1);
    }
}
