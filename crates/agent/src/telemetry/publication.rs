//! A publication's pages.

use berth_acs::messages::{MetricsMetadata, PublishMetricsRequest, TaskMetric};

/// The official agent's limit.
pub const MOST_TASKS_PER_PAGE: usize = 10;

/// Cuts figures into pages that share `metadata`'s message id; the last says so. Without tasks there is one idle page.
#[must_use]
pub fn pages(metadata: &MetricsMetadata, tasks: Vec<TaskMetric>, timestamp: f64) -> Vec<PublishMetricsRequest> {
    let page = |task_metrics: Vec<TaskMetric>, idle: bool, fin: bool| PublishMetricsRequest {
        metadata: MetricsMetadata { idle: Some(idle), fin: Some(fin), ..metadata.clone() },
        task_metrics,
        timestamp,
        ..Default::default()
    };
    if tasks.is_empty() {
        return vec![page(tasks, true, true)];
    }
    let count = tasks.len().div_ceil(MOST_TASKS_PER_PAGE);
    let chunks = tasks.chunks(MOST_TASKS_PER_PAGE).enumerate();
    chunks.map(|(index, chunk)| page(chunk.to_vec(), false, index + 1 == count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_to_a_page_and_the_last_says_so() {
        let metadata = MetricsMetadata { message_id: "m".into(), ..Default::default() };
        let shape = |tasks: usize| {
            let pages = pages(&metadata, vec![TaskMetric::default(); tasks], 1.0);
            let facts = pages.iter().map(|page| (page.task_metrics.len(), page.metadata.idle.unwrap(), page.metadata.fin.unwrap()));
            facts.collect::<Vec<_>>()
        };
        assert_eq!(shape(0), [(0, true, true)]);
        assert_eq!(shape(10), [(10, false, true)]);
        assert_eq!(shape(21), [(10, false, false), (10, false, false), (1, false, true)]);
    }
}
