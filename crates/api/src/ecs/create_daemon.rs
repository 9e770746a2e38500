//! `CreateDaemon`: writes the daemon with its first deployment.

use berth_model::daemon::{self, Daemon};
use berth_model::ids::DaemonName;
use berth_model::record::Key;
use berth_model::tags::parse_tags;
use berth_shapes::ecs::{CreateDaemonRequest, CreateDaemonResponse, UpdateDaemonRequest};

use super::daemons::Wish;
use crate::context::{Api, active};
use crate::failure::Failure;

/// Longest `clientToken`.
const MAX_TOKEN: usize = 36;
/// Most daemons of a cluster; AWS names no number, but there must be one.
const MOST: usize = 100;

pub(crate) async fn run(api: &Api, request: CreateDaemonRequest) -> Result<CreateDaemonResponse, Failure> {
    let cluster = api.active_cluster(request.cluster_arn.as_deref())?;
    let name = DaemonName::parse(request.daemon_name.as_deref().unwrap_or_default()).ok_or_else(|| {
        Failure::invalid(
            "Invalid daemon name: up to 255 letters (uppercase and lowercase), numbers, underscores, and hyphens are allowed: daemonName",
        )
    })?;
    let client_token = request.client_token.filter(|token| !token.is_empty());
    if client_token.as_ref().is_some_and(|token| token.len() > MAX_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic())) {
        return Err(Failure::invalid(format!(
            "clientToken can have at most {MAX_TOKEN} characters, all of them printable ASCII without spaces."
        )));
    }
    let tags = parse_tags(request.tags.as_deref())?;
    let wish = Wish::parse(
        api,
        UpdateDaemonRequest {
            daemon_arn: None,
            daemon_task_definition_arn: request.daemon_task_definition_arn,
            capacity_provider_arns: request.capacity_provider_arns,
            deployment_configuration: request.deployment_configuration,
            propagate_tags: request.propagate_tags,
            enable_ecs_managed_tags: request.enable_ecs_managed_tags,
            enable_execute_command: request.enable_execute_command,
            critical: request.critical,
        },
    )?;
    api.change(|state, transaction| {
        let holder = active(state, &cluster)?;
        let key = Key::Daemon(cluster.clone(), name.clone());
        match state.daemon(&cluster, &name) {
            Some(known) if known.is_active() => {
                transaction.expect(key, known.modified);
                let is_retry = client_token.is_some() && known.client_token == client_token;
                return if is_retry {
                    Ok(answer(api, &known.value))
                } else {
                    Err(Failure::invalid("Creation of daemon was not idempotent."))
                };
            }
            Some(deleted) => transaction.expect(key, deleted.modified),
            None => transaction.expect_absent(key),
        };
        if state.daemons_of(&cluster).filter(|daemon| daemon.is_active()).count() >= MOST {
            return Err(Failure::client(format!("A cluster can have at most {MOST} daemons.")));
        }
        let deployment = wish.deployment(api, state, transaction, holder)?;
        let daemon = Daemon {
            cluster: cluster.clone(),
            name: name.clone(),
            created_at: deployment.created_at,
            updated_at: deployment.created_at,
            deleted_at: None,
            tags: tags.clone(),
            client_token: client_token.clone(),
            deployments: vec![deployment],
        };
        let shown = answer(api, &daemon);
        transaction.put(daemon);
        Ok(shown)
    })
    .await
}

fn answer(api: &Api, daemon: &Daemon) -> CreateDaemonResponse {
    // A repeated request is told of the deployment that it made, the oldest.
    let first = daemon.deployments.last().map(|one| daemon::deployment_arn(api.scope(), &daemon.cluster, &daemon.name, one.id));
    CreateDaemonResponse {
        daemon_arn: Some(daemon::arn(api.scope(), &daemon.cluster, &daemon.name)),
        status: Some("ACTIVE".into()),
        created_at: Some(daemon.created_at.to_wire()),
        deployment_arn: first,
    }
}
