//! Renders the checks that the model asks for. Only what a request can hold is checked, and only where there is
//! something to check.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use super::{
    model::{Reference, Shape},
    names,
    plan::{Plan, Role, Structure, is_enum},
};

/// The module `rules.rs`.
pub fn render(plan: &Plan<'_>) -> String {
    let checked = checked(plan);
    let mut rules = Rules { plan, checked: &checked, patterns: BTreeMap::new() };
    let mut body = String::new();
    let mut empty = Vec::new();
    for structure in &plan.structures {
        let reachable = match structure.role {
            Role::Request => true,
            Role::Response => false,
            Role::Nested => structure.shape.is_some_and(|shape| checked.contains(shape)),
        };
        if !reachable {
            continue;
        }
        let checks = rules.structure(structure);
        if checks.is_empty() {
            empty.push(&structure.name);
            continue;
        }
        let name = &structure.name;
        write!(body, "\nimpl Validate for {name} {{\n    fn check(&self, at: &Path<'_>, found: &mut Violations) {{\n{checks}    }}\n}}\n")
            .expect("a string takes all");
    }
    for name in empty {
        writeln!(body, "\nimpl Validate for {name} {{}}").expect("a string takes all");
    }
    let mut statics = String::new();
    for (pattern, index) in &rules.patterns {
        writeln!(statics, "static PATTERN_{index}: Pattern = Pattern::new({pattern:?});").expect("a string takes all");
    }
    let mut used = vec!["Validate"];
    used.extend(
        ["Path", "Pattern", "Rule", "Violations", "required", "scalar", "list_length", "map_length", "items", "keys", "values"]
            .iter()
            .filter(|name| {
                let text = format!("{statics}{body}");
                [format!("{name}("), format!("{name}::"), format!("{name} {{"), format!("{name}<"), format!(" {name})")]
                    .iter()
                    .any(|use_| text.contains(use_.as_str()))
            }),
    );
    let names: Vec<&str> = plan
        .structures
        .iter()
        .filter(|structure| body.contains(&format!("impl Validate for {} {{", structure.name)))
        .map(|structure| structure.name.as_str())
        .collect();
    format!(
        "//! What the model asks of the requests: required members, enum sets, ranges, lengths, patterns.\n\nuse super::{{{}}};\nuse crate::validate::{{{}}};\n\n{statics}{body}",
        names.join(", "),
        used.join(", ")
    )
}

/// The structures inside requests that have something to check, at any depth.
fn checked<'m>(plan: &Plan<'m>) -> BTreeSet<&'m str> {
    let mut reachable = BTreeSet::new();
    for structure in plan.structures.iter().filter(|structure| structure.role == Role::Request) {
        for (_, member) in plan.members(structure) {
            reach(plan, &member.shape, &mut reachable);
        }
    }
    let mut checked: BTreeSet<&str> = BTreeSet::new();
    // A fixpoint, because shapes may be recursive.
    loop {
        let more: Vec<&str> = reachable
            .iter()
            .copied()
            .filter(|name| !checked.contains(name))
            .filter(|name| {
                let shape = plan.shape(name);
                shape.kind == "structure"
                    && (!shape.required.is_empty() || shape.members.0.iter().any(|(_, member)| has_rule(plan, &member.shape, &checked)))
            })
            .collect();
        if more.is_empty() {
            return checked;
        }
        checked.extend(more);
    }
}

fn reach<'m>(plan: &Plan<'m>, name: &str, reached: &mut BTreeSet<&'m str>) {
    let (name, shape) = plan.model.service.shapes.get_key_value(name).expect("the plan checked it");
    if reached.insert(name) {
        shape.members.0.iter().for_each(|(_, member)| reach(plan, &member.shape, reached));
        [&shape.member, &shape.key, &shape.value].into_iter().flatten().for_each(|inner| reach(plan, &inner.shape, reached));
    }
}

fn has_rule(plan: &Plan<'_>, name: &str, checked: &BTreeSet<&str>) -> bool {
    let shape = plan.shape(name);
    let inner = |reference: &Option<Reference>| reference.as_ref().is_some_and(|inner| has_rule(plan, &inner.shape, checked));
    match shape.kind.as_str() {
        "structure" => checked.contains(name),
        "list" => has_limits(shape) || inner(&shape.member),
        "map" => has_limits(shape) || inner(&shape.key) || inner(&shape.value),
        _ => is_ruled(shape),
    }
}

fn has_limits(shape: &Shape) -> bool {
    shape.min.is_some_and(|min| min > 0.0) || shape.max.is_some()
}

/// Whether a scalar has a rule that can be checked.
fn is_ruled(shape: &Shape) -> bool {
    let scalar = matches!(shape.kind.as_str(), "string" | "blob" | "integer" | "long" | "float" | "double");
    let numeric = !matches!(shape.kind.as_str(), "string" | "blob");
    scalar && !shape.document && (is_enum(shape) || has_limits(shape) || numeric && shape.min.is_some() || pattern(shape).is_some())
}

/// The pattern, where Rust's regular expressions know it too: AWS's are Java's, which have more.
fn pattern(shape: &Shape) -> Option<&str> {
    if shape.kind != "string" || is_enum(shape) {
        return None;
    }
    let pattern = shape.pattern.as_deref()?;
    // A pattern that takes everything needs no check.
    let trivial = matches!(pattern, ".*" | "^.*$" | "[\\s\\S]*");
    (!trivial && regex::Regex::new(&format!(r"\A(?:{pattern})\z")).is_ok()).then_some(pattern)
}

struct Rules<'p, 'm> {
    plan: &'p Plan<'m>,
    checked: &'p BTreeSet<&'m str>,
    /// Patterns seen, numbered in order of first use.
    patterns: BTreeMap<String, usize>,
}

impl Rules<'_, '_> {
    fn structure(&mut self, structure: &Structure<'_>) -> String {
        let mut out = String::new();
        let mut taken = BTreeSet::new();
        for (wire, member) in self.plan.members(structure) {
            let mut field = names::field(wire);
            while !taken.insert(field.clone()) {
                field.push('_');
            }
            if self.plan.required(structure).contains(wire) {
                writeln!(out, "required(&self.{field}, at, {wire:?}, found);").expect("a string takes all");
            }
            self.member(&field, wire, &member.shape, &mut out);
        }
        out
    }

    fn member(&mut self, field: &str, wire: &str, name: &str, out: &mut String) {
        let shape = self.plan.shape(name);
        let inner =
            |reference: &Option<Reference>| reference.as_ref().map(|inner| self.plan.shape(&inner.shape)).filter(|shape| is_ruled(shape));
        let mut call = |function: &str, rule: String| {
            writeln!(out, "{function}(&self.{field}, &{rule}, at, {wire:?}, found);").expect("a string takes all");
        };
        match shape.kind.as_str() {
            "list" => {
                let item = inner(&shape.member);
                if has_limits(shape) {
                    call("list_length", self.rule(shape));
                }
                if let Some(item) = item {
                    call("items", self.rule(item));
                }
            }
            "map" => {
                let (key, value) = (inner(&shape.key).filter(|key| !is_enum(key)), inner(&shape.value));
                if has_limits(shape) {
                    call("map_length", self.rule(shape));
                }
                if let Some(key) = key {
                    call("keys", self.rule(key));
                }
                if let Some(value) = value {
                    call("values", self.rule(value));
                }
            }
            _ if is_ruled(shape) => call("scalar", self.rule(shape)),
            _ => {}
        }
        let mut nested = String::new();
        self.descend("value", name, &mut nested);
        if !nested.is_empty() {
            writeln!(out, "if let Some(value) = &self.{field} {{ let at = &Path::Member(at, {wire:?}); {nested} }}")
                .expect("a string takes all");
        }
    }

    /// Code that checks the structures below `value`, which stands at `at`.
    fn descend(&self, value: &str, name: &str, out: &mut String) {
        let shape = self.plan.shape(name);
        let item = |reference: &Option<Reference>| {
            let mut inner = String::new();
            self.descend("item", &reference.as_ref().expect("the plan checked it").shape, &mut inner);
            inner
        };
        let (head, inner) = match shape.kind.as_str() {
            "structure" => {
                if self.checked.contains(name) {
                    write!(out, "{value}.check(at, found);").expect("a string takes all");
                }
                return;
            }
            "list" => (format!("for (index, item) in {value}.iter().enumerate() {{ let at = &Path::Item(at, index);"), item(&shape.member)),
            "map" => (format!("for (key, item) in {value} {{ let at = &Path::Value(at, key);"), item(&shape.value)),
            _ => return,
        };
        if !inner.is_empty() {
            write!(out, "{head} {inner} }}").expect("a string takes all");
        }
    }

    fn rule(&mut self, shape: &Shape) -> String {
        let mut parts = Vec::new();
        // A length is never below zero.
        let min = shape.min.filter(|min| *min > 0.0 || !matches!(shape.kind.as_str(), "string" | "blob" | "list" | "map"));
        if !is_enum(shape) {
            parts.extend(min.map(|min| format!("min: Some({min:?})")));
            parts.extend(shape.max.map(|max| format!("max: Some({max:?})")));
        }
        if let Some(pattern) = pattern(shape) {
            let next = self.patterns.len() + 1;
            let index = self.patterns.entry(pattern.to_owned()).or_insert(next);
            parts.push(format!("pattern: Some(&PATTERN_{index})"));
        }
        parts.extend(shape.sensitive.then(|| "sensitive: true".to_owned()));
        match parts.len() {
            0 => "Rule::NONE".to_owned(),
            4 => format!("Rule {{ {} }}", parts.join(", ")),
            _ => format!("Rule {{ {}, ..Rule::NONE }}", parts.join(", ")),
        }
    }
}
