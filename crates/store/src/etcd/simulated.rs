//! An etcd cluster in memory, for simulations: keys with revisions, conditional transactions, watches, leases, compaction, as far as
//! the store uses them. What peers and it say to each other travels as the simulation's [`Line`]s let it. Holds for one runtime,
//! by its clock alone; it opens no socket.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prost::Message;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tonic::Code;

use super::address::Place;
use super::rpc::{
    self, CompactionRequest, CompactionResponse, Compare, DeleteRangeResponse, Event, KeyValue, LeaseGrantRequest, LeaseGrantResponse,
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseRevokeRequest, LeaseRevokeResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, Request, RequestOp, Response, ResponseHeader, ResponseOp, Target, TxnRequest, TxnResponse,
};
use super::{EtcdAddress, EtcdSettings};
use crate::transaction::{Change, Revision};
use crate::watch::Commit;

/// etcd's `--max-request-bytes`.
const LARGEST_REQUEST: usize = 1_536 * 1024;
const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

/// What becomes of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is there after this time.
    Arrives(Duration),
    /// It is never there, and nobody is told.
    Vanishes,
    /// Its connection breaks, and its sender is told.
    Breaks,
}

/// The way between one peer and one member of etcd.
pub trait Line: Send + Sync + 'static {
    /// What becomes of the next message on it, in either direction. Those of one watch keep their order.
    fn fate(&self) -> Fate;
}

/// Who is shown every commit at the moment in which etcd has it, before any peer.
pub type Witness = Arc<dyn Fn(&Commit) + Send + Sync>;

/// etcd's answer to a call, or its refusal.
pub(super) type Answer = Result<Vec<u8>, (Code, String)>;

/// An etcd cluster in memory.
pub struct SimulatedEtcd {
    address: EtcdAddress,
    inner: Mutex<Inner>,
    /// Something was written.
    pub(super) grown: Notify,
    witness: Witness,
}

#[derive(Default)]
struct Inner {
    revision: i64,
    keys: BTreeMap<Vec<u8>, KeyValue>,
    /// The events of each revision after `compacted`.
    history: VecDeque<Vec<Step>>,
    compacted: i64,
    leases: BTreeMap<i64, Lease>,
    granted: i64,
    full: bool,
}

/// What happened to a key.
struct Step {
    event: Event,
    before: Option<KeyValue>,
}

struct Lease {
    until: Instant,
    ttl: i64,
    keys: BTreeSet<Vec<u8>>,
}

impl SimulatedEtcd {
    /// An empty cluster.
    #[must_use]
    pub fn new(witness: Witness) -> Arc<Self> {
        let address = EtcdAddress { endpoints: vec!["etcd:2379".to_owned()], prefix: "/berth/".to_owned() };
        // As with etcd, whose first write is revision 2.
        let inner = Inner { revision: 1, compacted: 1, ..Default::default() };
        Arc::new(Self { address, inner: Mutex::new(inner), grown: Notify::new(), witness })
    }

    /// Its newest revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        super::replica::revision(self.inner.lock().revision)
    }

    /// Ends leases when their time has come; for ever. Somebody has to run it.
    pub async fn keep_time(self: Arc<Self>) {
        loop {
            let next = self.inner.lock().leases.values().map(|lease| lease.until).min();
            // A lease that is granted meanwhile ends later than this.
            sleep_until(next.unwrap_or_else(|| Instant::now() + Duration::from_secs(1))).await;
            self.expire();
        }
    }

    /// What peers need to know to use it.
    #[must_use]
    pub fn settings(&self) -> EtcdSettings {
        EtcdSettings::new(self.address.clone())
    }

    /// Whether it has no room left: then it takes no more values, and says so.
    pub fn set_full(&self, full: bool) {
        self.inner.lock().full = full;
    }

    fn expire(&self) {
        let now = Instant::now();
        let over: Vec<_> = {
            let inner = self.inner.lock();
            inner.leases.iter().filter(|(_, lease)| lease.until <= now).map(|(id, _)| *id).collect()
        };
        over.into_iter().for_each(|id| drop(self.revoke(id)));
    }

    /// One call of etcd's API, by its path.
    pub(super) fn call(&self, path: &str, request: &[u8]) -> Answer {
        self.expire();
        match path {
            rpc::RANGE => read(request).and_then(|request| self.range(&request)).map(|answer: RangeResponse| answer.encode_to_vec()),
            rpc::TXN => read(request).and_then(|request| self.txn(request)).map(|answer: TxnResponse| answer.encode_to_vec()),
            rpc::COMPACT => read(request).and_then(|request| self.compact(&request)).map(|answer| answer.encode_to_vec()),
            rpc::LEASE_GRANT => read(request).map(|request| self.grant(&request).encode_to_vec()),
            rpc::LEASE_KEEP_ALIVE => read(request).map(|request| self.keep_alive(&request).encode_to_vec()),
            rpc::LEASE_REVOKE => read(request).and_then(|LeaseRevokeRequest { id }| self.revoke(id)).map(|answer| answer.encode_to_vec()),
            _ => Err((Code::Unimplemented, format!("etcdserver: {path} is not simulated"))),
        }
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, (Code, String)> {
        let inner = self.inner.lock();
        if request.revision != 0 && request.revision < inner.compacted {
            return Err((Code::OutOfRange, COMPACTED.to_owned()));
        }
        let mut kvs = Vec::new();
        let mut more = false;
        for kv in inner.keys_at(request.revision).range(request.key.clone()..).map(|(_, kv)| kv) {
            if !within(&kv.key, &request.key, &request.range_end) {
                break;
            }
            if request.limit > 0 && kvs.len() as i64 == request.limit {
                more = true;
                break;
            }
            let value = if request.keys_only { Vec::new() } else { kv.value.clone() };
            kvs.push(KeyValue { value, ..kv.clone() });
        }
        Ok(RangeResponse { header: inner.header(), kvs, more })
    }

    fn txn(&self, request: TxnRequest) -> Result<TxnResponse, (Code, String)> {
        let mut inner = self.inner.lock();
        let succeeded = request.compare.iter().all(|compare| inner.holds(compare));
        let operations = if succeeded { request.success } else { request.failure };
        inner.check(&operations)?;
        let next = inner.revision + 1;
        let mut steps = Vec::new();
        let responses = operations.into_iter().filter_map(|operation| operation.request).map(|operation| {
            let response = match operation {
                Request::Range(range) => {
                    let found = inner.keys.get(&range.key);
                    let found = found.map(|kv| if range.keys_only { KeyValue { value: Vec::new(), ..kv.clone() } } else { kv.clone() });
                    Response::Range(RangeResponse { header: inner.header(), kvs: found.into_iter().collect(), more: false })
                }
                Request::Put(put) => {
                    steps.push(inner.put(put, next));
                    Response::Put(PutResponse {})
                }
                Request::Delete(delete) => {
                    let step = inner.delete(&delete.key, next);
                    let deleted = i64::from(step.is_some());
                    steps.extend(step);
                    Response::Delete(DeleteRangeResponse { deleted })
                }
            };
            ResponseOp { response: Some(response) }
        });
        let responses = responses.collect();
        self.append(&mut inner, steps);
        let header = inner.header();
        drop(inner);
        self.grown.notify_waiters();
        Ok(TxnResponse { header, succeeded, responses })
    }

    /// The witness is told under the lock, so in the order of the revisions.
    fn append(&self, inner: &mut Inner, steps: Vec<Step>) {
        if steps.is_empty() {
            return;
        }
        inner.revision += 1;
        let changes: Vec<_> = steps.iter().filter_map(|step| step.change(&self.address)).collect();
        inner.history.push_back(steps);
        if !changes.is_empty() {
            (self.witness)(&Commit { revision: super::replica::revision(inner.revision), changes });
        }
    }

    fn compact(&self, request: &CompactionRequest) -> Result<CompactionResponse, (Code, String)> {
        let mut inner = self.inner.lock();
        if request.revision <= inner.compacted {
            return Err((Code::OutOfRange, COMPACTED.to_owned()));
        }
        if request.revision > inner.revision {
            return Err((Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision".to_owned()));
        }
        while inner.compacted < request.revision {
            inner.compacted += 1;
            inner.history.pop_front();
        }
        Ok(CompactionResponse {})
    }

    fn grant(&self, request: &LeaseGrantRequest) -> LeaseGrantResponse {
        let mut inner = self.inner.lock();
        inner.granted += 1;
        let id = inner.granted;
        inner.leases.insert(id, Lease { until: Instant::now() + seconds(request.ttl), ttl: request.ttl, keys: BTreeSet::new() });
        LeaseGrantResponse { id, ttl: request.ttl }
    }

    fn keep_alive(&self, request: &LeaseKeepAliveRequest) -> LeaseKeepAliveResponse {
        let mut inner = self.inner.lock();
        let renewed = inner.leases.get_mut(&request.id).map(|lease| {
            lease.until = Instant::now() + seconds(lease.ttl);
            lease.ttl
        });
        LeaseKeepAliveResponse { ttl: renewed.unwrap_or(0) }
    }

    fn revoke(&self, id: i64) -> Result<LeaseRevokeResponse, (Code, String)> {
        let mut inner = self.inner.lock();
        let Some(lease) = inner.leases.remove(&id) else {
            return Err((Code::NotFound, "etcdserver: requested lease not found".to_owned()));
        };
        let next = inner.revision + 1;
        let steps = lease.keys.iter().filter_map(|key| inner.delete(key, next)).collect();
        self.append(&mut inner, steps);
        drop(inner);
        self.grown.notify_waiters();
        Ok(LeaseRevokeResponse {})
    }

    /// The events of revisions from `start` on, of keys in the range, and the revision after the last that was looked at;
    /// `Err`: the oldest revision that is still there, if the start lies before it.
    pub(super) fn events(&self, start: i64, key: &[u8], range_end: &[u8]) -> Result<(Vec<Event>, i64), i64> {
        self.expire();
        let inner = self.inner.lock();
        if start <= inner.compacted {
            return Err(inner.compacted);
        }
        let skip = usize::try_from(start - inner.compacted - 1).unwrap_or(usize::MAX);
        let of_range = |event: &&Event| event.kv.as_ref().is_some_and(|kv| within(&kv.key, key, range_end));
        let events = inner.history.iter().skip(skip).flatten().map(|step| &step.event).filter(of_range).cloned().collect();
        Ok((events, inner.revision + 1))
    }
}

impl Step {
    fn key(&self) -> &[u8] {
        self.event.kv.as_ref().map_or(&[], |kv| &kv.key)
    }

    /// As the store's own watch shows it: a record that is put as it was is a touch.
    fn change(&self, address: &EtcdAddress) -> Option<Change> {
        let kv = self.event.kv.as_ref()?;
        let Place::Record(key) = address.place(&kv.key) else { return None };
        if self.event.kind == Event::DELETE {
            return Some(Change::Delete(key));
        }
        if self.before.as_ref().is_some_and(|before| before.value == kv.value) {
            return Some(Change::Touch(key));
        }
        let record = serde_json::from_slice(&kv.value).expect("the store writes records that it can read");
        Some(Change::Put(record))
    }
}

impl Inner {
    fn header(&self) -> Option<ResponseHeader> {
        Some(ResponseHeader { revision: self.revision })
    }

    /// All keys as they were at a revision; 0: as they are.
    fn keys_at(&self, revision: i64) -> Cow<'_, BTreeMap<Vec<u8>, KeyValue>> {
        if revision == 0 || revision >= self.revision {
            return Cow::Borrowed(&self.keys);
        }
        let mut keys = self.keys.clone();
        let since = usize::try_from(self.revision - revision).unwrap_or(usize::MAX);
        for step in self.history.iter().rev().take(since).flat_map(|steps| steps.iter().rev()) {
            match &step.before {
                Some(kv) => keys.insert(kv.key.clone(), kv.clone()),
                None => keys.remove(step.key()),
            };
        }
        Cow::Owned(keys)
    }

    fn holds(&self, compare: &Compare) -> bool {
        let found = self.keys.get(&compare.key);
        match compare.value {
            Some(Target::CreateRevision(revision)) => found.map_or(0, |kv| kv.create_revision) == revision,
            Some(Target::ModRevision(revision)) => found.map_or(0, |kv| kv.mod_revision) == revision,
            None => false,
        }
    }

    /// What etcd refuses to do, it refuses as a whole.
    fn check(&self, operations: &[RequestOp]) -> Result<(), (Code, String)> {
        let refuse = |code, what: &str| Err((code, format!("etcdserver: {what}")));
        if operations.len() > super::MAX_OPERATIONS {
            return refuse(Code::InvalidArgument, "too many operations in txn request");
        }
        let mut written = BTreeSet::new();
        for operation in operations.iter().filter_map(|operation| operation.request.as_ref()) {
            let key = match operation {
                Request::Range(_) => continue,
                Request::Put(_) if self.full => return refuse(Code::ResourceExhausted, "mvcc: database space exceeded"),
                Request::Put(put) if put.ignore_value && !self.keys.contains_key(&put.key) => {
                    return refuse(Code::InvalidArgument, "key not found");
                }
                Request::Put(put) if put.lease != 0 && !self.leases.contains_key(&put.lease) => {
                    return refuse(Code::NotFound, "requested lease not found");
                }
                Request::Put(put) => &put.key,
                Request::Delete(delete) => &delete.key,
            };
            if !written.insert(key) {
                return refuse(Code::InvalidArgument, "duplicate key given in txn request");
            }
        }
        Ok(())
    }

    fn put(&mut self, put: PutRequest, revision: i64) -> Step {
        let before = self.keys.get(&put.key).cloned();
        let (create_revision, version) = before.as_ref().map_or((revision, 1), |kv| (kv.create_revision, kv.version + 1));
        let value = before.as_ref().filter(|_| put.ignore_value).map_or(put.value, |kv| kv.value.clone());
        let kv = KeyValue { key: put.key, create_revision, mod_revision: revision, version, value, lease: put.lease };
        self.attach(before.as_ref().map_or(0, |kv| kv.lease), put.lease, &kv.key);
        self.keys.insert(kv.key.clone(), kv.clone());
        Step { event: Event { kind: Event::PUT, kv: Some(kv) }, before }
    }

    fn delete(&mut self, key: &[u8], revision: i64) -> Option<Step> {
        let before = self.keys.remove(key)?;
        self.attach(before.lease, 0, key);
        let kv = KeyValue { key: key.to_vec(), mod_revision: revision, ..Default::default() };
        Some(Step { event: Event { kind: Event::DELETE, kv: Some(kv) }, before: Some(before) })
    }

    fn attach(&mut self, from: i64, to: i64, key: &[u8]) {
        if let Some(lease) = self.leases.get_mut(&from) {
            lease.keys.remove(key);
        }
        if let Some(lease) = self.leases.get_mut(&to) {
            lease.keys.insert(key.to_vec());
        }
    }
}

fn read<Q: Message + Default>(request: &[u8]) -> Result<Q, (Code, String)> {
    if request.len() > LARGEST_REQUEST {
        return Err((Code::InvalidArgument, "etcdserver: request is too large".to_owned()));
    }
    Q::decode(request).map_err(|error| (Code::Internal, error.to_string()))
}

/// Is the key in the range? Without an end the range is one key.
fn within(key: &[u8], first: &[u8], end: &[u8]) -> bool {
    if end.is_empty() { key == first } else { key >= first && key < end }
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}
