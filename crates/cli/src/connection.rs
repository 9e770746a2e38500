//! Where the server is and with which key to sign: from the environment variables every AWS tool reads, or from the data
//! directory of a Berth that runs here. It must never ask AWS's own configuration files, which name another cloud.

use std::io;
use std::path::{Path, PathBuf};

use berth_identity::{AccessKey, Secret, credentials_file};
use reqwest::Url;

use crate::data_dir::{self, Endpoint, EndpointError, NoHome, default_data_dir};
use crate::environment::Environment;

/// The option by which every command finds a Berth of this machine.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct DataDirArgument {
    /// Data directory of the Berth to talk to, stronger than AWS_ENDPOINT_URL [default: ~/.berth; root: /var/lib/berth]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

impl DataDirArgument {
    /// The directory that was named, or the default.
    ///
    /// # Errors
    /// [`NoHome`] where neither exists.
    pub fn path(&self, environment: &Environment) -> Result<PathBuf, NoHome> {
        self.data_dir.clone().map_or_else(|| default_data_dir(environment), Ok)
    }
}

/// Everything needed to call the API.
#[derive(Debug, Clone)]
pub struct Connection {
    /// URL of the API.
    pub endpoint: Url,
    /// Where the URL is from, for error messages: a variable's name or a file.
    pub endpoint_source: String,
    /// The region that is signed.
    pub region: String,
    /// The key that signs.
    pub key: AccessKey,
    /// Certificates to trust instead of the system's (`AWS_CA_BUNDLE`, a PEM file).
    pub ca_bundle: Option<PathBuf>,
}

/// Why there is nobody to talk to.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// Neither the environment nor the data directory says where the server is.
    #[error("no Berth found: AWS_ENDPOINT_URL is not set and there is no {0}")]
    NoEndpoint(PathBuf),
    /// Neither the environment nor the data directory has a key.
    #[error("no access key found: AWS_ACCESS_KEY_ID is not set and there is no {0}")]
    NoCredentials(PathBuf),
    /// A key id without its secret.
    #[error("AWS_SECRET_ACCESS_KEY is not set, but AWS_ACCESS_KEY_ID is")]
    NoSecret,
    /// The setting is no URL with `http` or `https` and a host.
    #[error("{setting} is not an http:// or https:// URL: {value}")]
    BadEndpoint {
        /// The variable or file.
        setting: String,
        /// What it says.
        value: String,
    },
    /// `endpoint.json`.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The credentials file cannot be opened.
    #[error("cannot read the credentials in {path}: {error}")]
    CredentialsUnreadable {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
    /// The credentials file is not what it should be.
    #[error("the credentials file {path} cannot be used: {problem}")]
    CredentialsDamaged {
        /// The file.
        path: PathBuf,
        /// Line or profile at fault, never a secret.
        problem: String,
    },
    /// There is no data directory to look at.
    #[error("no Berth found: AWS_ENDPOINT_URL is not set, and {0}")]
    NoHome(#[from] NoHome),
}

impl ConnectionError {
    /// What the user can do.
    #[must_use]
    pub fn advice(&self) -> String {
        const UNREADABLE: &str = "it belongs to the user who started Berth: run this as that user (sudo), or set AWS_ENDPOINT_URL,\n\
                                  AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to what `berth env` prints there";
        match self {
            Self::NoEndpoint(_) => "start one with `berth up`, name its directory with --data-dir DIR, or set the variables of a Berth \
                 elsewhere with\n`eval \"$(berth env)\"`. If root started Berth, use `sudo berth`."
                .to_owned(),
            Self::NoHome(_) => "name the data directory with --data-dir DIR".to_owned(),
            Self::NoCredentials(_) | Self::NoSecret => {
                "run `eval \"$(berth env)\"` where Berth runs, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".to_owned()
            }
            Self::BadEndpoint { .. } => "it should look like http://127.0.0.1:4566; `berth env` prints the right one".to_owned(),
            Self::Endpoint(EndpointError::Unreadable { .. }) | Self::CredentialsUnreadable { .. } => UNREADABLE.to_owned(),
            Self::Endpoint(EndpointError::Damaged { .. }) => "start Berth again with `berth up`, which writes the file anew".to_owned(),
            Self::CredentialsDamaged { .. } => {
                "mend the file; it should have a [default] profile with aws_access_key_id and aws_secret_access_key".to_owned()
            }
        }
    }

    /// Whether a setting of the caller is at fault, rather than the state of the machine.
    #[must_use]
    pub fn is_setting(&self) -> bool {
        matches!(self, Self::BadEndpoint { .. } | Self::NoSecret | Self::NoHome(_))
    }
}

impl Connection {
    /// Finds the server. A data directory that is named and holds an `endpoint.json` is what the user means; then come
    /// `AWS_ENDPOINT_URL_ECS` and `AWS_ENDPOINT_URL`; then the default data directory.
    ///
    /// Keys are looked for where the endpoint was found first: whoever has real AWS keys in the environment should still be able
    /// to say `berth ps`, and a key from the environment is meant for the endpoint in the environment.
    ///
    /// # Errors
    /// [`ConnectionError`].
    pub fn find(argument: &DataDirArgument, environment: &Environment) -> Result<Self, ConnectionError> {
        if let Some(data_dir) = &argument.data_dir
            && let Some(file) = Endpoint::read(data_dir)?
        {
            return Self::of_data_dir(data_dir, file, environment);
        }
        let variable = ["AWS_ENDPOINT_URL_ECS", "AWS_ENDPOINT_URL"].into_iter().find_map(|name| Some((name, environment.get(name)?)));
        if let Some((name, value)) = variable {
            let data_dir = argument.path(environment);
            return Ok(Self {
                endpoint: parse_endpoint(name, value)?,
                endpoint_source: name.to_owned(),
                region: region(environment).unwrap_or("us-east-1").to_owned(),
                key: match (key_of_environment(environment)?, data_dir) {
                    (Some(key), _) => key,
                    (None, Ok(data_dir)) => {
                        key_of_file(&data_dir)?.ok_or(ConnectionError::NoCredentials(data_dir::credentials_file(&data_dir)))?
                    }
                    (None, Err(error)) => return Err(error.into()),
                },
                ca_bundle: environment.get("AWS_CA_BUNDLE").map(PathBuf::from),
            });
        }
        let data_dir = argument.path(environment)?;
        match Endpoint::read(&data_dir)? {
            Some(file) => Self::of_data_dir(&data_dir, file, environment),
            None => Err(ConnectionError::NoEndpoint(Endpoint::path(&data_dir))),
        }
    }

    /// The Berth that a data directory's `endpoint.json` tells of.
    ///
    /// # Errors
    /// [`ConnectionError`].
    pub fn of_data_dir(data_dir: &Path, file: Endpoint, environment: &Environment) -> Result<Self, ConnectionError> {
        let source = Endpoint::path(data_dir).display().to_string();
        let key = match key_of_file(data_dir) {
            Ok(Some(key)) => key,
            // A user who may not read the file (or whose key is another one) can still bring a key.
            Ok(None) => {
                key_of_environment(environment)?.ok_or_else(|| ConnectionError::NoCredentials(data_dir::credentials_file(data_dir)))?
            }
            Err(error @ ConnectionError::CredentialsUnreadable { .. }) => key_of_environment(environment)?.ok_or(error)?,
            Err(error) => return Err(error),
        };
        Ok(Self {
            endpoint: parse_endpoint(&source, &file.endpoint)?,
            endpoint_source: source,
            region: file.region,
            key,
            ca_bundle: environment.get("AWS_CA_BUNDLE").map(PathBuf::from),
        })
    }
}

fn region(environment: &Environment) -> Option<&str> {
    environment.get("AWS_REGION").or_else(|| environment.get("AWS_DEFAULT_REGION"))
}

fn parse_endpoint(setting: &str, value: &str) -> Result<Url, ConnectionError> {
    let bad = || ConnectionError::BadEndpoint { setting: setting.to_owned(), value: value.to_owned() };
    let url = Url::parse(value).map_err(|_| bad())?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(bad());
    }
    Ok(url)
}

fn key_of_environment(environment: &Environment) -> Result<Option<AccessKey>, ConnectionError> {
    let Some(id) = environment.get("AWS_ACCESS_KEY_ID") else { return Ok(None) };
    let secret = environment.get("AWS_SECRET_ACCESS_KEY").ok_or(ConnectionError::NoSecret)?;
    let mut key = AccessKey::long_term(id, secret, "");
    key.session_token = environment.get("AWS_SESSION_TOKEN").map(Secret::new);
    Ok(Some(key))
}

fn key_of_file(data_dir: &Path) -> Result<Option<AccessKey>, ConnectionError> {
    let path = data_dir::credentials_file(data_dir);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ConnectionError::CredentialsUnreadable { path, error }),
    };
    let profiles = match credentials_file::parse(&text) {
        Ok(profiles) => profiles,
        Err(error) => return Err(ConnectionError::CredentialsDamaged { path, problem: error.to_string() }),
    };
    let Some(profile) = profiles.into_iter().find(|profile| profile.name == "default") else {
        return Err(ConnectionError::CredentialsDamaged { path, problem: "it has no profile 'default'".to_owned() });
    };
    let mut key = AccessKey::long_term(profile.access_key_id, profile.secret.expose(), "");
    key.session_token = profile.session_token;
    Ok(Some(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data_dir() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let file =
            Endpoint { endpoint: "http://127.0.0.1:4570".into(), region: "eu-west-1".into(), account: "000000000000".into(), pid: 1 };
        file.write(folder.path()).unwrap();
        std::fs::write(folder.path().join("credentials"), "[default]\naws_access_key_id = AKIAFILE\naws_secret_access_key = fs\n").unwrap();
        folder
    }

    fn argument(path: &Path) -> DataDirArgument {
        DataDirArgument { data_dir: Some(path.to_owned()) }
    }

    fn seen(connection: &Connection) -> [String; 4] {
        let key = connection.key.id.clone();
        [connection.endpoint.to_string(), connection.region.clone(), key, connection.key.secret.expose().to_owned()]
    }

    #[test]
    fn a_data_directory_gives_all_and_beats_the_environment() {
        let folder = data_dir();
        let environment: Environment = [
            ("AWS_ENDPOINT_URL", "http://other:1"),
            ("AWS_ACCESS_KEY_ID", "AKIAREAL"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
            ("AWS_REGION", "x"),
        ]
        .into_iter()
        .collect();
        let connection = Connection::find(&argument(folder.path()), &environment).unwrap();
        assert_eq!(seen(&connection), ["http://127.0.0.1:4570/", "eu-west-1", "AKIAFILE", "fs"]);
    }

    #[test]
    fn the_environment_gives_all() {
        let folder = tempfile::tempdir().unwrap();
        let environment: Environment = [
            ("AWS_ENDPOINT_URL", "http://all:1"),
            ("AWS_ENDPOINT_URL_ECS", "http://ecs:2"),
            ("AWS_ACCESS_KEY_ID", "ASIA"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
            ("AWS_SESSION_TOKEN", "t"),
            ("AWS_REGION", ""),
            ("AWS_DEFAULT_REGION", "eu-central-1"),
        ]
        .into_iter()
        .collect();
        // An agent's machine: its data directory is named for its logs and knows of no endpoint.
        let connection = Connection::find(&argument(folder.path()), &environment).unwrap();
        assert_eq!(seen(&connection), ["http://ecs:2/", "eu-central-1", "ASIA", "s"]);
        assert_eq!(connection.key.session_token.unwrap().expose(), "t");
        assert_eq!(connection.endpoint_source, "AWS_ENDPOINT_URL_ECS");
    }

    #[test]
    fn an_endpoint_without_a_key_takes_the_key_of_the_directory() {
        let folder = data_dir();
        std::fs::remove_file(Endpoint::path(folder.path())).unwrap();
        let environment: Environment = [("AWS_ENDPOINT_URL", "https://berth.example")].into_iter().collect();
        let connection = Connection::find(&argument(folder.path()), &environment).unwrap();
        assert_eq!(seen(&connection), ["https://berth.example/", "us-east-1", "AKIAFILE", "fs"]);
    }

    #[test]
    fn nothing_found_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let error = Connection::find(&argument(folder.path()), &Environment::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("no Berth found: AWS_ENDPOINT_URL is not set and there is no {}/endpoint.json", folder.path().display())
        );
        assert!(error.advice().contains("`berth up`") && error.advice().contains("eval \"$(berth env)\""));
    }

    #[test]
    fn bad_settings_are_named() {
        let folder = tempfile::tempdir().unwrap();
        for value in ["127.0.0.1:4566", "ftp://x", "http://", "localhost"] {
            let environment: Environment = [("AWS_ENDPOINT_URL", value), ("AWS_ACCESS_KEY_ID", "A")].into_iter().collect();
            let error = Connection::find(&argument(folder.path()), &environment).unwrap_err();
            assert_eq!(error.to_string(), format!("AWS_ENDPOINT_URL is not an http:// or https:// URL: {value}"));
            assert!(error.is_setting());
        }
        let environment: Environment = [("AWS_ENDPOINT_URL", "http://x"), ("AWS_ACCESS_KEY_ID", "A")].into_iter().collect();
        let error = Connection::find(&argument(folder.path()), &environment).unwrap_err();
        assert_eq!(error.to_string(), "AWS_SECRET_ACCESS_KEY is not set, but AWS_ACCESS_KEY_ID is");
        let folder = data_dir();
        std::fs::write(folder.path().join("credentials"), "[other]\naws_access_key_id = A\naws_secret_access_key = hush\n").unwrap();
        let error = Connection::find(&argument(folder.path()), &Environment::default()).unwrap_err().to_string();
        assert!(error.ends_with("credentials cannot be used: it has no profile 'default'"), "{error}");
    }
}
