//! Host ports for `containerPortRange`: as many as the range has, one after the other, from the dynamic range. The choice is pure; what is
//! chosen the network publishes, all or none, and says which port somebody else has.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use berth_network::port::{AttachmentId, Network, NetworkError, PortBinding, PortRequest, Protocol};
use tokio::sync::Mutex;

use crate::plan::{Blueprint, PortRange};

/// The kernel's usual ephemeral range, where nobody says what the machine's is.
const USUAL: RangeInclusive<u16> = 32_768..=60_999;

/// Why ports were not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// There are not as many free ports one after the other. The first words are the official agent's (`agent/api/task/task.go`,
    /// `agent/utils/ephemeral_ports.go`).
    #[error(
        "HostConfigError: error retrieving docker port map: {count} contiguous host ports are unavailable in the dynamic host port range \
         {first}-{last}"
    )]
    NoContiguousPorts {
        /// How many are wanted.
        count: u32,
        /// First port of the dynamic range.
        first: u16,
        /// Last port of the dynamic range.
        last: u16,
    },
    /// The network refuses.
    #[error("CannotStartContainerError: {0}")]
    Network(#[from] NetworkError),
}

/// Chooses host ports for ranges.
#[derive(Debug)]
pub struct PortRanges {
    dynamic: RangeInclusive<u16>,
    /// Where the next search begins, so that a port comes again as late as possible. Held from choice to publication: two containers that
    /// start at once choose different ports.
    next: Mutex<u16>,
}

impl PortRanges {
    /// Chooses from `dynamic`; from the kernel's usual ephemeral ports if none.
    #[must_use]
    pub fn new(dynamic: Option<RangeInclusive<u16>>) -> Self {
        let dynamic = dynamic.unwrap_or(USUAL);
        Self { next: Mutex::new(*dynamic.start()), dynamic }
    }

    /// Publishes a container's ports, all or none; what is published already stays as it is.
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn publish(&self, network: &dyn Network, id: &AttachmentId, wanted: &Blueprint) -> Result<Vec<PortBinding>, PublishError> {
        if wanted.port_ranges.is_empty() {
            return Ok(network.publish(id, &wanted.ports).await?);
        }
        let mut next = self.next.lock().await;
        let (mut taken, mut own) = (BTreeSet::new(), Vec::new());
        for attachment in network.list().await? {
            taken.extend(attachment.bindings.iter().map(|binding| (binding.protocol, binding.host_port)));
            if attachment.id == *id {
                own = attachment.bindings;
            }
        }
        let (fixed, open): (Vec<&PortRequest>, Vec<&PortRequest>) = wanted.ports.iter().partition(|request| request.host_port.is_some());
        taken.extend(fixed.iter().filter_map(|request| Some((request.protocol, request.host_port?))));
        loop {
            let hosts = choose(&self.dynamic, *next, &taken, &own, &wanted.port_ranges)?;
            let ranges: Vec<PortRequest> = wanted.port_ranges.iter().zip(&hosts).flat_map(|(range, host)| range.requests(*host)).collect();
            // Ports that are open come last: they take whatever is left, and so never one that was chosen.
            let requests: Vec<PortRequest> =
                fixed.iter().copied().copied().chain(ranges.iter().copied()).chain(open.iter().copied().copied()).collect();
            match network.publish(id, &requests).await {
                Err(NetworkError::PortInUse { port, protocol })
                    if ranges.iter().any(|chosen| (chosen.protocol, chosen.host_port) == (protocol, Some(port)))
                        // Each round learns of another port; a network that refuses the same one twice is not argued with.
                        && taken.insert((protocol, port)) => {}
                outcome => {
                    let bindings = outcome?;
                    *next = hosts
                        .last()
                        .zip(wanted.port_ranges.last())
                        .map_or(*next, |(host, range)| after(&self.dynamic, host + range.following()));
                    return Ok(bindings);
                }
            }
        }
    }
}

/// The port to go on with after one of the range.
fn after(dynamic: &RangeInclusive<u16>, port: u16) -> u16 {
    if dynamic.contains(&port) && port < *dynamic.end() { port + 1 } else { *dynamic.start() }
}

/// The first host port of each range: where it is published already, else the next free ones from `next` on, and from the beginning.
fn choose(
    dynamic: &RangeInclusive<u16>,
    mut next: u16,
    taken: &BTreeSet<(Protocol, u16)>,
    own: &[PortBinding],
    ranges: &[PortRange],
) -> Result<Vec<u16>, PublishError> {
    let (first, last) = (*dynamic.start(), *dynamic.end());
    let mut taken = taken.clone();
    let mut hosts = Vec::with_capacity(ranges.len());
    for range in ranges {
        if let Some(host) = range.host(own) {
            hosts.push(host);
            continue;
        }
        let following = range.following();
        let host = run(next, last, range, &taken).or_else(|| run(first, last, range, &taken));
        let host = host.ok_or(PublishError::NoContiguousPorts { count: u32::from(following) + 1, first, last })?;
        taken.extend(range.requests(host).filter_map(|request| Some((request.protocol, request.host_port?))));
        next = after(dynamic, host + following);
        hosts.push(host);
    }
    Ok(hosts)
}

/// The first port from `first` on with as many free ones after it as the range needs, none beyond `last`.
fn run(first: u16, last: u16, range: &PortRange, taken: &BTreeSet<(Protocol, u16)>) -> Option<u16> {
    let mut host = first;
    loop {
        let end = host.checked_add(range.following()).filter(|end| *end <= last)?;
        match taken.range((range.protocol, host)..=(range.protocol, end)).next_back() {
            None => return Some(host),
            Some((_, port)) => host = port.checked_add(1)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: Protocol = Protocol::Tcp;

    fn range(first: u16, last: u16) -> PortRange {
        PortRange { first, last, protocol: TCP }
    }

    fn chosen(next: u16, taken: &[u16], ranges: &[PortRange]) -> Result<Vec<u16>, String> {
        let taken = taken.iter().map(|port| (TCP, *port)).chain([(Protocol::Udp, 102)]).collect();
        choose(&(100..=109), next, &taken, &[], ranges).map_err(|error| error.to_string())
    }

    #[test]
    fn free_ports_one_after_the_other() {
        assert_eq!(chosen(100, &[], &[range(80, 82)]), Ok(vec![100]), "UDP's ports are others");
        assert_eq!(chosen(100, &[102], &[range(80, 82)]), Ok(vec![103]));
        assert_eq!(chosen(105, &[], &[range(80, 82), range(90, 91)]), Ok(vec![105, 108]));
        assert_eq!(chosen(105, &[106], &[range(80, 82), range(90, 91)]), Ok(vec![107, 100]), "from the beginning again");
        assert_eq!(chosen(104, &[], &[range(1, 10)]), Ok(vec![100]), "all that there are");
        let none = "HostConfigError: error retrieving docker port map: 5 contiguous host ports are unavailable in the dynamic host port range 100-109";
        assert_eq!(chosen(100, &[104, 109], &[range(80, 84)]), Err(none.to_owned()));
        assert!(chosen(100, &[], &[range(80, 84), range(90, 95)]).unwrap_err().contains("6 contiguous"), "a range's ports are its own");
    }

    #[test]
    fn what_is_published_stays() {
        let own: Vec<_> = (0..3).map(|step| PortBinding { container_port: 80 + step, host_port: 105 + step, protocol: TCP }).collect();
        let taken = own.iter().map(|binding| (TCP, binding.host_port)).collect();
        assert_eq!(choose(&(100..=109), 100, &taken, &own, &[range(90, 94), range(80, 82)]).unwrap(), [100, 105]);
    }

    #[test]
    fn the_last_port_of_all_is_an_end() {
        let taken = BTreeSet::from([(TCP, u16::MAX)]);
        assert!(choose(&(u16::MAX - 1..=u16::MAX), u16::MAX, &taken, &[], &[range(1, 2)]).is_err());
        assert_eq!(choose(&(u16::MAX - 1..=u16::MAX), u16::MAX, &BTreeSet::new(), &[], &[range(1, 2)]).unwrap(), [u16::MAX - 1]);
    }
}
