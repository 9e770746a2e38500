//! What the actions of account settings share: whose setting a request means, which value holds, how it is shown.

use berth_model::account_setting::{AccountSetting, Choice, choice};
use berth_model::record::Key;
use berth_shapes::ecs::{Setting, SettingName, SettingType};
use berth_store::State;

use crate::context::Api;
use crate::failure::Failure;

/// Most settings kept, of all principals together; ECS has no such limit, but everything here is bounded.
const MOST: usize = 10_000;

/// The principal that a request means: the caller's own if it names none. Every access key of a server belongs to the account's
/// root, who may set anybody's.
pub(crate) fn principal(api: &Api, arn: Option<&str>) -> Result<String, Failure> {
    let root = api.scope().root_principal();
    let Some(arn) = arn else { return Ok(root) };
    let own = format!("arn:aws:iam::{}:", api.scope().account);
    let is_named = |rest: &str| {
        ["user/", "role/"].iter().any(|kind| rest.strip_prefix(kind).is_some_and(|name| !name.is_empty()))
            && arn.len() <= 2048
            && rest.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if arn == root || arn.strip_prefix(&own).is_some_and(is_named) {
        return Ok(arn.to_owned());
    }
    Err(Failure::invalid("The principal must be the ARN of a user, a role or the root of this account: principalArn"))
}

/// The choices of the setting that a request names.
pub(crate) fn known(name: Option<&SettingName>) -> Result<&'static Choice, Failure> {
    name.and_then(|name| choice(name.as_str())).ok_or_else(|| Failure::invalid("Unknown setting name: name"))
}

/// The value that holds for a principal: its own, else the account's, else what AWS starts with.
pub(crate) fn effective(api: &Api, state: &State, choice: &Choice, principal: &str) -> String {
    let name = choice.name.as_str();
    let chosen = state.account_setting(name, principal).or_else(|| state.account_setting(name, &api.scope().root_principal()));
    chosen.map_or_else(|| choice.default.to_owned(), |setting| setting.value.value.clone())
}

/// A setting as ECS shows it.
pub(crate) fn shown(choice: &Choice, principal: &str, value: String) -> Setting {
    Setting {
        name: Some(choice.name.clone()),
        value: Some(value),
        principal_arn: Some(principal.to_owned()),
        r#type: Some(if choice.is_managed { SettingType::AwsManaged } else { SettingType::User }),
    }
}

/// Puts a setting.
pub(crate) async fn put(api: &Api, name: Option<&SettingName>, value: Option<&str>, principal: &str) -> Result<Setting, Failure> {
    let choice = known(name)?;
    let (name, value) = (choice.name.as_str(), value.unwrap_or_default());
    if choice.is_managed {
        return Err(Failure::invalid(format!("The setting {name} is managed by Amazon Web Services and cannot be modified: name")));
    }
    if !choice.values.contains(&value) {
        return Err(Failure::invalid(format!("Invalid value for the setting {name}, which may be {}: value", choice.values.join(", "))));
    }
    let setting = AccountSetting { principal: principal.to_owned(), name: name.to_owned(), value: value.to_owned() };
    let key = Key::AccountSetting(setting.name.clone(), setting.principal.clone());
    api.change(|state, transaction| {
        match state.account_setting(name, principal) {
            Some(before) => transaction.expect(key.clone(), before.modified),
            None if state.account_settings().len() >= MOST => {
                return Err(Failure::invalid(format!("An account has at most {MOST} settings of its principals: principalArn")));
            }
            None => transaction.expect_absent(key.clone()),
        };
        if state.account_setting(name, principal).is_none_or(|before| *before.value != setting) {
            transaction.put(setting.clone());
        }
        Ok(())
    })
    .await?;
    Ok(shown(choice, principal, value.to_owned()))
}

/// Takes a setting back, and shows what holds from then on. Taking back what was never put is no error.
pub(crate) async fn delete(api: &Api, name: Option<&SettingName>, principal: &str) -> Result<Setting, Failure> {
    let choice = known(name)?;
    let name = choice.name.as_str();
    let key = Key::AccountSetting(name.to_owned(), principal.to_owned());
    api.change(|state, transaction| {
        match state.account_setting(name, principal) {
            Some(before) => {
                transaction.expect(key.clone(), before.modified);
                transaction.delete(key.clone());
            }
            None => {
                transaction.expect_absent(key.clone());
            }
        }
        Ok(())
    })
    .await?;
    let value = effective(api, &api.store.state(), choice, principal);
    Ok(shown(choice, principal, value))
}
