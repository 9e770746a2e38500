//! `DescribeClusters`: unknown ones become `failures[]`.

use berth_shapes::ecs::{DescribeClustersRequest, DescribeClustersResponse};

use super::render;
use crate::context::Api;
use crate::failure::Failure;

pub(crate) async fn run(api: &Api, request: DescribeClustersRequest) -> Result<DescribeClustersResponse, Failure> {
    let names = request.clusters.filter(|list| !list.is_empty()).unwrap_or_else(|| vec!["default".to_owned()]);
    if names.len() > 100 {
        return Err(Failure::invalid("clusters can have at most 100 items."));
    }
    let include = request.include.unwrap_or_default();
    let include: Vec<_> = include.iter().map(|part| part.as_str()).collect();
    let state = api.store.state();
    let mut answer = DescribeClustersResponse { clusters: Some(Vec::new()), failures: Some(Vec::new()) };
    for text in names {
        let name = api.cluster_name(Some(&text))?;
        match state.cluster(&name) {
            Some(cluster) => answer.clusters.get_or_insert_default().push(render::cluster(&state, api.scope(), cluster, &include)),
            None => answer.failures.get_or_insert_default().push(render::missing(api.scope().cluster(&name))),
        }
    }
    Ok(answer)
}
