//! What the process says of itself while it runs: log lines on stderr, spans to a collector. It decides nothing about either.

use std::io::IsTerminal;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::agent_log::FileLayer;
use crate::failure::Failure;
use crate::span_export::Export;
use crate::span_layer::{Ratio, SpanLayer, TARGET};

/// How log lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs: a JSON object a line, with timestamp, level, target, message and the line's fields.
    Json,
}

/// Settings of what is logged and traced.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct LogSettings {
    /// How log lines on stderr are written
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "text", env = "BERTH_LOG_FORMAT")]
    log_format: LogFormat,
    /// OpenTelemetry collector to send traces to, by OTLP over gRPC, like http://127.0.0.1:4317; the trace of a task has the task's id
    /// [default: none are made]
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_parser = endpoint)]
    otlp_endpoint: Option<String>,
    /// Which part of all traces is sent, from 0 to 1; all servers and agents decide alike
    #[arg(long, value_name = "RATIO", env = "OTEL_TRACES_SAMPLER_ARG", default_value = "1", value_parser = ratio)]
    otlp_ratio: Ratio,
}

/// Keeps what must be ended properly.
pub(crate) struct Log {
    export: Option<Export>,
}

impl Log {
    /// Begins to log, to the agent's file too if there is one, and to trace if there is a collector. Must be called inside of the async runtime, once.
    ///
    /// # Errors
    /// [`Failure`] if traces cannot be sent to such an endpoint.
    pub(crate) fn start(level: LevelFilter, settings: &LogSettings, role: &'static str, file: Option<FileLayer>) -> Result<Self, Failure> {
        let export = match settings.otlp_endpoint.as_deref().filter(|endpoint| !endpoint.is_empty()) {
            Some(endpoint) => Some(Export::start(endpoint, role)?),
            None => None,
        };
        // Libraries below are only interesting when they warn.
        let lines = |level: LevelFilter| {
            let quiet = level.min(LevelFilter::WARN);
            // Nobody makes spans that nobody takes: without a collector they are off where they would be made.
            Targets::new().with_default(quiet).with_target("berth", level).with_target(TARGET, LevelFilter::OFF)
        };
        let file = file.map(|file| {
            let lines = lines(file.level());
            file.with_filter(lines)
        });
        let lines = lines(level);
        let written = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let written = match settings.log_format {
            LogFormat::Text => written.with_ansi(std::io::stderr().is_terminal()).boxed(),
            LogFormat::Json => written.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
        };
        match &export {
            None if file.is_none() => tracing_subscriber::registry().with(written).with(lines).init(),
            export => {
                let spans = export.as_ref().map(|export| SpanLayer::new(export.clone(), settings.otlp_ratio));
                let spans = spans.map(|spans| spans.with_filter(Targets::new().with_target(TARGET, LevelFilter::TRACE)));
                tracing_subscriber::registry().with(written.with_filter(lines)).with(file).with(spans).init();
            }
        }
        Ok(Self { export })
    }

    /// Sends the last spans.
    pub(crate) fn finish(self) {
        if let Some(export) = self.export {
            export.finish();
        }
    }
}

/// An empty value counts as none, as OpenTelemetry has it for all its variables.
fn endpoint(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
    match rest {
        _ if text.is_empty() => Ok(String::new()),
        Some(rest) if !rest.is_empty() => Ok(text.to_owned()),
        _ if text.starts_with("https://") => {
            Err("Berth speaks to a collector without TLS: run one on this machine, like http://127.0.0.1:4317".to_owned())
        }
        _ => Err("a collector's URL looks like http://127.0.0.1:4317".to_owned()),
    }
}

fn ratio(text: &str) -> Result<Ratio, String> {
    let part = if text.is_empty() { Ok(1.0) } else { text.parse::<f64>() };
    part.ok().filter(|part| (0.0..=1.0).contains(part)).map(Ratio::new).ok_or_else(|| "a ratio is a number from 0 to 1".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        assert_eq!(endpoint("http://127.0.0.1:4317").as_deref(), Ok("http://127.0.0.1:4317"));
        assert_eq!(endpoint("").as_deref(), Ok(""), "an empty variable is none");
        for (text, hint) in [("https://collector:4317", "without TLS"), ("127.0.0.1:4317", "looks like"), ("http://", "looks like")] {
            let error = endpoint(text).unwrap_err();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }

    #[test]
    fn ratios() {
        assert_eq!(ratio(""), Ok(Ratio::new(1.0)));
        assert_eq!(ratio("0.25"), Ok(Ratio::new(0.25)));
        for text in ["2", "-0.1", "NaN", "all"] {
            assert!(ratio(text).is_err(), "{text}");
        }
    }
}
