//! Changes of what belongs to what come one after the other. Whether a VPC has no subnet left, or a name is free, is a fact about many
//! records: a change that relies on one must not meet another that makes it false.

use berth_model::arn::Scope;
use berth_model::record::Key;
use berth_model::vpc::ResourceId;
use berth_store::{State, Transaction, VpcResources};

use super::failures::not_started;
use crate::failure::Failure;

/// Makes the transaction one of those: it expects, and touches, the record of the default VPC, which is always there.
///
/// # Errors
/// `Unavailable` before the first start made that record.
pub(super) fn in_turn<'a>(state: &'a State, transaction: &mut Transaction) -> Result<&'a VpcResources, Failure> {
    let resources = state.vpc_resources();
    let guard = resources.default_vpc_record().ok_or_else(not_started)?;
    let key = Key::VpcResource(ResourceId::Vpc(guard.id));
    transaction.expect(key.clone(), guard.modified);
    transaction.touch(key);
    Ok(resources)
}

/// The ARN of a resource of EC2's, of this account and region.
pub(super) fn arn(scope: &Scope, kind: &str, id: impl std::fmt::Display) -> String {
    format!("arn:aws:ec2:{}:{}:{kind}/{id}", scope.region, scope.account)
}
