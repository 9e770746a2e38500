//! The part of a list that a Describe action asks for by ids: all of them must be there.

use std::collections::BTreeSet;
use std::str::FromStr;

use super::failures::not_found;
use crate::failure::Failure;

/// The ids asked for.
#[derive(Debug)]
pub(super) struct Choice<I>(Option<BTreeSet<I>>);

impl<I: FromStr + Ord> Choice<I> {
    /// Reads ids and looks whether each is there; none at all means everything.
    ///
    /// # Errors
    /// `code` (`InvalidVpcID.NotFound`), naming those that are not there.
    pub(super) fn parse(texts: Option<&[String]>, code: &'static str, noun: &str, is_there: impl Fn(&I) -> bool) -> Result<Self, Failure> {
        let Some(texts) = texts.filter(|texts| !texts.is_empty()) else { return Ok(Self(None)) };
        let (mut ids, mut absent) = (BTreeSet::new(), Vec::new());
        for text in texts {
            match text.parse::<I>().ok().filter(&is_there) {
                Some(id) => drop(ids.insert(id)),
                None => absent.push(text.as_str()),
            }
        }
        // A message of thousands of ids helps nobody.
        absent.truncate(10);
        if absent.is_empty() { Ok(Self(Some(ids))) } else { Err(not_found(code, noun, &absent)) }
    }

    /// Is it among them?
    pub(super) fn has(&self, id: &I) -> bool {
        self.0.as_ref().is_none_or(|ids| ids.contains(id))
    }
}
