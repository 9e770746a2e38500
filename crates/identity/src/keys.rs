//! Access keys: what they hold, where they are looked up, how one is made out of random bytes given by the caller.
//! It must never draw randomness itself, and no secret may appear in any `Debug` output.

use crate::role_sessions::{RoleKeys, RoleSession};
use base64::{Engine, engine::general_purpose::STANDARD};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A text that must not be shown: wiped from memory when dropped, compared in constant time, hidden in `Debug`.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a text into custody.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself. Whoever calls this answers for where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

/// An access key and whom it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// The access key id, `AKIA..` for a lasting key and `ASIA..` for a temporary one.
    pub id: String,
    /// The secret access key.
    pub secret: Secret,
    /// The token that must come with every request, with temporary credentials.
    pub session_token: Option<Secret>,
    /// The ARN of the user, role session or root that it belongs to.
    pub principal_arn: String,
    /// From when on it no longer works, in Unix seconds; never, if `None`.
    pub expires_at: Option<i64>,
    /// The role session that it belongs to, if it is one's.
    pub role_session: Option<Arc<RoleSession>>,
}

impl AccessKey {
    /// A lasting key: no session token, no end.
    pub fn long_term(id: impl Into<String>, secret: impl Into<String>, principal_arn: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            secret: Secret::new(secret),
            session_token: None,
            principal_arn: principal_arn.into(),
            expires_at: None,
            role_session: None,
        }
    }

    /// What [`crate::sigv4::sign_headers`] needs to sign with this key at `now_unix` (Unix seconds).
    pub fn signing_params<'a>(&'a self, region: &'a str, service: &'a str, now_unix: i64) -> crate::sigv4::SigningParams<'a> {
        crate::sigv4::SigningParams {
            access_key: &self.id,
            secret: self.secret.expose(),
            session_token: self.session_token.as_ref().map(Secret::expose),
            region,
            service,
            now_unix,
        }
    }
}

/// Where a verifier looks up access keys. A key that is not there, or is switched off, is `None`.
pub trait KeySource {
    /// The access key of that id.
    fn access_key(&self, id: &str) -> Option<Arc<AccessKey>>;

    /// The temporary access key of that id as its own token proves it, whether or not its time is over; `None` where no such keys are
    /// given out, or the token is not of this key's making.
    fn session_key(&self, _id: &str, _token: &[u8]) -> Option<Arc<AccessKey>> {
        None
    }
}

/// Access keys in memory, which may be added and removed while requests are being verified; beside them those of role sessions, which
/// nobody keeps.
#[derive(Debug, Default)]
pub struct StaticKeys {
    keys: RwLock<HashMap<String, Arc<AccessKey>>>,
    roles: Option<RoleKeys>,
}

impl StaticKeys {
    /// A source of just these keys; of two with one id the later counts.
    pub fn new(keys: impl IntoIterator<Item = AccessKey>) -> Self {
        Self { keys: RwLock::new(keys.into_iter().map(|key| (key.id.clone(), Arc::new(key))).collect()), roles: None }
    }

    /// The same, and the temporary keys that `roles` gives out.
    #[must_use]
    pub fn with_roles(self, roles: RoleKeys) -> Self {
        Self { roles: Some(roles), ..self }
    }

    /// Adds a key, or replaces the one of its id.
    pub fn insert(&self, key: AccessKey) {
        self.keys.write().insert(key.id.clone(), Arc::new(key));
    }

    /// Takes a key away; it stops working at once.
    pub fn remove(&self, id: &str) -> Option<Arc<AccessKey>> {
        self.keys.write().remove(id)
    }
}

impl KeySource for StaticKeys {
    fn access_key(&self, id: &str) -> Option<Arc<AccessKey>> {
        self.keys.read().get(id).cloned()
    }

    fn session_key(&self, id: &str, token: &[u8]) -> Option<Arc<AccessKey>> {
        self.roles.as_ref()?.access_key(id, token).map(Arc::new)
    }
}

/// The two kinds of access key, which AWS tells apart by the id's first four letters.
///
/// Source: "IAM identifiers", table of unique id prefixes, in the IAM user guide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// `AKIA`: belongs to a user or the root, lasts until deleted.
    LongTerm,
    /// `ASIA`: belongs to a role session, comes with a token and an end.
    Temporary,
}

/// An access key id out of ten random bytes: the kind's four letters and sixteen of base 32, as long as AWS's.
pub fn access_key_id(kind: KeyKind, random: &[u8; 10]) -> String {
    const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let bits = random.iter().fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
    let mut id = String::with_capacity(20);
    id.push_str(match kind {
        KeyKind::LongTerm => "AKIA",
        KeyKind::Temporary => "ASIA",
    });
    id.extend((0..16).rev().map(|place| char::from(BASE32[(bits >> (place * 5) & 31) as usize])));
    id
}

/// A secret access key out of thirty random bytes: forty characters of base 64, as AWS's.
pub fn secret_access_key(random: &[u8; 30]) -> Secret {
    Secret::new(STANDARD.encode(random))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_keys_have_awss_form() {
        assert_eq!(access_key_id(KeyKind::LongTerm, &[0; 10]), "AKIAAAAAAAAAAAAAAAAA");
        assert_eq!(access_key_id(KeyKind::Temporary, &[255; 10]), "ASIA7777777777777777");
        assert_eq!(access_key_id(KeyKind::LongTerm, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 1]), "AKIAAAAAAAAAAAAAAAAB");
        assert_eq!(access_key_id(KeyKind::LongTerm, &[8, 0, 0, 0, 0, 0, 0, 0, 0, 0]), "AKIABAAAAAAAAAAAAAAA");
        assert_eq!(secret_access_key(&[7; 30]).expose().len(), 40);
        assert_ne!(secret_access_key(&[7; 30]), secret_access_key(&[8; 30]));
    }

    #[test]
    fn debug_hides_every_secret() {
        let mut key = AccessKey::long_term("AKIAEXAMPLE", "hush-secret", "arn:aws:iam::000000000000:root");
        key.session_token = Some(Secret::new("hush-token"));
        let keys = StaticKeys::new([key]);
        let shown = format!("{keys:?} {:#?}", keys.access_key("AKIAEXAMPLE"));
        assert!(shown.contains("AKIAEXAMPLE") && !shown.contains("hush"), "{shown}");
    }

    #[test]
    fn keys_come_and_go() {
        let keys = StaticKeys::default();
        keys.insert(AccessKey::long_term("A", "one", "p"));
        keys.insert(AccessKey::long_term("A", "two", "p"));
        assert_eq!(keys.access_key("A").unwrap().secret.expose(), "two");
        assert!(keys.remove("A").is_some());
        assert!(keys.access_key("A").is_none());
    }
}
