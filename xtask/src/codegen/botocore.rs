//! Finds the pinned botocore, or installs it beside the AWS CLI and boto3 that the black-box tests use. It must never
//! read a model of another version.

use std::{
    error::Error,
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    process::Command,
};

use serde::de::DeserializeOwned;

use super::model::{Model, Paginators, ServiceModel, Waiters};

/// An installed botocore of the pinned version.
#[derive(Debug)]
pub struct Botocore {
    /// Its version.
    pub version: String,
    data: PathBuf,
}

impl Botocore {
    /// The botocore in `$BERTH_VENV` or `<workspace>/.venv`; makes the venv from `tests/requirements.txt` when there is
    /// none.
    pub fn find_or_install(workspace: &Path) -> Result<Self, Box<dyn Error>> {
        let venv = venv(workspace);
        if !venv.exists() {
            install(workspace, &venv)?;
        }
        Self::find(workspace)
    }

    /// The botocore in `$BERTH_VENV` or `<workspace>/.venv`, if it has the pinned version.
    pub fn find(workspace: &Path) -> Result<Self, Box<dyn Error>> {
        let pin = workspace.join("xtask/botocore.version");
        let pinned = fs::read_to_string(&pin).map_err(|error| format!("reading {}: {error}", pin.display()))?.trim().to_owned();
        let venv = venv(workspace);
        let packages = site_packages(&venv)
            .ok_or_else(|| format!("{} has no lib/python3*/site-packages/botocore; remove it and run again", venv.display()))?;
        if !packages.join(format!("botocore-{pinned}.dist-info")).is_dir() {
            return Err(format!(
                "{} holds another botocore than {pinned}, which xtask/botocore.version pins; run `{}/bin/pip install -r tests/requirements.txt`",
                venv.display(),
                venv.display()
            )
            .into());
        }
        Ok(Self { version: pinned, data: packages.join("botocore/data") })
    }

    /// The model in `folder`, for example `ecs/2014-11-13`.
    pub fn model(&self, folder: &str) -> Result<Model, Box<dyn Error>> {
        let folder = self.data.join(folder);
        Ok(Model {
            service: read::<ServiceModel>(&folder.join("service-2.json"))?
                .ok_or_else(|| format!("no service-2.json in {}", folder.display()))?,
            paginators: read::<Paginators>(&folder.join("paginators-1.json"))?.unwrap_or_default(),
            waiters: read::<Waiters>(&folder.join("waiters-2.json"))?.unwrap_or_default(),
        })
    }
}

fn venv(workspace: &Path) -> PathBuf {
    std::env::var_os("BERTH_VENV").map_or_else(|| workspace.join(".venv"), PathBuf::from)
}

fn site_packages(venv: &Path) -> Option<PathBuf> {
    let pythons = fs::read_dir(venv.join("lib")).ok()?;
    pythons.filter_map(Result::ok).map(|python| python.path().join("site-packages")).find(|packages| packages.join("botocore").is_dir())
}

fn install(workspace: &Path, venv: &Path) -> Result<(), Box<dyn Error>> {
    eprintln!("making {} and installing tests/requirements.txt", venv.display());
    step(Command::new("python3").args(["-m", "venv"]).arg(venv))?;
    step(
        Command::new(venv.join("bin/pip"))
            .args(["install", "--disable-pip-version-check", "-r"])
            .arg(workspace.join("tests/requirements.txt")),
    )
}

fn step(command: &mut Command) -> Result<(), Box<dyn Error>> {
    eprintln!("  {command:?}");
    let status = command.status().map_err(|error| format!("starting {command:?}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} ended with {status}").into()) }
}

/// Reads a file that may be stored plain or gzipped; `None` where there is neither.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Box<dyn Error>> {
    let packed = path.with_extension("json.gz");
    let mut text = Vec::new();
    if path.exists() {
        File::open(path)?.read_to_end(&mut text)?;
    } else if packed.exists() {
        flate2::read::GzDecoder::new(File::open(&packed)?)
            .read_to_end(&mut text)
            .map_err(|error| format!("unpacking {}: {error}", packed.display()))?;
    } else {
        return Ok(None);
    }
    serde_json::from_slice(&text).map(Some).map_err(|error| format!("reading {}: {error}", path.display()).into())
}
