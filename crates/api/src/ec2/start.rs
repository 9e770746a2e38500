//! The default VPC, which is there from the first start.

use berth_model::arn::Scope;
use berth_model::record::{Key, Record};
use berth_model::vpc::default_vpc::default_vpc;
use berth_store::{CommitError, Store, Transaction};

/// Makes the default VPC with all that belongs to it, in one commit, unless there is one or somebody deleted it. Servers that start at
/// the same time over one store make it once.
///
/// # Errors
/// The store's, if it cannot write.
pub async fn make_default_vpc(store: &Store, scope: &Scope) -> Result<(), CommitError> {
    loop {
        let mut transaction = Transaction::new();
        if store.state().vpc_resources().default_vpc_record().is_some() {
            return Ok(());
        }
        for resource in default_vpc(scope) {
            transaction.expect_absent(Key::VpcResource(resource.id()));
            transaction.put(Record::VpcResource(resource));
        }
        match store.commit(transaction).await {
            // Another server makes it too; what it made is seen at the next look.
            Err(CommitError::Conflict(_)) => {}
            outcome => return outcome.map(drop),
        }
    }
}
