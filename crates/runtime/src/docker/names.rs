//! What this runtime's containers and images are called in Docker, where others have theirs too. Pure.

use std::collections::{BTreeMap, HashMap};

use crate::port::{ContainerId, ContainerSpec};

/// Whose a container is: the name of the data directory that it was made for.
pub const RUNTIME_LABEL: &str = "berth.runtime";
/// The port's id of a container.
pub const CONTAINER_LABEL: &str = "berth.container";
/// Which of its labels were given; Docker mixes the image's own among them. A JSON list.
const GIVEN_LABEL: &str = "berth.labels";
/// [`ContainerSpec::log_limit`].
const LOG_LIMIT_LABEL: &str = "berth.log-limit";

/// The repository of images that Berth brought in. An image keeps its tag here whatever becomes of the tag that it was asked for by, so it
/// is found again by its digest alone, and `docker image prune` does not take it.
const IMAGES: &str = "berth/sha256";

/// Names for one data directory.
#[derive(Debug, Clone)]
pub struct Names {
    runtime: String,
}

impl Names {
    /// `runtime` tells the data directories of one Docker apart: of `[a-z0-9]`.
    #[must_use]
    pub fn new(runtime: &str) -> Names {
        Names { runtime: runtime.to_owned() }
    }

    /// Docker's name of a container.
    #[must_use]
    pub fn container(&self, id: &ContainerId) -> String {
        format!("berth-{}-{id}", self.runtime)
    }

    /// The filter that finds all containers of this data directory.
    #[must_use]
    pub fn filter(&self) -> HashMap<String, Vec<String>> {
        HashMap::from([("label".to_owned(), vec![format!("{RUNTIME_LABEL}={}", self.runtime)])])
    }

    /// All labels of a container.
    #[must_use]
    pub fn labels(&self, spec: &ContainerSpec) -> HashMap<String, String> {
        let given: Vec<&String> = spec.labels.keys().collect();
        let own = [
            (RUNTIME_LABEL, self.runtime.clone()),
            (CONTAINER_LABEL, spec.id.0.clone()),
            (GIVEN_LABEL, serde_json::to_string(&given).unwrap_or_default()),
            (LOG_LIMIT_LABEL, spec.log_limit.to_string()),
        ];
        let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
        spec.labels.clone().into_iter().chain(own).collect()
    }
}

/// What the labels of a container tell: its id, the labels that were given, its log limit in bytes.
#[must_use]
pub fn read_labels(labels: &HashMap<String, String>) -> Option<(ContainerId, BTreeMap<String, String>, u64)> {
    let id = labels.get(CONTAINER_LABEL)?;
    let given: Vec<String> = labels.get(GIVEN_LABEL).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let given = given.into_iter().filter_map(|name| labels.get(&name).map(|value| (name.clone(), value.clone()))).collect();
    let limit = labels.get(LOG_LIMIT_LABEL).and_then(|text| text.parse().ok()).unwrap_or_default();
    Some((ContainerId(id.clone()), given, limit))
}

/// (repository, tag) of the image with a digest, `sha256:<hex>`.
#[must_use]
pub fn image(digest: &str) -> (String, String) {
    (IMAGES.to_owned(), digest.trim_start_matches("sha256:").to_owned())
}

/// The same as one reference.
#[must_use]
pub fn image_reference(digest: &str) -> String {
    let (repository, tag) = image(digest);
    format!("{repository}:{tag}")
}

/// The digest of an image that Berth brought in, of one of its names in Docker.
#[must_use]
pub fn image_digest(name: &str) -> Option<String> {
    let (repository, tag) = name.split_once(':')?;
    (repository == IMAGES).then(|| format!("sha256:{tag}"))
}
