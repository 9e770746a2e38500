//! What a command that failed says at the very end, and with which exit code. Errors below know their own layer; the advice
//! what to do next is added here.

use std::io;

use crate::client::ClientError;
use crate::connection::ConnectionError;
use crate::data_dir::NoHome;

/// Exit code of a command that was understood and failed.
pub(crate) const FAILED: u8 = 1;
/// Exit code where an argument or setting is wrong, the same as clap's.
pub(crate) const BAD_ARGUMENTS: u8 = 2;

/// The end of a command that failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// To be told.
    Said {
        /// What went wrong.
        message: String,
        /// What to do next.
        advice: Option<String>,
        /// The exit code.
        code: u8,
    },
    /// It was told to stop by a signal, and has.
    Interrupted {
        /// The exit code, 128 and the signal's number, as shells have it.
        code: u8,
    },
    /// Whoever read the output has seen enough (`berth logs x | head`); that is no failure of anybody.
    OutputClosed,
}

impl Failure {
    pub fn new(message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Said { message: message.into(), advice: Some(advice.into()), code: FAILED }
    }

    pub fn bad_arguments(message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Said { message: message.into(), advice: Some(advice.into()), code: BAD_ARGUMENTS }
    }

    /// As printed on stderr; `None` where there is nothing to say.
    pub fn render(&self) -> Option<String> {
        match self {
            Self::OutputClosed | Self::Interrupted { .. } => None,
            Self::Said { message, advice: None, .. } => Some(format!("error: {message}\n")),
            Self::Said { message, advice: Some(advice), .. } => Some(format!("error: {message}\n  {}\n", advice.replace('\n', "\n  "))),
        }
    }

    pub fn code(&self) -> u8 {
        match self {
            Self::Said { code, .. } | Self::Interrupted { code } => *code,
            Self::OutputClosed => 0,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::OutputClosed;
        }
        Self::Said { message: format!("cannot write the output: {error}"), advice: None, code: FAILED }
    }
}

impl From<NoHome> for Failure {
    fn from(error: NoHome) -> Self {
        Self::bad_arguments(error.to_string(), "name the data directory with --data-dir DIR")
    }
}

impl From<ConnectionError> for Failure {
    fn from(error: ConnectionError) -> Self {
        let advice = error.advice();
        let code = if error.is_setting() { BAD_ARGUMENTS } else { FAILED };
        Self::Said { message: error.to_string(), advice: Some(advice), code }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Said { message: error.to_string(), advice: error.advice(), code: FAILED }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_to_do() {
        let failure = Failure::bad_arguments("AWS_ENDPOINT_URL is no URL: x", "first\nsecond");
        assert_eq!(failure.render().unwrap(), "error: AWS_ENDPOINT_URL is no URL: x\n  first\n  second\n");
        assert_eq!(failure.code(), 2);
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.render(), failure.code()), (None, 0));
        let failure = Failure::from(io::Error::from(io::ErrorKind::StorageFull));
        assert!(failure.render().unwrap().starts_with("error: cannot write the output: "));
    }
}
