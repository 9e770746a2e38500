//! Strings that most records have in common, kept once: names of clusters, families, images. It must never be given what is
//! each record's own.

use std::collections::HashSet;
use std::sync::Arc;

use berth_model::record::Record;

/// The strings that were met so far.
#[derive(Debug, Default)]
pub(super) struct Strings(HashSet<Arc<str>>);

impl Strings {
    /// Makes a record that nobody else holds yet share what others before it have, too.
    pub(super) fn share(&mut self, record: &mut Record) {
        let Record::Task(task) = record else { return };
        let Some(task) = Arc::get_mut(task) else { return };
        self.share_one(&mut task.cluster.0);
        self.share_one(&mut task.definition.family.0);
        self.share_one(&mut task.group);
        if let Some(membership) = &mut task.service {
            self.share_one(&mut membership.service.0);
        }
        if let Some(zone) = &mut task.availability_zone {
            self.share_one(zone);
        }
        for container in &mut task.containers {
            self.share_one(&mut container.name);
            self.share_one(&mut container.image);
        }
    }

    fn share_one(&mut self, text: &mut Arc<str>) {
        match self.0.get(text) {
            Some(known) => *text = Arc::clone(known),
            None => drop(self.0.insert(Arc::clone(text))),
        }
    }
}
