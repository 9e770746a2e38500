//! `DescribeServices`: up to ten; unknown ones become `failures[]`, INACTIVE ones are shown for a while.

use berth_shapes::ecs::{DescribeServicesRequest, DescribeServicesResponse};

use super::{express_services, render};
use crate::context::{Api, active};
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: DescribeServicesRequest) -> Result<DescribeServicesResponse, Failure> {
    let cluster = api.cluster_name(request.cluster.as_deref())?;
    let named = request.services.unwrap_or_default();
    let state = api.store.state();
    active(&state, &cluster)?;
    if named.is_empty() {
        return Err(Failure::invalid("Services cannot be empty."));
    }
    if named.len() > 10 {
        return Err(Failure::invalid("services can have at most 10 items."));
    }
    let with_tags = request.include.iter().flatten().any(|part| part.as_str() == "TAGS");
    let mut answer = DescribeServicesResponse { services: Some(Vec::new()), failures: Some(Vec::new()) };
    for text in &named {
        let name = berth_model::arn::parse_service(api.scope(), &cluster, text)?;
        match state.service(&cluster, &name) {
            Some(service) => answer.services.get_or_insert_default().push(render::service(&state, api.scope(), service, with_tags)),
            None if let Some(service) = state.express_service(&cluster, &name) => {
                let shown = express_services::render_as_service(api.scope(), service, with_tags);
                answer.services.get_or_insert_default().push(shown);
            }
            None => answer.failures.get_or_insert_default().push(render::missing(api.scope().service(&cluster, &name))),
        }
    }
    Ok(answer)
}
