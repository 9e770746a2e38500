//! From what a user typed to one service, and reading it and its history from the API. It must never decide what of them is shown.

use berth_shapes::ecs;

use crate::client::{Client, ClientError};
use crate::failure::{BAD_ARGUMENTS, FAILED, Failure};
use crate::tasks::{self, name_of, without_arn};

/// Most service deployments or revisions that one call describes.
const DESCRIBED: usize = 20;
/// Most service deployments on a page.
const PAGE: i32 = 100;
/// Berth keeps a hundred service deployments of a service; a server that has more pages of them is going round in circles.
const MAX_PAGES: usize = 100;

/// Why no service can be told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServiceError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("there is no service '{wanted}' in {place}")]
    Unknown { wanted: String, place: String },
    #[error("'{wanted}' is a service in more than one cluster: {clusters}")]
    ManyClusters { wanted: String, clusters: String },
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        let (advice, code) = match &error {
            ServiceError::Client(_) => (String::new(), FAILED),
            ServiceError::Unknown { .. } => ("see which there are with `aws ecs list-services --cluster CLUSTER`".to_owned(), FAILED),
            ServiceError::ManyClusters { .. } => ("name one with --cluster CLUSTER".to_owned(), BAD_ARGUMENTS),
        };
        match error {
            ServiceError::Client(error) => error.into(),
            error => Self::Said { message: error.to_string(), advice: Some(advice), code },
        }
    }
}

/// Where a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The cluster's name or ARN.
    pub cluster: String,
    /// The service's name.
    pub name: String,
}

/// Finds the service that `wanted` (a name or an ARN) means, in one cluster or in all.
pub(crate) async fn find(client: &Client, wanted: &str, cluster: Option<&str>) -> Result<Place, ServiceError> {
    let (name, of_arn) = without_arn(wanted);
    let cluster = cluster.or(of_arn);
    let mut found = Vec::new();
    for cluster in tasks::clusters(client, cluster).await? {
        let place = Place { cluster, name: name.to_owned() };
        if describe(client, &place).await?.is_some_and(|service| service.status.as_deref() != Some("INACTIVE")) {
            found.push(place);
        }
    }
    if found.len() > 1 {
        let clusters = found.iter().map(|place| name_of(&place.cluster)).collect::<Vec<_>>().join(", ");
        return Err(ServiceError::ManyClusters { wanted: name.to_owned(), clusters });
    }
    found.pop().ok_or_else(|| ServiceError::Unknown {
        wanted: name.to_owned(),
        place: cluster.map_or_else(|| "any cluster".to_owned(), |cluster| format!("cluster {}", name_of(cluster))),
    })
}

/// The service as it is now; `None` if there is none any more.
pub(crate) async fn describe(client: &Client, place: &Place) -> Result<Option<ecs::Service>, ClientError> {
    let request = ecs::DescribeServicesRequest {
        cluster: Some(place.cluster.clone()),
        services: Some(vec![place.name.clone()]),
        ..Default::default()
    };
    let answer: ecs::DescribeServicesResponse = client.call("DescribeServices", &request).await?;
    Ok(answer.services.unwrap_or_default().pop())
}

/// Its service deployments, the newest first.
pub(crate) async fn deployments(client: &Client, place: &Place) -> Result<Vec<ecs::ServiceDeploymentBrief>, ClientError> {
    let mut request = ecs::ListServiceDeploymentsRequest {
        cluster: Some(place.cluster.clone()),
        service: Some(place.name.clone()),
        max_results: Some(PAGE),
        ..Default::default()
    };
    let mut found = Vec::new();
    for _ in 0..MAX_PAGES {
        let page: ecs::ListServiceDeploymentsResponse = client.call("ListServiceDeployments", &request).await?;
        found.extend(page.service_deployments.unwrap_or_default());
        request.next_token = page.next_token;
        if request.next_token.is_none() {
            break;
        }
    }
    Ok(found)
}

/// The service deployments of these ARNs; those that are gone are left out.
pub(crate) async fn describe_deployments(client: &Client, arns: &[String]) -> Result<Vec<ecs::ServiceDeployment>, ClientError> {
    let mut found = Vec::with_capacity(arns.len());
    for page in arns.chunks(DESCRIBED) {
        let request = ecs::DescribeServiceDeploymentsRequest { service_deployment_arns: Some(page.to_vec()) };
        let answer: ecs::DescribeServiceDeploymentsResponse = client.call("DescribeServiceDeployments", &request).await?;
        found.extend(answer.service_deployments.unwrap_or_default());
    }
    Ok(found)
}

/// The service revisions of these ARNs; those that are gone are left out.
pub(crate) async fn describe_revisions(client: &Client, arns: &[String]) -> Result<Vec<ecs::ServiceRevision>, ClientError> {
    let mut found = Vec::with_capacity(arns.len());
    for page in arns.chunks(DESCRIBED) {
        let request = ecs::DescribeServiceRevisionsRequest { service_revision_arns: Some(page.to_vec()) };
        let answer: ecs::DescribeServiceRevisionsResponse = client.call("DescribeServiceRevisions", &request).await?;
        found.extend(answer.service_revisions.unwrap_or_default());
    }
    Ok(found)
}
