//! Temporary credentials of roles that nobody keeps: all of them follow from one secret and from what they are for. So any server that has
//! the secret checks them without asking anybody, and none is lost with a server. It must never draw randomness, nor show a secret.
//!
//! A session token is what the credentials are for, and an HMAC of that; the access key's id and secret are HMACs of the token.

use crate::keys::{AccessKey, KeyKind, Secret, access_key_id, secret_access_key};
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;
use std::sync::Arc;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The form of a token; another form gets another number.
const FORM: u8 = 1;
/// Form, issue and end.
const HEAD: usize = 1 + 8 + 8;
/// Bytes of an HMAC.
const PROOF: usize = 32;
/// The longest token that is looked at, in characters: ARNs have at most 2,048 each.
const LONGEST_TOKEN: usize = 8 * 1024;
/// The longest ARN in a token, in bytes; IAM's limit.
const LONGEST_ARN: usize = 2_048;

/// What credentials of a role are for. Times in Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleSession {
    /// The role.
    pub role_arn: String,
    /// The task that has it.
    pub task_arn: String,
    /// When they were issued.
    pub issued_at: i64,
    /// From when on they are refused.
    pub expires_at: i64,
}

impl RoleSession {
    /// The name of the session, as ECS gives it: the task's id.
    pub fn name(&self) -> &str {
        self.task_arn.rsplit('/').next().unwrap_or_default()
    }

    /// Who signs with these credentials: `arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION`, with a role's name and without its path.
    ///
    /// Source: "IAM identifiers" in the IAM user guide.
    pub fn principal_arn(&self) -> String {
        let parts: Vec<&str> = self.role_arn.splitn(6, ':').collect();
        let (partition, account) = (parts.get(1).unwrap_or(&"aws"), parts.get(4).unwrap_or(&""));
        let role = self.role_arn.rsplit(['/', ':']).next().unwrap_or_default();
        format!("arn:{partition}:sts::{account}:assumed-role/{role}/{}", self.name())
    }
}

/// Which of a task's two roles. The number goes into what is derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RolePurpose {
    /// `taskRoleArn`: for the containers.
    Task = 1,
    /// `executionRoleArn`: for the agent.
    Execution = 2,
}

/// What all credentials of roles follow from. Clones share it.
#[derive(Clone)]
pub struct RoleKeys(Arc<Zeroizing<[u8; PROOF]>>);

impl fmt::Debug for RoleKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("RoleKeys(..)")
    }
}

impl RoleKeys {
    /// Derived of a secret that all servers of a store have, and keep. What follows from it tells nothing of the secret itself.
    pub fn new(secret: &Secret) -> Self {
        Self(Arc::new(Zeroizing::new(hmac(secret.expose().as_bytes(), &[b"berth role sessions 1"]))))
    }

    /// The credentials of a session, always the same; `None` if an ARN is longer than any of AWS's.
    pub fn issue(&self, session: &RoleSession) -> Option<AccessKey> {
        let token = self.token(session)?;
        Some(self.key(&token, session.clone()))
    }

    /// The key of that id, if the token is one that this issued for it; also one whose time is over.
    pub fn access_key(&self, id: &str, token: &[u8]) -> Option<AccessKey> {
        let token = std::str::from_utf8(token).ok().filter(|token| token.len() <= LONGEST_TOKEN)?;
        let bytes = STANDARD.decode(token).ok()?;
        let (said, proof) = bytes.split_at_checked(bytes.len().checked_sub(PROOF)?)?;
        if !bool::from(self.derive("token", said).ct_eq(proof)) {
            return None;
        }
        // Base 64 can spell the same bytes in several ways only if it is read laxly, which it is not: what is compared below is this text.
        let key = self.key(token, read(said)?);
        bool::from(key.id.as_bytes().ct_eq(id.as_bytes())).then_some(key)
    }

    /// The name by which a task's containers ask for a role's credentials: a UUID that nobody can guess, and the same as long as the task
    /// lives.
    pub fn credentials_id(&self, task_arn: &str, purpose: RolePurpose) -> String {
        let derived = self.derive("id of credentials", &[&[purpose as u8], task_arn.as_bytes()].concat());
        let mut bytes: [u8; 16] = derived[..16].try_into().expect("an HMAC has 32 bytes");
        // RFC 9562, version 8: a UUID of one's own making.
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let text = hex::encode(bytes);
        format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
    }

    fn token(&self, session: &RoleSession) -> Option<Zeroizing<String>> {
        let mut said = vec![FORM];
        said.extend(session.issued_at.to_be_bytes());
        said.extend(session.expires_at.to_be_bytes());
        for arn in [&session.role_arn, &session.task_arn] {
            let length = u16::try_from(arn.len()).ok().filter(|length| usize::from(*length) <= LONGEST_ARN)?;
            said.extend(length.to_be_bytes());
            said.extend(arn.as_bytes());
        }
        let proof = self.derive("token", &said);
        said.extend(proof);
        Some(Zeroizing::new(STANDARD.encode(said)))
    }

    fn key(&self, token: &str, session: RoleSession) -> AccessKey {
        let id = self.derive("access key id", token.as_bytes());
        let secret = Zeroizing::new(self.derive("secret access key", token.as_bytes()));
        AccessKey {
            id: access_key_id(KeyKind::Temporary, id[..10].try_into().expect("an HMAC has 32 bytes")),
            secret: secret_access_key(secret[..30].try_into().expect("an HMAC has 32 bytes")),
            session_token: Some(Secret::new(token)),
            principal_arn: session.principal_arn(),
            expires_at: Some(session.expires_at),
            role_session: Some(Arc::new(session)),
        }
    }

    /// Of one use nothing follows about another: what it is for goes in front, and cannot run into what it is about.
    fn derive(&self, what_for: &str, about: &[u8]) -> [u8; PROOF] {
        hmac(&self.0[..], &[what_for.as_bytes(), &[0], about])
    }
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; PROOF] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Reads what a token says, all of it.
fn read(said: &[u8]) -> Option<RoleSession> {
    let (head, rest) = said.split_at_checked(HEAD).filter(|(head, _)| head[0] == FORM)?;
    let time = |from: usize| Some(i64::from_be_bytes(head[from..from + 8].try_into().ok()?));
    let (role_arn, rest) = text(rest)?;
    let (task_arn, rest) = text(rest)?;
    rest.is_empty().then_some(RoleSession { role_arn, task_arn, issued_at: time(1)?, expires_at: time(9)? })
}

fn text(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (length, rest) = bytes.split_at_checked(2)?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(length.try_into().ok()?)))?;
    Some((String::from_utf8(text.to_vec()).ok()?, rest))
}

/// How long credentials of one issue are good, and when the next is due. All times in Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// When they are issued.
    pub issued_at: i64,
    /// When they end.
    pub expires_at: i64,
    /// When the next are issued: at least a quarter of their life before the end.
    pub renewed_at: i64,
}

/// The issue of now, of credentials that were first issued at `first` and are good for `life`: it follows from the times alone, so that every
/// server, after every restart, comes to the same. Credentials that began together are spread by `spread`, any number, over an eighth of
/// their life.
pub fn term(first: i64, life: i64, spread: u64, now: i64) -> Term {
    let life = life.max(8);
    let early = i64::try_from(spread % (life as u64 / 8)).unwrap_or(0);
    let every = life - life / 4 - early;
    let issued_at = first + now.saturating_sub(first).max(0) / every * every;
    Term { issued_at, expires_at: issued_at + life, renewed_at: issued_at + every }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TASK: &str = "arn:aws:ecs:us-east-1:000000000000:task/c/0123456789abcdef0123456789abcdef";

    fn keys() -> RoleKeys {
        RoleKeys::new(&Secret::new("the root's"))
    }

    fn session() -> RoleSession {
        RoleSession {
            role_arn: "arn:aws:iam::000000000000:role/team/app".into(),
            task_arn: TASK.into(),
            issued_at: 1_700_000_000,
            expires_at: 1_700_021_600,
        }
    }

    #[test]
    fn what_is_issued_is_known_again_by_whoever_has_the_secret() {
        let issued = keys().issue(&session()).unwrap();
        assert!(issued.id.starts_with("ASIA") && issued.id.len() == 20 && issued.secret.expose().len() == 40, "{issued:?}");
        assert_eq!(issued.principal_arn, "arn:aws:sts::000000000000:assumed-role/app/0123456789abcdef0123456789abcdef");
        let token = issued.session_token.as_ref().unwrap().expose();
        assert_eq!(keys().access_key(&issued.id, token.as_bytes()).unwrap(), issued);
        assert_eq!(keys().issue(&session()).unwrap(), issued, "nothing is drawn");
        let stranger = RoleKeys::new(&Secret::new("another's"));
        assert!(stranger.access_key(&issued.id, token.as_bytes()).is_none());
        assert_ne!(stranger.issue(&session()).unwrap().secret, issued.secret);
    }

    #[test]
    fn each_session_has_keys_of_its_own() {
        let one = keys().issue(&session()).unwrap();
        for other in [
            RoleSession { role_arn: "arn:aws:iam::000000000000:role/other".into(), ..session() },
            RoleSession { task_arn: format!("{TASK}0"), ..session() },
            RoleSession { expires_at: 1_700_021_601, ..session() },
        ] {
            let other = keys().issue(&other).unwrap();
            assert!(other.id != one.id && other.secret != one.secret && other.session_token != one.session_token);
            // Nor does one's token go with another's key.
            assert!(keys().access_key(&other.id, one.session_token.as_ref().unwrap().expose().as_bytes()).is_none());
        }
    }

    #[test]
    fn a_changed_token_is_none() {
        let issued = keys().issue(&session()).unwrap();
        let token = issued.session_token.as_ref().unwrap().expose().to_owned();
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert!(keys().access_key(&issued.id, &changed).is_none(), "character {at}");
        }
        for text in ["", "AAAA", &token[..token.len() - 4], &format!("{token}AAAA"), &"A".repeat(LONGEST_TOKEN + 4)] {
            assert!(keys().access_key(&issued.id, text.as_bytes()).is_none(), "{text}");
        }
        let long = RoleSession { role_arn: "a".repeat(LONGEST_ARN + 1), ..session() };
        assert!(keys().issue(&long).is_none());
    }

    #[test]
    fn ids_are_the_tasks_and_the_purposes_own() {
        let id = keys().credentials_id(TASK, RolePurpose::Task);
        assert_eq!(id, keys().credentials_id(TASK, RolePurpose::Task));
        assert_ne!(id, keys().credentials_id(TASK, RolePurpose::Execution));
        assert_ne!(id, keys().credentials_id(&format!("{TASK}0"), RolePurpose::Task));
        let lengths: Vec<_> = id.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12], "{id}");
    }

    #[test]
    fn nothing_secret_is_shown() {
        let issued = keys().issue(&session()).unwrap();
        let shown = format!("{:?} {issued:?}", keys());
        assert!(!shown.contains(issued.secret.expose()) && !shown.contains(issued.session_token.as_ref().unwrap().expose()), "{shown}");
    }

    proptest! {
        #[test]
        fn terms_follow_each_other_without_a_gap(first in 0_i64..1_000_000, life in 8_i64..50_000_000, spread: u64, late in 0_i64..500_000_000) {
            let now = first + late;
            let term = term(first, life, spread, now);
            prop_assert!(term.issued_at <= now && now < term.renewed_at);
            prop_assert!(term.expires_at - term.issued_at == life);
            // Between a quarter and three eighths of their life is left when the next come.
            let left = term.expires_at - term.renewed_at;
            prop_assert!(left >= life / 4 && left <= life * 3 / 8 + 1, "{left} of {life}");
            prop_assert_eq!(super::term(first, life, spread, term.renewed_at).issued_at, term.renewed_at);
            prop_assert_eq!(super::term(first, life, spread, first - 1).issued_at, first, "a clock that is behind");
        }

        #[test]
        fn hostile_tokens_are_none(token: Vec<u8>) {
            prop_assert!(keys().access_key("ASIAEXAMPLE", &token).is_none());
        }
    }
}
