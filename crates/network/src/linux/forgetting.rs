//! Which addresses may have connections of a task that is over: who was let in to one task must not be let in to the next one that gets its
//! address.
//!
//! They are forgotten when an address is about to be used again, not when it is given up: the kernel takes milliseconds to look through its
//! table, and most addresses come again long after their connections have ended by themselves. For the same reason nobody looks before the
//! first address is used: an agent whose tasks have no interfaces of their own never does.

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
    /// Of tasks that go on from an earlier life of the agent.
    living: BTreeSet<IpAddr>,
    /// Given up in this life of the agent.
    spent: BTreeSet<IpAddr>,
    /// What there was before this life used its first address; `None` until then.
    look: Option<Look>,
}

#[derive(Debug)]
enum Look {
    /// The kernel does not tell of connections at all.
    Blind,
    /// Addresses with connections; most of them are of other machines and never will be ours.
    Seen(BTreeSet<IpAddr>),
}

impl Addresses {
    /// Who had connections before this life's own; `None` if the kernel does not tell.
    fn seen(&mut self) -> Option<&mut BTreeSet<IpAddr>> {
        let living = &self.living;
        let look = self.look.get_or_insert_with(|| match conntrack::parties() {
            Ok(mut seen) => {
                seen.retain(|address| !living.contains(address));
                Look::Seen(seen)
            }
            Err(error) => {
                tracing::warn!(%error, "the kernel does not tell of connections; a task may get packets of whom the one before with its address let in");
                Look::Blind
            }
        });
        match look {
            Look::Blind => None,
            Look::Seen(seen) => Some(seen),
        }
    }
}

impl Forgetting {
    /// `living` are addresses of tasks that go on.
    pub fn open(living: BTreeSet<IpAddr>) -> Self {
        Self(Mutex::new(Addresses { living, ..Default::default() }))
    }

    /// Notes that addresses are given up.
    ///
    /// # Errors
    /// The kernel's refusal; calling again goes on.
    pub fn spend(&self, addresses: impl Iterator<Item = IpAddr>) -> Result<(), NetlinkError> {
        let mut known = self.0.lock();
        known.spent.extend(addresses);
        if known.spent.len() > MOST_SPENT {
            if known.seen().is_some() {
                conntrack::forget_addresses(&known.spent)?;
            }
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
        // Before the first of this life's own: what is seen later would be theirs.
        let Some(seen) = known.seen() else { return Ok(()) };
        let was_seen = !addresses.is_disjoint(seen);
        if addresses.is_disjoint(&known.spent) && !was_seen {
            return Ok(());
        }
        // All that are given up at once: to look for one takes as long.
        let all = addresses.union(&known.spent).copied().collect();
        conntrack::forget_addresses(&all)?;
        known.spent.clear();
        if let Some(seen) = known.seen() {
            seen.retain(|address| !addresses.contains(address));
        }
        Ok(())
    }
}
