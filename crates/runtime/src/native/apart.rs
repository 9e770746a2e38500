//! Containers that are kept apart from their machine: whether and with which ids, and what they may not ask for. A control plane refuses that first;
//! here it is refused again, since whoever keeps others out must not take a stranger's word for it. <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html>

use std::path::Path;

use crate::native::bundle::Machine;
use crate::native::capabilities;
use crate::native::ids::{Ids, Pool};
use crate::native::security::{self, Modules};
use crate::native::shim;
use crate::port::{ContainerNetwork, ContainerSpec, RunError, Sharing};

/// Who is kept apart by ids of his own.
#[derive(Debug)]
pub struct Apart {
    ids: Pool,
    remapping: tokio::sync::OnceCell<Result<(), String>>,
}

impl Apart {
    /// With the tasks of containers that are there already.
    pub fn of(known: impl Iterator<Item = (String, Ids)>) -> Apart {
        Apart { ids: Pool::with(known), remapping: tokio::sync::OnceCell::new() }
    }

    /// Whether users can be given other ids here; tried once.
    ///
    /// # Errors
    /// Why not.
    pub async fn remapping(&self, shim: &Path, data_dir: &Path) -> Result<(), String> {
        let (shim, folder) = (shim.to_owned(), data_dir.to_owned());
        let tried = async move {
            let tried = tokio::task::spawn_blocking(move || shim::try_remapping(&shim, &folder)).await;
            tried.unwrap_or_else(|error| Err(error.to_string()))
        };
        self.remapping.get_or_init(|| tried).await.clone()
    }

    /// Ids for one more container of a task.
    ///
    /// # Errors
    /// [`RunError::System`]: all are in use.
    pub fn take(&self, task: &str) -> Result<Ids, RunError> {
        self.ids.take(task).ok_or_else(|| RunError::System("all ranges of user ids are in use".to_owned()))
    }

    /// A container of the task is gone, or was not made.
    pub fn give_back(&self, task: &str, ids: Option<Ids>) {
        if ids.is_some() {
            self.ids.give_back(task);
        }
    }
}

/// The first of a container's mounts whose files cannot be shown with other owners: no client of a network file system can do that. By the
/// kernel's list of mounts (`/proc/self/mountinfo`), since the file system itself may not answer.
pub fn unmappable<'a>(spec: &'a ContainerSpec, mountinfo: &str) -> Option<&'a Path> {
    let mut fields = mountinfo.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        Some((before.split(' ').nth(4)?, after.split(' ').next()?))
    });
    let is_remote = |kind: &str| kind.starts_with("nfs") || kind.starts_with("fuse") || matches!(kind, "cifs" | "smb3" | "9p" | "ceph");
    let foreign: Vec<&Path> = fields.by_ref().filter(|(_, kind)| is_remote(kind)).map(|(point, _)| Path::new(point)).collect();
    spec.mounts.iter().map(|mount| mount.source.as_path()).find(|source| foreign.iter().any(|point| source.starts_with(point)))
}

/// Docker's capabilities; without `MKNOD` where device files cannot be kept in check, on a kernel without the devices controller. `bare`: for a container
/// that is kept apart without ids of its own.
pub fn default_capabilities(machine: &Machine, bare: bool) -> Vec<&'static str> {
    let checked = machine.cgroups.restricts_devices();
    let keeps = |name: &&str| (checked || *name != "MKNOD") && !(bare && KEPT_BACK.contains(name));
    capabilities::DEFAULT.into_iter().filter(keeps).collect()
}

/// Of the default capabilities, those that reach beyond the container where its users are users of the machine. Where they are not, the kernel
/// itself lets them do nothing.
const KEPT_BACK: [&str; 2] = ["MKNOD", "NET_RAW"];

/// The one capability that may be added, as on Fargate.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_KernelCapabilities.html>
const ADDABLE: &str = "SYS_PTRACE";

/// Checks a specification.
///
/// # Errors
/// The text names the member.
pub fn check(spec: &ContainerSpec) -> Result<(), String> {
    if !spec.kept_apart {
        return Ok(());
    }
    let refuse = |member: &str| Err(format!("{member} cannot be asked for by a container that is kept apart from its machine"));
    let plain = |name: &str| name.to_ascii_uppercase().trim_start_matches("CAP_").to_owned();
    let security = security::parse(&spec.security_options, Modules::detect())?;
    if spec.privileged {
        refuse("privileged")
    } else if let Some(name) = spec.capabilities_add.iter().find(|name| plain(name) != ADDABLE) {
        refuse(&format!("linuxParameters.capabilities.add: {name}"))
    } else if !spec.devices.is_empty() || !spec.gpus.is_empty() {
        refuse("linuxParameters.devices")
    } else if spec.network == ContainerNetwork::Host {
        refuse("networkMode: host")
    } else if spec.pid == Sharing::Host || spec.ipc == Sharing::Host {
        refuse("pidMode or ipcMode: host")
    } else if security.seccomp_unconfined {
        refuse("dockerSecurityOptions: seccomp=unconfined")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::plain_spec;
    use crate::port::DeviceMapping;

    #[test]
    fn files_of_other_machines_keep_their_owners() {
        let mount = |source: &str| crate::port::BindMount {
            source: source.into(),
            destination: "/d".into(),
            read_only: false,
            owner: None,
            remote: true,
        };
        let with = |source: &str| ContainerSpec { mounts: vec![mount("/srv"), mount(source)], ..plain_spec("one", "") };
        let mountinfo = "22 1 254:0 / / rw shared:1 - ext4 /dev/vda rw\n36 22 0:40 / /v/t/data rw - nfs4 10.0.0.1:/ rw\n";
        assert_eq!(unmappable(&with("/v/t/data"), mountinfo), Some(Path::new("/v/t/data")));
        assert_eq!(unmappable(&with("/v/t/database"), mountinfo), None);
    }

    fn apart(change: impl FnOnce(&mut ContainerSpec)) -> Result<(), String> {
        let mut spec = plain_spec("one", "");
        spec.kept_apart = true;
        spec.network = ContainerNetwork::Namespace("/run/netns/x".into());
        change(&mut spec);
        check(&spec)
    }

    #[test]
    fn nothing_of_the_machine_can_be_asked_for() {
        let device = DeviceMapping { host_path: "/dev/null".into(), container_path: "/dev/null".into(), permissions: String::new() };
        let refused = [
            ("privileged", apart(|spec| spec.privileged = true)),
            ("capabilities.add: CAP_NET_ADMIN", apart(|spec| spec.capabilities_add = vec!["SYS_PTRACE".into(), "CAP_NET_ADMIN".into()])),
            ("capabilities.add: ALL", apart(|spec| spec.capabilities_add = vec!["ALL".into()])),
            ("devices", apart(|spec| spec.devices = vec![device])),
            ("networkMode", apart(|spec| spec.network = ContainerNetwork::Host)),
            ("pidMode", apart(|spec| spec.pid = Sharing::Host)),
            ("ipcMode", apart(|spec| spec.ipc = Sharing::Host)),
            ("seccomp", apart(|spec| spec.security_options = vec!["seccomp=unconfined".into()])),
        ];
        for (member, outcome) in refused {
            assert!(outcome.expect_err(member).contains(member), "{member}");
        }
        assert_eq!(apart(|spec| spec.capabilities_add = vec!["cap_sys_ptrace".into()]), Ok(()));
        assert_eq!(apart(|spec| spec.pid = Sharing::Task), Ok(()));
        assert_eq!(apart(|spec| (spec.kept_apart, spec.privileged) = (false, true)), Ok(()), "others may");
    }
}
