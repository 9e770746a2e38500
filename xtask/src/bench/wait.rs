//! Waiting for what shall come soon, by looking again and again. It must never wait without end.

use std::error::Error;
use std::time::{Duration, Instant};

/// Looks until there is something, at most for so long; `None` if it did not come. An error of the look ends the wait.
pub(super) fn until<T>(
    patience: Duration,
    pause: Duration,
    mut look: impl FnMut() -> Result<Option<T>, Box<dyn Error>>,
) -> Result<Option<T>, Box<dyn Error>> {
    let started = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
        if started.elapsed() > patience {
            return Ok(None);
        }
        std::thread::sleep(pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_with_what_came_with_an_error_or_with_patience() {
        let mut looks = 0;
        let come = until(Duration::from_secs(60), Duration::ZERO, || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(come.unwrap(), Some(3));
        assert!(until::<()>(Duration::from_secs(60), Duration::ZERO, || Err("broken".into())).is_err());
        assert_eq!(until::<()>(Duration::ZERO, Duration::from_millis(1), || Ok(None)).unwrap(), None);
    }
}
