//! `links`: one container is told of another's address, by names in /etc/hosts and by variables, as Docker does on its default
//! bridge. Follows <https://docs.docker.com/engine/network/links/> and moby's `daemon/links`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use berth_acs::messages as acs;
use berth_network::port::Protocol;

use super::{ContainerPlan, Link};

/// A link's two parts: whom it names, and what that one is called by.
pub(super) fn names(link: &str) -> (&str, &str) {
    link.split_once(':').unwrap_or((link, link))
}

/// A container's links, or which of them is none.
pub(super) fn links(task: &acs::Task, container: &acs::Container) -> Result<Vec<Link>, String> {
    let one = |link: &String| {
        let (name, alias) = names(link);
        let to = task.containers.iter().position(|other| other.name == name);
        match to {
            Some(to) if !alias.is_empty() && !alias.contains(':') => Ok(Link { to, alias: alias.to_owned() }),
            Some(_) => Err(format!("links: '{link}' is not name:alias")),
            None => Err(format!("links: the task has no container '{name}'")),
        }
    };
    container.links.iter().map(one).collect()
}

/// The lines of /etc/hosts that a link makes.
pub fn hosts(link: &Link, to: &ContainerPlan, address: Ipv4Addr) -> Vec<(String, String)> {
    let mut names = vec![link.alias.as_str(), &to.name];
    names.dedup();
    names.into_iter().map(|name| (name.to_owned(), address.to_string())).collect()
}

/// The variables that a link makes for `container`, in Docker's words. Docker also passes on the variables of the other's image,
/// which are not known here.
pub fn variables(link: &Link, container: &ContainerPlan, to: &ContainerPlan, address: Ipv4Addr) -> BTreeMap<String, String> {
    let prefix = link.alias.to_ascii_uppercase().replace('-', "_");
    let mut all = BTreeMap::from([(format!("{prefix}_NAME"), format!("/{}/{}", container.name, link.alias))]);
    let Ok(blueprint) = &to.blueprint else { return all };
    let mut ports: Vec<(u16, &str)> = blueprint.ports.iter().map(|port| (port.container_port, word(port.protocol))).collect();
    ports.sort_unstable();
    if let Some((port, protocol)) = ports.first() {
        all.insert(format!("{prefix}_PORT"), format!("{protocol}://{address}:{port}"));
    }
    for (port, protocol) in ports {
        let name = format!("{prefix}_PORT_{port}_{}", protocol.to_ascii_uppercase());
        all.insert(format!("{name}_ADDR"), address.to_string());
        all.insert(format!("{name}_PORT"), port.to_string());
        all.insert(format!("{name}_PROTO"), protocol.to_owned());
        all.insert(name, format!("{protocol}://{address}:{port}"));
    }
    let own = blueprint.spec.environment.iter().filter(|(name, _)| !matches!(name.as_str(), "HOME" | "PATH"));
    all.extend(own.map(|(name, value)| (format!("{prefix}_ENV_{name}"), value.clone())));
    all
}

const fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}
