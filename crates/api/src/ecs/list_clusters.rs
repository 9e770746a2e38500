//! `ListClusters`: ARNs of ACTIVE clusters by name.

use berth_model::cluster::ClusterStatus;
use berth_shapes::ecs::{ListClustersRequest, ListClustersResponse};

use crate::context::Api;
use crate::failure::Failure;
use crate::page::Page;

pub(crate) async fn run(api: &Api, request: ListClustersRequest) -> Result<ListClustersResponse, Failure> {
    let page = Page::parse("ListClusters", request.next_token.as_deref(), request.max_results, 100)?;
    let state = api.store.state();
    let names = state.clusters().filter(|cluster| cluster.status == ClusterStatus::Active).map(|cluster| cluster.name.clone());
    let (names, next_token) = page.take("ListClusters", names, ToString::to_string, false);
    Ok(ListClustersResponse { cluster_arns: Some(names.iter().map(|name| api.scope().cluster(name)).collect()), next_token })
}
