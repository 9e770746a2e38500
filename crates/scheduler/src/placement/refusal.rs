//! Why an instance cannot take a task.

use berth_model::ids::ContainerInstanceId;

/// The first rule that refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// It is not ACTIVE.
    Inactive,
    /// Its agent is not connected.
    Agent,
    /// It has not this attribute.
    Attribute(String),
    /// Too little CPU: wanted and free CPU units.
    Cpu {
        /// CPU units wanted.
        wanted: u32,
        /// CPU units free.
        free: u32,
    },
    /// Too little memory: wanted and free MiB.
    Memory {
        /// MiB wanted.
        wanted: u32,
        /// MiB free.
        free: u32,
    },
    /// Too few GPUs: wanted and free.
    Gpu {
        /// GPUs wanted.
        wanted: u32,
        /// GPUs free.
        free: u32,
    },
    /// Too few network interfaces of tasks: wanted and free.
    Interfaces {
        /// Interfaces wanted.
        wanted: u32,
        /// Interfaces that the instance could still hold.
        free: u32,
    },
    /// Too few addresses that a task is reached at from outside (`assignPublicIp`): wanted and free.
    PublicAddresses {
        /// Addresses wanted.
        wanted: u32,
        /// Addresses that the machine has left.
        free: u32,
    },
    /// This port of the machine is taken.
    Port(u16),
    /// No subnet has an address for the task's interface.
    Interface,
    /// It has a task of the group already.
    DistinctInstance,
    /// It is none of those that this expression (as printed) selects.
    MemberOf(String),
}

impl Rule {
    /// The `reason` in ECS's `failures[]`.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Inactive => "INACTIVE",
            Self::Agent => "AGENT",
            Self::Attribute(_) => "ATTRIBUTE",
            Self::Cpu { .. } => "RESOURCE:CPU",
            Self::Memory { .. } => "RESOURCE:MEMORY",
            Self::Gpu { .. } => "RESOURCE:GPU",
            Self::Port(_) => "RESOURCE:PORTS",
            // EC2 has no more of them than an account may have; to ECS it is one more interface that cannot be made.
            Self::Interface | Self::Interfaces { .. } | Self::PublicAddresses { .. } => "RESOURCE:ENI",
            Self::DistinctInstance => "DISTINCT_INSTANCE",
            Self::MemberOf(_) => "MemberOf placement constraint unsatisfied.",
        }
    }

    /// The same in words, for service events.
    #[must_use]
    pub fn in_words(&self) -> String {
        match self {
            Self::Inactive => "is not ACTIVE".to_owned(),
            Self::Agent => "encountered error \"AGENT\"".to_owned(),
            Self::Attribute(name) => format!("is missing an attribute required by your task ({name})"),
            Self::Cpu { .. } => "has insufficient CPU units available".to_owned(),
            Self::Memory { .. } => "has insufficient memory available".to_owned(),
            Self::Gpu { .. } => "has insufficient GPU resource available".to_owned(),
            Self::Port(port) => format!("is already using a port required by your task ({port})"),
            Self::PublicAddresses { .. } => "has no public address left".to_owned(),
            Self::DistinctInstance => "already runs a task of the group (distinctInstance)".to_owned(),
            Self::Interface | Self::Interfaces { .. } | Self::MemberOf(_) => format!("encountered error \"{}\"", self.reason()),
        }
    }
}

/// An instance that refused, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which.
    pub instance: ContainerInstanceId,
    /// Why.
    pub rule: Rule,
}

impl Refusal {
    /// How close an instance came: a service's event names the closest match. Bigger is closer.
    #[must_use]
    pub const fn closeness(&self) -> u8 {
        match self.rule {
            Rule::Inactive => 0,
            Rule::Agent => 1,
            Rule::Attribute(_) => 2,
            Rule::Cpu { .. } | Rule::Memory { .. } | Rule::Gpu { .. } | Rule::Interfaces { .. } => 3,
            Rule::Port(_) | Rule::Interface | Rule::PublicAddresses { .. } => 4,
            Rule::DistinctInstance | Rule::MemberOf(_) => 5,
        }
    }
}
