//! A small fleet keeps every promise for half a day, and one seed gives one trace. The large one for a week: `cargo xtask sim --fleet week`.

use berth_sim::{Fleet, simulate_fleet};

/// Five tasks each: of four some percentages leave a deployment no way, as on ECS.
const SMALL: Fleet = Fleet { hosts: 12, services: 24, tasks: 5, hours: 12, happenings: 120 };

#[test]
fn a_fleet_keeps_every_promise() {
    let (_folder, registry) = berth_sim::registry().unwrap();
    for seed in 0..3 {
        let report = simulate_fleet(seed, SMALL, false, &registry);
        assert_eq!(report.violation, None, "seed {seed}\n{}", report.lines.join("\n"));
        assert!(report.millis > 12 * 3_600_000, "it has lived its time: {report:?}");
        assert!(report.deployments.successful > 0 && report.tasks > 24 * 5, "{report:?}");
    }
}

#[test]
fn one_seed_gives_one_fleet() {
    let (_folder, registry) = berth_sim::registry().unwrap();
    let once = simulate_fleet(5, SMALL, false, &registry);
    assert_eq!(once, simulate_fleet(5, SMALL, false, &registry));
    assert_ne!(once.hash, simulate_fleet(6, SMALL, false, &registry).hash);
}
