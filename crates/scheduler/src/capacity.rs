//! Capacity provider strategies: which provider's instances each task goes to. A provider that has no room gives its share to no
//! other, as in ECS.
//!
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_CapacityProviderStrategyItem.html>

use berth_model::capacity_provider::{StrategyItem, is_built_in};
use berth_model::ids::{CapacityProviderName, ContainerInstanceId, TaskId};

use crate::placement::{Index, PlaceRequest, Refusal};

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CapacityPlacement {
    /// Placed tasks with their instances and, with a strategy, their providers.
    pub placed: Vec<(TaskId, ContainerInstanceId, Option<CapacityProviderName>)>,
    /// Why each candidate refused the first task that found no place, provider by provider.
    pub refusals: Vec<Refusal>,
    /// Providers that were given tasks and have no container instance.
    pub empty: Vec<CapacityProviderName>,
}

impl CapacityPlacement {
    /// Takes in what came of another request.
    pub fn absorb(&mut self, other: Self) {
        self.placed.extend(other.placed);
        self.refusals.extend(other.refusals);
        self.empty.extend(other.empty);
    }
}

/// Which item of the strategy each of some new tasks belongs to; `current` is how many tasks each item has already.
///
/// The base is filled first. Beyond it the item furthest behind its share gets the next task; the first of equals. A single item
/// gets everything, even without a weight. Empty if no item can take a task.
#[must_use]
pub fn split(strategy: &[StrategyItem], current: &[u32], count: usize) -> Vec<usize> {
    let mut counts: Vec<u64> = (0..strategy.len()).map(|item| u64::from(current.get(item).copied().unwrap_or(0))).collect();
    let weight = |item: &StrategyItem| if strategy.len() == 1 { item.weight.max(1) } else { item.weight };
    (0..count)
        .map_while(|_| {
            let below_base = strategy.iter().zip(&counts).position(|(item, has)| *has < u64::from(item.base));
            let next = below_base.or_else(|| {
                let candidates = strategy.iter().enumerate().filter(|(_, item)| weight(item) > 0);
                // Smallest (beyond base + 1) / weight, compared without division.
                candidates
                    .map(|(at, item)| (at, counts[at].saturating_sub(u64::from(item.base)) + 1, u64::from(weight(item))))
                    .reduce(|best, one| if one.1 * best.2 < best.1 * one.2 { one } else { best })
                    .map(|(at, ..)| at)
            })?;
            counts[next] += 1;
            Some(next)
        })
        .collect()
}

/// Places tasks on the instances of a strategy's providers and reserves what they take; without a strategy on any instance.
pub fn place(index: &mut Index, request: &PlaceRequest<'_>, strategy: &[StrategyItem], current: &[u32]) -> CapacityPlacement {
    let mut outcome = CapacityPlacement::default();
    if strategy.is_empty() {
        let placement = index.place(request);
        outcome.placed = placement.placed.into_iter().map(|(task, instance)| (task, instance, None)).collect();
        outcome.refusals = placement.refusals;
        return outcome;
    }
    let items = split(strategy, current, request.tasks.len());
    for (at, item) in strategy.iter().enumerate() {
        let tasks: Vec<_> = request.tasks.iter().zip(&items).filter(|(_, of)| **of == at).map(|(task, _)| *task).collect();
        if tasks.is_empty() {
            continue;
        }
        // All machines that offer Fargate capacity take the tasks of both of its providers; the index has no others then.
        let capacity_provider = Some(item.provider.as_str()).filter(|_| !is_built_in(&item.provider));
        let placement = index.place(&PlaceRequest { tasks: &tasks, capacity_provider, ..request.clone() });
        if placement.placed.is_empty() && placement.refusals.is_empty() {
            outcome.empty.push(item.provider.clone());
        }
        outcome.placed.extend(placement.placed.into_iter().map(|(task, instance)| (task, instance, Some(item.provider.clone()))));
        outcome.refusals.extend(placement.refusals);
    }
    outcome
}

#[cfg(test)]
mod tests {
    use berth_model::container_instance::{CAPACITY_PROVIDER, ContainerInstance, ContainerInstanceStatus, Resources};
    use berth_model::ids::ClusterName;
    use berth_model::needs::Demand;
    use berth_model::time::UnixMillis;

    use super::*;
    use crate::placement::{Rule, Strategy};

    fn instance(id: u128, cpu: u32, provider: Option<&str>) -> ContainerInstance {
        ContainerInstance {
            id: ContainerInstanceId(id),
            cluster: ClusterName::parse("c").expect("a name"),
            ec2_instance_id: None,
            private_address: None,
            status: ContainerInstanceStatus::Active,
            status_reason: None,
            agent_connected: true,
            connection: 0,
            away: None,
            registered: Resources { cpu, memory: 1_000, ..Resources::default() },
            attributes: provider.map(|name| (CAPACITY_PROVIDER.to_owned(), Some(name.to_owned()))).into_iter().collect(),
            registered_at: UnixMillis(0),
            agent: Default::default(),
            tags: Default::default(),
        }
    }

    #[test]
    fn tasks_go_to_instances_of_their_provider_alone() {
        let mut index = Index::default();
        [instance(1, 1_000, None), instance(2, 1, Some("p0"))].iter().for_each(|instance| index.apply_instance(instance));
        let tasks: Vec<_> = (1..=6).map(TaskId).collect();
        let request = PlaceRequest {
            tasks: &tasks,
            demand: &Demand { cpu: 1, ..Demand::default() },
            attributes: &Default::default(),
            group: "g",
            constraints: &[],
            capacity_provider: None,
            strategies: &[],
            seed: 7,
        };
        let outcome = place(&mut index, &request, &strategy(&[(2, 0), (1, 0)]), &[]);
        let name = |text: &str| CapacityProviderName::parse(text).expect("a name");
        assert_eq!(outcome.placed, [(TaskId(1), ContainerInstanceId(2), Some(name("p0")))], "there is room for one on the only one of p0");
        let rule = Rule::Cpu { wanted: 1, free: 0 };
        assert_eq!(outcome.refusals, [Refusal { instance: ContainerInstanceId(2), rule }], "others refuse nothing");
        assert_eq!(outcome.empty, [name("p1")]);
        let others: Vec<_> = (7..=12).map(TaskId).collect();
        let anywhere = place(&mut index, &PlaceRequest { tasks: &others, ..request }, &[], &[]);
        assert!(anywhere.placed.iter().all(|(_, instance, provider)| instance.0 == 1 && provider.is_none()));
        assert_eq!((anywhere.placed.len(), anywhere.empty.len()), (6, 0));
    }

    fn strategy(items: &[(u32, u32)]) -> Vec<StrategyItem> {
        let name = |at: usize| CapacityProviderName::parse(&format!("p{at}")).expect("a name");
        items.iter().enumerate().map(|(at, (weight, base))| StrategyItem { provider: name(at), weight: *weight, base: *base }).collect()
    }

    fn shares(items: &[(u32, u32)], current: &[u32], count: usize) -> Vec<usize> {
        let given = split(&strategy(items), current, count);
        (0..items.len()).map(|at| given.iter().filter(|of| **of == at).count()).collect()
    }

    #[test]
    fn every_machine_takes_tasks_of_both_fargate_providers() {
        let mut index = Index::default();
        [instance(1, 3, None), instance(2, 2, Some("p0"))].iter().for_each(|instance| index.apply_instance(instance));
        let tasks: Vec<_> = (1..=6).map(TaskId).collect();
        let strategies = Strategy::roomiest();
        let request = PlaceRequest {
            tasks: &tasks,
            demand: &Demand { cpu: 1, memory: 10, ..Demand::default() },
            attributes: &Default::default(),
            group: "g",
            constraints: &[],
            capacity_provider: None,
            strategies: &strategies,
            seed: 7,
        };
        let mut strategy = strategy(&[(1, 0), (2, 0)]);
        for (item, name) in strategy.iter_mut().zip(["FARGATE", "FARGATE_SPOT"]) {
            item.provider = CapacityProviderName::parse(name).expect("a name");
        }
        let outcome = place(&mut index, &request, &strategy, &[]);
        let of = |name: &str| outcome.placed.iter().filter(|(.., own)| own.as_ref().is_some_and(|own| own.as_str() == name)).count();
        assert_eq!((of("FARGATE"), of("FARGATE_SPOT")), (2, 3), "the last of the second found no room");
        assert_eq!(outcome.refusals.len(), 2);
        assert_eq!(outcome.placed[..2].iter().map(|(_, on, _)| on.0).collect::<Vec<_>>(), [1, 2], "where most memory is free");
    }

    #[test]
    fn weights_share_what_comes_after_the_base() {
        assert_eq!(shares(&[(1, 0), (1, 0)], &[], 10), [5, 5]);
        assert_eq!(shares(&[(1, 0), (4, 0)], &[], 10), [2, 8]);
        assert_eq!(shares(&[(1, 2), (1, 0)], &[], 10), [6, 4]);
        assert_eq!(shares(&[(0, 3), (1, 0)], &[], 10), [3, 7], "without a weight only the base");
        assert_eq!(shares(&[(0, 20), (1, 0)], &[], 10), [10, 0]);
    }

    #[test]
    fn tasks_that_are_there_count() {
        assert_eq!(shares(&[(1, 2), (1, 0)], &[2, 4], 4), [4, 0], "the one behind catches up");
        assert_eq!(shares(&[(1, 2), (1, 0)], &[0, 4], 3), [3, 0], "the base comes first");
        assert_eq!(split(&strategy(&[(1, 0), (1, 0)]), &[0, 0], 3), [0, 1, 0], "the first of equals");
    }

    #[test]
    fn without_weights_a_single_item_takes_all_and_several_take_the_base() {
        assert_eq!(shares(&[(0, 0)], &[], 3), [3]);
        assert_eq!(shares(&[(0, 2), (0, 0)], &[], 5), [2, 0]);
        assert_eq!(split(&strategy(&[(0, 0), (0, 0)]), &[], 5), [0_usize; 0]);
    }

    #[test]
    fn shares_follow_the_weights_however_many_come_at_once() {
        let items = strategy(&[(3, 1), (2, 0), (0, 0), (7, 0)]);
        let at_once = split(&items, &[], 97);
        let mut current = [0_u32; 4];
        let one_by_one: Vec<_> = (0..97)
            .map(|_| {
                let item = split(&items, &current, 1)[0];
                current[item] += 1;
                item
            })
            .collect();
        assert_eq!(at_once, one_by_one);
        assert_eq!(current, [25, 16, 0, 56]);
    }
}
