//! The peer of `bench placement`: the same decision by looking at every instance, its numbers side by side in memory as a compiler
//! likes them. Nothing frees tasks here: a scan takes as long whatever it finds.

use std::collections::HashMap;
use std::time::Instant;

use super::placement_fleet::{Fleet, Kind, ZONES, accepts};

pub(super) struct Scan {
    zone: Vec<u8>,
    cpu: Vec<u32>,
    memory: Vec<u32>,
    /// By expression, the instances for which it holds.
    accepted: Vec<Vec<bool>>,
    /// By group, its tasks in each zone.
    counts: HashMap<String, [u32; 3]>,
}

impl Scan {
    pub(super) fn new(fleet: &Fleet) -> Self {
        let zone_of = |name: Option<&str>| u8::try_from(ZONES.iter().position(|zone| Some(*zone) == name).unwrap_or(0)).unwrap_or(0);
        let zone = fleet.instances.iter().map(|one| zone_of(one.availability_zone())).collect();
        let mut scan = Self {
            zone,
            cpu: fleet.instances.iter().map(|one| one.registered.cpu).collect(),
            memory: fleet.instances.iter().map(|one| one.registered.memory).collect(),
            accepted: (0..4).map(|expression| fleet.instances.iter().map(|one| accepts(expression, one)).collect()).collect(),
            counts: HashMap::new(),
        };
        for number in 0..fleet.tasks() {
            let (kind, at) = fleet.place_of(number);
            scan.cpu[at] = scan.cpu[at].saturating_sub(kind.demand.cpu);
            scan.memory[at] = scan.memory[at].saturating_sub(kind.demand.memory);
            scan.count(kind, at);
        }
        scan
    }

    fn count(&mut self, kind: &Kind, at: usize) {
        self.counts.entry(kind.group.to_string()).or_default()[usize::from(self.zone[at])] += 1;
    }

    /// Placements a second.
    pub(super) fn round(&mut self, kinds: &[Kind], count: usize) -> f64 {
        let start = Instant::now();
        for number in 0..count {
            let kind = &kinds[number % kinds.len()];
            if let Some(at) = self.pick(kind) {
                self.cpu[at] -= kind.demand.cpu;
                self.memory[at] -= kind.demand.memory;
                self.count(kind, at);
            }
        }
        count as f64 / start.elapsed().as_secs_f64()
    }

    fn pick(&self, kind: &Kind) -> Option<usize> {
        let accepted = &self.accepted[kind.expression];
        let mut best = [(u32::MAX, usize::MAX); 3];
        let rows = accepted.iter().zip(&self.zone).zip(self.cpu.iter().zip(&self.memory)).enumerate();
        for (at, ((accepted, zone), (cpu, memory))) in rows {
            let best = &mut best[usize::from(*zone)];
            if *accepted && *cpu >= kind.demand.cpu && *memory >= kind.demand.memory && *memory < best.0 {
                *best = (*memory, at);
            }
        }
        let counts = self.counts.get(&*kind.group).copied().unwrap_or_default();
        (0..3).filter(|zone| best[*zone].1 != usize::MAX).min_by_key(|zone| (counts[*zone], best[*zone].0)).map(|zone| best[zone].1)
    }
}
