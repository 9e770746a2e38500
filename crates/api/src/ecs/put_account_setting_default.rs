//! `PutAccountSettingDefault`: a setting of everybody in the account who has none of their own.

use berth_shapes::ecs::{PutAccountSettingDefaultRequest, PutAccountSettingDefaultResponse};

use super::account_settings::put;
use crate::context::Api;
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: PutAccountSettingDefaultRequest) -> Result<PutAccountSettingDefaultResponse, Failure> {
    let setting = put(api, request.name.as_ref(), request.value.as_deref(), &api.scope().root_principal()).await?;
    Ok(PutAccountSettingDefaultResponse { setting: Some(setting) })
}
