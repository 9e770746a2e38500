//! `availabilityZoneRebalancing` in requests: what it is by default, and which services cannot have it.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-rebalancing.html>

use berth_model::service::Service;
use berth_scheduler::service::rebalance::ineligible;

use crate::failure::Failure;

/// Fills in the default of a service that has none yet: ENABLED where it can be. Where it is asked for and cannot be, that is refused. A
/// service that is changed later, so that it no longer can be, keeps what it says; its tasks are just not moved, as AWS describes it under
/// "Rebalancing doesn't start".
pub(crate) fn settle(service: &mut Service) -> Result<(), Failure> {
    let obstacle = ineligible(service, &berth_control::strategies(service));
    match (service.settings.availability_zone_rebalancing.as_deref(), obstacle) {
        (Some("ENABLED"), Some(obstacle)) => Err(Failure::invalid(format!(
            "Availability Zone rebalancing does not support {obstacle}. Change the availabilityZoneRebalancing value to DISABLED and try again"
        ))),
        (None, obstacle) => {
            let word = if obstacle.is_some() { "DISABLED" } else { "ENABLED" };
            service.settings.availability_zone_rebalancing = Some(word.to_owned());
            Ok(())
        }
        _ => Ok(()),
    }
}
