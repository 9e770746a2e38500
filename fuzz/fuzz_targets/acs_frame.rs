//! Frames of agents and of the control plane, and the query of a connection: read or refused; what is read survives being written.
#![no_main]

use berth_acs::{AcsQuery, AgentFrame, ServerFrame, TelemetryFrame, TelemetryQuery};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(frame) = AgentFrame::decode(text) {
        let written = frame.encode().expect("what was read is below the limit when it is written");
        AgentFrame::decode(&written).expect("it is read again");
    }
    if let Ok(frame) = ServerFrame::decode(text) {
        let _ = frame.encode().map(|written| ServerFrame::decode(&written).expect("it is read again"));
    }
    if let Ok(frame) = TelemetryFrame::decode(text) {
        let _ = frame.answer();
    }
    if let Ok(query) = AcsQuery::parse(text) {
        let _ = AcsQuery::parse(&query.render()).expect("it is read again");
    }
    if let Ok(query) = TelemetryQuery::parse(text) {
        let _ = TelemetryQuery::parse(&query.render()).expect("it is read again");
    }
});
