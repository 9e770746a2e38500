//! What will be generated for one service: which shapes, under which names, in which role. Decides everything that
//! the renderers need to agree on.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    model::{Model, Reference, Shape},
    names,
};

/// Where a structure is rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Request,
    Response,
    Nested,
}

/// A structure to be rendered.
#[derive(Debug)]
pub struct Structure<'m> {
    /// The Rust name.
    pub name: String,
    pub role: Role,
    /// The shape's name in the model; `None` for an operation without input or output.
    pub shape: Option<&'m str>,
    /// The operation, for requests and responses.
    pub operation: Option<&'m str>,
}

/// The plan for one service.
#[derive(Debug)]
pub struct Plan<'m> {
    pub model: &'m Model,
    /// Every structure, sorted by Rust name.
    pub structures: Vec<Structure<'m>>,
    /// Rust names of the structures that stand inside others, and of the enums, by shape name.
    pub names: BTreeMap<&'m str, String>,
    /// Shape names of the enums.
    pub enums: Vec<&'m str>,
}

impl<'m> Plan<'m> {
    /// Plans the service.
    pub fn new(model: &'m Model) -> Result<Self, String> {
        let service = &model.service;
        let mut reached = BTreeSet::new();
        for operation in service.operations.values() {
            for top in [&operation.input, &operation.output].into_iter().flatten() {
                for (_, member) in &lookup(model, &top.shape)?.members.0 {
                    reach(model, &member.shape, &mut reached)?;
                }
            }
        }
        let mut taken: BTreeSet<String> = BTreeSet::new();
        let mut structures = Vec::new();
        for (operation, shapes) in &service.operations {
            for (role, suffix, shape) in [(Role::Request, "Request", &shapes.input), (Role::Response, "Response", &shapes.output)] {
                let name = format!("{operation}{suffix}");
                taken.insert(name.clone());
                let shape = shape.as_ref().map(|shape| shape.shape.as_str());
                structures.push(Structure { name, role, shape, operation: Some(operation) });
            }
        }
        let mut names = BTreeMap::new();
        let mut enums = Vec::new();
        for shape_name in reached {
            let shape = lookup(model, shape_name)?;
            let is_enum = is_enum(shape);
            if shape.kind != "structure" && !is_enum || shape.document {
                continue;
            }
            let mut name = names::shape(shape_name);
            // An input that also stands inside another shape, or two names that differ in case only.
            while taken.iter().any(|other| other.eq_ignore_ascii_case(&name)) {
                name.push_str("Shape");
            }
            taken.insert(name.clone());
            names.insert(shape_name, name.clone());
            if is_enum {
                enums.push(shape_name);
            } else {
                structures.push(Structure { name, role: Role::Nested, shape: Some(shape_name), operation: None });
            }
        }
        structures.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Self { model, structures, names, enums })
    }

    /// The shape of this name. Every name was looked up once when the plan was made.
    pub fn shape(&self, name: &str) -> &'m Shape {
        lookup(self.model, name).expect("the plan only holds shapes that exist")
    }

    /// The Rust type of a value of this shape.
    pub fn rust_type(&self, name: &str) -> String {
        let shape = self.shape(name);
        let inner = |reference: &Option<Reference>| self.rust_type(&reference.as_ref().expect("lookup checked it").shape);
        match shape.kind.as_str() {
            _ if shape.document => "Document".to_owned(),
            "structure" => self.names[name].clone(),
            "list" => format!("Vec<{}>", inner(&shape.member)),
            "map" => format!("BTreeMap<String, {}>", inner(&shape.value)),
            "boolean" => "bool".to_owned(),
            "integer" => "i32".to_owned(),
            "long" => "i64".to_owned(),
            "float" => "f32".to_owned(),
            "double" => "f64".to_owned(),
            "timestamp" => "Timestamp".to_owned(),
            "blob" => "Blob".to_owned(),
            _ => self.names.get(name).cloned().unwrap_or_else(|| "String".to_owned()),
        }
    }

    /// Whether a member of structure `container` must be boxed: the structure would else hold itself.
    pub fn is_boxed(&self, container: Option<&str>, member: &str) -> bool {
        let Some(container) = container else { return false };
        let mut seen = BTreeSet::new();
        let mut open = vec![member];
        while let Some(name) = open.pop() {
            if name == container {
                return true;
            }
            let shape = self.shape(name);
            if shape.kind == "structure" && seen.insert(name) {
                open.extend(shape.members.0.iter().map(|(_, member)| member.shape.as_str()));
            }
        }
        false
    }

    /// The members of a structure; none for an absent input or output.
    pub fn members(&self, structure: &Structure<'m>) -> &'m [(String, Reference)] {
        structure.shape.map_or(&[], |shape| &self.shape(shape).members.0)
    }

    /// The required members of a structure.
    pub fn required(&self, structure: &Structure<'m>) -> &'m [String] {
        structure.shape.map_or(&[], |shape| &self.shape(shape).required)
    }

    /// The error shapes of the operations, sorted by shape name.
    pub fn errors(&self) -> Vec<(&'m str, &'m Shape)> {
        let named: BTreeSet<&str> =
            self.model.service.operations.values().flat_map(|operation| &operation.errors).map(|error| error.shape.as_str()).collect();
        // Some services model errors that no operation lists; clients know them all the same.
        let all = self.model.service.shapes.iter().filter(|(name, shape)| shape.exception || named.contains(name.as_str()));
        all.map(|(name, shape)| (name.as_str(), shape)).collect()
    }
}

/// A string shape with a closed list of values.
pub fn is_enum(shape: &Shape) -> bool {
    shape.kind == "string" && !shape.values.is_empty()
}

fn lookup<'m>(model: &'m Model, name: &str) -> Result<&'m Shape, String> {
    const KINDS: &[&str] =
        &["structure", "list", "map", "string", "character", "boolean", "integer", "long", "float", "double", "timestamp", "blob"];
    let shape = model.service.shapes.get(name).ok_or_else(|| format!("shape {name} is named but not defined"))?;
    let complete = match shape.kind.as_str() {
        "list" => shape.member.is_some(),
        "map" => shape.key.is_some() && shape.value.is_some(),
        kind => KINDS.contains(&kind),
    };
    if complete { Ok(shape) } else { Err(format!("shape {name} of type {} is not understood", shape.kind)) }
}

fn reach<'m>(model: &'m Model, name: &'m str, reached: &mut BTreeSet<&'m str>) -> Result<(), String> {
    let shape = lookup(model, name)?;
    if !reached.insert(name) {
        return Ok(());
    }
    let inner = [&shape.member, &shape.key, &shape.value];
    let members = shape.members.0.iter().map(|(_, member)| member);
    members.chain(inner.into_iter().flatten()).try_for_each(|reference| reach(model, &reference.shape, reached))
}
