//! `portMappings` of a container definition: which ports it may name, one by one or as a range.

use std::collections::BTreeSet;

use berth_shapes::ecs;

use crate::failure::Failure;

/// Most ranges of one container.
const MAX_RANGES: usize = 100;

/// Checks the port mappings of a container in a task of network mode `mode`.
///
/// The rules of ranges are those of
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_PortMapping.html#ECS-Type-PortMapping-containerPortRange>; a port of
/// TCP and the same of UDP are two ports.
///
/// # Errors
/// The first thing wrong, which names the container and the member.
pub(crate) fn check(container: &ecs::ContainerDefinition, mode: &str) -> Result<(), Failure> {
    let name = container.name.as_deref().unwrap_or_default();
    let setting = |problem: &str| Failure::client(format!("Invalid setting for container '{name}'. {problem}"));
    let (mut ports, mut ranges, mut ranged) = (BTreeSet::new(), 0, BTreeSet::new());
    for mapping in container.port_mappings.iter().flatten() {
        let protocol = mapping.protocol.as_ref().map_or("tcp", ecs::TransportProtocol::as_str);
        if let Some(text) = &mapping.container_port_range {
            if mapping.container_port.is_some() || mapping.host_port.is_some() {
                return Err(setting("containerPortRange cannot be combined with containerPort or hostPort."));
            }
            if !matches!(mode, "bridge" | "awsvpc") {
                return Err(setting(&format!("containerPortRange needs networkMode bridge or awsvpc, not {mode}.")));
            }
            let (first, last) = range(text).ok_or_else(|| {
                setting(&format!(
                    "containerPortRange '{text}' must be two ports between 1 and 65535 like 80-90, the first less than the last."
                ))
            })?;
            ranges += 1;
            if ranges > MAX_RANGES {
                return Err(setting(&format!("A container can have at most {MAX_RANGES} port mappings with a containerPortRange.")));
            }
            if !(first..=last).all(|port| ranged.insert((protocol, port))) {
                return Err(setting(&format!("containerPortRange '{text}' overlaps another one.")));
            }
            continue;
        }
        let Some(port) = mapping.container_port else {
            return Err(setting("containerPort of a port mapping must be specified."));
        };
        let Some(number) = u16::try_from(port).ok().filter(|port| *port > 0) else {
            return Err(setting("containerPort must be between 1 and 65535."));
        };
        ports.insert((protocol, number));
        let host = mapping.host_port.unwrap_or(0);
        if !(0..=65_535).contains(&host) {
            return Err(setting("hostPort must be between 0 and 65535."));
        }
        if mode != "bridge" && host != 0 && host != port {
            return Err(Failure::client(format!(
                "When networkMode={mode}, the host ports and container ports in port mappings must match."
            )));
        }
    }
    if let Some((protocol, port)) = ports.intersection(&ranged).next() {
        return Err(setting(&format!("containerPort {port}/{protocol} is also in a containerPortRange.")));
    }
    Ok(())
}

/// The ends of a range, of which the first is less than the last.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-')?;
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    Some((port(first)?, port(last)?)).filter(|(first, last)| first < last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(mode: &str, mappings: serde_json::Value) -> Result<(), String> {
        let container = serde_json::from_value(serde_json::json!({"name": "web", "portMappings": mappings})).unwrap();
        check(&container, mode).map_err(|failure| failure.message)
    }

    #[test]
    fn ranges_and_what_is_wrong_with_them() {
        let good = serde_json::json!([{"containerPortRange": "80-90"}, {"containerPortRange": "80-90", "protocol": "udp"},
            {"containerPortRange": "91-92"}, {"containerPort": 93}, {"containerPort": 85, "protocol": "udp", "hostPort": 85}]);
        // The last is UDP's, which has a range there as well.
        assert!(checked("bridge", good.clone()).unwrap_err().contains("containerPort 85/udp"));
        let good = serde_json::Value::Array(good.as_array().unwrap()[..4].to_vec());
        assert_eq!(checked("bridge", good.clone()), Ok(()));
        assert_eq!(checked("awsvpc", good.clone()), Ok(()));
        assert!(checked("host", good).unwrap_err().contains("networkMode"));
        for text in ["80", "90-80", "80-80", "0-9", "1-65536", "a-b", "80-", "-80", "80-90-100", ""] {
            let refused = checked("bridge", serde_json::json!([{"containerPortRange": text}])).unwrap_err();
            assert!(refused.contains("'web'") && refused.contains(&format!("containerPortRange '{text}'")), "{refused}");
        }
        let overlapping = checked("bridge", serde_json::json!([{"containerPortRange": "80-90"}, {"containerPortRange": "90-95"}]));
        assert!(overlapping.unwrap_err().contains("'90-95' overlaps"));
        let many = (0..101).map(|index| serde_json::json!({"containerPortRange": format!("{}-{}", 2 * index + 1, 2 * index + 2)}));
        let many: Vec<_> = many.collect();
        assert!(checked("bridge", serde_json::Value::Array(many[..100].to_vec())).is_ok());
        assert!(checked("bridge", serde_json::Value::Array(many)).unwrap_err().contains("at most 100"));
    }
}
