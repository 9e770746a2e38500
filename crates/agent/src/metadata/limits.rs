//! How much of the endpoint one address may have: requests by a leaky bucket as the official agent's, connections by a count. Pure but for
//! the count's lock; time is an argument.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

/// Beyond so many addresses those are forgotten that have made no request for long.
const MANY: usize = 1024;

/// Requests that addresses may still make.
#[derive(Debug)]
pub struct Rates {
    steady: f64,
    burst: f64,
    left: HashMap<Ipv4Addr, (f64, Duration)>,
}

impl Rates {
    /// `steady` a second, `burst` at once.
    #[must_use]
    pub fn new(steady: u32, burst: u32) -> Self {
        Self { steady: steady.into(), burst: burst.into(), left: HashMap::new() }
    }

    /// Whether an address may make a request, at a time on a clock that only goes forward.
    pub fn admit(&mut self, who: Ipv4Addr, now: Duration) -> bool {
        let (steady, burst) = (self.steady, self.burst);
        let refilled = |(left, at): (f64, Duration)| (left + now.saturating_sub(at).as_secs_f64() * steady).min(burst);
        if self.left.len() >= MANY {
            // Who could make all of them at once is as good as unknown.
            self.left.retain(|_, entry| refilled(*entry) < burst);
        }
        let left = self.left.get(&who).map_or(burst, |entry| refilled(*entry));
        let is_admitted = left >= 1.0;
        self.left.insert(who, (if is_admitted { left - 1.0 } else { left }, now));
        is_admitted
    }
}

/// Connections that there are.
#[derive(Debug, Default)]
pub struct Doors(Arc<Mutex<HashMap<Ipv4Addr, usize>>>);

/// A connection that counts until it is dropped.
#[derive(Debug)]
pub struct Inside {
    doors: Arc<Mutex<HashMap<Ipv4Addr, usize>>>,
    who: Ipv4Addr,
}

impl Doors {
    /// Lets a connection of an address in; `None` if it has `most_each` already, or all together have `most`.
    #[must_use]
    pub fn enter(&self, who: Ipv4Addr, most_each: usize, most: usize) -> Option<Inside> {
        let mut inside = self.0.lock();
        if inside.get(&who).is_some_and(|count| *count >= most_each) || inside.values().sum::<usize>() >= most {
            return None;
        }
        *inside.entry(who).or_default() += 1;
        Some(Inside { doors: self.0.clone(), who })
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let mut inside = self.doors.lock();
        if let Some(count) = inside.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                inside.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    #[test]
    fn a_burst_and_then_so_many_a_second() {
        let mut rates = Rates::new(40, 60);
        let mut admitted = |who, now: u64, tries: usize| (0..tries).filter(|_| rates.admit(who, Duration::from_millis(now))).count();
        assert_eq!(admitted(at(1), 0, 100), 60);
        assert_eq!(admitted(at(2), 0, 100), 60, "each address has its own");
        assert_eq!(admitted(at(1), 500, 100), 20);
        assert_eq!(admitted(at(1), 1500, 100), 40);
        assert_eq!(admitted(at(1), 1400, 100), 0, "time does not go back");
        assert_eq!(admitted(at(1), 100_000, 100), 60, "no more than a burst however long it was quiet");
    }

    #[test]
    fn who_is_quiet_is_forgotten() {
        let mut rates = Rates::new(40, 60);
        for number in 0..5000_u32 {
            assert!(rates.admit(Ipv4Addr::from(number), Duration::from_secs(u64::from(number))));
        }
        assert!(rates.left.len() <= MANY);
    }

    #[test]
    fn so_many_connections_each_and_together() {
        let doors = Doors::default();
        let mut inside: Vec<_> = (0..2).map(|_| doors.enter(at(1), 2, 3).unwrap()).collect();
        assert!(doors.enter(at(1), 2, 3).is_none());
        inside.push(doors.enter(at(2), 2, 3).unwrap());
        assert!(doors.enter(at(3), 2, 3).is_none(), "all together");
        drop(inside);
        assert!(doors.0.lock().is_empty());
        assert!(doors.enter(at(1), 2, 3).is_some());
    }
}
