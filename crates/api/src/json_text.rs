//! JSON written piece by piece, for answers too large to build their shapes first. It writes what it is told: that names, commas and
//! brackets stand where they belong is for its caller, and for the tests that compare with serde.

use berth_model::ids::HexDigits;
use berth_model::time::UnixMillis;
use bytes::Bytes;

/// A JSON text that grows.
pub(crate) struct JsonText(Vec<u8>);

/// Bytes that cannot stand in a JSON string as they are.
const ESCAPED: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = true;
        byte += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table
};

impl JsonText {
    /// An empty text with room for so many bytes.
    pub(crate) fn with_room(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// The text.
    pub(crate) fn into_bytes(self) -> Bytes {
        self.0.into()
    }

    /// Something that is JSON already.
    pub(crate) fn raw(&mut self, json: &str) {
        self.0.extend_from_slice(json.as_bytes());
    }

    /// A string, with quotes.
    pub(crate) fn string(&mut self, text: &str) {
        self.0.push(b'"');
        self.inner(text);
        self.0.push(b'"');
    }

    /// A part of a string.
    pub(crate) fn inner(&mut self, text: &str) {
        let bytes = text.as_bytes();
        match bytes.iter().position(|byte| ESCAPED[usize::from(*byte)]) {
            None => self.0.extend_from_slice(bytes),
            Some(first) => self.escape(bytes, first),
        }
    }

    #[cold]
    fn escape(&mut self, bytes: &[u8], first: usize) {
        self.0.extend_from_slice(&bytes[..first]);
        for byte in &bytes[first..] {
            let letter = match byte {
                b'"' | b'\\' => *byte,
                0x08 => b'b',
                b'\t' => b't',
                b'\n' => b'n',
                0x0c => b'f',
                b'\r' => b'r',
                control @ ..0x20 => {
                    self.0.extend_from_slice(format!("\\u{control:04x}").as_bytes());
                    continue;
                }
                plain => {
                    self.0.push(*plain);
                    continue;
                }
            };
            self.0.extend_from_slice(&[b'\\', letter]);
        }
    }

    /// A number.
    pub(crate) fn integer(&mut self, value: i64) {
        if value < 0 {
            self.0.push(b'-');
        }
        self.natural(value.unsigned_abs());
    }

    /// A number that is not negative.
    pub(crate) fn natural(&mut self, mut value: u64) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (value % 10) as u8;
            value /= 10;
            if value == 0 {
                return self.0.extend_from_slice(&digits[at..]);
            }
        }
    }

    /// A point in time as AWS JSON has it: seconds, with a fraction where there is one.
    pub(crate) fn time(&mut self, at: UnixMillis) {
        let millis = at.to_wire().as_millis();
        if millis < 0 {
            self.0.push(b'-');
        }
        let millis = millis.unsigned_abs();
        self.natural(millis / 1000);
        let fraction = millis % 1000;
        if fraction != 0 {
            let digits = [b'.', b'0' + (fraction / 100) as u8, b'0' + (fraction / 10 % 10) as u8, b'0' + (fraction % 10) as u8];
            let zeros = digits.iter().rev().take_while(|digit| **digit == b'0').count();
            self.0.extend_from_slice(&digits[..digits.len() - zeros]);
        }
    }

    /// The digits of an id, without quotes.
    pub(crate) fn id(&mut self, bits: u128) {
        self.raw(HexDigits::of(bits).as_str());
    }

    /// An id as a UUID, without quotes.
    pub(crate) fn uuid(&mut self, bits: u128) {
        for (at, part) in HexDigits::of(bits).uuid_parts().into_iter().enumerate() {
            if at > 0 {
                self.0.push(b'-');
            }
            self.raw(part);
        }
    }

    /// A value as serde writes it, for what is rare.
    pub(crate) fn value(&mut self, value: &impl serde::Serialize) -> Result<(), serde_json::Error> {
        serde_json::to_writer(&mut self.0, value)
    }

    /// A list; `item` writes one.
    pub(crate) fn list<T>(&mut self, items: impl IntoIterator<Item = T>, mut item: impl FnMut(&mut Self, T)) {
        self.0.push(b'[');
        for (at, one) in items.into_iter().enumerate() {
            if at > 0 {
                self.0.push(b',');
            }
            item(self, one);
        }
        self.0.push(b']');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut JsonText)) -> String {
        let mut text = JsonText::with_room(0);
        write(&mut text);
        String::from_utf8(text.into_bytes().to_vec()).unwrap()
    }

    #[test]
    fn every_character_is_written_as_serde_writes_it() {
        let all: String = (0..0x2100).filter_map(char::from_u32).chain(['\u{feff}', '🛳']).collect();
        assert_eq!(written(|text| text.string(&all)), serde_json::to_string(&all).unwrap());
        for character in all.chars() {
            let text = format!("a{character}b");
            assert_eq!(written(|json| json.string(&text)), serde_json::to_string(&text).unwrap());
        }
    }

    #[test]
    fn numbers_and_times_are_written_as_serde_writes_them() {
        for value in [0, 1, 9, 10, 1_234_567_890_123, i64::MAX, i64::MIN, -1] {
            assert_eq!(written(|text| text.integer(value)), value.to_string());
        }
        let around = |from: i64| from..from + 1_100;
        let millis = around(1_732_161_234_000).chain(around(0)).chain(around(-1_099)).chain([i64::MIN, i64::MAX, 253_402_207_199_999]);
        for at in millis.map(UnixMillis) {
            assert_eq!(written(|text| text.time(at)), serde_json::to_string(&at.to_wire()).unwrap(), "{at:?}");
        }
    }

    #[test]
    fn ids_have_their_forms() {
        assert_eq!(written(|text| text.id(0xab)), "000000000000000000000000000000ab");
        assert_eq!(written(|text| text.uuid(0xab)), "00000000-0000-0000-0000-0000000000ab");
    }
}
