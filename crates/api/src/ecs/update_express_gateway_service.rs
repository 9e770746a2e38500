//! `UpdateExpressGatewayService`: absent members stay, empty ones go. What changes anything makes a new revision.

use berth_model::express_service::ExpressRevision;
use berth_model::ids::DeploymentId;
use berth_model::record::Key;
use berth_shapes::ecs::{UpdateExpressGatewayServiceRequest, UpdateExpressGatewayServiceResponse};

use super::create_express_gateway_service::family;
use super::express_configuration::{Source, Wishes};
use super::express_services;
use crate::context::{Api, active, expect_cluster};
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: UpdateExpressGatewayServiceRequest) -> Result<UpdateExpressGatewayServiceResponse, Failure> {
    let arn = request.service_arn.clone();
    express_services::parse(api, &api.store.state(), arn.as_deref())?;
    let wishes = Wishes::from(request);
    wishes.check()?;
    let number = DeploymentId::from_random(api.environment.bits64()).0;
    api.change(|state, transaction| {
        let entry = express_services::find_active(api, state, arn.as_deref())?;
        let before = entry.newest();
        let (configuration, source) = wishes.resolve(api, state, Some(before), &family(&entry.cluster, &entry.name))?;
        transaction.expect(Key::ExpressService(entry.cluster.clone(), entry.name.clone()), entry.modified);
        let is_same = match &source {
            Source::Kept(definition) | Source::Given(definition) => *definition == before.definition,
            Source::Made(_) => false,
        };
        if is_same && configuration == before.configuration {
            return Ok(UpdateExpressGatewayServiceResponse { service: Some(express_services::render_updated(api.scope(), entry)) });
        }
        expect_cluster(transaction, active(state, &entry.cluster)?);
        let is_definition_given = match &source {
            Source::Kept(_) => before.is_definition_given,
            Source::Given(_) => true,
            Source::Made(_) => false,
        };
        let definition = express_services::definition(api, state, transaction, source);
        let now = api.now();
        let service = entry.revised(ExpressRevision { number, definition, is_definition_given, configuration, created_at: now }, now);
        let shown = express_services::render_updated(api.scope(), &service);
        transaction.put(service);
        Ok(UpdateExpressGatewayServiceResponse { service: Some(shown) })
    })
    .await
}
