//! Environment files: a variable a line, as amazon-ecs-agent reads them.
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/use-environment-file.html>

/// The variables of a file, in its order. Lines that begin with `#`, lines without `=` and variables without a name or a value are
/// passed over; quotes and blanks are part of the value.
pub(super) fn parse(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once('=')).filter(|(name, value)| !name.is_empty() && !value.is_empty());
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn as_the_official_agent_reads_them() {
        let text = "# comment\nA=1\n\nB=x=y\nC=\"quoted\"\n D=blank before\nEMPTY=\n=nameless\nno delimiter\r\nE=last";
        let pairs = [("A", "1"), ("B", "x=y"), ("C", "\"quoted\""), (" D", "blank before"), ("E", "last")];
        assert_eq!(parse(text), pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
