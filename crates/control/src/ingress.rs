//! What gateways and Express services come to. Changes of them are asked for by users and would go to load balancers and tasks first;
//! of those there are none, since connectors are refused and Express services are records, so each change is through as soon as this
//! loop sees it. It never starts a task.

use std::time::Duration;

use berth_model::cluster::Cluster;
use berth_model::express_service::ExpressService;
use berth_model::gateway::{AssociationStatus, Gateway, GatewayStatus};
use berth_model::record::Record;
use berth_model::service::ServiceStatus;
use berth_store::{Change, CommitError, Entry, Revision, State, Store, Transaction, Watcher};

/// Most records of one commit.
const BATCH: usize = 500;
/// How often it looks even if nothing changes: another peer may have led before, or the store may have refused a write.
const EVERY: Duration = Duration::from_secs(60);

/// Records that are to change, each with the commit that its present form is from. Pure.
#[must_use]
pub fn settled(state: &State) -> Vec<(Revision, Record)> {
    let gateways = state.gateways().filter_map(|entry| Some((entry.modified, updated(entry)?.into())));
    let clusters = state.clusters().filter_map(|entry| Some((entry.modified, disassociated(entry)?.into())));
    let services = state.express_services().filter_map(|entry| Some((entry.modified, deployed(entry)?.into())));
    gateways.chain(clusters).chain(services).collect()
}

/// Every load balancer of the gateway has taken the change.
fn updated(gateway: &Entry<Gateway>) -> Option<Gateway> {
    (gateway.status == GatewayStatus::UpdateInProgress)
        .then(|| Gateway { status: GatewayStatus::UpdateComplete, ..(*gateway.value).clone() })
}

/// No route is left of associations that are ending.
fn disassociated(cluster: &Entry<Cluster>) -> Option<Cluster> {
    let ends = |status| status == AssociationStatus::Disassociating;
    cluster.gateways.iter().any(|association| ends(association.status)).then(|| {
        let mut cluster = (*cluster.value).clone();
        cluster.gateways.retain(|association| !ends(association.status));
        cluster
    })
}

/// No task is left: neither of a service that is DRAINING nor of a revision that was replaced.
fn deployed(service: &Entry<ExpressService>) -> Option<ExpressService> {
    let is_draining = service.status == ServiceStatus::Draining;
    (is_draining || service.revisions.len() > 1).then(|| {
        let mut service = (*service.value).clone();
        service.revisions.truncate(1);
        if is_draining {
            service.status = ServiceStatus::Inactive;
        }
        service
    })
}

/// Runs for ever; works while this peer leads.
pub(crate) async fn run(store: Store) {
    let mut watcher = store.watch(store.state().revision);
    loop {
        if store.leads() {
            let found = settled(&store.state());
            for batch in found.chunks(BATCH.min(store.max_changes())) {
                let mut transaction = Transaction::new();
                for (modified, record) in batch {
                    transaction.expect(record.key(), *modified).put(record.clone());
                }
                match store.commit(transaction).await {
                    // What came between is looked at at once: it is a change as well.
                    Ok(_) | Err(CommitError::Conflict(_)) => {}
                    Err(error) => {
                        tracing::warn!(%error, "cannot note that gateways and Express services have settled");
                        break;
                    }
                }
            }
        }
        until_something_changes(&store, &mut watcher).await;
    }
}

/// Waits for a change of what this loop looks at, or for its hour.
async fn until_something_changes(store: &Store, watcher: &mut Watcher) {
    let concerns = |change: &Change| matches!(change, Change::Put(Record::Gateway(_) | Record::Cluster(_) | Record::ExpressService(_)));
    let change = async {
        loop {
            match watcher.next().await {
                Ok(commits) if !commits.iter().flat_map(|commit| &commit.changes).any(concerns) => {}
                Ok(_) => return,
                Err(_) => {
                    // Too far behind to be told; it looks at everything anyway.
                    watcher.resume_from(store.state().revision);
                    return;
                }
            }
        }
    };
    let _ = tokio::time::timeout(EVERY, change).await;
}

#[cfg(test)]
mod tests {
    use berth_model::express_service::ExpressRevision;
    use berth_model::gateway::Association;
    use berth_model::ids::{ClusterName, DefinitionId, Family, GatewayName, ServiceName};
    use berth_model::time::UnixMillis;
    use berth_store::backend::Memory;

    use super::*;

    fn gateway(name: &str, status: GatewayStatus) -> Gateway {
        Gateway {
            name: GatewayName::parse(name).expect("a name"),
            status,
            infrastructure_role_arn: String::new(),
            deletion_protection: true,
            host_shared_alb: Default::default(),
            propagate_tags: true,
            tags: Default::default(),
            client_token: None,
            created_at: UnixMillis(1),
            updated_at: UnixMillis(2),
        }
    }

    fn express(name: &str, status: ServiceStatus, revisions: u64) -> ExpressService {
        let revision = |number| ExpressRevision {
            number,
            definition: DefinitionId { family: Family::parse("web").expect("a family"), revision: 1 },
            is_definition_given: false,
            configuration: Default::default(),
            created_at: UnixMillis(1),
        };
        ExpressService {
            name: ServiceName::parse(name).expect("a name"),
            cluster: ClusterName::parse("c").expect("a name"),
            status,
            infrastructure_role_arn: String::new(),
            revisions: (0..revisions).map(revision).collect(),
            tags: Default::default(),
            created_at: UnixMillis(1),
            updated_at: UnixMillis(2),
        }
    }

    fn cluster(gateways: Vec<Association>) -> Cluster {
        let name = ClusterName::parse("c").expect("a name");
        let status = berth_model::cluster::ClusterStatus::Active;
        let mut cluster: Cluster = serde_json::from_value(serde_json::json!({
            "name": name, "status": status, "created_at": 1, "tags": {}, "settings": [], "configuration": null,
            "service_connect_defaults": null, "capacity_providers": [], "default_capacity_provider_strategy": [],
        }))
        .expect("a cluster as stores of before have it");
        cluster.gateways = gateways;
        cluster
    }

    #[tokio::test]
    async fn every_change_is_through_at_the_first_look_and_nothing_at_the_second() {
        let association = |name: &str, status| Association { gateway: GatewayName::parse(name).expect("a name"), status };
        let stays = association("a", AssociationStatus::Active);
        let store = Store::open_inline(Memory).expect("a store in memory");
        let mut transaction = Transaction::new();
        transaction.put(gateway("a", GatewayStatus::Active)).put(gateway("b", GatewayStatus::UpdateInProgress));
        transaction.put(cluster(vec![stays.clone(), association("b", AssociationStatus::Disassociating)]));
        transaction.put(express("old", ServiceStatus::Draining, 2)).put(express("web", ServiceStatus::Active, 2));
        transaction.put(express("api", ServiceStatus::Active, 1)).put(express("gone", ServiceStatus::Inactive, 1));
        store.commit(transaction).await.expect("it is taken");

        let found = settled(&store.state());
        let records: Vec<_> = found.iter().map(|(_, record)| record.clone()).collect();
        let expected: Vec<Record> = vec![
            gateway("b", GatewayStatus::UpdateComplete).into(),
            cluster(vec![stays]).into(),
            express("old", ServiceStatus::Inactive, 1).into(),
            express("web", ServiceStatus::Active, 1).into(),
        ];
        assert_eq!(records, expected);

        let mut transaction = Transaction::new();
        for (modified, record) in found {
            transaction.expect(record.key(), modified).put(record);
        }
        store.commit(transaction).await.expect("it is taken");
        assert_eq!(settled(&store.state()), []);
    }
}
