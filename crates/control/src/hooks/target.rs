//! Whom a lifecycle hook calls. ECS calls Lambda functions; there are none here, so a `hookTargetArn` is a URL, or the name or ARN of a
//! function that the server was told a URL or a command for.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use reqwest::Url;

/// Most functions that a server can be told of.
const MOST: usize = 100;
/// Longest `hookTargetArn` and setting.
const LONGEST: usize = 2_048;

/// Whom to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookTarget {
    /// POSTed the event.
    Url(Url),
    /// A program that reads the event and writes the answer.
    Command(PathBuf),
}

impl fmt::Display for HookTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => url.fmt(f),
            Self::Command(path) => write!(f, "command:{}", path.display()),
        }
    }
}

/// Why a `hookTargetArn` cannot be called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Neither URL, ARN nor name.
    #[error("{0} is neither the name or ARN of a Lambda function nor an https:// URL (or http:// on a loopback address)")]
    Unreadable(String),
    /// It names a function that nobody told this server of.
    #[error(
        "There is no Lambda here, and this server knows of no stand-in for the function {0}: start it with --hook {0}=URL or --hook {0}=command:/PATH"
    )]
    Unmapped(String),
}

/// A setting `NAME=URL` or `NAME=command:/PATH`: what stands in for the Lambda function of that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedHook {
    /// The function's name.
    pub name: String,
    /// What is called instead.
    pub target: HookTarget,
}

impl FromStr for NamedHook {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, target) = text.split_once('=').ok_or("a hook is NAME=URL or NAME=command:/PATH")?;
        if !is_function_name(name) {
            return Err("the name is that of a Lambda function: up to 64 letters, digits, hyphens and underscores".to_owned());
        }
        let target = match target.strip_prefix("command:") {
            Some(path) if path.starts_with('/') && path.len() <= LONGEST => HookTarget::Command(path.into()),
            Some(_) => return Err("a command is an absolute path".to_owned()),
            None => url(target).ok_or("the URL is https://..., or http:// on a loopback address")?,
        };
        Ok(Self { name: name.to_owned(), target })
    }
}

/// What the server's lifecycle hooks may call. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Hooks {
    named: Arc<BTreeMap<String, HookTarget>>,
}

impl Hooks {
    /// With these stand-ins for functions.
    ///
    /// # Errors
    /// A text, if a name comes twice or there are more than a hundred.
    pub fn new(named: impl IntoIterator<Item = NamedHook>) -> Result<Self, String> {
        let mut all = BTreeMap::new();
        for NamedHook { name, target } in named {
            if all.len() == MOST {
                return Err(format!("more than {MOST} hooks"));
            }
            if all.insert(name.clone(), target).is_some() {
                return Err(format!("{name} is there twice"));
            }
        }
        Ok(Self { named: Arc::new(all) })
    }

    /// Whom a `hookTargetArn` means.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn resolve(&self, text: &str) -> Result<HookTarget, TargetError> {
        let unreadable = || TargetError::Unreadable(text.chars().take(128).collect());
        if text.len() > LONGEST {
            return Err(unreadable());
        }
        if text.contains("://") {
            return url(text).ok_or_else(unreadable);
        }
        // arn:aws:lambda:REGION:ACCOUNT:function:NAME, with a version or an alias perhaps.
        let name = match text.strip_prefix("arn:") {
            None => Some(text),
            Some(rest) => match rest.split(':').collect::<Vec<_>>()[..] {
                [_, "lambda", _, _, "function", name] | [_, "lambda", _, _, "function", name, _] => Some(name),
                _ => None,
            },
        };
        let name = name.filter(|name| is_function_name(name)).ok_or_else(unreadable)?;
        self.named.get(name).cloned().ok_or_else(|| TargetError::Unmapped(name.to_owned()))
    }
}

fn is_function_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// What goes over a network is encrypted; on one machine that would hide nothing.
fn url(text: &str) -> Option<HookTarget> {
    let url = Url::parse(text).ok().filter(|_| text.len() <= LONGEST)?;
    let host = url.host_str()?.trim_matches(['[', ']']);
    let is_loopback = host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
    let may_be = url.scheme() == "https" || (url.scheme() == "http" && is_loopback);
    may_be.then_some(HookTarget::Url(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_known_by_name_and_arn() {
        let hooks = Hooks::new(["check=http://127.0.0.1:9/x".parse().unwrap(), "run=command:/bin/true".parse().unwrap()]).unwrap();
        let command = Ok(HookTarget::Command("/bin/true".into()));
        assert_eq!(hooks.resolve("run"), command);
        assert_eq!(hooks.resolve("arn:aws:lambda:us-east-1:000000000000:function:run"), command);
        assert_eq!(hooks.resolve("arn:aws:lambda:us-east-1:000000000000:function:run:live"), command);
        assert_eq!(hooks.resolve("check").unwrap().to_string(), "http://127.0.0.1:9/x");
        let unmapped = hooks.resolve("arn:aws:lambda:us-east-1:000000000000:function:other").unwrap_err();
        assert!(unmapped.to_string().contains("--hook other=URL"), "{unmapped}");
        for wrong in ["", "a b", "arn:aws:sqs:us-east-1:0:q", "arn:aws:lambda:r:0:layer:x", &"x".repeat(65)] {
            assert!(matches!(hooks.resolve(wrong), Err(TargetError::Unreadable(_))), "{wrong}");
        }
    }

    #[test]
    fn urls_are_encrypted_or_stay_on_the_machine() {
        let hooks = Hooks::default();
        for good in ["https://example.com/hook", "http://127.0.0.1:80/", "http://[::1]:80/", "http://localhost/x"] {
            assert!(hooks.resolve(good).is_ok(), "{good}");
        }
        for wrong in ["http://example.com/", "http://10.0.0.1/", "ftp://localhost/", "https://", "file:///etc/passwd"] {
            assert!(hooks.resolve(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn settings_that_are_none() {
        for wrong in ["x", "=http://127.0.0.1/", "a b=http://127.0.0.1/", "x=command:true", "x=http://example.com/", "x="] {
            assert!(wrong.parse::<NamedHook>().is_err(), "{wrong}");
        }
        let twice: Vec<NamedHook> = ["a=command:/x", "a=command:/y"].iter().map(|text| text.parse().unwrap()).collect();
        assert!(Hooks::new(twice).is_err());
    }
}
