//! Some seeds hold, and a seed gives the same simulation each time, byte for byte. More of them: `cargo xtask sim`.

use berth_sim::checker::Tally;
use berth_sim::{Options, simulate};

const SEEDS: std::ops::Range<u64> = 1_000_000..1_000_020;

#[test]
fn seeds_keep_every_promise() {
    let (_folder, registry) = berth_sim::registry().unwrap();
    for seed in SEEDS {
        let report = simulate(seed, Options::default(), &registry);
        assert_eq!(report.violation, None, "replay with `cargo xtask sim --seed {seed}`\n{}", report.lines.join("\n"));
        assert!(report.commits > 0 && report.millis > 0, "{report:?}");
    }
}

#[test]
fn one_seed_gives_one_trace() {
    let (_folder, registry) = berth_sim::registry().unwrap();
    for seed in [3, 4, 5] {
        let once = simulate(seed, Options::default(), &registry);
        let again = simulate(seed, Options::default(), &registry);
        assert_eq!(once, again, "seed {seed}");
        assert_ne!(once.hash, simulate(seed + 1_000, Options::default(), &registry).hash);
    }
}

/// The load has deployments that cannot come out: circuit breakers end them, with a way back and without one; and some that shift traffic.
#[test]
fn circuit_breakers_trigger_and_services_go_back() {
    let (_folder, registry) = berth_sim::registry().unwrap();
    let mut ended = Tally::default();
    for seed in 2_000_000..2_000_040 {
        let report = simulate(seed, Options::default(), &registry);
        assert_eq!(report.violation, None, "replay with `cargo xtask sim --seed {seed}`\n{}", report.lines.join("\n"));
        ended.add(report.deployments);
        if ended.rolled_back > 0 && ended.failed > 0 && ended.shifted > 0 {
            return;
        }
    }
    panic!("not all of it happened: {ended:?}");
}
