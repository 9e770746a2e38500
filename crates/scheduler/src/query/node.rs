//! An expression's tree: what it means for an instance, and how it is printed. It is built by the grammar alone, which checks that each
//! subject has the operator it got.

use std::cmp::Ordering;
use std::fmt;

use super::pattern::Pattern;
use super::scalar::Scalar;
use super::subject::Subject;

/// A compound or a single expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// Joined by `and`; two at least.
    All(Vec<Self>),
    /// Joined by `or`; two at least.
    Any(Vec<Self>),
    /// `not`.
    Not(Box<Self>),
    /// Subject, operator, argument.
    Term(Field, Test),
}

/// The subject of a single expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Field {
    AgentConnected,
    AgentVersion,
    Attribute(String),
    Ec2InstanceId,
    RegisteredAt,
    RunningTasksCount,
    TaskGroup,
}

/// An operator with its argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Test {
    Exists,
    Absent,
    Equal(String),
    Differs(String),
    In(Vec<String>),
    NotIn(Vec<String>),
    Matches(Pattern),
    NotMatches(Pattern),
    Ordered(Order, Scalar),
}

/// How a value with an order stands to the argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Equal,
    Differs,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

impl Node {
    pub(super) fn holds(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::All(nodes) => nodes.iter().all(|node| node.holds(subject)),
            Self::Any(nodes) => nodes.iter().any(|node| node.holds(subject)),
            Self::Not(node) => !node.holds(subject),
            Self::Term(field, test) => field.passes(test, subject),
        }
    }

    /// Calls with each subject, in the order in which they stand there.
    pub(super) fn each_field<'a>(&'a self, call: &mut impl FnMut(&'a Field)) {
        match self {
            Self::All(nodes) | Self::Any(nodes) => nodes.iter().for_each(|node| node.each_field(call)),
            Self::Not(node) => node.each_field(call),
            Self::Term(field, _) => call(field),
        }
    }
}

impl Field {
    /// The attribute's name, if it is one.
    pub(super) fn attribute(&self) -> Option<&str> {
        if let Self::Attribute(name) = self { Some(name) } else { None }
    }

    /// Whether a test holds for an instance's value of this subject.
    ///
    /// A comparison is about a value that is there: where the instance has none, `!=`, `!in` and `!~` hold no more than `==`, `in` and
    /// `=~`. ECS documents that (`attribute:stack != prod` lists "the instances with the custom attribute stack unless the value is
    /// prod"), and its users count on it, writing `attribute:drain !exists or attribute:drain != true`. The same for groups, of which an
    /// instance has many or none: `task:group != a` holds where a task of another group is, `not(task:group == a)` where none of a is.
    fn passes(&self, test: &Test, subject: &Subject<'_>) -> bool {
        if let Test::Ordered(order, scalar) = test {
            return scalar.order_of(subject).is_some_and(|actual| order.allows(actual));
        }
        match self {
            Self::AgentConnected => test.passes(Some(if subject.agent_connected { "true" } else { "false" })),
            Self::Attribute(name) => match subject.attributes.get(name) {
                Some(value) => test.passes(value.as_deref()),
                None => *test == Test::Absent,
            },
            Self::Ec2InstanceId => subject.ec2_instance_id.is_some_and(|id| test.passes(Some(id))),
            Self::TaskGroup if *test == Test::Absent => !(subject.any_group)(&|_| true),
            Self::TaskGroup => (subject.any_group)(&|group| test.passes(Some(group))),
            // The grammar gives them ordered tests alone.
            Self::AgentVersion | Self::RegisteredAt | Self::RunningTasksCount => false,
        }
    }
}

impl Test {
    /// Whether it holds for a value that is there; an attribute's may be null, which equals and matches nothing.
    fn passes(&self, value: Option<&str>) -> bool {
        match self {
            Self::Exists => true,
            Self::Absent => false,
            Self::Equal(wanted) => value == Some(wanted),
            Self::Differs(wanted) => value != Some(wanted),
            Self::In(list) => value.is_some_and(|value| list.iter().any(|wanted| wanted == value)),
            Self::NotIn(list) => value.is_none_or(|value| list.iter().all(|wanted| wanted != value)),
            Self::Matches(pattern) => value.is_some_and(|value| pattern.matches(value)),
            Self::NotMatches(pattern) => value.is_none_or(|value| !pattern.matches(value)),
            Self::Ordered(..) => false,
        }
    }
}

impl Order {
    const fn allows(self, actual: Ordering) -> bool {
        match self {
            Self::Equal => actual.is_eq(),
            Self::Differs => actual.is_ne(),
            Self::Less => actual.is_lt(),
            Self::AtMost => actual.is_le(),
            Self::Greater => actual.is_gt(),
            Self::AtLeast => actual.is_ge(),
        }
    }

    const fn sign(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::Differs => "!=",
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::Greater => ">",
            Self::AtLeast => ">=",
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(nodes) => joined(f, nodes, " and ", |node| matches!(node, Self::All(_) | Self::Any(_))),
            Self::Any(nodes) => joined(f, nodes, " or ", |node| matches!(node, Self::Any(_))),
            Self::Not(node) if matches!(**node, Self::All(_) | Self::Any(_)) => write!(f, "not ({node})"),
            Self::Not(node) => write!(f, "not {node}"),
            Self::Term(field, test) => write!(f, "{field} {test}"),
        }
    }
}

fn joined(f: &mut fmt::Formatter<'_>, nodes: &[Node], word: &str, in_parentheses: impl Fn(&Node) -> bool) -> fmt::Result {
    for (number, node) in nodes.iter().enumerate() {
        if number > 0 {
            f.write_str(word)?;
        }
        if in_parentheses(node) {
            write!(f, "({node})")?;
        } else {
            write!(f, "{node}")?;
        }
    }
    Ok(())
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AgentConnected => f.write_str("agentConnected"),
            Self::AgentVersion => f.write_str("agentVersion"),
            Self::Attribute(name) => write!(f, "attribute:{name}"),
            Self::Ec2InstanceId => f.write_str("ec2InstanceId"),
            Self::RegisteredAt => f.write_str("registeredAt"),
            Self::RunningTasksCount => f.write_str("runningTasksCount"),
            Self::TaskGroup => f.write_str("task:group"),
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists => f.write_str("exists"),
            Self::Absent => f.write_str("!exists"),
            Self::Equal(value) => write!(f, "== {}", Word(value)),
            Self::Differs(value) => write!(f, "!= {}", Word(value)),
            Self::In(list) => write!(f, "in [{}]", List(list)),
            Self::NotIn(list) => write!(f, "!in [{}]", List(list)),
            // Always in quotes: where a bare pattern ends is a matter of its own.
            Self::Matches(pattern) => write!(f, "=~ {}", Quoted(pattern.text())),
            Self::NotMatches(pattern) => write!(f, "!~ {}", Quoted(pattern.text())),
            Self::Ordered(order, scalar) => write!(f, "{} {}", order.sign(), scalar.text()),
        }
    }
}

/// A value, in quotes if it needs them.
struct Word<'a>(&'a str);

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare = !self.0.is_empty() && self.0.chars().all(super::grammar::is_bare);
        if bare { f.write_str(self.0) } else { write!(f, "{}", Quoted(self.0)) }
    }
}

/// A value in quotes; a quote within it is doubled.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.0.replace('\'', "''"))
    }
}

struct List<'a>(&'a [String]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, value) in self.0.iter().enumerate() {
            let comma = if number > 0 { ", " } else { "" };
            write!(f, "{comma}{}", Word(value))?;
        }
        Ok(())
    }
}
