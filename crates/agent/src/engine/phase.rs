//! Where one container is in its life. Each phase holds only what it has.

use std::net::Ipv4Addr;

use berth_network::port::{Attachment, PortBinding};
use berth_runtime::port::Exit;
use serde::{Deserialize, Serialize};

use super::{Health, Millis};
use crate::sources::Fetched;

/// A container that has its image and its network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prepared {
    /// Digest of its image's manifest.
    pub image_digest: String,
    /// Its network; none in the machine's own.
    pub attachment: Option<Attachment>,
    /// What was fetched for it; never kept on disk, since preparations are made again after a restart.
    #[serde(skip)]
    pub fetched: Fetched,
}

/// A container that was started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Digest of its image's manifest; unknown if it was found running and nothing had been written of it.
    pub image_digest: Option<String>,
    /// Its published ports.
    pub bindings: Vec<PortBinding>,
    /// Its address on the bridge, for those that link to it.
    #[serde(default)]
    pub address: Option<Ipv4Addr>,
    /// When it was made; 0 if nobody knows.
    #[serde(default)]
    pub created_at: Millis,
    /// When its program began, the last time.
    pub started_at: Millis,
    /// How often it was started again by its restart policy.
    #[serde(default)]
    pub restarts: u32,
    /// What its health check says; without one it stays unknown.
    #[serde(default)]
    pub health: Health,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Exit code; 128 + signal number if a signal ended it.
    pub code: i32,
    /// The kernel ended it for memory.
    pub oom_killed: bool,
    /// When.
    pub at: Millis,
}

impl From<Exit> for ExitRecord {
    fn from(exit: Exit) -> Self {
        Self { code: exit.code, oom_killed: exit.oom_killed, at: crate::clock::unix_millis(exit.at) }
    }
}

/// How far a container came that was never started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reached {
    /// Nowhere.
    Nothing,
    /// Its image was here.
    Image(String),
    /// It was made, of this image.
    Created(String),
}

/// How a container's life ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Ended {
    /// Its program ended.
    Exited {
        /// What it was.
        run: Run,
        /// How it ended.
        exit: ExitRecord,
    },
    /// It was started, and nobody can say how it ended.
    Lost {
        /// What it was.
        run: Run,
        /// What is known.
        reason: String,
    },
    /// It was never started.
    NeverStarted {
        /// How far it came.
        reached: Reached,
        /// Why not; none if the task was stopped before.
        reason: Option<String>,
    },
}

/// Where a container is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Phase {
    /// Nothing is done.
    Waiting,
    /// Its image is being pulled and its network made.
    Preparing,
    /// Image and network are there.
    Prepared(Prepared),
    /// Preparations are being taken back.
    Cancelling {
        /// How far it had come.
        reached: Reached,
        /// Why; none if the task was stopped.
        reason: Option<String>,
    },
    /// It is being made and started.
    Launching {
        /// Digest of its image's manifest.
        image_digest: String,
    },
    /// It runs.
    Running(Run),
    /// It runs and was told to stop.
    Stopping {
        /// What it is.
        run: Run,
        /// When it was told so.
        asked_at: Millis,
        /// How often it was killed.
        kills: u8,
    },
    /// Its program has ended, and what follows is not decided.
    Exited(Ended),
    /// It is being started again.
    Restarting {
        /// What it was.
        run: Run,
        /// How its program ended.
        exit: ExitRecord,
    },
    /// Its life is over, and its network is being taken back.
    Releasing(Ended),
    /// Its life is over.
    Stopped(Ended),
}

impl Phase {
    /// What it is or was, if it was started.
    #[must_use]
    pub const fn run(&self) -> Option<&Run> {
        match self {
            Self::Running(run)
            | Self::Stopping { run, .. }
            | Self::Restarting { run, .. }
            | Self::Exited(Ended::Exited { run, .. } | Ended::Lost { run, .. })
            | Self::Releasing(Ended::Exited { run, .. } | Ended::Lost { run, .. })
            | Self::Stopped(Ended::Exited { run, .. } | Ended::Lost { run, .. }) => Some(run),
            _ => None,
        }
    }

    /// How its life ended, if it will not be started again.
    #[must_use]
    pub const fn ended(&self) -> Option<&Ended> {
        match self {
            Self::Releasing(ended) | Self::Stopped(ended) => Some(ended),
            _ => None,
        }
    }

    /// It was started, and its life is not over; between two lives it is neither.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        matches!(self, Self::Running(_) | Self::Stopping { .. } | Self::Exited(_) | Self::Restarting { .. })
    }

    /// Its life is over and nothing of it holds a port.
    #[must_use]
    pub const fn is_stopped(&self) -> bool {
        matches!(self, Self::Stopped(_))
    }

    /// It runs, or is over: nothing more will be started.
    #[must_use]
    pub const fn is_past_start(&self) -> bool {
        self.is_up() || self.ended().is_some()
    }
}
