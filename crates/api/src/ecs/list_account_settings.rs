//! `ListAccountSettings`: what a principal chose, or with `effectiveSettings` what holds for it.

use berth_model::account_setting::{CHOICES, choice};
use berth_shapes::ecs::{ListAccountSettingsRequest, ListAccountSettingsResponse};

use super::account_settings::{effective, known, principal, shown};
use crate::context::Api;
use crate::failure::Failure;
use crate::page::Page;

/// Most settings of a page, and how many it has if the request names no number.
const MOST: usize = 10;

pub(crate) async fn run(api: &Api, request: ListAccountSettingsRequest) -> Result<ListAccountSettingsResponse, Failure> {
    let page = Page::parse_up_to("ListAccountSettings", request.next_token.as_deref(), request.max_results, MOST, MOST)?;
    let principal = principal(api, request.principal_arn.as_deref())?;
    if request.name.is_some() {
        known(request.name.as_ref())?;
    }
    if request.value.is_some() && request.name.is_none() {
        return Err(Failure::invalid("A setting's name must be specified to filter by its value: name"));
    }
    let state = api.store.state();
    let is_wanted = |name: &str, value: &str| {
        request.name.as_ref().is_none_or(|wanted| wanted.as_str() == name)
            && request.value.as_ref().is_none_or(|wanted| wanted.as_str() == value)
    };
    let settings: Vec<_> = if request.effective_settings == Some(true) {
        CHOICES.iter().map(|choice| (choice, effective(api, &state, choice, &principal))).collect()
    } else {
        let own = state.account_settings().filter(|setting| setting.principal == principal);
        own.filter_map(|setting| Some((choice(&setting.name)?, setting.value.value.clone()))).collect()
    };
    let settings = settings.into_iter().filter(|(choice, value)| is_wanted(choice.name.as_str(), value));
    let mut settings: Vec<_> = settings.map(|(choice, value)| shown(choice, &principal, value)).collect();
    let name = |setting: &berth_shapes::ecs::Setting| setting.name.as_ref().map(ToString::to_string).unwrap_or_default();
    settings.sort_by_key(name);
    let (settings, next_token) = page.take("ListAccountSettings", settings.into_iter(), name, false);
    Ok(ListAccountSettingsResponse { settings: Some(settings), next_token })
}
