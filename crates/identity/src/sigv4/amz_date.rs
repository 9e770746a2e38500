//! The two spellings of a time that SigV4 knows, to and from Unix seconds. It must never ask what time it is.

/// Parses the ISO 8601 basic form, `20261121T040000Z`, to Unix seconds; `None` if it is anything else or no real date.
pub fn parse(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    if bytes.len() != 16 || bytes[8] != b'T' || bytes[15] != b'Z' {
        return None;
    }
    let number = |from: usize, to: usize| digits(&bytes[from..to]);
    unix(number(0, 4)?, number(4, 6)?, number(6, 8)?, number(9, 11)?, number(11, 13)?, number(13, 15)?)
}

/// Parses the form of HTTP's `Date` header, `Sat, 21 Nov 2026 04:00:00 GMT`, to Unix seconds. The day's name is not compared
/// with the date: a signer that gets it wrong is still who it is.
pub fn parse_http(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, rest) = text.split_once(", ")?;
    let mut words = rest.split(' ');
    let day = digits(words.next()?.as_bytes())?;
    let name = words.next()?;
    let month = MONTHS.iter().position(|month| *month == name)? as i64 + 1;
    let year = digits(words.next()?.as_bytes())?;
    let mut clock = words.next()?.split(':').map(|part| digits(part.as_bytes()));
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let utc = matches!(words.next()?, "GMT" | "-0000" | "+0000");
    if !utc || words.next().is_some() || clock.next().is_some() {
        return None;
    }
    unix(year, month, day, hour, minute, second)
}

/// Renders Unix seconds as `20261121T040000Z`. Years outside 0 to 9999 come out as the nearest end of that range.
pub fn render(unix: i64) -> String {
    String::from_utf8(render_bytes(unix).to_vec()).expect("digits and two letters")
}

/// Like [`render`], without the allocation.
pub(crate) fn render_bytes(unix: i64) -> [u8; 16] {
    let unix = unix.clamp(-62_167_219_200, 253_402_300_799);
    let (days, seconds) = (unix.div_euclid(86_400), unix.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let mut text = *b"00000000T000000Z";
    let mut put = |at: usize, width: usize, mut value: i64| {
        for place in (at..at + width).rev() {
            text[place] = b'0' + (value % 10) as u8;
            value /= 10;
        }
    };
    put(0, 4, year);
    put(4, 2, month);
    put(6, 2, day);
    put(9, 2, seconds / 3600);
    put(11, 2, seconds / 60 % 60);
    put(13, 2, seconds % 60);
    text
}

fn digits(bytes: &[u8]) -> Option<i64> {
    if bytes.is_empty() || bytes.len() > 4 {
        return None;
    }
    bytes.iter().try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0')))
}

fn unix(year: i64, month: i64, day: i64, hour: i64, minute: i64, second: i64) -> Option<i64> {
    // 60 is a leap second: some clocks send it, and the second after is near enough.
    if !(1..=12).contains(&month) || day < 1 || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let days = days(year, month, day);
    (civil(days) == (year, month, day)).then_some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

// Days from 1970-01-01, counting years from March so that the leap day is the last of its year.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_times() {
        for (text, http, unix) in [
            ("19700101T000000Z", "Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("20150830T123600Z", "Sun, 30 Aug 2015 12:36:00 GMT", 1_440_938_160),
            ("20240229T235959Z", "Thu, 29 Feb 2024 23:59:59 -0000", 1_709_251_199),
            ("20261121T040000Z", "Sat, 21 Nov 2026 04:00:00 GMT", 1_795_233_600),
        ] {
            assert_eq!(parse(text), Some(unix), "{text}");
            assert_eq!(parse_http(http), Some(unix), "{http}");
            assert_eq!(render(unix), text);
        }
    }

    #[test]
    fn what_is_no_time() {
        for text in ["", "20261121", "2026-11-21T04:00:00Z", "20261321T040000Z", "20230229T000000Z", "20261121T250000Z", "20261121T040000z"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
        for text in
            ["", "21 Nov 2026", "Sat, 21 Nov 2026 04:00:00 CET", "Sat, 32 Nov 2026 04:00:00 GMT", "Sat, 21 Nov 2026 04:00:00:00 GMT"]
        {
            assert_eq!(parse_http(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn rendered_times_parse_back(unix in -62_167_219_200i64..=253_402_300_799) {
            prop_assert_eq!(parse(&render(unix)), Some(unix));
        }
    }
}
