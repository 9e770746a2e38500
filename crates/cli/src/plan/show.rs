//! A plan for people: its outcome, its steps, the container instances before and after, what does not fit.

use super::{Answer, Instance};
use crate::console::{Colours, Style, one_line};
use crate::ps::table::{Cell, render as table};

const HEADINGS: [&str; 7] = ["INSTANCE", "ZONE", "TASKS", "START", "STOP", "FREE CPU", "FREE MIB"];

pub(super) fn render(answer: &Answer, colours: Colours) -> String {
    let style = if answer.fits { Style::Good } else { Style::Bad };
    let mut text = format!("{}\n", colours.paint(style, &answer.summary));
    if answer.action == "UpdateService" {
        for (number, step) in answer.steps.iter().enumerate() {
            text.push_str(&format!(
                "  {}. after {} s: start {}, stop {}; {} tasks\n",
                number + 1,
                step.after_seconds,
                step.start,
                step.stop,
                step.tasks
            ));
        }
    }
    for stage in &answer.stages {
        text.push_str(&format!(
            "  {} after {} s, for {} s: {} % of the production traffic, {} % of the test traffic\n",
            stage.stage, stage.after_seconds, stage.seconds, stage.production_traffic_percent, stage.test_traffic_percent
        ));
        for waited in &stage.waits_for {
            text.push_str(&format!("     waits for: {}\n", one_line(waited)));
        }
    }
    if !answer.instances.is_empty() {
        let rows: Vec<_> = answer.instances.iter().map(row).collect();
        text.push_str(&table(&HEADINGS, &rows, colours));
    }
    if answer.other_instances > 0 {
        let more = if answer.instances.is_empty() { "" } else { "other " };
        let plural = if answer.other_instances == 1 { "" } else { "s" };
        let line = format!("{} {more}container instance{plural}: as now", answer.other_instances);
        text.push_str(&format!("{}\n", colours.paint(Style::Dim, &line)));
    }
    for reason in &answer.reasons {
        text.push_str(&reason.render(colours));
    }
    text
}

fn row(one: &Instance) -> [Cell; 7] {
    let moved = |before: u32, after: u32| if before == after { before.to_string() } else { format!("{before} -> {after}") };
    let number = |number: u32, style| if number > 0 { Cell::styled(style, number.to_string()) } else { Cell::plain("") };
    let name = one.arn.as_deref().map_or(one.name.as_str(), crate::tasks::short_id);
    let name = if one.removed { Cell::styled(Style::Dim, format!("{name} (removed)")) } else { Cell::plain(name) };
    [
        name,
        Cell::plain(one.availability_zone.as_deref().unwrap_or_default()),
        Cell::plain(moved(one.before.tasks, one.after.tasks)),
        number(one.start, Style::Good),
        number(one.stop, Style::Changing),
        Cell::plain(if one.removed { String::new() } else { moved(one.before.free_cpu, one.after.free_cpu) }),
        Cell::plain(if one.removed { String::new() } else { moved(one.before.free_memory, one.after.free_memory) }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_for_people() {
        let answer: Answer = serde_json::from_value(serde_json::json!({
            "action": "UpdateService", "summary": "2 steps in 40 s at least, then 3 tasks of web:2 run", "fits": true,
            "steps": [{"afterSeconds": 0, "start": 3, "stop": 0, "tasks": 5}, {"afterSeconds": 40, "start": 0, "stop": 2, "tasks": 3}],
            "stages": [{"stage": "PRODUCTION_TRAFFIC_SHIFT", "afterSeconds": 10, "seconds": 30, "testTrafficPercent": 100.0,
                        "productionTrafficPercent": 12.5, "waitsFor": ["12.5 % of the production traffic bake"]}],
            "instances": [
                {"name": "0123456789abcdef0123456789abcdef", "arn": "arn:aws:ecs:r:1:container-instance/c/0123456789abcdef0123456789abcdef",
                 "availabilityZone": "a", "added": false, "removed": false, "start": 2, "stop": 2,
                 "before": {"tasks": 2, "freeCpu": 80, "freeMemory": 100}, "after": {"tasks": 2, "freeCpu": 80, "freeMemory": 90}},
                {"name": "added 1", "added": true, "removed": false, "start": 1, "stop": 0,
                 "before": {"tasks": 0, "freeCpu": 100, "freeMemory": 100}, "after": {"tasks": 1, "freeCpu": 90, "freeMemory": 84}},
            ],
            "otherInstances": 4,
            "reasons": [{"code": "OTHERS", "text": "1 task of others"}],
        }))
        .unwrap();
        assert_eq!(
            render(&answer, Colours::Off),
            "2 steps in 40 s at least, then 3 tasks of web:2 run\n\
             \x20 1. after 0 s: start 3, stop 0; 5 tasks\n\
             \x20 2. after 40 s: start 0, stop 2; 3 tasks\n\
             \x20 PRODUCTION_TRAFFIC_SHIFT after 10 s, for 30 s: 12.5 % of the production traffic, 100 % of the test traffic\n\
             \x20    waits for: 12.5 % of the production traffic bake\n\
             INSTANCE      ZONE  TASKS   START  STOP  FREE CPU   FREE MIB\n\
             0123456789ab  a     2       2      2     80         100 -> 90\n\
             added 1             0 -> 1  1            100 -> 90  100 -> 84\n\
             4 other container instances: as now\n\
             \x20 - 1 task of others\n"
        );
    }
}
