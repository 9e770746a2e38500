//! What a container is told of the endpoint: its own name there, and where it is.

use std::net::SocketAddrV4;

use berth_network::metadata::ASKED;

use crate::entropy::Chance;
use crate::plan::{ContainerPlan, Wiring};

/// Where containers are told to ask. The default is nowhere.
#[derive(Debug, Clone, Default)]
pub struct Endpoint {
    answered_at: Option<SocketAddrV4>,
    chance: Chance,
}

impl Endpoint {
    /// An endpoint that is answered somewhere on this machine ([`berth_network::port::Network::metadata`]); names are drawn of `chance`.
    #[must_use]
    pub fn new(answered_at: Option<SocketAddrV4>, chance: Chance) -> Self {
        Self { answered_at, chance }
    }

    /// A name for a container that nobody can guess, in the form of Fargate's: 32 hexadecimal digits and a number of ten. Empty where
    /// there is no endpoint.
    #[must_use]
    pub fn draw(&self) -> String {
        if self.answered_at.is_none() {
            return String::new();
        }
        let number = (self.chance.unit() * f64::from(u32::MAX)) as u32;
        format!("{}-{number:010}", self.chance.uuid().replace('-', ""))
    }

    /// The variables by which a container finds what it may ask; none if it cannot reach it.
    #[must_use]
    pub fn variables(&self, container: &ContainerPlan) -> Vec<(String, String)> {
        let id = &container.endpoint_id;
        let Some(answered_at) = self.answered_at.filter(|_| !id.is_empty()) else { return Vec::new() };
        let place = match container.wiring {
            // Only a loopback: a URL that leads nowhere would make SDKs wait.
            Wiring::Isolated => return Vec::new(),
            // In the machine's own network nobody can tell whose container asks, so that each agent names its own place.
            Wiring::Host => answered_at.to_string(),
            Wiring::Bridge | Wiring::Interface => ASKED.ip().to_string(),
        };
        let variable = |name: &str, path: &str| (name.to_owned(), format!("http://{place}/{path}/{id}"));
        vec![
            variable("ECS_CONTAINER_METADATA_URI", "v3"),
            variable("ECS_CONTAINER_METADATA_URI_V4", "v4"),
            variable("ECS_AGENT_URI", "api"),
        ]
    }
}
