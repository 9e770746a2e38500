//! Pages of lists: an opaque token that names the last item given, so that items made or removed meanwhile do no harm.

use crate::failure::Failure;
use crate::page_token::{decode, encode};

/// A page asked for.
pub(crate) struct Page {
    after: Option<String>,
    size: usize,
}

impl Page {
    /// Reads `nextToken` and `maxResults`, which is 1 to 100 in nearly all lists.
    pub(crate) fn parse(action: &str, token: Option<&str>, max: Option<i32>, default: usize) -> Result<Self, Failure> {
        Self::parse_up_to(action, token, max, default, 100)
    }

    /// As [`Self::parse`], with the list's own highest `maxResults`.
    pub(crate) fn parse_up_to(action: &str, token: Option<&str>, max: Option<i32>, default: usize, most: usize) -> Result<Self, Failure> {
        let size = match max {
            None => default,
            Some(max) => usize::try_from(max)
                .ok()
                .filter(|max| (1..=most).contains(max))
                .ok_or_else(|| Failure::invalid(format!("Invalid maxResults: {max}. maxResults must be between 1 and {most}.")))?,
        };
        let after = match token {
            None | Some("") => None,
            Some(token) => Some(decode(action, token).ok_or_else(|| Failure::invalid("Invalid token: nextToken"))?),
        };
        Ok(Self { after, size })
    }

    /// The key after which the page begins: lists that are long start there, and not with their first item.
    pub(crate) fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// Takes the page out of an ordered list; `key` must be unique and grow (or shrink, with `descending`) along it.
    pub(crate) fn take<T>(
        &self,
        action: &str,
        items: impl Iterator<Item = T>,
        key: impl Fn(&T) -> String,
        descending: bool,
    ) -> (Vec<T>, Option<String>) {
        let is_after = |item: &T| match &self.after {
            None => true,
            Some(after) if descending => key(item) < *after,
            Some(after) => key(item) > *after,
        };
        let mut page: Vec<T> = items.filter(is_after).take(self.size + 1).collect();
        let more = page.len() > self.size;
        page.truncate(self.size);
        let token = page.last().filter(|_| more).map(|last| encode(action, &key(last)));
        (page, token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(items: &[&str], size: i32) -> Vec<Vec<String>> {
        let mut pages = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let page = Page::parse("List", token.as_deref(), Some(size), 100).unwrap();
            let (taken, next) = page.take("List", items.iter(), |item| (**item).to_owned(), false);
            pages.push(taken.into_iter().map(|item| (*item).to_owned()).collect());
            match next {
                Some(next) => token = Some(next),
                None => return pages,
            }
        }
    }

    #[test]
    fn pages_cover_everything_once() {
        assert_eq!(walk(&["a", "b", "c"], 1), [["a"], ["b"], ["c"]]);
        assert_eq!(walk(&["a", "b", "c"], 2), [vec!["a", "b"], vec!["c"]]);
        assert_eq!(walk(&["a", "b"], 2), [["a", "b"]]);
    }

    #[test]
    fn foreign_and_garbled_tokens_are_refused() {
        let token = encode("List", "a");
        assert!(Page::parse("Other", Some(&token), None, 100).is_err());
        assert!(Page::parse("List", Some(&token[1..]), None, 100).is_err());
        assert!(Page::parse("List", Some("x"), None, 100).is_err());
        assert!(Page::parse("List", Some(&token), Some(0), 100).is_err());
        assert!(Page::parse("List", Some(&token), Some(101), 100).is_err());
    }
}
