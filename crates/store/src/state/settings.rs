//! What is set for an account, and the alarms that are told.

use berth_model::account_setting::AccountSetting;
use berth_model::alarm::Alarm;

use super::{Entry, State};

impl State {
    /// An account setting by its name and its principal's ARN.
    #[must_use]
    pub fn account_setting(&self, name: &str, principal: &str) -> Option<&Entry<AccountSetting>> {
        self.account_settings.get(&(name.to_owned(), principal.to_owned()))
    }

    /// All account settings, by name and principal.
    pub fn account_settings(&self) -> impl ExactSizeIterator<Item = &Entry<AccountSetting>> {
        self.account_settings.values()
    }

    /// An alarm.
    #[must_use]
    pub fn alarm(&self, name: &str) -> Option<&Entry<Alarm>> {
        self.alarms.get(name)
    }

    /// All alarms by name.
    pub fn alarms(&self) -> impl ExactSizeIterator<Item = &Entry<Alarm>> {
        self.alarms.values()
    }
}
