//! Resource limits by ECS's names, cut to what this machine may give.

use serde_json::{Value, json};

use crate::port::Ulimit;

/// ECS's names and the kernel's. <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Ulimit.html>
const NAMES: [(&str, &str, i32); 15] = [
    ("core", "RLIMIT_CORE", libc::RLIMIT_CORE as i32),
    ("cpu", "RLIMIT_CPU", libc::RLIMIT_CPU as i32),
    ("data", "RLIMIT_DATA", libc::RLIMIT_DATA as i32),
    ("fsize", "RLIMIT_FSIZE", libc::RLIMIT_FSIZE as i32),
    ("locks", "RLIMIT_LOCKS", libc::RLIMIT_LOCKS as i32),
    ("memlock", "RLIMIT_MEMLOCK", libc::RLIMIT_MEMLOCK as i32),
    ("msgqueue", "RLIMIT_MSGQUEUE", libc::RLIMIT_MSGQUEUE as i32),
    ("nice", "RLIMIT_NICE", libc::RLIMIT_NICE as i32),
    ("nofile", "RLIMIT_NOFILE", libc::RLIMIT_NOFILE as i32),
    ("nproc", "RLIMIT_NPROC", libc::RLIMIT_NPROC as i32),
    ("rss", "RLIMIT_RSS", libc::RLIMIT_RSS as i32),
    ("rtprio", "RLIMIT_RTPRIO", libc::RLIMIT_RTPRIO as i32),
    ("rttime", "RLIMIT_RTTIME", libc::RLIMIT_RTTIME as i32),
    ("sigpending", "RLIMIT_SIGPENDING", libc::RLIMIT_SIGPENDING as i32),
    ("stack", "RLIMIT_STACK", libc::RLIMIT_STACK as i32),
];

/// Open files where a task definition does not say: without, a container has what whoever started the agent happened to have,
/// often 1024. <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDefinition.html> (`ulimits`)
const DEFAULT_FILES: u64 = 65_535;

/// The OCI `rlimits`. Without CAP_SYS_RESOURCE (`may_raise`) a hard limit above this process's own cannot be set; it is cut,
/// with a warning, since a container that starts with less is of more use than one that does not.
///
/// # Errors
/// The text names the limit that is unknown or upside down.
pub fn rlimits(ulimits: &[Ulimit], may_raise: bool) -> Result<Vec<Value>, String> {
    let mut all = Vec::new();
    if !ulimits.iter().any(|wanted| wanted.name == "nofile") {
        let files = if may_raise { DEFAULT_FILES } else { DEFAULT_FILES.min(own_hard(libc::RLIMIT_NOFILE as i32)) };
        all.push(json!({"type": "RLIMIT_NOFILE", "soft": files, "hard": files}));
    }
    let named: Result<Vec<Value>, String> = ulimits
        .iter()
        .map(|wanted| {
            let (_, name, number) =
                NAMES.iter().find(|(name, ..)| *name == wanted.name).ok_or_else(|| format!("ulimits: unknown name {:?}", wanted.name))?;
            if wanted.soft > wanted.hard {
                return Err(format!("ulimits: {}: the soft limit is above the hard limit", wanted.name));
            }
            let own = own_hard(*number);
            let hard = if may_raise { wanted.hard } else { wanted.hard.min(own) };
            if hard < wanted.hard {
                tracing::warn!(name = wanted.name, wanted = wanted.hard, given = hard, "this machine cannot raise a limit so far");
            }
            Ok(json!({"type": name, "soft": wanted.soft.min(hard), "hard": hard}))
        })
        .collect();
    all.extend(named?);
    Ok(all)
}

fn own_hard(number: i32) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `limit` has room for what the kernel writes; on failure it keeps "no limit".
    unsafe { libc::getrlimit(number as _, &raw mut limit) };
    limit.rlim_max
}

/// The most of a limit, by ECS's name, that this process may give without raising its own; no limit for an unknown name.
pub fn own_hard_of(name: &str) -> u64 {
    NAMES.iter().find(|(known, ..)| *known == name).map_or(u64::MAX, |(.., number)| own_hard(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(name: &str, soft: u64, hard: u64) -> Ulimit {
        Ulimit { name: name.into(), soft, hard }
    }

    #[test]
    fn names_are_translated_and_limits_cut() {
        let given = rlimits(&[limit("nofile", 10, 20), limit("nofile", u64::MAX - 1, u64::MAX - 1)], false).unwrap();
        assert_eq!(given[0], json!({"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}));
        assert_eq!(given[1]["hard"], own_hard(libc::RLIMIT_NOFILE as i32));
        assert_eq!(given[1]["soft"], given[1]["hard"]);
        assert_eq!(rlimits(&[limit("nofile", 1, u64::MAX - 1)], true).unwrap()[0]["hard"], u64::MAX - 1);
    }

    #[test]
    fn open_files_do_not_depend_on_the_agents_own() {
        let given = rlimits(&[limit("core", 0, 0)], true).unwrap();
        assert_eq!(given[0], json!({"type": "RLIMIT_NOFILE", "soft": 65_535, "hard": 65_535}));
        assert_eq!(rlimits(&[limit("nofile", 1, 2)], true).unwrap().len(), 1);
        let own = own_hard(libc::RLIMIT_NOFILE as i32);
        assert_eq!(rlimits(&[], false).unwrap()[0]["hard"], own.min(65_535));
    }

    #[test]
    fn nonsense_is_named() {
        assert!(rlimits(&[limit("files", 1, 2)], true).unwrap_err().contains("\"files\""));
        assert!(rlimits(&[limit("core", 3, 2)], true).unwrap_err().contains("core: the soft limit"));
    }
}
