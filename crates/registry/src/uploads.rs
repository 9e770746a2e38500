//! Uploads under way. Bytes are hashed and written as they come; an upload outlives its connection and the process,
//! so a client can ask how far it got and go on. Nothing here is visible as a blob.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::digest::{Algorithm, Digest, Hasher};
use crate::failure::{Code, Failure};
use crate::name::RepositoryName;
use crate::{RequestBody, Settings, Shared, blocking};

/// Bytes gathered before a hop to a blocking thread: hashing that much takes a few hundred microseconds, so the hop
/// is noise, and 256 uploads at once hold 256 MB at worst.
const BATCH: usize = 1 << 20;

pub(crate) struct Uploads {
    folder: PathBuf,
    open: Mutex<HashMap<String, Arc<Upload>>>,
}

pub(crate) struct Upload {
    pub id: String,
    repository: RepositoryName,
    folder: PathBuf,
    /// As the writer's, for those who only ask.
    received: AtomicU64,
    /// Seconds since the epoch at which the last bytes came.
    touched: AtomicU64,
    writer: Arc<AsyncMutex<Writer>>,
}

pub(crate) struct Writer {
    file: File,
    received: u64,
    /// Of the first `received` bytes; none after a restart or a failed write, then the file is read again.
    hasher: Option<Hasher>,
}

/// What a request says of the bytes it brings.
#[derive(Clone, Copy)]
pub(crate) struct Chunk {
    /// First byte and length, where `Content-Range` was sent.
    pub range: Option<(u64, u64)>,
    /// `Content-Length`, where sent.
    pub length: Option<u64>,
}

impl Uploads {
    /// Takes up what an earlier process left; expired and torn uploads are removed.
    pub(crate) fn load(folder: PathBuf, now: SystemTime, expiry: Duration) -> io::Result<Uploads> {
        let mut open = HashMap::new();
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            match resume(&entry.path(), now, expiry) {
                Some(upload) => {
                    open.insert(upload.id.clone(), Arc::new(upload));
                }
                None => fs::remove_dir_all(entry.path())?,
            }
        }
        Ok(Uploads { folder, open: Mutex::new(open) })
    }

    pub(crate) fn find(&self, name: &RepositoryName, id: &str) -> Result<Arc<Upload>, Failure> {
        let found = self.open.lock().get(id).filter(|upload| upload.repository == *name).cloned();
        found.ok_or_else(unknown)
    }

    /// Takes an upload out, so that nobody else can finish or drop it. Answers whether it was there.
    fn take(&self, upload: &Upload) -> bool {
        self.open.lock().remove(&upload.id).is_some()
    }

    pub(crate) fn discard(&self, upload: &Upload) {
        if self.take(upload) {
            remove(upload);
        }
    }

    pub(crate) fn expire(&self, now: SystemTime, expiry: Duration) -> usize {
        let limit = seconds(now).saturating_sub(expiry.as_secs());
        let expired: Vec<_> = {
            let mut open = self.open.lock();
            // Somebody who writes right now holds the writer; such an upload lives, however slow its clock.
            open.extract_if(|_, u| u.touched.load(Ordering::Relaxed) < limit && u.writer.try_lock().is_ok()).collect()
        };
        expired.iter().for_each(|(_, upload)| remove(upload));
        expired.len()
    }
}

fn unknown() -> Failure {
    Failure::new(Code::BlobUploadUnknown, "there is no such upload; it may have expired")
}

fn remove(upload: &Upload) {
    if let Err(error) = fs::remove_dir_all(&upload.folder) {
        // It is in the way of nobody, and the next open tries again.
        tracing::warn!(id = upload.id, %error, "an upload's folder could not be removed");
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

fn resume(folder: &Path, now: SystemTime, expiry: Duration) -> Option<Upload> {
    let id = folder.file_name()?.to_str()?.to_owned();
    let repository = fs::read_to_string(folder.join("repository")).ok()?.parse().ok()?;
    let file = OpenOptions::new().read(true).write(true).open(folder.join("bytes")).ok()?;
    let about = file.metadata().ok()?;
    let touched = seconds(about.modified().ok()?);
    if touched < seconds(now).saturating_sub(expiry.as_secs()) {
        return None;
    }
    let received = about.len();
    Some(Upload {
        id,
        repository,
        folder: folder.to_owned(),
        received: AtomicU64::new(received),
        touched: AtomicU64::new(touched),
        writer: Arc::new(AsyncMutex::new(Writer { file, received, hasher: None })),
    })
}

fn fresh_id() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(hex::encode(bytes))
}

impl Shared {
    /// Opens an upload. Blocks, briefly.
    pub(crate) fn begin_upload(&self, name: &RepositoryName) -> Result<Arc<Upload>, Failure> {
        let Settings { max_open_uploads, upload_expiry, clock, .. } = self.settings;
        if self.uploads.open.lock().len() >= max_open_uploads {
            self.uploads.expire(clock(), upload_expiry);
        }
        let start = || {
            let id = fresh_id()?;
            let folder = self.uploads.folder.join(&id);
            fs::create_dir(&folder)?;
            fs::write(folder.join("repository"), name.as_str())?;
            let options = OpenOptions::new().read(true).write(true).create_new(true).clone();
            let file = options.open(folder.join("bytes"))?;
            let writer = Writer { file, received: 0, hasher: Some(Hasher::new(Algorithm::Sha256)) };
            Ok(Upload {
                id,
                repository: name.clone(),
                folder,
                received: AtomicU64::new(0),
                touched: AtomicU64::new(seconds(clock())),
                writer: Arc::new(AsyncMutex::new(writer)),
            })
        };
        let upload = Arc::new(start().map_err(|e: io::Error| Failure::storage("start upload", &e))?);
        {
            let mut open = self.uploads.open.lock();
            if open.len() < max_open_uploads {
                open.insert(upload.id.clone(), upload.clone());
                return Ok(upload);
            }
        }
        remove(&upload);
        let text = format!("{max_open_uploads} uploads are under way, which is the limit");
        Err(Failure::new(Code::TooManyRequests, text))
    }
}

impl Upload {
    /// How many bytes have arrived.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Acquire)
    }

    pub(crate) fn repository(&self) -> &RepositoryName {
        &self.repository
    }

    fn bytes_path(&self) -> PathBuf {
        self.folder.join("bytes")
    }

    /// Waits for the right to write. A connection that died may hold it until its own time-out.
    pub(crate) async fn writer(&self, idle: Duration) -> Result<OwnedMutexGuard<Writer>, Failure> {
        tokio::time::timeout(idle, self.writer.clone().lock_owned()).await.map_err(|_| {
            Failure::new(Code::BlobUploadInvalid, "another request is writing to this upload").with_status(StatusCode::CONFLICT)
        })
    }

    /// Adds the body to the upload. What arrived before a failure stays, unless the chunk lied about its length.
    pub(crate) async fn append(
        &self,
        mut writer: OwnedMutexGuard<Writer>,
        chunk: Chunk,
        mut body: RequestBody,
        settings: &Settings,
    ) -> Result<OwnedMutexGuard<Writer>, Failure> {
        let start = writer.received;
        self.check(start, chunk, settings.max_blob_bytes)?;
        let mut ended = false;
        while !ended {
            let mut batch: Vec<Bytes> = Vec::new();
            let mut size = 0;
            let mut broken = None;
            while size < BATCH && !ended && broken.is_none() {
                match tokio::time::timeout(settings.body_idle, body.frame()).await {
                    Ok(None) => ended = true,
                    Ok(Some(Ok(frame))) => {
                        if let Ok(data) = frame.into_data() {
                            size += data.len();
                            batch.push(data);
                        }
                    }
                    Ok(Some(Err(cause))) => {
                        let text = format!("the request body broke off: {cause}");
                        broken = Some(Failure::new(Code::BlobUploadInvalid, text));
                    }
                    Err(_) => {
                        let failure = Failure::new(Code::BlobUploadInvalid, "the request body stopped arriving");
                        broken = Some(failure.with_status(StatusCode::REQUEST_TIMEOUT));
                    }
                }
            }
            if writer.received + size as u64 > settings.max_blob_bytes {
                return Err(too_large(settings.max_blob_bytes));
            }
            writer = blocking(move || {
                writer.write(&batch).map_err(|e| Failure::storage("write upload", &e))?;
                Ok(writer)
            })
            .await?;
            self.received.store(writer.received, Ordering::Release);
            self.touched.store(seconds((settings.clock)()), Ordering::Relaxed);
            if let Some(failure) = broken {
                return Err(failure);
            }
        }
        let came = writer.received - start;
        match chunk.range {
            Some((_, length)) if length != came => {
                writer.rewind(start);
                self.received.store(start, Ordering::Release);
                let text = format!("Content-Range announced {length} bytes, {came} came");
                Err(Failure::new(Code::BlobUploadInvalid, text))
            }
            _ => Ok(writer),
        }
    }

    fn check(&self, received: u64, chunk: Chunk, limit: u64) -> Result<(), Failure> {
        if let Some((first, length)) = chunk.range {
            if first != received {
                let text = format!("the next byte is {received}, but Content-Range starts at {first}");
                let failure = Failure::new(Code::BlobUploadInvalid, text).with_status(StatusCode::RANGE_NOT_SATISFIABLE);
                return Err(crate::upload_requests::progress_headers(failure, &self.repository, self));
            }
            if chunk.length.is_some_and(|l| l != length) {
                return Err(Failure::new(Code::BlobUploadInvalid, "Content-Range and Content-Length disagree"));
            }
        }
        let announced = chunk.length.or(chunk.range.map(|(_, length)| length)).unwrap_or(0);
        if received.saturating_add(announced) > limit {
            return Err(too_large(limit));
        }
        Ok(())
    }
}

fn too_large(limit: u64) -> Failure {
    Failure::new(Code::SizeInvalid, format!("a blob has {limit} bytes at most"))
}

impl Writer {
    fn write(&mut self, batch: &[Bytes]) -> io::Result<()> {
        // Taken out, so that a write that fails half way cannot leave a hash of bytes that don't count.
        let mut hasher = self.hasher.take();
        let mut at = self.received;
        for bytes in batch {
            self.file.write_all_at(bytes, at)?;
            if let Some(hasher) = &mut hasher {
                hasher.update(bytes);
            }
            at += bytes.len() as u64;
        }
        self.received = at;
        self.hasher = hasher;
        Ok(())
    }

    fn rewind(&mut self, received: u64) {
        self.received = received;
        self.hasher = None;
    }

    /// The digest of all bytes so far, by `algorithm`. Blocks; reads the file again where the running hash will not do.
    fn digest(&mut self, algorithm: Algorithm) -> io::Result<Digest> {
        match self.hasher.take() {
            Some(hasher) if hasher.algorithm() == algorithm => Ok(hasher.finish()),
            _ => {
                let mut hasher = Hasher::new(algorithm);
                hasher.update_from(&mut ReadAt { file: &self.file, at: 0 }, self.received)?;
                Ok(hasher.finish())
            }
        }
    }

    /// Cuts off what was rewound, compares with the digest wanted and syncs. Blocks.
    pub(crate) fn verify(&mut self, wanted: &Digest) -> Result<u64, Failure> {
        let digest = self.digest(wanted.algorithm()).map_err(|e| Failure::storage("hash upload", &e))?;
        if digest != *wanted {
            return Err(Failure::new(Code::DigestInvalid, format!("the upload's digest is {digest}, not {wanted}")));
        }
        let sync = || {
            self.file.set_len(self.received)?;
            self.file.sync_all()
        };
        sync().map_err(|e| Failure::storage("sync upload", &e))?;
        Ok(self.received)
    }
}

struct ReadAt<'a> {
    file: &'a File,
    at: u64,
}

impl io::Read for ReadAt<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Shared {
    /// Verifies an upload and makes it a blob; whatever comes of it, the upload is over. Blocks.
    pub(crate) fn finish_upload(&self, upload: &Upload, writer: &mut Writer, digest: &Digest) -> Result<(), Failure> {
        if !self.uploads.take(upload) {
            return Err(unknown());
        }
        let done = writer.verify(digest).and_then(|size| self.commit_blob(&upload.repository, digest, &upload.bytes_path(), size));
        remove(upload);
        done
    }
}
