//! What readers ask of gateways and Express services.

use berth_model::express_service::ExpressService;
use berth_model::gateway::Gateway;
use berth_model::ids::{ClusterName, GatewayName, ServiceName};

use super::{Entry, State};

impl State {
    /// A gateway.
    #[must_use]
    pub fn gateway(&self, name: &GatewayName) -> Option<&Entry<Gateway>> {
        self.gateways.get(name)
    }

    /// All gateways by name.
    pub fn gateways(&self) -> impl ExactSizeIterator<Item = &Entry<Gateway>> {
        self.gateways.values()
    }

    /// An Express service, INACTIVE ones too.
    #[must_use]
    pub fn express_service(&self, cluster: &ClusterName, name: &ServiceName) -> Option<&Entry<ExpressService>> {
        self.express_services.get(&(cluster.clone(), name.clone()))
    }

    /// The Express services of a cluster by name.
    pub fn express_services_of(&self, cluster: &ClusterName) -> impl Iterator<Item = &Entry<ExpressService>> {
        self.express_services
            .range((cluster.clone(), ServiceName("".into()))..)
            .take_while({
                let cluster = cluster.clone();
                move |((of, _), _)| *of == cluster
            })
            .map(|(_, entry)| entry)
    }

    /// All Express services.
    pub fn express_services(&self) -> impl Iterator<Item = &Entry<ExpressService>> {
        self.express_services.values()
    }
}

#[cfg(test)]
mod tests {
    use berth_model::record::{Key, Record};
    use serde_json::json;

    use super::*;
    use crate::backend::{Stored, Write};
    use crate::transaction::Revision;

    /// Records as backends keep them.
    fn record(kind: &str, name: &str, cluster: &str) -> Record {
        let value = match kind {
            "Gateway" => json!({
                "name": name, "status": "ACTIVE", "infrastructure_role_arn": "r", "deletion_protection": true, "host_shared_alb": {},
                "propagate_tags": true, "created_at": 1, "updated_at": 1,
            }),
            _ => json!({
                "name": name, "cluster": cluster, "status": "ACTIVE", "infrastructure_role_arn": "r", "created_at": 1, "updated_at": 1,
                "revisions": [{
                    "number": 1, "definition": {"family": "f", "revision": 1}, "is_definition_given": false, "configuration": {},
                    "created_at": 1,
                }],
            }),
        };
        serde_json::from_value(json!({"kind": kind, "value": value})).expect("a record")
    }

    fn put(state: &mut State, record: Record) {
        state.apply(Write::Put(Stored { record, created: Revision(1), modified: Revision(1), version: 1 }));
    }

    #[test]
    fn records_come_and_go_and_stand_in_order() {
        let mut state = State::default();
        let all = [
            record("Gateway", "b", ""),
            record("Gateway", "a", ""),
            record("ExpressService", "web", "c"),
            record("ExpressService", "api", "c"),
            record("ExpressService", "web", "c-2"),
        ];
        all.iter().for_each(|record| put(&mut state, record.clone()));
        assert!(all.iter().all(|record| state.holds(record)) && !state.holds(&record("Gateway", "c", "")));
        assert_eq!(state.records().count(), all.len());
        assert_eq!(state.keys().len(), all.len());
        let gateways: Vec<_> = state.gateways().map(|gateway| gateway.name.to_string()).collect();
        assert_eq!((gateways, state.gateways().len()), (vec!["a".to_owned(), "b".to_owned()], 2));
        let of = |state: &State, cluster: &str| {
            let cluster = ClusterName::parse(cluster).expect("a name");
            state.express_services_of(&cluster).map(|service| service.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!((of(&state, "c"), of(&state, "c-2"), of(&state, "d")), (vec!["api".into(), "web".into()], vec!["web".into()], vec![]));
        for key in all.iter().map(Record::key) {
            state.apply(Write::Touch { key: key.clone(), modified: Revision(7), version: 2 });
            assert_eq!(state.counters(&key), Some((Revision(1), Revision(7), 2)));
            state.apply(Write::Delete(key.clone()));
            assert_eq!(state.modified(&key), None);
        }
        let gateway = GatewayName::parse("a").expect("a name");
        assert!(state.gateway(&gateway).is_none() && state.express_services().next().is_none());
        assert_eq!(state.counters(&Key::Gateway(gateway)), None);
    }
}
