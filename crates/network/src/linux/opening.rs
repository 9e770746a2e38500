//! Opening a bridge network: what an earlier life left is taken over or cleaned away, the rest is made.
//!
//! Runs once, before any attachment is changed; each step may be repeated after a crash in any of them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use super::bridge::{Entry, Parts};
use super::config::{BridgeConfig, OpenError};
use super::firewall::Firewall;
use super::link;
use super::namespace;
use super::netlink::Socket;
use super::record::{Record, Records};
use super::reservation::{DynamicPorts, Reservation};
use crate::port::NetworkError;
use crate::subnet::{AddressPool, Subnet};

/// Takes over, cleans and makes.
pub(super) fn open(config: &BridgeConfig) -> Result<Parts, OpenError> {
    check(config)?;
    let records = Records::open(&config.state_dir)?;
    fs::create_dir_all(&config.netns_dir).map_err(|error| system("make the namespace directory", &config.netns_dir, &error))?;
    let kept = clean(config, &records)?;
    let bridge = format!("br-{}", config.name);
    let mut route = Socket::route()?;
    let (subnet, bridge_index) = ensure_bridge(config, &records, &mut route, &bridge, kept.len())?;
    write_sysctls(&bridge)?;
    for record in &kept {
        if let Some(name) = &record.link
            && let Err(error) = link::rejoin_bridge(&mut route, name, bridge_index)
        {
            tracing::warn!(attachment = %record.attachment.id, link = name, %error, "a container's link is broken; it has no network");
        }
    }
    let published: BTreeMap<_, _> = kept
        .iter()
        .filter_map(|record| Some((record.attachment.address?, &record.attachment.bindings)))
        .flat_map(|(address, bindings)| bindings.iter().map(move |b| ((b.protocol, b.host_port), (address, b.container_port))))
        .collect();
    let used: Vec<u16> = published.keys().map(|(_, port)| *port).collect();
    let mut firewall = Firewall::open(&format!("berth_{}", config.name), &bridge, subnet, published)?;
    firewall.pass_docker();
    let addresses = AddressPool::new(subnet, kept.iter().filter_map(|record| record.attachment.address));
    let entries = kept.into_iter().map(take_over).collect();
    Ok(Parts {
        records,
        route,
        bridge,
        bridge_index,
        subnet,
        firewall,
        addresses,
        dynamic_ports: DynamicPorts::new(config.dynamic_ports.clone(), used),
        entries,
    })
}

fn check(config: &BridgeConfig) -> Result<(), OpenError> {
    let fits = (1..=12).contains(&config.name.len());
    if !fits || !config.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
        return Err(OpenError::Name(config.name.chars().take(64).collect()));
    }
    let ports = &config.dynamic_ports;
    if ports.is_empty() || *ports.start() == 0 {
        return Err(OpenError::DynamicPorts(*ports.start(), *ports.end()));
    }
    Ok(())
}

/// Keeps records whose namespace is still held; removes other records and namespaces without one.
fn clean(config: &BridgeConfig, records: &Records) -> Result<Vec<Record>, OpenError> {
    let mut kept = Vec::new();
    for record in records.read()? {
        let held = |path: &Path| path.parent() == Some(&config.netns_dir) && namespace::is_held(path);
        if record.attachment.namespace.as_deref().is_some_and(held) {
            kept.push(record);
        } else {
            records.remove(&record.attachment.id)?;
        }
    }
    let unreadable = |error: io::Error| system("read the namespace directory", &config.netns_dir, &error);
    for entry in fs::read_dir(&config.netns_dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if !kept.iter().any(|record| record.attachment.namespace.as_ref() == Some(&path)) {
            tracing::info!(path = %path.display(), "removing a network namespace without record");
            namespace::remove(&path)?;
        }
    }
    Ok(kept)
}

fn ensure_bridge(
    config: &BridgeConfig,
    records: &Records,
    route: &mut Socket,
    bridge: &str,
    attachments: usize,
) -> Result<(Subnet, u32), OpenError> {
    // Held until the bridge has its address: only then can another network see which subnet this one has.
    let _lock = lock_subnets(&config.subnet_lock)?;
    let known = records.subnet();
    if let (Some(current), true) = (known, attachments > 0) {
        if let Some(configured) = config.subnet.filter(|configured| *configured != current) {
            return Err(OpenError::SubnetChanged { configured, current, attachments });
        }
        return Ok((current, link::ensure_bridge(route, bridge, current)?));
    }
    let existing = link::index(route, bridge)?;
    let taken = link::networks_in_use(route, existing)?;
    let free = |subnet: Subnet| taken.iter().find(|(network, prefix)| subnet.overlaps(*network, *prefix)).copied();
    let subnet = match (config.subnet, known) {
        (Some(subnet), _) => match free(subnet) {
            Some((network, prefix)) => return Err(OpenError::SubnetInUse { subnet, network, prefix }),
            None => subnet,
        },
        // While this network was closed somebody else may have taken its subnet; nothing holds on to it.
        (None, Some(subnet)) if free(subnet).is_none() => subnet,
        (None, _) => Subnet::first_free(&taken).ok_or(OpenError::NoFreeSubnet)?,
    };
    if existing.is_some() && known != Some(subnet) {
        link::delete(route, bridge)?;
    }
    records.write_subnet(subnet)?;
    Ok((subnet, link::ensure_bridge(route, bridge, subnet)?))
}

fn lock_subnets(path: &Path) -> Result<Flock<File>, OpenError> {
    let failed = |error: io::Error| system("lock the choice of subnets by", path, &error);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    let file = File::create(path).map_err(failed)?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| failed(errno.into()))
}

fn write_sysctls(bridge: &str) -> Result<(), OpenError> {
    let set = |path: &str, value: &str| -> io::Result<()> {
        if fs::read_to_string(path)?.trim() != value {
            fs::write(path, value)?;
        }
        Ok(())
    };
    let forwarding = "/proc/sys/net/ipv4/ip_forward".to_owned();
    let loopback = format!("/proc/sys/net/ipv4/conf/{bridge}/route_localnet");
    for path in [forwarding, loopback] {
        set(&path, "1").map_err(|error| system("set to 1", Path::new(&path), &error))?;
    }
    // A container could otherwise send IPv6 router advertisements that the machine itself would follow. Without IPv6 in the
    // kernel there is no such file, and nothing to close.
    let no_ipv6 = format!("/proc/sys/net/ipv6/conf/{bridge}/disable_ipv6");
    match set(&no_ipv6, "1") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(system("set to 1", Path::new(&no_ipv6), &error)),
        _ => Ok(()),
    }
}

/// Binds the ports of an attachment of an earlier life again. That a process took one meanwhile does not stop the
/// container's traffic, so it is told and the port stays published.
fn take_over(record: Record) -> Entry {
    let reserve = |(protocol, port)| {
        Reservation::take(protocol, port)
            .inspect_err(|error| tracing::warn!(attachment = %record.attachment.id, %error, "a published port is not reserved"))
            .ok()
    };
    let ports: Vec<_> = record.attachment.bindings.iter().map(|binding| (binding.protocol, binding.host_port)).collect();
    let reservations = ports.into_iter().filter_map(reserve).collect();
    Entry { record, reservations }
}

fn system(step: &str, path: &Path, error: &io::Error) -> OpenError {
    NetworkError::System(format!("{step} {}: {error}", path.display())).into()
}
