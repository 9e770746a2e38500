//! File sizes as a ratchet: a file over 500 lines is listed with the size it had and may only shrink; none may pass
//! 1,000. Generated files do not count.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::{Breach, Source};

const LIST: &str = "xtask/file-sizes.txt";
/// Lines that need no entry.
const FREE: usize = 500;
/// Lines that no entry allows.
const NEVER: usize = 1000;

/// Checks sizes against the list.
pub fn check(root: &Path, sources: &[Source]) -> io::Result<Vec<Breach>> {
    let sizes = sizes(sources);
    let list = read(root)?;
    let mut breaches = Vec::new();
    for (path, lines) in &sizes {
        let allowed = list.iter().find(|(_, listed, _)| listed == path).map_or(FREE, |(.., allowed)| *allowed).min(NEVER);
        if *lines > allowed {
            let what = format!("{lines} lines, {allowed} allowed");
            breaches.push(Breach::new(path, *lines, what, "split it by noun; the ratchet only goes down"));
        }
    }
    for (line, path, _) in &list {
        if sizes.get(path).is_none_or(|lines| *lines <= FREE) {
            let what = format!("{} needs no entry any more", path.display());
            breaches.push(Breach::new(LIST, *line, what, "run `cargo xtask tidy --bless`"));
        }
    }
    Ok(breaches)
}

/// Writes the list with the sizes as they are.
pub fn bless(root: &Path, sources: &[Source]) -> io::Result<()> {
    let mut text = String::from("# Files over 500 lines and the most they may have; `cargo xtask tidy --bless` rewrites it.\n");
    for (path, lines) in sizes(sources).iter().filter(|(_, lines)| (FREE + 1..=NEVER).contains(*lines)) {
        text.push_str(&format!("{} {lines}\n", path.display()));
    }
    fs::write(root.join(LIST), text)
}

fn sizes(sources: &[Source]) -> BTreeMap<PathBuf, usize> {
    let written = sources.iter().filter(|source| !source.is_generated());
    written.map(|source| (source.path.clone(), source.text.lines().count())).collect()
}

/// The list: line, file, lines allowed. A line that is neither is an entry for nothing, and reported as such.
fn read(root: &Path) -> io::Result<Vec<(usize, PathBuf, usize)>> {
    let text = match fs::read_to_string(root.join(LIST)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let entry = |(index, line): (usize, &str)| {
        let (path, allowed) = line.rsplit_once(' ').unwrap_or((line, "0"));
        (index + 1, PathBuf::from(path), allowed.parse().unwrap_or(0))
    };
    Ok(lines.map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Checkout, sources},
        *,
    };

    #[test]
    fn the_ratchet_holds_and_is_lowered() {
        let file = |lines: usize| format!("//! x\n{}", "\n".repeat(lines - 1));
        let generated = format!("// @generated\n{}", file(3000));
        let checkout = Checkout::new(&[
            ("crates/store/src/small.rs", &file(500)),
            ("crates/store/src/grown.rs", &file(700)),
            ("crates/store/src/new.rs", &file(501)),
            ("crates/store/src/huge.rs", &file(1001)),
            ("crates/store/src/made.rs", &generated),
            (LIST, "# head\ncrates/store/src/grown.rs 699\ncrates/store/src/huge.rs 2000\ncrates/store/src/small.rs 600\ngone.rs 600\n"),
        ]);
        let starts = |checkout: &Checkout| {
            let short = |breach: String| breach.split(';').next().unwrap().replace("crates/store/src/", "");
            checkout.breaches().into_iter().map(short).collect::<Vec<_>>()
        };
        assert_eq!(
            starts(&checkout),
            [
                "grown.rs:700: 700 lines, 699 allowed",
                "huge.rs:1001: 1001 lines, 1000 allowed",
                "new.rs:501: 501 lines, 500 allowed",
                "xtask/file-sizes.txt:4: small.rs needs no entry any more",
                "xtask/file-sizes.txt:5: gone.rs needs no entry any more",
            ]
        );
        bless(checkout.0.path(), &sources(checkout.0.path()).unwrap()).unwrap();
        assert_eq!(starts(&checkout), ["huge.rs:1001: 1001 lines, 500 allowed"], "blessing does not help beyond the limit");
    }
}
