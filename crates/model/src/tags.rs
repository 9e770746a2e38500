//! Tags and their limits.
//!
//! Limits: <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-using-tags.html#tag-restrictions>.

use std::collections::BTreeMap;

use berth_shapes::ecs;

/// Tags of a resource, by key.
pub type Tags = BTreeMap<String, String>;

/// Most tags on a resource.
pub const MAX_TAGS: usize = 50;
/// Longest key, in characters.
pub const MAX_KEY: usize = 128;
/// Longest value, in characters.
pub const MAX_VALUE: usize = 256;

/// Why tags are refused; the texts name the key at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TagError {
    /// A tag without a key, or with an empty one.
    #[error("Tag key cannot be null or empty.")]
    EmptyKey,
    /// One key twice in a request.
    #[error("Duplicate tag key: {0}")]
    Duplicate(String),
    /// Key or value too long, or with characters that AWS refuses.
    #[error("Invalid tag: {0}")]
    Invalid(String),
    /// The prefix `aws:` is AWS's own.
    #[error("Tag keys may not begin with aws: ({0})")]
    Reserved(String),
    /// More than [`MAX_TAGS`].
    #[error("The number of tags on the resource exceeds the maximum of 50.")]
    TooMany,
}

/// Reads the `tags` member of a request.
///
/// # Errors
/// [`TagError`].
pub fn parse_tags(list: Option<&[ecs::Tag]>) -> Result<Tags, TagError> {
    let mut tags = Tags::new();
    for tag in list.unwrap_or_default() {
        let key = tag.key.as_deref().unwrap_or_default();
        let value = tag.value.clone().unwrap_or_default();
        check_key(key)?;
        if value.chars().count() > MAX_VALUE || !value.chars().all(is_legal) {
            return Err(TagError::Invalid(key.to_owned()));
        }
        if tags.insert(key.to_owned(), value).is_some() {
            return Err(TagError::Duplicate(key.to_owned()));
        }
    }
    if tags.len() > MAX_TAGS {
        return Err(TagError::TooMany);
    }
    Ok(tags)
}

/// Adds tags to those of a resource; equal keys take the new value.
///
/// # Errors
/// [`TagError::TooMany`]; then `tags` is as it was.
pub fn merge_tags(tags: &mut Tags, added: Tags) -> Result<(), TagError> {
    let fresh = added.keys().filter(|key| !tags.contains_key(*key)).count();
    if tags.len() + fresh > MAX_TAGS {
        return Err(TagError::TooMany);
    }
    tags.extend(added);
    Ok(())
}

/// Tags as responses carry them.
#[must_use]
pub fn render_tags(tags: &Tags) -> Vec<ecs::Tag> {
    tags.iter().map(|(key, value)| ecs::Tag { key: Some(key.clone()), value: Some(value.clone()) }).collect()
}

fn check_key(key: &str) -> Result<(), TagError> {
    if key.is_empty() {
        return Err(TagError::EmptyKey);
    }
    if key.len() >= 4 && key.is_char_boundary(4) && key[..4].eq_ignore_ascii_case("aws:") {
        return Err(TagError::Reserved(key.to_owned()));
    }
    if key.chars().count() > MAX_KEY || !key.chars().all(is_legal) {
        return Err(TagError::Invalid(key.chars().take(MAX_KEY).collect()));
    }
    Ok(())
}

/// Letters, digits and spaces of any script, and `_ . / = + - : @`.
fn is_legal(c: char) -> bool {
    c.is_alphanumeric() || c.is_whitespace() || "_./=+-:@".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(key: &str, value: &str) -> ecs::Tag {
        ecs::Tag { key: Some(key.into()), value: Some(value.into()) }
    }

    #[test]
    fn limits_are_kept() {
        assert_eq!(parse_tags(Some(&[tag("", "x")])), Err(TagError::EmptyKey));
        assert_eq!(parse_tags(Some(&[tag("a", "x"), tag("a", "y")])), Err(TagError::Duplicate("a".into())));
        assert_eq!(parse_tags(Some(&[tag("AWS:x", "x")])), Err(TagError::Reserved("AWS:x".into())));
        assert!(matches!(parse_tags(Some(&[tag(&"k".repeat(129), "x")])), Err(TagError::Invalid(_))));
        assert!(matches!(parse_tags(Some(&[tag("k", &"v".repeat(257))])), Err(TagError::Invalid(_))));
        let many: Vec<_> = (0..51).map(|i| tag(&format!("k{i}"), "v")).collect();
        assert_eq!(parse_tags(Some(&many)), Err(TagError::TooMany));
        assert_eq!(parse_tags(Some(&many[..50])).unwrap().len(), 50);
    }

    #[test]
    fn merge_replaces_values_and_refuses_the_fifty_first() {
        let many: Vec<_> = (0..50).map(|i| tag(&format!("k{i}"), "v")).collect();
        let mut tags = parse_tags(Some(&many)).unwrap();
        merge_tags(&mut tags, Tags::from([("k0".into(), "new".into())])).unwrap();
        assert_eq!(tags["k0"], "new");
        assert_eq!(merge_tags(&mut tags, Tags::from([("k50".into(), "v".into())])), Err(TagError::TooMany));
        assert_eq!(tags.len(), 50);
    }
}
