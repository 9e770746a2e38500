//! What an expression is asked about: one container instance, borrowed from whoever keeps it.

use std::collections::BTreeMap;
use std::fmt;

use berth_model::time::UnixMillis;

/// Says whether a test holds for the group of any task on an instance.
pub type AnyGroup<'a> = dyn Fn(&dyn Fn(&str) -> bool) -> bool + 'a;

/// A container instance as expressions see it.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// `attribute:NAME`: its attributes; one without a value exists.
    pub attributes: &'a BTreeMap<String, Option<String>>,
    /// `agentConnected`.
    pub agent_connected: bool,
    /// `agentVersion`, as the agent said it; `None` before its first connection.
    pub agent_version: Option<&'a str>,
    /// `ec2InstanceId`; an external instance has none.
    pub ec2_instance_id: Option<&'a str>,
    /// `registeredAt`.
    pub registered_at: UnixMillis,
    /// `runningTasksCount`.
    pub running_tasks: u32,
    /// `task:group`: whether the given test holds for the group of any task on the instance.
    pub any_group: &'a AnyGroup<'a>,
}

impl fmt::Debug for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("attributes", self.attributes)
            .field("agent_connected", &self.agent_connected)
            .field("agent_version", &self.agent_version)
            .field("ec2_instance_id", &self.ec2_instance_id)
            .field("registered_at", &self.registered_at)
            .field("running_tasks", &self.running_tasks)
            .finish_non_exhaustive()
    }
}
