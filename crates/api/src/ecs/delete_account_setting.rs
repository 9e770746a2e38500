//! `DeleteAccountSetting`: the account's default holds again, or AWS's.

use berth_shapes::ecs::{DeleteAccountSettingRequest, DeleteAccountSettingResponse};

use super::account_settings::{delete, principal};
use crate::context::Api;
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: DeleteAccountSettingRequest) -> Result<DeleteAccountSettingResponse, Failure> {
    let principal = principal(api, request.principal_arn.as_deref())?;
    let setting = delete(api, request.name.as_ref(), &principal).await?;
    Ok(DeleteAccountSettingResponse { setting: Some(setting) })
}
