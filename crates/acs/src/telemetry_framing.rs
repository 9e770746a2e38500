//! How TCS frames travel from agent to server: `Header: value` lines, an empty line, the JSON. The headers sign the JSON as if
//! it were the body of a GET to the connection's URL. Whoever has keys signs and checks; nothing here does.

use crate::messages::{FrameError, MAX_FRAME};

/// More header lines than this are no frame of an agent's.
const MOST_HEADERS: usize = 16;

/// Puts signed headers before a frame.
///
/// # Errors
/// When the whole would be larger than the other side accepts, or a header would break the frame.
pub fn render(headers: &[(String, String)], json: &str) -> Result<String, FrameError> {
    let mut text = String::with_capacity(json.len() + 512);
    for (name, value) in headers {
        if name.contains([':', '\r', '\n']) || value.contains(['\r', '\n']) {
            return Err(FrameError::Headers("a header holds a line break"));
        }
        for part in [name, ": ", value, "\r\n"] {
            text.push_str(part);
        }
    }
    text.push_str("\r\n");
    text.push_str(json);
    if text.len() > MAX_FRAME { Err(FrameError::TooLarge { size: text.len() }) } else { Ok(text) }
}

/// A frame taken apart: its headers, names as sent, and its JSON.
pub type Parsed<'a> = (Vec<(&'a str, &'a str)>, &'a str);

/// Takes a frame apart, at its first empty line.
///
/// # Errors
/// When it is too large, has no empty line, or too many or unreadable headers.
pub fn parse(text: &str) -> Result<Parsed<'_>, FrameError> {
    if text.len() > MAX_FRAME {
        return Err(FrameError::TooLarge { size: text.len() });
    }
    let (head, json) = text.split_once("\r\n\r\n").ok_or(FrameError::Headers("no empty line ends them"))?;
    let headers = head.split("\r\n").filter(|line| !line.is_empty()).take(MOST_HEADERS + 1);
    let headers: Option<Vec<_>> = headers.map(|line| line.split_once(':').map(|(name, value)| (name.trim(), value.trim()))).collect();
    let headers = headers.ok_or(FrameError::Headers("a line has no colon"))?;
    if headers.len() > MOST_HEADERS { Err(FrameError::Headers("there are too many")) } else { Ok((headers, json)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_official_agents_frame() {
        let text = "Authorization: AWS4-HMAC-SHA256 Credential=A/B\r\nHost: 127.0.0.1:8765\r\nX-Amz-Date: 20261121T040000Z\r\n\r\n\
                    {\"type\":\"x\",\"message\":\"a\\r\\n\\r\\nb\"}";
        let (headers, json) = parse(text).unwrap();
        assert_eq!(headers[1], ("Host", "127.0.0.1:8765"));
        assert_eq!(headers.len(), 3);
        assert!(json.starts_with("{\"type\""));
        let owned: Vec<_> = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(render(&owned, json).unwrap(), text);
    }

    #[test]
    fn what_is_no_frame() {
        assert!(parse("{}").is_err());
        assert!(parse("no colon\r\n\r\n{}").is_err());
        assert!(parse(&format!("{}\r\n{{}}", "A: b\r\n".repeat(17))).is_err());
        assert!(matches!(parse(&"x".repeat(MAX_FRAME + 1)), Err(FrameError::TooLarge { .. })));
        assert!(render(&[("A".into(), "b\r\nC: d".into())], "{}").is_err());
    }
}
