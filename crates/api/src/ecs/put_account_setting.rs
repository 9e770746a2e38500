//! `PutAccountSetting`: a setting of the caller, or of the principal named.

use berth_shapes::ecs::{PutAccountSettingRequest, PutAccountSettingResponse};

use super::account_settings::{principal, put};
use crate::context::Api;
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: PutAccountSettingRequest) -> Result<PutAccountSettingResponse, Failure> {
    let principal = principal(api, request.principal_arn.as_deref())?;
    let setting = put(api, request.name.as_ref(), request.value.as_deref(), &principal).await?;
    Ok(PutAccountSettingResponse { setting: Some(setting) })
}
