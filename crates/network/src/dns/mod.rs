//! The DNS server of a container instance: answers for the namespaces of service discovery, and forwards everything else.
//!
//! [`verdict`] decides what comes of a request, from a [`Table`] and randomness alone; [`Server`] has the sockets; [`Upstreams`] says who
//! is asked for names of others. Nothing here knows where a table comes from, and nothing of containers or tasks.

mod forward;
mod probe;
mod random;
mod reply;
mod server;
mod table;
mod tcp;
mod upstream;
mod verdict;

pub use probe::answers_inside;
pub use random::Random;
pub use server::{CurrentTable, Server, ServerConfig};
pub use table::{Answer, Record, Routing, Table, Zone};
pub use upstream::{Upstreams, name_servers};
pub use verdict::{Chase, MAX_MULTIVALUE_ANSWERS, NEGATIVE_TTL, Transport, Verdict, verdict};
