//! `berth logs`: what containers wrote, read from the files of this machine. It must never need the server for more than
//! telling which containers belong to a task and when the task has ended.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_shapes::ecs;

use crate::client::{Client, ClientError};
use crate::command::Output;
use crate::connection::{Connection, DataDirArgument};
use crate::console::Console;
use crate::data_dir::containers_folder;
use crate::environment::Environment;
use crate::failure::{BAD_ARGUMENTS, FAILED, Failure};
use crate::tasks::{self, is_stopped, name_of, short_id};

mod cri;
mod find;
mod group;
mod show;
mod tail;

use cri::Line;
use find::{FindError, Found};
use group::Writer;
use show::{Label, Look};
use tail::LogTail;

/// How often files are looked at for new lines.
const POLL: Duration = Duration::from_millis(100);
/// How many looks at the files there are for one question to the server.
const POLLS_PER_QUESTION: u32 = 5;

/// Show what containers of this machine wrote.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  berth logs web --follow\n  berth logs 3f1c --container app --tail 100 --timestamps\n  berth logs --group /ecs/web --stream web/app --follow\n  berth logs web --output json | jq -r .message"
)]
pub struct Logs {
    /// Task id, unique beginning of one, ARN, or service name
    #[arg(value_name = "TASK", required_unless_present = "group")]
    task: Option<String>,
    /// Of containers with the log driver awslogs: all that write to this log group
    #[arg(long, value_name = "GROUP", conflicts_with = "task")]
    group: Option<String>,
    /// Of the log group, only streams whose names begin so: PREFIX/CONTAINER/TASK-ID
    #[arg(long, value_name = "STREAM", requires = "group", conflicts_with = "task")]
    stream: Option<String>,
    /// Only this container
    #[arg(long, value_name = "NAME")]
    container: Option<String>,
    /// Go on until the task has stopped
    #[arg(long, short)]
    follow: bool,
    /// Begin with the last N lines of each container; all of them otherwise
    #[arg(long, short = 'n', value_name = "N")]
    tail: Option<usize>,
    /// Show when each line was written
    #[arg(long, short)]
    timestamps: bool,
    /// Cluster of the task (name or ARN); all of them are searched otherwise
    #[arg(long, value_name = "CLUSTER")]
    cluster: Option<String>,
    /// How to print; JSON is one object a line
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
    #[command(flatten)]
    data_dir: DataDirArgument,
}

/// Why a container's output cannot be shown.
#[derive(Debug, thiserror::Error)]
enum LogsError {
    #[error(transparent)]
    Find(#[from] FindError),
    #[error("task {task} has no container '{wanted}'; it has {names}")]
    NoContainer { task: String, wanted: String, names: String },
    #[error("container '{container}' of task {task} never ran: {reason}")]
    NeverRan { container: String, task: String, reason: String },
    #[error("the output of container '{container}' of task {task} is not on this machine: there is no {folder}")]
    Elsewhere { container: String, task: String, instance: String, folder: PathBuf },
    #[error("the server gives container '{container}' a runtime id that cannot be one: {runtime_id:?}")]
    BadRuntimeId { container: String, runtime_id: String },
    #[error("cannot read the output of container '{container}' in {folder}: {error}")]
    Unreadable { container: String, folder: PathBuf, error: io::Error },
}

impl From<LogsError> for Failure {
    fn from(error: LogsError) -> Self {
        let (advice, code) = match &error {
            LogsError::Find(FindError::Client(_)) => (None, FAILED),
            LogsError::Find(FindError::Ambiguous { .. }) => (Some("type more of the id".to_owned()), BAD_ARGUMENTS),
            LogsError::Find(FindError::ManyClusters { .. } | FindError::ManyGroups { .. }) => {
                (Some("name one with --cluster CLUSTER".to_owned()), BAD_ARGUMENTS)
            }
            LogsError::Find(FindError::Unknown { .. } | FindError::NoTasks(_) | FindError::NoWriter(_)) => {
                (Some("see which there are with `berth ps --all`; stopped tasks are forgotten after an hour".to_owned()), FAILED)
            }
            LogsError::NoContainer { .. } => (Some("name one of those with --container NAME".to_owned()), BAD_ARGUMENTS),
            LogsError::NeverRan { .. } => (Some("see `berth ps --all` for the whole story".to_owned()), FAILED),
            LogsError::Elsewhere { task, instance, .. } => (
                Some(format!(
                    "the task was placed on container instance {instance}: run `berth logs {task}` on that machine.\n\
                     If it is this one, name the agent's data directory with --data-dir DIR; output is removed with its container."
                )),
                FAILED,
            ),
            LogsError::Unreadable { error, .. } if error.kind() == io::ErrorKind::PermissionDenied => {
                (Some("it belongs to the user who started Berth: run this as that user, or with sudo".to_owned()), FAILED)
            }
            LogsError::BadRuntimeId { .. } | LogsError::Unreadable { .. } => (None, FAILED),
        };
        match (error, advice) {
            (LogsError::Find(FindError::Client(error)), _) => error.into(),
            (error, advice) => Self::Said { message: error.to_string(), advice, code },
        }
    }
}

/// The last lines of a container's output, where it ran on this machine and is still there. Read only; bytes that are no text are
/// shown as such.
pub(crate) fn last_lines(containers: &Path, runtime_id: &str, most: usize) -> Option<Vec<String>> {
    let folder = containers.join(legal(runtime_id).then_some(runtime_id)?);
    let (mut tail, mut lines) = (LogTail::new(folder, true), VecDeque::new());
    while tail.read(&mut lines).ok()? {
        lines.drain(..lines.len().saturating_sub(most));
    }
    tail.finish(&mut lines);
    lines.drain(..lines.len().saturating_sub(most));
    Some(lines.iter().map(|line| String::from_utf8_lossy(&line.text).into_owned()).collect())
}

/// Whether it can be the name of a container's folder, and of nothing else.
fn legal(runtime_id: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=128).contains(&runtime_id.len()) && runtime_id.bytes().all(legal)
}

/// One container whose output is shown.
struct Source {
    label: Label,
    task_arn: String,
    /// There once the container has run on this machine.
    tail: Option<LogTail>,
    lines: VecDeque<Line>,
    /// The task has ended; nothing more is written.
    ended: bool,
}

impl Source {
    /// Reads until there is a line, or nothing more for now.
    fn fill(&mut self) -> io::Result<()> {
        let Some(tail) = &mut self.tail else { return Ok(()) };
        while self.lines.is_empty() && tail.read(&mut self.lines)? {}
        Ok(())
    }

    /// Reads all there is and keeps the last lines.
    fn keep_last(&mut self, most: usize) -> io::Result<()> {
        let Some(tail) = &mut self.tail else { return Ok(()) };
        loop {
            let more = tail.read(&mut self.lines)?;
            let surplus = self.lines.len().saturating_sub(most);
            self.lines.drain(..surplus);
            if !more {
                return Ok(());
            }
        }
    }
}

impl Logs {
    pub(crate) async fn run(&self, environment: &Environment, console: &mut Console<'_>) -> Result<(), Failure> {
        let connection = Connection::find(&self.data_dir, environment)?;
        let containers = containers_folder(&self.data_dir.path(environment)?);
        let client = Client::new(&connection)?;
        let cluster = self.cluster.as_deref();
        let (found, writers) = match (&self.task, &self.group) {
            (Some(task), _) => (find::find(&client, task, cluster).await.map_err(LogsError::from)?, None),
            (None, group) => {
                let group = group.as_deref().unwrap_or_default();
                let (found, writers) = group::find(&client, group, self.stream.as_deref(), cluster).await.map_err(LogsError::from)?;
                (found, Some(writers))
            }
        };
        let look = Look { output: self.output, timestamps: self.timestamps, colours: console.colours };
        let mut sources = self.sources(&found, writers.as_deref())?;
        self.open(&found.tasks, &mut sources, &containers, console)?;
        if let Some(most) = self.tail {
            for source in &mut sources {
                source.keep_last(most).map_err(|error| self.unreadable(source, &containers, error))?;
            }
        }
        self.drain(&mut sources, look, &containers, console)?;
        if self.follow {
            self.follow(&client, &found.cluster, &mut sources, look, &containers, console).await?;
        }
        for source in &mut sources {
            if let Some(tail) = &mut source.tail {
                tail.finish(&mut source.lines);
            }
        }
        self.drain(&mut sources, look, &containers, console)?;
        Ok(())
    }

    /// The containers to show, none of them opened yet; of `writers` if there are any, else of all.
    fn sources(&self, found: &Found, writers: Option<&[Writer]>) -> Result<Vec<Source>, LogsError> {
        let mut chosen: Vec<(String, String)> = Vec::new();
        for task in &found.tasks {
            let arn = task.task_arn.clone().unwrap_or_default();
            let names: Vec<&str> = task.containers.iter().flatten().filter_map(|container| container.name.as_deref()).collect();
            if let Some(wanted) = self.container.as_deref().filter(|wanted| !names.contains(wanted)) {
                let task = short_id(&arn).to_owned();
                return Err(LogsError::NoContainer { task, wanted: wanted.to_owned(), names: names.join(", ") });
            }
            let wanted = names.into_iter().filter(|name| self.container.as_deref().is_none_or(|wanted| wanted == *name));
            let wanted = wanted.map(|name| (arn.clone(), name.to_owned()));
            chosen.extend(wanted.filter(|writer| writers.is_none_or(|writers| writers.contains(writer))));
        }
        let pairs: Vec<(&str, &str)> = chosen.iter().map(|(arn, name)| (short_id(arn), name.as_str())).collect();
        let prefixes = show::prefixes(&pairs);
        let source = |(number, ((task_arn, container), prefix)): (usize, ((String, String), String))| Source {
            label: Label { prefix, number, task: name_of(&task_arn).to_owned(), container },
            task_arn,
            tail: None,
            lines: VecDeque::new(),
            ended: false,
        };
        Ok(chosen.into_iter().zip(prefixes).enumerate().map(source).collect())
    }

    /// Opens what has run here. Of several containers those that cannot be shown are a warning, unless that is all of them.
    fn open(&self, tasks: &[ecs::Task], sources: &mut [Source], containers: &Path, console: &mut Console<'_>) -> Result<(), Failure> {
        let mut problems = Vec::new();
        for source in sources.iter_mut() {
            if let Some(task) = tasks.iter().find(|task| task.task_arn.as_ref() == Some(&source.task_arn))
                && let Err(problem) = self.observe(task, source, containers)
            {
                source.ended = true;
                problems.push(problem);
            }
        }
        if problems.len() == sources.len()
            && let Some(first) = problems.pop()
        {
            return Err(first.into());
        }
        for problem in problems {
            console.warn(&problem.to_string())?;
        }
        for source in sources.iter().filter(|source| source.tail.is_none() && !source.ended) {
            let wait = if self.follow { "; waiting for it" } else { "" };
            let label = &source.label;
            console.warn(&format!("container '{}' of task {} has not started yet{wait}", label.container, short_id(&label.task)))?;
        }
        Ok(())
    }

    /// Takes over what the server says of a source's task.
    fn observe(&self, task: &ecs::Task, source: &mut Source, containers: &Path) -> Result<(), LogsError> {
        let container = task.containers.iter().flatten().find(|container| container.name.as_deref() == Some(&source.label.container));
        let name = || source.label.container.clone();
        let task_id = || short_id(&source.task_arn).to_owned();
        if source.tail.is_none() {
            match container.and_then(|container| container.runtime_id.as_deref()) {
                None if is_stopped(task) => {
                    let reason = container.and_then(|container| container.reason.clone()).or_else(|| task.stopped_reason.clone());
                    let reason = reason.unwrap_or_else(|| "no reason is known".to_owned());
                    return Err(LogsError::NeverRan { container: name(), task: task_id(), reason });
                }
                None => {}
                Some(runtime_id) => {
                    if !legal(runtime_id) {
                        return Err(LogsError::BadRuntimeId { container: name(), runtime_id: runtime_id.to_owned() });
                    }
                    let folder = containers.join(runtime_id);
                    match std::fs::read_dir(&folder) {
                        Ok(_) => {}
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {
                            let instance = name_of(task.container_instance_arn.as_deref().unwrap_or("unknown")).to_owned();
                            return Err(LogsError::Elsewhere { container: name(), task: task_id(), instance, folder });
                        }
                        Err(error) => return Err(LogsError::Unreadable { container: name(), folder, error }),
                    }
                    source.tail = Some(LogTail::new(folder, !self.follow));
                }
            }
        }
        source.ended = is_stopped(task);
        Ok(())
    }

    /// Writes what there is, by time over all containers.
    fn drain(&self, sources: &mut [Source], look: Look, containers: &Path, console: &mut Console<'_>) -> Result<(), Failure> {
        loop {
            for source in sources.iter_mut() {
                source.fill().map_err(|error| self.unreadable(source, containers, error))?;
            }
            let first = sources.iter_mut().filter(|source| !source.lines.is_empty()).min_by(|a, b| a.lines[0].at.cmp(&b.lines[0].at));
            let Some(source) = first else { break };
            let Some(line) = source.lines.pop_front() else { break };
            look.write(console.out, &source.label, &line)?;
        }
        console.out.flush()?;
        Ok(())
    }

    /// Goes on until every task has ended and its output is read.
    async fn follow(
        &self,
        client: &Client,
        cluster: &str,
        sources: &mut [Source],
        look: Look,
        containers: &Path,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        let mut is_reachable = true;
        while !sources.iter().all(|source| source.ended) {
            for _ in 0..POLLS_PER_QUESTION {
                tokio::time::sleep(POLL).await;
                self.drain(sources, look, containers, console)?;
            }
            match observe_all(client, cluster, sources).await {
                Ok(tasks) => {
                    is_reachable = true;
                    self.take_over(&tasks, sources, containers, console)?;
                }
                // Containers and their files outlive the server, and it may come back.
                Err(error @ (ClientError::Unreachable { .. } | ClientError::BadAnswer { .. })) => {
                    if std::mem::replace(&mut is_reachable, false) {
                        console.warn(&format!("{error}; following goes on, but the task's end will not be seen until it answers"))?;
                    }
                }
                Err(error) => return Err(error.into()),
            }
            // What the container wrote before its end was seen is in the files now.
            self.drain(sources, look, containers, console)?;
        }
        Ok(())
    }

    fn take_over(&self, tasks: &[ecs::Task], sources: &mut [Source], containers: &Path, console: &mut Console<'_>) -> Result<(), Failure> {
        for source in sources.iter_mut().filter(|source| !source.ended) {
            match tasks.iter().find(|task| task.task_arn.as_ref() == Some(&source.task_arn)) {
                // Forgotten: it stopped long ago.
                None => source.ended = true,
                Some(task) => {
                    if let Err(problem) = self.observe(task, source, containers) {
                        source.ended = true;
                        console.warn(&problem.to_string())?;
                    }
                }
            }
        }
        Ok(())
    }

    fn unreadable(&self, source: &Source, containers: &Path, error: io::Error) -> LogsError {
        LogsError::Unreadable { container: source.label.container.clone(), folder: containers.to_owned(), error }
    }
}

/// What the server says now of the tasks that have not ended.
async fn observe_all(client: &Client, cluster: &str, sources: &[Source]) -> Result<Vec<ecs::Task>, ClientError> {
    let mut arns: Vec<String> = sources.iter().filter(|source| !source.ended).map(|source| source.task_arn.clone()).collect();
    arns.sort_unstable();
    arns.dedup();
    tasks::describe(client, cluster, &arns).await
}

#[cfg(test)]
mod tests;
