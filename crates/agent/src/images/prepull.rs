//! Images that are to be here before a task asks for them.

use std::sync::Arc;
use std::time::Duration;

use berth_runtime::port::PullRequest;
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::sources::ecr_logins;
use crate::tasks::Means;

/// The wait after a pull that failed; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(15);
/// The longest wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

impl super::Images {
    /// Pulls the images that are to be here. One that cannot be had is said, waited for and tried again; the others do not wait for it.
    pub async fn prepull(means: Arc<Means>, stop: CancellationToken) {
        let all = join_all(means.images.config.prepulled.iter().map(|reference| one(&means, reference)));
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            _ = all => {}
        }
    }
}

async fn one(means: &Means, reference: &str) {
    let mut pause = FIRST_PAUSE;
    loop {
        let login = ecr_logins(&means.sources, reference);
        let request = PullRequest { reference: reference.to_owned(), behavior: means.config.pull_behavior, credentials: None, login };
        let pulled = {
            let _turn = means.pulls.enter(reference).await;
            means.images.pull(request, None).await
        };
        match pulled {
            Ok(image) => {
                tracing::info!(reference, digest = image.digest, "an image of BERTH_PREPULL_IMAGES is here");
                return;
            }
            Err(error) => tracing::warn!(reference, %error, ?pause, "an image of BERTH_PREPULL_IMAGES cannot be pulled; trying again"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
