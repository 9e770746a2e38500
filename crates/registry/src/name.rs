//! Repository names, tags and references, by the grammar of the OCI distribution specification ("Pulling manifests").
//! What passes here is safe as a path below the registry's folder: no empty part, no leading dot, no `..`.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use crate::digest::{Digest, DigestError};

/// Longest repository name, in bytes: the specification's advice, so that `HOST/NAME` fits the limits of clients.
const MAX_NAME: usize = 255;
/// Longest tag, in bytes, from the specification's grammar.
const MAX_TAG: usize = 128;

/// A valid repository name such as `team/web`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName(Box<str>);

/// A valid tag such as `latest`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Box<str>);

/// How a manifest is named in a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// By tag, which can move.
    Tag(Tag),
    /// By content.
    Digest(Digest),
}

/// The text is not a repository name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "repository name {0:?} is not valid: parts of lower-case letters and digits joined by '.', '_', '__' or '-', \
     separated by '/', 255 bytes at most"
)]
pub struct NameError(String);

/// The text is neither a tag nor a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It is no tag.
    #[error("tag {0:?} is not valid: [a-zA-Z0-9_][a-zA-Z0-9._-]{{0,127}}")]
    Tag(String),
    /// It has a colon, so a digest was meant.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl FromStr for RepositoryName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<RepositoryName, NameError> {
        if text.len() <= MAX_NAME && text.split('/').all(is_component) {
            Ok(RepositoryName(text.into()))
        } else {
            Err(NameError(text.chars().take(MAX_NAME).collect()))
        }
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut rest = text;
    loop {
        let word = rest.find(|c| !alphanumeric(c)).unwrap_or(rest.len());
        if word == 0 {
            return false;
        }
        rest = &rest[word..];
        if rest.is_empty() {
            return true;
        }
        let separator = rest.find(alphanumeric).unwrap_or(rest.len());
        let (mark, after) = rest.split_at(separator);
        let valid = matches!(mark, "." | "_" | "__") || mark.bytes().all(|b| b == b'-');
        if !valid {
            return false;
        }
        rest = after;
    }
}

impl FromStr for Tag {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Tag, ReferenceError> {
        let first = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let later = |b: u8| first(b) || b == b'.' || b == b'-';
        let mut bytes = text.bytes();
        if text.len() <= MAX_TAG && bytes.next().is_some_and(first) && bytes.all(later) {
            Ok(Tag(text.into()))
        } else {
            Err(ReferenceError::Tag(text.chars().take(MAX_TAG).collect()))
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        if text.contains(':') { Ok(Reference::Digest(text.parse()?)) } else { Ok(Reference::Tag(text.parse()?)) }
    }
}

impl RepositoryName {
    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Tag {
    /// The tag as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// So that ordered maps can be searched from any text, e.g. the `last` of a page.
impl Borrow<str> for RepositoryName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Tag {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_by_the_grammar() {
        for good in ["a", "web", "team/web", "a.b", "a_b", "a__b", "a---b", "0/1/2", &"a".repeat(255)] {
            assert!(good.parse::<RepositoryName>().is_ok(), "{good}");
        }
        let long = "a".repeat(256);
        for bad in
            ["", "/", "a/", "/a", "a//b", "A", "a..b", "a___b", ".a", "a.", "-a", "a-", "_a", "..", "a/../b", "a._b", "ü", "a b", &long]
        {
            assert!(bad.parse::<RepositoryName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn tags_and_references() {
        for good in ["latest", "1.2.3", "_x", "A-b_c.d", &"t".repeat(128)] {
            assert!(matches!(good.parse(), Ok(Reference::Tag(_))), "{good}");
        }
        let long = "t".repeat(129);
        for bad in ["", ".x", "-x", "a/b", "a b", "sha256:00", &long] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
        let digest = Digest::sha256(b"x");
        assert_eq!(digest.to_string().parse(), Ok(Reference::Digest(digest)));
    }
}
