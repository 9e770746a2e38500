//! The agent protocol, which Amazon's own container agent speaks and so does Berth's: ACS (tasks down, acknowledgements up) and
//! TCS (telemetry up). Both sides are here. It must never know the store, nor decide what runs where.

pub mod client;
pub mod messages;
pub mod query;
pub mod reconnect;
pub mod refusal;
pub mod server;
pub mod server_socket;
mod socket;
pub mod telemetry_framing;

pub use client::{AgentConnection, ConnectError, DialOptions, Dialer, Dialled, TelemetryConnection, Wire};
pub use messages::{AgentFrame, FrameError, MAX_FRAME, ServerFrame, TelemetryAnswer, TelemetryFrame};
pub use query::{AcsQuery, TelemetryQuery};
pub use refusal::{Refusal, RefusalKind};
pub use server::{Effect, ServerSession, SessionOptions, Subject, Tick};
pub use server_socket::{ServerConnection, TelemetryServerConnection};
pub use socket::{SocketError, WireClose};
