//! What happens to a fleet, and when: all of it is drawn before the first of it happens. It touches nothing but what users, machines and
//! processes can do.

use std::sync::Arc;
use std::time::Duration;

use berth_shapes::ecs::Operation;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Week;
use super::hollow::Hollow;
use crate::chance::Chance;
use crate::load::Desk;
use crate::server::Server;

/// Families of task definitions, each with the image of its name: those that run, those that at times crash soon after their start, and
/// those that never start.
pub const FAMILIES: [&str; 3] = ["web", "flaky", "dud"];
/// How long a user lets a deployment stand whose tasks never start, where no circuit breaker ends it.
const NOTICES_AFTER: (u64, u64) = (5 * 60_000, 60 * 60_000);
/// Fewest and most tasks of a service. With fewer its percentages, rounded, could leave a deployment no way.
const TASKS: (u64, u64) = (5, 14);

/// Kinds of happenings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Deploy,
    DeployDud,
    DeployFlaky,
    Scale,
    Die,
    CrashHost,
    CutHost,
    CrashServer,
}

/// How often each happens, in a thousand.
const SHARES: [(Kind, u64); 7] = [
    (Kind::Deploy, 130),
    (Kind::DeployDud, 40),
    (Kind::DeployFlaky, 30),
    (Kind::Scale, 150),
    (Kind::Die, 600),
    (Kind::CrashHost, 25),
    (Kind::CutHost, 25),
];

/// What happens to a fleet.
pub struct Happenings<'a> {
    week: &'a Week,
    chance: Chance,
    traits: Vec<Trait>,
}

/// What a service is like, for all of its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trait {
    Plain,
    /// Its circuit breaker ends deployments, and goes back if so.
    Breaks(bool),
    /// Its deployments go through stages.
    BlueGreen,
}

fn name(service: usize) -> String {
    format!("svc-{service:04}")
}

impl<'a> Happenings<'a> {
    /// Draws what services are like.
    pub fn new(week: &'a Week) -> Self {
        let chance = week.chance.part("happenings", 0);
        let traits = [Trait::Plain, Trait::Plain, Trait::Breaks(true), Trait::Breaks(true), Trait::Breaks(false), Trait::BlueGreen];
        let traits = (0..week.fleet.services).map(|_| *chance.pick(&traits)).collect();
        Self { week, chance, traits }
    }

    /// Creates all services.
    pub async fn begin(&self) {
        for (number, kind) in self.traits.iter().enumerate() {
            let mut request = json!({"serviceName": name(number), "taskDefinition": "web", "desiredCount": self.week.fleet.tasks});
            match kind {
                Trait::Plain => {
                    let (minimum, maximum) = *self.chance.pick(&[(100, 200), (50, 100), (50, 150), (90, 120)]);
                    request["deploymentConfiguration"] = json!({"minimumHealthyPercent": minimum, "maximumPercent": maximum});
                }
                Trait::Breaks(rollback) => {
                    request["deploymentConfiguration"] = json!({"deploymentCircuitBreaker": {"enable": true, "rollback": rollback}});
                }
                Trait::BlueGreen => {
                    let bake = self.chance.within(0, 10);
                    request["deploymentConfiguration"] = json!({"strategy": "BLUE_GREEN", "bakeTimeInMinutes": bake});
                }
            }
            update(&self.week.desk, Operation::CreateService, request, &name(number)).await;
        }
    }

    /// Lets everything happen, each at its time.
    pub async fn run(&self) {
        let begun = Instant::now();
        let millis = self.week.fleet.hours * 3_600_000;
        let mut plan: Vec<(u64, Kind)> = (0..self.week.fleet.happenings).map(|_| (self.chance.below(millis), self.kind())).collect();
        plan.extend((0..2).map(|_| (self.chance.below(millis), Kind::CrashServer)));
        plan.sort_by_key(|(at, _)| *at);
        let mut lasting = JoinSet::new();
        for (at, kind) in plan {
            tokio::time::sleep_until(begun + Duration::from_millis(at)).await;
            while lasting.try_join_next().is_some() {}
            self.happen(kind, &mut lasting);
        }
        tokio::time::sleep_until(begun + Duration::from_millis(millis)).await;
        while lasting.join_next().await.is_some() {}
    }

    fn kind(&self) -> Kind {
        let mut drawn = self.chance.below(SHARES.iter().map(|(_, share)| share).sum());
        for (kind, share) in SHARES {
            if drawn < share {
                return kind;
            }
            drawn -= share;
        }
        Kind::Die
    }

    fn host(&self) -> Arc<Hollow> {
        Arc::clone(self.chance.pick(&self.week.hosts))
    }

    fn happen(&self, kind: Kind, lasting: &mut JoinSet<()>) {
        let (desk, chance) = (self.week.desk.clone(), self.chance.part("happening", self.chance.bits()));
        let number = usize::try_from(self.chance.below(self.traits.len() as u64)).unwrap_or(0);
        let service = name(number);
        match kind {
            Kind::Deploy | Kind::DeployFlaky => {
                let family = if kind == Kind::Deploy { "web" } else { "flaky" };
                let request = json!({"service": service, "taskDefinition": family, "forceNewDeployment": true});
                lasting.spawn(async move { update(&desk, Operation::UpdateService, request, &service).await });
            }
            Kind::DeployDud => {
                let is_watched = matches!(self.traits[number], Trait::Breaks(_));
                lasting.spawn(async move { deploy_dud(desk, chance, service, is_watched).await });
            }
            Kind::Scale => {
                let count = chance.within(TASKS.0, TASKS.1);
                let request = json!({"service": service, "desiredCount": count});
                lasting.spawn(async move { update(&desk, Operation::UpdateService, request, &service).await });
            }
            Kind::Die => drop(self.host().kill_one()),
            Kind::CrashHost => {
                let (host, lasts) = (self.host(), chance.millis(20_000, 900_000));
                lasting.spawn(async move { host.crash(lasts).await });
            }
            Kind::CutHost => {
                let most = *chance.pick(&[3_000, 20_000, 1_800_000]);
                let (host, lasts) = (self.host(), chance.millis(500, most));
                lasting.spawn(async move { host.partition(lasts).await });
            }
            Kind::CrashServer => {
                let (server, lasts) = (Arc::clone(&self.week.server), chance.millis(1_000, 60_000));
                lasting.spawn(async move { restart(&server, lasts).await });
            }
        }
    }

    /// What users do at the end about services whose tasks never start and that no circuit breaker helps.
    pub async fn cure(&self) {
        for service in self.week.checker.services() {
            if self.week.checker.is_incurable(&service) {
                let request = json!({"service": service.name.to_string(), "taskDefinition": "web"});
                update(&self.week.desk, Operation::UpdateService, request, &service.name.to_string()).await;
            }
        }
    }
}

async fn restart(server: &Server, after: Duration) {
    server.crash();
    tokio::time::sleep(after).await;
    server.ensure().await;
}

async fn deploy_dud(desk: Desk, chance: Chance, service: String, is_watched: bool) {
    update(&desk, Operation::UpdateService, json!({"service": service, "taskDefinition": "dud"}), &service).await;
    if !is_watched {
        tokio::time::sleep(chance.millis(NOTICES_AFTER.0, NOTICES_AFTER.1)).await;
        update(&desk, Operation::UpdateService, json!({"service": service, "taskDefinition": "web"}), &service).await;
    }
}

/// Calls until it is answered, and remembers what was promised.
async fn update(desk: &Desk, operation: Operation, request: Value, service: &str) {
    let desired = request["desiredCount"].as_u64();
    match desk.insist(operation, request).await {
        Ok(_) => {
            if desired.is_some() {
                desk.services.lock().insert(service.to_owned(), desired);
            }
        }
        // A call whose answer was lost is made again, and a service is made once.
        Err(text) if operation == Operation::CreateService && text.contains("not idempotent") => {}
        // All are there, and what is asked of them is in order.
        Err(text) => desk.checker.violated("answers", format!("{} of {service} is refused: {text}", operation.name())),
    }
}
