//! A server with so many RUNNING tasks, made by RunTask and by a service, and the hollow agents that they run on.

use std::error::Error;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::Client;
use super::hollow_fleet::Fleet;
use super::restartable::Server;
use super::scratch::Folder;
use super::store_tasks::definition;

/// Tasks of the service.
const OF_SERVICE: usize = 100;
/// Tasks on an instance.
const OF_INSTANCE: usize = 100;
/// Tasks of one RunTask.
const AT_ONCE: usize = 10;
/// Tasks that may be on their way to RUNNING: enough to keep all parts busy, and no growing queue.
const UNDER_WAY: usize = 2_000;
const GLANCE: Duration = Duration::from_millis(2);
/// After the last task, until what making them took is given back.
const SETTLED: Duration = Duration::from_secs(3);

/// A server with its tasks.
pub(super) struct Loaded {
    /// Ends before the server does: agents without a server would try to come back.
    _fleet: Fleet,
    pub(super) server: Server,
    /// What a task adds to the server's resident memory, in bytes; its instances are not counted.
    pub(super) bytes_a_task: f64,
    arns: Vec<String>,
    _folder: Folder,
}

impl Loaded {
    /// The service's name.
    pub(super) const SERVICE: &'static str = "web";

    /// A task definition that no task is of; of another family for each number, since a family's revisions are made one at a time.
    pub(super) fn another_definition(number: usize) -> Value {
        let mut definition = definition();
        definition["family"] = format!("registered{number}").into();
        definition
    }

    /// Starts a server and brings so many tasks to RUNNING.
    pub(super) fn start(name: &str, count: usize) -> Result<Self, Box<dyn Error>> {
        let folder = Folder::make(name)?;
        let server = Server::start(folder.path())?;
        let mut client = server.client()?;
        client.call("RegisterTaskDefinition", &definition())?;
        let mut fleet = Fleet::start(&server, count / OF_INSTANCE)?;
        if let Some(reason) = &fleet.held_back {
            return Err(format!("only {} agents joined: {reason}", fleet.size).into());
        }
        let before = server.process.settled_resident()?;
        let body = json!({"serviceName": Self::SERVICE, "taskDefinition": "bench", "desiredCount": OF_SERVICE});
        client.call("CreateService", &body)?;
        let arns = launch(&mut client, &mut fleet, count)?;
        std::thread::sleep(SETTLED);
        #[expect(clippy::cast_precision_loss, reason = "a count of tasks")]
        let bytes_a_task = (server.process.settled_resident()? - before) / count as f64;
        // From here on only calls are to be seen, not what agents make of them.
        fleet.mute()?;
        Ok(Self { _fleet: fleet, server, bytes_a_task, arns, _folder: folder })
    }

    /// Some tasks' ARNs, from all over the cluster.
    pub(super) fn arns(&self, count: usize) -> Vec<&str> {
        let step = self.arns.len() / count;
        self.arns.iter().skip(step / 2).step_by(step).take(count).map(String::as_str).collect()
    }
}

/// Runs what the service does not, and waits until all run; the ARNs of what was run.
fn launch(client: &mut Client, fleet: &mut Fleet, count: usize) -> Result<Vec<String>, Box<dyn Error>> {
    let request = json!({"taskDefinition": "bench", "count": AT_ONCE});
    let mut arns = Vec::with_capacity(count);
    let mut running = 0;
    let mut last = Instant::now();
    loop {
        let now = usize::try_from(fleet.running_of(count as u64, last)?)?;
        if now > running {
            (running, last) = (now, Instant::now());
        }
        if running >= count {
            return Ok(arns);
        }
        let launched = arns.len() + OF_SERVICE;
        if launched >= count || launched >= running + UNDER_WAY {
            std::thread::sleep(GLANCE);
            continue;
        }
        let answer = client.call("RunTask", &request)?;
        let tasks = answer["tasks"].as_array().ok_or("RunTask gave no tasks")?;
        arns.extend(tasks.iter().filter_map(|task| task["taskArn"].as_str().map(str::to_owned)));
        if arns.len() / 10_000 > (arns.len() - tasks.len()) / 10_000 {
            eprintln!("{} of {count} tasks were accepted", arns.len() + OF_SERVICE);
        }
    }
}
