//! Where a command writes to, and whether colours and moving lines are welcome there. It must never be asked for content.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::environment::Environment;

/// The two output streams of a command.
pub(crate) struct Console<'a> {
    /// Results.
    pub out: &'a mut (dyn Write + Send),
    /// Warnings and progress.
    pub err: &'a mut (dyn Write + Send),
    /// Results may be coloured.
    pub colours: Colours,
    /// Progress may move, i.e. overwrite its own line.
    pub moving: bool,
    /// Results may be drawn again in place.
    pub live: bool,
}

impl Console<'_> {
    /// A result for programs: one line of JSON, there as soon as it is written, for whoever reads it through a pipe.
    pub fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut *self.out, value).map_err(io::Error::from)?;
        writeln!(self.out)?;
        self.out.flush()
    }

    /// A remark that is no result.
    pub fn warn(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.err, "warning: {text}")
    }

    /// Overwrites the line of progress; nothing where lines cannot move.
    pub fn progress(&mut self, text: &str) -> io::Result<()> {
        if !self.moving {
            return Ok(());
        }
        write!(self.err, "\r\x1b[2K{text}")?;
        self.err.flush()
    }
}

/// A text of others on one line: reasons quote programs, and what a program wrote must not reach a terminal as an order to it.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.retain(|letter| !letter.is_control());
    line
}

/// Whether to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colours {
    /// Escape sequences are understood and wanted.
    On,
    /// Text alone.
    Off,
}

/// What a piece of text should look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Bold,
    Dim,
    Good,
    Changing,
    Bad,
    /// One of a few well-told-apart colours, for things that only differ.
    Numbered(usize),
}

impl Colours {
    /// Colours on a terminal, unless `NO_COLOR` is set (<https://no-color.org>) or the terminal is a dumb one.
    pub fn of(stream: &impl IsTerminal, environment: &Environment) -> Self {
        let wanted = environment.get("NO_COLOR").is_none() && environment.get("TERM") != Some("dumb");
        if wanted && stream.is_terminal() { Self::On } else { Self::Off }
    }

    /// The text, coloured or not.
    pub fn paint(self, style: Style, text: &str) -> String {
        // Cyan, magenta, blue, green, yellow: red means harm everywhere else.
        const NUMBERED: [&str; 5] = ["36", "35", "34", "32", "33"];
        let code = match style {
            Style::Plain => "",
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Good => "32",
            Style::Changing => "33",
            Style::Bad => "31",
            Style::Numbered(number) => NUMBERED[number % NUMBERED.len()],
        };
        if self == Self::Off || code.is_empty() || text.is_empty() {
            return text.to_owned();
        }
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_gives_no_orders() {
        assert_eq!(one_line("a\n  b\t\x1b[2Jc\x07"), "a b [2Jc");
    }

    #[test]
    fn colours_only_where_wanted() {
        assert_eq!(Colours::On.paint(Style::Good, "up"), "\x1b[32mup\x1b[0m");
        assert_eq!(Colours::On.paint(Style::Numbered(6), "x"), "\x1b[35mx\x1b[0m");
        assert_eq!(Colours::On.paint(Style::Plain, "up"), "up");
        assert_eq!(Colours::Off.paint(Style::Good, "up"), "up");
        let file = tempfile::tempfile().unwrap();
        assert_eq!(Colours::of(&file, &Environment::default()), Colours::Off);
    }
}
