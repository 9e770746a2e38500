//! A blob's bytes over as many connections as it takes: what breaks off goes on where it was. And how long to wait before asking again.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;

use super::registry::{Blob, Repository, chain};
use crate::port::PullError;

/// How a registry that fails is asked again: each pause is twice the one before.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// The first pause.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
    /// How often it is asked again before that is given up.
    pub attempts: u32,
}

impl Default for Patience {
    /// amazon-ecs-agent's number of attempts and longest pause (`dockerapi`: `maximumPullRetries`, `maximumPullRetryDelay`); its first pause of
    /// 1.1 s is longer than what a connection that breaks now and then deserves.
    fn default() -> Patience {
        Patience { first: Duration::from_millis(250), longest: Duration::from_secs(5), attempts: 4 }
    }
}

impl Patience {
    /// The pause after so many failures in a row, of which there has been one at least; `None`: they were too many.
    pub fn pause(&self, failures: u32) -> Option<Duration> {
        let doubled = self.first.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1)));
        (failures <= self.attempts).then(|| doubled.min(self.longest))
    }
}

/// Tries a pull, and tries it again while the registry cannot be reached: one that does not answer now may in a moment. What it refuses
/// it will refuse again.
///
/// # Errors
/// [`PullError`] of the last try.
pub async fn again<T, F: Future<Output = Result<T, PullError>>>(
    patience: Patience,
    reference: &str,
    mut attempt: impl FnMut() -> F,
) -> Result<T, PullError> {
    let mut failures = 0;
    loop {
        let error = match attempt().await {
            Err(error @ PullError::Unreachable(_)) => error,
            outcome => return outcome,
        };
        failures += 1;
        let Some(pause) = patience.pause(failures) else { return Err(error) };
        tracing::warn!(reference, %error, ?pause, "pull failed; trying again");
        tokio::time::sleep(pause).await;
    }
}

/// A blob being read.
pub struct Steady<'a> {
    repository: &'a Repository<'a>,
    digest: &'a str,
    size: u64,
    patience: Patience,
    stream: Option<Blob>,
    at: u64,
    failures: u32,
}

impl<'a> Steady<'a> {
    /// Begins to read.
    ///
    /// # Errors
    /// [`PullError`].
    pub async fn open(repository: &'a Repository<'a>, digest: &'a str, size: u64, patience: Patience) -> Result<Steady<'a>, PullError> {
        let mut blob = Steady { repository, digest, size, patience, stream: None, at: 0, failures: 0 };
        blob.connect().await?;
        Ok(blob)
    }

    /// Connects, again and again, unless the registry says that there is nothing to be had.
    async fn connect(&mut self) -> Result<(), PullError> {
        loop {
            match self.repository.blob(self.digest, self.size, self.at).await {
                Ok(stream) => {
                    self.stream = Some(stream);
                    return Ok(());
                }
                Err(error @ PullError::Unreachable(_)) => self.pause(error).await?,
                Err(error) => return Err(error),
            }
        }
    }

    async fn pause(&mut self, error: PullError) -> Result<(), PullError> {
        self.failures += 1;
        let Some(pause) = self.patience.pause(self.failures) else { return Err(error) };
        tracing::warn!(blob = self.digest, at = self.at, %error, ?pause, "a blob broke off; going on");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// The next bytes; `None` at the end. Nobody has checked their digest, nor that there are not more of them than there should be.
    ///
    /// # Errors
    /// [`PullError::BrokenOff`] when it was asked for the rest too often.
    pub async fn next(&mut self) -> Option<Result<Bytes, PullError>> {
        loop {
            let broken = match self.stream.as_mut()?.next().await {
                Some(Ok(piece)) if piece.is_empty() => continue,
                Some(Ok(piece)) => {
                    self.at += piece.len() as u64;
                    // What comes forward, however slowly, is not given up.
                    self.failures = 0;
                    return Some(Ok(piece));
                }
                // Everything is here: what is wrong with it shows by its digest.
                Some(Err(_)) | None if self.at >= self.size => return None,
                Some(Err(error)) => chain(&error),
                None => "the connection was closed".to_owned(),
            };
            self.stream = None;
            let error = PullError::Unreachable(format!("layer {} broke off after {} bytes: {broken}", self.digest, self.at));
            if let Err(error) = self.pause(error).await {
                return Some(Err(given_up(error)));
            }
            if let Err(error) = self.connect().await {
                return Some(Err(given_up(error)));
            }
        }
    }
}

/// A pull that begins anew after this would wait as often again, each time for a minute where the registry only stands still.
fn given_up(error: PullError) -> PullError {
    match error {
        PullError::Unreachable(text) => PullError::BrokenOff(text),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let patience = Patience { first: Duration::from_secs(1), longest: Duration::from_secs(5), attempts: 4 };
        let pauses: Vec<Option<u64>> = (1..=5).map(|failures| patience.pause(failures).map(|pause| pause.as_secs())).collect();
        assert_eq!(pauses, [Some(1), Some(2), Some(4), Some(5), None]);
        assert_eq!(patience.pause(u32::MAX), None);
    }
}
