//! The cluster query language: whatever comes is read or refused, and what is read is printed as what reads back the same.
#![no_main]

use berth_scheduler::query::{Expression, MAX_LENGTH};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Expression::parse(text) {
        Ok(expression) => {
            let printed = expression.to_string();
            // Quotes may make it longer than an expression may be.
            if printed.chars().count() <= MAX_LENGTH {
                assert_eq!(Expression::parse(&printed).as_ref(), Ok(&expression));
            }
        }
        Err(error) => assert!(error.column <= text.chars().count() + 1, "a column within the text"),
    }
});
