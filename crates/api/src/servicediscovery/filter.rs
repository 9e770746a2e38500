//! `Filters` of the lists: each names what it looks at, a condition and values; an item must pass them all.

use berth_shapes::servicediscovery as shapes;

use super::failure::invalid;
use crate::failure::Failure;

/// A filter that was checked.
pub(super) struct Filter {
    /// What it looks at.
    pub(super) name: String,
    condition: Condition,
}

enum Condition {
    /// It is one of these.
    OneOf(Vec<String>),
    /// It begins with this.
    Begins(String),
    /// It is a time between these, in milliseconds.
    Between(i64, i64),
}

impl Filter {
    /// Does this text pass?
    pub(super) fn takes(&self, text: &str) -> bool {
        match &self.condition {
            Condition::OneOf(values) => values.iter().any(|value| value == text),
            Condition::Begins(start) => text.starts_with(start.as_str()),
            Condition::Between(..) => false,
        }
    }

    /// Does this time pass? In milliseconds since the epoch.
    pub(super) fn takes_time(&self, millis: i64) -> bool {
        matches!(self.condition, Condition::Between(from, to) if (from..=to).contains(&millis))
    }

    /// Reads one; `allowed` says which conditions its name goes with.
    fn read(name: &str, condition: Option<&str>, values: &[String], allowed: &[&str]) -> Result<Self, Failure> {
        let condition = condition.unwrap_or("EQ");
        if !allowed.contains(&condition) {
            return Err(invalid(format!(
                "The condition {condition} is not supported for the filter {name}; use {}.",
                allowed.join(" or ")
            )));
        }
        let read = match (condition, values) {
            ("EQ", [value]) => Condition::OneOf(vec![value.clone()]),
            ("IN", [_, ..]) => Condition::OneOf(values.to_vec()),
            ("BEGINS_WITH", [value]) => Condition::Begins(value.clone()),
            ("BETWEEN", [from, to]) => Condition::Between(millis(name, from)?, millis(name, to)?),
            ("IN", []) => return Err(invalid(format!("The filter {name} has no values."))),
            ("BETWEEN", _) => return Err(invalid(format!("The filter {name} needs two values for the condition BETWEEN."))),
            _ => return Err(invalid(format!("The filter {name} needs exactly one value for the condition {condition}."))),
        };
        Ok(Self { name: name.to_owned(), condition: read })
    }
}

/// A time in a filter: seconds since the epoch, with a fraction or without.
fn millis(name: &str, text: &str) -> Result<i64, Failure> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| seconds.is_finite() && seconds.abs() < 1e12);
    #[expect(clippy::cast_possible_truncation, reason = "its size was checked")]
    seconds.map(|seconds| (seconds * 1000.0) as i64).ok_or_else(|| invalid(format!("The filter {name} needs Unix timestamps as values.")))
}

macro_rules! filters {
    ($(#[$doc:meta])* $function:ident, $shape:ident, $($name:literal => $allowed:expr),+ $(,)?) => {
        $(#[$doc])*
        pub(super) fn $function(list: Option<&[shapes::$shape]>) -> Result<Vec<Filter>, Failure> {
            let read = |filter: &shapes::$shape| {
                let name = filter.name.as_ref().map_or("", |name| name.as_str());
                let allowed: &[&str] = match name {
                    $($name => $allowed,)+
                    _ => return Err(invalid(format!("There is no filter {name}."))),
                };
                let condition = filter.condition.as_ref().map(|condition| condition.as_str());
                Filter::read(name, condition, filter.values.as_deref().unwrap_or_default(), allowed)
            };
            list.unwrap_or_default().iter().map(read).collect()
        }
    };
}

filters!(
    /// Those of ListNamespaces.
    of_namespaces, NamespaceFilter,
    "TYPE" => &["EQ", "BEGINS_WITH"],
    "NAME" => &["EQ", "BEGINS_WITH"],
    "HTTP_NAME" => &["EQ", "BEGINS_WITH"],
    "RESOURCE_OWNER" => &["EQ"],
);
filters!(
    /// Those of ListServices.
    of_services, ServiceFilter,
    "NAMESPACE_ID" => &["EQ", "IN"],
    "RESOURCE_OWNER" => &["EQ"],
);
filters!(
    /// Those of ListOperations.
    of_operations, OperationFilter,
    "NAMESPACE_ID" => &["EQ"],
    "SERVICE_ID" => &["EQ"],
    "STATUS" => &["EQ", "IN"],
    "TYPE" => &["EQ", "IN"],
    "UPDATE_DATE" => &["BETWEEN"],
);

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    #[test]
    fn conditions_take_what_they_say() {
        let all = ["EQ", "IN", "BEGINS_WITH", "BETWEEN"];
        let read = |condition, values: &[&str]| Filter::read("X", condition, &texts(values), &all);
        assert!(read(None, &["a"]).unwrap().takes("a") && !read(None, &["a"]).unwrap().takes("ab"));
        assert!(read(Some("IN"), &["a", "b"]).unwrap().takes("b"));
        assert!(read(Some("BEGINS_WITH"), &["a"]).unwrap().takes("ab") && !read(Some("BEGINS_WITH"), &["a"]).unwrap().takes("ba"));
        let between = read(Some("BETWEEN"), &["1.5", "2"]).unwrap();
        assert!(between.takes_time(1_500) && between.takes_time(2_000) && !between.takes_time(2_001) && !between.takes("1.7"));
        for (condition, values) in
            [(None, &["a", "b"][..]), (Some("IN"), &[]), (Some("BETWEEN"), &["1"]), (Some("BETWEEN"), &["a", "b"]), (Some("NE"), &["a"])]
        {
            assert!(read(condition, values).is_err(), "{condition:?} {values:?}");
        }
    }
}
