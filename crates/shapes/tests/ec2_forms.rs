//! Forms of EC2's query protocol: what a client writes of a request is read back as that request, and what is no form, or too large a
//! one, is refused. The writer here follows botocore's `EC2Serializer`, apart from the code under test.

use berth_shapes::ec2::{Operation, Request};
use berth_shapes::protocol::query::{Dialect, decode};
use berth_shapes::schema::{Schema, Structure};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Bytes that choose: where they end, so does the request.
struct Dice<'a>(&'a [u8]);

impl Dice<'_> {
    fn roll(&mut self, sides: u8) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first % sides
    }

    fn text(&mut self) -> String {
        const LETTERS: [&str; 10] = ["a", "Z", "0", " ", "&", "=", "%", "+", ".", "ü€"];
        (0..self.roll(6)).map(|_| LETTERS[usize::from(self.roll(10))]).collect()
    }
}

/// Some request of this structure. A form cannot say an empty list or an empty structure: they are left out.
fn some(structure: &Structure, dice: &mut Dice<'_>, depth: usize) -> Value {
    let mut object = Map::new();
    for member in structure.members {
        if dice.roll(3) > 0
            && let Some(value) = value(member.schema, dice, depth)
        {
            object.insert(member.name.to_owned(), value);
        }
    }
    Value::Object(object)
}

fn value(schema: &Schema, dice: &mut Dice<'_>, depth: usize) -> Option<Value> {
    Some(match schema {
        Schema::String => dice.text().into(),
        Schema::Boolean => (dice.roll(2) == 1).into(),
        Schema::Integer | Schema::Long => (i64::from(dice.roll(200)) - 100).into(),
        Schema::Structure(inner) if depth > 0 => Some(some(inner, dice, depth - 1)).filter(|value| value != &json!({}))?,
        Schema::List(list) if depth > 0 => {
            let items: Vec<Value> = (0..dice.roll(13)).filter_map(|_| value(list.item, dice, depth - 1)).collect();
            Some(Value::Array(items)).filter(|value| value != &json!([]))?
        }
        _ => return None,
    })
}

/// botocore's rules: `queryName`, else `locationName` with a capital, else the member's name; items are numbered from 1.
fn write(structure: &Structure, value: &Value, prefix: &str, form: &mut Vec<String>) {
    for member in structure.members {
        let Some(value) = value.get(member.name) else { continue };
        let name = match (member.query_name, member.wire) {
            (Some(name), _) => name.to_owned(),
            (None, Some(wire)) => wire[..1].to_uppercase() + &wire[1..],
            (None, None) => member.name.to_owned(),
        };
        write_value(member.schema, value, &format!("{prefix}{name}"), form);
    }
}

fn write_value(schema: &Schema, value: &Value, name: &str, form: &mut Vec<String>) {
    match schema {
        Schema::Structure(inner) => write(inner, value, &format!("{name}."), form),
        Schema::List(list) => {
            for (at, item) in value.as_array().unwrap().iter().enumerate() {
                write_value(list.item, item, &format!("{name}.{}", at + 1), form);
            }
        }
        _ => {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            form.push(format!("{name}={}", escape(&text)));
        }
    }
}

fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// All but lists whose items were all left out inside a structure that then says nothing.
fn is_sayable(value: &Value) -> bool {
    match value {
        Value::Array(items) => !items.is_empty() && items.iter().all(is_sayable),
        Value::Object(members) => !members.is_empty() && members.values().all(is_sayable),
        _ => true,
    }
}

proptest! {
    #[test]
    fn a_request_is_read_as_it_was_written(nth in 0..Operation::ALL.len(), bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let operation = Operation::ALL[nth];
        let input = operation.schema().input;
        let request = some(input, &mut Dice(&bytes), 4);
        prop_assume!(request == json!({}) || is_sayable(&request));
        let mut fields = vec![format!("Action={operation}"), "Version=2016-11-15".to_owned()];
        write(input, &request, "", &mut fields);
        let read = decode(Dialect::Ec2, input, fields.join("&").as_bytes()).unwrap();
        prop_assert_eq!(&read, &request);
        // And as the structure that actions take.
        let typed = Request::from_value(operation, read).unwrap();
        prop_assert_eq!(typed.operation(), operation);
    }

    #[test]
    fn whatever_comes_is_read_or_refused(nth in 0..Operation::ALL.len(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let input = Operation::ALL[nth].schema().input;
        if let Ok(value) = decode(Dialect::Ec2, input, &bytes) {
            prop_assert!(value.is_object());
        }
    }
}

#[test]
fn forms_are_bounded() {
    let input = Operation::DescribeVpcs.schema().input;
    let many = (1..=50_001).map(|nth| format!("VpcId.{nth}=x")).collect::<Vec<_>>().join("&");
    assert!(decode(Dialect::Ec2, input, many.as_bytes()).is_err());
    let deep = format!("Filter{}=x", ".1".repeat(64));
    assert!(decode(Dialect::Ec2, input, deep.as_bytes()).is_err());
    let numbered = decode(Dialect::Ec2, input, b"VpcId.4294967295=b&VpcId.7=a").unwrap();
    assert_eq!(numbered, json!({"VpcIds": ["a", "b"]}), "gaps are closed, and cost nothing");
}

#[test]
fn names_of_botocores_forms_are_understood() {
    let form = b"Action=AuthorizeSecurityGroupEgress&GroupId=sg-1&IpPermissions.1.IpProtocol=tcp&IpPermissions.1.FromPort=80&\
                 IpPermissions.1.Groups.1.GroupId=sg-2&TagSpecification.1.ResourceType=security-group-rule&TagSpecification.1.Tag.1.Key=k&DryRun=true";
    let read = decode(Dialect::Ec2, Operation::AuthorizeSecurityGroupEgress.schema().input, form).unwrap();
    let expected = json!({
        "TagSpecifications": [{"ResourceType": "security-group-rule", "Tags": [{"Key": "k"}]}],
        "DryRun": true,
        "GroupId": "sg-1",
        "IpPermissions": [{"IpProtocol": "tcp", "FromPort": 80, "UserIdGroupPairs": [{"GroupId": "sg-2"}]}],
    });
    assert_eq!(read, expected);
}
