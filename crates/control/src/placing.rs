//! One launch: what it asks for, what comes of it, and the changes that make it. The owner puts several into one commit. Nothing here
//! waits or commits.

use std::collections::BTreeSet;
use std::sync::Arc;

use berth_model::container_instance::ContainerInstance;
use berth_model::ids::{CapacityProviderName, ContainerInstanceId, TaskId};
use berth_model::record::{Key, Record};
use berth_model::shared_text;
use berth_model::task::{LaunchType, Task};
use berth_model::task_interface::TaskInterface;
use berth_model::time::UnixMillis;
use berth_scheduler::capacity;
use berth_scheduler::placement::{Index, Refusal, Rule};
use berth_store::{CommitError, Revision, State, Transaction};

use crate::environment::Environment;
use crate::fargate::{self, ZoneChoice};
use crate::interfaces::Interfaces;
use crate::launch::{Place, TaskTemplate, task_ids};

/// How tasks are to be placed.
#[derive(Debug, Clone)]
pub enum Where {
    /// This many, where they fit (RunTask).
    Anywhere(u32),
    /// One on each of these (StartTask).
    On(Vec<ContainerInstanceId>),
}

/// Why an instance named by StartTask got no task, or where RunTask found no place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// By a rule of placement.
    ByRule(Refusal),
    /// There is no such container instance.
    Missing(ContainerInstanceId),
    /// The capacity provider has no container instance.
    EmptyProvider(CapacityProviderName),
    /// No machine that offers Fargate capacity, or none of its subnets, had room; the rule that came closest, or `None` if there is no such
    /// machine.
    NoFargate(Option<Rule>),
}

impl Refused {
    /// The rule that refused, where there is one.
    pub(crate) const fn rule(&self) -> Option<&Refusal> {
        match self {
            Self::ByRule(refusal) => Some(refusal),
            Self::Missing(_) | Self::EmptyProvider(_) | Self::NoFargate(_) => None,
        }
    }
}

/// What came of a launch.
#[derive(Debug, Clone, Default)]
pub struct Launched {
    /// The tasks, durable.
    pub tasks: Vec<Arc<Task>>,
    /// Why the rest found no place.
    pub refused: Vec<Refused>,
}

impl Launched {
    /// Its tasks without those that an earlier request made under the same token.
    pub(crate) fn made_since(&self, since: UnixMillis) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.iter().filter(move |task| task.created_at >= since)
    }
}

/// Why a launch did not happen at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// The cluster was deleted meanwhile.
    #[error("the cluster is not active")]
    ClusterInactive,
    /// The task definition was deregistered meanwhile.
    #[error("the task definition is not active")]
    DefinitionInactive,
    /// No container instance is registered in the cluster.
    #[error("No Container Instances were found in your cluster.")]
    NoInstances,
    /// A capacity provider of the strategy is no longer the cluster's.
    #[error("the cluster does not have the capacity provider {0}")]
    NotAssociated(CapacityProviderName),
    /// The `clientToken` was used for something else; these are its tasks.
    #[error("the client token was used with other parameters")]
    TokenReused(Vec<TaskId>),
    /// The queue is full.
    #[error("too many requests are waiting")]
    Overloaded,
    /// The store cannot commit.
    #[error(transparent)]
    Store(#[from] CommitError),
}

/// What a launch is placed with.
pub(crate) struct Means<'a> {
    /// The cluster's instances with what is taken of them.
    pub(crate) index: &'a mut Index,
    /// What the commit will be conditional on.
    pub(crate) state: &'a State,
    /// The addresses that the commit gives.
    pub(crate) interfaces: &'a mut Interfaces,
    /// Clock and randomness.
    pub(crate) environment: &'a Environment,
    /// Other servers place tasks in this cluster as well.
    pub(crate) has_peers: bool,
}

/// Places one request in the index and adds its tasks to the transaction.
pub(crate) fn prepare(
    means: Means<'_>,
    template: &TaskTemplate,
    place: &Where,
    transaction: &mut Transaction,
) -> Result<Launched, LaunchError> {
    let Means { index, state, interfaces, environment, has_peers } = means;
    if let Some(token) = &template.client_token
        && let Some(known) = state.index(&template.cluster).and_then(|index| index.by_client_token.get(&token.token))
    {
        let tasks: Vec<_> = known.iter().filter_map(|id| state.task(*id)).collect();
        let same = tasks.iter().all(|task| task.client_token.as_ref() == Some(token));
        if !same {
            return Err(LaunchError::TokenReused(tasks.iter().map(|task| task.id).collect()));
        }
        return Ok(Launched { tasks: tasks.iter().map(|task| Arc::clone(&task.value)).collect(), refused: Vec::new() });
    }
    expect_active(state, transaction, template)?;
    expect_associated(state, template)?;
    let is_fargate = template.launch_type == LaunchType::Fargate;
    let mut zones = ZoneChoice::of(template.launch_type);
    let wants_public = template.demand.public_addresses > 0;
    let mut launched = Launched::default();
    let mut put = |index: &mut Index, id: TaskId, instance: ContainerInstanceId, capacity_provider: Option<CapacityProviderName>| {
        let holder = state.instance(instance).map(|instance| &*instance.value);
        let interface = match &template.network {
            None => None,
            Some(network) => match interfaces.give(state, network, (id, wants_public), holder, &mut zones, environment) {
                Ok(given) => Some(given),
                Err(rule) => {
                    index.release(id);
                    return Some(Refused::ByRule(Refusal { instance, rule }));
                }
            },
        };
        let zone = zone_of(state, is_fargate, holder, interface.as_ref());
        let place = Place { instance, zone, capacity_provider, gpus: index.gpus_of(id).to_vec(), interface };
        let task = Arc::new(template.task(id, place, environment));
        transaction.put(Record::Task(Arc::clone(&task)));
        launched.tasks.push(task);
        None
    };
    match place {
        Where::Anywhere(count) => {
            if index.is_empty() && !is_fargate && template.capacity_provider_strategy.is_empty() {
                return Err(LaunchError::NoInstances);
            }
            let ids = task_ids(*count, environment);
            let request = template.place_request(&ids, environment.bits64());
            let placement = capacity::place(index, &request, &template.capacity_provider_strategy, &[]);
            let without: Vec<_> =
                placement.placed.into_iter().filter_map(|(id, instance, provider)| put(index, id, instance, provider)).collect();
            if is_fargate {
                // Machines that nobody sees are not named one by one.
                let refusals: Vec<_> = without.iter().filter_map(Refused::rule).cloned().chain(placement.refusals).collect();
                let all_placed = launched.tasks.len() == ids.len();
                launched.refused = if all_placed { Vec::new() } else { vec![Refused::NoFargate(fargate::obstacle(&refusals))] };
            } else {
                let by_rule = placement.refusals.into_iter().map(Refused::ByRule);
                let empty = placement.empty.into_iter().map(Refused::EmptyProvider);
                launched.refused = without.into_iter().chain(by_rule).chain(empty).collect();
            }
        }
        Where::On(instances) => {
            let mut refused = Vec::new();
            for instance in instances {
                let ids = task_ids(1, environment);
                match index.place_on(*instance, &template.place_request(&ids, 0)) {
                    Ok(()) => refused.extend(put(index, ids[0], *instance, None)),
                    Err(Some(rule)) => refused.push(Refused::ByRule(Refusal { instance: *instance, rule })),
                    Err(None) => refused.push(Refused::Missing(*instance)),
                }
            }
            launched.refused = refused;
        }
    }
    if has_peers && template.client_token.is_some() && !launched.tasks.is_empty() {
        // Another peer may be asked for the same at this moment, or know less and not yet see these tasks, and places it elsewhere; it may even
        // take another revision, if that was asked for by its family. Of two that touch the family, on which both have their condition,
        // one conflicts, and then sees the other's tasks.
        if let Some(family) = state.family(&template.definition.id.family) {
            let key = Key::Family(template.definition.id.family.clone());
            transaction.expect(key.clone(), family.modified).touch(key);
        }
    }
    Ok(launched)
}

/// The availability zone of a task: its container instance's; a Fargate task's is that of its subnet.
pub(crate) fn zone_of(
    state: &State,
    is_fargate: bool,
    instance: Option<&ContainerInstance>,
    interface: Option<&TaskInterface>,
) -> Option<Arc<str>> {
    if is_fargate {
        return interface
            .and_then(|interface| state.vpc_resources().subnet(interface.subnet))
            .map(|subnet| shared_text::recent(&subnet.zone));
    }
    instance.and_then(|instance| instance.availability_zone().map(shared_text::recent))
}

/// Cluster and definition must still be ACTIVE when the tasks are committed.
pub(crate) fn expect_active(state: &State, transaction: &mut Transaction, template: &TaskTemplate) -> Result<(), LaunchError> {
    let cluster = state.cluster(&template.cluster).filter(|c| c.status == berth_model::cluster::ClusterStatus::Active);
    let cluster = cluster.ok_or(LaunchError::ClusterInactive)?;
    transaction.expect(Key::Cluster(cluster.name.clone()), cluster.modified);
    let definition = state.definition(&template.definition.id).ok_or(LaunchError::DefinitionInactive)?;
    // A service goes on with a revision that was deregistered after it took it up; a new task of its own does not start.
    if template.service.is_none() && definition.status != berth_model::task_definition::TaskDefinitionStatus::Active {
        return Err(LaunchError::DefinitionInactive);
    }
    transaction.expect(Key::TaskDefinition(definition.id.clone()), definition.modified);
    Ok(())
}

/// The cluster, on which [`expect_active`] has its condition, still has the strategy's capacity providers.
fn expect_associated(state: &State, template: &TaskTemplate) -> Result<(), LaunchError> {
    let cluster = state.cluster(&template.cluster).ok_or(LaunchError::ClusterInactive)?;
    let has = |name: &CapacityProviderName| cluster.capacity_providers.iter().any(|own| own == name.as_str());
    match template.capacity_provider_strategy.iter().find(|item| !has(&item.provider)) {
        Some(item) => Err(LaunchError::NotAssociated(item.provider.clone())),
        None => Ok(()),
    }
}

/// Conditions on every instance that tasks go to: unchanged since what placement saw; and counts their versions up. What changed after `seen`,
/// the last commit that the index has folded in, was not seen, whatever the state shows: another cluster may have placed on the machine.
pub(crate) fn expect_instances<'a>(
    state: &State,
    seen: Revision,
    transaction: &mut Transaction,
    tasks: impl Iterator<Item = &'a Arc<Task>>,
) {
    let fresh = tasks.filter(|task| state.task(task.id).is_none());
    let instances: BTreeSet<_> = fresh.map(|task| task.container_instance).collect();
    for id in instances {
        if let Some(instance) = state.instance(id) {
            transaction.expect(Key::ContainerInstance(id), instance.modified.min(seen));
            transaction.touch(Key::ContainerInstance(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicU64, Ordering};

    use berth_model::arn::Scope;
    use berth_model::container_instance::{AgentVersion, ContainerInstanceStatus, Resources};
    use berth_model::ids::{ClusterName, DefinitionId, Family};
    use berth_model::needs::{Demand, TaskNeeds};
    use berth_model::tags::Tags;
    use berth_model::task::{ClientToken, LaunchType};
    use berth_model::task_definition::{FamilyCounter, TaskDefinition, TaskDefinitionStatus};
    use berth_model::time::UnixMillis;
    use berth_store::Store;
    use berth_store::backend::Memory;

    use super::*;
    use crate::environment::{Clock, Entropy};

    struct Still;

    impl Clock for Still {
        fn now(&self) -> UnixMillis {
            UnixMillis(1_000_000)
        }
    }

    struct Counter(AtomicU64);

    impl Entropy for Counter {
        fn bits(&self) -> u128 {
            u128::from(self.0.fetch_add(1, Ordering::Relaxed))
        }
    }

    fn definition(revision: u32) -> TaskDefinition {
        TaskDefinition {
            id: DefinitionId { family: Family::parse("web").unwrap(), revision },
            status: TaskDefinitionStatus::Active,
            registered_at: UnixMillis(0),
            registered_by: String::new(),
            deregistered_at: None,
            delete_requested_at: None,
            tags: Tags::new(),
            document: serde_json::from_value(serde_json::json!({"containerDefinitions": [{"name": "app"}]})).unwrap(),
            needs: TaskNeeds::default(),
        }
    }

    fn template(revision: u32) -> TaskTemplate {
        TaskTemplate {
            cluster: ClusterName("c".into()),
            demand: Demand::default(),
            definition: Arc::new(definition(revision)),
            group: "family:web".into(),
            started_by: None,
            service: None,
            launch_type: LaunchType::Ec2,
            capacity_provider_strategy: Vec::new(),
            network: None,
            overrides: None,
            tags: Tags::new(),
            enable_execute_command: false,
            client_token: Some(ClientToken { token: "again".into(), request: 1 }),
            constraints: Vec::new(),
            strategies: Vec::new(),
            digests: BTreeMap::new(),
        }
    }

    /// A server is asked again what another one has done, before it has heard of that, and of the revision that is newest by now.
    #[tokio::test]
    async fn a_token_makes_tasks_once_whatever_revision_a_server_knows_as_the_newest() {
        let store = Store::open(Memory).unwrap();
        let machine = |id| ContainerInstance {
            id: ContainerInstanceId(id),
            cluster: ClusterName("c".into()),
            ec2_instance_id: None,
            private_address: None,
            status: ContainerInstanceStatus::Active,
            status_reason: None,
            agent_connected: true,
            connection: 1,
            away: None,
            registered: Resources { cpu: 1024, memory: 1024, ..Resources::default() },
            attributes: BTreeMap::new(),
            registered_at: UnixMillis(0),
            agent: AgentVersion::default(),
            tags: Tags::new(),
        };
        let cluster: berth_model::cluster::Cluster = serde_json::from_value(serde_json::json!({
            "name": "c", "status": "ACTIVE", "created_at": 1, "tags": {}, "settings": [], "configuration": null,
            "service_connect_defaults": null, "capacity_providers": [], "default_capacity_provider_strategy": [],
        }))
        .unwrap();
        let mut made = Transaction::new();
        made.put(cluster).put(FamilyCounter { family: Family::parse("web").unwrap(), last_revision: 2 });
        made.put(definition(1)).put(definition(2)).put(machine(1)).put(machine(2));
        store.commit(made).await.unwrap();
        let scope = Scope { region: "us-east-1".into(), account: "000000000000".into() };
        let environment = Environment { clock: Arc::new(Still), entropy: Arc::new(Counter(AtomicU64::new(1))), scope };
        let place = |revision, on| {
            let state = store.state();
            let mut index = Index::default();
            state.instances().for_each(|instance| index.apply_instance(&instance.value));
            let (mut transaction, mut interfaces) = (Transaction::new(), Interfaces::default());
            let means = Means { index: &mut index, state: &state, interfaces: &mut interfaces, environment: &environment, has_peers: true };
            let launched = prepare(means, &template(revision), &Where::On(vec![ContainerInstanceId(on)]), &mut transaction);
            assert_eq!(launched.map_err(|error| error.to_string()).unwrap().tasks.len(), 1);
            transaction
        };
        // Both from what is there now.
        let (one, other) = (place(2, 1), place(1, 2));
        store.commit(one).await.unwrap();
        assert!(matches!(store.commit(other).await, Err(CommitError::Conflict(_))), "the second would make the tasks twice");
    }
}
