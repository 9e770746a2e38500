//! `DescribeServiceRevisions`: up to twenty by their ARNs; those that are not there, or went with their service, become `failures[]`.

use berth_model::arn::parse_service_revision;
use berth_model::service::ServiceStatus;
use berth_shapes::ecs::{DescribeServiceRevisionsRequest, DescribeServiceRevisionsResponse};

use super::{render, service_history};
use crate::context::{Api, active};
use crate::failure::Failure;

/// Most that can be named at once.
const MOST: usize = 20;

#[expect(clippy::unused_async, reason = "every action has this form")]
pub(crate) async fn run(api: &Api, request: DescribeServiceRevisionsRequest) -> Result<DescribeServiceRevisionsResponse, Failure> {
    let named = request.service_revision_arns.unwrap_or_default();
    if named.is_empty() {
        return Err(Failure::invalid("serviceRevisionArns cannot be empty."));
    }
    if named.len() > MOST {
        return Err(Failure::invalid(format!("serviceRevisionArns can have at most {MOST} items.")));
    }
    let state = api.store.state();
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for arn in named {
        let (cluster, name, id) = parse_service_revision(api.scope(), &arn)?;
        active(&state, &cluster)?;
        let is_there = state.service(&cluster, &name).is_some_and(|service| service.status != ServiceStatus::Inactive);
        match state.service_revision(&cluster, &name, id).filter(|_| is_there) {
            Some(revision) => found.push(service_history::render_revision(api.scope(), revision)),
            None => failures.push(render::missing(arn)),
        }
    }
    Ok(DescribeServiceRevisionsResponse { service_revisions: Some(found), failures: Some(failures) })
}
