//! What a look at one thing says. Pure: how it is looked at is the others' business.

use serde::Serialize;

/// What a finding means for running containers here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// As it should be.
    Good,
    /// It works, and something will be missed.
    Warning,
    /// It cannot work.
    Bad,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What was looked at, in a word or two; stable, for scripts.
    pub(crate) check: &'static str,
    /// What it means.
    pub(crate) verdict: Verdict,
    /// What was found.
    pub(crate) found: String,
    /// How to mend it; `None` where nothing is to be mended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mend: Option<String>,
}

impl Finding {
    pub(crate) fn good(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Good, found: found.into(), mend: None }
    }

    pub(crate) fn warning(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warning, found: found.into(), mend: Some(mend.into()) }
    }

    pub(crate) fn bad(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Bad, found: found.into(), mend: Some(mend.into()) }
    }
}

/// All findings together: the worst.
pub(crate) fn overall(findings: &[Finding]) -> Verdict {
    findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Good)
}

/// Bytes in words of people, in powers of 1024.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_counts() {
        assert_eq!(overall(&[]), Verdict::Good);
        let (good, warning, bad) = (Finding::good("a", "x"), Finding::warning("b", "x", "y"), Finding::bad("c", "x", "y"));
        assert_eq!(overall(&[good.clone(), warning.clone()]), Verdict::Warning);
        assert_eq!(overall(&[warning, bad, good]), Verdict::Bad);
    }

    #[test]
    fn sizes() {
        assert_eq!((size(3 << 30).as_str(), size(1536).as_str(), size(7).as_str()), ("3.0 GiB", "1.5 KiB", "7 bytes"));
    }
}
