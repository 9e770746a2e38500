//! `portMappings`: the ports that a container publishes, one by one or as ranges, and how those that are published are told. Pure.

use berth_acs::messages as acs;
use berth_network::port::{PortBinding, PortRequest, Protocol};

/// A `containerPortRange`: its ports are published on as many ports of the machine, one after the other.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_PortMapping.html>
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// The first port inside.
    pub first: u16,
    /// The last port inside.
    pub last: u16,
    /// Their protocol.
    pub protocol: Protocol,
}

impl PortRange {
    /// How many ports follow the first.
    #[must_use]
    pub const fn following(&self) -> u16 {
        self.last - self.first
    }

    /// The request of each of its ports, on the machine's ports from `host` on.
    pub fn requests(self, host: u16) -> impl Iterator<Item = PortRequest> {
        (0..=self.following()).map(move |step| PortRequest {
            container_port: self.first + step,
            host_port: Some(host + step),
            protocol: self.protocol,
        })
    }

    /// The first of the machine's ports on which all of it is published, if that is so.
    #[must_use]
    pub fn host(&self, bindings: &[PortBinding]) -> Option<u16> {
        let published = |host: u16| {
            let is_there = |request: PortRequest| bindings.iter().any(|binding| is_of(binding, &request));
            host.checked_add(self.following()).is_some() && self.requests(host).all(is_there)
        };
        let firsts = bindings.iter().filter(|binding| (binding.container_port, binding.protocol) == (self.first, self.protocol));
        firsts.map(|binding| binding.host_port).find(|host| published(*host))
    }
}

fn is_of(binding: &PortBinding, request: &PortRequest) -> bool {
    (binding.container_port, binding.protocol, Some(binding.host_port)) == (request.container_port, request.protocol, request.host_port)
}

/// What is published, as ECS is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// One port.
    Port(PortBinding),
    /// A range, on the machine's ports from this one on.
    Range(PortRange, u16),
}

/// One entry for each port and for each range, ranges last, as the official agent has it (`agent/api/statechange.go`).
#[must_use]
pub fn published(bindings: &[PortBinding], ranges: &[PortRange]) -> Vec<Published> {
    let mut single = bindings.to_vec();
    let mut whole = Vec::new();
    for range in ranges {
        // A range of which a part is missing is told port by port: what is there is not hidden.
        if let Some(host) = range.host(&single) {
            for request in range.requests(host) {
                single.retain(|binding| !is_of(binding, &request));
            }
            whole.push(Published::Range(*range, host));
        }
    }
    single.into_iter().map(Published::Port).chain(whole).collect()
}

/// The port mappings of a container, or what of them is none.
pub(super) fn mapped(container: &acs::Container) -> Result<(Vec<PortRequest>, Vec<PortRange>), String> {
    let (mut ports, mut ranges) = (Vec::new(), Vec::new());
    for mapping in &container.port_mappings {
        let protocol = match mapping.protocol.as_str() {
            "" | "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            other => return Err(format!("port mapping protocol {other} is neither tcp nor udp")),
        };
        if mapping.container_port == 0 && !mapping.container_port_range.is_empty() {
            ranges.push(range(&mapping.container_port_range, protocol)?);
            continue;
        }
        let container_port = u16::try_from(mapping.container_port).ok().filter(|port| *port != 0);
        let container_port = container_port.ok_or_else(|| format!("containerPort {} is no port", mapping.container_port))?;
        let host_port = u16::try_from(mapping.host_port).map_err(|_| format!("hostPort {} is no port", mapping.host_port))?;
        ports.push(PortRequest { container_port, host_port: Some(host_port).filter(|port| *port != 0), protocol });
    }
    Ok((ports, ranges))
}

/// `80-90`; one port is a range of one, as with Docker.
fn range(text: &str, protocol: Protocol) -> Result<PortRange, String> {
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port != 0);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let ends = port(first).zip(port(last)).filter(|(first, last)| first <= last);
    let (first, last) = ends.ok_or_else(|| format!("containerPortRange '{text}' is no range of ports like 80-90"))?;
    Ok(PortRange { first, last, protocol })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mappings(list: &[(i64, &str, &str)]) -> Result<(Vec<PortRequest>, Vec<PortRange>), String> {
        let one = |(port, range, protocol): &(i64, &str, &str)| acs::PortMapping {
            container_port: *port,
            container_port_range: (*range).to_owned(),
            protocol: (*protocol).to_owned(),
            ..Default::default()
        };
        mapped(&acs::Container { port_mappings: list.iter().map(one).collect(), ..Default::default() })
    }

    fn binding(container_port: u16, host_port: u16, protocol: Protocol) -> PortBinding {
        PortBinding { container_port, host_port, protocol }
    }

    #[test]
    fn ports_and_ranges_are_told_apart() {
        let (ports, ranges) = mappings(&[(80, "", "tcp"), (0, "8000-8010", "udp"), (0, "9000", "")]).unwrap();
        assert_eq!(ports, [PortRequest { container_port: 80, host_port: None, protocol: Protocol::Tcp }]);
        let wanted = [
            PortRange { first: 8000, last: 8010, protocol: Protocol::Udp },
            PortRange { first: 9000, last: 9000, protocol: Protocol::Tcp },
        ];
        assert_eq!(ranges, wanted);
        for text in ["9-8", "0-8", "a-b", "1-65536", "-", "80-"] {
            assert_eq!(mappings(&[(0, text, "tcp")]).unwrap_err(), format!("containerPortRange '{text}' is no range of ports like 80-90"));
        }
        assert_eq!(mappings(&[(0, "1-2", "sctp")]).unwrap_err(), "port mapping protocol sctp is neither tcp nor udp");
    }

    #[test]
    fn a_range_is_told_as_one_and_what_is_broken_port_by_port() {
        let range = PortRange { first: 80, last: 82, protocol: Protocol::Tcp };
        // The same port inside on UDP, and once more on another port of the machine, belongs to other mappings.
        let others = [binding(80, 41_000, Protocol::Udp), binding(81, 42_000, Protocol::Tcp), binding(80, 43_000, Protocol::Tcp)];
        let own: Vec<_> = range.requests(40_000).map(|r| binding(r.container_port, r.host_port.unwrap(), r.protocol)).collect();
        let all: Vec<_> = others.iter().chain(&own).copied().collect();
        let told = published(&all, &[range]);
        let singles = others.map(Published::Port);
        assert_eq!(told, [&singles[..], &[Published::Range(range, 40_000)]].concat());
        assert_eq!(range.host(&all[..all.len() - 1]), None);
        assert_eq!(published(&own[..2], &[range]), [Published::Port(own[0]), Published::Port(own[1])]);
        let top = PortRange { first: 1, last: 2, protocol: Protocol::Tcp };
        assert_eq!(top.host(&[binding(1, u16::MAX, Protocol::Tcp)]), None, "nothing follows the last port");
        assert_eq!(published(&[], &[range]), []);
    }
}
