//! Where etcd is and which of its keys are the store's: `etcd://HOST:PORT,HOST:PORT/PREFIX`.

use std::fmt;
use std::str::FromStr;

use berth_model::record::Key;

/// Keys lie below this if nothing else is said.
const DEFAULT_PREFIX: &str = "/berth/";
/// Records lie here below the prefix.
const RECORDS: &str = "records/";

/// An etcd cluster's members and the store's keys there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdAddress {
    /// `HOST:PORT` of each member.
    pub endpoints: Vec<String>,
    /// All of the store's keys begin with it; it begins and ends with `/`.
    pub prefix: String,
}

/// The text is no address of an etcd cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not of the form etcd://HOST:PORT,HOST:PORT/PREFIX")]
pub struct AddressError(pub String);

/// What a key below the prefix stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Record(Key),
    Peer(u16),
    Leader,
    /// An agreed value, or nothing this Berth knows.
    Other,
}

impl FromStr for EtcdAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let error = || AddressError(text.to_owned());
        let rest = text.strip_prefix("etcd://").ok_or_else(error)?;
        let (hosts, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let endpoints: Vec<String> = hosts.split(',').map(str::to_owned).collect();
        let is_endpoint = |endpoint: &String| {
            let parts = endpoint.rsplit_once(':');
            parts.is_some_and(|(host, port)| {
                let plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte));
                !host.is_empty() && plain && port.parse::<u16>().is_ok_and(|port| port != 0)
            })
        };
        let prefix = prefix.trim_matches('/');
        let legal = prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte));
        if !legal || !endpoints.iter().all(is_endpoint) {
            return Err(error());
        }
        let prefix = if prefix.is_empty() { DEFAULT_PREFIX.to_owned() } else { format!("/{prefix}/") };
        Ok(Self { endpoints, prefix })
    }
}

impl fmt::Display for EtcdAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "etcd://{}{}", self.endpoints.join(","), self.prefix.trim_end_matches('/'))
    }
}

impl EtcdAddress {
    pub(super) fn key(&self, name: &str) -> Vec<u8> {
        format!("{}{name}", self.prefix).into_bytes()
    }

    pub(super) fn record(&self, key: &Key) -> Vec<u8> {
        format!("{}{RECORDS}{key}", self.prefix).into_bytes()
    }

    pub(super) fn peer(&self, number: u16) -> Vec<u8> {
        self.key(&format!("peers/{number}"))
    }

    pub(super) fn leader(&self) -> Vec<u8> {
        self.key("leader")
    }

    /// The first key after all of the store's.
    pub(super) fn end(&self) -> Vec<u8> {
        let mut end = self.prefix.clone().into_bytes();
        if let Some(last) = end.last_mut() {
            // The prefix ends with a slash, so there is a next byte.
            *last += 1;
        }
        end
    }

    pub(super) fn place(&self, key: &[u8]) -> Place {
        let Some(rest) = std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix(&self.prefix)) else { return Place::Other };
        if rest == "leader" {
            return Place::Leader;
        }
        if let Some(number) = rest.strip_prefix("peers/") {
            return number.parse().map_or(Place::Other, Place::Peer);
        }
        rest.strip_prefix(RECORDS).and_then(|text| text.parse().ok()).map_or(Place::Other, Place::Record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let one: EtcdAddress = "etcd://10.0.0.1:2379".parse().unwrap();
        assert_eq!((one.endpoints.as_slice(), one.prefix.as_str()), (&["10.0.0.1:2379".to_owned()][..], "/berth/"));
        let three: EtcdAddress = "etcd://a:1,b.example:2,[::1]:3/cells/one/".parse().unwrap();
        assert_eq!((three.endpoints.len(), three.prefix.as_str()), (3, "/cells/one/"));
        assert_eq!(three.to_string().parse(), Ok(three));
        for wrong in ["", "sqlite", "http://a:1", "etcd://", "etcd://a", "etcd://a:1,", "etcd://a:0", "etcd://a:1/ b", "etcd://u@h/x:1"] {
            assert_eq!(wrong.parse::<EtcdAddress>(), Err(AddressError(wrong.to_owned())));
        }
    }

    #[test]
    fn keys_are_told_apart() {
        let address: EtcdAddress = "etcd://a:1".parse().unwrap();
        let cluster = Key::Cluster(berth_model::ids::ClusterName("c".into()));
        assert_eq!(address.place(&address.record(&cluster)), Place::Record(cluster));
        assert_eq!(address.place(&address.peer(7)), Place::Peer(7));
        assert_eq!(address.place(&address.leader()), Place::Leader);
        assert_eq!(address.place(b"/berth/schema"), Place::Other);
        assert_eq!(address.place(b"/other/leader"), Place::Other);
        assert!(address.leader() < address.end() && address.end() < b"/berti".to_vec());
    }
}
