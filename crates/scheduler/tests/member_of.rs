//! memberOf at placement: it binds, it names the expression that refused, and tasks placed a moment ago count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use berth_model::container_instance::{AgentVersion, ContainerInstance, ContainerInstanceStatus, Resources};
use berth_model::ids::{ClusterName, ContainerInstanceId, TaskId};
use berth_model::needs::Demand;
use berth_model::time::UnixMillis;
use berth_scheduler::placement::{Constraint, Index, PlaceRequest, Placement, Rule, SpreadField, Strategy};
use berth_scheduler::query::Expression;

fn fleet() -> Index {
    let mut index = Index::default();
    for (id, stack) in [(1, Some("prod")), (2, Some("test")), (3, None)] {
        index.apply_instance(&ContainerInstance {
            id: ContainerInstanceId(id),
            cluster: ClusterName::parse("c").expect("a name"),
            ec2_instance_id: Some(format!("i-{id}")),
            private_address: None,
            status: ContainerInstanceStatus::Active,
            status_reason: None,
            agent_connected: true,
            connection: 0,
            away: None,
            registered: Resources { cpu: 1_000, memory: 1_000, ..Resources::default() },
            attributes: stack.map(|stack| ("stack".to_owned(), Some(stack.to_owned()))).into_iter().collect::<BTreeMap<_, _>>(),
            registered_at: UnixMillis(0),
            agent: AgentVersion { agent_version: Some(format!("1.{id}.0")), ..AgentVersion::default() },
            tags: Default::default(),
        });
    }
    index
}

fn place(index: &mut Index, first: u128, count: u128, group: &str, constraints: &[&str]) -> Placement {
    let tasks: Vec<_> = (first..first + count).map(TaskId).collect();
    let read = |text: &&str| Constraint::MemberOf(Arc::new(Expression::parse(text).expect("an expression")));
    index.place(&PlaceRequest {
        tasks: &tasks,
        demand: &Demand::default(),
        attributes: &BTreeSet::new(),
        group,
        constraints: &constraints.iter().map(read).collect::<Vec<_>>(),
        capacity_provider: None,
        strategies: &[Strategy::Spread(SpreadField::Instance)],
        seed: 7,
    })
}

fn on(placement: &Placement) -> Vec<u128> {
    placement.placed.iter().map(|(_, instance)| instance.0).collect()
}

#[test]
fn each_constraint_binds() {
    assert_eq!(on(&place(&mut fleet(), 1, 2, "g", &["attribute:stack == prod"])), [1, 1]);
    assert_eq!(on(&place(&mut fleet(), 1, 2, "g", &["attribute:stack exists", "ec2InstanceId != i-1"])), [2, 2]);
    assert_eq!(on(&place(&mut fleet(), 1, 1, "g", &["agentVersion >= 1.3"])), [3]);
    let none = place(&mut fleet(), 1, 1, "g", &["agentConnected == true", "attribute:stack equals dev"]);
    let rules: BTreeSet<_> = none
        .refusals
        .iter()
        .map(|refusal| (refusal.rule.reason(), refusal.rule.clone() == Rule::MemberOf("attribute:stack == dev".to_owned())))
        .collect();
    assert_eq!(rules, [("MemberOf placement constraint unsatisfied.", true)].into());
    assert_eq!(none.refusals.len(), 3);
}

#[test]
fn tasks_of_the_same_request_count() {
    let mut index = fleet();
    let placement = place(&mut index, 1, 4, "g", &["runningTasksCount < 1"]);
    assert_eq!(on(&placement), [1, 2, 3], "one each, and no fourth");
    assert_eq!(placement.refusals.len(), 3);
    assert_eq!(place(&mut index, 10, 1, "h", &["not(task:group == g)"]).placed, []);
    index.release(TaskId(2));
    assert_eq!(on(&place(&mut index, 10, 2, "h", &["not(task:group == g)"])), [2, 2]);
    assert_eq!(on(&place(&mut index, 20, 1, "i", &["task:group == h"])), [2], "beside the tasks of another group");
}
