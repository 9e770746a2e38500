//! Account settings: what a principal, or the whole account, chose for what is made from now on. The values a setting may have and
//! the one it has when nobody chose stand here too, as AWS's page "Access Amazon ECS features with account settings" lists them.

use berth_shapes::ecs::SettingName;
use serde::{Deserialize, Serialize};

/// One setting of one principal. Whose principal is the account's root holds for everybody without a setting of their own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccountSetting {
    /// ARN of the user, role or root.
    pub principal: String,
    /// What is set, e.g. `containerInsights`.
    pub name: String,
    /// The value chosen.
    pub value: String,
}

/// A setting's name with its values.
#[derive(Debug)]
pub struct Choice {
    /// Which one.
    pub name: SettingName,
    /// Every value that may be put, as put.
    pub values: &'static [&'static str],
    /// What holds where nobody chose.
    pub default: &'static str,
    /// Whether AWS sets it itself (`type` is `aws_managed`); users only read it.
    pub is_managed: bool,
}

const SWITCH: &[&str] = &["enabled", "disabled", "on", "off"];

const fn switch(name: SettingName, default: &'static str) -> Choice {
    Choice { name, values: SWITCH, default, is_managed: false }
}

const fn one_of(name: SettingName, values: &'static [&'static str], default: &'static str) -> Choice {
    Choice { name, values, default, is_managed: false }
}

/// All settings, in order of their names.
pub static CHOICES: [Choice; 11] = [
    switch(SettingName::AwsvpcTrunking, "disabled"),
    one_of(SettingName::ContainerInsights, &["enhanced", "enabled", "disabled", "on", "off"], "disabled"),
    // Nobody can leave the long form of ARNs since April 2021.
    one_of(SettingName::ContainerInstanceLongArnFormat, &["enabled", "on"], "enabled"),
    one_of(SettingName::DefaultLogDriverMode, &["blocking", "non-blocking"], "non-blocking"),
    switch(SettingName::FargateEventWindows, "disabled"),
    switch(SettingName::FargateFipsMode, "disabled"),
    one_of(SettingName::FargateTaskRetirementWaitPeriod, &["0", "7", "14"], "7"),
    Choice { name: SettingName::GuardDutyActivate, values: &[], default: "off", is_managed: true },
    one_of(SettingName::ServiceLongArnFormat, &["enabled", "on"], "enabled"),
    switch(SettingName::TagResourceAuthorization, "on"),
    one_of(SettingName::TaskLongArnFormat, &["enabled", "on"], "enabled"),
];

/// The choices of a setting; `None` if there is none of that name.
#[must_use]
pub fn choice(name: &str) -> Option<&'static Choice> {
    CHOICES.iter().find(|choice| choice.name.as_str() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choices_are_in_order_and_their_defaults_can_be_chosen() {
        assert!(CHOICES.windows(2).all(|pair| pair[0].name.as_str().to_lowercase() < pair[1].name.as_str().to_lowercase()));
        for known in &CHOICES {
            assert!(known.is_managed || known.values.contains(&known.default), "{:?}", known.name);
            assert_eq!(choice(known.name.as_str()).map(|found| found.default), Some(known.default));
        }
        assert!(choice("lamp").is_none());
    }
}
