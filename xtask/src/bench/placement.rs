//! `bench placement`: how many placements a second one core decides, beside a scan of all instances. In process, on the index that the
//! owner of a cluster uses; nothing is committed.

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use berth_model::ids::TaskId;
use berth_scheduler::placement::{Index, Strategy};

use super::placement_fleet::{Dice, Fleet, Kind, kinds, one_kind};
use super::placement_scan::Scan;
use super::{Peer, Selection, quantile, row};

const ROWS: [&str; 9] = [
    "mixed-10k",
    "mixed-10k-p99-us",
    "one-shape-10k",
    "one-shape-10k-churn",
    "mixed-1m-p99-us",
    "mixed-1m",
    "build-ms",
    "bytes-instance",
    "bytes-task",
];
/// Instances and tasks on each, as the promises say; of a million instances each has a few tasks, since only what is free counts.
const MANY: usize = 10_000;
const TASKS_EACH: usize = 100;
const VERY_MANY: usize = 1_000_000;
const FEW_TASKS_EACH: usize = 4;
/// Placements in one round.
const ROUND: usize = 20_000;
const SCAN_ROUND: usize = 2_000;
/// Tasks of the service that is placed at once, and of one plan.
const SERVICE: usize = 100_000;
const PLAN: usize = 1_000;

pub(super) fn run(only: Option<&str>, runs: usize) -> Result<(), Box<dyn Error>> {
    let rows = Selection::new("placement", &ROWS, only)?;
    if ["build-ms", "bytes-instance", "bytes-task", "mixed-10k", "mixed-10k-p99-us", "one-shape-10k", "one-shape-10k-churn"]
        .iter()
        .any(|row| rows.has(row))
    {
        many(&rows, runs)?;
    }
    if rows.has("mixed-1m") || rows.has("mixed-1m-p99-us") {
        very_many(runs)?;
    }
    Ok(())
}

fn many(rows: &Selection<'_>, runs: usize) -> Result<(), Box<dyn Error>> {
    let fleet = Fleet::new(MANY, TASKS_EACH);
    let tasks: Vec<_> = (0..fleet.tasks()).map(|number| Arc::new(fleet.task(number))).collect();
    let before = resident_bytes()?;
    let mut index = Index::default();
    fleet.instances.iter().for_each(|instance| index.apply_instance(instance));
    let with_instances = resident_bytes()?;
    tasks.iter().for_each(|task| index.apply_task(task));
    let with_tasks = resident_bytes()?;
    if rows.has("bytes-instance") {
        row("placement/bytes-instance", (with_instances - before) / MANY as f64, "B", None);
    }
    if rows.has("bytes-task") {
        row("placement/bytes-task", (with_tasks - with_instances) / tasks.len() as f64, "B", None);
    }
    if rows.has("build-ms") {
        let samples: Vec<_> = (0..runs.min(20)).map(|_| build_ms(&fleet, &tasks)).collect();
        row("placement/build-ms", quantile(&samples, 0.5), "ms", None);
    }
    let ids: Vec<_> = tasks.iter().map(|task| task.id).collect();
    drop(tasks);
    let mut scan = Scan::new(&fleet);
    let mut load = Load { index, live: ids, next: 1 << 100, dice: Dice(7) };
    let (mixed, one) = (kinds(), [one_kind()]);
    let (mut ours, mut scans) = (Vec::new(), Vec::new());
    for _ in 0..runs.max(20) {
        if rows.has("mixed-10k") {
            ours.push(load.round(&mixed, ROUND));
            scans.push(scan.round(&mixed, SCAN_ROUND));
        }
    }
    if rows.has("mixed-10k") {
        let peer = Peer { name: "a scan of all instances", value: quantile(&scans, 0.5) };
        row("placement/mixed-10k", quantile(&ours, 0.5), "placements/s", Some(&peer));
    }
    if rows.has("mixed-10k-p99-us") {
        row("placement/mixed-10k-p99-us", quantile(&load.each_us(&mixed, ROUND), 0.99), "us", None);
    }
    if rows.has("one-shape-10k") {
        let samples: Vec<_> = (0..runs.clamp(20, 30)).map(|_| load.service(&one[0])).collect();
        row("placement/one-shape-10k", quantile(&samples, 0.5), "placements/s", None);
    }
    if rows.has("one-shape-10k-churn") {
        let samples: Vec<_> = (0..runs.max(20)).map(|_| load.round(&one, ROUND)).collect();
        row("placement/one-shape-10k-churn", quantile(&samples, 0.5), "placements/s", None);
    }
    Ok(())
}

fn very_many(runs: usize) -> Result<(), Box<dyn Error>> {
    let fleet = Fleet::new(VERY_MANY, FEW_TASKS_EACH);
    let mut index = Index::default();
    eprintln!("{VERY_MANY} instances, {} tasks", fleet.tasks());
    fleet.instances.iter().for_each(|instance| index.apply_instance(instance));
    let mut live = Vec::with_capacity(fleet.tasks());
    for number in 0..fleet.tasks() {
        let task = fleet.task(number);
        index.apply_task(&task);
        live.push(task.id);
    }
    let mut load = Load { index, live, next: 1 << 100, dice: Dice(7) };
    let mixed = kinds();
    load.round(&mixed, ROUND);
    let samples: Vec<_> = (0..runs.max(20)).map(|_| load.round(&mixed, ROUND)).collect();
    row("placement/mixed-1m", quantile(&samples, 0.5), "placements/s", None);
    row("placement/mixed-1m-p99-us", quantile(&load.each_us(&mixed, ROUND), 0.99), "us", None);
    Ok(())
}

fn build_ms(fleet: &Fleet, tasks: &[Arc<berth_model::task::Task>]) -> f64 {
    let start = Instant::now();
    let mut index = Index::default();
    fleet.instances.iter().for_each(|instance| index.apply_instance(instance));
    index.apply_tasks(tasks.len(), tasks.iter().map(|task| &**task));
    start.elapsed().as_secs_f64() * 1e3
}

/// Placements with churn: each frees a task at random first.
struct Load {
    index: Index,
    live: Vec<TaskId>,
    next: u128,
    dice: Dice,
}

impl Load {
    /// Placements a second.
    fn round(&mut self, kinds: &[Kind], count: usize) -> f64 {
        let start = Instant::now();
        for at in 0..count {
            self.one(&kinds[at % kinds.len()]);
        }
        count as f64 / start.elapsed().as_secs_f64()
    }

    /// Placements a second while a service starts all its tasks, as many at once as one plan starts; others made room before.
    fn service(&mut self, kind: &Kind) -> f64 {
        (0..SERVICE).for_each(|_| self.free_one());
        let mut took = 0.0;
        for _ in 0..SERVICE / PLAN {
            let tasks: Vec<_> = (0..PLAN).map(|_| self.fresh_id()).collect();
            let start = Instant::now();
            let placed = self.index.place(&kind.request(&tasks)).placed.len();
            took += start.elapsed().as_secs_f64();
            assert_eq!(placed, PLAN, "there is room for all");
            self.live.extend(tasks);
        }
        SERVICE as f64 / took
    }

    /// What each placement took, without the release before it.
    fn each_us(&mut self, kinds: &[Kind], count: usize) -> Vec<f64> {
        (0..count)
            .map(|at| {
                self.free_one();
                let start = Instant::now();
                self.place(&kinds[at % kinds.len()]);
                start.elapsed().as_secs_f64() * 1e6
            })
            .collect()
    }

    fn one(&mut self, kind: &Kind) {
        self.free_one();
        self.place(kind);
    }

    fn free_one(&mut self) {
        let gone = self.live.swap_remove(self.dice.below(self.live.len()));
        self.index.release(gone);
    }

    fn fresh_id(&mut self) -> TaskId {
        self.next += 1;
        TaskId(self.next.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
    }

    fn place(&mut self, kind: &Kind) {
        let task = [self.fresh_id()];
        let placement = self.index.place(&kind.request(&task));
        assert!(!placement.placed.is_empty(), "the fleet has room for what was just freed many times over");
        self.live.push(task[0]);
    }
}

fn resident_bytes() -> Result<f64, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: f64 = text.split(' ').nth(1).ok_or("statm has no resident pages")?.parse()?;
    Ok(pages * rustix::param::page_size() as f64)
}

/// The strategies of the promise: over zones, then the fullest by memory.
pub(super) fn strategies() -> Vec<Strategy> {
    let zones = berth_scheduler::placement::SpreadField::Attribute("ecs.availability-zone".to_owned());
    vec![Strategy::Spread(zones), Strategy::BinpackMemory]
}
