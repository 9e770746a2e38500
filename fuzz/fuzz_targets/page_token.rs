//! `nextToken`: whatever comes is read or refused, and what is read is what was written.
#![no_main]

use berth_api::page_token::{decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Some(key) = decode("ListTasks", text) {
        assert_eq!(decode("ListTasks", &encode("ListTasks", &key)).as_deref(), Some(key.as_str()));
        assert_eq!(decode("ListClusters", text), None, "a token is one action's alone");
    }
    assert_eq!(decode("ListTasks", &encode("ListTasks", text)).as_deref(), Some(text));
});
