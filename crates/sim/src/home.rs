//! Where a server's state lives: on a disk of its own, or at an etcd cluster that it shares with other peers and to which its way is
//! late, at times broken, and at times swallows what is sent. It draws nothing but what becomes of messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use berth_store::{BackendError, Fate, Line, SimulatedEtcd, Store};
use parking_lot::Mutex;

use crate::chance::Chance;
use crate::disk::Disk;
use crate::wire::Way;

/// A server's store, opened, and what has to run for it.
pub type Opened = (Store, Option<std::pin::Pin<Box<dyn Future<Output = ()> + Send>>>);

/// Where a server's state lives.
#[derive(Clone)]
pub enum Home {
    /// On its own disk; it has no peers.
    Disk(Disk),
    /// At etcd.
    Etcd(Arc<Cell>),
}

/// An etcd cluster as all its peers see it.
pub struct Cell {
    etcd: Arc<SimulatedEtcd>,
    /// Which of its members nobody reaches.
    down: Vec<AtomicBool>,
    harm: Arc<AtomicBool>,
    /// The longest way of a message in milliseconds.
    slowest: u64,
    keep_revisions: u64,
    compact_every: Duration,
}

impl Cell {
    /// A cluster whose members all answer. How it is used is drawn.
    pub fn new(etcd: Arc<SimulatedEtcd>, harm: Arc<AtomicBool>, chance: &Chance) -> Arc<Self> {
        Arc::new(Self {
            etcd,
            down: (0..*chance.pick(&[1, 3])).map(|_| AtomicBool::new(false)).collect(),
            harm,
            slowest: *chance.pick(&[1, 5, 40]),
            keep_revisions: *chance.pick(&[20, 500, 10_000]),
            compact_every: Duration::from_secs(*chance.pick(&[5, 60])),
        })
    }

    /// A member of etcd goes away or comes back. Returns which.
    pub fn set_down(&self, chance: u64, down: bool) -> usize {
        let member = usize::try_from(chance).unwrap_or(0) % self.down.len();
        self.down[member].store(down, Ordering::Relaxed);
        member
    }

    /// All members answer.
    pub fn mend(&self) {
        self.down.iter().for_each(|down| down.store(false, Ordering::Relaxed));
        self.etcd.set_full(false);
    }
}

impl Home {
    /// Whether there is no room to write.
    pub fn set_full(&self, full: bool) {
        match self {
            Self::Disk(disk) => disk.set_full(full),
            Self::Etcd(cell) => cell.etcd.set_full(full),
        }
    }

    /// The disk, if it is one.
    pub fn disk(&self) -> Option<&Disk> {
        match self {
            Self::Disk(disk) => Some(disk),
            Self::Etcd(_) => None,
        }
    }

    /// The etcd cluster, if it is one.
    pub fn cell(&self) -> Option<&Arc<Cell>> {
        match self {
            Self::Disk(_) => None,
            Self::Etcd(cell) => Some(cell),
        }
    }

    /// Opens the store for a new life of a server.
    ///
    /// # Errors
    /// [`BackendError`].
    pub async fn open(&self, way: &Arc<Mutex<Way>>, chance: &Chance) -> Result<Opened, BackendError> {
        let cell = match self {
            Self::Disk(disk) => return Ok((Store::open_inline(disk.mount())?, None)),
            Self::Etcd(cell) => cell,
        };
        let mut settings = cell.etcd.settings();
        (settings.keep_revisions, settings.compact_every) = (cell.keep_revisions, cell.compact_every);
        let line = |member| -> Arc<dyn Line> {
            Arc::new(EtcdLine { cell: Arc::clone(cell), member, way: Arc::clone(way), chance: chance.part("etcd", member as u64) })
        };
        let (store, work) = Store::open_simulated(&cell.etcd, settings, (0..cell.down.len()).map(line).collect()).await?;
        Ok((store, Some(Box::pin(work))))
    }
}

/// The way between one server and one member of etcd.
struct EtcdLine {
    cell: Arc<Cell>,
    member: usize,
    way: Arc<Mutex<Way>>,
    chance: Chance,
}

impl Line for EtcdLine {
    fn fate(&self) -> Fate {
        let way = *self.way.lock();
        if way != Way::Open {
            return Fate::Vanishes;
        }
        if self.cell.down[self.member].load(Ordering::Relaxed) {
            return Fate::Breaks;
        }
        let harm = self.cell.harm.load(Ordering::Relaxed);
        let (lost, broken, slow) = (harm && self.chance.per_mille(1), harm && self.chance.per_mille(3), harm && self.chance.per_mille(5));
        if lost {
            return Fate::Vanishes;
        }
        if broken {
            return Fate::Breaks;
        }
        let slowest = if slow { self.cell.slowest * 20 } else { self.cell.slowest };
        let millis = self.chance.below(slowest + 1);
        Fate::Arrives(Duration::from_millis(millis))
    }
}
