//! `cargo xtask tidy`: the house rules that a compiler does not know, each with what to do about a breach. It reads the
//! checkout and, with `--bless`, writes the size ratchet; nothing else.

use std::{
    error::Error,
    fmt, fs, io,
    path::{Path, PathBuf},
};

mod decisions;
mod edges;
mod lexer;
mod sizes;
mod sources;

/// Arguments of `cargo xtask tidy`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Rewrite xtask/file-sizes.txt with the sizes as they are, before checking.
    #[arg(long)]
    bless: bool,
}

/// A breach of a house rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Breach {
    /// The file, from the checkout's root.
    file: PathBuf,
    /// The line, from 1.
    line: usize,
    /// What is wrong.
    what: String,
    /// What to do.
    remedy: String,
}

impl Breach {
    fn new(file: impl Into<PathBuf>, line: usize, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { file: file.into(), line, what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}; {}", self.file.display(), self.line, self.what, self.remedy)
    }
}

/// A Rust source file of the checkout.
#[derive(Debug)]
struct Source {
    /// The file, from the checkout's root.
    path: PathBuf,
    text: String,
}

impl Source {
    fn is_generated(&self) -> bool {
        self.text.starts_with("// @generated")
    }

    /// The crate's folder below `crates/`, where it is one of those.
    fn member(&self) -> Option<&str> {
        self.path.strip_prefix("crates").ok()?.components().next()?.as_os_str().to_str()
    }

    /// Whether it is part of a crate's library or binary, not of its tests, benches or examples.
    fn is_product(&self) -> bool {
        self.path.components().nth(2).is_some_and(|part| part.as_os_str() == "src") && self.member().is_some()
    }
}

/// Checks the checkout.
pub fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let root = crate::workspace();
    let sources = sources(&root)?;
    if arguments.bless {
        sizes::bless(&root, &sources)?;
    }
    let breaches = check(&root, &sources)?;
    for breach in &breaches {
        println!("{breach}");
    }
    match breaches.len() {
        0 => Ok(()),
        count => Err(format!("{count} breaches of the house rules").into()),
    }
}

fn check(root: &Path, sources: &[Source]) -> io::Result<Vec<Breach>> {
    let mut breaches = edges::check(root)?;
    breaches.extend(sources::check(sources));
    breaches.extend(sizes::check(root, sources)?);
    breaches.extend(decisions::check(root)?);
    breaches.sort();
    Ok(breaches)
}

/// Every Rust file of the product and its chores, sorted.
fn sources(root: &Path) -> io::Result<Vec<Source>> {
    let mut paths = Vec::new();
    for folder in ["crates", "xtask", "examples"] {
        walk(&root.join(folder), &mut paths)?;
    }
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path)?;
        Ok(Source { path: path.strip_prefix(root).expect("it was found below the root").to_owned(), text })
    };
    paths.into_iter().map(read).collect()
}

fn walk(folder: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let name = entry.file_name();
        if kind.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
            walk(&path, paths)?;
        } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
    Ok(())
}

/// A checkout in a temporary folder, for the tests of the rules.
#[cfg(test)]
struct Checkout(tempfile::TempDir);

#[cfg(test)]
impl Checkout {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self(folder)
    }

    fn breaches(&self) -> Vec<String> {
        let sources = sources(self.0.path()).unwrap();
        check(self.0.path(), &sources).unwrap().iter().map(Breach::to_string).collect()
    }
}
