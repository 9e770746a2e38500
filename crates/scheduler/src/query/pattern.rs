//! Patterns of `=~` and `!~`: Java's syntax, as far as matching in linear time allows. A pattern never sees more than one value.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};

/// Bytes that a compiled pattern may take: expressions are kept with services and definitions, and a small text can ask for megabytes
/// (`(a{100}){100}`).
const SIZE_LIMIT: usize = 64 * 1024;

/// A pattern that matches a whole value.
#[derive(Clone)]
pub(super) struct Pattern {
    text: String,
    regex: Regex,
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// What was expected instead, in words.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        if let Some(name) = unserved(text) {
            return Err(format!("a pattern without {name}"));
        }
        // Alone first: `a)|(b` is no pattern, though it would become one between the parentheses.
        compile(text)?;
        let regex = compile(&format!(r"\A(?:{text})\z"))?;
        Ok(Self { text: text.to_owned(), regex })
    }

    /// Whether the whole value matches.
    pub(super) fn matches(&self, value: &str) -> bool {
        self.regex.is_match(value.as_bytes())
    }

    /// As it was written.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

fn compile(text: &str) -> Result<Regex, String> {
    // As in Java, `\d` and `\w` are those of ASCII, unless asked otherwise; it also keeps them small.
    let built = RegexBuilder::new(text).unicode(false).size_limit(SIZE_LIMIT).dfa_size_limit(SIZE_LIMIT).build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "a pattern that is smaller when compiled".to_owned(),
        // The library draws the pattern with a caret below; the last line says it.
        error => {
            let drawn = error.to_string();
            let last = drawn.lines().last().unwrap_or_default();
            format!("a regular expression ({})", last.strip_prefix("error: ").unwrap_or(last))
        }
    })
}

/// What Java's patterns have and ours have not, because it takes backtracking.
fn unserved(pattern: &str) -> Option<&'static str> {
    let mut in_class = 0_u32;
    let mut before = None;
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        let mut quantifier = false;
        match c {
            '\\' => match rest.next() {
                Some('1'..='9' | 'k') if in_class == 0 => return Some("back references"),
                _ => {}
            },
            '[' => in_class += 1,
            ']' => in_class = in_class.saturating_sub(1),
            _ if in_class > 0 => {}
            '(' if ["?=", "?!", "?<=", "?<!"].iter().any(|open| rest.as_str().starts_with(open)) => return Some("look-around"),
            '(' if rest.as_str().starts_with("?>") => return Some("atomic groups"),
            '+' if before == Some(true) => return Some("possessive quantifiers"),
            // `(?` opens a group; the mark is no quantifier there.
            '(' if rest.as_str().starts_with('?') => {
                rest.next();
            }
            '*' | '+' | '?' | '}' => quantifier = before != Some(true),
            _ => {}
        }
        before = Some(quantifier);
    }
    None
}
