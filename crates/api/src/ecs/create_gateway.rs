//! `CreateGateway`: synchronous; what is made is the record alone. Load balancers come with the first connector that uses it.

use berth_model::gateway::{Gateway, GatewayStatus, MAX_GATEWAYS};
use berth_model::ids::GatewayName;
use berth_model::record::Key;
use berth_model::tags::parse_tags;
use berth_shapes::ecs::{CreateGatewayRequest, CreateGatewayResponse};

use super::{aws_references, gateways};
use crate::context::Api;
use crate::failure::Failure;

/// Longest `clientToken`: RunTask's.
const MAX_TOKEN: usize = 64;

pub(crate) async fn run(api: &Api, request: CreateGatewayRequest) -> Result<CreateGatewayResponse, Failure> {
    let name = GatewayName::parse(request.name.as_deref().unwrap_or_default()).ok_or_else(|| {
        Failure::invalid(
            "Invalid gateway name: up to 255 letters (uppercase and lowercase), numbers, underscores, and hyphens are allowed: name",
        )
    })?;
    let client_token = request.client_token.filter(|token| !token.is_empty());
    if client_token.as_ref().is_some_and(|token| token.len() > MAX_TOKEN) {
        return Err(Failure::invalid(format!("clientToken can have at most {MAX_TOKEN} characters.")));
    }
    let role = aws_references::role("infrastructureRoleArn", request.infrastructure_role_arn.as_deref().unwrap_or_default())?;
    let configuration = gateways::configuration(request.configuration)?;
    let tags = parse_tags(request.tags.as_deref())?;
    let propagate_tags = request.propagate_tags.is_none_or(|from| from.as_str() != "NONE");
    let deletion_protection = request.deletion_protection.unwrap_or(true);
    api.change(|state, transaction| {
        let key = Key::Gateway(name.clone());
        let retried = state.gateways().find(|known| client_token.is_some() && known.client_token == client_token);
        if let Some(known) = retried {
            transaction.expect(Key::Gateway(known.name.clone()), known.modified);
            return Ok(answer(api, known));
        }
        // The model has no error of its own for this; CreateCapacityProvider answers so.
        if state.gateway(&name).is_some() {
            return Err(Failure::client("The specified gateway already exists. To change its configuration, update the gateway: name"));
        }
        if state.gateways().len() >= MAX_GATEWAYS {
            return Err(Failure::client(format!("An account can have at most {MAX_GATEWAYS} gateways.")));
        }
        transaction.expect_absent(key);
        let now = api.now();
        let gateway = Gateway {
            name: name.clone(),
            status: GatewayStatus::Active,
            infrastructure_role_arn: role.clone(),
            deletion_protection,
            host_shared_alb: configuration.clone(),
            propagate_tags,
            tags: tags.clone(),
            client_token: client_token.clone(),
            created_at: now,
            updated_at: now,
        };
        let shown = answer(api, &gateway);
        transaction.put(gateway);
        Ok(shown)
    })
    .await
}

fn answer(api: &Api, gateway: &Gateway) -> CreateGatewayResponse {
    CreateGatewayResponse {
        gateway_arn: Some(api.scope().gateway(&gateway.name)),
        name: Some(gateway.name.to_string()),
        status: Some(gateway.status.as_str().into()),
    }
}
