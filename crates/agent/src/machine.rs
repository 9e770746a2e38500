//! What the machine has and is: cores, memory, system, its address, the boot it is in.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

/// CPU units: 1024 to a core.
#[must_use]
pub fn cpu_units() -> u32 {
    u32::try_from(cores().saturating_mul(1024)).unwrap_or(u32::MAX)
}

/// Cores that this process may use.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// `MemTotal` in MiB; `None` where there is no `/proc/meminfo`.
#[must_use]
pub fn memory_mib() -> Option<u64> {
    parse_mem_total(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

/// The IPv4 address that the machine has towards others: the one from which it would reach an address of no machine (RFC 5737). Nothing is
/// sent. `None` without a route there, or where that leads nowhere but to itself.
#[must_use]
pub fn ipv4() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) if !address.is_loopback() && !address.is_unspecified() => Some(address),
        _ => None,
    }
}

fn parse_mem_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? / 1024)
}

/// Nanoseconds since the machine was started, also those that it slept; 0 where the kernel has no such clock.
#[must_use]
pub fn uptime_nanos() -> u64 {
    // SAFETY: zero is a valid value for this plain structure.
    let mut now: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: `now` has room for what the kernel writes.
    if unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) } != 0 {
        return 0;
    }
    (now.tv_sec.unsigned_abs()).saturating_mul(1_000_000_000).saturating_add(now.tv_nsec.unsigned_abs())
}

/// The id that the kernel drew when the machine was started; `None` where there is no `/proc`.
#[must_use]
pub fn boot_id() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty())
}

/// Operating system and version as ecs-init says them, like `debian_12`; `linux` where /etc/os-release does not name both.
/// (`ecs-init/config/os_family.go`, os-release(5))
#[must_use]
pub fn os_family_detailed() -> String {
    let text = std::fs::read_to_string("/etc/os-release").or_else(|_| std::fs::read_to_string("/usr/lib/os-release"));
    parse_os_release(&text.unwrap_or_default()).unwrap_or_else(|| "linux".to_owned())
}

fn parse_os_release(text: &str) -> Option<String> {
    let value = |name: &str| {
        let value = text.lines().rev().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
        Some(value.trim().trim_matches(['"', '\''])).filter(|value| !value.is_empty())
    };
    Some(format!("{}_{}", value("ID")?, value("VERSION_ID")?))
}

/// EC2's instance type, where the machine's firmware says that it is EC2's; nothing is asked over the network.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/identify_ec2_instances.html>
#[must_use]
pub fn instance_type() -> Option<String> {
    let read = |name: &str| std::fs::read_to_string(format!("/sys/class/dmi/id/{name}")).unwrap_or_default();
    parse_instance_type(&read("sys_vendor"), &read("product_name"))
}

fn parse_instance_type(vendor: &str, product: &str) -> Option<String> {
    let product = product.trim();
    (vendor.trim() == "Amazon EC2" && product.contains('.')).then(|| product.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_and_version() {
        assert_eq!(parse_os_release("NAME=x\nID=debian\nVERSION_ID=\"12\"\n").as_deref(), Some("debian_12"));
        assert_eq!(parse_os_release("VERSION_ID='9.3'\nID=\"rocky\"").as_deref(), Some("rocky_9.3"));
        assert_eq!(parse_os_release("ID=arch\nBUILD_ID=rolling"), None);
    }

    #[test]
    fn instance_types_are_ec2s_alone() {
        assert_eq!(parse_instance_type("Amazon EC2\n", "m5.large\n").as_deref(), Some("m5.large"));
        assert_eq!(parse_instance_type("Xen", "HVM domU"), None);
        assert_eq!(parse_instance_type("QEMU", "m5.large"), None);
    }

    #[test]
    fn the_kernels_own_notation() {
        assert_eq!(parse_mem_total("MemTotal:        8061932 kB\nMemFree: 1 kB\n"), Some(7872));
        assert_eq!(parse_mem_total("MemFree: 1 kB\n"), None);
    }
}
