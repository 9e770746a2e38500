//! Points in time, as AWS's APIs carry them: milliseconds since the Unix epoch.

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// This point in time, later by some milliseconds.
    #[must_use]
    pub const fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this, 0 if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> i64 {
        let millis = self.0.saturating_sub(earlier.0);
        if millis < 0 { 0 } else { millis }
    }

    /// As the shapes carry it.
    #[must_use]
    pub fn to_wire(self) -> berth_shapes::Timestamp {
        berth_shapes::Timestamp::from_millis(self.0)
    }
}
