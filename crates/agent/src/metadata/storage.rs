//! How much of its disk a task on Fargate has used.

use std::path::PathBuf;

use berth_runtime::quota;
use serde_json::{Value, json};

const MIB: u64 = 1024 * 1024;

/// `EphemeralStorageMetrics` of a task with so many GiB whose files are in a folder, in MiB. What is used is known where the file system
/// counts it (a project, see `docs/volumes.md`); elsewhere only what is reserved is told.
pub async fn metrics(folder: PathBuf, reserved_gib: u32) -> Value {
    let used = tokio::task::spawn_blocking(move || {
        let project = quota::project_of(&folder).ok().filter(|project| *project >= quota::FIRST_PROJECT)?;
        quota::usage(&folder, project).ok().map(|usage| usage.used)
    });
    render(used.await.ok().flatten(), reserved_gib)
}

fn render(used: Option<u64>, reserved_gib: u32) -> Value {
    let mut shown = json!({"Reserved": u64::from(reserved_gib) * 1024});
    if let Some(used) = used {
        shown["Utilized"] = used.div_ceil(MIB).into();
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn in_mib_and_only_what_is_known() {
        assert_eq!(render(Some(261 * MIB - 1), 21), json!({"Utilized": 261, "Reserved": 21_504}));
        assert_eq!(metrics("/nowhere".into(), 20).await, json!({"Reserved": 20_480}));
    }
}
