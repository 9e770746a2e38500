//! What the actions on gateways share: finding one, checking its configuration, showing it.

use berth_model::arn::{self, Scope};
use berth_model::gateway::Gateway;
use berth_model::ids::{ClusterName, GatewayName};
use berth_model::tags::render_tags;
use berth_shapes::ecs::{self, ErrorCode};
use berth_store::{Entry, State};

use super::aws_references::{distinct, security_group, subnets, web_acl};
use crate::context::Api;
use crate::failure::Failure;

/// The one port and protocol of a listener. <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_HostSharedAlbConfiguration.html>
const PORT: i32 = 443;
const PROTOCOL: &str = "HTTPS";
/// `maxAlbCount`: ECS's default, and the most that it can be here. AWS names no bound; a gateway of more load balancers than this
/// would not be described in any number of pages.
const DEFAULT_ALBS: i32 = 10;
const MAX_ALBS: i32 = 100;
/// A condition of an Application Load Balancer's rule on a header.
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_HttpHeaderConditionConfig.html>
const MAX_HEADER_NAME: usize = 40;
const MAX_HEADER_VALUE: usize = 128;
const MAX_HEADER_VALUES: usize = 5;

/// `GatewayNotFoundException`.
pub(crate) fn not_found() -> Failure {
    Failure::modelled(ErrorCode::GatewayNotFound, "Gateway not found.")
}

/// The gateway's name out of a name or an ARN.
pub(crate) fn name(api: &Api, text: Option<&str>) -> Result<GatewayName, Failure> {
    let text = text.filter(|text| !text.is_empty()).ok_or_else(|| Failure::invalid("Gateway cannot be empty: gateway"))?;
    Ok(arn::parse_gateway(api.scope(), text)?)
}

/// The name of the cluster that an association is with. There is no default here: the member is required.
pub(crate) fn cluster_name(api: &Api, text: Option<&str>) -> Result<ClusterName, Failure> {
    let text = text.filter(|text| !text.is_empty()).ok_or_else(|| Failure::invalid("Cluster cannot be empty: cluster"))?;
    api.cluster_name(Some(text))
}

/// A gateway that is there.
pub(crate) fn find<'a>(state: &'a State, name: &GatewayName) -> Result<&'a Entry<Gateway>, Failure> {
    state.gateway(name).ok_or_else(not_found)
}

/// `configuration` of CreateGateway, with ECS's defaults filled in.
pub(crate) fn configuration(given: Option<ecs::GatewayConfiguration>) -> Result<ecs::HostSharedAlbConfiguration, Failure> {
    let given = given.and_then(|configuration| configuration.host_shared_alb);
    let mut alb = given.ok_or_else(|| Failure::invalid("Exactly one configuration variant must be set: configuration.hostSharedAlb"))?;
    let at = |member: &str| format!("configuration.hostSharedAlb.{member}");
    if *alb.port.get_or_insert(PORT) != PORT {
        return Err(Failure::invalid(format!("A gateway supports only HTTPS at port {PORT}: {}", at("port"))));
    }
    if alb.protocol.get_or_insert_with(|| PROTOCOL.into()).as_str() != PROTOCOL {
        return Err(Failure::invalid(format!("A gateway supports only HTTPS at port {PORT}: {}", at("protocol"))));
    }
    let scheme = alb.scheme.get_or_insert_with(|| "internet-facing".into()).clone();
    alb.http_desync.get_or_insert_with(|| "defensive".into());
    alb.max_alb_count.get_or_insert(DEFAULT_ALBS);
    let network = alb.network_configuration.get_or_insert_default();
    let address_type = network.ip_address_type.get_or_insert_with(|| "dualstack".into());
    if scheme.as_str() == "internal" && address_type.as_str() == "dualstack-without-public-ipv4" {
        let member = at("networkConfiguration.ipAddressType");
        return Err(Failure::invalid(format!("dualstack-without-public-ipv4 is for internet-facing gateways only: {member}")));
    }
    subnets(&at("networkConfiguration.subnets"), network.subnets.get_or_insert_default())?;
    tidy(&mut alb);
    check(&alb)?;
    Ok(alb)
}

/// Folds UpdateGateway's `configuration` in. Absent members stay as they are, empty ones are taken away.
pub(crate) fn changed(
    before: &ecs::HostSharedAlbConfiguration,
    given: ecs::UpdateGatewayConfiguration,
) -> Result<ecs::HostSharedAlbConfiguration, Failure> {
    let given = given
        .host_shared_alb
        .ok_or_else(|| Failure::invalid("The configuration must be of the gateway's type: configuration.hostSharedAlb"))?;
    let mut alb = before.clone();
    if let Some(group) = given.network_configuration.and_then(|network| network.inbound_security_group) {
        alb.network_configuration.get_or_insert_default().inbound_security_group = Some(group);
    }
    alb.max_alb_count = given.max_alb_count.or(alb.max_alb_count);
    alb.web_acl_arn = given.web_acl_arn.or(alb.web_acl_arn);
    alb.access_logs = given.access_logs.or(alb.access_logs);
    alb.http_desync = given.http_desync.or(alb.http_desync);
    alb.test_traffic_rules = given.test_traffic_rules.or(alb.test_traffic_rules);
    tidy(&mut alb);
    check(&alb)?;
    Ok(alb)
}

/// Takes away what says nothing.
fn tidy(alb: &mut ecs::HostSharedAlbConfiguration) {
    alb.web_acl_arn.take_if(|arn| arn.is_empty());
    alb.test_traffic_rules.take_if(|rules| rules.header.is_none());
    alb.access_logs.take_if(|logs| logs.destination.as_ref().is_none_or(|destination| destination.s3.is_none()));
    if let Some(network) = &mut alb.network_configuration {
        network.inbound_security_group.take_if(|group| group.is_empty());
    }
}

/// What holds at creation and after every update.
fn check(alb: &ecs::HostSharedAlbConfiguration) -> Result<(), Failure> {
    let at = |member: &str| format!("configuration.hostSharedAlb.{member}");
    if alb.max_alb_count.is_some_and(|count| !(1..=MAX_ALBS).contains(&count)) {
        return Err(Failure::invalid(format!("maxAlbCount must be between 1 and {MAX_ALBS}: {}", at("maxAlbCount"))));
    }
    if let Some(arn) = &alb.web_acl_arn {
        web_acl(&at("webACLArn"), arn)?;
    }
    let group = alb.network_configuration.as_ref().and_then(|network| network.inbound_security_group.as_ref());
    if let Some(group) = group {
        security_group(&at("networkConfiguration.inboundSecurityGroup"), group)?;
    }
    let s3 = alb.access_logs.as_ref().and_then(|logs| logs.destination.as_ref()).and_then(|destination| destination.s3.as_ref());
    if let Some(s3) = s3 {
        check_bucket(&at("accessLogs.destination.s3"), s3)?;
    }
    match alb.test_traffic_rules.as_ref().and_then(|rules| rules.header.as_ref()) {
        Some(header) => check_header(&at("testTrafficRules.header"), header),
        None => Ok(()),
    }
}

/// Rules of names: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>
fn check_bucket(at: &str, s3: &ecs::GatewayElbAccessLogS3Destination) -> Result<(), Failure> {
    let bucket = s3.bucket.as_deref().unwrap_or_default();
    let legal = bucket.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.');
    if !legal || !(3..=63).contains(&bucket.len()) {
        return Err(Failure::invalid(format!("A bucket's name has 3 to 63 lowercase letters, digits, hyphens and dots: {at}.bucket")));
    }
    if s3.prefix.as_ref().is_some_and(|prefix| prefix.len() > 1_024) {
        return Err(Failure::invalid(format!("The prefix can have at most 1024 bytes: {at}.prefix")));
    }
    Ok(())
}

fn check_header(at: &str, header: &ecs::GatewayTestTrafficHeader) -> Result<(), Failure> {
    let name = header.name.as_deref().unwrap_or_default();
    // RFC 9110's `token`.
    let is_token = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    if !is_token || !(1..=MAX_HEADER_NAME).contains(&name.len()) {
        return Err(Failure::invalid(format!("A header's name has 1 to {MAX_HEADER_NAME} characters of HTTP's tokens: {at}.name")));
    }
    let values = header.values.as_deref().unwrap_or_default();
    distinct(&format!("{at}.values"), values, MAX_HEADER_VALUES)?;
    let legal = |value: &String| (1..=MAX_HEADER_VALUE).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    if values.is_empty() || !values.iter().all(legal) {
        return Err(Failure::invalid(format!(
            "A header has 1 to {MAX_HEADER_VALUES} values of 1 to {MAX_HEADER_VALUE} printable characters each: {at}.values"
        )));
    }
    Ok(())
}

/// As DescribeGateway shows it.
pub(crate) fn render(scope: &Scope, gateway: &Gateway) -> ecs::Gateway {
    let alb = gateway.host_shared_alb.clone();
    ecs::Gateway {
        gateway_arn: Some(scope.gateway(&gateway.name)),
        name: Some(gateway.name.to_string()),
        status: Some(gateway.status.as_str().into()),
        failures: Some(Vec::new()),
        infrastructure_role_arn: Some(gateway.infrastructure_role_arn.clone()),
        deletion_protection: Some(gateway.deletion_protection),
        configuration: Some(ecs::DescribeGatewayConfiguration {
            host_shared_alb: Some(ecs::DescribeGatewayAlbConfiguration {
                network_configuration: alb.network_configuration,
                scheme: alb.scheme,
                access_logs: alb.access_logs,
                web_acl_arn: alb.web_acl_arn,
                port: alb.port,
                protocol: alb.protocol,
                max_alb_count: alb.max_alb_count,
                // Load balancers come with the first connector; there is none.
                current_alb_count: Some(0),
                http_desync: alb.http_desync,
                test_traffic_rules: alb.test_traffic_rules,
            }),
        }),
        access_type: Some(if gateway.is_public() { "PUBLIC" } else { "PRIVATE" }.into()),
        propagate_tags: Some(if gateway.propagate_tags { "GATEWAY" } else { "NONE" }.into()),
        tags: Some(render_tags(&gateway.tags)),
        created_at: Some(gateway.created_at.to_wire()),
        updated_at: Some(gateway.updated_at.to_wire()),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(alb: ecs::HostSharedAlbConfiguration) -> Result<ecs::HostSharedAlbConfiguration, Failure> {
        configuration(Some(ecs::GatewayConfiguration { host_shared_alb: Some(alb) }))
    }

    #[test]
    fn absent_members_stay_and_empty_ones_go() {
        let acl = "arn:aws:wafv2:us-east-1:000000000000:regional/webacl/a/b".to_owned();
        let before = given(ecs::HostSharedAlbConfiguration { web_acl_arn: Some(acl), ..Default::default() }).unwrap();
        let update = |alb| changed(&before, ecs::UpdateGatewayConfiguration { host_shared_alb: Some(alb) });
        assert_eq!(update(Default::default()), Ok(before.clone()));
        let emptied = update(ecs::UpdateGatewayAlbConfiguration { web_acl_arn: Some(String::new()), ..Default::default() }).unwrap();
        assert_eq!(emptied, ecs::HostSharedAlbConfiguration { web_acl_arn: None, ..before.clone() });
        let wrong = update(ecs::UpdateGatewayAlbConfiguration { max_alb_count: Some(0), ..Default::default() });
        assert!(wrong.unwrap_err().message.contains("maxAlbCount"));
        assert!(changed(&before, Default::default()).unwrap_err().message.contains("hostSharedAlb"));
    }
}
