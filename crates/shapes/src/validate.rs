//! The checks a service model asks for, with AWS's wording: required members, enum sets, lengths, ranges, patterns.
//! It must never look at anything but the request itself.

use std::{collections::BTreeMap, fmt, sync::OnceLock};

use crate::OpenEnum;

/// Violations kept per request. A hostile request may break thousands of rules; the text must stay an error message.
const KEPT: usize = 50;
/// Characters of an offending value that are repeated in the text.
const SHOWN: usize = 256;

/// A structure that can be checked against its model.
pub trait Validate {
    /// Checks the structure, which stands at `at`, and notes what is wrong in `found`.
    fn check(&self, _at: &Path<'_>, _found: &mut Violations) {}

    /// Checks the structure as a whole request.
    ///
    /// # Errors
    /// All violations, in the order of the model's members.
    fn validate(&self) -> Result<(), Violations> {
        let mut found = Violations::default();
        self.check(&Path::Root, &mut found);
        if found.count == 0 { Ok(()) } else { Err(found) }
    }
}

/// Where in the request a value stands. It is a chain on the stack, made into text only for a violation.
#[derive(Debug, Clone, Copy)]
pub enum Path<'a> {
    /// The request itself.
    Root,
    /// A member of a structure, by wire name.
    Member(&'a Path<'a>, &'static str),
    /// An item of a list, from 0.
    Item(&'a Path<'a>, usize),
    /// A value of a map.
    Value(&'a Path<'a>, &'a str),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Member(Self::Root, name) => f.write_str(name),
            Self::Member(parent, name) => write!(f, "{parent}.{name}"),
            // AWS counts from one and puts the word "member" between.
            Self::Item(parent, index) => write!(f, "{parent}.{}.member", index + 1),
            Self::Value(parent, key) => write!(f, "{parent}.{key}.member"),
        }
    }
}

/// One rule of the model that a value breaks. Display is AWS's wording.
#[derive(Debug, Clone, PartialEq)]
pub enum Constraint {
    /// A required member is absent.
    Required,
    /// The value is not in the enum's set.
    Enum(&'static [&'static str]),
    /// A string, blob, list or map is shorter than this.
    MinLength(f64),
    /// A string, blob, list or map is longer than this.
    MaxLength(f64),
    /// A number is below this.
    Min(f64),
    /// A number is above this.
    Max(f64),
    /// A string does not match the pattern.
    Pattern(&'static str),
    /// An item of a list breaks one of these.
    Items(Vec<Constraint>),
    /// A key of a map breaks one of these.
    Keys(Vec<Constraint>),
    /// A value of a map breaks one of these.
    Values(Vec<Constraint>),
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Required => f.write_str("Member must not be null"),
            Self::Enum(values) => write!(f, "Member must satisfy enum value set: [{}]", values.join(", ")),
            Self::MinLength(min) => write!(f, "Member must have length greater than or equal to {min}"),
            Self::MaxLength(max) => write!(f, "Member must have length less than or equal to {max}"),
            Self::Min(min) => write!(f, "Member must have value greater than or equal to {min}"),
            Self::Max(max) => write!(f, "Member must have value less than or equal to {max}"),
            Self::Pattern(pattern) => write!(f, "Member must satisfy regular expression pattern: {pattern}"),
            Self::Items(rules) => write!(f, "Member must satisfy constraint: [{}]", listed(rules)),
            Self::Keys(rules) => write!(f, "Map keys must satisfy constraint: [{}]", listed(rules)),
            Self::Values(rules) => write!(f, "Map value must satisfy constraint: [{}]", listed(rules)),
        }
    }
}

fn listed(rules: &[Constraint]) -> String {
    rules.iter().map(Constraint::to_string).collect::<Vec<_>>().join(", ")
}

/// A value that breaks the model. Display is AWS's wording, for example "Value null at 'taskDefinition' failed to
/// satisfy constraint: Member must not be null".
#[derive(Debug, Clone, PartialEq)]
pub struct Violation {
    /// The member in AWS's form, for example `containerDefinitions.1.member.name`.
    pub path: String,
    /// The rule it breaks.
    pub constraint: Constraint,
    /// The value, shortened; `None` where it is absent or sensitive.
    pub value: Option<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.value, &self.constraint) {
            (Some(value), _) => write!(f, "Value '{value}'")?,
            (None, Constraint::Required) => f.write_str("Value null")?,
            (None, _) => f.write_str("Value")?,
        }
        write!(f, " at '{}' failed to satisfy constraint: {}", self.path, self.constraint)
    }
}

/// All that is wrong with a request. Display is AWS's wording: "2 validation errors detected: ...; ...".
#[derive(Debug, Clone, Default, PartialEq, thiserror::Error)]
pub struct Violations {
    kept: Vec<Violation>,
    count: usize,
}

impl Violations {
    /// The violations, at most 50 of them.
    pub fn iter(&self) -> impl Iterator<Item = &Violation> {
        self.kept.iter()
    }

    /// How many there are, kept or not.
    pub fn count(&self) -> usize {
        self.count
    }

    fn add(&mut self, at: &Path<'_>, name: &'static str, constraint: Constraint, value: impl FnOnce() -> Option<String>) {
        self.count += 1;
        if self.kept.len() < KEPT {
            self.kept.push(Violation { path: Path::Member(at, name).to_string(), constraint, value: value() });
        }
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, plural) = (self.count, if self.count == 1 { "" } else { "s" });
        write!(f, "{count} validation error{plural} detected: ")?;
        for (index, violation) in self.kept.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            violation.fmt(f)?;
        }
        Ok(())
    }
}

/// A regular expression of a model, compiled at its first use.
#[derive(Debug)]
pub struct Pattern {
    source: &'static str,
    compiled: OnceLock<regex::Regex>,
}

impl Pattern {
    /// The pattern as the model spells it. The generator only emits patterns that compile.
    pub const fn new(source: &'static str) -> Self {
        Self { source, compiled: OnceLock::new() }
    }

    fn matches(&self, text: &str) -> bool {
        // AWS matches the whole value, whether the pattern has anchors or not.
        let compile = || regex::Regex::new(&format!(r"\A(?:{})\z", self.source)).expect("the generator compiled it");
        self.compiled.get_or_init(compile).is_match(text)
    }
}

/// What the model asks of a value.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Smallest number or length.
    pub min: Option<f64>,
    /// Largest number or length.
    pub max: Option<f64>,
    /// Pattern of a string.
    pub pattern: Option<&'static Pattern>,
    /// Whether the value must not be repeated in a text.
    pub sensitive: bool,
}

impl Rule {
    /// A rule that only asks for what the type itself asks for (an enum's set).
    pub const NONE: Self = Self { min: None, max: None, pattern: None, sensitive: false };

    fn length(&self, length: usize, out: &mut Vec<Constraint>) {
        out.extend(self.min.filter(|min| (length as f64) < *min).map(Constraint::MinLength));
        out.extend(self.max.filter(|max| (length as f64) > *max).map(Constraint::MaxLength));
    }

    fn range(&self, value: f64, out: &mut Vec<Constraint>) {
        out.extend(self.min.filter(|min| value < *min).map(Constraint::Min));
        out.extend(self.max.filter(|max| value > *max).map(Constraint::Max));
    }

    fn show(&self, value: &impl Subject) -> Option<String> {
        (!self.sensitive).then(|| {
            let text = value.show();
            match text.char_indices().nth(SHOWN) {
                Some((end, _)) => format!("{}...", &text[..end]),
                None => text,
            }
        })
    }
}

/// A value that a [`Rule`] can be held against.
pub trait Subject {
    /// Notes which parts of the rule the value breaks.
    fn breaks(&self, rule: &Rule, out: &mut Vec<Constraint>);

    /// The value as AWS repeats it.
    fn show(&self) -> String;
}

impl Subject for String {
    fn breaks(&self, rule: &Rule, out: &mut Vec<Constraint>) {
        if rule.min.is_some() || rule.max.is_some() {
            rule.length(self.chars().count(), out);
        }
        out.extend(rule.pattern.filter(|pattern| !pattern.matches(self)).map(|pattern| Constraint::Pattern(pattern.source)));
    }

    fn show(&self) -> String {
        // A hostile string may be megabytes; only its start is ever shown.
        self.chars().take(SHOWN + 1).collect()
    }
}

impl<E: OpenEnum> Subject for E {
    fn breaks(&self, _rule: &Rule, out: &mut Vec<Constraint>) {
        if !self.is_known() {
            out.push(Constraint::Enum(E::VALUES));
        }
    }

    fn show(&self) -> String {
        self.as_str().chars().take(SHOWN + 1).collect()
    }
}

impl Subject for crate::Blob {
    fn breaks(&self, rule: &Rule, out: &mut Vec<Constraint>) {
        rule.length(self.0.len(), out);
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }
}

macro_rules! numbers {
    ($($number:ty)*) => {$(
        impl Subject for $number {
            fn breaks(&self, rule: &Rule, out: &mut Vec<Constraint>) {
                rule.range(*self as f64, out);
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
numbers!(i32 i64 f32 f64);

/// Notes a required member that is absent.
pub fn required<T>(member: &Option<T>, at: &Path<'_>, name: &'static str, found: &mut Violations) {
    if member.is_none() {
        found.add(at, name, Constraint::Required, || None);
    }
}

/// Holds a scalar member against its rule.
pub fn scalar<T: Subject>(member: &Option<T>, rule: &Rule, at: &Path<'_>, name: &'static str, found: &mut Violations) {
    if let Some(value) = member {
        for constraint in broken(value, rule) {
            found.add(at, name, constraint, || rule.show(value));
        }
    }
}

/// Holds the number of a list's items against its rule.
pub fn list_length<T>(member: &Option<Vec<T>>, rule: &Rule, at: &Path<'_>, name: &'static str, found: &mut Violations) {
    length(member.as_ref().map(Vec::len), rule, at, name, found);
}

/// Holds the number of a map's entries against its rule.
pub fn map_length<T>(member: &Option<BTreeMap<String, T>>, rule: &Rule, at: &Path<'_>, name: &'static str, found: &mut Violations) {
    length(member.as_ref().map(BTreeMap::len), rule, at, name, found);
}

fn length(length: Option<usize>, rule: &Rule, at: &Path<'_>, name: &'static str, found: &mut Violations) {
    let mut constraints = Vec::new();
    if let Some(length) = length {
        rule.length(length, &mut constraints);
    }
    for constraint in constraints {
        // The items are structures as often as not; their number says more than their text would.
        found.add(at, name, constraint, || length.map(|length| format!("[{length} members]")));
    }
}

/// Holds every scalar of a list against its rule. AWS notes the list once per rule that any item breaks.
pub fn items<T: Subject>(member: &Option<Vec<T>>, rule: &Rule, at: &Path<'_>, name: &'static str, found: &mut Violations) {
    let Some(list) = member else { return };
    if let Some(constraints) = list.iter().map(|item| broken(item, rule)).find(|broken| !broken.is_empty()) {
        found.add(at, name, Constraint::Items(constraints), || shown(list.iter(), rule, ("[", "]")));
    }
}

/// Holds every key of a map against its rule.
pub fn keys<T>(member: &Option<BTreeMap<String, T>>, rule: &Rule, at: &Path<'_>, name: &'static str, found: &mut Violations) {
    let Some(map) = member else { return };
    if let Some(constraints) = map.keys().map(|key| broken(key, rule)).find(|broken| !broken.is_empty()) {
        found.add(at, name, Constraint::Keys(constraints), || shown(map.keys(), rule, ("{", "}")));
    }
}

/// Holds every scalar value of a map against its rule.
pub fn values<T: Subject>(member: &Option<BTreeMap<String, T>>, rule: &Rule, at: &Path<'_>, name: &'static str, found: &mut Violations) {
    let Some(map) = member else { return };
    if let Some(constraints) = map.values().map(|value| broken(value, rule)).find(|broken| !broken.is_empty()) {
        found.add(at, name, Constraint::Values(constraints), || shown(map.values(), rule, ("{", "}")));
    }
}

fn shown<'a, T: Subject + 'a>(values: impl Iterator<Item = &'a T>, rule: &Rule, (open, close): (&str, &str)) -> Option<String> {
    let text = values.take(20).map(|value| rule.show(value)).collect::<Option<Vec<_>>>()?.join(", ");
    Some(format!("{open}{text}{close}"))
}

fn broken(value: &impl Subject, rule: &Rule) -> Vec<Constraint> {
    let mut constraints = Vec::new();
    value.breaks(rule, &mut constraints);
    constraints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecs::{
        CapacityProviderStrategyItem, ClusterField, DescribeClustersRequest, EnvironmentFile, LaunchType, RegisterTaskDefinitionRequest,
        RunTaskRequest, Tag,
    };

    fn refusal(request: &impl Validate) -> String {
        request.validate().unwrap_err().to_string()
    }

    #[test]
    fn a_required_member_has_the_wording_of_aws() {
        assert_eq!(
            refusal(&RunTaskRequest::default()),
            "1 validation error detected: Value null at 'taskDefinition' failed to satisfy constraint: Member must not be null"
        );
        let request = RunTaskRequest { task_definition: Some("web".into()), ..Default::default() };
        assert_eq!(request.validate(), Ok(()));
    }

    #[test]
    fn enums_ranges_lengths_and_patterns() {
        let request = RunTaskRequest {
            task_definition: Some("web".into()),
            launch_type: Some(LaunchType::from("MOON")),
            capacity_provider_strategy: Some(vec![CapacityProviderStrategyItem {
                capacity_provider: Some("spot".into()),
                weight: Some(1001),
                ..Default::default()
            }]),
            tags: Some(vec![Tag { key: Some("a!".into()), value: Some("x".repeat(257)) }]),
            ..Default::default()
        };
        let text = refusal(&request);
        assert!(text.starts_with("4 validation errors detected: "), "{text}");
        for part in [
            "Value 'MOON' at 'launchType' failed to satisfy constraint: Member must satisfy enum value set: [EC2, FARGATE, EXTERNAL, MANAGED_INSTANCES]",
            "Value '1001' at 'capacityProviderStrategy.1.member.weight' failed to satisfy constraint: Member must have value less than or equal to 1000",
            "Value 'a!' at 'tags.1.member.key' failed to satisfy constraint: Member must satisfy regular expression pattern: ([\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]*)",
            "at 'tags.1.member.value' failed to satisfy constraint: Member must have length less than or equal to 256",
        ] {
            assert!(text.contains(part), "{part}\nnot in\n{text}");
        }
    }

    #[test]
    fn items_of_a_list_are_reported_on_the_list() {
        let request = DescribeClustersRequest { include: Some(vec![ClusterField::Tags, "NAMES".into()]), ..Default::default() };
        assert_eq!(
            refusal(&request),
            "1 validation error detected: Value '[TAGS, NAMES]' at 'include' failed to satisfy constraint: Member must satisfy \
             constraint: [Member must satisfy enum value set: [ATTACHMENTS, CONFIGURATIONS, SETTINGS, STATISTICS, TAGS]]"
        );
    }

    #[test]
    fn nested_structures_carry_their_path() {
        let request: RegisterTaskDefinitionRequest = serde_json::from_str(
            r#"{"family":"web","containerDefinitions":[{},{"environmentFiles":[{"value":"arn"}],"portMappings":[{"protocol":"sctp"}]}]}"#,
        )
        .unwrap();
        let found = request.validate().unwrap_err();
        let paths: Vec<_> = found.iter().map(|violation| violation.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "containerDefinitions.2.member.portMappings.1.member.protocol",
                "containerDefinitions.2.member.environmentFiles.1.member.type"
            ]
        );
        let _ = EnvironmentFile::default();
    }

    #[test]
    fn a_hostile_request_gets_a_short_text() {
        let request = RunTaskRequest {
            task_definition: Some("web".into()),
            tags: Some(vec![Tag { key: Some("!".repeat(1_000_000)), value: None }; 60]),
            ..Default::default()
        };
        let found = request.validate().unwrap_err();
        assert_eq!(found.count(), 1 + 2 * 60);
        assert_eq!(found.iter().count(), KEPT);
        assert!(found.to_string().len() < 100_000);
    }
}
