//! Percent-encoding as SigV4 wants it: everything but RFC 3986's unreserved characters, in upper-case hexadecimal.

/// Hands `bytes` to `put` in encoded form, unreserved stretches whole. A slash stays as it is where `keep_slash` says so.
pub(super) fn encode(bytes: &[u8], keep_slash: bool, mut put: impl FnMut(&[u8])) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') || (keep_slash && byte == b'/');
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| !plain(*byte)) {
        if at > 0 {
            put(&rest[..at]);
        }
        let byte = rest[at];
        put(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        rest = &rest[at + 1..];
    }
    if !rest.is_empty() {
        put(rest);
    }
}

/// The encoded form as bytes of its own.
pub(super) fn encoded(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 16);
    encode(bytes, false, |part| out.extend_from_slice(part));
    out
}

/// Undoes percent-encoding. A `%` that starts no escape stays itself. `plus_is_space` is for query strings, where HTML forms
/// and Go's encoder write a space that way.
pub(super) fn decoded(text: &str, plus_is_space: bool) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'%').then(|| Some((nibble(*bytes.get(at + 1)?)?, nibble(*bytes.get(at + 2)?)?))).flatten();
        match (escape, bytes[at]) {
            (Some((high, low)), _) => {
                out.push(high << 4 | low);
                at += 2;
            }
            (None, b'+') if plus_is_space => out.push(b' '),
            (None, byte) => out.push(byte),
        }
        at += 1;
    }
    out
}

fn nibble(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).map(|digit| digit as u8)
}
