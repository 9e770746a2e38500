//! `DescribeDaemonRevisions`: up to twenty; unknown ones become `failures[]`.

use berth_model::daemon::{self, Daemon, DaemonRevision};
use berth_model::ids::DaemonRevisionId;
use berth_shapes::ecs::{self, DescribeDaemonRevisionsRequest, DescribeDaemonRevisionsResponse};

use super::render;
use crate::context::{Api, active};
use crate::failure::Failure;

/// Most revisions in one request.
const MOST: usize = 20;

pub(crate) async fn run(api: &Api, request: DescribeDaemonRevisionsRequest) -> Result<DescribeDaemonRevisionsResponse, Failure> {
    let named = request.daemon_revision_arns.unwrap_or_default();
    if !(1..=MOST).contains(&named.len()) {
        return Err(Failure::invalid(format!("A request has 1 to {MOST} daemon revisions: daemonRevisionArns")));
    }
    let state = api.store.state();
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for text in &named {
        let (cluster, name, id): (_, _, DaemonRevisionId) = daemon::parse_part(api.scope(), "daemon-revision", text)?;
        active(&state, &cluster)?;
        let known = state.daemon(&cluster, &name).and_then(|daemon| {
            let revision = daemon.deployments.iter().filter_map(|one| one.target.as_ref()).find(|revision| revision.id == id)?;
            Some(shown(api, &daemon.value, revision))
        });
        match known {
            Some(revision) => found.push(revision),
            None => failures.push(render::missing(text.clone())),
        }
    }
    Ok(DescribeDaemonRevisionsResponse { daemon_revisions: Some(found), failures: Some(failures) })
}

fn shown(api: &Api, daemon: &Daemon, revision: &DaemonRevision) -> ecs::DaemonRevision {
    // Digests are found out when an image is pulled, and nothing pulls it.
    let images = revision.images.iter().map(|image| ecs::DaemonContainerImage {
        container_name: Some(image.container.clone()),
        image: Some(image.image.clone()),
        image_digest: None,
    });
    ecs::DaemonRevision {
        daemon_revision_arn: Some(daemon::revision_arn(api.scope(), &daemon.cluster, &daemon.name, revision.id)),
        cluster_arn: Some(api.scope().cluster(&daemon.cluster)),
        daemon_arn: Some(daemon::arn(api.scope(), &daemon.cluster, &daemon.name)),
        daemon_task_definition_arn: Some(daemon::definition_arn(api.scope(), &revision.definition)),
        created_at: Some(revision.created_at.to_wire()),
        container_images: Some(images.collect()),
        propagate_tags: Some(if revision.propagates_tags { "DAEMON" } else { "NONE" }.into()),
        enable_ecs_managed_tags: Some(revision.enable_ecs_managed_tags),
        enable_execute_command: Some(revision.enable_execute_command),
        critical: Some(revision.critical),
    }
}
