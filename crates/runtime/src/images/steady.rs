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
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::reference::Origin;
    use super::super::registry::{BerthRegistry, PULL_INACTIVITY, Registries};
    use super::*;
    use crate::port::RegistryCredentials;

    #[test]
    fn pauses_grow_and_end() {
        let patience = Patience { first: Duration::from_secs(1), longest: Duration::from_secs(5), attempts: 4 };
        let pauses: Vec<Option<u64>> = (1..=5).map(|failures| patience.pause(failures).map(|pause| pause.as_secs())).collect();
        assert_eq!(pauses, [Some(1), Some(2), Some(4), Some(5), None]);
        assert_eq!(patience.pause(u32::MAX), None);
    }

    /// A registry that sends three bytes of a blob and then nothing, over and over. Counts how often it was asked for one.
    async fn stalling() -> (String, Arc<AtomicU32>) {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (host, asked) = (listener.local_addr().unwrap().to_string(), Arc::new(AtomicU32::new(0)));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => break,
                    }
                }
                if String::from_utf8_lossy(&head).contains("/blobs/") {
                    let first = count.fetch_add(1, Ordering::SeqCst) == 0;
                    let answer: &[u8] = match first {
                        true => b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\none",
                        false => b"HTTP/1.1 206 Partial Content\r\ncontent-length: 7\r\n\r\n",
                    };
                    stream.write_all(answer).await.unwrap();
                    open.push(stream);
                } else {
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}").await.unwrap();
                }
            }
        });
        (host, asked)
    }

    #[tokio::test]
    async fn a_registry_that_sends_nothing_is_gone_after_the_time_that_it_has() {
        for is_own in [true, false] {
            let (host, asked) = stalling().await;
            let own = BerthRegistry {
                endpoints: vec![format!("http://{host}")],
                credentials: RegistryCredentials { username: "AWS".into(), password: String::new() },
                account: "000000000000".into(),
                region: "us-east-1".into(),
            };
            // Time enough for three bytes on a machine that is busy, or emulated.
            let registries = Registries::new(Some(own), Duration::from_secs(1)).unwrap();
            let origin = Origin { host: (!is_own).then(|| host.clone()), repository: "app".into(), is_ecr: false };
            let repository = registries.repository(&origin, None);
            let patience = Patience { first: Duration::from_millis(1), longest: Duration::from_millis(1), attempts: 2 };
            let digest = format!("sha256:{}", "0".repeat(64));
            let reading = async {
                let mut blob = Steady::open(&repository, &digest, 10, patience).await?;
                let mut read = Vec::new();
                while let Some(piece) = blob.next().await {
                    read.extend_from_slice(&piece?);
                }
                Ok::<_, PullError>(read)
            };
            // Long before the time that a registry has unless somebody says otherwise.
            let outcome = tokio::time::timeout(PULL_INACTIVITY / 2, reading).await.expect("it is given up");
            assert!(matches!(&outcome, Err(PullError::BrokenOff(text)) if text.contains("after 3 bytes")), "own {is_own}: {outcome:?}");
            assert_eq!(asked.load(Ordering::SeqCst), 3, "own {is_own}: once, and twice more for the rest");
        }
    }
}
