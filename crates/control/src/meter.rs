//! What the loops count of themselves, for whoever shows it. Labels come out of closed lists: neither tasks nor clusters have series.

use std::time::Duration;

use berth_model::task::Task;
use berth_model::time::UnixMillis;
use berth_scheduler::placement::Refusal;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::placing::{Launched, Refused, Where};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfLoop {
    r#loop: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct For {
    r#for: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Because {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// For whom tasks are placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// RunTask, StartTask.
    Request,
    /// A service.
    Service,
}

/// What came of an agent's report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Folded {
    /// The task is no longer what it was.
    Changed,
    /// It said what was known.
    Repeated,
    /// There is no such task.
    Unknown,
}

/// What came of a table of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TableOutcome {
    /// Agents are told of it.
    Sent,
    /// It does not fit what is sent at most.
    TooLarge,
}

/// The loops' metrics; clones share them.
#[derive(Clone, Debug)]
pub struct Meter {
    lag: Family<OfLoop, Histogram>,
    placed: Family<For, Counter>,
    refused: Family<Because, Counter>,
    launches: Counter,
    launch_seconds: Histogram,
    reports: Family<Outcome, Counter>,
    services: Counter,
    tables: Family<Outcome, Counter>,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            // From 10 µs to 5 s.
            lag: Family::new_with_constructor(|| Histogram::new(exponential_buckets(10e-6, 2.0, 20))),
            placed: Family::default(),
            refused: Family::default(),
            launches: Counter::default(),
            // From 1 ms to 17 minutes, which a large image may take.
            launch_seconds: Histogram::new(exponential_buckets(1e-3, 2.0, 21)),
            reports: Family::default(),
            services: Counter::default(),
            tables: Family::default(),
        }
    }
}

impl Meter {
    /// Shows them in a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "berth_control_loop_lag_seconds",
            "Time from a commit, or from the moment a wake-up was due, until the loop acts on it",
            self.lag.clone(),
        );
        registry.register("berth_control_placed_tasks", "Tasks placed and committed, for a request or a service", self.placed.clone());
        registry.register(
            "berth_control_refused_tasks",
            "Tasks that found no place, by the rule that refused where it was closest",
            self.refused.clone(),
        );
        registry.register("berth_control_launches", "Tasks that reached RUNNING", self.launches.clone());
        registry.register("berth_control_launch_seconds", "Time from a task's creation to RUNNING", self.launch_seconds.clone());
        registry.register("berth_control_reports", "Reports of agents on tasks, by what came of them", self.reports.clone());
        registry.register("berth_control_dns_tables", "Tables of names for container instances, by what came of them", self.tables.clone());
        registry.register("berth_control_services_planned", "Plans made for services", self.services.clone());
    }

    pub(crate) fn lag_of(&self, name: &'static str) -> Histogram {
        self.lag.get_or_create(&OfLoop { r#loop: name }).clone()
    }

    pub(crate) fn placed(&self, wanted: Wanted, tasks: usize) {
        let r#for = match wanted {
            Wanted::Request => "request",
            Wanted::Service => "service",
        };
        self.placed.get_or_create(&For { r#for }).inc_by(tasks as u64);
    }

    /// Tasks that found no place, with what the instances said.
    pub(crate) fn refused<'a>(&self, tasks: usize, refusals: impl Iterator<Item = &'a Refusal>) {
        if tasks > 0 {
            let closest = refusals.max_by_key(|refusal| refusal.closeness());
            let reason = closest.map_or("NO_INSTANCES", |refusal| refusal.rule.reason());
            self.refused.get_or_create(&Because { reason }).inc_by(tasks as u64);
        }
    }

    /// A request of `place` was answered; its tasks from before `since` were placed for an earlier one.
    pub(crate) fn answered(&self, place: &Where, launched: &Launched, since: UnixMillis) {
        self.placed(Wanted::Request, launched.made_since(since).count());
        match place {
            Where::Anywhere(wanted) => {
                let homeless = usize::try_from(*wanted).unwrap_or(usize::MAX).saturating_sub(launched.tasks.len());
                self.refused(homeless, launched.refused.iter().filter_map(Refused::rule));
            }
            // Each instance was one task's only place.
            Where::On(_) => {
                for refused in &launched.refused {
                    let reason = refused.rule().map_or("MISSING", |refusal| refusal.rule.reason());
                    self.refused.get_or_create(&Because { reason }).inc();
                }
            }
        }
    }

    /// A task reached RUNNING.
    pub(crate) fn launched(&self, task: &Task) {
        let Some(started) = task.started_at else { return };
        self.launches.inc();
        let took = Duration::from_millis(u64::try_from(started.since(task.created_at)).unwrap_or(0));
        self.launch_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn reported(&self, folded: Folded) {
        let outcome = match folded {
            Folded::Changed => "changed",
            Folded::Repeated => "repeated",
            Folded::Unknown => "unknown",
        };
        self.reports.get_or_create(&Outcome { outcome }).inc();
    }

    pub(crate) fn made_table(&self, outcome: TableOutcome) {
        let outcome = match outcome {
            TableOutcome::Sent => "sent",
            TableOutcome::TooLarge => "too_large",
        };
        self.tables.get_or_create(&Outcome { outcome }).inc();
    }

    pub(crate) fn planned_service(&self) {
        self.services.inc();
    }
}

#[cfg(test)]
mod tests {
    use berth_model::ids::ContainerInstanceId;
    use berth_scheduler::placement::Rule;
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn shown(meter: &Meter) -> String {
        let mut registry = Registry::default();
        meter.register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    fn by(rule: Rule) -> Refusal {
        Refusal { instance: ContainerInstanceId(1), rule }
    }

    #[test]
    fn a_task_without_a_place_counts_under_the_closest_rule() {
        let meter = Meter::default();
        meter.refused(3, [by(Rule::Inactive), by(Rule::Cpu { wanted: 2, free: 1 }), by(Rule::Agent)].iter());
        meter.refused(1, [].iter());
        meter.refused(0, [by(Rule::Agent)].iter());
        let refused = vec![Refused::Missing(ContainerInstanceId(2)), Refused::ByRule(by(Rule::Port(80)))];
        meter.answered(&Where::On(Vec::new()), &Launched { tasks: Vec::new(), refused: refused.clone() }, UnixMillis(0));
        meter.answered(&Where::Anywhere(4), &Launched { tasks: Vec::new(), refused }, UnixMillis(0));
        let shown = shown(&meter);
        for line in [
            "berth_control_refused_tasks_total{reason=\"RESOURCE:CPU\"} 3\n",
            "berth_control_refused_tasks_total{reason=\"NO_INSTANCES\"} 1\n",
            "berth_control_refused_tasks_total{reason=\"MISSING\"} 1\n",
            "berth_control_refused_tasks_total{reason=\"RESOURCE:PORTS\"} 5\n",
        ] {
            assert!(shown.contains(line), "{line} in:\n{shown}");
        }
        assert!(!shown.contains("\"AGENT\""), "nothing was refused for that alone:\n{shown}");
    }

    #[test]
    fn everything_has_a_name_of_its_own() {
        let meter = Meter::default();
        meter.placed(Wanted::Request, 2);
        meter.placed(Wanted::Service, 3);
        meter.reported(Folded::Changed);
        meter.reported(Folded::Repeated);
        meter.reported(Folded::Unknown);
        meter.planned_service();
        meter.made_table(TableOutcome::Sent);
        meter.made_table(TableOutcome::TooLarge);
        meter.lag_of("owner").observe(0.5);
        let shown = shown(&meter);
        for line in [
            "berth_control_placed_tasks_total{for=\"request\"} 2\n",
            "berth_control_placed_tasks_total{for=\"service\"} 3\n",
            "berth_control_reports_total{outcome=\"changed\"} 1\n",
            "berth_control_reports_total{outcome=\"repeated\"} 1\n",
            "berth_control_reports_total{outcome=\"unknown\"} 1\n",
            "berth_control_services_planned_total 1\n",
            "berth_control_dns_tables_total{outcome=\"sent\"} 1\n",
            "berth_control_dns_tables_total{outcome=\"too_large\"} 1\n",
            "berth_control_loop_lag_seconds_count{loop=\"owner\"} 1\n",
            "berth_control_launches_total 0\n",
        ] {
            assert!(shown.contains(line), "{line} in:\n{shown}");
        }
    }
}
