//! Which tasks a scale-in stops: the mirror of placement. Where strategies would put the next task last, one is taken from first.
//!
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-placement-strategies.html>

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use berth_model::ids::ContainerInstanceId;

use super::TaskView;
use crate::placement::{SpreadField, Strategy};

/// A container instance as far as it matters to which task on it is stopped.
#[derive(Debug, Clone, Copy, Default)]
pub struct Machine<'a> {
    /// Its attributes; `None` if it is no longer known.
    pub attributes: Option<&'a BTreeMap<String, Option<String>>>,
    /// CPU units that are free on it.
    pub free_cpu: u32,
    /// MiB that are free on it.
    pub free_memory: u32,
}

/// Most strategies that count: ECS takes five.
const LEVELS: usize = 5;

/// Where the number stands by which a strategy compares tasks; the one with most goes first.
#[derive(Debug, Clone, Copy)]
enum Measure {
    /// Tasks of the service on the same instance, or on instances with the same values.
    Tasks(usize),
    /// CPU units free on the instance.
    Cpu(usize),
    /// MiB free on the instance.
    Memory(usize),
}

/// What tasks are counted by.
#[derive(PartialEq, Eq, Hash)]
enum Cell {
    Instance(ContainerInstanceId),
    /// The strategy by number, with the values of what it and those before it spread over.
    Values(usize, Vec<Option<String>>),
}

struct Measures<'a> {
    strategies: &'a [Strategy],
    machine: &'a dyn Fn(ContainerInstanceId) -> Machine<'a>,
    cells: HashMap<Cell, usize>,
    tasks: Vec<u64>,
    machines: HashMap<ContainerInstanceId, usize>,
    /// CPU units and MiB that are free, with what the tasks picked so far give back.
    free: Vec<(u64, u64)>,
}

impl Measures<'_> {
    fn of(&mut self, task: &TaskView) -> Vec<Measure> {
        let machine = (self.machine)(task.instance);
        let value = |name: &String| match machine.attributes {
            Some(attributes) => attributes.get(name).cloned().flatten(),
            // Of an instance that is gone the task itself knows the zone.
            None => task.zone.as_deref().filter(|_| name == "ecs.availability-zone").map(str::to_owned),
        };
        let mut values = Vec::new();
        let mut measures = Vec::new();
        for (at, strategy) in self.strategies.iter().enumerate().take(LEVELS) {
            let cell = match strategy {
                Strategy::Random => break,
                Strategy::Spread(SpreadField::Instance) => Cell::Instance(task.instance),
                Strategy::Spread(SpreadField::Attribute(name)) => {
                    values.push(value(name));
                    Cell::Values(at, values.clone())
                }
                Strategy::BinpackCpu | Strategy::BinpackMemory => {
                    let free = (u64::from(machine.free_cpu), u64::from(machine.free_memory));
                    let number = *self.machines.entry(task.instance).or_insert(self.free.len());
                    if number == self.free.len() {
                        self.free.push(free);
                    }
                    measures.push(if *strategy == Strategy::BinpackCpu { Measure::Cpu(number) } else { Measure::Memory(number) });
                    continue;
                }
            };
            let number = *self.cells.entry(cell).or_insert(self.tasks.len());
            if number == self.tasks.len() {
                self.tasks.push(0);
            }
            measures.push(Measure::Tasks(number));
        }
        measures
    }

    fn rank(&self, task: &TaskView, measures: &[Measure]) -> [u64; LEVELS] {
        let mut rank = [0; LEVELS];
        for (rank, measure) in rank.iter_mut().zip(measures) {
            *rank = match measure {
                Measure::Tasks(number) => self.tasks[*number],
                // What is left after the stop.
                Measure::Cpu(number) => self.free[*number].0 + u64::from(task.cpu),
                Measure::Memory(number) => self.free[*number].1 + u64::from(task.memory),
            };
        }
        rank
    }

    fn stop(&mut self, task: &TaskView, measures: &[Measure]) {
        for measure in measures {
            if let Measure::Tasks(number) = measure {
                self.tasks[*number] -= 1;
            }
        }
        if let Some(number) = self.machines.get(&task.instance) {
            let free = &mut self.free[*number];
            *free = (free.0 + u64::from(task.cpu), free.1 + u64::from(task.memory));
        }
    }
}

/// Picks tasks to stop: first those that do not run yet, then those that do not count as healthy, then as the strategies say, then the
/// youngest. `live` are all tasks of the service that count, the candidates among them.
pub(super) fn pick<'t, 'm>(
    candidates: &[&'t TaskView],
    live: &[&TaskView],
    surplus: u32,
    (strategies, machine): (&'m [Strategy], &'m dyn Fn(ContainerInstanceId) -> Machine<'m>),
    is_healthy: impl Fn(&TaskView) -> bool,
) -> Vec<&'t TaskView> {
    let (cells, machines) = (HashMap::new(), HashMap::new());
    let mut measures = Measures { strategies, machine, cells, tasks: Vec::new(), machines, free: Vec::new() };
    for task in live {
        for measure in measures.of(task) {
            if let Measure::Tasks(number) = measure {
                measures.tasks[number] += 1;
            }
        }
    }
    let mut left: Vec<_> = candidates.iter().map(|task| (*task, measures.of(task), is_healthy(task))).collect();
    let mut picked = Vec::new();
    for _ in 0..surplus {
        let next = left.iter().enumerate().min_by_key(|(_, (task, own, healthy))| {
            (task.last, *healthy, Reverse(measures.rank(task, own)), Reverse(task.came()), task.id)
        });
        let Some((at, _)) = next else { break };
        let (task, own, _) = left.swap_remove(at);
        measures.stop(task, &own);
        picked.push(task);
    }
    picked
}
