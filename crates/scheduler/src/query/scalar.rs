//! Values that have an order: versions, points in time, counts.

use std::cmp::Ordering;

use berth_model::time::UnixMillis;

use super::subject::Subject;

/// Numbers that a version has at most; the agent's have three.
const VERSION_PARTS: usize = 8;

/// What an ordering operator compares with. Each keeps how it was written, to be printed that way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scalar {
    /// `agentVersion`.
    Version { text: String, parts: Vec<u64> },
    /// `registeredAt`, in seconds since the epoch.
    Moment { text: String, seconds: i64 },
    /// `runningTasksCount`.
    Count(u32),
}

impl Scalar {
    /// A version: numbers with dots between them.
    pub(super) fn version(text: &str) -> Option<Self> {
        let parts: Option<Vec<u64>> = text.split('.').map(number).collect();
        parts.filter(|parts| parts.len() <= VERSION_PARTS).map(|parts| Self::Version { text: text.to_owned(), parts })
    }

    /// One of the four documented forms of a date; without a zone it is UTC, without a time it is midnight.
    pub(super) fn moment(text: &str) -> Option<Self> {
        // The library reads more forms than AWS documents, so the form is checked first.
        let form = |mask: &str| {
            text.len() == mask.len()
                && text.bytes().zip(mask.bytes()).all(|(byte, mask)| if mask == b'0' { byte.is_ascii_digit() } else { byte == mask })
        };
        let zoned = form("0000-00-00T00:00:00Z") || form("0000-00-00T00:00:00+00:00") || form("0000-00-00T00:00:00-00:00");
        let full = if zoned {
            text.to_owned()
        } else if form("0000-00-00T00:00:00") {
            format!("{text}Z")
        } else if form("0000-00-00") {
            format!("{text}T00:00:00Z")
        } else {
            return None;
        };
        let moment: jiff::Timestamp = full.parse().ok()?;
        Some(Self::Moment { text: text.to_owned(), seconds: moment.as_second() })
    }

    /// A count.
    pub(super) fn count(text: &str) -> Option<Self> {
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten().map(Self::Count)
    }

    /// How an instance's value stands to this one; `None` if it has none.
    pub(super) fn order_of(&self, subject: &Subject<'_>) -> Option<Ordering> {
        match self {
            Self::Version { parts, .. } => compare_version(subject.agent_version?, parts),
            Self::Moment { seconds, .. } => Some(seconds_of(subject.registered_at).cmp(seconds)),
            Self::Count(count) => Some(subject.running_tasks.cmp(count)),
        }
    }

    /// As it was written.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Version { text, .. } | Self::Moment { text, .. } => text.clone(),
            Self::Count(count) => count.to_string(),
        }
    }
}

/// A moment is written to the second, so it is compared to the second: otherwise `==` would never hold.
const fn seconds_of(time: UnixMillis) -> i64 {
    time.0.div_euclid(1_000)
}

fn number(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// Compares number by number; what is missing is 0, so that 1.14 is 1.14.0. What follows the numbers of an agent's version
/// (`1.2.3-beta`, `1.2.3+build`) does not count.
fn compare_version(actual: &str, wanted: &[u64]) -> Option<Ordering> {
    let actual = actual.strip_prefix('v').unwrap_or(actual);
    let numbers = actual.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
    let mut parts = numbers.split('.').map(number);
    let first = parts.next()??;
    let mut own = std::iter::once(first).chain(parts.map_while(|part| part)).take(VERSION_PARTS);
    for wanted in wanted {
        match own.next().unwrap_or(0).cmp(wanted) {
            Ordering::Equal => {}
            unequal => return Some(unequal),
        }
    }
    Some(if own.any(|part| part > 0) { Ordering::Greater } else { Ordering::Equal })
}
