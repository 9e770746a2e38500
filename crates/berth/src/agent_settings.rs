//! What the agent is told, fetched from where it stands: the environment, files, an object in S3. What it means is read elsewhere
//! ([`berth_agent::config`]); nothing is changed here.

use std::io::Read;
use std::path::Path;

use berth_agent::clock::Clock;
use berth_agent::config::layers::{FileError, Layer, MOST_FILE_BYTES, Settings};
use berth_agent::config::{self, Told};
use berth_agent::sources::{AwsSources, ObjectReference};

use crate::failure::Failure;

/// ecs-init's file, as Amazon's packages put it.
const LINES_FILE: &str = "/etc/ecs/ecs.config";
/// amazon-ecs-agent's own file.
const JSON_FILE: &str = "/etc/ecs_container_agent/config.json";
/// Names amazon-ecs-agent's own file.
const JSON_FILE_VARIABLE: &str = "ECS_AGENT_CONFIG_FILE_PATH";

/// The agent's settings of the environment alone, for `berth up`: there its machine has one Berth, and nobody's ecs.config is meant.
///
/// # Errors
/// [`Failure`] that names the variable.
pub(crate) fn of_environment() -> Result<Told, Failure> {
    config::read(&Settings::default().then(environment())).map_err(configuration)
}

/// The agent's settings of all places; `file` is `--config`'s.
///
/// # Errors
/// [`Failure`] that names file, line and variable of what cannot be read, and what is missing that nothing can be done without.
pub(crate) async fn of_machine(file: Option<&str>) -> Result<Told, Failure> {
    let own = environment();
    let lines = match file {
        Some(url) if url.starts_with("s3://") => Some(Layer::lines(url, &fetch(url, &own).await?).map_err(in_file)?),
        Some(path) => Some(Layer::lines(path, &wanted("--config", path)?).map_err(in_file)?),
        None => found(LINES_FILE)?.map(|text| Layer::lines(LINES_FILE, &text)).transpose().map_err(in_file)?,
    };
    let named = std::env::var(JSON_FILE_VARIABLE).ok().filter(|path| !path.trim().is_empty());
    let json = match named {
        Some(path) => Some(Layer::json(&path, &wanted(JSON_FILE_VARIABLE, &path)?).map_err(in_file)?),
        None => found(JSON_FILE)?.map(|text| Layer::json(JSON_FILE, &text)).transpose().map_err(in_file)?,
    };
    let settings = [lines, json].into_iter().flatten().fold(Settings::default().then(own), Settings::then);
    let told = config::read(&settings).map_err(configuration)?;
    told.config.check().map_err(configuration)?;
    Ok(told)
}

/// Variables that are text; the agent has no others.
fn environment() -> Layer {
    Layer::environment(std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))))
}

fn configuration(error: impl ToString) -> Failure {
    Failure::Configuration(error.to_string())
}

fn in_file(error: FileError) -> Failure {
    configuration(error)
}

/// A file that somebody named.
fn wanted(by: &str, path: &str) -> Result<String, Failure> {
    read(Path::new(path)).map_err(|error| Failure::Configuration(format!("{by}: {path}: {error}")))
}

/// A file that may be there.
fn found(path: &str) -> Result<Option<String>, Failure> {
    match read(Path::new(path)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::Configuration(format!("{path}: {error}"))),
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MOST_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    text(bytes).map_err(|problem| std::io::Error::new(std::io::ErrorKind::InvalidData, problem))
}

fn text(bytes: Vec<u8>) -> Result<String, String> {
    if bytes.len() > MOST_FILE_BYTES {
        return Err(format!("is larger than {MOST_FILE_BYTES} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "is no UTF-8 text".to_owned())
}

/// An object of S3. Where S3 is, the region and the key can only be the environment's.
async fn fetch(url: &str, environment: &Layer) -> Result<String, Failure> {
    let failed = |problem: String| Failure::Configuration(format!("--config: {url}: {problem}"));
    let object = ObjectReference::parse_url(url).ok_or_else(|| failed("is not s3://BUCKET/KEY".to_owned()))?;
    let own = config::read(&Settings::default().then(environment.clone())).map_err(configuration)?.config;
    for (name, value) in [("AWS_DEFAULT_REGION", &own.region), ("AWS_ACCESS_KEY_ID", &own.access_key.id)] {
        if value.is_empty() && (name == "AWS_DEFAULT_REGION" || own.sources_key.is_none()) {
            return Err(failed(format!("{name} is not set in the environment, and is needed to fetch it")));
        }
    }
    let key = own.sources_key.unwrap_or(own.access_key);
    let sources = AwsSources::new(own.service_endpoints, key.clone(), Clock::Machine);
    let bytes = sources.content(&own.region, &object, &key).await.map_err(|error| failed(error.to_string()))?;
    text(bytes).map_err(failed)
}
