//! Why Berth does not start, or ends with an error. Printed once, on stderr; it names the setting at fault.

use std::process::ExitCode;

/// An error for people.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A setting cannot be used.
    #[error("{setting}: {problem}")]
    Setting {
        /// Which.
        setting: &'static str,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// What the agent is told cannot be read; the text names file, line and variable.
    #[error("{0}")]
    Configuration(String),
    /// A part of Berth cannot start.
    #[error("{part}: {problem}")]
    Part {
        /// Which.
        part: &'static str,
        /// What is wrong, and what to do.
        problem: String,
    },
}

impl Failure {
    pub(crate) fn setting(setting: &'static str, problem: impl Into<String>) -> Self {
        Self::Setting { setting, problem: problem.into() }
    }

    pub(crate) fn part(part: &'static str, problem: impl ToString) -> Self {
        Self::Part { part, problem: problem.to_string() }
    }

    /// 2 for settings, as for bad arguments; 1 for the rest.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Setting { .. } | Self::Configuration(_) => ExitCode::from(2),
            Self::Part { .. } => ExitCode::FAILURE,
        }
    }
}
