//! Alarms, as deployments watch them: what somebody said of each last. Whoever measures something says it; nothing here measures.
//!
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-alarm-failure.html>

use serde::{Deserialize, Serialize};

use crate::time::UnixMillis;

/// Longest name of an alarm, in characters.
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html>
pub const MAX_ALARM_NAME: usize = 255;

wire_enum!(
    /// What an alarm says: CloudWatch's `StateValue`.
    AlarmState {
        /// What it watches is as it should be.
        Ok = "OK",
        /// It is not.
        Alarm = "ALARM",
        /// Nobody knows.
        InsufficientData = "INSUFFICIENT_DATA",
    }
);

/// An alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// Its name, as `deploymentConfiguration.alarms.alarmNames` have it.
    pub name: String,
    /// What it says.
    pub state: AlarmState,
    /// Why, in words.
    pub reason: String,
    /// How long it takes to notice something, in seconds: its period times the periods that it looks at. So long a deployment bakes.
    pub window_seconds: u32,
    /// When somebody last said something of it.
    pub updated_at: UnixMillis,
    /// When it last went into ALARM. Kept when it leaves it, so that a short one is not missed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarmed_at: Option<UnixMillis>,
}

impl Alarm {
    /// Somebody says something of it; `false` if that is what it was.
    pub fn say(&mut self, state: AlarmState, reason: &str, now: UnixMillis) -> bool {
        if (self.state, self.reason.as_str()) == (state, reason) {
            return false;
        }
        if state == AlarmState::Alarm && self.state != state {
            self.alarmed_at = Some(now);
        }
        self.state = state;
        reason.clone_into(&mut self.reason);
        self.updated_at = now;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_remembers_when_it_last_went_into_alarm() {
        let at = UnixMillis;
        let mut alarm = Alarm {
            name: "slow".to_owned(),
            state: AlarmState::InsufficientData,
            reason: String::new(),
            window_seconds: 60,
            updated_at: at(0),
            alarmed_at: None,
        };
        assert!(alarm.say(AlarmState::Alarm, "p99 is 3 s", at(5)) && !alarm.say(AlarmState::Alarm, "p99 is 3 s", at(6)));
        assert!(alarm.say(AlarmState::Alarm, "p99 is 4 s", at(7)));
        assert_eq!((alarm.alarmed_at, alarm.updated_at), (Some(at(5)), at(7)));
        assert!(alarm.say(AlarmState::Ok, "p99 is 80 ms", at(8)));
        assert_eq!((alarm.alarmed_at, alarm.state), (Some(at(5)), AlarmState::Ok));
        assert!(alarm.say(AlarmState::Alarm, "p99 is 3 s", at(9)));
        assert_eq!(alarm.alarmed_at, Some(at(9)));
    }
}
