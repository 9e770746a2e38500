//! A request out of the options of a command line, in the AWS CLI's spellings.

use serde_json::{Map, Value, json};

use crate::failure::Failure;

/// Largest request in a file; the server takes no larger one either.
const MAX_REQUEST: u64 = 1024 * 1024;

/// The members that were given.
pub(super) fn values<const N: usize>(members: [(&str, Value); N]) -> Map<String, Value> {
    members.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What several values of an option make together: a JSON list stands for its items.
pub(super) fn list(given: &[Value]) -> Value {
    if given.is_empty() {
        return Value::Null;
    }
    given.iter().flat_map(|value| value.as_array().cloned().unwrap_or_else(|| vec![value.clone()])).collect()
}

/// Reads `type=memberOf,expression=...`: the expression is the rest, commas and all.
pub(super) fn constraint(text: &str) -> Result<Value, String> {
    shorthand(text, "expression")
}

/// Reads `type=spread,field=...`.
pub(super) fn strategy(text: &str) -> Result<Value, String> {
    shorthand(text, "field")
}

fn shorthand(text: &str, second: &str) -> Result<Value, String> {
    if text.trim_start().starts_with(['{', '[']) {
        return serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"));
    }
    let wanted = || format!("expected type=TYPE[,{second}=...]");
    let (kind, rest) = text.split_once(',').map_or((text, None), |(kind, rest)| (kind, Some(rest)));
    let kind = kind.trim().strip_prefix("type=").ok_or_else(wanted)?;
    let mut value = json!({ "type": kind });
    if let Some(rest) = rest {
        let rest = rest.trim_start().strip_prefix(second).and_then(|rest| rest.strip_prefix('=')).ok_or_else(wanted)?;
        value[second] = rest.into();
    }
    Ok(value)
}

/// The request that `--cli-input-json` gives.
pub(super) fn whole(text: &str) -> Result<Map<String, Value>, Failure> {
    let bad = |problem: String| Failure::bad_arguments(format!("--cli-input-json: {problem}"), "give a JSON object, or file://PATH of one");
    let text = match text.strip_prefix("file://") {
        None => text.to_owned(),
        Some(path) => {
            let size = std::fs::metadata(path).map_err(|error| bad(format!("{path}: {error}")))?.len();
            if size > MAX_REQUEST {
                return Err(bad(format!("{path} has more than {MAX_REQUEST} bytes")));
            }
            std::fs::read_to_string(path).map_err(|error| bad(format!("{path}: {error}")))?
        }
    };
    serde_json::from_str(&text).map_err(|error| bad(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shorthand_and_json_are_the_same() {
        let expression = "attribute:a in [b, c]";
        let short = constraint(&format!("type=memberOf,expression={expression}")).unwrap();
        assert_eq!(short, json!({"type": "memberOf", "expression": expression}));
        assert_eq!(constraint(&short.to_string()).unwrap(), short);
        assert_eq!(constraint("type=distinctInstance").unwrap(), json!({"type": "distinctInstance"}));
        assert_eq!(strategy("type=spread,field=attribute:zone").unwrap(), json!({"type": "spread", "field": "attribute:zone"}));
        for bad in ["memberOf", "type=spread,expression=x", "{", "expression=x,type=memberOf"] {
            assert!(strategy(bad).is_err(), "{bad}");
        }
        assert_eq!(list(&[json!([{"type": "random"}]), json!({"type": "x"})]), json!([{"type": "random"}, {"type": "x"}]));
        assert_eq!(list(&[]), Value::Null);
    }

    #[test]
    fn whole_requests_come_as_text_or_from_a_file() {
        assert_eq!(whole(r#"{"count": 2}"#).unwrap()["count"], 2);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("request.json");
        std::fs::write(&path, r#"{"count": 3}"#).unwrap();
        assert_eq!(whole(&format!("file://{}", path.display())).unwrap()["count"], 3);
        assert!(whole("[]").is_err() && whole("file:///none/such").is_err());
    }
}
