//! Settings of the DNS server that containers ask.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::ConfigError;

/// Says where the server listens besides the bridge, or that there is none.
pub const DNS: &str = "BERTH_DNS";
/// Says who is asked for names of others.
pub const DNS_UPSTREAM: &str = "BERTH_DNS_UPSTREAM";
/// The port of DNS.
pub const DNS_PORT: u16 = 53;

/// Where the DNS server listens, and whom it asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsSettings {
    /// Whether there is one.
    pub enabled: bool,
    /// This machine's address on the bridge of its containers, set by whoever opens the network; none: containers keep the machine's
    /// name servers.
    pub bridge: Option<Ipv4Addr>,
    /// A further address, for whoever on this machine wants to ask.
    pub also: Option<SocketAddr>,
    /// Who is asked for names of others; none: those of the machine's /etc/resolv.conf.
    pub upstreams: Option<Vec<SocketAddr>>,
}

impl Default for DnsSettings {
    fn default() -> Self {
        Self { enabled: true, bridge: None, also: None, upstreams: None }
    }
}

impl DnsSettings {
    /// Reads `BERTH_DNS` (`off`, `on`, or `ADDRESS:PORT`) and `BERTH_DNS_UPSTREAM` (`ADDRESS` or `ADDRESS:PORT`, with commas between).
    ///
    /// # Errors
    /// [`ConfigError`], which names the variable.
    pub fn parse(listen: Option<&str>, upstreams: Option<&str>) -> Result<Self, ConfigError> {
        let (enabled, also) = match listen {
            None | Some("on") => (true, None),
            Some("off") => (false, None),
            Some(text) => {
                let wrong = || ConfigError { name: DNS, problem: format!("'{text}' is neither on, off nor ADDRESS:PORT") };
                (true, Some(text.parse().map_err(|_| wrong())?))
            }
        };
        let server = |text: &str| {
            let address = || text.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, DNS_PORT));
            let wrong = || ConfigError { name: DNS_UPSTREAM, problem: format!("'{text}' is neither ADDRESS nor ADDRESS:PORT") };
            text.parse::<SocketAddr>().ok().or_else(address).ok_or_else(wrong)
        };
        let upstreams = upstreams.map(|text| text.split(',').map(|part| server(part.trim())).collect()).transpose()?;
        Ok(Self { enabled, bridge: None, also, upstreams })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_said_of_it() {
        assert_eq!(DnsSettings::parse(None, None), Ok(DnsSettings::default()));
        assert_eq!(DnsSettings::parse(Some("on"), None), Ok(DnsSettings::default()));
        assert_eq!(DnsSettings::parse(Some("off"), None), Ok(DnsSettings { enabled: false, ..Default::default() }));
        let told = DnsSettings::parse(Some("127.0.0.1:5353"), Some("10.0.0.2, [fd00::1]:54,fd00::2")).unwrap();
        assert_eq!(told.also, Some("127.0.0.1:5353".parse().unwrap()));
        let upstreams = ["10.0.0.2:53", "[fd00::1]:54", "[fd00::2]:53"].map(|text| text.parse().unwrap());
        assert_eq!(told.upstreams.as_deref(), Some(&upstreams[..]));
        assert_eq!(DnsSettings::parse(Some("127.0.0.1"), None).unwrap_err().name, DNS);
        assert_eq!(DnsSettings::parse(None, Some("10.0.0.2,dns.example.com")).unwrap_err().name, DNS_UPSTREAM);
    }
}
