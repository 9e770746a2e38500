//! A line of a container's output as people or programs see it.

use std::io::{self, Write};

use serde_json::json;

use super::cri::Line;
use crate::command::Output;
use crate::console::{Colours, Style};

/// Whose lines they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Label {
    /// Shown before each line, already as wide as the widest; empty where there is but one container.
    pub prefix: String,
    /// Tells containers apart by colour.
    pub number: usize,
    pub task: String,
    pub container: String,
}

/// How lines are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub output: Output,
    pub timestamps: bool,
    pub colours: Colours,
}

impl Look {
    /// Writes a line.
    pub fn write(self, out: &mut (dyn Write + Send), label: &Label, line: &Line) -> io::Result<()> {
        if self.output == Output::Json {
            let record = json!({
                "timestamp": line.at, "task": label.task, "container": label.container,
                "stream": line.stream.as_str(), "message": String::from_utf8_lossy(&line.text),
            });
            return writeln!(out, "{record}");
        }
        if !label.prefix.is_empty() {
            write!(out, "{} ", self.colours.paint(Style::Numbered(label.number), &format!("{} |", label.prefix)))?;
        }
        if self.timestamps {
            write!(out, "{} ", self.colours.paint(Style::Dim, &line.at))?;
        }
        out.write_all(&line.text)?;
        out.write_all(b"\n")
    }
}

/// The prefixes of several containers: the name alone where it tells them apart, else with the task's short id; all of one width.
pub(super) fn prefixes(containers: &[(&str, &str)]) -> Vec<String> {
    if containers.len() < 2 {
        return containers.iter().map(|_| String::new()).collect();
    }
    let first_task = containers[0].0;
    let one_task = containers.iter().all(|(task, _)| *task == first_task);
    let names: Vec<String> =
        containers.iter().map(|(task, name)| if one_task { (*name).to_owned() } else { format!("{name} {task}") }).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    names.into_iter().map(|name| format!("{name:width$}")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::cri::Stream;
    use super::*;

    fn shown(look: Look, prefix: &str) -> String {
        let label = Label { prefix: prefix.into(), number: 1, task: "0123".into(), container: "app".into() };
        let line = Line { at: "2026-11-21T04:00:00.000000001Z".into(), stream: Stream::Stderr, text: b"a \xff\"b\"".to_vec() };
        let mut out = Vec::new();
        look.write(&mut out, &label, &line).unwrap();
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn all_looks() {
        let plain = Look { output: Output::Text, timestamps: false, colours: Colours::Off };
        assert_eq!(shown(plain, ""), "a \u{fffd}\"b\"\n");
        assert_eq!(shown(Look { timestamps: true, ..plain }, "app "), "app  | 2026-11-21T04:00:00.000000001Z a \u{fffd}\"b\"\n");
        assert_eq!(shown(Look { colours: Colours::On, ..plain }, "app"), "\x1b[35mapp |\x1b[0m a \u{fffd}\"b\"\n");
        assert_eq!(
            shown(Look { output: Output::Json, ..plain }, "app"),
            "{\"container\":\"app\",\"message\":\"a \u{fffd}\\\"b\\\"\",\"stream\":\"stderr\",\"task\":\"0123\",\"timestamp\":\"2026-11-21T04:00:00.000000001Z\"}\n"
        );
    }

    #[test]
    fn prefixes_tell_containers_apart() {
        assert_eq!(prefixes(&[("t1", "app")]), [""]);
        assert_eq!(prefixes(&[("t1", "app"), ("t1", "proxy")]), ["app  ", "proxy"]);
        assert_eq!(prefixes(&[("t1", "app"), ("t2", "app")]), ["app t1", "app t2"]);
    }
}
