//! `DescribeInternetGateways`: the one of the default VPC.

use berth_model::vpc::{InternetGateway, InternetGatewayId};
use berth_shapes::ec2::{self, DescribeInternetGatewaysRequest, DescribeInternetGatewaysResponse, InternetGatewayAttachment};
use berth_store::Entry;

use super::choice::Choice;
use super::filters::Filters;
use super::pages::{MOST, Page};
use super::tags::render_tags;
use crate::context::Api;
use crate::failure::Failure;

const FILTERS: [&str; 5] = ["attachment.state", "attachment.vpc-id", "internet-gateway-id", "owner-id", "tag-key"];
/// What EC2 says of a gateway that is attached; no other attachment has this word.
const ATTACHED: &str = "available";

/// Answers.
pub(super) async fn describe(api: &Api, request: DescribeInternetGatewaysRequest) -> Result<DescribeInternetGatewaysResponse, Failure> {
    let page = Page::parse("DescribeInternetGateways", request.next_token.as_deref(), request.max_results, MOST)?;
    let filters = Filters::parse(request.filters.as_deref(), &FILTERS)?;
    let state = api.store.state();
    let resources = state.vpc_resources();
    let is_there = |id: &InternetGatewayId| resources.internet_gateway(*id).is_some();
    let ids = request.internet_gateway_ids.as_deref();
    let chosen = Choice::parse(ids, "InvalidInternetGatewayID.NotFound", "internetGateway", is_there)?;
    let passes = |one: &&Entry<InternetGateway>| chosen.has(&one.id) && filters.pass(&one.tags, |name| property(api, one, name));
    let (shown, next_token) = page.take(resources.internet_gateways().filter(passes), |one| one.id.to_string());
    let internet_gateways = shown.into_iter().map(|one| render(api, one)).collect();
    Ok(DescribeInternetGatewaysResponse { internet_gateways: Some(internet_gateways), next_token })
}

fn property(api: &Api, one: &InternetGateway, name: &str) -> Vec<String> {
    vec![match name {
        "attachment.state" => ATTACHED.to_owned(),
        "attachment.vpc-id" => one.vpc.to_string(),
        "internet-gateway-id" => one.id.to_string(),
        "owner-id" => api.scope().account.to_string(),
        _ => return Vec::new(),
    }]
}

fn render(api: &Api, one: &InternetGateway) -> ec2::InternetGateway {
    let attachment = InternetGatewayAttachment { state: Some(ATTACHED.into()), vpc_id: Some(one.vpc.to_string()) };
    ec2::InternetGateway {
        attachments: Some(vec![attachment]),
        internet_gateway_id: Some(one.id.to_string()),
        owner_id: Some(api.scope().account.to_string()),
        tags: render_tags(&one.tags),
    }
}
