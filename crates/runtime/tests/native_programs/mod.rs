//! What every test of the native runtime needs: the two programs beside it, a configuration of its own, and an end to what a failed test leaves.

use std::path::{Path, PathBuf};

use berth_runtime::images::PULL_INACTIVITY;
use berth_runtime::native::NativeConfig;
use berth_runtime::native::cgroups::Layout;

pub fn is_root() -> bool {
    // SAFETY: no memory arguments.
    unsafe { libc::geteuid() == 0 }
}

/// Binaries of the same profile, two folders above the test's own; or where the environment says.
fn program(name: &str) -> PathBuf {
    let folder = std::env::var_os("BERTH_SHIM_DIR").map(PathBuf::from).unwrap_or_else(|| {
        let test = std::env::current_exe().expect("a test has a path");
        test.parent().and_then(Path::parent).expect("target/<profile>/deps").to_owned()
    });
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: run `cargo build -p berth-shim` first", path.display());
    path
}

/// A runtime of a test's own; its name tells its cgroups from others'.
pub fn config(data_dir: &Path, name: &str) -> NativeConfig {
    NativeConfig {
        data_dir: data_dir.to_owned(),
        cgroup_root: format!("berth-test-{name}-{}", std::process::id()),
        shim: program("berth-shim"),
        monitor: program("berth-monitor"),
        berth_registry: None,
        pull_inactivity: PULL_INACTIVITY,
    }
}

/// Ends what a failed test leaves: kills only processes in cgroups of this test's own name.
pub struct Sweep(pub String);

impl Drop for Sweep {
    fn drop(&mut self) {
        if let Ok(cgroups) = Layout::detect() {
            cgroups.sweep(&self.0);
        }
    }
}
