//! The decision records: `docs/decisions/NNNN-title.md`, numbered without gaps, so that a number names one for ever.

use std::{collections::BTreeMap, fs, io, path::Path};

use super::Breach;

const FOLDER: &str = "docs/decisions";

/// Checks the numbers.
pub fn check(root: &Path) -> io::Result<Vec<Breach>> {
    let entries = match fs::read_dir(root.join(FOLDER)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut breaches = Vec::new();
    let mut numbers: BTreeMap<u32, String> = BTreeMap::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name == "README.md" {
            continue;
        }
        let path = Path::new(FOLDER).join(&name);
        let number = name.split_once('-').and_then(|(number, _)| number.parse().ok());
        match number.filter(|_| name.ends_with(".md")) {
            None => breaches.push(Breach::new(path, 1, "not a numbered record", "name it NNNN-title.md")),
            Some(number) => {
                if let Some(other) = numbers.insert(number, name) {
                    breaches.push(Breach::new(path, 1, format!("number {number} is also {other}"), "give the newer one the next number"));
                }
            }
        }
    }
    // Counting may begin at 0 or at 1.
    let first = numbers.keys().next().copied().unwrap_or(0).min(1);
    for (expected, (number, name)) in (first..).zip(&numbers) {
        if expected != *number {
            let what = format!("number {expected} is missing before {number}");
            breaches.push(Breach::new(Path::new(FOLDER).join(name), 1, what, "number records without gaps"));
            break;
        }
    }
    Ok(breaches)
}

#[cfg(test)]
mod tests {
    use super::super::Checkout;

    #[test]
    fn gaps_twins_and_strangers() {
        let good = [("docs/decisions/0001-a.md", ""), ("docs/decisions/0002-b.md", ""), ("docs/decisions/README.md", "")];
        assert_eq!(Checkout::new(&good).breaches(), [""; 0]);
        let gap = [("docs/decisions/0001-a.md", ""), ("docs/decisions/0003-b.md", ""), ("docs/decisions/notes.md", "")];
        let breaches = Checkout::new(&gap).breaches();
        assert!(breaches[0].contains("number 2 is missing before 3"), "{breaches:?}");
        assert!(breaches[1].contains("not a numbered record"), "{breaches:?}");
        let twins = [("docs/decisions/0001-a.md", ""), ("docs/decisions/0001-b.md", "")];
        assert!(Checkout::new(&twins).breaches()[0].contains("is also"));
    }
}
