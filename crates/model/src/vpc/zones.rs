//! Availability zones: three of them in each region, and whatever else container instances say of themselves.
//!
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/using-regions-availability-zones.html>

/// The letters of the zones that are there from the start.
pub const LETTERS: [char; 3] = ['a', 'b', 'c'];

/// The names of the zones that a region has from the start: `us-east-1a`, `us-east-1b`, `us-east-1c`.
#[must_use]
pub fn of_region(region: &str) -> [String; 3] {
    LETTERS.map(|letter| format!("{region}{letter}"))
}

/// A zone's id as AWS has them, `use1-az1` for `us-east-1a`; a zone that is not called after its region is its own id.
#[must_use]
pub fn id(region: &str, zone: &str) -> String {
    let letter = zone.strip_prefix(region).and_then(|rest| <[char; 1]>::try_from(rest.chars().collect::<Vec<_>>()).ok());
    match letter {
        Some([letter @ 'a'..='z']) => format!("{}-az{}", abbreviation(region), u32::from(letter) - u32::from('a') + 1),
        _ => zone.to_owned(),
    }
}

/// `use1` for `us-east-1`, `apse2` for `ap-southeast-2`.
fn abbreviation(region: &str) -> String {
    let mut words = region.split('-');
    let mut short = words.next().unwrap_or_default().to_owned();
    for word in words {
        short.push_str(match word {
            "northeast" => "ne",
            "northwest" => "nw",
            "southeast" => "se",
            "southwest" => "sw",
            number if number.bytes().all(|digit| digit.is_ascii_digit()) => number,
            word => word.get(..1).unwrap_or_default(),
        });
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_aws_abbreviations() {
        for (region, zone, id_) in [
            ("us-east-1", "us-east-1a", "use1-az1"),
            ("eu-west-1", "eu-west-1c", "euw1-az3"),
            ("ap-southeast-2", "ap-southeast-2b", "apse2-az2"),
            ("us-gov-west-1", "us-gov-west-1a", "usgw1-az1"),
            ("us-east-1", "rack-7", "rack-7"),
            ("us-east-1", "us-east-1", "us-east-1"),
            ("us-east-1", "us-east-1ab", "us-east-1ab"),
            ("", "", ""),
        ] {
            assert_eq!(id(region, zone), id_);
        }
        assert_eq!(of_region("eu-west-1"), ["eu-west-1a", "eu-west-1b", "eu-west-1c"]);
    }
}
