//! Blanks comments and literals out of Rust source, so that a word in a text is not taken for code. Lines stay where
//! they are.

/// The source with every comment and every string or character literal replaced by spaces.
pub fn code_only(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(bytes, at);
        if end > at {
            out.extend(bytes[at..end].iter().map(|byte| if *byte == b'\n' { b'\n' } else { b' ' }));
            at = end;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    // Only whole literals and comments were replaced, so what is left is whole characters.
    String::from_utf8(out).expect("blanks are ASCII")
}

/// The end of the comment or literal that begins at `at`; `at` itself where none does.
fn literal_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let after_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    match rest {
        [b'/', b'/', ..] => at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => at + block_comment(rest),
        [b'"', ..] => at + quoted(rest, b'"'),
        [b'r', b'"' | b'#', ..] | [b'b', b'r', b'"' | b'#', ..] if !after_word => at + raw_string(rest),
        [b'\'', b'\\', ..] => at + quoted(rest, b'\''),
        // A character, unless it is a lifetime: those have no closing quote right after one character.
        [b'\'', first, ..] => {
            let width = match first {
                0..=0x7f => 1,
                0x80..=0xdf => 2,
                0xe0..=0xef => 3,
                _ => 4,
            };
            if rest.get(1 + width) == Some(&b'\'') { at + width + 2 } else { at }
        }
        _ => at,
    }
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (at, depth) = (at + 2, depth + 1),
            [b'*', b'/', ..] if depth == 1 => return at + 2,
            [b'*', b'/', ..] => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
    }
    rest.len()
}

/// `r"..."`, `br#"..."#`; nothing for a raw identifier such as `r#type`.
fn raw_string(rest: &[u8]) -> usize {
    let start = rest.iter().position(|byte| *byte == b'r').map_or(0, |at| at + 1);
    let hashes = rest[start..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(start + hashes) != Some(&b'"') {
        return 0;
    }
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let body = start + hashes + 1;
    let found = rest[body..].windows(close.len()).position(|window| window == close);
    found.map_or(rest.len(), |found| body + found + close.len())
}

#[cfg(test)]
mod tests {
    use super::code_only;

    #[test]
    fn comments_and_literals_vanish_and_code_stays() {
        for (source, code) in [
            ("a // dbg!(\nb", "a          \nb"),
            ("a /* x /* y */ z */ b", "a                   b"),
            (r#"f("todo!(\" x") + g"#, r#"f(            ) + g"#),
            ("r\"a\\\" + b", "       + b"),
            ("r#\"a\"b\"# + c", "          + c"),
            ("let r#type = 'x';", "let r#type =    ;"),
            ("fn f<'a>(x: &'a str, c: char) { '\"' }", "fn f<'a>(x: &'a str, c: char) {     }"),
            ("'\\'' + 'ä' + 1", "     +      + 1"),
        ] {
            let blanked = code_only(source);
            assert_eq!(blanked.split_whitespace().collect::<Vec<_>>(), code.split_whitespace().collect::<Vec<_>>(), "{source}");
            assert_eq!(blanked.lines().count(), source.lines().count());
        }
    }
}
