//! Any task, with effects that end in any order and any way: the engine keeps its promises.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::tests::context;
use super::*;
use crate::fakes::task;
use crate::plan::{Condition, ContainerPlan, Dependency, HealthCheck, RestartPolicy, TaskPlan, plan};
use crate::sources::Fetched;

/// Essential, dependencies with the number of their condition, refused, started again after its end.
type Sketch = (bool, Vec<(usize, u8)>, bool, bool);

#[derive(Debug, Clone)]
struct Shape {
    containers: Vec<Sketch>,
}

/// Dependencies only on earlier containers, so that there are no circles; those that others wait for are seldom essential.
fn shapes() -> impl Strategy<Value = Shape> {
    let container = (
        prop::bool::weighted(0.3),
        prop::collection::vec((any::<prop::sample::Index>(), 0..4_u8), 0..3),
        prop::bool::weighted(0.1),
        any::<bool>(),
    );
    prop::collection::vec(container, 1..5).prop_map(|list| {
        let last = list.len() - 1;
        let containers = list
            .into_iter()
            .enumerate()
            .map(|(index, (essential, on, refused, restarts))| {
                let on = if index == 0 { Vec::new() } else { on.into_iter().map(|(on, condition)| (on.index(index), condition)).collect() };
                (essential || index == last, on, refused, restarts)
            })
            .collect();
        Shape { containers }
    })
}

fn planned(shape: &Shape) -> TaskPlan {
    let names: Vec<String> = (0..shape.containers.len()).map(|index| format!("c{index}")).collect();
    let containers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "image")).collect();
    let mut plan = plan(&task("t1", &containers), &context()).unwrap();
    for (container, (essential, on, refused, restarts)) in plan.containers.iter_mut().zip(&shape.containers) {
        container.essential = *essential;
        let condition = |number: &u8| [Condition::Start, Condition::Complete, Condition::Success, Condition::Healthy][usize::from(*number)];
        container.depends_on = on.iter().map(|(on, number)| Dependency { on: *on, condition: condition(number) }).collect();
        container.start_timeout = Some(60_000);
        let check = HealthCheck { command: vec!["true".into()], interval: 7_000, timeout: 5_000, retries: 2, start_period: 12_000 };
        container.health_check = Some(check);
        container.restart = restarts.then(|| RestartPolicy { ignored_exit_codes: vec![0], attempt_period: 10_000 });
        if *refused {
            container.blueprint = Err("no".into());
        }
    }
    plan
}

/// Effects under way, and everything that must hold.
struct Model {
    plan: TaskPlan,
    state: TaskState,
    now: Millis,
    running: Vec<Step>,
    reported: Vec<TaskWord>,
    stop_told: BTreeSet<usize>,
}

impl Model {
    fn settle(&mut self) {
        for _ in 0..1000 {
            let Some(step) = next_step(&self.plan, &self.state, self.now) else { return };
            self.check_step(&step);
            self.state.begin(&step, self.now);
            self.running.push(step);
        }
        panic!("the engine never comes to rest: {:?}", self.state);
    }

    fn check_step(&self, step: &Step) {
        let phase = |index: usize| &self.state.containers[index];
        match step {
            Step::Prepare(_) => assert!(!self.state.is_ending(&self.plan)),
            Step::Launch(index) => {
                assert!(!self.state.is_ending(&self.plan), "a task that ends starts nothing");
                for dependency in &self.plan.containers[*index].depends_on {
                    let holds = match (dependency.condition, phase(dependency.on)) {
                        (Condition::Start, phase) => phase.run().is_some(),
                        (Condition::Complete, phase) => matches!(phase.ended(), Some(Ended::Exited { .. })),
                        (Condition::Success, phase) => matches!(phase.ended(), Some(Ended::Exited { exit, .. }) if exit.code == 0),
                        (Condition::Healthy, phase) => phase.run().is_some_and(|run| run.health.verdict == Verdict::Healthy),
                    };
                    assert!(holds, "{index} is launched before {dependency:?}");
                }
            }
            Step::Stop(index) => {
                assert!(self.state.is_ending(&self.plan));
                let depends = |container: &ContainerPlan| container.depends_on.iter().any(|dependency| dependency.on == *index);
                let dependents = self.plan.containers.iter().enumerate().filter(|(_, container)| depends(container));
                assert!(dependents.into_iter().all(|(other, _)| phase(other).ended().is_some()), "{index} stops before those that need it");
            }
            Step::Probe(index) => {
                assert!(matches!(phase(*index), Phase::Running(_)));
                assert!(!self.running.contains(step), "one probe at a time");
            }
            Step::Restart(index) => {
                assert!(!self.state.is_ending(&self.plan), "a task that ends starts nothing again");
                assert!(self.plan.containers[*index].restart.is_some());
                assert!(!matches!(phase(*index), Phase::Exited(Ended::Exited { exit, .. }) if exit.code == 0), "its exit code is ignored");
            }
            _ => {}
        }
    }

    /// Ends one effect, or lets a running container end, or time pass.
    fn happen(&mut self, choice: usize, luck: u8) {
        let runs: Vec<usize> = (0..self.plan.containers.len())
            .filter(|index| matches!(self.state.containers[*index], Phase::Running(_) | Phase::Stopping { .. }))
            .collect();
        let choices = self.running.len() + runs.len() + 2;
        let choice = choice % choices;
        let attachment = None;
        let prepared = Prepared { image_digest: "sha256:i".into(), attachment, fetched: Fetched::default() };
        let (address, health) = (None, Health::default());
        let (created_at, started_at) = (self.now, self.now);
        let run = Run { image_digest: None, bindings: Vec::new(), address, created_at, started_at, restarts: 0, health };
        let fact = if choice < self.running.len() {
            match self.running.remove(choice) {
                Step::Prepare(index) => {
                    Fact::Prepared(index, if luck.is_multiple_of(8) { Err("CannotPullContainerError: x".into()) } else { Ok(prepared) })
                }
                Step::Launch(index) => {
                    let failure = LaunchFailure { reason: "CannotStartContainerError: x".into(), created: luck.is_multiple_of(2) };
                    Fact::Launched(index, if luck.is_multiple_of(8) { Err(failure) } else { Ok(run) })
                }
                Step::Abandon(index, _) => Fact::Abandoned(index),
                Step::Release(index) => Fact::Released(index),
                Step::Restart(index) => {
                    let next = NextLife { started_at: self.now, address: None };
                    Fact::Restarted(index, if luck.is_multiple_of(8) { Err("CannotStartContainerError: x".into()) } else { Ok(next) })
                }
                Step::Probe(index) => Fact::Probed(index, !luck.is_multiple_of(3)),
                Step::Stop(_) | Step::Kill(_) | Step::GiveUp(_) => return,
            }
        } else if let Some(index) = runs.get(choice - self.running.len()) {
            let exit = ExitRecord { code: i32::from(luck % 3), oom_killed: false, at: self.now };
            let index = *index;
            // A probe of what has ended comes to nothing.
            self.running.retain(|step| *step != Step::Probe(index));
            Fact::Exited(index, if luck.is_multiple_of(16) { Err("lost".into()) } else { Ok(exit) })
        } else if choice + 1 == choices {
            self.now += 5_000;
            return;
        } else {
            match next_report(&self.plan, &self.state) {
                None => return,
                Some(report) => {
                    self.check_report(&report);
                    Fact::Reported(report)
                }
            }
        };
        self.state.apply(&self.plan, fact, self.now);
    }

    fn check_report(&mut self, report: &Report) {
        assert!(self.reported.last().is_none_or(|last| *last <= report.status), "a status goes back");
        self.reported.push(report.status);
        match report.status {
            TaskWord::Running => {
                let ends = report.containers.iter().filter(|c| c.status == ContainerWord::Stopped).map(|c| c.index);
                self.stop_told.extend(ends);
            }
            TaskWord::Stopped => {
                assert!(self.state.is_over());
                let all_ran = self.state.containers.iter().all(|phase| phase.run().is_some());
                assert!(!all_ran || self.reported.contains(&TaskWord::Running), "a task whose containers all ran was RUNNING");
            }
            TaskWord::Pending => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_task_comes_to_its_end(shape in shapes(), events in prop::collection::vec((any::<usize>(), any::<u8>()), 0..60), stop_after in 0..60_usize) {
        let plan = planned(&shape);
        let state = TaskState::new(plan.containers.len());
        let mut model = Model { plan, state, now: 1, running: Vec::new(), reported: Vec::new(), stop_told: BTreeSet::new() };
        model.settle();
        for (number, (choice, luck)) in events.into_iter().enumerate() {
            if number == stop_after {
                model.state.apply(&model.plan, Fact::StopWanted, model.now);
                model.settle();
            }
            let before = model.state.told.clone();
            model.happen(choice, luck);
            prop_assert!(before != Told::Stopped || model.state.told == Told::Stopped);
            model.settle();
        }
        model.state.apply(&model.plan, Fact::StopWanted, model.now);
        model.settle();
        // Whatever happened: with its effects ended and time passing, a task that is wanted stopped ends and says so.
        for round in 0..2000 {
            if model.state.told == Told::Stopped {
                break;
            }
            model.happen(round, 1);
            model.settle();
        }
        prop_assert_eq!(&model.state.told, &Told::Stopped, "{:?}", model.state);
        prop_assert!(model.state.is_over() && next_report(&model.plan, &model.state).is_none() && next_step(&model.plan, &model.state, model.now).is_none());
    }

    #[test]
    fn a_state_survives_being_written(shape in shapes(), events in prop::collection::vec((any::<usize>(), any::<u8>()), 0..30)) {
        let plan = planned(&shape);
        let state = TaskState::new(plan.containers.len());
        let mut model = Model { plan, state, now: 1, running: Vec::new(), reported: Vec::new(), stop_told: BTreeSet::new() };
        model.settle();
        for (choice, luck) in events {
            model.happen(choice, luck);
            model.settle();
        }
        let written = serde_json::to_string(&model.state).unwrap();
        prop_assert_eq!(serde_json::from_str::<TaskState>(&written).unwrap(), model.state);
    }
}
