//! Which runtime runs this machine's containers: said by a setting, or found. Once tasks run in one, the data directory keeps to it:
//! another would not find them.

use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// The setting `--runtime`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum RuntimeChoice {
    /// Native as root; without root Docker, if it answers
    #[default]
    Auto,
    /// Berth's own; needs root
    Native,
    /// The Docker Engine at DOCKER_HOST
    Docker,
}

/// The runtimes that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chosen {
    Native,
    Docker,
}

impl Chosen {
    fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Docker => "docker",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Native, Self::Docker].into_iter().find(|chosen| chosen.name() == text.trim())
    }
}

/// Whether Docker could be what [`choose`] chooses.
pub(crate) fn may_be_docker(choice: RuntimeChoice, is_root: bool, used: Option<Chosen>) -> bool {
    match choice {
        RuntimeChoice::Native => false,
        RuntimeChoice::Docker => true,
        RuntimeChoice::Auto => used.map_or(!is_root, |used| used == Chosen::Docker),
    }
}

/// Decides. `used` is what the data directory's tasks run in; `docker` says why Docker cannot be used, if it cannot.
pub(crate) fn choose(
    choice: RuntimeChoice,
    is_root: bool,
    used: Option<Chosen>,
    docker: &Result<(), String>,
) -> Result<Chosen, (&'static str, String)> {
    let chosen = match (choice, used) {
        (RuntimeChoice::Native, _) => Chosen::Native,
        (RuntimeChoice::Docker, _) => Chosen::Docker,
        (RuntimeChoice::Auto, Some(used)) => used,
        (RuntimeChoice::Auto, None) if is_root => Chosen::Native,
        (RuntimeChoice::Auto, None) => Chosen::Docker,
    };
    if let Some(used) = used.filter(|used| *used != chosen) {
        let text = format!(
            "the tasks of this data directory run in {}, which {} would not find; end them with `berth down` first, or give another --data-dir",
            used.name(),
            chosen.name()
        );
        return Err(("runtime", text));
    }
    match (chosen, docker) {
        (Chosen::Native, _) if !is_root => {
            let text = "running containers needs root for namespaces, mounts and cgroups; start it with sudo, use Docker with \
                        --runtime docker, or use `berth server` alone";
            Err(("agent", text.to_owned()))
        }
        (Chosen::Docker, Err(problem)) if choice == RuntimeChoice::Auto && used.is_none() => {
            let text = format!(
                "running containers needs root for namespaces, mounts and cgroups, or Docker: start it with sudo, or make Docker's socket \
                 usable ({problem}), or use `berth server` alone"
            );
            Err(("agent", text))
        }
        (Chosen::Docker, Err(problem)) => Err(("runtime", problem.clone())),
        _ => Ok(chosen),
    }
}

/// Where a data directory says what its tasks run in.
fn file(dir: &Path) -> PathBuf {
    dir.join("runtime")
}

/// What the tasks of a data directory run in.
pub(crate) fn used(dir: &Path) -> Option<Chosen> {
    Chosen::parse(&std::fs::read_to_string(file(dir)).ok()?)
}

/// Remembers it.
pub(crate) fn remember(dir: &Path, chosen: Chosen) -> Result<(), Failure> {
    let written = std::fs::create_dir_all(dir).and_then(|()| std::fs::write(file(dir), chosen.name()));
    written.map_err(|error| Failure::setting("--data-dir", format!("{}: {error}", file(dir).display())))
}

/// No task is left; the next start may choose anew.
pub(crate) fn forget(dir: &Path) {
    let _ = std::fs::remove_file(file(dir));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gets_what() {
        let (here, gone) = (Ok(()), Err("there is no such socket".to_owned()));
        let (native, docker) = (Some(Chosen::Native), Some(Chosen::Docker));
        assert!(!may_be_docker(RuntimeChoice::Auto, true, native) && !may_be_docker(RuntimeChoice::Native, false, docker));
        assert!(may_be_docker(RuntimeChoice::Auto, false, None) && may_be_docker(RuntimeChoice::Auto, true, docker));
        for (choice, is_root, used, answers, expected) in [
            (RuntimeChoice::Auto, true, None, &gone, native),
            (RuntimeChoice::Auto, true, docker, &here, docker),
            (RuntimeChoice::Auto, false, None, &here, docker),
            (RuntimeChoice::Docker, true, None, &here, docker),
            (RuntimeChoice::Native, true, native, &here, native),
            (RuntimeChoice::Auto, false, None, &gone, None),
            (RuntimeChoice::Auto, false, native, &here, None),
            (RuntimeChoice::Native, false, None, &here, None),
            (RuntimeChoice::Docker, true, None, &gone, None),
            (RuntimeChoice::Docker, true, native, &here, None),
            (RuntimeChoice::Native, true, docker, &here, None),
        ] {
            assert_eq!(choose(choice, is_root, used, answers).ok(), expected, "{choice:?} {is_root} {used:?} {answers:?}");
        }
        let (_, text) = choose(RuntimeChoice::Auto, false, None, &gone).unwrap_err();
        assert!(text.contains("sudo") && text.contains("Docker's socket") && text.contains("there is no such socket"), "{text}");
    }
}
