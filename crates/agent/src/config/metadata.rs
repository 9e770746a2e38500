//! Settings of the task metadata endpoint: the official agent's variables.

use super::ConfigError;
use super::environment::Variables;

/// How often a task may ask.
pub const RATE: &str = "ECS_TASK_METADATA_RPS_LIMIT";
/// Whether the zone is kept to ourselves.
pub const NO_ZONE: &str = "ECS_DISABLE_TASK_METADATA_AZ";

/// What tasks are told, and how often. (`ecs-agent/tmds` and `agent/config` of amazon-ecs-agent)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetadataSettings {
    /// Requests a second that one address may make for long.
    pub steady: u32,
    /// Requests that it may make at once after a while without any.
    pub burst: u32,
    /// Whether a task is told of its availability zone.
    pub shows_zone: bool,
}

impl Default for MetadataSettings {
    fn default() -> Self {
        Self { steady: 40, burst: 60, shows_zone: true }
    }
}

/// Reads the variables.
pub(super) fn read(variables: &Variables<'_>) -> Result<MetadataSettings, ConfigError> {
    let default = MetadataSettings::default();
    let (steady, burst) = match variables.text(RATE) {
        None => (default.steady, default.burst),
        Some(text) => parse(&text).ok_or_else(|| ConfigError {
            name: RATE,
            problem: format!("'{text}' is not two numbers above 0 like 40,60, requests a second and at once"),
        })?,
    };
    Ok(MetadataSettings { steady, burst, shows_zone: !variables.flag(NO_ZONE)? })
}

fn parse(text: &str) -> Option<(u32, u32)> {
    let (steady, burst) = text.split_once(',')?;
    let number = |text: &str| text.trim().parse().ok().filter(|number| *number > 0);
    Some((number(steady)?, number(burst)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_numbers_above_zero() {
        assert_eq!(parse("40,60"), Some((40, 60)));
        assert_eq!(parse(" 1 , 2 "), Some((1, 2)));
        for text in ["", "40", "0,60", "40,0", "40,60,80", "-1,60", "a,b"] {
            assert_eq!(parse(text), None, "{text}");
        }
        let given = |rate: &'static str| move |name: &str| (name == RATE).then(|| rate.to_owned());
        let settings = read(&Variables::new(&given("1,2"))).unwrap();
        assert_eq!(settings, MetadataSettings { steady: 1, burst: 2, shows_zone: true });
        assert_eq!(read(&Variables::new(&given("40"))).unwrap_err().name, RATE);
        let hidden = |name: &str| (name == NO_ZONE).then(|| "true".to_owned());
        assert!(!read(&Variables::new(&hidden)).unwrap().shows_zone);
    }
}
