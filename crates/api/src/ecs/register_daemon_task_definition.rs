//! `RegisterDaemonTaskDefinition`: checks the document, fills in ECS's defaults, gives the next revision. Families of daemon task
//! definitions count on their own.

use std::sync::Arc;

use berth_model::daemon::{self, DaemonTaskDefinition};
use berth_model::ids::{DefinitionId, Family};
use berth_model::needs;
use berth_model::record::{Key, Record};
use berth_model::tags::parse_tags;
use berth_model::task_definition::FamilyCounter;
use berth_shapes::ecs::{self, ErrorCode, RegisterDaemonTaskDefinitionRequest, RegisterDaemonTaskDefinitionResponse};

use super::daemon_containers;
use super::register_task_definition::{MAX_DOCUMENT, task_size};
use crate::context::Api;
use crate::failure::Failure;

/// Most revisions of a family.
const MOST_REVISIONS: u32 = 1_000_000;

pub(crate) async fn run(api: &Api, request: RegisterDaemonTaskDefinitionRequest) -> Result<RegisterDaemonTaskDefinitionResponse, Failure> {
    let family = request.family.as_deref().unwrap_or_default();
    if family.is_empty() {
        return Err(Failure::client("Family should not be null or empty."));
    }
    let family = Family::parse(family).ok_or_else(|| {
        Failure::client("Family contains invalid characters. Up to 255 letters (uppercase and lowercase), numbers, hyphens, and underscores are allowed.")
    })?;
    let tags = parse_tags(request.tags.as_deref())?;
    let document = document(&family, request)?;
    let size = serde_json::to_vec(&document).map_or(0, |json| json.len());
    if size > MAX_DOCUMENT {
        return Err(Failure::client(format!("Actual length: '{size}'. Max allowed length is '{MAX_DOCUMENT}' bytes.")));
    }
    api.change(|state, transaction| {
        let counter = state.daemon_family(&family);
        let key = Key::DaemonFamily(family.clone());
        match counter {
            Some(known) => transaction.expect(key, known.modified),
            None => transaction.expect_absent(key),
        };
        let revision = counter.map_or(0, |known| known.last_revision) + 1;
        if revision > MOST_REVISIONS {
            let text = format!("A family can have at most {MOST_REVISIONS} revisions.");
            return Err(Failure::modelled(ErrorCode::LimitExceeded, text));
        }
        let id = DefinitionId { family: family.clone(), revision };
        let arn = daemon::definition_arn(api.scope(), &id);
        transaction.put(Record::DaemonFamily(Arc::new(FamilyCounter { family: family.clone(), last_revision: revision })));
        transaction.put(DaemonTaskDefinition {
            id,
            registered_at: api.now(),
            registered_by: api.scope().root_principal(),
            delete_requested_at: None,
            tags: tags.clone(),
            document: document.clone(),
        });
        Ok(RegisterDaemonTaskDefinitionResponse { daemon_task_definition_arn: Some(arn) })
    })
    .await
}

fn document(family: &Family, request: RegisterDaemonTaskDefinitionRequest) -> Result<ecs::DaemonTaskDefinition, Failure> {
    let cpu = task_size("cpu", request.cpu.as_deref(), needs::parse_cpu)?;
    let memory = task_size("memory", request.memory.as_deref(), needs::parse_memory)?;
    let volumes = request.volumes.unwrap_or_default();
    let mut containers = request.container_definitions.unwrap_or_default();
    daemon_containers::check(&mut containers, &volumes, memory.is_some())?;
    Ok(ecs::DaemonTaskDefinition {
        family: Some(family.to_string()),
        task_role_arn: request.task_role_arn,
        execution_role_arn: request.execution_role_arn,
        container_definitions: Some(containers),
        volumes: Some(volumes),
        cpu,
        memory,
        pid_mode: Some(request.pid_mode.unwrap_or_else(|| "none".into())),
        ipc_mode: Some(request.ipc_mode.unwrap_or_else(|| "none".into())),
        ..Default::default()
    })
}
