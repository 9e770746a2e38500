//! What the black-box suite has shown, as its tables in `tests/` hold it: calls and errors seen, errors that cannot happen, members that
//! are refused or only stored. The suite itself holds these tables against what it sees.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// What `seen.json` calls an answer that is no error.
const GOOD: &str = "ok";
/// Most test files named in the short table.
const FEW: usize = 3;
/// These call every action; they say nothing of one.
const EVERYWHERE: [&str; 3] = ["test_errors.py", "test_members.py", "test_model.py"];

/// Errors by action, then what belongs to each.
type Table<T> = BTreeMap<String, BTreeMap<String, T>>;

/// All tables.
pub(super) struct Evidence {
    /// `seen.json`: action, error or [`GOOD`], test files.
    seen: Table<Vec<String>>,
    /// `cannot_happen.json`.
    impossible: Vec<Impossible>,
    /// `members.json`.
    members: Members,
}

/// Why a documented error cannot happen here.
#[derive(Deserialize)]
struct Impossible {
    error: String,
    why: String,
    /// Of these actions; absent means of all.
    actions: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Members {
    /// Action, member or `member=value`, the error that refuses it.
    refused: Table<String>,
    stored: Vec<Stored>,
}

/// Members that are checked, kept and shown, and on which nothing acts.
#[derive(Deserialize)]
struct Stored {
    why: String,
    members: BTreeMap<String, Vec<String>>,
}

impl Evidence {
    /// Reads the tables.
    ///
    /// # Errors
    /// If one cannot be read, or is about an action that is not among `operations`; the text names the file.
    pub(super) fn read(tests: &Path, operations: &[String]) -> Result<Self, Box<dyn Error>> {
        let this = Self {
            seen: table(tests, "seen.json")?,
            impossible: table(tests, "cannot_happen.json")?,
            members: table(tests, "members.json")?,
        };
        let stored = this.members.stored.iter().flat_map(|group| group.members.keys());
        let explained = this.impossible.iter().flat_map(|row| row.actions.iter().flatten());
        for action in this.seen.keys().chain(this.members.refused.keys()).chain(stored).chain(explained) {
            if !operations.contains(action) {
                return Err(format!("a table in {} is about {action}, which is no action", tests.display()).into());
            }
        }
        Ok(this)
    }

    /// The errors column: how many were provoked.
    pub(super) fn errors(&self, action: &str) -> String {
        match self.errors_seen(action).count() {
            1 => "1 error".to_owned(),
            count => format!("{count} errors"),
        }
    }

    /// The errors column where no section follows: which were provoked.
    pub(super) fn errors_named(&self, action: &str) -> String {
        let names: Vec<_> = self.errors_seen(action).map(|(error, _)| format!("`{error}`")).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }

    /// The tests column: the first few files that call the action.
    pub(super) fn tests(&self, action: &str) -> String {
        let files: Vec<_> = self.files(action).into_iter().filter(|file| !EVERYWHERE.contains(file)).collect();
        let few: Vec<_> = files.iter().take(FEW).map(|file| format!("`{file}`")).collect();
        match files.len().saturating_sub(FEW) {
            0 => few.join(", "),
            more => format!("{} and {more} more", few.join(", ")),
        }
    }

    /// The errors that no action has here, with the reasons.
    pub(super) fn general(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        for row in self.impossible.iter().filter(|row| row.actions.is_none()) {
            writeln!(text, "- `{}`: {}.", row.error, row.why)?;
        }
        Ok(text)
    }

    /// What there is to say of one action.
    pub(super) fn section(&self, action: &str) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        let refused = self.members.refused.get(action);
        let summary = format!("{action}: {}, {} refused", self.errors(action), count(refused.map_or(0, BTreeMap::len), "member"));
        write!(text, "<details><summary>{summary}</summary>\n\n")?;
        let seen: Vec<_> = self.errors_seen(action).map(|(error, files)| format!("`{error}` ({})", files.join(", "))).collect();
        writeln!(text, "- Errors provoked: {}.", seen.join("; "))?;
        for row in &self.impossible {
            if row.actions.as_ref().is_some_and(|actions| actions.iter().any(|one| one == action)) {
                writeln!(text, "- `{}` cannot happen: {}.", row.error, row.why)?;
            }
        }
        let mut by_error: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (member, error) in refused.into_iter().flatten() {
            by_error.entry(error).or_default().push(format!("`{member}`"));
        }
        for (error, members) in by_error {
            writeln!(text, "- Refused with `{error}`: {}.", members.join(", "))?;
        }
        for group in &self.members.stored {
            if let Some(members) = group.members.get(action) {
                let members: Vec<_> = members.iter().map(|member| format!("`{member}`")).collect();
                writeln!(text, "- Only stored, {}: {}.", group.why, members.join(", "))?;
            }
        }
        writeln!(text, "- Called in {}.\n\n</details>\n", self.files(action).into_iter().collect::<Vec<_>>().join(", "))?;
        Ok(text)
    }

    fn errors_seen(&self, action: &str) -> impl Iterator<Item = (&String, &Vec<String>)> {
        self.seen.get(action).into_iter().flatten().filter(|(error, _)| *error != GOOD)
    }

    fn files(&self, action: &str) -> BTreeSet<&str> {
        self.seen.get(action).into_iter().flatten().flat_map(|(_, files)| files).map(String::as_str).collect()
    }
}

fn count(number: usize, of: &str) -> String {
    match number {
        0 => format!("no {of}s"),
        1 => format!("1 {of}"),
        number => format!("{number} {of}s"),
    }
}

fn table<T: DeserializeOwned>(tests: &Path, name: &str) -> Result<T, Box<dyn Error>> {
    let path = tests.join(name);
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence() -> Evidence {
        let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        Evidence {
            seen: serde_json::from_value(json(r#"{"A": {"XException": ["a.py"], "ok": ["a.py", "b.py", "c.py", "d.py", "e.py"]}}"#))
                .unwrap(),
            impossible: serde_json::from_value(json(
                r#"[{"error": "S", "why": "never"}, {"error": "Y", "why": "no reason", "actions": ["A"]}]"#,
            ))
            .unwrap(),
            members: serde_json::from_value(json(
                r#"{"refused": {"A": {"m": "U", "n=V": "U"}}, "stored": [{"why": "nothing acts", "members": {"A": ["p"], "B": ["q"]}}]}"#,
            ))
            .unwrap(),
        }
    }

    #[test]
    fn an_action_is_told_from_all_tables() {
        let evidence = evidence();
        assert_eq!(evidence.errors("A"), "1 error");
        assert_eq!((evidence.errors_named("A").as_str(), evidence.errors_named("B").as_str()), ("`XException`", "none"));
        assert_eq!(evidence.tests("A"), "`a.py`, `b.py`, `c.py` and 2 more");
        assert_eq!(evidence.general().unwrap(), "- `S`: never.\n");
        let section = evidence.section("A").unwrap();
        for line in [
            "<summary>A: 1 error, 2 members refused</summary>",
            "- Errors provoked: `XException` (a.py).",
            "- `Y` cannot happen: no reason.",
            "- Refused with `U`: `m`, `n=V`.",
            "- Only stored, nothing acts: `p`.",
            "- Called in a.py, b.py, c.py, d.py, e.py.",
        ] {
            assert!(section.contains(line), "{line} is not in {section}");
        }
        assert!(!section.contains("`q`") && !section.contains("`S`"));
    }

    #[test]
    fn a_table_about_no_action_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("seen.json"), r#"{"Gone": {}}"#).unwrap();
        fs::write(dir.path().join("cannot_happen.json"), "[]").unwrap();
        fs::write(dir.path().join("members.json"), r#"{"refused": {}, "stored": []}"#).unwrap();
        let error = Evidence::read(dir.path(), &["A".to_owned()]).err().expect("it is refused").to_string();
        assert!(error.contains("Gone"), "{error}");
    }
}
