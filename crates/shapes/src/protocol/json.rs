//! AWS JSON 1.0 and 1.1 bodies. Decoding is bounded by the body's size and by serde_json's depth limit (128), and an
//! error names the member at fault. It must never guess a value.

use serde::de::DeserializeOwned;

use super::DecodeError;

/// Reads a request. An empty body is an empty object, `null` is an absent member, members that the model does not have
/// are ignored.
///
/// # Errors
/// [`DecodeError`] when the body is not JSON, not an object, nested too deep, or a member has another type.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, DecodeError> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    match serde_json::from_slice(body) {
        Ok(value) => Ok(value),
        // Tracking the path costs on every member, so only a body that is already known bad is read with it.
        Err(error) => Err(explain::<T>(body, error)),
    }
}

#[cold]
fn explain<T: DeserializeOwned>(body: &[u8], error: serde_json::Error) -> DecodeError {
    if !error.is_data() {
        return malformed(&error);
    }
    let first = body.trim_ascii_start().first().copied();
    if first != Some(b'{') {
        // The type was refused at the first token; a body like `1 x` is not JSON either, and that comes first.
        return match serde_json::from_slice::<serde::de::IgnoredAny>(body) {
            Ok(_) => DecodeError::NotAnObject { found: token_of(first.unwrap_or(b' ')) },
            Err(error) => malformed(&error),
        };
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    match serde_path_to_error::deserialize::<_, T>(&mut reader) {
        Ok(_) => malformed(&error),
        Err(located) => {
            let path = located.path().to_string();
            DecodeError::Member { path, problem: problem_of(&without_position(&located.into_inner())) }
        }
    }
}

fn malformed(error: &serde_json::Error) -> DecodeError {
    DecodeError::Malformed { line: error.line(), column: error.column(), problem: without_position(error) }
}

/// serde_json ends its texts with a position; here it is either said apart or of no use beside the path.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

fn token_of(first: u8) -> &'static str {
    match first {
        b'[' => "START_ARRAY",
        b'"' => "STRING_VALUE",
        b't' => "TRUE_VALUE",
        b'f' => "FALSE_VALUE",
        b'n' => "NULL_VALUE",
        _ => "NUMBER_VALUE",
    }
}

/// Turns serde's "invalid type: string "x", expected i32" into AWS's "STRING_VALUE can not be converted to an
/// Integer". The value itself is left out, as AWS does: it may be a secret.
pub(crate) fn problem_of(serde_text: &str) -> String {
    let Some((found, expected)) = serde_text
        .strip_prefix("invalid type: ")
        .or_else(|| serde_text.strip_prefix("invalid value: "))
        .and_then(|rest| rest.rsplit_once(", expected "))
    else {
        return serde_text.to_owned();
    };
    let found = match found.split([' ', '`']).next().unwrap_or_default() {
        "string" | "character" => "STRING_VALUE",
        "integer" | "floating" | "number" => "NUMBER_VALUE",
        "boolean" if found.contains("true") => "TRUE_VALUE",
        "boolean" => "FALSE_VALUE",
        "sequence" => "START_ARRAY",
        "map" => "START_OBJECT",
        "null" | "unit" | "Option" => "NULL_VALUE",
        _ => return serde_text.to_owned(),
    };
    let expected = match expected {
        "i32" => "an Integer",
        "i64" => "a Long",
        "f32" => "a Float",
        "f64" => "a Double",
        "a boolean" => "a Boolean",
        "a string" => "a String",
        "a base64 blob" => "a Blob",
        "a timestamp" => "a Timestamp",
        "a sequence" => "a List",
        "a map" => "a Map",
        "a structure" => "a Structure",
        other => other,
    };
    format!("{found} can not be converted to {expected}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecs::{CreateServiceRequest, LaunchType, RunTaskRequest};

    fn refusal(body: &str) -> String {
        decode::<RunTaskRequest>(body.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn absent_null_empty_and_unknown_members() {
        for body in ["", " \n", "{}", r#"{"count":null,"launchType":null}"#, r#"{"notInTheModel":{"a":[1]}}"#] {
            assert_eq!(decode::<RunTaskRequest>(body.as_bytes()), Ok(RunTaskRequest::default()), "{body:?}");
        }
        let read: RunTaskRequest = decode(br#"{"count":1,"count":2,"launchType":"MOON"}"#).unwrap();
        assert_eq!(read.count, Some(2), "of a repeated member the last counts");
        assert_eq!(read.launch_type, Some(LaunchType::Unknown("MOON".into())));
    }

    #[test]
    fn an_error_names_the_member_and_what_was_found() {
        assert_eq!(refusal(r#"{"count":"2"}"#), "count: STRING_VALUE can not be converted to an Integer");
        assert_eq!(refusal(r#"{"count":2.5}"#), "count: NUMBER_VALUE can not be converted to an Integer");
        assert_eq!(refusal(r#"{"count":3000000000}"#), "count: NUMBER_VALUE can not be converted to an Integer");
        assert_eq!(refusal(r#"{"taskDefinition":7}"#), "taskDefinition: NUMBER_VALUE can not be converted to a String");
        assert_eq!(refusal(r#"{"launchType":true}"#), "launchType: TRUE_VALUE can not be converted to a String");
        assert_eq!(refusal(r#"{"tags":{}}"#), "tags: START_OBJECT can not be converted to a List");
        assert_eq!(refusal(r#"{"tags":["a"]}"#), "tags[0]: STRING_VALUE can not be converted to a Structure");
        assert_eq!(
            refusal(r#"{"overrides":{"containerOverrides":[{},{"cpu":"1"}]}}"#),
            "overrides.containerOverrides[1].cpu: STRING_VALUE can not be converted to an Integer"
        );
        assert_eq!(refusal(r#"{"overrides":["x"]}"#), "overrides: START_ARRAY can not be converted to a Structure");
        assert_eq!(refusal(r#"{"enableECSManagedTags":"yes"}"#), "enableECSManagedTags: STRING_VALUE can not be converted to a Boolean");
    }

    #[test]
    fn a_body_that_is_no_object_is_refused() {
        for (body, token) in [("[]", "START_ARRAY"), ("\"x\"", "STRING_VALUE"), ("1", "NUMBER_VALUE"), ("null", "NULL_VALUE")] {
            let expected = DecodeError::NotAnObject { found: token };
            assert_eq!(decode::<RunTaskRequest>(body.as_bytes()), Err(expected), "{body}");
        }
    }

    #[test]
    fn malformed_json_says_where() {
        assert!(refusal("{\"count\":\n1,}").starts_with("Malformed JSON at line 2 column 3: "), "{}", refusal("{\"count\":\n1,}"));
        assert!(refusal("{").starts_with("Malformed JSON at line 1 column 1: "));
        assert!(refusal("{} x").starts_with("Malformed JSON at line 1 column 4: "));
        assert!(matches!(decode::<RunTaskRequest>(b"[1"), Err(DecodeError::Malformed { .. })));
        assert!(matches!(decode::<RunTaskRequest>(b"{\"cluster\":\"\xff\"}"), Err(DecodeError::Malformed { .. })));
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |member: &str| format!("{{\"{member}\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        // Skipping an unknown member takes no stack, so it stays harmless at any depth.
        assert!(decode::<RunTaskRequest>(nested("unknown").as_bytes()).is_ok());
        let hook = format!(
            r#"{{"deploymentConfiguration":{{"lifecycleHooks":[{{"hookDetails":{}1{}}}]}}}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        assert!(matches!(decode::<CreateServiceRequest>(hook.as_bytes()), Err(DecodeError::Malformed { .. })));
    }
}
