//! This peer's copy of what etcd holds: loaded once, then kept by a watch, revision by revision, without a gap.
//!
//! A watch that breaks goes on after the last revision that was applied, at the next member. If etcd has compacted what
//! came after, everything is read again, and this peer's watchers are told that they missed something.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use berth_model::record::{Key, Record};
use futures_util::stream;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::Common;
use super::address::Place;
use super::members::{CallError, Pauses};
use super::roster::Sighting;
use super::rpc::{self, Event, KeyValue, RangeRequest, RangeResponse, WatchCreateRequest, WatchKind, WatchProgressRequest, WatchRequest};
use super::wire::Answers;
use crate::backend::{BackendError, Stored, Write};
use crate::state::State;
use crate::transaction::{Change, Revision};
use crate::watch::Commit;

/// Keys read at once.
const PAGE: i64 = 512;
/// How often a watch on which nothing happens is asked for a sign of life.
const ASK: Duration = Duration::from_secs(1);
/// How long a watch may say nothing, although it is asked.
const SILENCE: Duration = Duration::from_secs(5);
/// How long one reading of everything may take.
const RELOAD_PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Replica {
    common: Arc<Common>,
    /// All events up to this revision are applied.
    applied: i64,
}

/// Why a watch ended.
enum End {
    /// Its start is compacted.
    Compacted,
    Broken(String),
}

/// Everything below the prefix, at one revision.
struct Everything {
    revision: i64,
    records: Vec<Stored>,
    sightings: Vec<Sighting>,
}

pub(super) fn revision(number: i64) -> Revision {
    Revision(u64::try_from(number).unwrap_or(0))
}

impl Replica {
    /// Reads everything into the state, which is empty.
    pub(super) async fn load(common: Arc<Common>, deadline: Instant) -> Result<Self, BackendError> {
        let everything = read(&common, deadline).await?;
        common.roster.replace(&common, everything.sightings);
        {
            let mut state = common.shared.state.write();
            for stored in everything.records {
                state.apply(Write::Put(stored));
            }
            state.revision = revision(everything.revision);
        }
        common.shared.log.restart(revision(everything.revision));
        Ok(Self { common, applied: everything.revision })
    }

    /// Follows etcd for ever.
    pub(super) async fn follow(mut self) {
        let mut pauses = Pauses::default();
        loop {
            let from = self.applied;
            match self.watch().await {
                End::Compacted => {
                    tracing::warn!(after = from, "etcd has compacted what this peer has not seen yet; everything is read again");
                    if let Err(error) = self.reload().await {
                        tracing::error!(%error, "the store cannot be read again");
                    }
                }
                End::Broken(reason) => tracing::warn!(%reason, "the watch on etcd broke; it goes on from where it was"),
            }
            if self.applied > from {
                pauses = Pauses::default();
            }
            pauses.pause().await;
        }
    }

    async fn watch(&mut self) -> End {
        let (requests, mut inbox) = mpsc::channel::<WatchRequest>(4);
        let address = &self.common.address;
        let create = WatchCreateRequest {
            key: address.prefix.clone().into_bytes(),
            range_end: address.end(),
            start_revision: self.applied + 1,
            fragment: true,
        };
        // The channel is fresh and has room.
        let _ = requests.try_send(WatchRequest { kind: Some(WatchKind::Create(create)) });
        let opened = self.common.members.watch(Box::pin(stream::poll_fn(move |context| inbox.poll_recv(context)))).await;
        let (member, answers) = match opened {
            Ok(opened) => opened,
            Err(error) => return End::Broken(error.to_string()),
        };
        let end = self.take_all(&requests, answers).await;
        if let End::Broken(_) = end {
            self.common.members.leave(member);
        }
        end
    }

    async fn take_all(&mut self, requests: &mpsc::Sender<WatchRequest>, mut answers: Answers) -> End {
        let mut ask = interval(ASK);
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let mut events = Vec::new();
        loop {
            let answer = tokio::select! {
                biased;
                answer = answers.message() => answer,
                _ = ask.tick() => {
                    if heard.elapsed() > SILENCE {
                        return End::Broken(format!("no sign of life for {SILENCE:?}"));
                    }
                    // A full channel is as good as a question: the member does not even take those before.
                    let _ = requests.try_send(WatchRequest { kind: Some(WatchKind::Progress(WatchProgressRequest {})) });
                    continue;
                }
            };
            heard = Instant::now();
            let answer = match answer {
                Ok(Some(answer)) => answer,
                Ok(None) => return End::Broken("etcd ended it".to_owned()),
                Err(status) => return End::Broken(status.message().to_owned()),
            };
            if answer.compact_revision != 0 {
                return End::Compacted;
            }
            if answer.canceled {
                // Among other reasons, for a token that is not known any more; a watch is not told that.
                self.common.members.forget_token();
                return End::Broken(answer.cancel_reason);
            }
            events.extend(answer.events);
            if !answer.fragment && !events.is_empty() {
                self.apply(std::mem::take(&mut events));
            }
        }
    }

    /// Applies the events of one or several whole revisions.
    fn apply(&mut self, events: Vec<Event>) {
        let mut revisions: BTreeMap<i64, Vec<Event>> = BTreeMap::new();
        for event in events {
            let at = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            // A watch that starts anew may repeat what was seen.
            if at > self.applied {
                revisions.entry(at).or_default().push(event);
            }
        }
        let Some((newest, _)) = revisions.last_key_value() else { return };
        self.applied = *newest;
        // Whoever sees a record of a new peer knows that it lives. Not under the state's lock: readers may hold both.
        let sightings = revisions.values().flatten().filter_map(|event| self.sighting(event)).collect();
        self.common.roster.see(&self.common, sightings);
        let mut commits = Vec::new();
        {
            let mut state = self.common.shared.state.write();
            for (at, events) in revisions {
                let changes: Vec<_> = events.into_iter().filter_map(|event| self.fold(&mut state, event)).collect();
                if !changes.is_empty() {
                    commits.push(Arc::new(Commit { revision: revision(at), changes }));
                }
            }
            state.revision = revision(self.applied);
        }
        self.common.shared.log.append(commits);
    }

    fn sighting(&self, event: &Event) -> Option<Sighting> {
        let kv = event.kv.as_ref()?;
        Sighting::of(&self.common.address.place(&kv.key), (event.kind != Event::DELETE).then_some(kv.lease))
    }

    fn fold(&self, state: &mut State, event: Event) -> Option<Change> {
        let kv = event.kv?;
        let is_gone = event.kind == Event::DELETE;
        match self.common.address.place(&kv.key) {
            Place::Record(key) if is_gone => {
                state.apply(Write::Delete(key.clone()));
                Some(Change::Delete(key))
            }
            Place::Record(key) => {
                let stored = stored(&kv).map_err(|error| tracing::error!(%error, "a record cannot be read; it stays as it was")).ok()?;
                if state.holds(&stored.record) {
                    state.apply(Write::Touch { key: key.clone(), modified: stored.modified, version: stored.version });
                    return Some(Change::Touch(key));
                }
                let change = Change::Put(stored.record.clone());
                state.apply(Write::Put(stored));
                Some(change)
            }
            Place::Peer(_) | Place::Leader | Place::Other => None,
        }
    }

    /// Reads everything again and makes the state the same; this peer's watchers learn that they missed something.
    async fn reload(&mut self) -> Result<(), BackendError> {
        let everything = read(&self.common, Instant::now() + RELOAD_PATIENCE).await?;
        self.common.roster.replace(&self.common, everything.sightings);
        {
            let mut state = self.common.shared.state.write();
            let there: HashSet<Key> = everything.records.iter().map(|stored| stored.record.key()).collect();
            for key in state.keys() {
                if !there.contains(&key) {
                    state.apply(Write::Delete(key));
                }
            }
            for stored in everything.records {
                let unchanged = state.modified(&stored.record.key()) == Some(stored.modified);
                if !unchanged {
                    state.apply(Write::Put(stored));
                }
            }
            state.revision = revision(everything.revision);
        }
        self.applied = everything.revision;
        self.common.shared.log.restart(revision(everything.revision));
        Ok(())
    }
}

fn stored(kv: &KeyValue) -> Result<Stored, BackendError> {
    let damaged = |reason: String| BackendError::Damaged { at: String::from_utf8_lossy(&kv.key).into_owned(), reason };
    let record: Record = serde_json::from_slice(&kv.value).map_err(|error| damaged(error.to_string()))?;
    Ok(Stored {
        record,
        created: revision(kv.create_revision),
        modified: revision(kv.mod_revision),
        version: u64::try_from(kv.version).unwrap_or(0),
    })
}

/// Reads all keys below the prefix as they are at one revision.
async fn read(common: &Common, deadline: Instant) -> Result<Everything, BackendError> {
    let io = |error: CallError| BackendError::Io(format!("{}: {error}", common.address));
    let mut next = common.address.prefix.clone().into_bytes();
    let mut everything = Everything { revision: 0, records: Vec::new(), sightings: Vec::new() };
    loop {
        let request =
            RangeRequest { key: next, range_end: common.address.end(), limit: PAGE, revision: everything.revision, keys_only: false };
        let patience = deadline.saturating_duration_since(Instant::now());
        let call = common.members.call::<_, RangeResponse>(rpc::RANGE, request, deadline);
        let page = timeout(patience + super::members::TRY, call)
            .await
            .map_err(|_| BackendError::Io(format!("{}: etcd takes too long", common.address)))?
            .map_err(io)?;
        if everything.revision == 0 {
            everything.revision = page.header.map_or(0, |header| header.revision);
        }
        let Some(last) = page.kvs.last() else { return Ok(everything) };
        next = [last.key.as_slice(), &[0]].concat();
        for kv in &page.kvs {
            match common.address.place(&kv.key) {
                Place::Record(_) => everything.records.push(stored(kv)?),
                place => everything.sightings.extend(Sighting::of(&place, Some(kv.lease))),
            }
        }
        if !page.more {
            return Ok(everything);
        }
    }
}
