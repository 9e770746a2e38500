//! A request's body: whatever comes is read or refused, and what is read is the same when it is written and read again. The first byte
//! chooses the action.
#![no_main]

use berth_shapes::ecs::{Operation, Request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((first, body)) = input.split_first() else { return };
    let operation = Operation::ALL[usize::from(*first) % Operation::ALL.len()];
    let Ok(request) = Request::decode(operation, body) else { return };
    // The texts of violations are made of hostile values too.
    if let Err(violations) = request.validate() {
        assert!(violations.to_string().len() < 64 * 1024);
    }
});
