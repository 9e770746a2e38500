//! The form of AWS's query protocol, and query strings: read or refused, within bounds; and what they ask of EC2.
#![no_main]

use berth_shapes::ec2::{Operation, Request};
use berth_shapes::protocol::{form, query};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = form::tree(input).map(|root| root.numbered().len());
    if let Ok(pairs) = form::pairs(input) {
        assert!(pairs.len() <= 50_000);
    }
    if let Ok(Some(action)) = query::action(input)
        && let Some(operation) = Operation::from_name(&action)
        && let Ok(value) = query::decode(query::Dialect::Ec2, operation.schema().input, input)
    {
        let request = Request::from_value(operation, value).expect("what the schema read, the structure takes");
        let _ = request.validate();
    }
});
