//! The runtime port on the Docker Engine: containers are Docker's, with Docker's own networks; images and logs are Berth's.
//!
//! Needs no root, only the right to Docker's socket. Knows of no container but those that carry its own label.

pub mod archive;
mod capabilities;
pub mod create;
pub mod engine;
mod exec;
mod follow;
mod images;
mod layer;
mod log_file;
pub mod names;
mod records;
pub mod state;

use std::collections::HashMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, ContainerSummary};
use bollard::query_parameters::{
    ContainerArchiveInfoOptions, CreateContainerOptions, KillContainerOptions, ListContainersOptions, RemoveContainerOptions, StatsOptions,
    WaitContainerOptions,
};
use futures_util::StreamExt;
use parking_lot::Mutex;

use self::engine::{ConnectError, run_error, status, text};
use self::follow::Follower;
use self::images::DockerImages;
use self::names::Names;
use crate::images::BerthRegistry;
use crate::images::registry::Registries;
use crate::native::bundle;
use crate::port::{
    ContainerId, ContainerObservation, ContainerSpec, ContainerState, ExecOutcome, ExecSpec, Exit, Image, ImageObservation, PullError,
    PullRequest, RemoveImageError, RunError, Runtime, Space, Started, Stats,
};

/// Between two questions to a daemon that does not answer, or that is still removing a container.
const PAUSE: Duration = Duration::from_millis(100);

/// The bit of Go's file modes that says "directory".
const GO_DIRECTORY: u32 = 1 << 31;

/// Settings of a Docker runtime.
#[derive(Debug, Clone)]
pub struct DockerConfig {
    /// `unix://PATH` of the daemon's socket.
    pub host: String,
    /// Where image records and logs are kept.
    pub data_dir: PathBuf,
    /// Tells the data directories of one Docker apart: of `[a-z0-9]`. It is the value of the label `berth.runtime`.
    pub name: String,
    /// Berth's own registry.
    pub berth_registry: Option<BerthRegistry>,
    /// How long a registry may send nothing before it counts as gone; [`crate::images::PULL_INACTIVITY`] unless somebody says otherwise.
    pub pull_inactivity: Duration,
}

/// Why the runtime cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no Docker to work with.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Docker does not say what it is or what it runs.
    #[error("Docker: {0}")]
    Docker(String),
    /// The data directory cannot be used.
    #[error(transparent)]
    System(#[from] std::io::Error),
}

/// Runs containers in Docker.
pub struct DockerRuntime {
    docker: Docker,
    names: Names,
    folder: PathBuf,
    images: DockerImages,
    capabilities: Vec<&'static str>,
    followers: Mutex<HashMap<ContainerId, Follower>>,
}

impl DockerRuntime {
    /// Connects, and goes on with the logs of the containers that an earlier life left.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(config: DockerConfig) -> Result<DockerRuntime, OpenError> {
        let docker = engine::connect(&config.host).await?;
        let info = docker.info().await.map_err(|error| OpenError::Docker(text(&error)))?;
        // Logs lie where the native runtime's lie too: whoever reads them need not know which it is.
        let folder = config.data_dir.join("containers");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let records = config.data_dir.join("docker-images");
        let registries = Registries::new(config.berth_registry, config.pull_inactivity).map_err(std::io::Error::other)?;
        let images = DockerImages::open(docker.clone(), &info, &records, registries)?;
        let capabilities = capabilities::of(&docker.client_version().to_string(), &info);
        let runtime = DockerRuntime { docker, names: Names::new(&config.name), folder, images, capabilities, followers: Mutex::default() };
        let known = runtime.summaries().await.map_err(|error| OpenError::Docker(text(&error)))?;
        for summary in known {
            if let Some((id, _, limit)) = summary.labels.as_ref().and_then(names::read_labels) {
                runtime.follow(&id, limit);
            }
        }
        Ok(runtime)
    }

    fn log_folder(&self, id: &ContainerId) -> PathBuf {
        self.folder.join(&id.0)
    }

    /// Begins to follow a container's output, unless that is being done. One that never started has none, and its follower ends at once.
    fn follow(&self, id: &ContainerId, limit: u64) {
        if limit == 0 {
            return;
        }
        let mut followers = self.followers.lock();
        if followers.get(id).is_none_or(|follower| *follower.over().borrow()) {
            let name = self.names.container(id);
            followers.insert(id.clone(), Follower::start(self.docker.clone(), name, self.log_folder(id), limit));
        }
    }

    async fn summaries(&self) -> Result<Vec<ContainerSummary>, Error> {
        let options = ListContainersOptions { all: true, filters: Some(self.names.filter()), ..ListContainersOptions::default() };
        self.docker.list_containers(Some(options)).await
    }

    async fn inspect(&self, id: &ContainerId) -> Result<ContainerInspectResponse, RunError> {
        let found = self.docker.inspect_container(&self.names.container(id), None).await;
        found.map_err(|error| run_error(&error, id, &format!("look at container {id}")))
    }

    /// Older runcs call a directory "permission denied"; the container's own files tell better.
    async fn refine(&self, id: &ContainerId, error: RunError) -> RunError {
        let RunError::Exec(problem) = &error else { return error };
        let Some(path) = problem.strip_prefix("exec: \"").and_then(|rest| rest.strip_suffix("\": permission denied")) else { return error };
        if !Path::new(path).is_absolute() {
            return error;
        }
        let options = ContainerArchiveInfoOptions { path: path.to_owned() };
        match self.docker.get_container_archive_info(&self.names.container(id), Some(options)).await {
            Ok(found) if found.file_mode & GO_DIRECTORY != 0 => RunError::Exec(format!("exec: \"{path}\": is a directory")),
            _ => error,
        }
    }

    /// Waits until all that a container that does not run has said is in its files.
    async fn until_written(&self, id: &ContainerId) {
        let over = self.followers.lock().get(id).map(Follower::over);
        if let Some(mut over) = over {
            // A follower that is gone has nothing more to write.
            let _ = over.wait_for(|over| *over).await;
        }
    }

    /// Waits until Docker says that the container does not run; through a restart of Docker too.
    async fn until_ended(&self, id: &ContainerId) -> Result<Exit, RunError> {
        loop {
            let options = WaitContainerOptions { condition: "not-running".to_owned() };
            let waited = self.docker.wait_container(&self.names.container(id), Some(options)).next().await;
            match self.inspect(id).await.map(|found| state::observed(&found)) {
                Ok(ContainerState::Exited(exit)) => return Ok(exit),
                Ok(ContainerState::Created) => return Err(RunError::System(format!("container {id} has not been started"))),
                Ok(ContainerState::Lost) => return Err(RunError::System(format!("container {id} is lost: nobody saw how it ended"))),
                Err(error @ RunError::NoContainer(_)) => return Err(error),
                Ok(ContainerState::Running(_)) => {}
                Err(error) => tracing::debug!(container = %id, %error, waited = waited.is_some(), "Docker does not say how a container is"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[async_trait]
impl Runtime for DockerRuntime {
    fn capabilities(&self) -> Vec<&'static str> {
        self.capabilities.clone()
    }

    async fn pull(&self, request: PullRequest) -> Result<Image, PullError> {
        self.images.pull(request).await
    }

    async fn images(&self) -> Result<Vec<ImageObservation>, RunError> {
        self.images.observe().await.map_err(|error| RunError::System(format!("look at the images: {}", text(&error))))
    }

    async fn remove_image(&self, digest: &str) -> Result<(), RemoveImageError> {
        self.images.remove(digest).await
    }

    fn image_space(&self) -> Option<Space> {
        self.images.space()
    }

    async fn create(&self, spec: ContainerSpec) -> Result<(), RunError> {
        let image = names::image_reference(&spec.image_digest);
        let body = create::body(&spec, &image, &self.names, create::most_here)?;
        let options = CreateContainerOptions { name: Some(self.names.container(&spec.id)), ..CreateContainerOptions::default() };
        let made = self.docker.create_container(Some(options), body).await;
        made.map_err(|error| match status(&error) {
            404 => RunError::NoImage(spec.image_digest.clone()),
            400 | 409 => RunError::InvalidSpec(text(&error)),
            // So old daemons answer what newer ones answer with 400.
            500 if text(&error).starts_with("invalid ") => RunError::InvalidSpec(text(&error)),
            _ => run_error(&error, &spec.id, &format!("make container {}", spec.id)),
        })?;
        // What an earlier container of this name said, removed while nobody looked, is not this one's.
        let _ = tokio::fs::remove_dir_all(self.log_folder(&spec.id)).await;
        Ok(())
    }

    async fn start(&self, id: &ContainerId) -> Result<Started, RunError> {
        let found = self.inspect(id).await?;
        if let ContainerState::Running(started) = state::observed(&found) {
            return Ok(started);
        }
        let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
        // A follower of an earlier run is at its end; one that is not yet would end with that run.
        self.until_written(id).await;
        if let Err(error) = self.docker.start_container(&self.names.container(id), None).await {
            let error = run_error(&error, id, &format!("start container {id}"));
            return Err(self.refine(id, error).await);
        }
        let limit = names::read_labels(&labels).map(|(_, _, limit)| limit).unwrap_or_default();
        self.follow(id, limit);
        let found = self.inspect(id).await?;
        match state::observed(&found) {
            ContainerState::Running(started) => Ok(started),
            // It has ended already.
            _ => Ok(Started { pid: 0, at: state::time(found.state.and_then(|state| state.started_at).as_deref()), address: None }),
        }
    }

    async fn signal(&self, id: &ContainerId, signal: i32) -> Result<(), RunError> {
        let options = KillContainerOptions { signal: signal.to_string() };
        match self.docker.kill_container(&self.names.container(id), Some(options)).await {
            // It does not run: older daemons say so with 409, some with 500.
            Err(error) if status(&error) == 409 || text(&error).contains("is not running") => Ok(()),
            Err(error) => Err(run_error(&error, id, &format!("send signal {signal} to container {id}"))),
            Ok(()) => Ok(()),
        }
    }

    async fn stop_signal(&self, id: &ContainerId) -> Result<i32, RunError> {
        let config = self.inspect(id).await?.config;
        Ok(bundle::stop_signal(&config.and_then(|config| config.stop_signal).unwrap_or_default()))
    }

    async fn wait(&self, id: &ContainerId) -> Result<Exit, RunError> {
        let exit = self.until_ended(id).await?;
        self.until_written(id).await;
        Ok(exit)
    }

    async fn exec(&self, id: &ContainerId, spec: ExecSpec) -> Result<ExecOutcome, RunError> {
        exec::run(&self.docker, &self.names.container(id), id, spec).await
    }

    async fn stats(&self, id: &ContainerId) -> Result<Stats, RunError> {
        if !matches!(state::observed(&self.inspect(id).await?), ContainerState::Running(_)) {
            return Err(RunError::NoContainer(id.clone()));
        }
        let options = StatsOptions { stream: false, one_shot: true };
        let read = self.docker.stats(&self.names.container(id), Some(options)).next().await;
        let read = read.ok_or_else(|| RunError::System(format!("read container {id}: Docker says nothing")))?;
        read.map(|read| state::stats(&read)).map_err(|error| run_error(&error, id, &format!("read container {id}")))
    }

    async fn list(&self) -> Result<Vec<ContainerObservation>, RunError> {
        let summaries = self.summaries().await.map_err(|error| RunError::System(format!("list containers: {}", text(&error))))?;
        let known = summaries.iter().filter_map(|summary| names::read_labels(summary.labels.as_ref()?));
        let looked = known.map(|(id, labels, _)| async move {
            match self.inspect(&id).await {
                Ok(found) => Ok(Some(ContainerObservation { state: state::observed(&found), id, labels })),
                // Removed between the two questions.
                Err(RunError::NoContainer(_)) => Ok(None),
                Err(error) => Err(error),
            }
        });
        let all: Result<Vec<_>, RunError> = futures_util::future::join_all(looked).await.into_iter().collect();
        let mut all: Vec<ContainerObservation> = all?.into_iter().flatten().collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(all)
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), RunError> {
        let options = || RemoveContainerOptions { force: true, v: true, ..RemoveContainerOptions::default() };
        let name = self.names.container(id);
        loop {
            match self.docker.remove_container(&name, Some(options())).await {
                Ok(()) => break,
                Err(error) if status(&error) == 404 => break,
                // Somebody else is removing it; it is gone when Docker no longer knows it.
                Err(error) if status(&error) == 409 && text(&error).contains("already in progress") => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(RunError::System(format!("remove container {id}: {}", text(&error)))),
            }
        }
        // The follower first: it would make its files again.
        let follower = self.followers.lock().remove(id);
        drop(follower);
        match tokio::fs::remove_dir_all(self.log_folder(id)).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(RunError::System(format!("remove the log of container {id}: {error}")))
            }
            _ => Ok(()),
        }
    }

    fn log_files(&self, id: &ContainerId) -> Vec<PathBuf> {
        log_file::files(&self.log_folder(id))
    }
}
