//! Which peers live and which one leads: keys that a lease holds, gone two seconds after their peer.
//!
//! Whoever finds no leader tries to become it, and etcd lets one win. A peer that could not renew its lease in time stops to
//! lead by its own clock, before etcd lets anybody else.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::Common;
use super::address::Place;
use super::members::{CallError, Pauses};
use super::rpc::{
    self, Compare, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseRevokeRequest,
    LeaseRevokeResponse, PutRequest, RangeRequest, Request, Response, TxnRequest, TxnResponse,
};
use crate::membership::{Membership, PeerNumber};

/// A lease's seconds: the least that etcd grants with its default election timeout.
const TTL: i64 = 2;
/// How often it is renewed: three renewals may be lost.
const RENEW: Duration = Duration::from_millis(500);
/// How long one renewal may take.
const RENEW_PATIENCE: Duration = Duration::from_millis(900);
/// Most peers that share a store.
const MAX_PEERS: PeerNumber = 1_000;

/// A peer's or the leader's key, as it now is.
pub(super) enum Sighting {
    Peer(PeerNumber, bool),
    /// The leader's lease.
    Leader(Option<i64>),
}

impl Sighting {
    /// `lease`: `None` if the key is gone.
    pub(super) fn of(place: &Place, lease: Option<i64>) -> Option<Self> {
        match place {
            Place::Peer(number) => Some(Self::Peer(*number, lease.is_some())),
            Place::Leader => Some(Self::Leader(lease)),
            Place::Record(_) | Place::Other => None,
        }
    }
}

#[derive(Default)]
pub(super) struct Roster {
    known: Mutex<Known>,
    /// There is no leader, or this peer has left.
    stir: Notify,
    /// There is a lease.
    leased: Notify,
}

#[derive(Default)]
struct Known {
    living: BTreeSet<PeerNumber>,
    leader: Option<i64>,
    me: PeerNumber,
    lease: i64,
    /// By this peer's clock its lease holds until here.
    until: Option<Instant>,
    left: bool,
}

impl Roster {
    /// Everything was read.
    pub(super) fn replace(&self, common: &Common, sightings: Vec<Sighting>) {
        {
            let mut known = self.known.lock();
            known.living.clear();
            known.leader = None;
        }
        self.see(common, sightings);
    }

    /// Keys changed.
    pub(super) fn see(&self, common: &Common, sightings: Vec<Sighting>) {
        {
            let mut known = self.known.lock();
            for sighting in sightings {
                match sighting {
                    Sighting::Peer(number, true) => drop(known.living.insert(number)),
                    Sighting::Peer(number, false) => drop(known.living.remove(&number)),
                    Sighting::Leader(lease) => known.leader = lease,
                }
            }
            if known.leader.is_none() {
                self.stir.notify_one();
            }
        }
        self.publish(common);
    }

    fn publish(&self, common: &Common) {
        let now = {
            let known = self.known.lock();
            let holds = !known.left && known.until.is_some_and(|until| Instant::now() < until);
            Membership { me: known.me, leads: holds && known.leader == Some(known.lease), living: known.living.clone() }
        };
        common.shared.membership.send_if_modified(|membership| {
            let changed = *membership != now;
            if changed {
                if membership.leads != now.leads {
                    tracing::info!(peer = now.me, leads = now.leads, "leadership of the peers changed");
                }
                *membership = now;
            }
            changed
        });
    }

    /// Takes a lease and a number that no living peer has.
    pub(super) async fn join(&self, common: &Common, deadline: Instant) -> Result<(), CallError> {
        let sent = Instant::now();
        let granted: LeaseGrantResponse = common.members.call(rpc::LEASE_GRANT, LeaseGrantRequest { ttl: TTL }, deadline).await?;
        let mine = self.known.lock().me;
        for number in std::iter::once(mine.max(1)).chain(1..=MAX_PEERS) {
            if put_if_absent(common, common.address.peer(number), granted.id, deadline).await? {
                {
                    let mut known = self.known.lock();
                    (known.me, known.lease) = (number, granted.id);
                    known.until = Some(sent + seconds(granted.ttl));
                }
                self.leased.notify_one();
                self.publish(common);
                return Ok(());
            }
        }
        Err(CallError::Refused { code: tonic::Code::ResourceExhausted, message: format!("{MAX_PEERS} peers share this store") })
    }

    /// Becomes the leader if there is none.
    pub(super) async fn campaign(&self, common: &Common) {
        let lease = {
            let known = self.known.lock();
            if known.left || known.leader.is_some() || known.until.is_none() {
                return;
            }
            known.lease
        };
        // Whether it won is seen by the watch, as everybody else sees it.
        if let Err(error) = put_if_absent(common, common.address.leader(), lease, Instant::now() + RENEW_PATIENCE).await {
            tracing::warn!(%error, "cannot ask to lead");
        }
    }

    /// Gives the lease back, and with it the peer's keys.
    pub(super) async fn leave(&self, common: &Common, patience: Duration) {
        let lease = {
            let mut known = self.known.lock();
            if std::mem::replace(&mut known.left, true) {
                return;
            }
            known.until = None;
            known.lease
        };
        self.publish(common);
        self.stir.notify_one();
        let request = LeaseRevokeRequest { id: lease };
        let revoke = common.members.call::<_, LeaseRevokeResponse>(rpc::LEASE_REVOKE, request, Instant::now() + patience);
        let outcome = match timeout(patience, revoke).await {
            Ok(outcome) => outcome.map_err(|error| error.to_string()),
            Err(_) => Err(format!("silent for {patience:?}")),
        };
        if let Err(reason) = outcome {
            tracing::warn!(reason, "cannot give the lease back; it runs out in {TTL} s");
        }
    }
}

/// Renews the lease, leads when nobody does, joins again when the lease was lost; until the peer leaves.
pub(super) async fn keep(common: Arc<Common>) {
    tokio::select! {
        biased;
        () = renew_always(&common) => {}
        () = stand_down_in_time(&common) => {}
    }
}

/// Stops to lead when the lease ends by this peer's clock, whatever call is waited for meanwhile.
async fn stand_down_in_time(common: &Common) {
    let roster = &common.roster;
    loop {
        let until = roster.known.lock().until;
        match until {
            None => roster.leased.notified().await,
            Some(until) if Instant::now() < until => sleep_until(until).await,
            Some(_) => {
                roster.known.lock().until = None;
                roster.publish(common);
                tracing::warn!("this peer's lease could not be renewed in time");
            }
        }
    }
}

async fn renew_always(common: &Common) {
    let roster = &common.roster;
    let mut renew = interval(RENEW);
    renew.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pauses = Pauses::default();
    loop {
        let (lease, left) = {
            let known = roster.known.lock();
            (known.lease, known.left)
        };
        if left {
            return;
        }
        tokio::select! {
            biased;
            () = roster.stir.notified() => roster.campaign(common).await,
            _ = renew.tick() => match renewed(common, lease).await {
                Some(true) => {
                    pauses = Pauses::default();
                    roster.publish(common);
                    roster.campaign(common).await;
                }
                Some(false) => {
                    tracing::warn!("this peer's lease ran out; it joins again");
                    if let Err(error) = roster.join(common, Instant::now() + RENEW_PATIENCE).await {
                        tracing::warn!(%error, "cannot join the peers again");
                        pauses.pause().await;
                    }
                }
                None => {}
            },
        }
    }
}

/// Renews the lease. `false`: it is gone. `None`: nobody answered.
async fn renewed(common: &Common, lease: i64) -> Option<bool> {
    let sent = Instant::now();
    let request = LeaseKeepAliveRequest { id: lease };
    match common.members.exchange::<_, LeaseKeepAliveResponse>(rpc::LEASE_KEEP_ALIVE, request, RENEW_PATIENCE).await {
        Ok(answer) if answer.ttl > 0 => {
            common.roster.known.lock().until = Some(sent + seconds(answer.ttl));
            common.roster.leased.notify_one();
            Some(true)
        }
        Ok(_) => {
            common.roster.known.lock().until = None;
            common.roster.publish(common);
            Some(false)
        }
        Err(error) => {
            tracing::debug!(%error, "cannot renew the lease");
            None
        }
    }
}

/// Whether this peer's key is there now: put by this call, or by a try of it that was not answered.
async fn put_if_absent(common: &Common, key: Vec<u8>, lease: i64, deadline: Instant) -> Result<bool, CallError> {
    let put = Request::Put(PutRequest { key: key.clone(), lease, ..Default::default() });
    let get = Request::Range(RangeRequest { key: key.clone(), ..Default::default() });
    let request = TxnRequest { compare: vec![Compare::absent(key)], success: vec![put.into()], failure: vec![get.into()] };
    let answer: TxnResponse = common.members.call(rpc::TXN, request, deadline).await?;
    let holder = |answer: &TxnResponse| {
        answer.responses.iter().find_map(|response| match &response.response {
            Some(Response::Range(range)) => range.kvs.first().map(|kv| kv.lease),
            _ => None,
        })
    };
    Ok(answer.succeeded || holder(&answer) == Some(lease))
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}
