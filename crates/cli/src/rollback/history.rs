//! A service's past, read from the API for the way back. It must never choose.

use berth_shapes::ecs;

use super::way::{History, Ongoing, Wanted};
use crate::client::{Client, ClientError};
use crate::services::{self, Place};

/// Reads what came out before, what goes on now, and what the revisions run.
pub(super) async fn read(client: &Client, place: &Place, service: &ecs::Service, wanted: &Wanted) -> Result<History, ClientError> {
    if service.deployments.as_ref().is_none_or(Vec::is_empty) {
        return Ok(History::default());
    }
    let briefs = services::deployments(client, place).await?;
    let current = service.current_service_deployment.clone();
    let went_back = |brief: &&ecs::ServiceDeploymentBrief| is(brief.status.as_ref(), "ROLLBACK_SUCCESSFUL");
    // Of those that went back only the whole record says where to.
    let whole: Vec<String> =
        briefs.iter().filter(went_back).filter_map(|brief| brief.service_deployment_arn.clone()).chain(current.clone()).collect();
    let records = services::describe_deployments(client, &whole).await?;
    let record = |arn: Option<&String>| records.iter().find(|record| arn.is_some() && record.service_deployment_arn.as_ref() == arn);
    let back = |record: &ecs::ServiceDeployment| record.rollback.as_ref()?.service_revision_arn.clone();
    let came_out = |brief: &ecs::ServiceDeploymentBrief| match brief.status.as_ref()?.as_str() {
        "SUCCESSFUL" => brief.target_service_revision_arn.clone(),
        "ROLLBACK_SUCCESSFUL" => back(record(brief.service_deployment_arn.as_ref())?),
        _ => None,
    };
    let came_out: Vec<String> = briefs.iter().filter_map(came_out).collect();
    let ongoing = record(current.as_ref()).and_then(|record| {
        let status = record.status.as_ref()?.as_str();
        let goes_back = matches!(status, "ROLLBACK_REQUESTED" | "ROLLBACK_IN_PROGRESS");
        (goes_back || matches!(status, "PENDING" | "IN_PROGRESS")).then(|| Ongoing {
            arn: current.clone().unwrap_or_default(),
            target: record.target_service_revision.as_ref().and_then(|target| target.arn.clone()),
            has_sources: record.source_service_revisions.as_ref().is_some_and(|sources| !sources.is_empty()),
            back: goes_back.then(|| back(record)),
        })
    });
    let primary = service.current_service_revisions.iter().flatten().next().and_then(|revision| revision.arn.clone());
    let mut arns: Vec<String> = came_out.iter().cloned().chain(primary.clone()).collect();
    arns.extend(ongoing.iter().flat_map(|ongoing| [ongoing.target.clone(), ongoing.back.clone().flatten()]).flatten());
    if let Wanted::Revision(arn) = wanted {
        arns.push(arn.clone());
    }
    arns.sort_unstable();
    arns.dedup();
    let revisions = services::describe_revisions(client, &arns).await?;
    Ok(History {
        current: primary,
        definition: service.task_definition.clone(),
        ongoing,
        came_out,
        definitions: revisions.into_iter().filter_map(|one| one.service_revision_arn.zip(one.task_definition)).collect(),
    })
}

fn is(status: Option<&ecs::ServiceDeploymentStatus>, wanted: &str) -> bool {
    status.is_some_and(|status| status.as_str() == wanted)
}
