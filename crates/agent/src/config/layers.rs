//! Where settings come from, strongest first: the environment, a file of `NAME=VALUE` lines, a file of JSON. Each value remembers its
//! place, so that an error can name the file and the line. Pure: whoever reads the files is elsewhere.

use std::collections::BTreeMap;

use super::json_file;

/// A file of settings larger than this is a mistake.
pub const MOST_FILE_BYTES: usize = 1 << 20;

/// A file that is no file of settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}{}: {problem}", line.map(|line| format!(", line {line}")).unwrap_or_default())]
pub struct FileError {
    /// Its path or URL.
    pub file: String,
    /// Where in it, from 1.
    pub line: Option<usize>,
    /// What is wrong there. Never a value: it may be a password.
    pub problem: String,
}

/// A value and where it stands.
#[derive(Clone, PartialEq, Eq)]
pub struct Given {
    /// The value, as text.
    pub text: String,
    /// `the environment`, or the file with line or member.
    pub place: String,
}

impl std::fmt::Debug for Given {
    /// The place alone: the value may be a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Given").field("place", &self.place).finish_non_exhaustive()
    }
}

/// The settings of one place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layer {
    pub(super) values: BTreeMap<String, Given>,
    /// Members of a JSON file that no variable stands for.
    pub(super) strangers: Vec<String>,
    pub(super) is_environment: bool,
}

impl Layer {
    /// The environment's variables.
    #[must_use]
    pub fn environment(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let place = "the environment".to_owned();
        let values = variables.into_iter().map(|(name, text)| (name, Given { text, place: place.clone() })).collect();
        Self { values, strangers: Vec::new(), is_environment: true }
    }

    /// A file of variables, a line each, as `/etc/ecs/ecs.config` has them: blanks around a line do not count, nor do empty lines and
    /// those that begin with `#`; quotes are part of the value; of a name that comes twice the last one counts.
    ///
    /// # Errors
    /// [`FileError`] that names the line. ecs-init passes over lines that it does not understand; then nobody learns of a mistake.
    pub fn lines(file: &str, text: &str) -> Result<Self, FileError> {
        let mut values = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let number = index + 1;
            let fail = |problem: &str| FileError { file: file.to_owned(), line: Some(number), problem: problem.to_owned() };
            let (name, value) = line.split_once('=').ok_or_else(|| fail("is not NAME=VALUE"))?;
            let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || !name.chars().all(legal) || name.starts_with(|c: char| c.is_ascii_digit()) {
                return Err(fail("what stands before the = is no name of a variable (letters, digits and _)"));
            }
            let given = Given { text: value.trim().to_owned(), place: format!("{file}, line {number}") };
            values.insert(name.to_owned(), given);
        }
        Ok(Self { values, ..Self::default() })
    }

    /// amazon-ecs-agent's JSON file, `/etc/ecs_container_agent/config.json`: an object of the members of its `Config`.
    ///
    /// # Errors
    /// [`FileError`] that names the line, or the member.
    pub fn json(file: &str, text: &str) -> Result<Self, FileError> {
        json_file::read(file, text)
    }
}

/// All places together.
#[derive(Debug, Clone, Default)]
pub struct Settings(Vec<Layer>);

impl Settings {
    /// Adds a place that is weaker than those before.
    #[must_use]
    pub fn then(mut self, layer: Layer) -> Self {
        self.0.push(layer);
        self
    }

    /// A variable's value. An empty one counts as none, as everywhere with these variables, and a weaker place's shows.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Given> {
        self.0.iter().find_map(|layer| layer.values.get(name).filter(|given| !given.text.trim().is_empty()))
    }

    /// All that is set, by name: of files everything, of the environment what is the agent's by its name.
    pub(super) fn all(&self) -> BTreeMap<&str, &Given> {
        let is_agents = |name: &str| name.starts_with("ECS_") || name.starts_with("NON_ECS_") || name.starts_with("NONECS_");
        let mut all = BTreeMap::new();
        for layer in &self.0 {
            for (name, given) in &layer.values {
                if !given.text.trim().is_empty() && (!layer.is_environment || is_agents(name) || super::variables::find(name).is_some()) {
                    all.entry(name.as_str()).or_insert(given);
                }
            }
        }
        all
    }

    /// Members of JSON files that no variable stands for.
    pub(super) fn strangers(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|layer| layer.strangers.iter().map(String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(pairs: &[(&str, &str)]) -> Layer {
        Layer::environment(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn lines_as_ecs_init_reads_them() {
        let text = "# a comment\n\n  ECS_CLUSTER = not me\n";
        assert_eq!(
            Layer::lines("f", text).unwrap_err().to_string(),
            "f, line 3: what stands before the = is no name of a variable (letters, digits and _)"
        );
        let text = "ECS_CLUSTER=one\r\n ECS_INSTANCE_ATTRIBUTES={\"a\": \"b=c\"} \nECS_CLUSTER=two\nX=\"quoted\"";
        let layer = Layer::lines("f", text).unwrap();
        let value = |name: &str| layer.values[name].text.as_str();
        assert_eq!((value("ECS_CLUSTER"), value("X")), ("two", "\"quoted\""));
        assert_eq!(value("ECS_INSTANCE_ATTRIBUTES"), "{\"a\": \"b=c\"}");
        assert_eq!(layer.values["ECS_CLUSTER"].place, "f, line 3");
        assert_eq!(Layer::lines("f", "A=1\nexport B=2").unwrap_err().line, Some(2));
        assert_eq!(Layer::lines("f", "A=1\nnothing").unwrap_err().to_string(), "f, line 2: is not NAME=VALUE");
    }

    #[test]
    fn the_stronger_place_shows_unless_it_is_empty() {
        let file = Layer::lines("f", "ECS_CLUSTER=file\nECS_DATADIR=/file\nECS_LOGLEVEL=debug").unwrap();
        let settings = Settings::default().then(layer(&[("ECS_CLUSTER", "own"), ("ECS_DATADIR", " ")])).then(file);
        let text = |name: &str| settings.get(name).map(|given| given.text.as_str());
        assert_eq!(text("ECS_CLUSTER"), Some("own"));
        assert_eq!(text("ECS_DATADIR"), Some("/file"));
        assert_eq!((text("ECS_LOGLEVEL"), text("ECS_LOGFILE")), (Some("debug"), None));
    }

    #[test]
    fn values_are_not_shown() {
        let settings = Settings::default().then(layer(&[("AWS_SECRET_ACCESS_KEY", "hidden")]));
        assert!(!format!("{settings:?}").contains("hidden"));
    }
}
