//! `application/x-www-form-urlencoded` bodies and the tree that the Query protocols' dotted names make. Bounded in
//! fields and depth before anything is built.

use std::collections::BTreeMap;

use super::DecodeError;

/// Fields per form. The largest honest Query requests (batches of metrics) have some thousands.
const FIELDS: usize = 50_000;
/// Names per field, as in `A.member.1.B`. No model nests deeper than a dozen.
const DEPTH: usize = 64;

/// A node of the tree: `A.member.1=x` is the value `x` below `A`, `member`, `1`.
#[derive(Debug, Default)]
pub struct Node {
    /// The field's own value.
    pub value: Option<String>,
    /// What stands below it, by name.
    pub children: BTreeMap<String, Node>,
}

impl Node {
    /// The child of this name.
    pub fn child(&self, name: &str) -> Option<&Self> {
        self.children.get(name)
    }

    /// The children that are numbered, in the order of their numbers; gaps are closed, as AWS does.
    pub fn numbered(&self) -> Vec<&Self> {
        let mut numbered: Vec<(u32, &Self)> = self.children.iter().filter_map(|(name, node)| Some((name.parse().ok()?, node))).collect();
        numbered.sort_by_key(|(number, _)| *number);
        numbered.into_iter().map(|(_, node)| node).collect()
    }
}

/// The pairs of a form or a query string, in order, percent-decoded.
///
/// # Errors
/// [`DecodeError::Unreadable`] for text that is not UTF-8, a broken escape, or more than 50,000 fields.
pub fn pairs(text: &[u8]) -> Result<Vec<(String, String)>, DecodeError> {
    let mut pairs = Vec::new();
    for field in text.split(|byte| *byte == b'&').filter(|field| !field.is_empty()) {
        if pairs.len() == FIELDS {
            return Err(unreadable(format!("more than {FIELDS} fields")));
        }
        let (name, value) = match field.iter().position(|byte| *byte == b'=') {
            Some(at) => (&field[..at], &field[at + 1..]),
            None => (field, &b""[..]),
        };
        pairs.push((unescape(name, true)?, unescape(value, true)?));
    }
    Ok(pairs)
}

/// The tree of a form.
///
/// # Errors
/// As [`pairs`], and for a name with more than 64 parts.
pub fn tree(text: &[u8]) -> Result<Node, DecodeError> {
    let mut root = Node::default();
    for (name, value) in pairs(text)? {
        let mut node = &mut root;
        for (depth, part) in name.split('.').enumerate() {
            if depth == DEPTH {
                return Err(unreadable(format!("a name of more than {DEPTH} parts")));
            }
            node = node.children.entry(part.to_owned()).or_default();
        }
        node.value = Some(value);
    }
    Ok(root)
}

/// Resolves percent escapes; `plus` also makes a space of a plus, as forms want it and paths do not.
///
/// # Errors
/// [`DecodeError::Unreadable`] for a broken escape or text that is not UTF-8.
pub fn unescape(text: &[u8], plus: bool) -> Result<String, DecodeError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        bytes.push(match byte {
            b'+' if plus => b' ',
            b'%' => {
                let digits = rest.split_at_checked(2).and_then(|(digits, after)| {
                    rest = after;
                    Some((char::from(digits[0]).to_digit(16)?, char::from(digits[1]).to_digit(16)?))
                });
                let (high, low) = digits.ok_or_else(|| unreadable("a broken percent escape"))?;
                (high * 16 + low) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| unreadable("text that is not UTF-8"))
}

fn unreadable(problem: impl Into<String>) -> DecodeError {
    DecodeError::Unreadable { encoding: "form", problem: problem.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_becomes_a_tree() {
        let root = tree(b"Action=Do&Tag.member.10.Key=z&Tag.member.2.Key=a%2Bb+c&Empty=&Flag").unwrap();
        assert_eq!(root.child("Action").unwrap().value.as_deref(), Some("Do"));
        let tags = root.child("Tag").unwrap().child("member").unwrap().numbered();
        let keys: Vec<_> = tags.iter().map(|tag| tag.child("Key").unwrap().value.as_deref().unwrap()).collect();
        assert_eq!(keys, ["a+b c", "z"], "numbers sort as numbers");
        assert_eq!(root.child("Empty").unwrap().value.as_deref(), Some(""));
        assert_eq!(root.child("Flag").unwrap().value.as_deref(), Some(""));
    }

    #[test]
    fn hostile_forms_are_refused() {
        for form in ["A=%", "A=%f", "A=%zz", "A=%ff", &"a.".repeat(100), &"a&".repeat(60_000)] {
            assert!(tree(form.as_bytes()).is_err());
        }
    }
}
