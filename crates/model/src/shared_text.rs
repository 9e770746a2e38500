//! Texts that most records have in common (names of clusters and families, images), kept once where it can be. It must never be given
//! what is each record's own.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::marker::PhantomData;
use std::sync::Arc;

use foldhash::fast::RandomState;
use serde::de::{Deserializer, Error, Visitor};

/// Texts that a thread remembers while it does not read many records at once.
const RECENT: usize = 256;
/// Longer ones are not remembered, in bytes: what all threads keep is little, whatever users call things.
const LONGEST: usize = 256;

thread_local! {
    /// The texts that were met so far; `None` while nobody shares.
    static KNOWN: RefCell<Option<HashSet<Arc<str>, RandomState>>> = const { RefCell::new(None) };
    /// The newest text of each hash.
    static LATELY: RefCell<[Option<Arc<str>>; RECENT]> = const { RefCell::new([const { None }; RECENT]) };
}

/// While it lives, equal texts in the records that this thread decodes become one. It ends on the thread on which it began.
#[derive(Debug)]
pub struct Sharing(PhantomData<*const ()>);

impl Sharing {
    /// Begins. One that had begun before on this thread forgets its texts, and ends with this one.
    #[must_use]
    pub fn begin() -> Self {
        KNOWN.set(Some(HashSet::default()));
        Self(PhantomData)
    }
}

impl Drop for Sharing {
    fn drop(&mut self) {
        KNOWN.set(None);
    }
}

/// The text, or one like it that this thread was given lately.
#[must_use]
pub fn recent(text: &str) -> Arc<str> {
    if text.len() > LONGEST {
        return text.into();
    }
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    #[expect(clippy::cast_possible_truncation, reason = "any of its bits will do")]
    let at = hasher.finish() as usize % RECENT;
    LATELY.with_borrow_mut(|lately| match &lately[at] {
        Some(met) if **met == *text => Arc::clone(met),
        _ => Arc::clone(lately[at].insert(text.into())),
    })
}

/// The text, or the one like it that was met before.
fn share(text: &str) -> Arc<str> {
    KNOWN.with_borrow_mut(|known| {
        let Some(known) = known else { return recent(text) };
        if let Some(met) = known.get(text) {
            return Arc::clone(met);
        }
        let new: Arc<str> = text.into();
        known.insert(Arc::clone(&new));
        new
    })
}

struct Text;

impl Visitor<'_> for Text {
    type Value = Arc<str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Arc<str>, E> {
        Ok(share(text))
    }
}

struct OptionalText;

impl<'de> Visitor<'de> for OptionalText {
    type Value = Option<Arc<str>>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string or null")
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserialize(deserializer).map(Some)
    }
}

/// For serde's `deserialize_with`: decodes a text that is likely another record's, too.
///
/// # Errors
/// The deserializer's, if there is no string.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
    deserializer.deserialize_str(Text)
}

/// [`deserialize`] for a text that may be missing.
///
/// # Errors
/// The deserializer's, if there is neither a string nor nothing.
pub fn deserialize_optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Arc<str>>, D::Error> {
    deserializer.deserialize_option(OptionalText)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ClusterName;

    fn decode(json: &str) -> ClusterName {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn equal_texts_are_one_while_somebody_shares() {
        let sharing = Sharing::begin();
        let (one, other, escaped) = (decode("\"web\""), decode("\"web\""), decode("\"w\\u0065b\""));
        assert!(Arc::ptr_eq(&one.0, &other.0) && Arc::ptr_eq(&one.0, &escaped.0));
        assert_ne!(decode("\"web2\""), one);
        drop(sharing);
        let alone = decode("\"web\"");
        assert!(alone == one && !Arc::ptr_eq(&alone.0, &one.0));
    }

    #[test]
    fn what_is_remembered_is_little_and_right() {
        let first = recent("web");
        assert!(Arc::ptr_eq(&recent("web"), &first));
        for number in 0..10 * RECENT {
            assert_eq!(*recent(&number.to_string()), number.to_string());
        }
        assert!(!Arc::ptr_eq(&recent("web"), &first), "one after the other took its place");
        let long = "x".repeat(LONGEST + 1);
        assert!(!Arc::ptr_eq(&recent(&long), &recent(&long)));
    }

    #[test]
    fn what_is_no_text_is_refused() {
        assert!(serde_json::from_str::<ClusterName>("7").is_err());
        assert!(serde_json::from_str::<ClusterName>("null").is_err());
        assert_eq!(deserialize_optional(&mut serde_json::Deserializer::from_str("null")).unwrap(), None);
        assert_eq!(deserialize_optional(&mut serde_json::Deserializer::from_str("\"a\"")).unwrap().as_deref(), Some("a"));
    }
}
