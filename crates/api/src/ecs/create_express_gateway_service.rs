//! `CreateExpressGatewayService`: writes the service with its first revision, and the task definition that comes of it, in one commit.

use berth_model::express_service::{ExpressRevision, ExpressService, MAX_SERVICES_OF_CLUSTER};
use berth_model::ids::{ClusterName, DeploymentId, Family, ServiceName};
use berth_model::record::Key;
use berth_model::service::ServiceStatus;
use berth_model::tags::parse_tags;
use berth_shapes::ecs::{CreateExpressGatewayServiceRequest, CreateExpressGatewayServiceResponse};
use berth_store::{State, Transaction};

use super::express_configuration::{Source, Wishes};
use super::{aws_references, express_services};
use crate::context::{Api, active, expect_cluster};
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: CreateExpressGatewayServiceRequest) -> Result<CreateExpressGatewayServiceResponse, Failure> {
    let cluster = api.active_cluster(request.cluster.as_deref())?;
    let given_name = request.service_name.as_deref().filter(|name| !name.is_empty()).map(parse_name).transpose()?;
    let role = request.infrastructure_role_arn.as_deref().unwrap_or_default();
    let role = aws_references::role("infrastructureRoleArn", role)?;
    let tags = parse_tags(request.tags.as_deref())?;
    let wishes = Wishes::from(request);
    wishes.check()?;
    let (number, bits) = (DeploymentId::from_random(api.environment.bits64()).0, api.environment.bits64());
    api.change(|state, transaction| {
        let holder = active(state, &cluster)?;
        let name = given_name.clone().unwrap_or_else(|| express_services::fresh_name(state, &cluster, like(&wishes), bits));
        claim_name(state, transaction, &cluster, &name)?;
        if state.services_of(&cluster).count() + state.express_services_of(&cluster).count() >= MAX_SERVICES_OF_CLUSTER {
            return Err(Failure::client(format!("A cluster can have at most {MAX_SERVICES_OF_CLUSTER} services.")));
        }
        expect_cluster(transaction, holder);
        let (configuration, source) = wishes.resolve(api, state, None, &family(&cluster, &name))?;
        let is_definition_given = matches!(source, Source::Given(_));
        let definition = express_services::definition(api, state, transaction, source);
        let now = api.now();
        let service = ExpressService {
            name,
            cluster: cluster.clone(),
            status: ServiceStatus::Active,
            infrastructure_role_arn: role.clone(),
            revisions: vec![ExpressRevision { number, definition, is_definition_given, configuration, created_at: now }],
            tags: tags.clone(),
            created_at: now,
            updated_at: now,
        };
        let shown = express_services::render(api.scope(), &service, true);
        transaction.put(service);
        Ok(CreateExpressGatewayServiceResponse { service: Some(shown) })
    })
    .await
}

fn parse_name(text: &str) -> Result<ServiceName, Failure> {
    ServiceName::parse(text).ok_or_else(|| {
        Failure::invalid(
            "Invalid service name: up to 255 letters (uppercase and lowercase), numbers, underscores, and hyphens are allowed: serviceName",
        )
    })
}

/// What a service without a name is named after.
fn like(wishes: &Wishes) -> &str {
    let image = wishes.primary_container.as_ref().and_then(|container| container.image.as_deref());
    image.or(wishes.task_definition_arn.as_deref()).unwrap_or_default()
}

/// The family of the definitions that ECS makes: the cluster's name with the service's, unless that is too long.
pub(crate) fn family(cluster: &ClusterName, name: &ServiceName) -> Family {
    Family::parse(&format!("{cluster}-{name}")).unwrap_or_else(|| Family(name.0.clone()))
}

/// No other service may have the name. What an INACTIVE one left goes.
fn claim_name(state: &State, transaction: &mut Transaction, cluster: &ClusterName, name: &ServiceName) -> Result<(), Failure> {
    let key = Key::Service(cluster.clone(), name.clone());
    match state.service(cluster, name) {
        Some(known) if known.status != ServiceStatus::Inactive => return Err(express_services::name_taken(known.status)),
        Some(inactive) => {
            transaction.expect(key.clone(), inactive.modified).delete(key);
            for event in state.events_of(cluster, name) {
                transaction.delete(Key::ServiceEvent(cluster.clone(), name.clone(), event.number));
            }
        }
        None => {
            transaction.expect_absent(key);
        }
    }
    let key = Key::ExpressService(cluster.clone(), name.clone());
    match state.express_service(cluster, name) {
        Some(known) if known.status != ServiceStatus::Inactive => return Err(express_services::name_taken(known.status)),
        // It is written anew under its key.
        Some(inactive) => transaction.expect(key, inactive.modified),
        None => transaction.expect_absent(key),
    };
    Ok(())
}
