//! Where a service goes back to, and by which call: decided from its history alone. It must never call anything.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::tasks::name_of;

/// What a user wants to go back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The last revision that came out.
    Last,
    /// A service revision, by its ARN.
    Revision(String),
    /// A task definition: family, `family:revision` or ARN, as UpdateService takes it.
    Definition(String),
}

/// A service revision and what it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Revision {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_revision_arn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_definition: Option<String>,
}

impl Revision {
    /// `web:1 (revision 1234567890123456789)`, as much of it as is known.
    pub fn in_words(&self) -> String {
        match (&self.task_definition, &self.service_revision_arn) {
            (Some(definition), Some(arn)) => format!("{} (revision {})", name_of(definition), name_of(arn)),
            (Some(definition), None) => name_of(definition).to_owned(),
            (None, Some(arn)) => format!("revision {}", name_of(arn)),
            (None, None) => "the last revision that came out".to_owned(),
        }
    }
}

/// What the API says of a service's past.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    /// The revision that the PRIMARY deployment brings out, and its task definition.
    pub current: Option<String>,
    pub definition: Option<String>,
    /// The service deployment that goes on.
    pub ongoing: Option<Ongoing>,
    /// The revisions that came out whole, the newest deployment's first.
    pub came_out: Vec<String>,
    /// What revisions run.
    pub definitions: BTreeMap<String, String>,
}

/// A service deployment that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ongoing {
    pub arn: String,
    /// The revision it brings out.
    pub target: Option<String>,
    /// It was begun upon others: there may be one to go back to, even where the history forgot it.
    pub has_sources: bool,
    /// It goes back already; to this revision, where that is known.
    pub back: Option<Option<String>>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// Stop the deployment that goes on; the server goes back.
    Stop { deployment: String, from: Revision, to: Revision },
    /// It goes back already.
    Underway { deployment: String, from: Revision, to: Revision },
    /// A deployment of an earlier task definition.
    Update { from: Revision, to: Revision, definition: String },
}

/// Why there is no way back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoWay {
    #[error("the deployment that goes on is the first one: no revision of the service ever came out, so there is nothing to go back to")]
    First,
    #[error("no other task definition than {0} came out before, so there is nothing to go back to")]
    Nothing(String),
    #[error("the service has no deployment")]
    NoDeployment,
    #[error("there is no service revision {0} of this service: --to")]
    NoRevision(String),
    #[error("{0} is what the service is set to already: --to")]
    Same(String),
}

impl History {
    fn revision(&self, arn: &str) -> Revision {
        Revision { service_revision_arn: Some(arn.to_owned()), task_definition: self.definitions.get(arn).cloned() }
    }

    fn from(&self) -> Revision {
        Revision { service_revision_arn: self.current.clone(), task_definition: self.definition.clone() }
    }

    /// The way to what is wanted.
    pub fn way(&self, wanted: &Wanted) -> Result<Way, NoWay> {
        let definition = self.definition.as_deref().ok_or(NoWay::NoDeployment)?;
        match wanted {
            Wanted::Revision(arn) => {
                let to = self.revision(arn);
                let chosen = to.task_definition.clone().ok_or_else(|| NoWay::NoRevision(name_of(arn).to_owned()))?;
                self.update(to, chosen)
            }
            Wanted::Definition(text) => {
                self.update(Revision { service_revision_arn: None, task_definition: Some(text.clone()) }, text.clone())
            }
            Wanted::Last => match &self.ongoing {
                Some(ongoing) => self.stop(ongoing),
                None => {
                    let to = self.last_before(definition).ok_or_else(|| NoWay::Nothing(name_of(definition).to_owned()))?;
                    let chosen = to.task_definition.clone().unwrap_or_default();
                    self.update(to, chosen)
                }
            },
        }
    }

    fn update(&self, to: Revision, definition: String) -> Result<Way, NoWay> {
        let is_same = |now: &str| now == definition || name_of(now) == definition;
        match self.definition.as_deref().filter(|now| is_same(now)) {
            Some(now) => Err(NoWay::Same(name_of(now).to_owned())),
            None => Ok(Way::Update { from: self.from(), to, definition }),
        }
    }

    fn stop(&self, ongoing: &Ongoing) -> Result<Way, NoWay> {
        let from = ongoing.target.as_deref().map_or_else(|| self.from(), |arn| self.revision(arn));
        let unknown = Revision { service_revision_arn: None, task_definition: None };
        let deployment = ongoing.arn.clone();
        if let Some(back) = &ongoing.back {
            let to = back.as_deref().map_or(unknown, |arn| self.revision(arn));
            return Ok(Way::Underway { deployment, from, to });
        }
        match self.came_out.first() {
            Some(arn) => Ok(Way::Stop { deployment, from, to: self.revision(arn) }),
            None if ongoing.has_sources => Ok(Way::Stop { deployment, from, to: unknown }),
            None => Err(NoWay::First),
        }
    }

    /// The last revision that came out before the service's own, or before it failed to, and runs something else: to set the service to
    /// what it is set to would begin nothing.
    fn last_before(&self, definition: &str) -> Option<Revision> {
        let own = self.came_out.iter().position(|arn| Some(arn) == self.current.as_ref());
        let earlier = &self.came_out[own.map_or(0, |own| own + 1)..];
        let fits = |revision: &Revision| revision.task_definition.as_deref().is_some_and(|other| other != definition);
        earlier.iter().map(|arn| self.revision(arn)).find(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arn(revision: &str) -> String {
        format!("arn:aws:ecs:r:1:service-revision/c/web/{revision}")
    }

    fn definition(name: &str) -> String {
        format!("arn:aws:ecs:r:1:task-definition/{name}")
    }

    /// A service at `current`, after deployments that came out, the newest first; each is `REVISION=DEFINITION`.
    fn history(current: &str, came_out: &[&str]) -> History {
        let mut history = History::default();
        for text in came_out.iter().chain([&current]) {
            let (revision, name) = text.split_once('=').unwrap();
            history.definitions.insert(arn(revision), definition(name));
        }
        let (revision, name) = current.split_once('=').unwrap();
        let came_out = came_out.iter().map(|text| arn(text.split_once('=').unwrap().0)).collect();
        History { current: Some(arn(revision)), definition: Some(definition(name)), came_out, ..history }
    }

    fn ongoing(mut history: History, has_sources: bool, back: Option<Option<String>>) -> History {
        history.ongoing = Some(Ongoing { arn: "d".into(), target: history.current.clone(), has_sources, back });
        history
    }

    fn to(way: Result<Way, NoWay>) -> Result<String, NoWay> {
        way.map(|way| match way {
            Way::Stop { to, .. } => format!("stop, {}", to.in_words()),
            Way::Underway { to, .. } => format!("underway, {}", to.in_words()),
            Way::Update { to, definition, .. } => format!("update to {}, {}", name_of(&definition), to.in_words()),
        })
    }

    #[test]
    fn after_a_deployment_the_one_before() {
        let of = |history: History| to(history.way(&Wanted::Last));
        assert_eq!(of(history("2=web:2", &["2=web:2", "1=web:1"])).unwrap(), "update to web:1, web:1 (revision 1)");
        assert_eq!(of(history("4=web:2", &["4=web:2", "3=web:2", "1=web:1"])).unwrap(), "update to web:1, web:1 (revision 1)", "forced");
        assert_eq!(of(history("3=web:1", &["3=web:1", "2=web:2", "1=web:1"])).unwrap(), "update to web:2, web:2 (revision 2)", "and forth");
        assert_eq!(of(history("9=web:9", &["1=web:1"])).unwrap(), "update to web:1, web:1 (revision 1)", "its own never came out");
        assert_eq!(of(history("1=web:1", &["1=web:1"])), Err(NoWay::Nothing("web:1".into())));
        assert_eq!(of(history("1=web:1", &["1=web:1", "1=web:1"])), Err(NoWay::Nothing("web:1".into())), "rolled back to it");
        assert_eq!(of(history("1=web:1", &[])), Err(NoWay::Nothing("web:1".into())));
        assert_eq!(of(History::default()), Err(NoWay::NoDeployment));
    }

    #[test]
    fn in_the_middle_of_one_the_server_goes_back() {
        let of = |history: History| to(history.way(&Wanted::Last));
        assert_eq!(of(ongoing(history("2=web:2", &["1=web:1"]), true, None)).unwrap(), "stop, web:1 (revision 1)");
        assert_eq!(of(ongoing(history("2=web:2", &[]), true, None)).unwrap(), "stop, the last revision that came out", "forgotten");
        assert_eq!(of(ongoing(history("1=web:1", &[]), false, None)), Err(NoWay::First));
        assert_eq!(of(ongoing(history("2=web:2", &["1=web:1"]), true, Some(Some(arn("1"))))).unwrap(), "underway, web:1 (revision 1)");
        assert_eq!(of(ongoing(history("2=web:2", &["1=web:1"]), true, Some(None))).unwrap(), "underway, the last revision that came out");
    }

    #[test]
    fn what_is_named_comes_by_an_update() {
        let history = ongoing(history("2=web:2", &["1=web:1"]), true, None);
        assert_eq!(to(history.way(&Wanted::Revision(arn("1")))).unwrap(), "update to web:1, web:1 (revision 1)");
        assert_eq!(to(history.way(&Wanted::Definition("web:7".into()))).unwrap(), "update to web:7, web:7");
        assert_eq!(history.way(&Wanted::Definition("web:2".into())), Err(NoWay::Same("web:2".into())));
        assert_eq!(history.way(&Wanted::Definition(definition("web:2"))), Err(NoWay::Same("web:2".into())));
        assert_eq!(history.way(&Wanted::Revision(arn("5"))), Err(NoWay::NoRevision("5".into())));
    }
}
