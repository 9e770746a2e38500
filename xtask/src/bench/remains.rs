//! What an agent that was killed leaves on the machine, found by the letters that its data directory gives to all of it: cgroups with their
//! processes, namespaces and their mounts in /run/berth, the bridge, tables of nftables.
//!
//! Whoever ends a Berth as it wants to be ended leaves nothing; this is for one that did not come to its end in time, or whose bench was
//! broken off.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::cgroups;

/// Where agents mount their namespaces, each in a folder of its name.
const RUN: &str = "/run/berth";

/// Takes away everything that bears the name of an agent.
pub(super) fn clear(name: &str, patience: Duration) {
    // First whoever is in the namespaces: links go with the last process of theirs.
    cgroups::remove(&format!("berth-{name}"), patience);
    let run = Path::new(RUN).join(name);
    unmount_below(&run);
    let _ = std::fs::remove_dir_all(&run);
    if Path::new("/sys/class/net").join(format!("br-{name}")).exists() {
        quietly("ip", &["link", "delete", &format!("br-{name}")]);
    }
    for table in tables_of(&listed(), name) {
        quietly("nft", &["delete", "table", &table[0], &table[1]]);
    }
}

/// Unmounts everything below a folder.
pub(super) fn unmount_below(folder: &Path) {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // What was mounted last may lie in what was mounted first.
    for point in mounts_below(&table, folder).into_iter().rev() {
        let _ = rustix::mount::unmount(&point, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Mount points in or below a folder, in the order of their making.
pub(super) fn mounts_below(mountinfo: &str, folder: &Path) -> Vec<PathBuf> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    points.filter(|point| point.starts_with(folder)).collect()
}

fn listed() -> String {
    let listed = Command::new("nft").args(["list", "tables"]).stdin(Stdio::null()).stderr(Stdio::null()).output();
    listed.map(|listed| String::from_utf8_lossy(&listed.stdout).into_owned()).unwrap_or_default()
}

/// Family and name of each table of an agent, out of what `nft list tables` says.
fn tables_of(listed: &str, name: &str) -> Vec<[String; 2]> {
    let own = format!("berth_{name}");
    let tables = listed.lines().filter_map(|line| line.strip_prefix("table ")?.split_once(' '));
    let tables = tables.filter(|(_, table)| table.strip_prefix(&own).is_some_and(|rest| rest.is_empty() || rest.starts_with('_')));
    tables.map(|(family, table)| [family.to_owned(), table.trim().to_owned()]).collect()
}

fn quietly(program: &str, arguments: &[&str]) {
    let _ = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_agents_own_tables_are_taken() {
        let listed = "table inet berth_abcd\ntable inet berth_abcd_tasks\ntable ip berth_abcdef\ntable ip filter\n";
        assert_eq!(tables_of(listed, "abcd"), [["inet", "berth_abcd"], ["inet", "berth_abcd_tasks"]]);
        assert!(tables_of("", "abcd").is_empty());
    }

    #[test]
    fn mounts_of_neighbours_stay() {
        let table = "1 0 8:1 / / rw\n2 1 0:4 net:[1] /run/berth/ab/netns/x rw\n3 1 0:4 net:[2] /run/berth/abc/netns/x rw\n";
        assert_eq!(mounts_below(table, Path::new("/run/berth/ab")), [PathBuf::from("/run/berth/ab/netns/x")]);
    }
}
