//! Derived signing keys by (access key, day, region, service): deriving one costs as much as all the rest of a verification.
//! It must never grow without bound, nor hold a key for anybody who has not proved to know the secret.

use super::signing_mac;
use crate::keys::{AccessKey, Secret};
use hmac::Hmac;
use parking_lot::RwLock;
use sha2::Sha256;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// A derived key with what it was derived from.
pub(super) struct DerivedKey {
    access_key_id: String,
    secret: Secret,
    day: String,
    pub(super) scope: Arc<(String, String)>,
    pub(super) mac: Hmac<Sha256>,
}

impl DerivedKey {
    pub(super) fn derive(key: &AccessKey, day: &str, region: &str, service: &str) -> Self {
        Self {
            access_key_id: key.id.clone(),
            secret: key.secret.clone(),
            day: day.to_owned(),
            scope: Arc::new((region.to_owned(), service.to_owned())),
            mac: signing_mac(key.secret.expose(), day, region, service),
        }
    }

    // The secret too: an access key may be replaced by one of the same id, and the old secret must stop working at once.
    fn is_for(&self, key: &AccessKey, day: &str, region: &str, service: &str) -> bool {
        self.access_key_id == key.id && self.day == day && self.scope.0 == region && self.scope.1 == service && self.secret == key.secret
    }
}

pub(super) struct KeyCache {
    capacity: usize,
    // Keyed by a hash that nobody outside can aim at, so that a lookup allocates nothing; two that collide evict each other.
    hasher: RandomState,
    keys: RwLock<HashMap<u64, Arc<DerivedKey>>>,
}

impl KeyCache {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), hasher: RandomState::new(), keys: RwLock::new(HashMap::new()) }
    }

    pub(super) fn get(&self, key: &AccessKey, day: &str, region: &str, service: &str) -> Option<Arc<DerivedKey>> {
        let slot = self.slot(&key.id, day, region, service);
        let found = self.keys.read().get(&slot).cloned()?;
        found.is_for(key, day, region, service).then_some(found)
    }

    pub(super) fn keep(&self, derived: Arc<DerivedKey>) {
        let slot = self.slot(&derived.access_key_id, &derived.day, &derived.scope.0, &derived.scope.1);
        let mut keys = self.keys.write();
        if keys.len() >= self.capacity {
            // Yesterday's keys are of no more use. If that frees nothing, starting over costs one derivation a key.
            keys.retain(|_, kept| kept.day == derived.day);
            if keys.len() >= self.capacity {
                keys.clear();
            }
        }
        keys.insert(slot, derived);
    }

    fn slot(&self, id: &str, day: &str, region: &str, service: &str) -> u64 {
        self.hasher.hash_one((id, day, region, service))
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.keys.read().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str, secret: &str) -> AccessKey {
        AccessKey::long_term(id, secret, "arn:aws:iam::000000000000:root")
    }

    #[test]
    fn stays_bounded_and_drops_other_days_first() {
        let cache = KeyCache::new(4);
        let keep = |id: &str, day: &str| cache.keep(Arc::new(DerivedKey::derive(&key(id, "s"), day, "r", "ecs")));
        for id in ["a", "b", "c"] {
            keep(id, "20260101");
        }
        keep("a", "20260102");
        keep("b", "20260102");
        assert_eq!(cache.len(), 2);
        assert!(cache.get(&key("a", "s"), "20260102", "r", "ecs").is_some());
        assert!(cache.get(&key("a", "s"), "20260101", "r", "ecs").is_none());
        for number in 0..100 {
            keep(&number.to_string(), "20260102");
            assert!(cache.len() <= 4);
        }
    }

    #[test]
    fn a_replaced_secret_is_a_miss() {
        let cache = KeyCache::new(4);
        cache.keep(Arc::new(DerivedKey::derive(&key("a", "old"), "20260101", "r", "ecs")));
        assert!(cache.get(&key("a", "old"), "20260101", "r", "ecs").is_some());
        assert!(cache.get(&key("a", "new"), "20260101", "r", "ecs").is_none());
        assert!(cache.get(&key("a", "old"), "20260101", "r", "iam").is_none());
    }
}
