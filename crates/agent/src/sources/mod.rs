//! What a container needs that is kept elsewhere: SSM parameters, secrets, environment files, passwords of registries.
//!
//! What is wanted is pure ([`Wanted`]); where it comes from is a port ([`Sources`]). Values are never written to disk nor logged.
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/specifying-sensitive-data.html> and amazon-ecs-agent.

mod aws;
mod ecr;
mod env_file;
mod reference;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use async_trait::async_trait;
use berth_acs::messages as acs;
use berth_identity::AccessKey;
use berth_runtime::port::{RegistryCredentials, RegistryLogin};
use futures_util::future::{join_all, try_join_all};

pub use aws::{AwsSources, ServiceEndpoints};
pub use ecr::ecr_logins;
pub use reference::{ObjectReference, SecretReference};

/// Why a value cannot be had. The text names the service and what was asked for, never a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(pub String);

/// Where values are kept. `key` signs the calls.
#[async_trait]
pub trait Sources: Send + Sync + 'static {
    /// The key that calls are signed with. Not an execution role's: whoever stands behind an endpoint knows the keys that the machine's owner
    /// has of him, and none of Berth's.
    fn own_key(&self) -> AccessKey;

    /// The values of at most ten SSM parameters, decrypted, by name. (`ssm:GetParameters`)
    ///
    /// # Errors
    /// [`SourceError`], also if one of them does not exist.
    async fn parameters(&self, region: &str, names: &[String], key: &AccessKey) -> Result<BTreeMap<String, String>, SourceError>;

    /// The text of a secret. (`secretsmanager:GetSecretValue`)
    ///
    /// # Errors
    /// [`SourceError`].
    async fn secret(&self, region: &str, secret: &SecretReference, key: &AccessKey) -> Result<String, SourceError>;

    /// An object's content. (`s3:GetObject`)
    ///
    /// # Errors
    /// [`SourceError`].
    async fn object(&self, region: &str, object: &ObjectReference, key: &AccessKey) -> Result<Vec<u8>, SourceError>;

    /// Whether there is somebody to log in to ECR with.
    fn has_registries(&self) -> bool;

    /// The login to an account's registry, good for a while yet. (`ecr:GetAuthorizationToken`)
    ///
    /// # Errors
    /// [`SourceError`].
    async fn registry_login(&self, region: &str, account: &str, key: &AccessKey) -> Result<RegistryLogin, SourceError>;
}

/// The target of a secret that is an option of the log driver.
const LOG_DRIVER: &str = "LOG_DRIVER";

/// What SSM takes in one call.
const MOST_PARAMETERS: usize = 10;

/// What a container wants of the sources, parsed once. Holds names, no values.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Region of the environment files.
    region: String,
    /// In the task definition's order: the first file that has a variable wins.
    files: Vec<ObjectReference>,
    secrets: Vec<WantedSecret>,
    registry: Option<(String, SecretReference)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct WantedSecret {
    purpose: Purpose,
    region: String,
    place: Place,
}

/// What a secret is for, by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Purpose {
    /// `secrets`: an environment variable.
    Variable(String),
    /// `logConfiguration.secretOptions`: an option of the log driver.
    LogOption(String),
}

/// Values of secrets.
type Values = BTreeMap<Purpose, String>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Parameter(String),
    Secret(SecretReference),
}

/// What was fetched for a container.
#[derive(Clone, PartialEq, Default)]
pub struct Fetched {
    /// Variables out of environment files: weaker than the task definition's own.
    pub file_variables: BTreeMap<String, String>,
    /// Secrets: stronger than the task definition's own.
    pub secret_variables: BTreeMap<String, String>,
    /// Options of the log driver that are secret.
    pub log_options: BTreeMap<String, String>,
    /// How to log in to the image's registry.
    pub registry: Option<RegistryCredentials>,
}

impl std::fmt::Debug for Fetched {
    /// Names alone.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = |variables: &BTreeMap<String, String>| variables.keys().cloned().collect::<Vec<_>>();
        f.debug_struct("Fetched")
            .field("file_variables", &names(&self.file_variables))
            .field("secret_variables", &names(&self.secret_variables))
            .field("log_options", &names(&self.log_options))
            .field("registry", &self.registry)
            .finish()
    }
}

impl Fetched {
    /// The container's environment with what was fetched.
    #[must_use]
    pub fn laid_around(&self, own: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut all = self.file_variables.clone();
        all.extend(own.iter().map(|(name, value)| (name.clone(), value.clone())));
        all.extend(self.secret_variables.iter().map(|(name, value)| (name.clone(), value.clone())));
        all
    }
}

impl Wanted {
    /// What a container wants; `region` where it does not say.
    ///
    /// # Errors
    /// [`SourceError`] that names what cannot be understood or is not supported.
    pub fn of(container: &acs::Container, region: &str) -> Result<Self, SourceError> {
        let files = container.environment_files.iter().map(|file| match file.kind.as_str() {
            "s3" => ObjectReference::parse(&file.value),
            other => Err(SourceError(format!("environmentFiles: type '{other}' is not supported by this agent"))),
        });
        let secrets = container.secrets.iter().map(|secret| WantedSecret::of(secret, region));
        let registry = container.registry_authentication.as_ref().filter(|login| login.kind == "asm").map(|login| {
            let at = login.asm_auth_data.as_ref().ok_or_else(|| SourceError("repositoryCredentials name no secret".to_owned()))?;
            let region = if at.region.is_empty() { region } else { &at.region };
            Ok((region.to_owned(), SecretReference::parse_id(&at.credentials_parameter)))
        });
        Ok(Self {
            region: region.to_owned(),
            files: files.collect::<Result<_, _>>()?,
            secrets: secrets.collect::<Result<_, _>>()?,
            registry: registry.transpose()?,
        })
    }

    /// Nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.secrets.is_empty() && self.registry.is_none()
    }

    /// Fetches everything, side by side.
    ///
    /// # Errors
    /// [`SourceError`] with every value that cannot be had, in the official agent's manner.
    pub async fn fetch(&self, sources: &dyn Sources) -> Result<Fetched, SourceError> {
        let key = sources.own_key();
        let (files, parameters, secrets, registry) = tokio::join!(
            self.fetch_files(sources, &key),
            self.fetch_parameters(sources, &key),
            self.fetch_secrets(sources, &key),
            self.fetch_registry(sources, &key),
        );
        let mut problems = Vec::new();
        let file_variables = or_note(files, &mut problems);
        let mut values = or_note(parameters, &mut problems);
        values.extend(or_note(secrets, &mut problems));
        let registry = or_note(registry, &mut problems);
        if !problems.is_empty() {
            return Err(SourceError(problems.join("; ")));
        }
        let (mut secret_variables, mut log_options) = (BTreeMap::new(), BTreeMap::new());
        for (purpose, value) in values {
            match purpose {
                Purpose::Variable(name) => secret_variables.insert(name, value),
                Purpose::LogOption(name) => log_options.insert(name, value),
            };
        }
        Ok(Fetched { file_variables, secret_variables, log_options, registry })
    }

    async fn fetch_files(&self, sources: &dyn Sources, key: &AccessKey) -> Result<BTreeMap<String, String>, SourceError> {
        let contents = try_join_all(self.files.iter().map(|file| sources.object(&self.region, file, key))).await?;
        let mut variables = BTreeMap::new();
        for (name, value) in contents.iter().flat_map(|content| env_file::parse(&String::from_utf8_lossy(content))) {
            variables.entry(name).or_insert(value);
        }
        Ok(variables)
    }

    async fn fetch_parameters(&self, sources: &dyn Sources, key: &AccessKey) -> Result<Values, SourceError> {
        let mut by_region: BTreeMap<&str, Vec<(&Purpose, &str)>> = BTreeMap::new();
        for secret in &self.secrets {
            if let Place::Parameter(name) = &secret.place {
                by_region.entry(&secret.region).or_default().push((&secret.purpose, name));
            }
        }
        let mut values = Values::new();
        for (region, wanted) in by_region {
            let mut names: Vec<String> = wanted.iter().map(|(_, name)| (*name).to_owned()).collect();
            names.sort();
            names.dedup();
            let failed =
                |SourceError(problem)| SourceError(format!("fetching secret data from SSM Parameter Store in {region}: {problem}"));
            let answers = try_join_all(names.chunks(MOST_PARAMETERS).map(|names| sources.parameters(region, names, key))).await;
            let parameters: BTreeMap<String, String> = answers.map_err(failed)?.into_iter().flatten().collect();
            for (purpose, name) in wanted {
                let value = parameters.get(name).ok_or_else(|| failed(SourceError(format!("invalid parameters: {name}"))))?;
                values.insert(purpose.clone(), value.clone());
            }
        }
        Ok(values)
    }

    async fn fetch_secrets(&self, sources: &dyn Sources, key: &AccessKey) -> Result<Values, SourceError> {
        let wanted = self.secrets.iter().filter_map(|secret| match &secret.place {
            Place::Secret(reference) => Some((secret, reference)),
            Place::Parameter(_) => None,
        });
        let one = |(secret, reference): (&'_ WantedSecret, &'_ SecretReference)| {
            let (region, reference, purpose) = (secret.region.clone(), reference.clone(), secret.purpose.clone());
            async move {
                let text = sources.secret(&region, &reference, key).await?;
                Ok::<_, SourceError>((purpose, reference.pick(&text)?))
            }
        };
        let mut values = Values::new();
        let mut problems = Vec::new();
        for outcome in join_all(wanted.map(one)).await {
            match outcome {
                Ok((purpose, value)) => drop(values.insert(purpose, value)),
                Err(SourceError(problem)) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(values) } else { Err(SourceError(problems.join("; "))) }
    }

    async fn fetch_registry(&self, sources: &dyn Sources, key: &AccessKey) -> Result<Option<RegistryCredentials>, SourceError> {
        let Some((region, secret)) = &self.registry else { return Ok(None) };
        reference::login(&sources.secret(region, secret, key).await?).map(Some)
    }
}

/// Whether some of a container's secrets are options of its log driver.
#[must_use]
pub fn has_log_options(container: &acs::Container) -> bool {
    container.secrets.iter().any(|secret| secret.target == LOG_DRIVER)
}

/// What was fetched, or nothing where it could not be, which is noted.
fn or_note<T: Default>(outcome: Result<T, SourceError>, problems: &mut Vec<String>) -> T {
    outcome.unwrap_or_else(|SourceError(problem)| {
        problems.push(problem);
        T::default()
    })
}

impl WantedSecret {
    fn of(secret: &acs::Secret, region: &str) -> Result<Self, SourceError> {
        let purpose = match (secret.kind.as_str(), secret.target.as_str()) {
            ("" | "ENVIRONMENT_VARIABLE", "" | "CONTAINER") => Purpose::Variable(secret.name.clone()),
            ("" | "ENVIRONMENT_VARIABLE" | "BOOTSTRAP", LOG_DRIVER) => Purpose::LogOption(secret.name.clone()),
            (kind, target) => {
                let what = if matches!(target, "" | "CONTAINER") { kind } else { target };
                return Err(SourceError(format!("secret {}: {what} is not supported by this agent", secret.name)));
            }
        };
        let place = match secret.provider.as_str() {
            "asm" => Place::Secret(SecretReference::parse(&secret.value_from)?),
            "ssm" => Place::Parameter(reference::parameter_name(&secret.value_from)),
            other => return Err(SourceError(format!("secret {}: provider '{other}' is not supported by this agent", secret.name))),
        };
        let region = if secret.region.is_empty() { region } else { &secret.region };
        Ok(Self { purpose, region: region.to_owned(), place })
    }
}
