//! Rust names for AWS's names. Pure and total: every name of every model gets a legal one.

/// Units and plural acronyms that splitting by case would tear apart.
const WHOLE: &[(&str, &str)] = &[
    ("GiB", "Gib"),
    ("MiB", "Mib"),
    ("KiB", "Kib"),
    ("IPv4", "Ipv4"),
    ("IPv6", "Ipv6"),
    ("IoT", "Iot"),
    ("ARNs", "Arns"),
    ("IDs", "Ids"),
    ("AZs", "Azs"),
    ("IPs", "Ips"),
    ("URLs", "Urls"),
    ("CPUs", "Cpus"),
    ("VCpu", "Vcpu"),
    ("vCpu", "Vcpu"),
    ("SSHP", "Sshp"),
];

/// Keywords that may be used as raw identifiers.
const KEYWORDS: &[&str] = &[
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "do", "dyn", "else", "enum", "extern", "false",
    "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match", "mod", "move", "mut", "override", "priv", "pub",
    "ref", "return", "static", "struct", "trait", "true", "try", "type", "typeof", "unsafe", "unsized", "use", "virtual", "where", "while",
    "yield",
];

/// Names that generated code itself uses; a shape of that name gets the suffix `Shape`.
const TAKEN: &[&str] = &[
    "ALL",
    "BTreeMap",
    "Blob",
    "Box",
    "Clone",
    "Copy",
    "Debug",
    "DecodeError",
    "Default",
    "Document",
    "Eq",
    "Err",
    "ErrorCode",
    "From",
    "Into",
    "None",
    "Ok",
    "Operation",
    "Option",
    "PartialEq",
    "Paginator",
    "Path",
    "Pattern",
    "Request",
    "Result",
    "Rule",
    "Self",
    "Some",
    "String",
    "Structure",
    "Timestamp",
    "Validate",
    "Value",
    "Vec",
    "Violations",
    "Waiter",
];

/// The words of a name: at separators, at lower-to-upper, before the last letter of an acronym.
fn words(name: &str) -> Vec<String> {
    let mut name = name.to_owned();
    for (from, to) in WHOLE {
        // Only at the end of a word, so that `IDs` is found in `groupIDs` but not in `IDsomething`.
        if let Some(at) = name.find(from) {
            let after = name[at + from.len()..].chars().next();
            if after.is_none_or(|next| !next.is_ascii_lowercase()) {
                name.replace_range(at..at + from.len(), to);
            }
        }
    }
    let letters: Vec<char> = name.chars().collect();
    let mut words = Vec::new();
    let mut word = String::new();
    for (index, &letter) in letters.iter().enumerate() {
        if !letter.is_ascii_alphanumeric() {
            words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
            continue;
        }
        let before = index.checked_sub(1).map(|before| letters[before]);
        let after = letters.get(index + 1);
        let starts = letter.is_ascii_uppercase()
            && before.is_some_and(|before| {
                before.is_ascii_lowercase()
                    || before.is_ascii_digit() && after.is_some_and(char::is_ascii_lowercase)
                    || before.is_ascii_uppercase() && after.is_some_and(char::is_ascii_lowercase)
            });
        if starts && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        word.push(letter);
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

/// `taskDefinition` -> `task_definition`, `type` -> `r#type`.
pub fn field(name: &str) -> String {
    let snake = words(name).iter().map(|word| word.to_ascii_lowercase()).collect::<Vec<_>>().join("_");
    match snake.as_str() {
        "" => "unnamed".to_owned(),
        "self" | "super" | "crate" => format!("{snake}_"),
        _ if KEYWORDS.contains(&snake.as_str()) => format!("r#{snake}"),
        _ if snake.starts_with(|first: char| first.is_ascii_digit()) => format!("n{snake}"),
        _ => snake,
    }
}

/// `WINDOWS_SERVER_2019_CORE` -> `WindowsServer2019Core`, `X86_64` -> `X86_64`, `awsvpc` -> `Awsvpc`.
pub fn variant(value: &str) -> String {
    let mut name = String::new();
    for word in words(value) {
        // Two numbers must not run together: X86_64 is not X8664.
        if name.ends_with(|last: char| last.is_ascii_digit()) && word.starts_with(|first: char| first.is_ascii_digit()) {
            name.push('_');
        }
        let mut letters = word.chars();
        name.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        name.extend(letters.map(|letter| letter.to_ascii_lowercase()));
    }
    match name.as_str() {
        "" => "Empty".to_owned(),
        "Self" => "SelfValue".to_owned(),
        // `Unknown` is the open variant of every enum.
        "Unknown" => "UnknownValue".to_owned(),
        _ if name.starts_with(|first: char| first.is_ascii_digit()) => format!("N{name}"),
        _ => name,
    }
}

/// The name of a structure or enum: the shape's own, unless Rust or the generated code has a use for it.
pub fn shape(name: &str) -> String {
    let mut name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    if let Some(first) = name.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    // Only then would clippy take it for a constant.
    if name.len() > 2 && name.chars().all(|letter| letter.is_ascii_uppercase()) {
        name[1..].make_ascii_lowercase();
    }
    if TAKEN.contains(&name.as_str()) { format!("{name}Shape") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        for (wire, rust) in [
            ("taskDefinition", "task_definition"),
            ("enableECSManagedTags", "enable_ecs_managed_tags"),
            ("managedEBSVolume", "managed_ebs_volume"),
            ("sizeInGiB", "size_in_gib"),
            ("type", "r#type"),
            ("capacityProviderFARGATE", "capacity_provider_fargate"),
            ("s3Bucket", "s3_bucket"),
            ("IPv6Addresses", "ipv6_addresses"),
            ("LoadBalancerArns", "load_balancer_arns"),
            ("SAMLAssertion", "saml_assertion"),
            ("vCpuCount", "vcpu_count"),
            ("x-amz-date", "x_amz_date"),
            ("self", "self_"),
        ] {
            assert_eq!(field(wire), rust);
        }
    }

    #[test]
    fn variants() {
        for (wire, rust) in [
            ("EC2", "Ec2"),
            ("WINDOWS_SERVER_2019_CORE", "WindowsServer2019Core"),
            ("X86_64", "X86_64"),
            ("json-file", "JsonFile"),
            ("ExecuteCommandAgent", "ExecuteCommandAgent"),
            ("CPUUtilization", "CpuUtilization"),
            ("UNKNOWN", "UnknownValue"),
            ("a10g", "A10g"),
            ("2024-05", "N2024_05"),
            ("*", "Empty"),
        ] {
            assert_eq!(variant(wire), rust);
        }
    }

    #[test]
    fn shapes() {
        assert_eq!(shape("CPUArchitecture"), "CPUArchitecture");
        assert_eq!(shape("Option"), "OptionShape");
        assert_eq!(shape("__listOf"), "ListOf");
        assert_eq!(shape("TLS"), "Tls");
    }
}
