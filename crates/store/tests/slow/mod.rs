//! A disk whose syncs can be made to wait: SQLite's own file system layer with one function of it replaced, so that the store
//! under test is the product's, down to the system calls.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, LazyLock, Mutex, Once, OnceLock};

use berth_store::conformance::SlowDisk;
use rusqlite::ffi;

/// Syncs of files whose names begin with a path wait here.
#[derive(Default)]
pub struct Gate {
    held: Mutex<Held>,
    changed: Condvar,
}

#[derive(Default)]
struct Held {
    shut: bool,
    waiting: usize,
}

impl Gate {
    /// The gate of all files whose names begin with this one; before SQLite opens them.
    pub fn before(path: &Path) -> Arc<Self> {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(install);
        let gate = Arc::new(Self::default());
        GATES.lock().unwrap().push((path.to_owned(), Arc::clone(&gate)));
        gate
    }

    /// Returns when somebody waits for a sync to end.
    pub fn until_a_sync_waits(&self) {
        let held = self.held.lock().unwrap();
        drop(self.changed.wait_while(held, |held| held.waiting == 0).unwrap());
    }

    fn pass(&self) {
        let mut held = self.held.lock().unwrap();
        held.waiting += 1;
        self.changed.notify_all();
        held = self.changed.wait_while(held, |held| held.shut).unwrap();
        held.waiting -= 1;
    }
}

impl SlowDisk for Gate {
    fn hold(&self) {
        self.held.lock().unwrap().shut = true;
    }

    fn release(&self) {
        self.held.lock().unwrap().shut = false;
        self.changed.notify_all();
    }
}

static GATES: Mutex<Vec<(PathBuf, Arc<Gate>)>> = Mutex::new(Vec::new());
/// By the address of SQLite's open file.
static OPEN: LazyLock<Mutex<HashMap<usize, Arc<Gate>>>> = LazyLock::new(Mutex::default);

type Open = unsafe extern "C" fn(*mut ffi::sqlite3_vfs, *const c_char, *mut ffi::sqlite3_file, c_int, *mut c_int) -> c_int;
type Sync = unsafe extern "C" fn(*mut ffi::sqlite3_file, c_int) -> c_int;
static UNIX_OPEN: OnceLock<Open> = OnceLock::new();
static UNIX_SYNC: OnceLock<Sync> = OnceLock::new();

/// Makes a copy of the usual layer the default one, with another `xOpen`.
fn install() {
    // SAFETY: the layer that SQLite gives is its own and lives for ever; so does the copy that is leaked here. All its functions but
    // xOpen are the originals, and they look at nothing of the layer that the copy has not.
    unsafe {
        let unix = ffi::sqlite3_vfs_find(std::ptr::null());
        let mut layer = *unix;
        UNIX_OPEN.set(layer.xOpen.expect("it opens files")).expect("installed once");
        layer.xOpen = Some(open);
        layer.zName = c"gated".as_ptr();
        layer.pNext = std::ptr::null_mut();
        assert_eq!(ffi::sqlite3_vfs_register(Box::leak(Box::new(layer)), 1), ffi::SQLITE_OK);
    }
}

unsafe extern "C" fn open(
    layer: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    let unix = UNIX_OPEN.get().expect("set before");
    // SAFETY: these are SQLite's own arguments; the name is null or ends with a zero byte, and a file that was opened has methods.
    unsafe {
        let outcome = unix(layer, name, file, flags, out);
        if outcome != ffi::SQLITE_OK || name.is_null() {
            return outcome;
        }
        let path = CStr::from_ptr(name).to_string_lossy().into_owned();
        let gate =
            GATES.lock().unwrap().iter().find(|(begin, _)| path.starts_with(&*begin.to_string_lossy())).map(|(_, gate)| gate.clone());
        if let Some(gate) = gate {
            let mut methods = *(*file).pMethods;
            let _ = UNIX_SYNC.set(methods.xSync.expect("it syncs files"));
            methods.xSync = Some(sync);
            (*file).pMethods = Box::leak(Box::new(methods));
            OPEN.lock().unwrap().insert(file as usize, gate);
        }
        outcome
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    let gate = OPEN.lock().unwrap().get(&(file as usize)).cloned();
    if let Some(gate) = gate {
        gate.pass();
    }
    // SAFETY: SQLite's own arguments, to the function it meant.
    unsafe { UNIX_SYNC.get().expect("set when it was opened")(file, flags) }
}
