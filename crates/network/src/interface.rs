//! A task's network interface as the control plane describes it (`networkMode: awsvpc`).
//!
//! Pure: what is here says what an interface is, never how a machine makes one.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The MTU of an interface whose description names none: that of most links. EC2 has 9001 inside a VPC.
pub const DEFAULT_MTU: u16 = 1500;
/// The least MTU that IPv4 and the overlay between machines can be served with.
pub const LEAST_MTU: u16 = 576;
/// Security groups of one interface; EC2's own quota cannot be raised beyond it.
/// <https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html>
pub const MOST_GROUPS: usize = 16;

/// A hardware address, written as `02:00:0a:00:01:05`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = InterfaceError;

    fn from_str(text: &str) -> Result<Self, InterfaceError> {
        let wrong = || InterfaceError::Mac(text.chars().take(40).collect());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        // The lowest bit of the first byte makes a group address, which no interface can have.
        if parts.next().is_some() || bytes[0] & 1 != 0 || bytes == [0; 6] {
            return Err(wrong());
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for MacAddress {
    type Error = InterfaceError;

    fn try_from(text: String) -> Result<Self, InterfaceError> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(address: MacAddress) -> Self {
        address.to_string()
    }
}

/// A network interface of a task, all of it chosen by the control plane.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-networking-awsvpc.html>
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskInterface {
    /// `eni-...`; up to 64 of `[a-z0-9-]`.
    pub id: String,
    /// Its primary private address.
    pub address: Ipv4Addr,
    /// The subnet's prefix length in bits.
    pub prefix: u8,
    /// Its IPv6 address, if the subnet has any.
    pub ipv6: Option<Ipv6Addr>,
    /// Its hardware address.
    pub mac: MacAddress,
    /// The subnet's router: where everything is sent.
    pub gateway: Ipv4Addr,
    /// Name servers. Security groups never keep a task from asking them, as with Amazon's own.
    pub name_servers: Vec<IpAddr>,
    /// Domains that short names are looked up in.
    pub search_domains: Vec<String>,
    /// The host name: `ip-10-0-1-5.eu-central-1.compute.internal`. Empty: none.
    pub private_dns_name: String,
    /// Security groups, as long as no table says otherwise.
    pub groups: Vec<String>,
    /// Largest packet in bytes.
    pub mtu: u16,
    /// An address that stands for this interface outside (`assignPublicIp`). What is sent to it must come to this machine, which answers for
    /// it on its links while the interface is there.
    pub public_address: Option<Ipv4Addr>,
}

/// Why an interface cannot be made as it is described. `Display` names the member at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InterfaceError {
    /// Not `02:00:0a:00:01:05`, or a group address.
    #[error("macAddress {0:?}: expected six bytes in hexadecimal, not a group's")]
    Mac(String),
    /// Odd characters.
    #[error("network interface id {0:?}: expected 1 to 64 of a-z, 0-9 and -")]
    Id(String),
    /// The address and the gateway do not make a subnet.
    #[error("subnetGatewayIpv4Address {gateway}/{prefix}: {address} needs a gateway of its own subnet, from /8 to /29")]
    Gateway {
        /// The interface's address.
        address: Ipv4Addr,
        /// Its gateway.
        gateway: Ipv4Addr,
        /// The prefix length.
        prefix: u8,
    },
    /// No host can have it.
    #[error("address {0}: no interface can have it")]
    Address(IpAddr),
    /// Packets would not fit.
    #[error("MTU {0}: expected {LEAST_MTU} to 65535")]
    Mtu(u16),
    /// Too many groups, or one with an odd id.
    #[error("security groups {0:?}: expected at most {MOST_GROUPS} ids of a-z, 0-9 and -")]
    Groups(Vec<String>),
}

impl TaskInterface {
    /// Says whether a machine can make it.
    ///
    /// # Errors
    /// [`InterfaceError`].
    pub fn check(&self) -> Result<(), InterfaceError> {
        if !is_plain(&self.id) {
            return Err(InterfaceError::Id(self.id.chars().take(80).collect()));
        }
        let Self { address, gateway, prefix, .. } = *self;
        for own in [address, gateway] {
            if own.is_unspecified() || own.is_loopback() || own.is_multicast() || own.is_link_local() || own.is_broadcast() {
                return Err(InterfaceError::Address(own.into()));
            }
        }
        if !(8..=29).contains(&prefix) || address == gateway || self.network() != network(gateway, prefix) {
            return Err(InterfaceError::Gateway { address, gateway, prefix });
        }
        if let Some(own) = self.ipv6.filter(|own| own.is_unspecified() || own.is_loopback() || own.is_multicast() || is_link_local(*own)) {
            return Err(InterfaceError::Address(own.into()));
        }
        if self.mtu < LEAST_MTU {
            return Err(InterfaceError::Mtu(self.mtu));
        }
        if self.groups.len() > MOST_GROUPS || !self.groups.iter().all(|group| is_plain(group)) {
            return Err(InterfaceError::Groups(self.groups.iter().take(MOST_GROUPS + 1).cloned().collect()));
        }
        Ok(())
    }

    /// The subnet's network address.
    #[must_use]
    pub fn network(&self) -> Ipv4Addr {
        network(self.address, self.prefix)
    }

    /// Its addresses of both families.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        [Some(IpAddr::V4(self.address)), self.ipv6.map(IpAddr::V6)].into_iter().flatten()
    }
}

fn network(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    (u32::from(address) & mask).into()
}

fn is_link_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

/// Whether a text can be part of names in the kernel and of paths.
pub(crate) fn is_plain(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=64).contains(&text.len()) && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface() -> TaskInterface {
        TaskInterface {
            id: "eni-0a".into(),
            address: Ipv4Addr::new(10, 0, 1, 5),
            prefix: 24,
            ipv6: None,
            mac: MacAddress([2, 0, 10, 0, 1, 5]),
            gateway: Ipv4Addr::new(10, 0, 1, 1),
            name_servers: Vec::new(),
            search_domains: Vec::new(),
            private_dns_name: String::new(),
            groups: vec!["sg-1".into()],
            mtu: DEFAULT_MTU,
            public_address: None,
        }
    }

    #[test]
    fn hardware_addresses_are_read_as_they_are_written() {
        let address: MacAddress = "02:00:0a:00:01:FF".parse().expect("an address");
        assert_eq!((address.0, address.to_string().as_str()), ([2, 0, 10, 0, 1, 255], "02:00:0a:00:01:ff"));
        for wrong in
            ["", "02:00:0a:00:01", "02:00:0a:00:01:05:06", "2:0:a:0:1:5", "01:00:5e:00:00:01", "00:00:00:00:00:00", "02-00:0a:00:01:05"]
        {
            assert_eq!(wrong.parse::<MacAddress>(), Err(InterfaceError::Mac(wrong.into())));
        }
    }

    #[test]
    fn what_no_machine_can_make_is_refused_with_the_member_at_fault() {
        assert_eq!(interface().check(), Ok(()));
        assert_eq!(interface().network(), Ipv4Addr::new(10, 0, 1, 0));
        let refused = |change: fn(&mut TaskInterface)| {
            let mut interface = interface();
            change(&mut interface);
            interface.check().expect_err("refused").to_string()
        };
        assert!(refused(|i| i.id = "../x".into()).starts_with("network interface id"));
        assert!(refused(|i| i.gateway = Ipv4Addr::new(10, 0, 2, 1)).starts_with("subnetGatewayIpv4Address 10.0.2.1/24"));
        assert!(refused(|i| i.gateway = i.address).starts_with("subnetGatewayIpv4Address"));
        assert!(refused(|i| i.prefix = 30).starts_with("subnetGatewayIpv4Address"));
        assert!(refused(|i| i.address = Ipv4Addr::new(127, 0, 0, 1)).starts_with("address 127.0.0.1"));
        assert!(refused(|i| i.ipv6 = Some(Ipv6Addr::LOCALHOST)).starts_with("address ::1"));
        assert!(refused(|i| i.mtu = 500).starts_with("MTU 500"));
        assert!(refused(|i| i.groups = vec!["sg 1".into()]).starts_with("security groups"));
        assert!(refused(|i| i.groups = vec!["sg-1".into(); 17]).starts_with("security groups"));
    }
}
