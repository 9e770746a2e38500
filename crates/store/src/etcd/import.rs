//! A backup brought into etcd, under a prefix that nothing is under. The schema's key says from the first to the last write that
//! this is under way, so no server, of this or an earlier version, ever serves a part of it; the same backup may begin again.
//!
//! etcd counts by itself: records begin with version 1, and their revisions are new ones.

use berth_model::record::{Key, Record};
use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use super::access::EtcdUrl;
use super::members::{CallError, Members};
use super::rpc::{self, Compare, PutRequest, RangeRequest, RangeResponse, Request, Response, TxnRequest, TxnResponse};
use super::{COMMIT_PATIENCE, EtcdAddress, MAX_BYTES, MAX_CHANGES, SCHEMA, START_PATIENCE};
use crate::backend::{BackendError, Stored};

/// The schema's value while it lasts, before the name of the backup. An earlier Berth reads it as a schema that it does not know.
const UNDER_WAY: &str = "restoring ";
/// Batches under way at etcd together.
const TOGETHER: usize = 8;
/// Bytes of a record's key and of the envelope around it, at most.
const AROUND: usize = 1_024;

/// Does the schema's value say that a restore has not ended?
pub(super) fn is_under_way(schema: &[u8]) -> bool {
    schema.starts_with(UNDER_WAY.as_bytes())
}

/// Fills an empty prefix with records; blocks until it is done. `name` tells this backup from others.
///
/// # Errors
/// [`BackendError::NotEmpty`] if something is under the prefix, [`BackendError::HalfRestored`] if that is a part of another backup,
/// [`BackendError::TooLarge`]; then nothing was written. After others, a part may have been: the same call again goes on.
pub fn import(url: &EtcdUrl, name: &str, records: Vec<Stored>) -> Result<u64, BackendError> {
    // Before anything is written: what cannot be ended is not begun.
    for stored in &records {
        check_size(&stored.record)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| BackendError::Io(format!("cannot start a runtime: {error}")))?;
    runtime.block_on(async {
        let members = Members::new(&url.address.endpoints, &url.access).map_err(BackendError::Io)?;
        let import = Import { members: &members, address: &url.address, url };
        let begun = import.begin(name).await?;
        let count = import.write(records, begun).await?;
        import.end(begun).await?;
        Ok(count)
    })
}

fn check_size(record: &Record) -> Result<(), BackendError> {
    let bytes = encoded(record)?.len();
    let most = MAX_BYTES - AROUND;
    if bytes > most { Err(BackendError::TooLarge { key: record.key().to_string(), bytes, most }) } else { Ok(()) }
}

fn encoded(record: &Record) -> Result<Vec<u8>, BackendError> {
    serde_json::to_vec(record).map_err(|error| BackendError::Io(format!("{} cannot be written: {error}", record.key())))
}

/// The revision of the mark that says that a restore is under way.
#[derive(Clone, Copy)]
struct Mark(i64);

struct Import<'a> {
    members: &'a Members,
    address: &'a EtcdAddress,
    url: &'a EtcdUrl,
}

impl Import<'_> {
    fn failed(&self, error: &CallError) -> BackendError {
        BackendError::Io(format!("{}: {error}", self.url))
    }

    async fn send(&self, request: TxnRequest) -> Result<TxnResponse, BackendError> {
        // Whatever is sent here is the same when it happens twice.
        let deadline = Instant::now() + COMMIT_PATIENCE;
        self.members.call(rpc::TXN, request, deadline).await.map_err(|error| self.failed(&error))
    }

    /// Sets the mark, or finds that of an earlier try with the same backup.
    async fn begin(&self, name: &str) -> Result<Mark, BackendError> {
        let (key, mark) = (self.address.key("schema"), format!("{UNDER_WAY}{name}").into_bytes());
        let all = RangeRequest {
            key: self.address.prefix.clone().into_bytes(),
            range_end: self.address.end(),
            limit: 1,
            keys_only: true,
            ..Default::default()
        };
        let found = self.members.call::<_, RangeResponse>(rpc::RANGE, all, Instant::now() + START_PATIENCE).await;
        let is_empty = found.map_err(|error| self.failed(&error))?.kvs.is_empty();
        let get: Request = Request::Range(RangeRequest { key: key.clone(), ..Default::default() });
        let mut request =
            TxnRequest { compare: vec![Compare::absent(key.clone())], failure: vec![get.clone().into()], ..Default::default() };
        if is_empty {
            // Every server writes this key before any other, so that it being absent is nothing being there.
            request.success = vec![Request::Put(PutRequest { key, value: mark.clone(), ..Default::default() }).into(), get.into()];
        }
        let answer = self.send(request).await?;
        let found = answer.responses.into_iter().find_map(|response| match response.response? {
            Response::Range(range) => range.kvs.into_iter().next(),
            _ => None,
        });
        match found {
            Some(found) if found.value == mark => Ok(Mark(found.mod_revision)),
            Some(found) if is_under_way(&found.value) => Err(BackendError::HalfRestored(self.url.to_string())),
            _ => Err(BackendError::NotEmpty),
        }
    }

    /// Writes all records, each batch on condition that the mark is still the same.
    async fn write(&self, records: Vec<Stored>, mark: Mark) -> Result<u64, BackendError> {
        let count = records.len() as u64;
        let mut batches =
            stream::iter(self.batches(records, mark)).map(|batch| async { self.marked(batch?).await }).buffer_unordered(TOGETHER);
        while let Some(outcome) = batches.next().await {
            outcome?;
        }
        Ok(count)
    }

    fn batches(&self, records: Vec<Stored>, mark: Mark) -> impl Iterator<Item = Result<TxnRequest, BackendError>> {
        let mut records = records.into_iter().peekable();
        let put = |record: &Record| {
            let key: Key = record.key();
            Ok(PutRequest { key: self.address.record(&key), value: encoded(record)?, ..Default::default() })
        };
        let mut left: Option<PutRequest> = None;
        std::iter::from_fn(move || {
            let (mut request, mut bytes) = (self.on_mark(mark), 0);
            while request.success.len() < MAX_CHANGES {
                let next = match left.take() {
                    Some(next) => next,
                    None => match put(&records.next()?.record) {
                        Ok(next) => next,
                        Err(error) => return Some(Err(error)),
                    },
                };
                bytes += next.key.len() + next.value.len() + AROUND / 8;
                if bytes > MAX_BYTES && !request.success.is_empty() {
                    left = Some(next);
                    break;
                }
                request.success.push(Request::Put(next).into());
                if records.peek().is_none() {
                    break;
                }
            }
            (!request.success.is_empty()).then_some(Ok(request))
        })
    }

    fn on_mark(&self, mark: Mark) -> TxnRequest {
        TxnRequest { compare: vec![Compare::unchanged(self.address.key("schema"), mark.0)], ..Default::default() }
    }

    /// What is only good while the mark is the same.
    async fn marked(&self, request: TxnRequest) -> Result<(), BackendError> {
        if self.send(request).await?.succeeded {
            return Ok(());
        }
        Err(BackendError::Io(format!("{}: somebody else has ended or removed this restore", self.url)))
    }

    /// The mark becomes the schema: from here on servers may start.
    async fn end(&self, mark: Mark) -> Result<(), BackendError> {
        let (key, value) = (self.address.key("schema"), SCHEMA.to_string().into_bytes());
        let mut request = self.on_mark(mark);
        request.success = vec![Request::Put(PutRequest { key: key.clone(), value: value.clone(), ..Default::default() }).into()];
        request.failure = vec![Request::Range(RangeRequest { key, ..Default::default() }).into()];
        let answer = self.send(request).await?;
        // A try whose answer was lost has done it.
        let is_there = answer.responses.iter().any(|response| match &response.response {
            Some(Response::Range(range)) => range.kvs.first().is_some_and(|kv| kv.value == value),
            _ => false,
        });
        if answer.succeeded || is_there {
            return Ok(());
        }
        Err(BackendError::Io(format!("{}: somebody else has removed this restore", self.url)))
    }
}
