//! How long images stay on the machine: the official agent's variables, and Berth's own.

use std::time::Duration;

use super::ConfigError;
use super::environment::{Variables, parse_duration};

/// Less than this is ignored in `ECS_IMAGE_CLEANUP_INTERVAL`, as the official agent does.
const LEAST_CLEANUP_INTERVAL: Duration = Duration::from_secs(600);

/// How long images stay. Meanings and defaults are those of amazon-ecs-agent's variables
/// (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/automated_image_cleanup.html>) where they have one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// Whether images are removed at all. (`ECS_DISABLE_IMAGE_CLEANUP`)
    pub is_cleaned_up: bool,
    /// Between two cycles. (`ECS_IMAGE_CLEANUP_INTERVAL`, `BERTH_IMAGE_CLEANUP_INTERVAL`)
    pub cleanup_interval: Duration,
    /// How long an image stays at least after its pull. (`ECS_IMAGE_MINIMUM_CLEANUP_AGE`)
    pub minimum_age: Duration,
    /// Whether images that no task brought are removed too. (`ECS_ENABLE_UNTRACKED_IMAGE_CLEANUP`)
    pub are_untracked_removed: bool,
    /// How long those stay at least after they were built. (`NON_ECS_IMAGE_MINIMUM_CLEANUP_AGE`)
    pub untracked_minimum_age: Duration,
    /// How many images go in a cycle. (`ECS_NUM_IMAGES_DELETE_PER_CYCLE`)
    pub most_per_cycle: usize,
    /// References of images that stay. (`ECS_EXCLUDE_UNTRACKED_IMAGE`)
    pub excluded: Vec<String>,
    /// What images may take on the disk. (`BERTH_IMAGE_DISK_BUDGET`)
    pub budget: Budget,
    /// References of images that are pulled at the start, and stay. (`BERTH_PREPULL_IMAGES`)
    pub prepulled: Vec<String>,
}

/// What images may take on the disk together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// So many bytes.
    Bytes(u64),
    /// So much of the file system that they are on, 1 to 100.
    Percent(u8),
}

impl Default for ImageConfig {
    fn default() -> Self {
        Self {
            is_cleaned_up: true,
            cleanup_interval: Duration::from_secs(1800),
            minimum_age: Duration::from_secs(3600),
            are_untracked_removed: false,
            untracked_minimum_age: Duration::from_secs(3600),
            most_per_cycle: 5,
            excluded: Vec::new(),
            // The other half is for what tasks write, for logs, and for an image that comes before an old one has gone.
            budget: Budget::Percent(50),
            prepulled: Vec::new(),
        }
    }
}

pub(super) fn read(variables: &Variables<'_>) -> Result<ImageConfig, ConfigError> {
    let default = ImageConfig::default();
    Ok(ImageConfig {
        is_cleaned_up: !variables.flag("ECS_DISABLE_IMAGE_CLEANUP")?,
        cleanup_interval: cleanup_interval(variables, default.cleanup_interval)?,
        minimum_age: variables.duration("ECS_IMAGE_MINIMUM_CLEANUP_AGE")?.unwrap_or(default.minimum_age),
        are_untracked_removed: variables.flag("ECS_ENABLE_UNTRACKED_IMAGE_CLEANUP")?,
        untracked_minimum_age: variables.duration("NON_ECS_IMAGE_MINIMUM_CLEANUP_AGE")?.unwrap_or(default.untracked_minimum_age),
        most_per_cycle: most_per_cycle(variables, default.most_per_cycle)?,
        excluded: list(variables, "ECS_EXCLUDE_UNTRACKED_IMAGE"),
        budget: budget(variables)?.unwrap_or(default.budget),
        prepulled: list(variables, "BERTH_PREPULL_IMAGES"),
    })
}

/// Berth's own variable takes any interval; the official one is ignored where it is too small.
fn cleanup_interval(variables: &Variables<'_>, default: Duration) -> Result<Duration, ConfigError> {
    const OURS: &str = "BERTH_IMAGE_CLEANUP_INTERVAL";
    if let Some(text) = variables.text(OURS) {
        let interval = parse_duration(&text).filter(|interval| *interval >= Duration::from_millis(100));
        return interval.ok_or_else(|| ConfigError { name: OURS, problem: format!("'{text}' is not a duration of 100ms or more") });
    }
    let interval = variables.duration("ECS_IMAGE_CLEANUP_INTERVAL")?.unwrap_or(default);
    if interval < LEAST_CLEANUP_INTERVAL {
        tracing::warn!(?interval, used = ?default, "ECS_IMAGE_CLEANUP_INTERVAL is less than 10m and ignored");
        return Ok(default);
    }
    Ok(interval)
}

fn most_per_cycle(variables: &Variables<'_>, default: usize) -> Result<usize, ConfigError> {
    let most = variables.parsed::<i64>("ECS_NUM_IMAGES_DELETE_PER_CYCLE", "a number")?;
    match most.map(usize::try_from) {
        None => Ok(default),
        Some(Ok(most)) if most > 0 => Ok(most),
        Some(_) => {
            tracing::warn!(used = default, "ECS_NUM_IMAGES_DELETE_PER_CYCLE is less than 1 and ignored");
            Ok(default)
        }
    }
}

/// References with commas between.
fn list(variables: &Variables<'_>, name: &str) -> Vec<String> {
    let text = variables.text(name).unwrap_or_default();
    text.split(',').map(str::trim).filter(|one| !one.is_empty()).map(str::to_owned).collect()
}

fn budget(variables: &Variables<'_>) -> Result<Option<Budget>, ConfigError> {
    const NAME: &str = "BERTH_IMAGE_DISK_BUDGET";
    let Some(text) = variables.text(NAME) else { return Ok(None) };
    let problem = || ConfigError { name: NAME, problem: format!("'{text}' is neither a size like 20GiB nor a share like 40%") };
    parse_budget(&text).map(Some).ok_or_else(problem)
}

/// `40%`, or bytes with `K`, `M`, `G` or `T`, which count by 1024, with or without `B` or `iB`.
fn parse_budget(text: &str) -> Option<Budget> {
    if let Some(percent) = text.strip_suffix('%') {
        return percent.trim().parse().ok().filter(|percent| (1..=100).contains(percent)).map(Budget::Percent);
    }
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor: u64 = match unit.trim().trim_end_matches('B').trim_end_matches('i') {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor).map(Budget::Bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets() {
        let gib = 1u64 << 30;
        for (text, budget) in [
            ("40%", Some(Budget::Percent(40))),
            ("100 %", Some(Budget::Percent(100))),
            ("20GiB", Some(Budget::Bytes(20 * gib))),
            ("20 G", Some(Budget::Bytes(20 * gib))),
            ("7MB", Some(Budget::Bytes(7 << 20))),
            ("1048576", Some(Budget::Bytes(1 << 20))),
            ("0%", None),
            ("101%", None),
            ("much", None),
            ("5 apples", None),
            ("99999999999T", None),
        ] {
            assert_eq!(parse_budget(text), budget, "{text}");
        }
    }
}
