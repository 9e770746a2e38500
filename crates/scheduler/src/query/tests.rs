//! The language against a small fleet, its errors with their columns, and its properties.

use std::collections::BTreeMap;

use berth_model::time::UnixMillis;
use proptest::prelude::*;

use super::node::{Field, Node, Order, Test};
use super::pattern::Pattern;
use super::scalar::Scalar;
use super::{Expression, MAX_DEPTH, MAX_LENGTH, Subject};

/// 2018-06-18T22:28:28.5Z.
const REGISTERED: UnixMillis = UnixMillis(1_529_360_908_500);

fn holds(text: &str) -> bool {
    let expression = Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let attributes: BTreeMap<_, _> = [
        ("stack".to_owned(), Some("prod".to_owned())),
        ("ecs.instance-type".to_owned(), Some("g2.2xlarge".to_owned())),
        ("bare".to_owned(), None),
        ("words".to_owned(), Some("two words".to_owned())),
    ]
    .into();
    let groups = ["service:web", "databases"];
    expression.holds(&Subject {
        attributes: &attributes,
        agent_connected: true,
        agent_version: Some("1.14.5"),
        ec2_instance_id: Some("i-abcd1234"),
        registered_at: REGISTERED,
        running_tasks: 2,
        any_group: &|test| groups.iter().any(|group| test(group)),
    })
}

fn holds_for_nothing(text: &str) -> bool {
    Expression::parse(text).unwrap().holds(&Subject {
        attributes: &BTreeMap::new(),
        agent_connected: false,
        agent_version: None,
        ec2_instance_id: None,
        registered_at: UnixMillis(0),
        running_tasks: 0,
        any_group: &|_| false,
    })
}

#[test]
fn every_subject_has_its_operators_in_both_spellings() {
    for text in [
        "agentConnected == true",
        "agentConnected equals true",
        "agentConnected != false",
        "agentConnected not_equals false",
        "agentConnected in [true, false]",
        "agentConnected !in [false]",
        "agentConnected =~ t.*",
        "agentConnected not_matches f.*",
        "agentVersion == 1.14.5",
        "agentVersion == 1.14.5.0",
        "agentVersion != 1.14",
        "agentVersion > 1.9.9",
        "agentVersion greater_than 1.14.4",
        "agentVersion >= 1.14.5",
        "agentVersion greater_than_equal 1.2",
        "agentVersion < 1.100.0",
        "agentVersion less_than 2",
        "agentVersion <= 1.14.5",
        "agentVersion less_than_equal 1.14.6",
        "attribute:stack == prod",
        "attribute:stack equals 'prod'",
        "attribute:stack==prod",
        "attribute:stack != test",
        "attribute:stack exists",
        "attribute:none !exists",
        "attribute:none not_exists",
        "attribute:stack in [prod, test]",
        "attribute:stack in ['prod',\"test\"]",
        "attribute:stack in[prod]",
        "attribute:stack !in [test]",
        "attribute:stack not_in [test]",
        "attribute:stack =~ pr.*",
        "attribute:stack matches (pr|t)od",
        "attribute:stack !~ pro",
        "attribute:stack not_matches 'ro'",
        "attribute:words == 'two words'",
        "ec2InstanceId == i-abcd1234",
        "ec2InstanceId in ['i-abcd1234', 'i-wxyx7890']",
        "ec2InstanceId =~ i-[a-d]+\\d{4}",
        "ec2InstanceId != i-0",
        "registeredAt > 2018-06-18",
        "registeredAt < 2018-06-19",
        "registeredAt == 2018-06-18T22:28:28",
        "registeredAt == 2018-06-18T22:28:28Z",
        "registeredAt >= 2018-06-18T22:28:28+00:00",
        "registeredAt == 2018-06-18T23:28:28+01:00",
        "registeredAt != 2018-06-18T22:28:29Z",
        "runningTasksCount == 2",
        "runningTasksCount < 10",
        "runningTasksCount >= 2",
        "task:group == service:web",
        "task:group in [databases]",
        "task:group =~ service:.*",
        "task:group exists",
    ] {
        assert!(holds(text), "{text}");
        assert!(!holds(&format!("not({text})")), "not: {text}");
    }
}

#[test]
fn compounds_bind_as_they_should() {
    assert!(holds("attribute:stack == test and attribute:stack == test or attribute:stack == prod"), "and binds closer than or");
    assert!(!holds("attribute:stack == test && (attribute:stack == test || attribute:stack == prod)"));
    assert!(!holds("not attribute:stack == prod or attribute:stack == test"), "not binds closest");
    assert!(holds("!attribute:stack == test&&!(attribute:stack==test)"));
    assert!(holds("not not attribute:stack == prod"));
    assert!(holds("((attribute:ecs.instance-type =~ g2.*) and (attribute:ecs.instance-type =~ g2.(2|4)xlarge))"));
    assert!(holds(" attribute:stack  ==\tprod "));
}

#[test]
fn a_comparison_is_about_a_value_that_is_there() {
    for text in [
        "attribute:a == b",
        "attribute:a != b",
        "attribute:a in [b]",
        "attribute:a !in [b]",
        "attribute:a =~ b",
        "attribute:a !~ b",
        "attribute:a exists",
        "ec2InstanceId != i-1",
        "agentVersion != 1.0.0",
        "agentVersion < 2",
        "task:group != service:web",
        "task:group exists",
    ] {
        assert!(!holds_for_nothing(text), "{text}");
        assert!(holds_for_nothing(&format!("not {text}")), "not {text}");
    }
    assert!(holds_for_nothing("attribute:a !exists or attribute:a != b"));
    assert!(holds_for_nothing("task:group !exists"));
    assert!(holds("task:group != service:web"), "databases is there");
    assert!(!holds("not(task:group == databases)"));
}

#[test]
fn an_attribute_without_a_value_exists_and_equals_nothing() {
    assert!(holds("attribute:bare exists"));
    assert!(holds("attribute:bare != x and attribute:bare !in [x] and attribute:bare !~ .*"));
    assert!(!holds("attribute:bare == x or attribute:bare in [x] or attribute:bare =~ .*"));
}

#[test]
fn patterns_match_the_whole_value() {
    assert!(!holds("attribute:ecs.instance-type =~ g2"));
    assert!(holds("attribute:stack =~ p|prod"), "the longer branch too");
    assert!(holds(r"attribute:ecs.instance-type =~ '\w\d\.\d+x?large'"));
    assert!(holds("attribute:ecs.instance-type =~ [(]*g2.+"), "a parenthesis in a class opens nothing");
}

#[test]
fn errors_name_the_column_and_what_was_expected() {
    for (text, column, expected) in [
        ("", 1, "a subject"),
        ("  ", 3, "a subject"),
        ("colour == red", 1, "a subject"),
        ("attribute: == a", 11, "the name of an attribute"),
        ("attribute:a", 12, "an operator of attributes"),
        ("attribute:a = b", 13, "an operator of attributes"),
        ("attribute:a > 3", 13, "an operator of attributes"),
        ("attribute:a ==", 15, "a value"),
        ("attribute:a == b c", 18, "and, or, or the end"),
        ("attribute:a == b and", 21, "a subject"),
        ("attribute:a == 'b", 18, "the closing quote"),
        ("attribute:a in b", 16, "a list"),
        ("attribute:a in []", 17, "a value"),
        ("attribute:a in [b c]", 19, "a comma or a closing bracket"),
        ("(attribute:a == b", 18, "a closing parenthesis"),
        ("attribute:a == b)", 17, "the end"),
        ("attribute:é == b", 11, "the name of an attribute"),
        ("attribute:a == é or attribute:b =", 33, "an operator"),
        ("agentConnected == yes", 19, "true or false"),
        ("agentConnected in [true, no]", 26, "true or false"),
        ("agentConnected > true", 16, "an operator of agentConnected"),
        ("agentConnected exists", 16, "an operator of agentConnected"),
        ("agentVersion in [1.0]", 14, "an operator of agentVersion"),
        ("agentVersion =~ 1.*", 14, "an operator of agentVersion"),
        ("agentVersion > new", 16, "a version"),
        ("registeredAt > 2018", 16, "a date"),
        ("registeredAt > 2018-13-18", 16, "a date"),
        ("registeredAt > 20180618T000000Z", 16, "a date"),
        ("runningTasksCount < many", 21, "a number"),
        ("runningTasksCount < -1", 21, "a number"),
        ("runningTasksCount in [1]", 19, "an operator of runningTasksCount"),
        ("ec2InstanceId < i-1", 15, "an operator of ec2InstanceId"),
        ("task:group > a", 12, "an operator of task:group"),
        ("attribute:a =~", 15, "a pattern"),
        ("attribute:a =~ (b", 16, "a regular expression (unclosed group)"),
        ("attribute:a =~ 'a)|(b'", 16, "a regular expression"),
        ("attribute:a =~ (?=b)c", 16, "a pattern without look-around"),
        ("attribute:a =~ (?<!b)c", 16, "a pattern without look-around"),
        (r"attribute:a =~ (b)\1", 16, "a pattern without back references"),
        ("attribute:a =~ b++", 16, "a pattern without possessive quantifiers"),
        ("attribute:a =~ (?>b)", 16, "a pattern without atomic groups"),
        ("attribute:a =~ ((a{100}){100}){100}", 16, "smaller"),
    ] {
        let error = Expression::parse(text).expect_err(text);
        assert_eq!(error.column, column, "{text}: {error}");
        assert!(error.expected.contains(expected), "{text}: {error}");
    }
}

#[test]
fn length_and_depth_are_bounded() {
    let long = |length: usize| format!("attribute:a == {}", "b".repeat(length - 15));
    assert!(Expression::parse(&long(MAX_LENGTH)).is_ok());
    assert_eq!(Expression::parse(&long(MAX_LENGTH + 1)).unwrap_err().column, MAX_LENGTH + 1);
    let deep = |depth: usize| format!("{}attribute:a exists{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Expression::parse(&deep(MAX_DEPTH)).is_ok());
    assert_eq!(Expression::parse(&deep(MAX_DEPTH + 1)).unwrap_err().column, MAX_DEPTH + 2);
    assert!(Expression::parse(&format!("{}agentConnected == true", "!".repeat(900))).is_err());
    assert!(Expression::parse(&"(".repeat(1_999)).is_err());
}

#[test]
fn it_says_what_it_reads() {
    let expression = Expression::parse("attribute:a exists and (attribute:b == c or not attribute:a == d)").unwrap();
    assert_eq!(expression.attributes(), ["a", "b", "a"]);
    assert!(expression.reads_only_attributes());
    for other in [
        "agentConnected == true",
        "agentVersion > 1",
        "ec2InstanceId == i-1",
        "registeredAt > 2018-06-18",
        "runningTasksCount > 1",
        "task:group == g",
    ] {
        assert!(!Expression::parse(&format!("attribute:a exists and {other}")).unwrap().reads_only_attributes(), "{other}");
    }
}

fn values() -> impl Strategy<Value = String> {
    prop_oneof![3 => "[a-z0-9._@:/\\\\-]{1,12}", 1 => any::<String>(), 1 => "[ '\"()\\[\\],a]{0,6}"]
}

fn patterns() -> impl Strategy<Value = Pattern> {
    prop_oneof!["[a-z]{1,4}", "[a-z.]{1,3}[*+]?", "\\([a-z]\\|[a-z '\"]\\)", "\\\\d\\{2\\} ?"].prop_map(|text| Pattern::new(&text).unwrap())
}

fn orders() -> impl Strategy<Value = Order> {
    prop::sample::select(vec![Order::Equal, Order::Differs, Order::Less, Order::AtMost, Order::Greater, Order::AtLeast])
}

fn tests_of(value: BoxedStrategy<String>) -> BoxedStrategy<Test> {
    let list = prop::collection::vec(value.clone(), 1..4).boxed();
    prop_oneof![
        value.clone().prop_map(Test::Equal),
        value.prop_map(Test::Differs),
        list.clone().prop_map(Test::In),
        list.prop_map(Test::NotIn),
        patterns().prop_map(Test::Matches),
        patterns().prop_map(Test::NotMatches),
    ]
    .boxed()
}

fn terms() -> impl Strategy<Value = Node> {
    let absent = prop::sample::select(vec![Test::Exists, Test::Absent]);
    let attribute = "[A-Za-z0-9._/\\\\-]{1,20}".prop_map(Field::Attribute);
    let scalars = prop_oneof![
        "[0-9]{1,4}(\\.[0-9]{1,4}){0,3}".prop_map(|text| (Field::AgentVersion, Scalar::version(&text).unwrap())),
        prop::sample::select(vec!["2018-06-18", "2018-06-18T22:28:28", "2018-06-18T22:28:28Z", "2018-06-18T22:28:28+00:00"])
            .prop_map(|text| (Field::RegisteredAt, Scalar::moment(text).unwrap())),
        any::<u32>().prop_map(|count| (Field::RunningTasksCount, Scalar::Count(count))),
    ];
    let text = tests_of(values().boxed());
    let boolean = tests_of(prop::sample::select(vec!["true".to_owned(), "false".to_owned()]).boxed());
    prop_oneof![
        (attribute, prop_oneof![4 => text.clone(), 1 => absent.clone()]).prop_map(|(field, test)| Node::Term(field, test)),
        text.clone().prop_map(|test| Node::Term(Field::Ec2InstanceId, test)),
        prop_oneof![4 => text, 1 => absent].prop_map(|test| Node::Term(Field::TaskGroup, test)),
        boolean.prop_map(|test| Node::Term(Field::AgentConnected, test)),
        (scalars, orders()).prop_map(|((field, scalar), order)| Node::Term(field, Test::Ordered(order, scalar))),
    ]
}

fn nodes() -> impl Strategy<Value = Node> {
    terms().prop_recursive(5, 12, 3, |inner| {
        let several = prop::collection::vec(inner.clone(), 2..4);
        prop_oneof![several.clone().prop_map(Node::All), several.prop_map(Node::Any), inner.prop_map(|node| Node::Not(Box::new(node)))]
    })
}

proptest! {
    #[test]
    fn what_is_printed_reads_back_as_the_same(root in nodes()) {
        let expression = Expression { root };
        let text = expression.to_string();
        prop_assume!(text.chars().count() <= MAX_LENGTH);
        prop_assert_eq!(Expression::parse(&text).map_err(|error| format!("{text}: {error}")), Ok(expression));
    }

    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let _ = Expression::parse(&text);
    }

    #[test]
    fn no_shuffled_expression_makes_it_panic(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "attribute:a", "agentVersion", "agentConnected", "registeredAt", "task:group", "==", "!=", "=~", "!in", "in", "exists", "!", "not", "and",
            "&&", "||", "(", ")", "[", "]", ",", "'", "\"", "1.2", "2018-06-18", "true", "é", "a.*(", "\\", " ", " ",
        ]), 0..24)
    ) {
        let text = pieces.concat();
        if let Ok(expression) = Expression::parse(&text) {
            prop_assert_eq!(Expression::parse(&expression.to_string()), Ok(expression));
        }
    }
}
