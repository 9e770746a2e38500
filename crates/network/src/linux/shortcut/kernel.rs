//! Programs and maps of the kernel's virtual machine, by `bpf(2)`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::program::Instruction;

const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP: libc::c_int = 1;
const MAP_UPDATE: libc::c_int = 2;
const MAP_DELETE: libc::c_int = 3;
const MAP_NEXT: libc::c_int = 4;
const PROGRAM_LOAD: libc::c_int = 5;
/// Full, it forgets what was not used for longest.
const LRU_HASH: u32 = 9;
/// Runs at a queue of a link.
const CLASSIFIER: u32 = 3;

/// What `MAP_CREATE` reads.
#[repr(C)]
struct MapSettings {
    kind: u32,
    key: u32,
    value: u32,
    entries: u32,
    flags: u32,
}

/// What the calls on elements of a map read.
#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    /// Or the next key.
    value: u64,
    flags: u64,
}

/// What `PROGRAM_LOAD` reads.
#[repr(C)]
struct ProgramSettings {
    kind: u32,
    count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// Calls the kernel.
///
/// # Safety
/// `T` is what `command` reads, and what it points to lives and is as large as the kernel takes it to be.
unsafe fn bpf<T>(command: libc::c_int, settings: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the settings are exclusively ours and their size is given; the rest is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(settings), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(descriptor: libc::c_long) -> io::Result<OwnedFd> {
    let descriptor = RawFd::try_from(descriptor).map_err(|_| io::Error::other("the kernel returned no descriptor"))?;
    // SAFETY: the kernel just made it, for nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn address<T>(of: *const T) -> u64 {
    of as usize as u64
}

/// A map whose keys and values have `K` and `V` bytes.
#[derive(Debug)]
pub struct Map<const K: usize, const V: usize> {
    descriptor: OwnedFd,
    entries: u32,
}

impl<const K: usize, const V: usize> Map<K, V> {
    /// A map of at most so many entries.
    ///
    /// # Errors
    /// `EPERM` where this is not allowed, `EINVAL` where it is not known.
    pub fn create(entries: u32) -> io::Result<Self> {
        let size = |bytes| u32::try_from(bytes).expect("keys and values are small");
        let mut settings = MapSettings { kind: LRU_HASH, key: size(K), value: size(V), entries, flags: 0 };
        // SAFETY: these are the settings that this command reads; it follows no pointers.
        let descriptor = owned(unsafe { bpf(MAP_CREATE, &mut settings) }?)?;
        Ok(Self { descriptor, entries })
    }

    fn element(&self, key: *const [u8; K], value: u64) -> Element {
        let map = u32::try_from(self.descriptor.as_raw_fd()).expect("an open descriptor");
        Element { map, padding: 0, key: address(key), value, flags: 0 }
    }

    /// What a key leads to.
    pub fn get(&self, key: &[u8; K]) -> Option<[u8; V]> {
        let mut value = [0; V];
        let mut element = self.element(key, address(&raw mut value));
        // SAFETY: key and value live through the call, and are as large as the map's.
        unsafe { bpf(MAP_LOOKUP, &mut element) }.ok().map(|_| value)
    }

    /// Sets what a key leads to.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn set(&self, key: &[u8; K], value: &[u8; V]) -> io::Result<()> {
        let mut element = self.element(key, address(value));
        // SAFETY: key and value live through the call, and are as large as the map's.
        unsafe { bpf(MAP_UPDATE, &mut element) }.map(drop)
    }

    /// Removes a key; that there is none is no error.
    pub fn remove(&self, key: &[u8; K]) {
        let mut element = self.element(key, 0);
        // SAFETY: the key lives through the call, and is as large as the map's. All that can be refused is a key that is not there.
        drop(unsafe { bpf(MAP_DELETE, &mut element) });
    }

    /// Its keys. One that comes or goes meanwhile may be missing or told twice.
    pub fn keys(&self) -> Vec<[u8; K]> {
        let mut keys: Vec<[u8; K]> = Vec::new();
        while keys.len() < self.entries as usize {
            let mut next = [0; K];
            let mut element = self.element(keys.last().map_or(std::ptr::null(), std::ptr::from_ref), address(&raw mut next));
            // SAFETY: both keys live through the call, and are as large as the map's; without one before it the kernel begins with the first.
            if unsafe { bpf(MAP_NEXT, &mut element) }.is_err() {
                break;
            }
            keys.push(next);
        }
        keys
    }
}

impl<const K: usize, const V: usize> AsFd for Map<K, V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Has the kernel check a program and make it ready.
///
/// # Errors
/// The kernel's refusal; `EINVAL` also where it does not know a function that the program calls.
pub fn load(name: &str, instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let mut settings = ProgramSettings {
        kind: CLASSIFIER,
        count: u32::try_from(instructions.len()).expect("programs are short"),
        instructions: address(instructions.as_ptr()),
        licence: address(c"Apache-2.0".as_ptr()),
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: [0; 16],
    };
    for (to, from) in settings.name.iter_mut().zip(name.bytes().take(15)) {
        *to = from;
    }
    // SAFETY: these are the settings that this command reads; instructions and licence live through the call, and as many are there as is said.
    owned(unsafe { bpf(PROGRAM_LOAD, &mut settings) }?)
}
