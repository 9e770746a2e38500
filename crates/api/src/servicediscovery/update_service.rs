//! `UpdateService` of Cloud Map: description, and the records' TTLs.
//!
//! What a change leaves out stays as it is: AWS's documentation says both that records which are left out are deleted and that a service's
//! record types cannot change, and only the second can be held.
//! <https://docs.aws.amazon.com/cloud-map/latest/api/API_UpdateService.html>

use std::collections::BTreeSet;

use berth_model::namespace::{OperationTarget, OperationType};
use berth_model::record::Key;
use berth_shapes::servicediscovery::{ErrorCode, UpdateServiceRequest, UpdateServiceResponse};

use super::create_service::{record_settings, refuse_health_check};
use super::failure::{failure, invalid};
use super::{operations, reference, render};
use crate::context::Api;
use crate::failure::Failure;

pub(super) async fn run(api: &Api, request: UpdateServiceRequest) -> Result<UpdateServiceResponse, Failure> {
    let change = request.service.unwrap_or_default();
    let operation = operations::draw(api);
    api.change(|state, transaction| {
        let known = reference::service(api, state, request.id.as_deref())?;
        let namespace = state.namespace(&known.namespace);
        let namespace = namespace.ok_or_else(|| failure(ErrorCode::ServiceNotFound, "The service's namespace is gone."))?;
        refuse_health_check(namespace, change.health_check_config.is_some())?;
        let mut service = (*known.value).clone();
        if let Some(description) = &change.description {
            service.description = Some(description.clone()).filter(|text| !text.is_empty());
        }
        if let Some(config) = &change.dns_config {
            let records = record_settings(config.dns_records.as_deref().unwrap_or_default())?;
            let Some(settings) = &mut service.dns else {
                return Err(invalid("The service is found by API calls only: Service.DnsConfig"));
            };
            let kinds =
                |records: &[berth_model::discovery::RecordSetting]| records.iter().map(|record| record.kind).collect::<BTreeSet<_>>();
            if kinds(&records) != kinds(&settings.records) {
                let has = render::record_types(settings);
                return Err(invalid(format!("A service's record types cannot be changed; it has {has}: Service.DnsConfig.DnsRecords")));
            }
            settings.records = records;
        }
        transaction.expect(Key::DiscoveryService(service.id.clone()), known.modified);
        operations::note(api, transaction, &operation, OperationType::UpdateService, &[(OperationTarget::Service, known.id.as_str())]);
        if service != *known.value {
            transaction.put(service);
        }
        Ok(UpdateServiceResponse { operation_id: Some(operation.to_string()) })
    })
    .await
}
