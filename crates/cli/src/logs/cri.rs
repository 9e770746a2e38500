//! The CRI log format, `<RFC 3339 nanoseconds> <stdout|stderr> <P|F> <text>`, back into the lines the container wrote.
//!
//! Source: "CRI: Log management for container stdout/stderr streams" of the Kubernetes design proposals.

/// A line in pieces is given out once it has grown to this, ended or not, so that memory is bounded.
const LONGEST_LINE: usize = 1024 * 1024;

/// Which of its two outputs a container wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// One line of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// When its first piece was written. All are UTC with nine digits, so text order is time order.
    pub at: String,
    pub stream: Stream,
    /// As the container wrote it, without the newline.
    pub text: Vec<u8>,
}

/// Puts records together to lines.
#[derive(Debug, Default)]
pub(super) struct Joiner {
    stdout: Option<Line>,
    stderr: Option<Line>,
    last_at: String,
}

impl Joiner {
    /// Takes one record, without its newline; gives the line it ends.
    pub fn take(&mut self, record: &[u8]) -> Option<Line> {
        let Some((at, stream, ends, text)) = parse(record) else {
            // Torn by a crash of the machine, say. Shown as it is, at the time of what came before.
            return Some(Line { at: self.last_at.clone(), stream: Stream::Stdout, text: record.to_vec() });
        };
        at.clone_into(&mut self.last_at);
        let slot = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let line = slot.get_or_insert_with(|| Line { at: at.to_owned(), stream, text: Vec::new() });
        line.text.extend_from_slice(text);
        if ends || line.text.len() >= LONGEST_LINE { slot.take() } else { None }
    }

    /// The lines that have begun and not ended.
    pub fn finish(&mut self) -> impl Iterator<Item = Line> {
        self.stdout.take().into_iter().chain(self.stderr.take())
    }
}

fn parse(record: &[u8]) -> Option<(&str, Stream, bool, &[u8])> {
    let mut parts = record.splitn(4, |byte| *byte == b' ');
    let at = std::str::from_utf8(parts.next()?).ok().filter(|at| at.ends_with('Z'))?;
    let stream = match parts.next()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    // Kubernetes allows further tags behind a colon.
    let ends = match parts.next()?.split(|byte| *byte == b':').next()? {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    Some((at, stream, ends, parts.next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(joiner: &mut Joiner, record: &str) -> Option<(String, &'static str, String)> {
        let line = joiner.take(record.as_bytes())?;
        Some((line.at, line.stream.as_str(), String::from_utf8(line.text).unwrap()))
    }

    #[test]
    fn pieces_are_joined_per_stream() {
        let mut joiner = Joiner::default();
        assert_eq!(take(&mut joiner, "2026-11-21T04:00:00.000000001Z stdout P one "), None);
        assert_eq!(
            take(&mut joiner, "2026-11-21T04:00:00.000000002Z stderr F oh no"),
            Some(("2026-11-21T04:00:00.000000002Z".into(), "stderr", "oh no".into()))
        );
        assert_eq!(
            take(&mut joiner, "2026-11-21T04:00:00.000000003Z stdout F  two"),
            Some(("2026-11-21T04:00:00.000000001Z".into(), "stdout", "one  two".into()))
        );
        assert_eq!(
            take(&mut joiner, "2026-11-21T04:00:00.000000004Z stdout F "),
            Some(("2026-11-21T04:00:00.000000004Z".into(), "stdout", String::new()))
        );
    }

    #[test]
    fn a_torn_record_is_shown() {
        let mut joiner = Joiner::default();
        take(&mut joiner, "2026-11-21T04:00:00.000000001Z stdout F x");
        for torn in ["", "0Z stdout F", "2026-11-21T04:00:00.000000001Z stdmid F x", "nonsense"] {
            if torn == "0Z stdout F" {
                assert_eq!(take(&mut joiner, torn).unwrap().2, "", "no text is an empty line");
                continue;
            }
            assert_eq!(take(&mut joiner, torn).unwrap().2, torn);
        }
    }

    #[test]
    fn endless_lines_are_cut_and_unfinished_ones_kept() {
        let mut joiner = Joiner::default();
        let piece = format!("1Z stdout P {}", "x".repeat(LONGEST_LINE / 2));
        assert_eq!(joiner.take(piece.as_bytes()), None);
        assert_eq!(joiner.take(piece.as_bytes()).unwrap().text.len(), LONGEST_LINE);
        joiner.take(b"2Z stderr P begun");
        let left: Vec<Line> = joiner.finish().collect();
        assert_eq!(left, [Line { at: "2Z".into(), stream: Stream::Stderr, text: b"begun".to_vec() }]);
    }
}
