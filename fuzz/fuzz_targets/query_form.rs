//! The form of AWS's query protocol, and query strings: read or refused, within bounds.
#![no_main]

use berth_shapes::protocol::form;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = form::tree(input).map(|root| root.numbered().len());
    if let Ok(pairs) = form::pairs(input) {
        assert!(pairs.len() <= 50_000);
    }
});
