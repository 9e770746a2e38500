//! Every decision, pure: a view and a clock in, a plan with its reasons out.
//!
//! No I/O, no async, no clock, no randomness. The loops of `control` read the view, call, and commit the plan.

pub mod capacity;
pub mod discovery;
pub mod placement;
pub mod query;
pub mod service;
