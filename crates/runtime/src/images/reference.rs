//! Image references as task definitions write them, and which registries are asked for one, in order.

use crate::port::PullError;

/// Longest repository path that is taken (OCI distribution: host and path together at most 255).
const MAX_PATH: usize = 255;

/// Docker's registry, asked for names without a host.
const DOCKER_HUB: &str = "docker.io";

/// A parsed reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Registry host and port, if the reference has one.
    pub host: Option<String>,
    /// Repository path as written.
    pub repository: String,
    /// Tag; `latest` if neither tag nor digest is given.
    pub tag: Option<String>,
    /// `sha256:<hex>`, if given.
    pub digest: Option<String>,
}

/// A place that is asked for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// `None`: Berth's own registry.
    pub host: Option<String>,
    /// Repository there.
    pub repository: String,
    /// A host of Amazon ECR, which has to be logged in to.
    pub is_ecr: bool,
}

impl Reference {
    /// Parses `[host/]path[:tag][@digest]`, by the rules of Docker's reference grammar.
    ///
    /// # Errors
    /// [`PullError::InvalidReference`].
    pub fn parse(text: &str) -> Result<Reference, PullError> {
        let invalid = |why: &str| PullError::InvalidReference(format!("{text:?}: {why}"));
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        if digest.is_some_and(|digest| !is_digest(digest)) {
            return Err(invalid("the digest is not sha256 with 64 hexadecimal digits"));
        }
        let (host, rest) = match rest.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (Some(first), rest),
            _ => (None, rest),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(invalid("the tag is not valid"));
        }
        if path.len() > MAX_PATH || !path.split('/').all(is_component) {
            return Err(invalid("the repository name must be lowercase letters, digits and single separators"));
        }
        if host.is_some_and(|host| !is_host(host)) {
            return Err(invalid("the registry host is not valid"));
        }
        let tag = tag.or(if digest.is_none() { Some("latest") } else { None });
        Ok(Reference {
            host: host.map(str::to_owned),
            repository: path.to_owned(),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }

    /// What is put after `/manifests/`: the digest where there is one.
    pub fn version(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or("latest")
    }

    /// One spelling for all that mean the same.
    pub fn key(&self) -> String {
        let host = self.host.as_deref().map(|host| format!("{host}/")).unwrap_or_default();
        format!("{host}{}@{}", self.repository, self.version())
    }

    /// The registries to ask, in order; only "not found" leads to the next. `own` is (account, region) of Berth's own registry;
    /// `has_login`: somebody can log in to ECR, so that there is one.
    pub fn origins(&self, own: Option<(&str, &str)>, has_login: bool) -> Vec<Origin> {
        let at = |host: Option<&str>, repository: String| Origin { host: host.map(str::to_owned), repository, is_ecr: false };
        let ecr = |host: &str| Origin { is_ecr: has_login, ..at(Some(host), self.repository.clone()) };
        match (&self.host, own) {
            (None, own) => {
                let hub = if self.repository.contains('/') { self.repository.clone() } else { format!("library/{}", self.repository) };
                let first = own.map(|_| at(None, self.repository.clone()));
                first.into_iter().chain([at(Some(DOCKER_HUB), hub)]).collect()
            }
            (Some(host), Some((account, region))) => match ecr_host(host) {
                // Our own account's repositories are nowhere else, unless an ECR was named; a request for them must not leave the house.
                Some(found) if found == (account, region) && !has_login => vec![at(None, self.repository.clone())],
                Some(_) => vec![at(None, self.repository.clone()), ecr(host)],
                None => vec![self.direct(host)],
            },
            (Some(host), None) if ecr_host(host).is_some() => vec![ecr(host)],
            (Some(host), None) => vec![self.direct(host)],
        }
    }

    fn direct(&self, host: &str) -> Origin {
        let hub = matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io");
        let repository =
            if hub && !self.repository.contains('/') { format!("library/{}", self.repository) } else { self.repository.clone() };
        Origin { host: Some(if hub { DOCKER_HUB.to_owned() } else { host.to_owned() }), repository, is_ecr: false }
    }
}

/// (account, region) of an ECR host `ACCOUNT.dkr.ecr.REGION.amazonaws.com[.cn]`.
pub fn ecr_host(host: &str) -> Option<(&str, &str)> {
    let (account, rest) = host.split_once(".dkr.ecr.")?;
    let region = rest.strip_suffix(".amazonaws.com").or_else(|| rest.strip_suffix(".amazonaws.com.cn"))?;
    (account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit()) && !region.contains('.')).then_some((account, region))
}

/// Whether a host is this machine: only there are registries spoken to without TLS.
pub fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether the text is `sha256:` and 64 lowercase hexadecimal digits.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
}

fn is_host(text: &str) -> bool {
    let begins = |b: &u8| b.is_ascii_alphanumeric() || *b == b'[';
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b".:-[]".contains(&b))
        && text.as_bytes().first().is_some_and(begins)
        && !text.contains("..")
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&text.len()) && word(text.as_bytes()[0]) && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// Lowercase letters and digits, separated by one of: a dot, one or two underscores, any number of hyphens.
fn is_component(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    if bytes.is_empty() || !plain(bytes[0]) || !plain(bytes[bytes.len() - 1]) {
        return false;
    }
    bytes
        .split(|b| plain(*b))
        .filter(|separator| !separator.is_empty())
        .all(|separator| matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(text: &str) -> Vec<String> {
        let own = Some(("000000000000", "us-east-1"));
        let reference = Reference::parse(text).unwrap();
        reference.origins(own, false).iter().map(|o| format!("{}/{}", o.host.as_deref().unwrap_or("own"), o.repository)).collect()
    }

    #[test]
    fn short_names_are_asked_at_home_first() {
        assert_eq!(origins("hello:latest"), ["own/hello", "docker.io/library/hello"]);
        assert_eq!(origins("team/app:1"), ["own/team/app", "docker.io/team/app"]);
        let reference = Reference::parse("busybox").unwrap();
        let hub = Origin { host: Some("docker.io".into()), repository: "library/busybox".into(), is_ecr: false };
        assert_eq!(reference.origins(None, false), [hub]);
    }

    #[test]
    fn an_ecr_that_can_be_logged_in_to_is_asked_after_our_own() {
        let ours = Reference::parse("000000000000.dkr.ecr.us-east-1.amazonaws.com/app:1").unwrap();
        let asked: Vec<(Option<String>, bool)> =
            ours.origins(Some(("000000000000", "us-east-1")), true).into_iter().map(|origin| (origin.host, origin.is_ecr)).collect();
        assert_eq!(asked, [(None, false), (ours.host.clone(), true)]);
        let elsewhere = Reference::parse("localhost:5000/app:1").unwrap();
        assert!(elsewhere.origins(None, true).iter().all(|origin| !origin.is_ecr));
    }

    #[test]
    fn hosts_are_respected() {
        assert_eq!(origins("000000000000.dkr.ecr.us-east-1.amazonaws.com/app:1"), ["own/app"]);
        assert_eq!(
            origins("123456789012.dkr.ecr.eu-west-1.amazonaws.com/app:1"),
            ["own/app", "123456789012.dkr.ecr.eu-west-1.amazonaws.com/app"]
        );
        assert_eq!(origins("docker.io/busybox"), ["docker.io/library/busybox"]);
        assert_eq!(origins("localhost:5000/a/b"), ["localhost:5000/a/b"]);
        assert_eq!(origins("ghcr.io/a/b@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), ["ghcr.io/a/b"]);
    }

    #[test]
    fn tags_and_digests() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let both = Reference::parse(&format!("host:5000/a/b:1.2@{digest}")).unwrap();
        assert_eq!((both.host.as_deref(), both.tag.as_deref(), both.version()), (Some("host:5000"), Some("1.2"), digest.as_str()));
        assert_eq!(Reference::parse("a").unwrap().version(), "latest");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "Hello", "a//b", "a:", "a:b c", "a@sha256:1", "../a", "a/..", "-a", "a___b", "a b", "ho st.x/a"] {
            assert!(matches!(Reference::parse(text), Err(PullError::InvalidReference(_))), "{text:?}");
        }
    }

    #[test]
    fn loopback() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:1", "127.9.9.9", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["example.com", "128.0.0.1", "localhost.example.com:1", "[2001:db8::1]:1"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
