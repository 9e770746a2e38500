//! From text to tree: the grammar, and the rules which subject has which operator. It never panics, whatever the text is.

use winnow::Parser;
use winnow::ascii::multispace0;
use winnow::combinator::{alt, cut_err, delimited, not, opt, preceded, repeat, separated, terminated};
use winnow::error::{ErrMode, ParserError};
use winnow::stream::{LocatingSlice, Location};
use winnow::token::{literal, one_of, take_while};

use super::MAX_DEPTH;
use super::error::QueryError;
use super::node::{Field, Node, Order, Test};
use super::pattern::Pattern;
use super::scalar::Scalar;

type Input<'a> = LocatingSlice<&'a str>;
type Parsed<T> = Result<T, ErrMode<Fault>>;

/// Where a parser gave up (a byte's place), and what it wanted there.
#[derive(Debug)]
struct Fault {
    at: usize,
    expected: String,
}

impl ParserError<Input<'_>> for Fault {
    type Inner = Self;

    fn from_input(input: &Input<'_>) -> Self {
        Self { at: input.current_token_start(), expected: String::new() }
    }

    fn into_inner(self) -> Result<Self, Self> {
        Ok(self)
    }
}

/// Reads a whole text.
pub(super) fn expression(text: &str) -> Result<Node, QueryError> {
    let mut input = LocatingSlice::new(text);
    let read = preceded(multispace0, |input: &mut Input<'_>| any(input, 0)).parse_next(&mut input).and_then(|node| {
        multispace0.parse_next(&mut input)?;
        if input.is_empty() { Ok(node) } else { stop(input.current_token_start(), "and, or, or the end of the expression") }
    });
    read.map_err(|error| {
        let fault = error.into_inner().unwrap_or_else(|_| Fault { at: text.len(), expected: String::new() });
        QueryError { column: text[..fault.at].chars().count() + 1, expected: fault.expected }
    })
}

/// Ends the reading, for good.
fn stop<T>(at: usize, expected: impl Into<String>) -> Parsed<T> {
    Err(ErrMode::Cut(Fault { at, expected: expected.into() }))
}

/// Joined by `or`.
fn any(input: &mut Input<'_>, depth: usize) -> Parsed<Node> {
    let mut nodes = vec![all(input, depth)?];
    while opt(joint("||", "or")).parse_next(input)?.is_some() {
        nodes.push(all(input, depth)?);
    }
    Ok(if nodes.len() == 1 { nodes.remove(0) } else { Node::Any(nodes) })
}

/// Joined by `and`, which binds closer.
fn all(input: &mut Input<'_>, depth: usize) -> Parsed<Node> {
    let mut nodes = vec![single(input, depth)?];
    while opt(joint("&&", "and")).parse_next(input)?.is_some() {
        nodes.push(single(input, depth)?);
    }
    Ok(if nodes.len() == 1 { nodes.remove(0) } else { Node::All(nodes) })
}

/// `and` or `or`, with the space around it.
fn joint<'a>(sign: &'static str, name: &'static str) -> impl Parser<Input<'a>, (), ErrMode<Fault>> {
    delimited(multispace0, alt((literal(sign).void(), word(name))), multispace0)
}

/// `not`, parentheses, or subject, operator and argument.
fn single(input: &mut Input<'_>, depth: usize) -> Parsed<Node> {
    let at = input.current_token_start();
    if depth > MAX_DEPTH {
        return stop(at, format!("a subject: not and parentheses nest {MAX_DEPTH} deep at most"));
    }
    if opt(terminated(alt((literal("!").void(), word("not"))), multispace0)).parse_next(input)?.is_some() {
        return Ok(Node::Not(Box::new(single(input, depth + 1)?)));
    }
    if opt(terminated(literal("("), multispace0)).parse_next(input)?.is_some() {
        let node = any(input, depth + 1)?;
        multispace0.parse_next(input)?;
        let end = input.current_token_start();
        return match opt(literal(")")).parse_next(input)? {
            Some(_) => Ok(node),
            None => stop(end, "and, or, or a closing parenthesis"),
        };
    }
    let field = field(input)?;
    multispace0.parse_next(input)?;
    let test = test(input, &field)?;
    Ok(Node::Term(field, test))
}

const SUBJECTS: &str = "a subject (agentConnected, agentVersion, attribute:NAME, ec2InstanceId, registeredAt, runningTasksCount or task:group), not, or a parenthesis";

fn field(input: &mut Input<'_>) -> Parsed<Field> {
    let at = input.current_token_start();
    let named = alt((
        word("agentConnected").value(Field::AgentConnected),
        word("agentVersion").value(Field::AgentVersion),
        word("ec2InstanceId").value(Field::Ec2InstanceId),
        word("registeredAt").value(Field::RegisteredAt),
        word("runningTasksCount").value(Field::RunningTasksCount),
        word("task:group").value(Field::TaskGroup),
    ));
    if let Some(field) = opt(named).parse_next(input)? {
        return Ok(field);
    }
    if opt(literal("attribute:")).parse_next(input)?.is_none() {
        return stop(at, SUBJECTS);
    }
    let at = input.current_token_start();
    let name = take_while(0.., is_attribute_name).parse_next(input)?;
    match name.chars().count() {
        0 => stop(at, "the name of an attribute (letters, digits, and - _ . / \\)"),
        1..=128 => Ok(Field::Attribute(name.to_owned())),
        _ => stop(at, "the name of an attribute of 128 characters at most"),
    }
}

/// An operator as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Order(Order),
    Exists,
    Absent,
    In,
    NotIn,
    Matches,
    NotMatches,
}

fn operator(input: &mut Input<'_>) -> Parsed<Operator> {
    let signs = alt((
        literal("==").value(Operator::Order(Order::Equal)),
        literal("=~").value(Operator::Matches),
        literal("!=").value(Operator::Order(Order::Differs)),
        literal("!~").value(Operator::NotMatches),
        literal(">=").value(Operator::Order(Order::AtLeast)),
        literal(">").value(Operator::Order(Order::Greater)),
        literal("<=").value(Operator::Order(Order::AtMost)),
        literal("<").value(Operator::Order(Order::Less)),
    ));
    let words = alt((
        word("equals").value(Operator::Order(Order::Equal)),
        word("not_equals").value(Operator::Order(Order::Differs)),
        word("greater_than_equal").value(Operator::Order(Order::AtLeast)),
        word("greater_than").value(Operator::Order(Order::Greater)),
        word("less_than_equal").value(Operator::Order(Order::AtMost)),
        word("less_than").value(Operator::Order(Order::Less)),
    ));
    let others = alt((
        word("exists").value(Operator::Exists),
        word("!exists").value(Operator::Absent),
        word("!in").value(Operator::NotIn),
        word("not_exists").value(Operator::Absent),
        word("in").value(Operator::In),
        word("not_in").value(Operator::NotIn),
        word("matches").value(Operator::Matches),
        word("not_matches").value(Operator::NotMatches),
    ));
    alt((signs, words, others)).parse_next(input)
}

/// The operators of a subject, for whoever wrote another.
const fn operators(field: &Field) -> &'static str {
    match field {
        Field::AgentVersion => "an operator of agentVersion (==, !=, >, >=, < or <=)",
        Field::RegisteredAt => "an operator of registeredAt (==, !=, >, >=, < or <=)",
        Field::RunningTasksCount => "an operator of runningTasksCount (==, !=, >, >=, < or <=)",
        Field::AgentConnected => "an operator of agentConnected (==, !=, in, !in, =~ or !~)",
        Field::Ec2InstanceId => "an operator of ec2InstanceId (==, !=, in, !in, =~ or !~)",
        Field::Attribute(_) => "an operator of attributes (==, !=, exists, !exists, in, !in, =~ or !~)",
        Field::TaskGroup => "an operator of task:group (==, !=, exists, !exists, in, !in, =~ or !~)",
    }
}

/// An operator that the subject has, with an argument of its type.
fn test(input: &mut Input<'_>, field: &Field) -> Parsed<Test> {
    let at = input.current_token_start();
    let Some(operator) = opt(operator).parse_next(input)? else { return stop(at, operators(field)) };
    multispace0.parse_next(input)?;
    let scalar = matches!(field, Field::AgentVersion | Field::RegisteredAt | Field::RunningTasksCount);
    let may_be_absent = matches!(field, Field::Attribute(_) | Field::TaskGroup);
    match operator {
        Operator::Order(order) if scalar => scalar_argument(input, field).map(|scalar| Test::Ordered(order, scalar)),
        Operator::Order(Order::Equal) => value(input, field).map(Test::Equal),
        Operator::Order(Order::Differs) => value(input, field).map(Test::Differs),
        Operator::Exists if may_be_absent => Ok(Test::Exists),
        Operator::Absent if may_be_absent => Ok(Test::Absent),
        Operator::In if !scalar => list(input, field).map(Test::In),
        Operator::NotIn if !scalar => list(input, field).map(Test::NotIn),
        Operator::Matches if !scalar => pattern(input).map(Test::Matches),
        Operator::NotMatches if !scalar => pattern(input).map(Test::NotMatches),
        _ => stop(at, operators(field)),
    }
}

fn scalar_argument(input: &mut Input<'_>, field: &Field) -> Parsed<Scalar> {
    let at = input.current_token_start();
    let (read, expected): (fn(&str) -> Option<Scalar>, _) = match field {
        Field::AgentVersion => (Scalar::version, "a version (numbers with dots between them, such as 1.14.5)"),
        Field::RegisteredAt => {
            (Scalar::moment, "a date (2018-06-18T22:28:28+00:00, 2018-06-18T22:28:28Z, 2018-06-18T22:28:28 or 2018-06-18)")
        }
        _ => (Scalar::count, "a number of tasks"),
    };
    let text = opt(argument).parse_next(input)?;
    text.and_then(|text| read(&text)).map_or_else(|| stop(at, expected), Ok)
}

/// One value of a subject that is compared as text.
fn value(input: &mut Input<'_>, field: &Field) -> Parsed<String> {
    let at = input.current_token_start();
    let boolean = *field == Field::AgentConnected;
    match opt(argument).parse_next(input)? {
        Some(text) if !boolean || matches!(text.as_str(), "true" | "false") => Ok(text),
        _ if boolean => stop(at, "true or false"),
        _ => stop(at, "a value; in quotes if it has spaces or signs of the language in it"),
    }
}

fn list(input: &mut Input<'_>, field: &Field) -> Parsed<Vec<String>> {
    let at = input.current_token_start();
    if opt(terminated(literal("["), multispace0)).parse_next(input)?.is_none() {
        return stop(at, "a list of values ([a, b])");
    }
    let comma = (multispace0, literal(","), multispace0);
    let values = separated(1.., |input: &mut Input<'_>| value(input, field), comma).parse_next(input)?;
    multispace0.parse_next(input)?;
    let end = input.current_token_start();
    match opt(literal("]")).parse_next(input)? {
        Some(_) => Ok(values),
        None => stop(end, "a comma or a closing bracket"),
    }
}

/// A value with or without quotes.
fn argument(input: &mut Input<'_>) -> Parsed<String> {
    alt((quoted, take_while(1.., is_bare).map(str::to_owned))).parse_next(input)
}

/// A value in single or double quotes; a quote within is doubled. Nothing else is special, so that a pattern's backslashes stay.
fn quoted(input: &mut Input<'_>) -> Parsed<String> {
    let quote = one_of(['\'', '"']).parse_next(input)?;
    let doubled: &str = if quote == '\'' { "''" } else { "\"\"" };
    let piece = alt((literal(doubled).value(quote), one_of(move |c: char| c != quote)));
    let text = repeat(0.., piece).fold(String::new, |mut text, c| {
        text.push(c);
        text
    });
    let close = |input: &mut Input<'_>| {
        let at = input.current_token_start();
        match opt(one_of(quote)).parse_next(input)? {
            Some(_) => Ok(()),
            None => stop(at, "the closing quote"),
        }
    };
    terminated(text, cut_err(close)).parse_next(input)
}

fn pattern(input: &mut Input<'_>) -> Parsed<Pattern> {
    let at = input.current_token_start();
    let text = match opt(quoted).parse_next(input)? {
        Some(text) => text,
        None => bare_pattern(input)?,
    };
    if text.is_empty() {
        return stop(at, "a pattern");
    }
    Pattern::new(&text).or_else(|expected| stop(at, expected))
}

/// A pattern without quotes ends at a space, or at a parenthesis that it did not open: `(attribute:a =~ t2.(small|large))`.
fn bare_pattern(input: &mut Input<'_>) -> Parsed<String> {
    let (mut open, mut class, mut escaped) = (0_usize, false, false);
    let inside = move |c: char| {
        if c.is_whitespace() {
            return false;
        }
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '[' => class = true,
            ']' => class = false,
            '(' if !class => open += 1,
            ')' if !class && open == 0 => return false,
            ')' if !class => open -= 1,
            _ => {}
        }
        true
    };
    let end = input.chars().scan(inside, |inside, c| inside(c).then(|| c.len_utf8())).sum::<usize>();
    winnow::token::take(input[..end].chars().count()).map(str::to_owned).parse_next(input)
}

/// A word of the language, and no longer one that begins with it.
fn word<'a>(name: &'static str) -> impl Parser<Input<'a>, (), ErrMode<Fault>> {
    terminated(literal(name), not(one_of(is_word))).void()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | ':' | '.')
}

fn is_attribute_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '\\')
}

/// A character of a value that needs no quotes.
pub(super) fn is_bare(c: char) -> bool {
    !c.is_whitespace() && !c.is_control() && !matches!(c, '(' | ')' | '[' | ']' | ',' | '\'' | '"' | '!' | '=' | '<' | '>' | '&' | '|')
}
