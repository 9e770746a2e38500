//! `berth image load`: the arguments, the progress and the result of loading an archive.

use std::path::PathBuf;

use serde_json::json;

use crate::command::Output;
use crate::connection::{Connection, DataDirArgument};
use crate::console::Console;
use crate::environment::Environment;
use crate::failure::{BAD_ARGUMENTS, FAILED, Failure};
use crate::image::{self, ArchiveKind, LoadError, LoadedImage, Progress};

/// Bring images into Berth's registry.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  docker save hello:1 -o hello.tar && berth image load hello.tar")]
pub struct Image {
    /// What to do.
    #[command(subcommand)]
    action: ImageAction,
}

/// What can be done with images.
#[derive(Debug, clap::Subcommand)]
pub enum ImageAction {
    /// Load an image archive into Berth's registry
    ///
    /// FILE is what `docker save` writes, an OCI archive (buildah, skopeo, umoci), or a plain tar of a root file system; gzip and zstd are
    /// understood. A task definition then names the image NAME:TAG.
    Load(ImageLoad),
}

/// Load an image archive into Berth's registry.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  docker save hello:1 | gzip > hello.tar.gz && berth image load hello.tar.gz\n  berth image load rootfs.tar tools:latest"
)]
pub struct ImageLoad {
    /// The archive
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What to call the image; where it is left out, what the archive calls it
    #[arg(value_name = "NAME:TAG")]
    name: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
    #[command(flatten)]
    data_dir: DataDirArgument,
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        let (advice, code) = match &error {
            LoadError::Read { .. } => (None, BAD_ARGUMENTS),
            LoadError::Archive { .. } => {
                (Some("it should be what `docker save` wrote, an OCI archive, or a tar of a root file system"), FAILED)
            }
            LoadError::Temporary { .. } => (Some("set TMPDIR to a folder with room for the image"), FAILED),
            LoadError::Name { .. } => (Some("it should look like hello:1 or team/hello:latest"), BAD_ARGUMENTS),
            LoadError::Nameless { .. } | LoadError::Several { .. } => (Some("as in: berth image load FILE NAME:TAG"), BAD_ARGUMENTS),
            LoadError::Endpoint { .. } => (Some("`berth env` prints the right AWS_ENDPOINT_URL"), BAD_ARGUMENTS),
            LoadError::Unreachable { .. } => {
                (Some("is Berth running? Start it with `berth up`, or set AWS_ENDPOINT_URL with `eval \"$(berth env)\"`"), FAILED)
            }
            LoadError::Unauthorized { .. } => (Some("the access key is not this Berth's: run `eval \"$(berth env)\"`"), FAILED),
            LoadError::Refused { .. } => (Some("loading again goes on where it stopped"), FAILED),
        };
        Self::Said { message: error.to_string(), advice: advice.map(str::to_owned), code }
    }
}

impl Image {
    pub(crate) async fn run(&self, environment: &Environment, console: &mut Console<'_>) -> Result<(), Failure> {
        match &self.action {
            ImageAction::Load(load) => load.run(environment, console).await,
        }
    }
}

impl ImageLoad {
    async fn run(&self, environment: &Environment, console: &mut Console<'_>) -> Result<(), Failure> {
        let connection = Connection::find(&self.data_dir, environment)?;
        let endpoint = connection.endpoint.as_str().trim_end_matches('/');
        let (username, password) = (&connection.key.id, connection.key.secret.expose());
        // Progress that cannot be shown must not stop the load.
        let mut show = |progress: Progress| drop(console.progress(&render_progress(progress)));
        let loaded = image::load(&self.file, self.name.as_deref(), endpoint, username, password, &mut show).await;
        console.progress("")?;
        console.out.write_all(render(&loaded?, self.output).as_bytes())?;
        Ok(())
    }
}

fn render_progress(progress: Progress) -> String {
    const WIDTH: u64 = 24;
    match progress {
        Progress::Reading { bytes } => format!("reading the archive  {}", size(bytes)),
        Progress::Present { blob, blobs, total } => format!("blob {blob} of {blobs}  already there  {}", size(total)),
        Progress::Pushing { blob, blobs, bytes, total } => {
            let done = bytes.min(total).saturating_mul(WIDTH).checked_div(total).unwrap_or(WIDTH);
            let (done, open) = ("=".repeat(done as usize), " ".repeat((WIDTH - done) as usize));
            format!("blob {blob} of {blobs}  [{done}{open}]  {} of {}", size(bytes), size(total))
        }
    }
}

fn render(loaded: &LoadedImage, output: Output) -> String {
    let kind = match loaded.kind {
        ArchiveKind::Docker => "docker-archive",
        ArchiveKind::Oci => "oci-archive",
        ArchiveKind::RootFileSystem => "root-file-system",
    };
    match output {
        Output::Text => format!(
            "Loaded {}\n  {}\n  {} in {} {}, {} sent\n",
            loaded.reference,
            loaded.digest,
            size(loaded.bytes),
            loaded.layers,
            if loaded.layers == 1 { "layer" } else { "layers" },
            size(loaded.pushed_bytes)
        ),
        Output::Json => {
            let LoadedImage { reference, digest, layers, bytes, pushed_bytes, .. } = loaded;
            let object = json!({
                "reference": reference, "digest": digest, "kind": kind, "layers": layers, "bytes": bytes, "pushedBytes": pushed_bytes,
            });
            format!("{object}\n")
        }
    }
}

/// Bytes in the largest unit that leaves something before the point.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    // 1023.95 would be written as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded() -> LoadedImage {
        LoadedImage {
            reference: "hello:1".into(),
            digest: "sha256:0123".into(),
            kind: ArchiveKind::Docker,
            layers: 1,
            bytes: 5 * 1024 * 1024,
            pushed_bytes: 1536,
        }
    }

    #[test]
    fn results() {
        assert_eq!(render(&loaded(), Output::Text), "Loaded hello:1\n  sha256:0123\n  5.0 MiB in 1 layer, 1.5 KiB sent\n");
        assert_eq!(
            render(&loaded(), Output::Json),
            "{\"bytes\":5242880,\"digest\":\"sha256:0123\",\"kind\":\"docker-archive\",\"layers\":1,\"pushedBytes\":1536,\"reference\":\"hello:1\"}\n"
        );
    }

    #[test]
    fn progress() {
        assert_eq!(render_progress(Progress::Reading { bytes: 1023 }), "reading the archive  1023 B");
        assert_eq!(
            render_progress(Progress::Pushing { blob: 1, blobs: 3, bytes: 512 * 1024, total: 1024 * 1024 }),
            "blob 1 of 3  [============            ]  512.0 KiB of 1.0 MiB"
        );
        assert_eq!(
            render_progress(Progress::Pushing { blob: 1, blobs: 1, bytes: 0, total: 0 }),
            "blob 1 of 1  [========================]  0 B of 0 B"
        );
    }

    #[test]
    fn sizes() {
        for (bytes, expected) in [(0, "0 B"), (1024, "1.0 KiB"), (1_048_575, "1.0 MiB"), (u64::MAX, "16777216.0 TiB")] {
            assert_eq!(size(bytes), expected);
        }
    }

    #[tokio::test]
    async fn a_missing_file_is_a_bad_argument() {
        let environment: Environment =
            [("AWS_ENDPOINT_URL", "http://127.0.0.1:1"), ("AWS_ACCESS_KEY_ID", "A"), ("AWS_SECRET_ACCESS_KEY", "s")].into_iter().collect();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("none.tar");
        let load = ImageLoad { file: file.clone(), name: None, output: Output::Text, data_dir: DataDirArgument::default() };
        let mut written = crate::testing::Written::default();
        let failure = load.run(&environment, &mut written.console()).await.unwrap_err();
        assert_eq!(failure.code(), 2);
        assert!(failure.render().unwrap().starts_with(&format!("error: cannot read {}: ", file.display())));
    }
}
