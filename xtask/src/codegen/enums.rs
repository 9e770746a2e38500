//! Renders a service's enums.

use std::{collections::BTreeSet, fmt::Write as _};

use super::{names, plan::Plan};

/// The module `enums.rs`.
pub fn render(plan: &Plan<'_>) -> String {
    let mut out = String::from("//! The enums of the service. All are open: a value the model does not list is kept.\n\n");
    if !plan.enums.is_empty() {
        out.push_str("use crate::open_enum;\n");
    }
    for shape in &plan.enums {
        let name = &plan.names[shape];
        write!(out, "\nopen_enum! {{\n    /// `{shape}`.\n    pub enum {name} {{\n").expect("a string takes all");
        let mut taken = BTreeSet::from(["Unknown".to_owned()]);
        for value in &plan.shape(shape).values {
            let mut variant = names::variant(value);
            while !taken.insert(variant.clone()) {
                variant.push_str("Value");
            }
            writeln!(out, "        {variant} = {value:?},").expect("a string takes all");
        }
        out.push_str("    }\n}\n");
    }
    out
}
