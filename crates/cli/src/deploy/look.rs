//! Looking at a service's deployment again and again. It must never mix two deployments: the one that was there at the first look, or that
//! was named, is the one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use berth_shapes::ecs;
use serde_json::{Value, json};

use super::status::{RevisionSummary, Status};
use crate::client::{Client, ClientError};
use crate::reason::Reason;
use crate::services::{self, Place, ServiceError};
use crate::tasks::name_of;

/// How long the planner's reasons stand where nothing else has changed: each answer costs the server a pass over the cluster.
const REASONS_STAND: Duration = Duration::from_secs(5);

/// A deployment that is looked at.
pub(crate) struct Sight<'a> {
    client: &'a Client,
    place: Place,
    /// The ARN of its record.
    deployment: Option<String>,
    /// What revisions run never changes.
    revisions: BTreeMap<String, String>,
    /// The last status, and when its reasons were asked for.
    before: Option<(Status, Instant)>,
}

impl<'a> Sight<'a> {
    /// The service's deployment with this ARN; without one, that which is current at the first look.
    pub fn new(client: &'a Client, place: Place, deployment: Option<String>) -> Self {
        Self { client, place, deployment, revisions: BTreeMap::new(), before: None }
    }

    /// The service's name.
    pub fn name(&self) -> &str {
        &self.place.name
    }

    /// How it stands now.
    pub async fn look(&mut self) -> Result<Status, ServiceError> {
        if self.deployment.is_none() {
            let service = self.service().await?;
            self.deployment = match &service.current_service_deployment {
                Some(arn) => Some(arn.clone()),
                None => self.newest(&service).await?,
            };
        }
        let one = match &self.deployment {
            Some(arn) => services::describe_deployments(self.client, std::slice::from_ref(arn)).await.or_else(gone)?.pop(),
            None => None,
        };
        // After the record: when that says that all is over, the service must not be of a moment before.
        let service = self.service().await?;
        let revisions = self.revisions(&service, one.as_ref()).await?;
        let mut status = Status::new(service, one, revisions, Vec::new());
        status.waits_for = self.reasons(&status).await?;
        Ok(status)
    }

    async fn service(&self) -> Result<ecs::Service, ServiceError> {
        services::describe(self.client, &self.place).await?.ok_or_else(|| ServiceError::Unknown {
            wanted: self.place.name.clone(),
            place: format!("cluster {} any more", name_of(&self.place.cluster)),
        })
    }

    /// Its newest deployment; services of an EXTERNAL controller have none.
    async fn newest(&self, service: &ecs::Service) -> Result<Option<String>, ClientError> {
        if service.deployments.as_ref().is_none_or(Vec::is_empty) {
            return Ok(None);
        }
        let newest = services::deployments(self.client, &self.place).await.or_else(gone)?.into_iter().next();
        Ok(newest.and_then(|newest| newest.service_deployment_arn))
    }

    /// What the deployment's revisions run, its own first.
    async fn revisions(
        &mut self,
        service: &ecs::Service,
        one: Option<&ecs::ServiceDeployment>,
    ) -> Result<Vec<RevisionSummary>, ClientError> {
        let target = one.and_then(|one| one.target_service_revision.as_ref()?.arn.clone());
        let sources = one.and_then(|one| one.source_service_revisions.as_ref()).into_iter().flatten();
        let back = one.and_then(|one| one.rollback.as_ref()?.service_revision_arn.clone());
        let current = service.current_service_revisions.iter().flatten().filter_map(|revision| revision.arn.clone());
        let mut arns: Vec<String> = Vec::new();
        for arn in target.into_iter().chain(sources.filter_map(|source| source.arn.clone())).chain(back).chain(current) {
            if !arns.contains(&arn) {
                arns.push(arn);
            }
        }
        let unknown: Vec<String> = arns.iter().filter(|arn| !self.revisions.contains_key(*arn)).cloned().collect();
        if !unknown.is_empty() {
            for revision in services::describe_revisions(self.client, &unknown).await.or_else(gone)? {
                self.revisions.extend(revision.service_revision_arn.zip(revision.task_definition));
            }
        }
        let summary = |arn: String| {
            let task_definition = self.revisions.get(&arn)?.clone();
            Some(RevisionSummary { service_revision_arn: arn, task_definition })
        };
        Ok(arns.into_iter().filter_map(summary).collect())
    }

    /// What keeps it, where it goes on. They are asked for when something has changed, and else now and then.
    async fn reasons(&mut self, status: &Status) -> Result<Vec<Reason>, ClientError> {
        if status.outcome.is_final() {
            self.before = None;
            return Ok(Vec::new());
        }
        if let Some((before, at)) = &self.before
            && at.elapsed() < REASONS_STAND
        {
            let mut same = status.clone();
            same.waits_for.clone_from(&before.waits_for);
            if same.without_clocks() == before.without_clocks() {
                return Ok(same.waits_for);
            }
        }
        let question = json!({ "of": status.service.service_arn });
        let reasons = match self.client.ask::<_, Value>("/why", &question).await {
            Ok(mut answer) => serde_json::from_value(answer["reasons"].take()).unwrap_or_default(),
            // What is no Berth has no such question, and nothing but the reasons is missing then.
            Err(error) if matches!(error.status(), Some(400..=404)) && error.code() != Some("ThrottlingException") => Vec::new(),
            Err(error) => return Err(error),
        };
        self.before = Some((Status { waits_for: reasons, ..status.clone() }, Instant::now()));
        Ok(self.before.as_ref().map(|(status, _)| status.waits_for.clone()).unwrap_or_default())
    }
}

/// A service that was deleted has no history any more; how it stands is told by the service itself.
fn gone<T: Default>(error: ClientError) -> Result<T, ClientError> {
    match error.code() {
        Some("ServiceNotFoundException" | "ClusterNotFoundException") => Ok(T::default()),
        _ => Err(error),
    }
}
