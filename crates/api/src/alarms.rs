//! `POST /alarms`: what somebody says of an alarm, which deployments then know. CloudWatch would say it on AWS; here whatever watches the
//! services does, by a JSON object with one of `set`, `delete` or `list`, signed like any other call. It measures nothing itself.

use berth_model::alarm::{Alarm, AlarmState, MAX_ALARM_NAME};
use berth_model::record::Key;
use berth_shapes::ecs::ErrorCode;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::context::Api;
use crate::failure::Failure;

/// Most alarms.
const MOST_ALARMS: usize = 1_000;
/// Longest text that says why, as CloudWatch's `StateReason`, in characters.
const MOST_REASON: usize = 1_023;
/// Longest window, as CloudWatch's alarms may have it: a week. In seconds.
const MOST_WINDOW: u32 = 604_800;
/// What an alarm needs to notice where nobody says: a period of a minute, once. In seconds.
const DEFAULT_WINDOW: u32 = 60;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Question {
    Set(Said),
    Delete(Named),
    List(Nothing),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Said {
    name: String,
    state: String,
    #[serde(default)]
    reason: String,
    window_seconds: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// Answers.
pub(crate) async fn answer(api: &Api, body: &[u8]) -> Result<Bytes, Failure> {
    let question: Question =
        serde_json::from_slice(body).map_err(|error| Failure::common("SerializationException", 400, error.to_string()))?;
    let answer = match question {
        Question::Set(said) => render(&set(api, &said).await?),
        Question::Delete(Named { name }) => render(&delete(api, &name).await?),
        Question::List(Nothing {}) => {
            let state = api.store.state();
            json!({"alarms": state.alarms().map(|alarm| render(&alarm.value)).collect::<Vec<_>>()})
        }
    };
    serde_json::to_vec(&answer).map(Bytes::from).map_err(|error| Failure::modelled(ErrorCode::Server, error.to_string()))
}

async fn set(api: &Api, said: &Said) -> Result<Alarm, Failure> {
    if !(1..=MAX_ALARM_NAME).contains(&said.name.chars().count()) || said.name.chars().any(char::is_control) {
        return Err(Failure::invalid(format!("An alarm's name has 1 to {MAX_ALARM_NAME} characters that can be printed: name")));
    }
    let Some(says) = AlarmState::parse(&said.state) else {
        return Err(Failure::invalid("An alarm's state is one of OK, ALARM, INSUFFICIENT_DATA: state"));
    };
    if said.reason.chars().count() > MOST_REASON {
        return Err(Failure::invalid(format!("A reason has at most {MOST_REASON} characters: reason")));
    }
    if said.window_seconds.is_some_and(|seconds| !(1..=MOST_WINDOW).contains(&seconds)) {
        return Err(Failure::invalid(format!("windowSeconds must be between 1 and {MOST_WINDOW}: windowSeconds")));
    }
    let now = api.now();
    api.change(|state, transaction| {
        let known = state.alarm(&said.name);
        if known.is_none() && state.alarms().len() >= MOST_ALARMS {
            return Err(Failure::invalid(format!("There are {MOST_ALARMS} alarms already, and no more may be: name")));
        }
        let mut alarm = known.map_or_else(
            || Alarm {
                name: said.name.clone(),
                state: AlarmState::InsufficientData,
                reason: String::new(),
                window_seconds: DEFAULT_WINDOW,
                updated_at: now,
                alarmed_at: None,
            },
            |known| (*known.value).clone(),
        );
        alarm.window_seconds = said.window_seconds.unwrap_or(alarm.window_seconds);
        alarm.say(says, &said.reason, now);
        match known {
            Some(known) => transaction.expect(Key::Alarm(said.name.clone()), known.modified),
            None => transaction.expect_absent(Key::Alarm(said.name.clone())),
        };
        if known.is_none_or(|known| *known.value != alarm) {
            transaction.put(alarm.clone());
        }
        Ok(alarm)
    })
    .await
}

async fn delete(api: &Api, name: &str) -> Result<Alarm, Failure> {
    api.change(|state, transaction| {
        let Some(known) = state.alarm(name) else {
            let name: String = name.chars().take(MAX_ALARM_NAME).collect();
            return Err(Failure::modelled(ErrorCode::ResourceNotFound, format!("There is no alarm '{name}': name")));
        };
        transaction.expect(Key::Alarm(name.to_owned()), known.modified);
        transaction.delete(Key::Alarm(name.to_owned()));
        Ok((*known.value).clone())
    })
    .await
}

fn render(alarm: &Alarm) -> Value {
    json!({
        "name": alarm.name,
        "state": alarm.state.as_str(),
        "reason": alarm.reason,
        "windowSeconds": alarm.window_seconds,
        "updatedAt": alarm.updated_at.to_wire(),
        "alarmedAt": alarm.alarmed_at.map(|at| at.to_wire()),
    })
}
