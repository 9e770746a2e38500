//! `NextToken` and `MaxResults` of EC2's Describe actions.

use super::failures::{bad_value, refuse};
use crate::failure::Failure;
use crate::page_token::{decode, encode};

/// The smallest page.
const LEAST: usize = 5;
/// The largest page of most lists.
pub(super) const MOST: usize = 1_000;

/// A page asked for.
#[derive(Debug)]
pub(super) struct Page {
    action: &'static str,
    after: Option<String>,
    size: usize,
}

impl Page {
    /// Reads `NextToken` and `MaxResults`, which is 5 to `most`.
    ///
    /// # Errors
    /// `InvalidParameterValue`, `InvalidNextToken`.
    pub(super) fn parse(action: &'static str, token: Option<&str>, max: Option<i32>, most: usize) -> Result<Self, Failure> {
        let size = match max.map(usize::try_from) {
            None => most,
            Some(Ok(size)) if (LEAST..=most).contains(&size) => size,
            Some(Ok(size)) if size > most => return Err(bad_value(size, "maxResults", &format!("Expecting a value smaller than {most}."))),
            Some(_) => return Err(bad_value(max.unwrap_or_default(), "maxResults", &format!("Expecting a value greater than {LEAST}."))),
        };
        let after = match token {
            None | Some("") => None,
            Some(token) => Some(
                decode(action, token)
                    .ok_or_else(|| refuse("InvalidNextToken", "The token supplied in the NextToken parameter is not valid."))?,
            ),
        };
        Ok(Self { action, after, size })
    }

    /// Takes the page out of a list that ascends by `key`, which is unique; with the token of the next page.
    pub(super) fn take<T>(&self, items: impl Iterator<Item = T>, key: impl Fn(&T) -> String) -> (Vec<T>, Option<String>) {
        let rest = items.filter(|item| self.after.as_ref().is_none_or(|after| key(item) > *after));
        let mut page: Vec<T> = rest.take(self.size + 1).collect();
        let more = page.len() > self.size;
        page.truncate(self.size);
        let token = page.last().filter(|_| more).map(|last| encode(self.action, &key(last)));
        (page, token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_cover_everything_once() {
        let items: Vec<String> = (0..23).map(|n| format!("{n:02}")).collect();
        let (mut seen, mut token) = (Vec::new(), None::<String>);
        loop {
            let page = Page::parse("DescribeVpcs", token.as_deref(), Some(5), MOST).unwrap();
            let (taken, next) = page.take(items.iter(), |item| (*item).clone());
            assert!(taken.len() <= 5);
            seen.extend(taken.into_iter().cloned());
            match next {
                Some(next) => token = Some(next),
                None => break,
            }
        }
        assert_eq!(seen, items);
    }

    #[test]
    fn other_sizes_and_tokens_are_refused() {
        let refused = |token, max| Page::parse("DescribeVpcs", token, max, MOST).unwrap_err().code;
        for max in [-1, 0, 4, 1_001] {
            assert_eq!(refused(None, Some(max)), "InvalidParameterValue", "{max}");
        }
        assert_eq!(refused(Some("x"), None), "InvalidNextToken");
        assert_eq!(refused(Some(&encode("DescribeSubnets", "a")), None), "InvalidNextToken");
    }
}
