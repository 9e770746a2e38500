//! A view that is drawn again in place, at the end of what the terminal shows. It must never scroll it, nor leave it other than it was: the
//! keyboard is as ever, the last view stays, the cursor is seen again.

use std::io::{self, Write};

/// Hides and shows the cursor, which would jump about.
const HIDE: &str = "\x1b[?25l";
const SHOW: &str = "\x1b[?25h";

/// How many columns and rows a terminal has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub columns: usize,
    pub rows: usize,
}

impl Size {
    /// Of the terminal that stdout is; what terminals had for decades, where it does not say.
    pub fn of_stdout() -> Self {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
        size.map_or(Self { columns: 80, rows: 24 }, |size| Self { columns: size.ws_col.into(), rows: size.ws_row.into() })
    }
}

/// What is on the screen now.
#[derive(Debug, Default)]
pub(crate) struct Screen {
    /// How many lines the cursor stands below the view's first.
    drawn: usize,
    is_begun: bool,
}

impl Screen {
    /// Draws a view over the one before. What is wider or higher than the terminal is cut: a line that wrapped could not be found again.
    pub fn draw(&mut self, out: &mut (dyn Write + Send), text: &str, size: Size) -> io::Result<()> {
        let mut frame = String::new();
        if !self.is_begun {
            frame.push_str(HIDE);
            self.is_begun = true;
        }
        if self.drawn > 0 {
            frame.push_str(&format!("\x1b[{}A", self.drawn.min(size.rows.saturating_sub(1))));
        }
        // Cleared line by line, not at once, so that nothing flickers.
        self.drawn = 0;
        for line in text.lines().take(size.rows.saturating_sub(1)) {
            frame.push_str(&format!("\r{}\x1b[K\n", clipped(line, size.columns)));
            self.drawn += 1;
        }
        frame.push_str("\x1b[J");
        out.write_all(frame.as_bytes())?;
        out.flush()
    }

    /// Gives the view up where it is: the next one is drawn below what is written now.
    pub fn leave(&mut self) {
        self.drawn = 0;
    }

    /// Ends with the view where it is.
    pub fn end(&mut self, out: &mut (dyn Write + Send)) -> io::Result<()> {
        if !std::mem::replace(&mut self.is_begun, false) {
            return Ok(());
        }
        out.write_all(SHOW.as_bytes())?;
        out.flush()
    }
}

/// As much of a line as fits; colours take no room, and one that was begun ends. Control characters, which a reason that quotes a program may
/// have, would move the cursor and are left out.
fn clipped(line: &str, columns: usize) -> String {
    let (mut short, mut shown, mut is_coloured) = (String::with_capacity(line.len()), 0, false);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        if letter == '\x1b' {
            let sequence: String = letters.by_ref().take_while(|letter| *letter != 'm').collect();
            is_coloured = sequence != "[0";
            short.push_str(&format!("\x1b{sequence}m"));
        } else if !letter.is_control() {
            if shown == columns {
                break;
            }
            short.push(letter);
            shown += 1;
        }
    }
    if is_coloured {
        short.push_str("\x1b[0m");
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Size = Size { columns: 5, rows: 4 };

    #[test]
    fn a_view_is_drawn_over_the_one_before() {
        let (mut screen, mut out) = (Screen::default(), Vec::new());
        screen.draw(&mut out, "one\ntwo\n", SMALL).unwrap();
        screen.draw(&mut out, "three\n", SMALL).unwrap();
        screen.end(&mut out).unwrap();
        screen.end(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "\x1b[?25l\rone\x1b[K\n\rtwo\x1b[K\n\x1b[J\x1b[2A\rthree\x1b[K\n\x1b[J\x1b[?25h");
    }

    #[test]
    fn a_view_that_was_left_stays() {
        let (mut screen, mut out) = (Screen::default(), Vec::new());
        screen.draw(&mut out, "one\n", SMALL).unwrap();
        screen.leave();
        screen.draw(&mut out, "two\n", SMALL).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "\x1b[?25l\rone\x1b[K\n\x1b[J\rtwo\x1b[K\n\x1b[J");
    }

    #[test]
    fn nothing_that_is_not_shown_is_ended() {
        let mut out = Vec::new();
        Screen::default().end(&mut out).unwrap();
        assert!(out.is_empty());
    }

    #[test]
    fn what_does_not_fit_is_cut() {
        let (mut screen, mut out) = (Screen::default(), Vec::new());
        screen.draw(&mut out, "1\n2\n3\n4\n5\n", SMALL).unwrap();
        assert_eq!(screen.drawn, 3, "the cursor's own row is the last");
        assert_eq!(clipped("ünïcödé", 5), "ünïcö");
        assert_eq!(clipped("\x1b[32mgreen and more\x1b[0m", 5), "\x1b[32mgreen\x1b[0m");
        assert_eq!(clipped("\x1b[32mab\x1b[0mcdefg", 5), "\x1b[32mab\x1b[0mcde");
        assert_eq!(clipped("a\tb\rc", 5), "abc");
    }
}
