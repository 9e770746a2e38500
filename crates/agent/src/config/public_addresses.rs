//! Addresses that this machine may give to tasks of Fargate that ask for a public one (`assignPublicIp`).

use std::net::Ipv4Addr;

use super::ConfigError;

/// Names them.
pub const PUBLIC_ADDRESSES: &str = "BERTH_PUBLIC_ADDRESSES";

/// An attribute's value has no more; they are announced as one.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Attribute.html>
const LONGEST: usize = 128;

/// Blocks that can lead to no task: `0/8`, loopback, link-local, and from multicast on.
const NOBODYS: [(Ipv4Addr, Ipv4Addr); 4] = [
    (Ipv4Addr::new(0, 0, 0, 0), Ipv4Addr::new(0, 255, 255, 255)),
    (Ipv4Addr::new(127, 0, 0, 0), Ipv4Addr::new(127, 255, 255, 255)),
    (Ipv4Addr::new(169, 254, 0, 0), Ipv4Addr::new(169, 254, 255, 255)),
    (Ipv4Addr::new(224, 0, 0, 0), Ipv4Addr::new(255, 255, 255, 255)),
];

/// Reads `ADDRESS`, `FIRST-LAST` and `NETWORK/PREFIX` (all of its addresses, the first and the last as well), with commas or spaces between,
/// and gives them as the control plane wants them: ascending ranges, each address once.
///
/// # Errors
/// [`ConfigError`], which names the part at fault.
pub fn parse(text: Option<&str>) -> Result<Option<String>, ConfigError> {
    let Some(text) = text else { return Ok(None) };
    let wrong = |problem: String| ConfigError { name: PUBLIC_ADDRESSES, problem };
    let parts = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|part| !part.is_empty());
    let mut ranges = Vec::new();
    for part in parts {
        let range = range(part).ok_or_else(|| wrong(format!("'{part}' is neither ADDRESS nor FIRST-LAST nor NETWORK/PREFIX")))?;
        if NOBODYS.iter().any(|(first, last)| range.0 <= *last && *first <= range.1) {
            return Err(wrong(format!("'{part}': no task can be reached at these")));
        }
        ranges.push((u32::from(range.0), u32::from(range.1)));
    }
    ranges.sort_unstable();
    let mut merged: Vec<(u32, u32)> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    let shown = merged.into_iter().map(|(first, last)| (Ipv4Addr::from(first), Ipv4Addr::from(last)));
    let shown = shown.map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") });
    let value = shown.collect::<Vec<_>>().join(" ");
    if value.len() > LONGEST {
        return Err(wrong(format!("takes more than {LONGEST} characters as ranges ({value}): fewer ranges are needed")));
    }
    Ok(Some(value).filter(|value| !value.is_empty()))
}

fn range(part: &str) -> Option<(Ipv4Addr, Ipv4Addr)> {
    if let Some((network, prefix)) = part.split_once('/') {
        let (network, prefix): (Ipv4Addr, u32) = (network.parse().ok()?, prefix.parse().ok().filter(|prefix| *prefix <= 32)?);
        let hosts = u32::MAX.checked_shr(prefix).unwrap_or(0);
        let first = u32::from(network);
        return (first & hosts == 0).then(|| (network, Ipv4Addr::from(first | hosts)));
    }
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    let (first, last): (Ipv4Addr, Ipv4Addr) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ways_to_say_them_become_ranges() {
        let read = |text: &str| parse(Some(text)).expect("addresses").expect("some");
        assert_eq!(read("192.0.2.10-192.0.2.20"), "192.0.2.10-192.0.2.20");
        assert_eq!(read("198.51.100.0/30, 192.0.2.9,192.0.2.8"), "192.0.2.8-192.0.2.9 198.51.100.0-198.51.100.3");
        assert_eq!(read("192.0.2.1/32 192.0.2.1"), "192.0.2.1");
        assert_eq!((parse(None).expect("none"), parse(Some(" , ")).expect("none")), (None, None));
    }

    #[test]
    fn what_cannot_be_given_is_refused_with_its_part() {
        let refused = |text: &str| parse(Some(text)).expect_err("refused").problem;
        for wrong in ["192.0.2", "192.0.2.5-192.0.2.1", "192.0.2.1/24", "192.0.2.0/33", "fd00::1"] {
            assert!(refused(&format!("192.0.2.77,{wrong}")).starts_with(&format!("'{wrong}' is neither")), "{wrong}");
        }
        for wrong in ["127.0.0.1", "1.0.0.0-255.0.0.0", "169.254.170.2", "0.0.0.0/0", "224.0.0.1"] {
            assert!(refused(wrong).contains("no task can be reached"), "{wrong}");
        }
        let many = (0..16).map(|n| format!("192.0.2.{}", n * 2)).collect::<Vec<_>>().join(",");
        assert!(refused(&many).contains("fewer ranges"), "{many}");
    }
}
