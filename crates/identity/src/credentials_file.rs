//! The shared-credentials file (`~/.aws/credentials`) as text: parsed and rendered, so that every AWS tool can read what Berth
//! writes and the other way about. It must never open a file, nor put a secret into an error.
//!
//! Source: "Configuration and credential file settings" in the AWS CLI user guide.

use crate::keys::Secret;
use std::fmt::Write;

/// One profile's credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The name between the brackets; `default` is the one tools take unasked.
    pub name: String,
    /// `aws_access_key_id`.
    pub access_key_id: String,
    /// `aws_secret_access_key`.
    pub secret: Secret,
    /// `aws_session_token`.
    pub session_token: Option<Secret>,
}

/// Why a credentials file cannot be read. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsFileError {
    /// Neither a `[profile]`, a `name = value`, a comment nor an indented continuation.
    #[error("line {line}: expected '[profile]' or 'name = value'")]
    BadLine {
        /// Which line.
        line: usize,
    },
    /// A setting before the first `[profile]`.
    #[error("line {line}: '{name}' stands before the first [profile]")]
    OutsideProfile {
        /// Which line.
        line: usize,
        /// The setting.
        name: String,
    },
    /// An access key id without its secret, or the other way about.
    #[error("profile '{profile}' lacks '{missing}'")]
    Incomplete {
        /// Which profile.
        profile: String,
        /// The setting that is not there.
        missing: &'static str,
    },
}

#[derive(Default)]
struct Section {
    name: String,
    id: Option<String>,
    secret: Option<Secret>,
    token: Option<Secret>,
}

/// Reads every profile that holds an access key, in the file's order. Settings that are not credentials, and profiles without
/// any (say with only a `role_arn`), are passed over. A profile that comes twice is merged, the later value winning, as the AWS
/// SDKs do.
///
/// # Errors
/// With the line or profile at fault.
pub fn parse(text: &str) -> Result<Vec<Profile>, CredentialsFileError> {
    let mut sections: Vec<Section> = Vec::new();
    let mut current = None;
    for (index, raw) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let (line, text) = (index + 1, raw.trim());
        let continues_setting = raw.starts_with([' ', '\t']) && current.is_some();
        if text.is_empty() || text.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = text.strip_prefix('[') {
            let name = name.split_once(']').ok_or(CredentialsFileError::BadLine { line })?.0.trim();
            current = Some(section_of(&mut sections, name));
            continue;
        }
        let Some((name, value)) = text.split_once('=').map(|(name, value)| (name.trim(), value.trim())) else {
            // The indented lines of a nested setting of some other tool.
            if continues_setting {
                continue;
            }
            return Err(CredentialsFileError::BadLine { line });
        };
        let Some(at) = current else {
            return Err(CredentialsFileError::OutsideProfile { line, name: name.to_owned() });
        };
        let section = &mut sections[at];
        match name.to_ascii_lowercase().as_str() {
            "aws_access_key_id" => section.id = Some(value.to_owned()),
            "aws_secret_access_key" => section.secret = Some(Secret::new(value)),
            "aws_session_token" => section.token = Some(Secret::new(value)),
            _ => {}
        }
    }
    sections.into_iter().filter(|section| section.id.is_some() || section.secret.is_some()).map(complete).collect()
}

/// Writes profiles in the format that [`parse`] and every AWS tool reads. The text holds secrets: mode 0600 is its place.
pub fn render(profiles: &[Profile]) -> String {
    let mut text = String::new();
    for profile in profiles {
        let separator = if text.is_empty() { "" } else { "\n" };
        let (name, id, secret) = (&profile.name, &profile.access_key_id, profile.secret.expose());
        write!(text, "{separator}[{name}]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n").expect("a String takes any text");
        if let Some(token) = &profile.session_token {
            writeln!(text, "aws_session_token = {}", token.expose()).expect("a String takes any text");
        }
    }
    text
}

fn section_of(sections: &mut Vec<Section>, name: &str) -> usize {
    sections.iter().position(|section| section.name == name).unwrap_or_else(|| {
        sections.push(Section { name: name.to_owned(), ..Section::default() });
        sections.len() - 1
    })
}

fn complete(section: Section) -> Result<Profile, CredentialsFileError> {
    let lacks = |missing| CredentialsFileError::Incomplete { profile: section.name.clone(), missing };
    let access_key_id = section.id.clone().ok_or_else(|| lacks("aws_access_key_id"))?;
    let secret = section.secret.clone().ok_or_else(|| lacks("aws_secret_access_key"))?;
    Ok(Profile { name: section.name, access_key_id, secret, session_token: section.token.filter(|token| !token.expose().is_empty()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(name: &str, id: &str, secret: &str, token: Option<&str>) -> Profile {
        Profile { name: name.into(), access_key_id: id.into(), secret: Secret::new(secret), session_token: token.map(Secret::new) }
    }

    #[test]
    fn rendered_profiles_parse_back() {
        let profiles = [profile("default", "AKIA1", "a/b+c=", None), profile("session", "ASIA2", "secret", Some("token=="))];
        let text = render(&profiles);
        assert!(text.starts_with("[default]\naws_access_key_id = AKIA1\naws_secret_access_key = a/b+c=\n\n[session]\n"), "{text}");
        assert_eq!(parse(&text).unwrap(), profiles);
    }

    #[test]
    fn what_people_write() {
        let text = "# mine\r\n[default]\r\nAWS_ACCESS_KEY_ID=AKIA1\r\naws_secret_access_key =  s \r\nregion = eu-central-1\n\
                    ; more\n[ role ]\nrole_arn = arn:x\n[default]\naws_secret_access_key = later\ns3 =\n  addressing_style = path\n";
        assert_eq!(parse(text).unwrap(), [profile("default", "AKIA1", "later", None)]);
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn what_cannot_be_read_says_where() {
        assert_eq!(parse("[default]\nnonsense"), Err(CredentialsFileError::BadLine { line: 2 }));
        assert_eq!(parse("[default\n"), Err(CredentialsFileError::BadLine { line: 1 }));
        assert_eq!(parse("\na = b"), Err(CredentialsFileError::OutsideProfile { line: 2, name: "a".into() }));
        assert_eq!(parse("[p]\naws_access_key_id = A").unwrap_err().to_string(), "profile 'p' lacks 'aws_secret_access_key'");
        assert!(!format!("{:?}", parse("[p]\naws_secret_access_key = hush").unwrap_err()).contains("hush"));
    }
}
