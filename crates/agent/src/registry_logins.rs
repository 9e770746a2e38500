//! Logins of registries that the machine's owner gives the agent: `ECS_ENGINE_AUTH_TYPE` and `ECS_ENGINE_AUTH_DATA`. Which of them is an
//! image's follows amazon-ecs-agent's `dockerauth` package
//! (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/private-auth-container-instances.html>). Pure.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use berth_runtime::port::RegistryCredentials;
use serde::Deserialize;

/// The key that `docker login` writes for Docker Hub.
const DOCKER_HUB_KEY: &str = "index.docker.io/v1/";
const DOCKER_HUB_HOSTS: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// Logins by registry, or by registry and the beginning of a repository's name; without a scheme.
#[derive(Debug, Clone, Default)]
pub struct RegistryLogins(BTreeMap<String, RegistryCredentials>);

#[derive(Deserialize)]
struct DockerEntry {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

#[derive(Deserialize)]
struct DockercfgEntry {
    #[serde(default)]
    auth: String,
}

impl RegistryLogins {
    /// Reads them: of type `docker` (user name and password in plain), or `dockercfg` (both in base64, as `docker login` writes it; the
    /// object itself or the file's `auths`).
    ///
    /// # Errors
    /// What is wrong, without a word of the passwords. The official agent goes on without logins, and pulls then fail for another reason.
    pub fn parse(kind: &str, data: &str) -> Result<Self, String> {
        let logins: BTreeMap<String, RegistryCredentials> = match kind {
            "docker" => {
                let entries: BTreeMap<String, DockerEntry> = serde_json::from_str(data).map_err(|_| shape("username", "password"))?;
                let login = |entry: DockerEntry| RegistryCredentials { username: entry.username, password: entry.password };
                entries.into_iter().map(|(registry, entry)| (registry, login(entry))).collect()
            }
            "dockercfg" => {
                let value: serde_json::Value = serde_json::from_str(data).map_err(|_| "is no JSON".to_owned())?;
                let entries = value.get("auths").cloned().unwrap_or(value);
                let entries: BTreeMap<String, DockercfgEntry> = serde_json::from_value(entries).map_err(|_| shape("auth", "email"))?;
                entries
                    .into_iter()
                    .map(|(registry, entry)| decoded(&registry, &entry.auth).map(|login| (registry, login)))
                    .collect::<Result<_, _>>()?
            }
            other => return Err(format!("ECS_ENGINE_AUTH_TYPE '{other}' is neither docker nor dockercfg")),
        };
        Ok(Self(logins.into_iter().map(|(registry, login)| (without_scheme(&registry).to_owned(), login)).collect()))
    }

    /// The login for an image: of Docker Hub by its own key, else that whose key is the longest beginning of the image's name on the
    /// same host.
    #[must_use]
    pub fn of(&self, image: &str) -> Option<&RegistryCredentials> {
        let host = match image.split_once('/') {
            Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
            _ => "docker.io",
        };
        if DOCKER_HUB_HOSTS.contains(&host) {
            return self.0.get(DOCKER_HUB_KEY);
        }
        let on_host = self.0.iter().filter(|(key, _)| key.split('/').next() == Some(host));
        let matching = on_host.filter(|(key, _)| *key == host || image.starts_with(key.as_str()));
        matching.max_by_key(|(key, _)| key.len()).map(|(_, login)| login)
    }
}

fn shape(one: &str, other: &str) -> String {
    format!("is not the JSON wanted: {{\"REGISTRY\": {{\"{one}\": \"..\", \"{other}\": \"..\"}}}}")
}

fn decoded(registry: &str, auth: &str) -> Result<RegistryCredentials, String> {
    let fail = || format!("{registry}: auth is not USER:PASSWORD in base64");
    let bytes = STANDARD.decode(auth.trim()).map_err(|_| fail())?;
    let text = String::from_utf8(bytes).map_err(|_| fail())?;
    let (username, password) = text.split_once(':').ok_or_else(fail)?;
    Ok(RegistryCredentials { username: username.to_owned(), password: password.to_owned() })
}

fn without_scheme(registry: &str) -> &str {
    registry.strip_prefix("https://").or_else(|| registry.strip_prefix("http://")).unwrap_or(registry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user<'a>(logins: &'a RegistryLogins, image: &str) -> Option<&'a str> {
        logins.of(image).map(|login| login.username.as_str())
    }

    #[test]
    fn the_longest_key_on_the_same_host() {
        let data = r#"{
            "https://index.docker.io/v1/": {"username": "hub", "password": "p"},
            "registry.test": {"username": "all", "password": "p", "email": "e"},
            "http://registry.test/team": {"username": "team", "password": "p"},
            "only.test/private": {"username": "private", "password": "p"},
            "host:5000": {"username": "port", "password": "p"}
        }"#;
        let logins = RegistryLogins::parse("docker", data).unwrap();
        for (image, login) in [
            ("busybox", Some("hub")),
            ("library/busybox:1", Some("hub")),
            ("docker.io/library/busybox", Some("hub")),
            ("registry.test/x:1", Some("all")),
            ("registry.test/team/x@sha256:0", Some("team")),
            ("only.test/private/x", Some("private")),
            ("only.test/public/x", None),
            ("host:5000/x", Some("port")),
            ("host/x", Some("hub")),
            ("other.test/x", None),
        ] {
            assert_eq!(user(&logins, image), login, "{image}");
        }
        assert_eq!(user(&RegistryLogins::default(), "busybox"), None);
    }

    #[test]
    fn what_docker_login_writes() {
        // u:p:w
        for data in [r#"{"r.test": {"auth": "dTpwOnc=", "email": "e"}}"#, r#"{"auths": {"https://r.test": {"auth": "dTpwOnc="}}}"#] {
            let logins = RegistryLogins::parse("dockercfg", data).unwrap();
            assert_eq!(logins.of("r.test/x").unwrap(), &RegistryCredentials { username: "u".into(), password: "p:w".into() });
        }
    }

    #[test]
    fn mistakes_are_said_without_passwords() {
        for (kind, data, words) in [
            ("docker", r#"{"r": "hidden"}"#, "is not the JSON wanted"),
            ("dockercfg", r#"{"r.test": {"auth": "hidden!"}}"#, "r.test: auth is not"),
            ("dockercfg", r#"{"r.test": {"auth": "aGlkZGVu"}}"#, "r.test: auth is not"),
            ("dockercfg", "hidden", "is no JSON"),
            ("plain", "{}", "neither docker nor dockercfg"),
        ] {
            let error = RegistryLogins::parse(kind, data).unwrap_err();
            assert!(error.contains(words) && !error.contains("hidden"), "{error}");
        }
        let logins = RegistryLogins::parse("docker", r#"{"r": {"username": "u", "password": "hidden"}}"#).unwrap();
        assert!(!format!("{logins:?}").contains("hidden"));
    }
}
