//! `Filters` of EC2's Describe actions: each names a property and the values it may have; all filters must pass. Values may hold `*` for
//! any text and `?` for any character, and a backslash before one that is meant as it is.
//!
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Filtering.html>

use berth_model::tags::Tags;
use berth_shapes::ec2;

use super::failures::{bad_value, invalid, missing, refuse};
use crate::failure::Failure;

/// Most filters of a request.
const MAX_FILTERS: usize = 50;
/// Most values of all filters of a request; AWS's limit.
const MAX_VALUES: usize = 200;
/// Longest name or value, in bytes.
const MAX_TEXT: usize = 1024;

/// The filters of a request.
#[derive(Debug)]
pub(super) struct Filters(Vec<(String, Vec<String>)>);

impl Filters {
    /// Reads them. `known` are the names that the action has; if `tag-key` is among them, `tag:KEY` is too.
    ///
    /// # Errors
    /// `InvalidParameterValue` for another name, `FilterLimitExceeded`.
    pub(super) fn parse(filters: Option<&[ec2::Filter]>, known: &[&str]) -> Result<Self, Failure> {
        let filters = filters.unwrap_or_default();
        let values: usize = filters.iter().map(|filter| filter.values.as_ref().map_or(0, Vec::len)).sum();
        if filters.len() > MAX_FILTERS || values > MAX_VALUES {
            return Err(refuse(
                "FilterLimitExceeded",
                format!("The maximum number of filter values specified on a single call is {MAX_VALUES}"),
            ));
        }
        let mut read = Vec::with_capacity(filters.len());
        for filter in filters {
            let name = filter.name.clone().ok_or_else(|| missing("Filter.Name"))?;
            let is_tag = name.starts_with("tag:") && known.contains(&"tag-key");
            if name.len() > MAX_TEXT || !(is_tag || known.contains(&name.as_str())) {
                return Err(invalid(format!("The filter '{}' is invalid", name.chars().take(128).collect::<String>())));
            }
            let values = filter.values.clone().filter(|values| !values.is_empty());
            let values = values.ok_or_else(|| invalid(format!("The filter '{name}' has no values")))?;
            if let Some(long) = values.iter().find(|value| value.len() > MAX_TEXT) {
                return Err(bad_value(long, "filter", "The filter value is too long."));
            }
            read.push((name, values));
        }
        Ok(Self(read))
    }

    /// Does a resource pass? `values_of` gives the values of a property by the filter's name.
    pub(super) fn pass(&self, tags: &Tags, values_of: impl Fn(&str) -> Vec<String>) -> bool {
        self.0.iter().all(|(name, wanted)| {
            let values = match name.as_str() {
                "tag-key" => tags.keys().cloned().collect(),
                name => match name.strip_prefix("tag:") {
                    Some(key) => tags.get(key).cloned().into_iter().collect(),
                    None => values_of(name),
                },
            };
            values.iter().any(|value| wanted.iter().any(|pattern| matches(pattern, value)))
        })
    }
}

/// Does a value match a pattern? In time of the product of their lengths at most.
fn matches(pattern: &str, value: &str) -> bool {
    let mut parts = Vec::new();
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        parts.push(match letter {
            '*' => Part::Any,
            '?' => Part::One,
            '\\' => Part::Letter(letters.next().unwrap_or('\\')),
            letter => Part::Letter(letter),
        });
    }
    let value: Vec<char> = value.chars().collect();
    // Where to go on when what follows the last `*` does not match: with one more character taken by it.
    let (mut at, mut read, mut back) = (0, 0, None);
    while read < value.len() {
        match parts.get(at) {
            Some(Part::Any) => {
                back = Some((at + 1, read));
                at += 1;
            }
            Some(part) if part.takes(value[read]) => (at, read) = (at + 1, read + 1),
            _ => match back {
                Some((after, from)) => {
                    back = Some((after, from + 1));
                    (at, read) = (after, from + 1);
                }
                None => return false,
            },
        }
    }
    parts[at..].iter().all(|part| *part == Part::Any)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Any,
    One,
    Letter(char),
}

impl Part {
    fn takes(self, letter: char) -> bool {
        match self {
            Self::Any => false,
            Self::One => true,
            Self::Letter(own) => own == letter,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(name: &str, values: &[&str]) -> ec2::Filter {
        ec2::Filter { name: Some(name.into()), values: Some(values.iter().map(|value| (*value).to_owned()).collect()) }
    }

    #[test]
    fn patterns() {
        for (pattern, value, expected) in [
            ("a", "a", true),
            ("a", "A", false),
            ("*", "", true),
            ("?", "", false),
            ("a*c", "abbbc", true),
            ("a*c", "abbbcd", false),
            ("*b*b*", "abcb", true),
            ("a?c", "abc", true),
            ("a\\*c", "a*c", true),
            ("a\\*c", "abc", false),
            ("\\", "\\", true),
            ("**x", "yyx", true),
            ("?ü", "aü", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, value), expected, "{pattern} {value}");
        }
        // Would take for ever where each star tries all that the ones before it left.
        assert!(!matches(&"*a".repeat(500), &"a".repeat(400)));
    }

    #[test]
    fn all_filters_must_pass_and_one_value_of_each() {
        let filters = [filter("state", &["x", "available"]), filter("tag:Name", &["w*"]), filter("tag-key", &["Name"])];
        let filters = Filters::parse(Some(&filters), &["state", "tag-key"]).unwrap();
        let of = |state: &'static str| move |_: &str| vec![state.to_owned()];
        let tags = Tags::from([("Name".to_owned(), "web".to_owned())]);
        assert!(filters.pass(&tags, of("available")));
        assert!(!filters.pass(&tags, of("pending")));
        assert!(!filters.pass(&Tags::new(), of("available")));
    }

    #[test]
    fn bad_filters_are_refused() {
        let refused = |filters: &[ec2::Filter]| Filters::parse(Some(filters), &["state"]).unwrap_err().code;
        assert_eq!(refused(&[filter("stat", &["x"])]), "InvalidParameterValue");
        assert_eq!(refused(&[filter("tag:x", &["x"])]), "InvalidParameterValue");
        assert_eq!(refused(&[filter("state", &[])]), "InvalidParameterValue");
        assert_eq!(refused(&[ec2::Filter { name: None, values: None }]), "MissingParameter");
        assert_eq!(refused(&[filter("state", &["x"; 201])]), "FilterLimitExceeded");
        assert_eq!(refused(&[filter("state", &[&"x".repeat(1025)])]), "InvalidParameterValue");
    }
}
