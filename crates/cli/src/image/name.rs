//! Image names as people and archives write them, brought to the `NAME:TAG` of Berth's own registry. The grammar is that
//! of the OCI distribution specification ("Pulling manifests").

use std::fmt;

use super::LoadError;

/// A valid name and tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageName {
    pub name: String,
    pub tag: String,
}

impl ImageName {
    /// `nginx`, `team/web:v1`, `docker.io/library/nginx:1.27` or `000000000000.dkr.ecr.us-east-1.amazonaws.com/web:v1`:
    /// the host goes, and so does Docker Hub's silent `library/`, so that `NAME:TAG` finds what `docker run` would.
    pub fn parse(text: &str) -> Result<ImageName, LoadError> {
        let refuse = |problem| LoadError::Name { given: text.chars().take(300).collect(), problem };
        if text.contains('@') {
            return Err(refuse("a digest cannot be chosen, it follows from the content; give NAME:TAG"));
        }
        let path = match text.split_once('/') {
            Some(("docker.io" | "index.docker.io", rest)) => rest.strip_prefix("library/").unwrap_or(rest),
            Some((host, rest)) if is_host(host) => rest,
            _ => text,
        };
        let (name, tag) = match path.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (path, "latest"),
        };
        if name.len() > 255 || !name.split('/').all(is_component) {
            return Err(refuse("a name is lower-case letters and digits joined by '.', '_', '__', '-' or '/', 255 bytes at most"));
        }
        if !is_tag(tag) {
            return Err(refuse("a tag is letters, digits, '_', '.' and '-', 128 at most, and starts with none of the last two"));
        }
        Ok(ImageName { name: name.into(), tag: tag.into() })
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.tag)
    }
}

/// Docker's rule: the first part is a host if it could not be a name's.
fn is_host(part: &str) -> bool {
    (part.contains(['.', ':']) && part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')) || part == "localhost"
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(part: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separators = part.split(word).filter(|s| !s.is_empty());
    part.starts_with(word)
        && part.ends_with(word)
        && separators.into_iter().all(|s| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let first = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128 && tag.bytes().next().is_some_and(first) && tag.bytes().all(|b| first(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_people_write_them() {
        for (text, expected) in [
            ("nginx", "nginx:latest"),
            ("team/web:v1", "team/web:v1"),
            ("docker.io/library/nginx:1.27", "nginx:1.27"),
            ("docker.io/team/web", "team/web:latest"),
            ("localhost:5000/web", "web:latest"),
            ("localhost/web:2", "web:2"),
            ("library/web", "library/web:latest"),
            ("000000000000.dkr.ecr.us-east-1.amazonaws.com/a/b:v1", "a/b:v1"),
            ("a-b__c/d.e", "a-b__c/d.e:latest"),
        ] {
            assert_eq!(ImageName::parse(text).unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_name() {
        let long = "a".repeat(256);
        for text in ["", ":", "a:", ":a", "A", "a//b", "../a", "a..b", "a___b", "a/", "a b", "a:.b", "a@sha256:00", "-a", &long] {
            assert!(ImageName::parse(text).is_err(), "{text}");
        }
    }
}
