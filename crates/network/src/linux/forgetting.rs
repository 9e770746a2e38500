//! Which addresses may have connections of a task that is over: who was let in to one task must not be let in to the next one that gets its
//! address.
//!
//! They are forgotten when an address is about to be used again, not when it is given up: the kernel takes milliseconds to look through its
//! table, and most addresses come again long after their connections have ended by themselves.

use std::collections::BTreeSet;
use std::net::IpAddr;

use parking_lot::Mutex;

use super::conntrack;
use super::netlink::NetlinkError;

/// Beyond so many addresses that were given up they are seen to at once.
const MOST_SPENT: usize = 1024;

/// Addresses that may not be used again just so.
#[derive(Debug)]
pub struct Forgetting(Mutex<Addresses>);

#[derive(Debug, Default)]
struct Addresses {
    /// Whether the kernel tells of connections at all.
    is_blind: bool,
    /// Given up in this life of the agent.
    spent: BTreeSet<IpAddr>,
    /// With connections when this life began; most of them are of other machines and never will be ours.
    seen: BTreeSet<IpAddr>,
}

impl Forgetting {
    /// Looks at who has connections now. `living` are addresses of tasks that go on.
    pub fn open(living: &BTreeSet<IpAddr>) -> Self {
        let known = match conntrack::senders() {
            Ok(mut seen) => {
                seen.retain(|address| !living.contains(address));
                Addresses { seen, ..Default::default() }
            }
            Err(error) => {
                tracing::warn!(%error, "the kernel does not tell of connections; a task may get packets of whom the one before with its address let in");
                Addresses { is_blind: true, ..Default::default() }
            }
        };
        Self(Mutex::new(known))
    }

    /// Notes that addresses are given up.
    ///
    /// # Errors
    /// The kernel's refusal; calling again goes on.
    pub fn spend(&self, addresses: impl Iterator<Item = IpAddr>) -> Result<(), NetlinkError> {
        let mut known = self.0.lock();
        if known.is_blind {
            return Ok(());
        }
        known.spent.extend(addresses);
        if known.spent.len() > MOST_SPENT {
            conntrack::forget_addresses(&known.spent)?;
            known.spent.clear();
        }
        Ok(())
    }

    /// Makes addresses fit to be used again.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn settle(&self, addresses: &BTreeSet<IpAddr>) -> Result<(), NetlinkError> {
        let mut known = self.0.lock();
        if addresses.is_disjoint(&known.spent) && addresses.is_disjoint(&known.seen) {
            return Ok(());
        }
        // All that are given up at once: to look for one takes as long.
        let all = addresses.union(&known.spent).copied().collect();
        conntrack::forget_addresses(&all)?;
        known.spent.clear();
        known.seen.retain(|address| !addresses.contains(address));
        Ok(())
    }
}
