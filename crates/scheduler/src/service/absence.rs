//! When a machine whose agent is away counts as lost, so that its service tasks are replaced elsewhere. ECS itself leaves them as they were
//! last seen, because Auto Scaling ends such a machine; where there is no Auto Scaling, somebody has to.

use berth_model::container_instance::{ContainerInstance, ContainerInstanceStatus, Parting};
use berth_model::time::UnixMillis;

/// How long an agent may be away that said goodbye, or whose server ended, before its machine counts as lost: the time to restart one. In
/// milliseconds.
const RESTART_MILLIS: i64 = 30_000;

/// When the machines of agents that are away count as lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbsenceRules {
    /// How long after a silence was noticed, in milliseconds; `None`: never, as on ECS.
    pub replace_after: Option<i64>,
    /// Since when this server lets agents in: nobody is away who could not have come.
    pub listening_since: UnixMillis,
}

impl AbsenceRules {
    /// When the machine counts as lost, or did; `None` while its agent is connected, or if it never will.
    #[must_use]
    pub fn lost_at(&self, instance: &ContainerInstance) -> Option<UnixMillis> {
        let replace_after = self.replace_after?;
        if instance.agent_connected {
            return None;
        }
        let away = instance.away?;
        let since = away.since.max(self.listening_since);
        let is_silent = away.parting == Parting::Silent && away.since >= self.listening_since;
        // One that was deregistered will not come back under this name.
        let is_gone = instance.status == ContainerInstanceStatus::Inactive;
        let patience = if is_silent || is_gone { replace_after } else { replace_after.max(RESTART_MILLIS) };
        Some(since.plus_millis(patience))
    }
}

#[cfg(test)]
mod tests {
    use berth_model::container_instance::Away;
    use berth_model::ids::{ClusterName, ContainerInstanceId};

    use super::*;

    const RULES: AbsenceRules = AbsenceRules { replace_after: Some(1_000), listening_since: UnixMillis(50_000) };

    fn instance(since: i64, parting: Parting) -> ContainerInstance {
        ContainerInstance {
            id: ContainerInstanceId(1),
            cluster: ClusterName::parse("c").expect("a name"),
            ec2_instance_id: None,
            private_address: None,
            status: ContainerInstanceStatus::Active,
            status_reason: None,
            agent_connected: false,
            connection: 1,
            away: Some(Away { since: UnixMillis(since), parting }),
            registered: Default::default(),
            attributes: Default::default(),
            registered_at: UnixMillis(0),
            agent: Default::default(),
            tags: Default::default(),
        }
    }

    #[test]
    fn a_silent_machine_is_lost_sooner_than_one_that_said_goodbye() {
        assert_eq!(RULES.lost_at(&instance(60_000, Parting::Silent)), Some(UnixMillis(61_000)));
        assert_eq!(RULES.lost_at(&instance(60_000, Parting::Closed)), Some(UnixMillis(90_000)));
        assert_eq!(RULES.lost_at(&instance(60_000, Parting::ServerEnded)), Some(UnixMillis(90_000)));
    }

    #[test]
    fn who_could_not_come_because_the_server_was_down_is_given_time() {
        assert_eq!(RULES.lost_at(&instance(10, Parting::Silent)), Some(UnixMillis(80_000)));
    }

    #[test]
    fn nothing_is_lost_that_is_connected_or_never_was_or_where_it_is_switched_off() {
        let mut connected = instance(60_000, Parting::Silent);
        connected.join(2);
        assert_eq!(RULES.lost_at(&connected), None);
        let fresh = ContainerInstance { away: None, ..instance(60_000, Parting::Silent) };
        assert_eq!(RULES.lost_at(&fresh), None);
        assert_eq!(AbsenceRules { replace_after: None, ..RULES }.lost_at(&instance(60_000, Parting::Silent)), None);
    }
}
