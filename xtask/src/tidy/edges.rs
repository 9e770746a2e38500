//! Which crate may depend on which: ARCHITECTURE.md's floors as a table. Tests may look anywhere; the product may not.

use std::{fs, io, path::Path};

use super::Breach;

/// A crate's allowed edges within the workspace; `None` for any.
type Edges = (&'static str, Option<&'static [&'static str]>);

const EDGES: &[Edges] = &[
    ("shapes", Some(&[])),
    ("model", Some(&["shapes"])),
    ("scheduler", Some(&["model"])),
    ("identity", Some(&[])),
    ("store", Some(&["model"])),
    ("telemetry", Some(&[])),
    ("acs", Some(&[])),
    ("runtime", Some(&[])),
    ("shim", Some(&[])),
    ("network", Some(&[])),
    ("agent", Some(&["acs", "identity", "network", "runtime", "shapes"])),
    ("balancer", Some(&[])),
    ("registry", Some(&[])),
    ("control", Some(&["acs", "identity", "model", "scheduler", "shapes", "store", "telemetry"])),
    ("api", Some(&["acs", "control", "identity", "model", "registry", "scheduler", "shapes", "store", "telemetry"])),
    ("cli", Some(&["identity", "shapes"])),
    ("berth", Some(&["agent", "api", "cli", "control", "identity", "model", "network", "registry", "runtime", "store", "telemetry"])),
    ("sim", None),
];

/// Outside crates that a crate must do without, and why.
const BANNED: &[(&str, &[&str], &str)] = &[
    ("model", &["tokio", "hyper", "rand"], "a noun waits for nothing, and gets its randomness as an argument"),
    ("scheduler", &["tokio", "hyper", "rand"], "a decision is a synchronous function of its view"),
    ("identity", &["tokio", "hyper", "rand"], "a verification is a function of the request and the time"),
    ("shim", &["tokio"], "it forks, which a multi-threaded process must not"),
];

/// Checks the manifests of `crates/*`.
pub fn check(root: &Path) -> io::Result<Vec<Breach>> {
    let mut breaches = Vec::new();
    let mut members: Vec<_> = match fs::read_dir(root.join("crates")) {
        Ok(entries) => entries.collect::<Result<_, _>>()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    members.sort_by_key(fs::DirEntry::file_name);
    for member in members {
        let manifest = member.path().join("Cargo.toml");
        let name = member.file_name().to_string_lossy().into_owned();
        if manifest.exists() {
            check_member(&name, &fs::read_to_string(&manifest)?, &mut breaches);
        }
    }
    Ok(breaches)
}

fn check_member(name: &str, manifest: &str, breaches: &mut Vec<Breach>) {
    let file = format!("crates/{name}/Cargo.toml");
    let Some((_, allowed)) = EDGES.iter().find(|(member, _)| *member == name) else {
        let remedy = "add it to ARCHITECTURE.md and to EDGES in xtask/src/tidy/edges.rs";
        breaches.push(Breach::new(file, 1, format!("crate {name} has no floor"), remedy));
        return;
    };
    for (line, dependency) in dependencies(manifest) {
        if let (Some(edge), Some(allowed)) = (dependency.strip_prefix("berth-"), allowed)
            && !allowed.contains(&edge)
        {
            let may = if allowed.is_empty() { "nothing of the workspace".to_owned() } else { allowed.join(", ") };
            breaches.push(Breach::new(
                &file,
                line,
                format!("{name} must not depend on {edge}"),
                format!("it may use {may}: move the code down a floor, or take what it needs as an argument"),
            ));
        }
        for (_, banned, why) in BANNED.iter().filter(|(member, ..)| *member == name) {
            if banned.contains(&dependency.as_str()) {
                breaches.push(Breach::new(&file, line, format!("{name} must not depend on {dependency}"), format!("remove it: {why}")));
            }
        }
    }
}

/// The dependencies of a manifest with their lines, those of tests left out.
fn dependencies(manifest: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut inside = false;
    for (index, line) in manifest.lines().enumerate() {
        let line = line.trim();
        if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            // `[dependencies]`, `[target.'cfg(unix)'.dependencies]`, `[dependencies.serde]`.
            let parts: Vec<&str> = section.rsplitn(2, "dependencies").collect();
            let (after, before) = (parts[0], parts.get(1).copied());
            let ours =
                before.is_some_and(|before| !before.ends_with("dev-") && matches!(before.as_bytes().last(), None | Some(b'.' | b'-')));
            inside = ours && after.is_empty();
            if let Some(name) = after.strip_prefix('.').filter(|_| ours) {
                found.push((index + 1, name.trim_matches('"').to_owned()));
            }
        } else if inside && !line.starts_with('#') {
            let name: String = line.chars().take_while(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_')).collect();
            // A wrapped array or table goes on with a bracket or a quote.
            if !name.is_empty() && line[name.len()..].trim_start().starts_with(['=', '.']) {
                found.push((index + 1, name));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{super::Checkout, *};

    #[test]
    fn every_form_of_a_dependency_is_seen() {
        let manifest = "[package]\nname = \"x\"\n[dependencies]\na = \"1\"\nb.workspace = true\n# c = \"1\"\nd = { version = \"1\", features = [\n \"e\",\n] }\n\
                        [dev-dependencies]\nf = \"1\"\n[target.'cfg(unix)'.dependencies]\ng = \"1\"\n[dependencies.h]\nversion = \"1\"\n[build-dependencies]\ni = \"1\"\n\
                        [dev-dependencies.j]\nversion = \"1\"\n[features]\nk = []\n";
        let names: Vec<_> = dependencies(manifest).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["a", "b", "d", "g", "h", "i"]);
    }

    #[test]
    fn edges_and_bans() {
        let checkout = Checkout::new(&[
            (
                "crates/scheduler/Cargo.toml",
                "[dependencies]\nberth-model.workspace = true\nberth-store.workspace = true\nrand = \"1\"\n[dev-dependencies]\ntokio = \"1\"\n",
            ),
            ("crates/shim/Cargo.toml", "[dependencies]\ntokio = \"1\"\n"),
            ("crates/sim/Cargo.toml", "[dependencies]\nberth-store.workspace = true\n"),
            ("crates/novel/Cargo.toml", "[dependencies]\n"),
        ]);
        let breaches = checkout.breaches();
        let starts: Vec<_> = breaches.iter().map(|breach| breach.split(';').next().unwrap()).collect();
        assert_eq!(
            starts,
            [
                "crates/novel/Cargo.toml:1: crate novel has no floor",
                "crates/scheduler/Cargo.toml:3: scheduler must not depend on store",
                "crates/scheduler/Cargo.toml:4: scheduler must not depend on rand",
                "crates/shim/Cargo.toml:2: shim must not depend on tokio",
            ]
        );
    }
}
