//! Where the small binaries beside the agent are.

use std::path::{Path, PathBuf};

/// Finds `berth-shim` or `berth-monitor`: in `$BERTH_LIBEXEC`, next to the running program, or in `../libexec/berth` from there.
pub fn locate(name: &str) -> Option<PathBuf> {
    let named = std::env::var_os("BERTH_LIBEXEC").map(PathBuf::from);
    let own = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_path_buf));
    let beside = own.clone();
    let installed = own.map(|folder| folder.join("../libexec/berth"));
    [named, beside, installed].into_iter().flatten().map(|folder| folder.join(name)).find(|path| path.is_file())
}
