//! What a container is told of the endpoint: its own name there, and where it is.

use std::net::{Ipv4Addr, SocketAddrV4};

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
        let credentials = Some(&container.credentials_id).filter(|id| !id.is_empty()).map(|id| {
            let path = format!("/v2/credentials/{id}");
            match container.wiring {
                // SDKs take whole URLs without TLS for loopback alone.
                Wiring::Host => ("AWS_CONTAINER_CREDENTIALS_FULL_URI".to_owned(), format!("http://{}{path}", on_loopback(answered_at))),
                _ => ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI".to_owned(), path),
            }
        });
        let variable = |name: &str, path: &str| (name.to_owned(), format!("http://{place}/{path}/{id}"));
        let mut variables = vec![
            variable("ECS_CONTAINER_METADATA_URI", "v3"),
            variable("ECS_CONTAINER_METADATA_URI_V4", "v4"),
            variable("ECS_AGENT_URI", "api"),
        ];
        variables.extend(credentials);
        variables
    }
}

/// Where programs in the machine's own network ask for credentials: the loopback address that has the rest of the bridge's. So several agents of
/// a machine, whose bridges differ, are not in each other's way.
#[must_use]
pub fn on_loopback(answered_at: SocketAddrV4) -> SocketAddrV4 {
    let [_, b, c, d] = answered_at.ip().octets();
    SocketAddrV4::new(Ipv4Addr::new(127, b, c, d), answered_at.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bridge_has_a_loopback_address_of_its_own() {
        let place = |ip: &str| on_loopback(SocketAddrV4::new(ip.parse().unwrap(), 51679)).to_string();
        assert_eq!(place("172.20.0.1"), "127.20.0.1:51679");
        assert_ne!(place("172.21.0.1"), place("172.20.0.1"));
    }
}
