//! Trials of what only trying shows: mounts, networks. Each runs on a thread in namespaces of its own, which stand for the machine: nothing of
//! the machine is changed, and nothing is left.

use std::ffi::CString;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use berth_network::linux::{BridgeConfig, BridgeNetwork};
use berth_network::port::{AttachmentId, AttachmentKind, Network, PortRequest, Protocol};

/// Why a trial failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The trial could not even begin.
    #[error("{step}: {source}")]
    Begin {
        /// Where.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
    /// What was tried.
    #[error("{0}")]
    Overlay(io::Error),
    /// What was tried.
    #[error("{0}")]
    Network(String),
}

/// Runs a trial in mount and network namespaces of its own.
fn apart<T: Send>(trial: impl FnOnce() -> Result<T, Trouble> + Send) -> Result<T, Trouble> {
    let begin = |step| move |source| Trouble::Begin { step, source };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: unshare has no memory arguments, and the thread ends with the namespaces.
            check(unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWNET) }).map_err(begin("make namespaces"))?;
            // SAFETY: all strings are literals that end with NUL; no data is passed.
            let private = unsafe {
                libc::mount(std::ptr::null(), c"/".as_ptr(), std::ptr::null(), libc::MS_REC | libc::MS_PRIVATE, std::ptr::null())
            };
            check(private).map_err(begin("make mounts private"))?;
            trial()
        });
        thread.join().unwrap_or_else(|_| Err(Trouble::Begin { step: "run the trial", source: io::Error::other("it broke off") }))
    })
}

fn check(outcome: libc::c_int) -> io::Result<()> {
    if outcome == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A folder that is removed with all it has.
struct Scratch(PathBuf);

impl Scratch {
    fn make(below: &Path) -> io::Result<Self> {
        let path = below.join(format!(".berth-doctor-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    fn folder(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.0.join(name);
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The mounts in it went with their namespace.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Mounts an overlay below `folder` and writes through it.
///
/// # Errors
/// [`Trouble`].
pub(super) fn overlay(folder: &Path) -> Result<(), Trouble> {
    let begin = |source| Trouble::Begin { step: "make folders", source };
    let scratch = Scratch::make(folder).map_err(begin)?;
    let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| scratch.folder(name));
    let (lower, upper, work, merged) = (lower.map_err(begin)?, upper.map_err(begin)?, work.map_err(begin)?, merged.map_err(begin)?);
    std::fs::write(lower.join("below"), "lower").map_err(begin)?;
    let mut options = b"lowerdir=".to_vec();
    options.extend_from_slice(lower.as_os_str().as_bytes());
    for (name, path) in [(",upperdir=", &upper), (",workdir=", &work)] {
        options.extend_from_slice(name.as_bytes());
        options.extend_from_slice(path.as_os_str().as_bytes());
    }
    let text = |bytes: Vec<u8>| CString::new(bytes).map_err(|error| begin(error.into()));
    let (options, target) = (text(options)?, text(merged.as_os_str().as_bytes().to_vec())?);
    apart(|| {
        // SAFETY: every string ends with NUL and outlives the call.
        let mounted = unsafe { libc::mount(c"overlay".as_ptr(), target.as_ptr(), c"overlay".as_ptr(), 0, options.as_ptr().cast()) };
        check(mounted).map_err(Trouble::Overlay)?;
        let written = std::fs::write(merged.join("above"), "upper").and_then(|()| std::fs::read(merged.join("below")));
        let outcome = written.map(drop).map_err(Trouble::Overlay);
        // SAFETY: the string ends with NUL and outlives the call.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
        outcome
    })
}

/// Makes the network that tasks get, with one container and one published port: bridge, namespace, veth pair, packet filter.
///
/// # Errors
/// [`Trouble`].
pub(super) fn network() -> Result<Ipv4Addr, Trouble> {
    let begin = |source| Trouble::Begin { step: "make folders", source };
    let scratch = Scratch::make(&std::env::temp_dir()).map_err(begin)?;
    let mut config = BridgeConfig::new("doctor", scratch.folder("state").map_err(begin)?, scratch.folder("netns").map_err(begin)?);
    config.subnet_lock = scratch.0.join("subnet.lock");
    apart(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|source| Trouble::Begin { step: "start the trial", source })?;
        let failed = |error: &dyn std::fmt::Display| Trouble::Network(error.to_string());
        let network = BridgeNetwork::open(config).map_err(|error| failed(&error))?;
        runtime.block_on(async {
            let id = AttachmentId("doctor-0".to_owned());
            let attachment = network.attach(&id, AttachmentKind::Bridge).await.map_err(|error| failed(&error))?;
            let port = PortRequest { container_port: 80, host_port: None, protocol: Protocol::Tcp };
            let published = network.publish(&id, &[port]).await.map(drop).map_err(|error| failed(&error));
            network.detach(&id).await.map_err(|error| failed(&error))?;
            network.shutdown().await.map_err(|error| failed(&error))?;
            published?;
            attachment.address.ok_or_else(|| Trouble::Network("the container got no address".to_owned()))
        })
    })
}
