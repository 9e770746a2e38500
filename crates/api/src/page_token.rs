//! `nextToken`: opaque to clients, the key of the last item that they were given. It must never hold what its bearer may not see.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// A token from which a list of `action` goes on after the item of this key.
#[must_use]
pub fn encode(action: &str, key: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{:08x}{action}\n{key}", checksum(action, key)))
}

/// The key that a token names; `None` if it is no token of this action's.
#[must_use]
pub fn decode(action: &str, token: &str) -> Option<String> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    let (sum, rest) = text.split_at_checked(8)?;
    let (of, key) = rest.split_once('\n')?;
    let intact = of == action && u32::from_str_radix(sum, 16).ok()? == checksum(action, key);
    intact.then(|| key.to_owned())
}

/// FNV-1a: tells a token of another action, or a garbled one, from ours. It guards nothing: a token names only what its
/// bearer may list anyway.
fn checksum(action: &str, key: &str) -> u32 {
    action.bytes().chain([0]).chain(key.bytes()).fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
