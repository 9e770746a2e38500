//! `DescribeRouteTables`: each VPC has one, its main route table, which all of its subnets use.

use berth_model::vpc::{Route, RouteTable, RouteTableId, Target};
use berth_shapes::ec2::{
    self, DescribeRouteTablesRequest, DescribeRouteTablesResponse, RouteOrigin, RouteState, RouteTableAssociation,
    RouteTableAssociationState, RouteTableAssociationStateCode,
};
use berth_store::Entry;

use super::choice::Choice;
use super::filters::Filters;
use super::pages::Page;
use super::tags::render_tags;
use crate::context::Api;
use crate::failure::Failure;

/// The largest page; AWS's, and a tenth of other lists'.
const MOST: usize = 100;
const FILTERS: [&str; 12] = [
    "association.main",
    "association.route-table-association-id",
    "association.route-table-id",
    "association.subnet-id",
    "owner-id",
    "route-table-id",
    "route.destination-cidr-block",
    "route.gateway-id",
    "route.origin",
    "route.state",
    "tag-key",
    "vpc-id",
];

/// Answers.
pub(super) async fn describe(api: &Api, request: DescribeRouteTablesRequest) -> Result<DescribeRouteTablesResponse, Failure> {
    let page = Page::parse("DescribeRouteTables", request.next_token.as_deref(), request.max_results, MOST)?;
    let filters = Filters::parse(request.filters.as_deref(), &FILTERS)?;
    let state = api.store.state();
    let resources = state.vpc_resources();
    let is_there = |id: &RouteTableId| resources.route_table(*id).is_some();
    let chosen = Choice::parse(request.route_table_ids.as_deref(), "InvalidRouteTableID.NotFound", "routeTable", is_there)?;
    let passes = |one: &&Entry<RouteTable>| chosen.has(&one.id) && filters.pass(&one.tags, |name| property(api, one, name));
    let (shown, next_token) = page.take(resources.route_tables().filter(passes), |one| one.id.to_string());
    Ok(DescribeRouteTablesResponse { route_tables: Some(shown.into_iter().map(|one| render(api, one)).collect()), next_token })
}

fn gateway(route: &Route) -> String {
    match route.target {
        Target::Local => "local".to_owned(),
        Target::InternetGateway(id) => id.to_string(),
    }
}

fn origin(route: &Route) -> RouteOrigin {
    match route.target {
        Target::Local => RouteOrigin::CreateRouteTable,
        Target::InternetGateway(_) => RouteOrigin::CreateRoute,
    }
}

/// A table has one association, so that one's id is the table's own.
fn association(id: RouteTableId) -> String {
    format!("rtbassoc-{:017x}", id.bits())
}

fn property(api: &Api, one: &RouteTable, name: &str) -> Vec<String> {
    let of_routes = |value: fn(&Route) -> String| one.routes.iter().map(value).collect();
    vec![match name {
        "association.main" => "true".to_owned(),
        "association.route-table-association-id" => association(one.id),
        "association.route-table-id" | "route-table-id" => one.id.to_string(),
        "owner-id" => api.scope().account.to_string(),
        "route.destination-cidr-block" => return of_routes(|route| route.destination.to_string()),
        "route.gateway-id" => return of_routes(gateway),
        "route.origin" => return of_routes(|route| origin(route).to_string()),
        "route.state" => return of_routes(|_| RouteState::Active.to_string()),
        "vpc-id" => one.vpc.to_string(),
        // Subnets use the main table without an association of their own.
        _ => return Vec::new(),
    }]
}

fn render(api: &Api, one: &RouteTable) -> ec2::RouteTable {
    let routes = one.routes.iter().map(|route| ec2::Route {
        destination_cidr_block: Some(route.destination.to_string()),
        gateway_id: Some(gateway(route)),
        origin: Some(origin(route)),
        state: Some(RouteState::Active),
        ..Default::default()
    });
    let association = RouteTableAssociation {
        main: Some(true),
        route_table_association_id: Some(association(one.id)),
        route_table_id: Some(one.id.to_string()),
        association_state: Some(RouteTableAssociationState {
            state: Some(RouteTableAssociationStateCode::Associated),
            ..Default::default()
        }),
        ..Default::default()
    };
    ec2::RouteTable {
        associations: Some(vec![association]),
        propagating_vgws: Some(Vec::new()),
        route_table_id: Some(one.id.to_string()),
        routes: Some(routes.collect()),
        tags: render_tags(&one.tags),
        vpc_id: Some(one.vpc.to_string()),
        owner_id: Some(api.scope().account.to_string()),
    }
}
