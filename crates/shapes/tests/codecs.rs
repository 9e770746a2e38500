//! The codecs over one small schema written by hand, which has every shape and trait once: what comes in one protocol's
//! form must be the same canonical value, and the structures must read it. Expected wire texts follow Smithy's
//! protocol documents.

use std::collections::BTreeMap;

use berth_shapes::{
    Blob, DecodeError, Timestamp,
    protocol::{cbor, from_value, query, rest_json},
    schema::{List, Location, Map, Member, Operation, Schema, Structure, TimestampFormat},
    structure,
};
use serde_json::{Value, json};

structure! {
    /// Everything at once.
    pub struct Everything {
        /// Text.
        pub text: String = "Text",
        /// Number.
        pub count: i32 = "Count",
        /// Fraction.
        pub ratio: f64 = "Ratio",
        /// Flag.
        pub on: bool = "On",
        /// Time.
        pub at: Timestamp = "At",
        /// Bytes.
        pub bytes: Blob = "Bytes",
        /// Itself.
        pub inner: Box<Everything> = "Inner",
        /// List.
        pub names: Vec<String> = "Names",
        /// Flattened list.
        pub flat: Vec<i32> = "Flat",
        /// List of structures.
        pub tree: Vec<Everything> = "Tree",
        /// Map.
        pub tags: BTreeMap<String, String> = "Tags",
        /// Flattened map.
        pub flat_tags: BTreeMap<String, i64> = "FlatTags",
    }
}

static NAMES: Schema = Schema::List(List { item: &Schema::String, item_wire: None, flattened: false });
static NUMBERS: Schema = Schema::List(List { item: &Schema::Integer, item_wire: None, flattened: false });
static TREE: Schema = Schema::List(List { item: &EVERYTHING, item_wire: Some("item"), flattened: false });
static TAGS: Schema = Schema::Map(Map { value: &Schema::String, key_wire: None, value_wire: None, flattened: false });
static FLAT_TAGS: Schema = Schema::Map(Map { value: &Schema::Long, key_wire: Some("K"), value_wire: Some("V"), flattened: false });
static EVERYTHING: Schema = Schema::Structure(Structure { name: "Everything", members: &MEMBERS, payload: None });
static TOP: Structure = Structure { name: "Everything", members: &MEMBERS, payload: None };
static MEMBERS: [Member; 12] = [
    Member::new("Text", &Schema::String),
    Member::new("Count", &Schema::Integer),
    Member::new("Ratio", &Schema::Double),
    Member::new("On", &Schema::Boolean),
    Member::new("At", &Schema::Timestamp(None)),
    Member::new("Bytes", &Schema::Blob),
    Member { wire: Some("inside"), ..Member::new("Inner", &EVERYTHING) },
    Member::new("Names", &NAMES),
    Member { flattened: true, ..Member::new("Flat", &NUMBERS) },
    Member::new("Tree", &TREE),
    Member::new("Tags", &TAGS),
    Member { flattened: true, ..Member::new("FlatTags", &FLAT_TAGS) },
];
static DO: Operation = Operation {
    name: "Do",
    method: "POST",
    uri: "/",
    status: 200,
    result_wrapper: Some("DoResult"),
    host_prefix: None,
    input: &TOP,
    output: &TOP,
};

fn everything() -> Everything {
    let leaf = |text: &str| Everything { text: Some(text.into()), ..Default::default() };
    Everything {
        text: Some("a & <b> \"c\" ä".into()),
        count: Some(-7),
        ratio: Some(0.5),
        on: Some(true),
        at: Some(Timestamp::from_millis(1_732_161_234_123)),
        bytes: Some(Blob(vec![0, 255, 10])),
        inner: Some(Box::new(leaf("inner"))),
        names: Some(vec!["x".into(), "".into(), "z".into()]),
        flat: Some(vec![1, 2]),
        tree: Some(vec![leaf("one"), leaf("two")]),
        tags: Some(BTreeMap::from([("k".into(), "v".into())])),
        flat_tags: Some(BTreeMap::from([("n".into(), 1 << 40)])),
    }
}

fn canonical() -> Value {
    serde_json::to_value(everything()).unwrap()
}

#[test]
fn the_canonical_value_is_the_structure() {
    assert_eq!(from_value::<Everything>(canonical()).unwrap(), everything());
    let error = from_value::<Everything>(json!({"Tree": [{"Count": "1"}]})).unwrap_err();
    assert_eq!(error.to_string(), "Tree[0].Count: STRING_VALUE can not be converted to an Integer");
}

#[test]
fn a_query_form_is_read() {
    let form = "Action=Do&Version=2011-06-15&Text=a+%26+%3Cb%3E+%22c%22+%C3%A4&Count=-7&Ratio=0.5&On=true&At=2024-11-21T03%3A53%3A54.123Z\
                &Bytes=AP8K&inside.Text=inner&Names.member.1=x&Names.member.2=&Names.member.3=z&Flat.1=1&Flat.2=2\
                &Tree.item.1.Text=one&Tree.item.2.Text=two&Tags.entry.1.key=k&Tags.entry.1.value=v\
                &FlatTags.1.K=n&FlatTags.1.V=1099511627776";
    let value = query::decode(query::Dialect::Query, &TOP, form.as_bytes()).unwrap();
    assert_eq!(value, canonical());
    assert_eq!(from_value::<Everything>(value).unwrap(), everything());
    assert_eq!(query::action(form.as_bytes()), Ok(Some("Do".into())));
}

#[test]
fn an_ec2_form_is_read() {
    static TAG: Structure =
        Structure { name: "Tag", members: &[Member { wire: Some("key"), ..Member::new("Key", &Schema::String) }], payload: None };
    static TAG_SCHEMA: Schema = Schema::Structure(Structure { name: "Tag", members: TAG.members, payload: None });
    static TAG_LIST: Schema = Schema::List(List { item: &TAG_SCHEMA, item_wire: Some("item"), flattened: false });
    static INPUT: Structure = Structure {
        name: "Input",
        members: &[
            Member { wire: Some("tagSet"), query_name: Some("Tag"), ..Member::new("Tags", &TAG_LIST) },
            Member { wire: Some("dryRun"), ..Member::new("DryRun", &Schema::Boolean) },
        ],
        payload: None,
    };
    let value = query::decode(query::Dialect::Ec2, &INPUT, b"Tag.1.Key=a&Tag.2.Key=b&DryRun=false").unwrap();
    assert_eq!(value, json!({"Tags": [{"Key": "a"}, {"Key": "b"}], "DryRun": false}));
}

#[test]
fn a_wrong_form_names_the_field() {
    let refusal = |form: &str| query::decode(query::Dialect::Query, &TOP, form.as_bytes()).unwrap_err().to_string();
    assert_eq!(refusal("Count=many"), "Count: STRING_VALUE can not be converted to an Integer");
    assert_eq!(refusal("Tree.item.1.Text=a&Tree.item.2.On=2"), "Tree[1].On: STRING_VALUE can not be converted to a Boolean");
    assert_eq!(refusal("Tags.entry.1.value=v"), "Tags: a map entry has no key");
    assert_eq!(refusal("Text=%"), "Malformed form: a broken percent escape");
    let empty = query::decode(query::Dialect::Query, &TOP, b"Names=&Unknown.member.1=x").unwrap();
    assert_eq!(empty, json!({"Names": []}), "an empty list is sent as its bare name");
}

#[test]
fn an_xml_answer_is_written() {
    let xml = query::render_response(query::Dialect::Query, &DO, &canonical(), "https://example.com/doc/", "id-1");
    let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
        <DoResponse xmlns=\"https://example.com/doc/\"><DoResult>\
        <Text>a &amp; &lt;b&gt; &quot;c&quot; ä</Text><Count>-7</Count><Ratio>0.5</Ratio><On>true</On>\
        <At>2024-11-21T03:53:54.123Z</At><Bytes>AP8K</Bytes><inside><Text>inner</Text></inside>\
        <Names><member>x</member><member></member><member>z</member></Names><Flat>1</Flat><Flat>2</Flat>\
        <Tree><item><Text>one</Text></item><item><Text>two</Text></item></Tree>\
        <Tags><entry><key>k</key><value>v</value></entry></Tags><FlatTags><K>n</K><V>1099511627776</V></FlatTags>\
        </DoResult><ResponseMetadata><RequestId>id-1</RequestId></ResponseMetadata></DoResponse>";
    assert_eq!(xml, expected);
    let ec2 = query::render_response(query::Dialect::Ec2, &DO, &json!({"Names": ["x"]}), "n", "id-2");
    assert!(ec2.ends_with("<DoResponse xmlns=\"n\"><requestId>id-2</requestId><Names><item>x</item></Names></DoResponse>"), "{ec2}");
}

#[test]
fn control_characters_do_not_break_the_document() {
    let xml = query::render_response(query::Dialect::Query, &DO, &json!({"Text": "a\u{0}b\r\n"}), "n", "id");
    assert!(xml.contains("<Text>a\u{fffd}b&#xD;\n</Text>"), "{xml}");
}

#[test]
fn errors_in_xml_have_both_dialects() {
    let query = query::render_error(query::Dialect::Query, "AccessDenied", "no <way>", true, "n", "id");
    assert!(query.ends_with(
        "<ErrorResponse xmlns=\"n\"><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>no &lt;way&gt;</Message></Error>\
         <RequestId>id</RequestId></ErrorResponse>"
    ));
    let ec2 = query::render_error(query::Dialect::Ec2, "InternalError", "oh", false, "n", "id");
    assert!(ec2.ends_with(
        "<Response><Errors><Error><Code>InternalError</Code><Message>oh</Message></Error></Errors><RequestID>id</RequestID></Response>"
    ));
}

#[test]
fn cbor_goes_both_ways() {
    let bytes = cbor::encode(&TOP, &canonical());
    assert_eq!(cbor::decode(&TOP, &bytes).unwrap(), canonical());
    assert_eq!(cbor::decode(&TOP, b"").unwrap(), json!({}));
    // {"At": 1(1732161234.123), "Bytes": h'00ff0a'} by hand, as RFC 8949 has it.
    let mut hand = vec![0xa2, 0x62, b'A', b't', 0xc1, 0xfb];
    hand.extend(1_732_161_234.123f64.to_be_bytes());
    hand.extend([0x65, b'B', b'y', b't', b'e', b's', 0x43, 0, 255, 10]);
    assert_eq!(cbor::decode(&TOP, &hand).unwrap(), json!({"At": 1732161234.123, "Bytes": "AP8K"}));
    assert_eq!(cbor::encode(&TOP, &json!({"At": 1732161234.123, "Bytes": "AP8K"})), hand);
    // Indefinite lengths and half floats are legal too.
    let indefinite = [0xbf, 0x65, b'R', b'a', b't', b'i', b'o', 0xf9, 0x38, 0x00, 0xff];
    assert_eq!(cbor::decode(&TOP, &indefinite).unwrap(), json!({"Ratio": 0.5}));
}

#[test]
fn hostile_cbor_is_refused() {
    let refusal = |bytes: &[u8]| cbor::decode(&TOP, bytes).unwrap_err();
    assert_eq!(
        refusal(&[0xa1, 0x65, b'C', b'o', b'u', b'n', b't', 0x61, b'1']).to_string(),
        "Count: STRING_VALUE can not be converted to an Integer"
    );
    // A list and a byte string that claim to hold 2^40 items.
    for head in [0x9b, 0x5b] {
        let claim = [0xa1, 0x61, b'x', head, 0, 0, 1, 0, 0, 0, 0, 0];
        assert!(matches!(refusal(&claim), DecodeError::Unreadable { .. }));
    }
    assert!(matches!(refusal(&[0x81; 100_000]), DecodeError::Unreadable { .. }), "depth is bounded");
    assert!(matches!(refusal(&[0x81]), DecodeError::Unreadable { .. }));
    assert!(matches!(refusal(&[0xa0, 0xa0]), DecodeError::Unreadable { .. }), "nothing may follow");
    assert!(matches!(refusal(&[0x80]), DecodeError::Member { .. }));
    assert_eq!(
        cbor::route("/service/GraniteServiceVersion20100801/operation/PutMetricData"),
        Some(("GraniteServiceVersion20100801", "PutMetricData"))
    );
    assert_eq!(cbor::route("/service/x/operation/"), None);
}

static NAMED: Structure = Structure {
    name: "Named",
    members: &[
        Member { location: Location::Uri, ..Member::new("Name", &Schema::String) },
        Member { location: Location::Query, wire: Some("groupName"), ..Member::new("GroupName", &Schema::String) },
        Member { location: Location::Query, wire: Some("state"), ..Member::new("States", &NAMES) },
        Member { location: Location::Header, wire: Some("X-Since"), ..Member::new("Since", &Schema::Timestamp(None)) },
        Member { location: Location::Headers, wire: Some("x-meta-"), ..Member::new("Meta", &TAGS) },
        Member {
            wire: Some("startDate"),
            timestamp_format: Some(TimestampFormat::Iso8601),
            ..Member::new("Start", &Schema::Timestamp(None))
        },
        Member::new("At", &Schema::Timestamp(None)),
        Member::new("Target", &EVERYTHING),
        Member { location: Location::Status, ..Member::new("Status", &Schema::Integer) },
    ],
    payload: None,
};

fn rest(name: &'static str, method: &'static str, uri: &'static str) -> Operation {
    Operation { name, method, uri, status: 201, result_wrapper: None, host_prefix: None, input: &NAMED, output: &NAMED }
}

#[test]
fn a_rest_request_is_routed_and_read() {
    let operations =
        [rest("Get", "GET", "/schedules/{Name}"), rest("Create", "POST", "/schedules/{Name}"), rest("List", "GET", "/schedules")];
    let headers = [("x-since", "Thu, 21 Nov 2024 03:53:54 GMT"), ("x-meta-a", "1"), ("host", "h")];
    let message = rest_json::Message {
        method: "POST",
        path: "/schedules/nightly%20run",
        query: "groupName=g%261&state=A&state=B",
        headers: &headers,
        body: br#"{"startDate":"2024-11-21T03:53:54Z","At":1732161234.123,"Target":{"inside":{"Text":"t"}},"Unknown":1,"Name":"ignored"}"#,
    };
    let operation = rest_json::route(&operations, &message).unwrap().unwrap();
    assert_eq!(operation.name, "Create");
    assert_eq!(
        rest_json::decode(operation, &message).unwrap(),
        json!({
            "Name": "nightly run", "GroupName": "g&1", "States": ["A", "B"], "Since": 1732161234, "Meta": {"a": "1"},
            "Start": 1732161234, "At": 1732161234.123, "Target": {"Inner": {"Text": "t"}}
        })
    );
    let route = |method, path| {
        let message = rest_json::Message { method, path, query: "", headers: &[], body: b"" };
        rest_json::route(&operations, &message).unwrap().map(|operation| operation.name)
    };
    assert_eq!(route("GET", "/schedules"), Some("List"));
    assert_eq!(route("GET", "/schedules/x"), Some("Get"));
    assert_eq!(route("DELETE", "/schedules/x"), None);
    assert_eq!(route("GET", "/schedules/x/y"), None);
}

#[test]
fn a_wrong_rest_request_names_the_member() {
    let operation = rest("Create", "POST", "/schedules/{Name}");
    let refusal = |body: &[u8]| {
        let message = rest_json::Message { method: "POST", path: "/schedules/x", query: "", headers: &[], body };
        rest_json::decode(&operation, &message).unwrap_err().to_string()
    };
    assert_eq!(refusal(br#"{"startDate":"soon"}"#), "Start: STRING_VALUE can not be converted to a Timestamp");
    assert_eq!(refusal(br#"{"Target":[]}"#), "Target: START_ARRAY can not be converted to a Structure");
    assert_eq!(refusal(b"[]"), "Start of structure or map found where not expected: START_ARRAY is not a request object");
    assert!(refusal(b"{").starts_with("Malformed JSON at line 1"));
}

#[test]
fn a_rest_answer_is_written() {
    let value =
        json!({"Since": 1732161234.5, "Meta": {"a": "1"}, "Start": 1732161234, "At": 1732161234.123, "Target": {"Inner": {"Text": "t"}}});
    let answer = rest_json::render_response(&rest("Get", "GET", "/"), &value);
    assert_eq!(answer.status, 201);
    assert_eq!(
        answer.headers,
        [("X-Since".to_owned(), "Thu, 21 Nov 2024 03:53:54 GMT".to_owned()), ("x-meta-a".to_owned(), "1".to_owned())]
    );
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body, json!({"startDate": "2024-11-21T03:53:54Z", "At": 1732161234.123, "Target": {"inside": {"Text": "t"}}}));
    let moved = rest_json::render_response(&rest("Get", "GET", "/"), &json!({"Status": 304}));
    assert_eq!((moved.status, moved.body.as_slice()), (304, &b"{}"[..]));
}

#[test]
fn a_payload_is_the_whole_body() {
    static INVOKE: Structure = Structure {
        name: "Invoke",
        members: &[Member { streaming: true, ..Member::new("Payload", &Schema::Blob) }],
        payload: Some("Payload"),
    };
    let operation = Operation { input: &INVOKE, output: &INVOKE, ..rest("Invoke", "POST", "/invoke") };
    let message = rest_json::Message { method: "POST", path: "/invoke", query: "", headers: &[], body: b"\x00raw" };
    let value = rest_json::decode(&operation, &message).unwrap();
    assert_eq!(value, json!({"Payload": "AHJhdw=="}));
    assert_eq!(rest_json::render_response(&operation, &value).body, b"\x00raw");
}
