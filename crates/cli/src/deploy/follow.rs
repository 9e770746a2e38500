//! Following a deployment to its end, or to the end of one's patience. It must never give up because the server is away for a while:
//! deployments go on when it is back.

use std::io;
use std::time::{Duration, SystemTime};

use berth_shapes::Timestamp;
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use super::changes;
use super::look::Sight;
use super::screen::{Screen, Size};
use super::show;
use super::status::{Outcome, Status};
use crate::client::ClientError;
use crate::command::Output;
use crate::console::{Console, one_line};
use crate::failure::Failure;
use crate::services::ServiceError;
use crate::tasks::name_of;

/// How often it is looked at: as often as people look, and two small calls each time.
const POLL: Duration = Duration::from_secs(1);
/// How long to wait where nothing else is said: with ECS's defaults a deployment of many tasks takes some minutes.
pub(crate) const PATIENCE_SECONDS: u64 = 1800;

/// How a deployment is followed.
pub(crate) enum Presenter {
    /// In silence.
    Silent,
    /// A line for each change, each with its time.
    Lines,
    /// A line of JSON for each change.
    Json,
    /// The view itself, again and again.
    Live(Screen),
}

impl Presenter {
    /// The way that fits where it goes.
    pub fn of(output: Output, console: &Console<'_>) -> Self {
        match output {
            Output::Json => Self::Json,
            Output::Text if console.live => Self::Live(Screen::default()),
            Output::Text => Self::Lines,
        }
    }

    fn show(&mut self, before: Option<&Status>, status: &Status, console: &mut Console<'_>) -> io::Result<()> {
        let now = now_millis();
        match self {
            Self::Silent => Ok(()),
            Self::Lines => {
                let time = Timestamp::from_millis(now / 1000 * 1000).render_iso8601();
                for line in changes::lines(before, status, now) {
                    writeln!(console.out, "{time} {}", one_line(&line))?;
                }
                console.out.flush()
            }
            Self::Json if before.is_some_and(|before| before.without_clocks() == status.without_clocks()) => Ok(()),
            Self::Json => console.json(&Shown::new(status, now)),
            Self::Live(screen) => screen.draw(console.out, &show::render(status, now, console.colours), Size::of_stdout()),
        }
    }

    /// Something else is about to be written.
    fn leave(&mut self) {
        if let Self::Live(screen) = self {
            screen.leave();
        }
    }

    fn end(&mut self, console: &mut Console<'_>) -> io::Result<()> {
        match self {
            Self::Live(screen) => screen.end(console.out),
            Self::Silent | Self::Lines | Self::Json => Ok(()),
        }
    }
}

/// A status with how long it has gone on.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shown<'a> {
    #[serde(flatten)]
    status: &'a Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    elapsed_seconds: Option<i64>,
}

impl<'a> Shown<'a> {
    /// As of a time in milliseconds since 1970.
    pub fn new(status: &'a Status, now: i64) -> Self {
        Self { status, elapsed_seconds: status.elapsed_millis(now).map(|millis| millis / 1000) }
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_millis() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Follows a deployment until it ends; gives what it was then.
pub(crate) async fn follow(
    sight: &mut Sight<'_>,
    patience: Duration,
    mut presenter: Presenter,
    console: &mut Console<'_>,
) -> Result<Status, Failure> {
    let outcome = look_until_end(sight, patience, &mut presenter, console).await;
    // The terminal is as it was before anything is said about a failure.
    presenter.end(console)?;
    outcome
}

async fn look_until_end(
    sight: &mut Sight<'_>,
    patience: Duration,
    presenter: &mut Presenter,
    console: &mut Console<'_>,
) -> Result<Status, Failure> {
    let end = Instant::now() + patience;
    let mut signals = Signals::new()?;
    let (mut before, mut is_reachable): (Option<Status>, bool) = (None, true);
    loop {
        let looked = tokio::select! {
            looked = sight.look() => looked,
            // A server that is away may be silent for longer than anybody's patience.
            () = sleep_until(end) => return Err(impatient(sight.name(), patience)),
            code = signals.next() => return Err(Failure::Interrupted { code }),
        };
        match looked {
            Ok(status) => {
                is_reachable = true;
                presenter.show(before.as_ref(), &status, console)?;
                if status.outcome.is_final() {
                    return Ok(status);
                }
                before = Some(status);
            }
            // Before the first answer it may be the wrong server altogether.
            Err(ServiceError::Client(error)) if before.is_some() && passes(&error) => {
                if std::mem::replace(&mut is_reachable, false) {
                    presenter.leave();
                    console.warn(&format!("{error}; the deployment goes on without being seen until it answers"))?;
                }
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = sleep_until(end.min(Instant::now() + POLL)) => {}
            code = signals.next() => return Err(Failure::Interrupted { code }),
        }
    }
}

/// Whether an error may be over at the next try.
fn passes(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } | ClientError::BadAnswer { .. } => true,
        ClientError::Service { code, status, .. } => code == "ThrottlingException" || *status >= 500,
        ClientError::Setting(_) => false,
    }
}

fn impatient(name: &str, patience: Duration) -> Failure {
    Failure::new(
        format!("the deployment of service {name} has not ended within {} seconds, and goes on", patience.as_secs()),
        format!("see what it waits for with `berth why {name}`, go on with a longer --timeout, or go back with `berth rollback {name}`"),
    )
}

/// Whether it ended as was wished: come out, or, where going back was the wish, gone back.
pub(crate) fn verdict(status: &Status, goes_back: bool) -> Result<(), Failure> {
    let name = &status.service.service_name;
    let reason = status.reason.as_deref().map_or_else(String::new, |reason| format!(": {reason}"));
    let back = status.service_deployment.as_ref().and_then(|one| one.rollback.as_ref()?.service_revision_arn.as_deref());
    let advice =
        format!("see its tasks' reasons with `berth why {name}` and `berth ps --all`, and its events with `berth deploy status {name}`");
    Err(match status.outcome {
        Outcome::Completed => return Ok(()),
        Outcome::RolledBack if goes_back => return Ok(()),
        Outcome::RolledBack => {
            let back = back.map_or_else(String::new, |arn| format!(" to {}", status.definition_of(arn)));
            Failure::new(format!("the deployment of service {name} was rolled back{back}{reason}"), advice)
        }
        Outcome::Failed => Failure::new(format!("the deployment of service {name} failed{reason}"), advice),
        Outcome::Stopped => Failure::new(format!("the deployment of service {name} was stopped{reason}"), advice),
        Outcome::InProgress => Failure::new(format!("the deployment of service {name} goes on"), advice),
        Outcome::None => Failure::new(
            format!(
                "service {name} has no deployment that could be waited for: its controller is {}",
                status.service.deployment_controller
            ),
            format!(
                "see its task sets with `aws ecs describe-task-sets --cluster {} --service {name}`",
                name_of(&status.service.cluster_arn)
            ),
        ),
    })
}

/// The two signals that end a command.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::Said { message: format!("cannot listen for signals: {error}"), advice: None, code: 1 })
        };
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for one; gives the exit code for it.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 130,
            _ = self.terminate.recv() => 143,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn verdicts() {
        let of = |status: &str, goes_back| verdict(&sample::status(status, &[]), goes_back).err().and_then(|failure| failure.render());
        assert_eq!(of("SUCCESSFUL", false), None);
        assert_eq!(of("ROLLBACK_SUCCESSFUL", true), None);
        assert!(of("ROLLBACK_SUCCESSFUL", false).unwrap().starts_with("error: the deployment of service web was rolled back: ECS "));
        assert!(of("ROLLBACK_FAILED", true).unwrap().contains("failed"));
        assert!(of("STOPPED", false).unwrap().contains("was stopped"));
        let mut external = sample::service();
        external["deployments"] = serde_json::json!([]);
        external["deploymentController"] = serde_json::json!({"type": "EXTERNAL"});
        let status = sample::status_of(&external, &serde_json::Value::Null, &[]);
        let text = verdict(&status, false).unwrap_err().render().unwrap();
        assert!(
            text.contains("its controller is EXTERNAL\n  see its task sets with `aws ecs describe-task-sets --cluster blue --service web`"),
            "{text}"
        );
    }

    #[test]
    fn what_may_be_over_at_the_next_try() {
        let service = |code: &str, status| ClientError::Service { operation: "x".into(), code: code.into(), message: "y".into(), status };
        assert!(passes(&service("ThrottlingException", 400)) && passes(&service("ServerException", 500)));
        assert!(!passes(&service("ClusterNotFoundException", 400)) && !passes(&ClientError::Setting("z".into())));
    }
}
