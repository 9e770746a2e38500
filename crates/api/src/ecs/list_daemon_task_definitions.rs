//! `ListDaemonTaskDefinitions`: by family, then by revision number.

use berth_model::daemon;
use berth_model::ids::DefinitionId;
use berth_model::time::UnixMillis;
use berth_shapes::ecs::{DaemonTaskDefinitionSummary, ListDaemonTaskDefinitionsRequest, ListDaemonTaskDefinitionsResponse};

use crate::context::Api;
use crate::failure::Failure;
use crate::page::Page;

pub(crate) async fn run(api: &Api, request: ListDaemonTaskDefinitionsRequest) -> Result<ListDaemonTaskDefinitionsResponse, Failure> {
    const ACTION: &str = "ListDaemonTaskDefinitions";
    let page = Page::parse(ACTION, request.next_token.as_deref(), request.max_results, 100)?;
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let (family, prefix) = (given(request.family), given(request.family_prefix));
    if family.is_some() && prefix.is_some() {
        return Err(Failure::invalid("family and familyPrefix cannot be combined."));
    }
    let wanted = request.status.as_ref().map_or("ACTIVE", |status| status.as_str());
    let is_last_only = request.revision.is_some();
    let descending = request.sort.as_ref().is_some_and(|sort| sort.as_str() == "DESC");
    let state = api.store.state();
    let status = |entry: &daemon::DaemonTaskDefinition| {
        // Only what is to be deleted can be in a status that daemons decide.
        entry.status(entry.delete_requested_at.is_some() && state.is_run_by_daemon(&entry.id))
    };
    let all = state
        .daemon_definitions()
        .filter(|entry| family.as_deref().is_none_or(|family| entry.id.family.as_str() == family))
        .filter(|entry| prefix.as_deref().is_none_or(|prefix| entry.id.family.as_str().starts_with(prefix)))
        .filter(|entry| !is_last_only || state.daemon_revisions(&entry.id.family).next_back().is_some_and(|last| last.id == entry.id))
        .filter(|entry| wanted == "ALL" || status(entry).as_str() == wanted);
    let all: Box<dyn Iterator<Item = _>> = if descending { Box::new(all.rev()) } else { Box::new(all) };
    // Revisions compare as numbers: the token's key pads them. `\0` sorts a family before its longer namesakes, as names do.
    let key = |id: &DefinitionId| format!("{}\0{:010}", id.family, id.revision);
    let (entries, next_token) = page.take(ACTION, all, |entry| key(&entry.id), descending);
    let summaries = entries.iter().map(|entry| DaemonTaskDefinitionSummary {
        arn: Some(daemon::definition_arn(api.scope(), &entry.id)),
        registered_at: Some(entry.registered_at.to_wire()),
        registered_by: Some(entry.registered_by.clone()),
        delete_requested_at: entry.delete_requested_at.map(UnixMillis::to_wire),
        status: Some(status(entry).as_str().into()),
    });
    Ok(ListDaemonTaskDefinitionsResponse { daemon_task_definitions: Some(summaries.collect()), next_token })
}
