//! `berth backup`: fetches a backup from the server that runs. It never leaves a file that is not whole under the name asked
//! for, and never says that one is good before its end was seen.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::NamedTempFile;
use tokio::sync::mpsc;

use crate::client::{Client, Download};
use crate::command::Output;
use crate::connection::{Connection, DataDirArgument};
use crate::console::Console;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::image_load::size;

mod check;

use check::{Content, Pieces, check};

/// Pieces that wait to be checked.
const WAITING: usize = 16;

/// Write all that the server knows into a file.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  berth backup berth-$(date +%F).backup\n  berth backup - | ssh elsewhere 'cat > berth.backup'\n  berth restore berth.backup --data-dir /srv/berth"
)]
pub struct Backup {
    /// Where to write to; - is the standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Overwrite the file if there is one
    #[arg(long)]
    force: bool,
    /// How to print what was done; on stderr where the backup itself is the output
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
    #[command(flatten)]
    data_dir: DataDirArgument,
}

impl Backup {
    pub(crate) async fn run(&self, environment: &Environment, console: &mut Console<'_>) -> Result<(), Failure> {
        if self.to_stdout() {
            let client = Client::new(&Connection::find(&self.data_dir, environment)?)?;
            let (content, bytes) = fetch(client.download("backup", "/backup").await?, None, console).await?;
            console.out.flush()?;
            console.err.write_all(self.render(&content, bytes).as_bytes())?;
            return Ok(());
        }
        self.refuse_to_overwrite()?;
        let client = Client::new(&Connection::find(&self.data_dir, environment)?)?;
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Beside the file, so that the rename is one; readable by its owner alone.
        let mut fresh = NamedTempFile::with_prefix_in(".berth-backup-", folder).map_err(|error| self.unwritable(&error))?;
        let (content, bytes) = fetch(client.download("backup", "/backup").await?, Some((fresh.as_file_mut(), self)), console).await?;
        let synced = |fresh: &NamedTempFile| fresh.as_file().sync_all();
        synced(&fresh).map_err(|error| self.unwritable(&error))?;
        if self.force {
            fresh.persist(&self.file).map_err(|error| self.unwritable(&error.error))?;
        } else {
            fresh.persist_noclobber(&self.file).map_err(|error| match error.error.kind() {
                io::ErrorKind::AlreadyExists => self.exists(),
                _ => self.unwritable(&error.error),
            })?;
        }
        // Its name is only safe once the folder is.
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| self.unwritable(&error))?;
        console.out.write_all(self.render(&content, bytes).as_bytes())?;
        Ok(())
    }

    fn to_stdout(&self) -> bool {
        self.file.as_os_str() == "-"
    }

    /// Before anything is fetched; at the end it is looked at once more.
    fn refuse_to_overwrite(&self) -> Result<(), Failure> {
        if !self.force && self.file.symlink_metadata().is_ok() { Err(self.exists()) } else { Ok(()) }
    }

    fn exists(&self) -> Failure {
        Failure::bad_arguments(format!("{} is there already", self.file.display()), "give another name, or --force to overwrite it")
    }

    fn unwritable(&self, error: &io::Error) -> Failure {
        Failure::new(format!("cannot write {}: {error}", self.file.display()), "no backup was made; give a place that can be written to")
    }

    fn render(&self, content: &Content, bytes: u64) -> String {
        let Content { revision, region, account, records } = content;
        let file = if self.to_stdout() { None } else { Some(self.file.display().to_string()) };
        match self.output {
            Output::Text => {
                let place = file.unwrap_or_else(|| "the standard output".to_owned());
                format!(
                    "Backed up {records} {} at revision {revision} to {place} ({}; region {region}, account {account})\n  \
                     not in it: the images of the registry and the root key\n",
                    if *records == 1 { "record" } else { "records" },
                    size(bytes)
                )
            }
            Output::Json => {
                let object = json!({
                    "file": file, "records": records, "revision": revision, "bytes": bytes, "region": region, "account": account,
                });
                format!("{object}\n")
            }
        }
    }
}

/// Writes what comes, to the file or else the output, and looks at it meanwhile.
async fn fetch(mut download: Download, file: Option<(&mut File, &Backup)>, console: &mut Console<'_>) -> Result<(Content, u64), Failure> {
    let (pieces, coming) = mpsc::channel(WAITING);
    let checked = tokio::task::spawn_blocking(move || check(Pieces { coming, piece: Default::default() }));
    let mut bytes = 0;
    let mut file = file;
    let broken = |problem: &str| Failure::new(format!("the backup that came is not whole: {problem}"), "nothing was kept of it; try again");
    while let Some(piece) = download.next().await.map_err(|error| {
        let _ = console.progress("");
        Failure::new(format!("the backup broke off: {error}"), "nothing was kept of it; try again")
    })? {
        match &mut file {
            Some((file, backup)) => file.write_all(&piece).map_err(|error| backup.unwritable(&error))?,
            None => console.out.write_all(&piece)?,
        }
        bytes += piece.len() as u64;
        // Progress that cannot be shown must not stop the backup.
        let _ = console.progress(&format!("received {}", size(bytes)));
        if pieces.send(piece).await.is_err() {
            break;
        }
    }
    drop(pieces);
    let _ = console.progress("");
    let outcome = checked.await.map_err(|error| broken(&error.to_string()))?;
    outcome.map(|content| (content, bytes)).map_err(|problem| broken(&problem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Written;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const WHOLE: &str = "{\"berth\":\"backup\",\"format\":1,\"version\":\"1\",\"revision\":7,\"region\":\"us-east-1\",\"account\":\"000000000000\",\"takenAt\":1}\n\
        {\"created\":1,\"modified\":1,\"version\":1,\"record\":{}}\n{\"records\":1}\n";

    fn packed(text: &str) -> Vec<u8> {
        let mut out = zstd::Encoder::new(Vec::new(), 3).unwrap();
        out.include_checksum(true).unwrap();
        out.write_all(text.as_bytes()).unwrap();
        out.finish().unwrap()
    }

    /// Runs the command against a server that sends this body, of which it says that it has `length` bytes.
    async fn backup(file: &Path, force: bool, output: Output, body: Vec<u8>, length: usize) -> (Result<(), Failure>, Written) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(socket.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap().to_lowercase();
            assert!(head.starts_with("get /backup http/1.1\r\n") && head.contains("authorization: aws4-hmac-sha256"), "{head}");
            socket.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").as_bytes()).await.unwrap();
            socket.write_all(&body).await.unwrap();
        });
        let environment = [("AWS_ENDPOINT_URL", url.as_str()), ("AWS_ACCESS_KEY_ID", "A"), ("AWS_SECRET_ACCESS_KEY", "s")];
        let command = Backup { file: file.to_owned(), force, output, data_dir: DataDirArgument::default() };
        let mut written = Written::default();
        let outcome = command.run(&environment.into_iter().collect(), &mut written.console()).await;
        (outcome, written)
    }

    #[tokio::test]
    async fn a_whole_one_gets_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let (file, body) = (folder.path().join("b"), packed(WHOLE));
        let (outcome, written) = backup(&file, false, Output::Text, body.clone(), body.len()).await;
        outcome.unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), body);
        assert_eq!(
            written.out(),
            format!(
                "Backed up 1 record at revision 7 to {} ({} B; region us-east-1, account 000000000000)\n  \
                 not in it: the images of the registry and the root key\n",
                file.display(),
                body.len()
            )
        );
        let (outcome, written) = backup(&file, true, Output::Json, body.clone(), body.len()).await;
        outcome.unwrap();
        let json: serde_json::Value = serde_json::from_str(written.out()).unwrap();
        assert_eq!(
            (json["records"].as_u64(), json["revision"].as_u64(), json["bytes"].as_u64()),
            (Some(1), Some(7), Some(body.len() as u64))
        );
    }

    #[tokio::test]
    async fn part_of_one_leaves_nothing_and_keeps_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let (file, body) = (folder.path().join("b"), packed(WHOLE));
        std::fs::write(&file, "the old one").unwrap();
        let lines = packed(&WHOLE[..WHOLE.rfind('{').unwrap()]);
        for (sent, length, said) in [
            (body[..body.len() - 1].to_vec(), body.len() - 1, "is not whole"),
            (lines.clone(), lines.len(), "its last line is missing"),
            (body[..40].to_vec(), body.len(), "broke off"),
            (b"<html>".to_vec(), 6, "is not whole"),
        ] {
            let (outcome, written) = backup(&file, true, Output::Text, sent, length).await;
            let text = outcome.unwrap_err().render().unwrap();
            assert!(text.contains(said) && text.contains("nothing was kept"), "{text}");
            assert_eq!(written.out(), "");
        }
        assert_eq!(std::fs::read(&file).unwrap(), b"the old one");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[tokio::test]
    async fn a_file_that_is_there_is_not_overwritten() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (outcome, _) = backup(file.path(), false, Output::Text, Vec::new(), 0).await;
        let failure = outcome.unwrap_err();
        assert_eq!(failure.code(), 2);
        assert!(failure.render().unwrap().contains("--force"));
    }
}
