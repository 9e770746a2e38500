//! What is AWS Fargate's own: the sizes of its tasks, its platform, its disk, and the name under which machines join that offer nothing
//! else. Everything else of it is a container instance, a task, a service like any other.

use berth_shapes::ecs;

use crate::ids::ClusterName;
use crate::task::{LaunchType, Task};
use crate::task_definition::TaskDefinition;

/// The platform that tasks run on: what `LATEST` stands for.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/platform-fargate.html>
pub const PLATFORM_VERSION: &str = "1.4.0";
/// The word for the newest platform, and what a service says that names none.
pub const LATEST: &str = "LATEST";
/// `platformFamily`: Berth runs on Linux alone.
pub const PLATFORM_FAMILY: &str = "Linux";
/// GiB of disk of a task that names no size.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-task-storage.html>
pub const DEFAULT_STORAGE_GIB: u32 = 20;
/// `reason` where no machine has room.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-event-messages-list.html>
pub const NO_CAPACITY: &str = "Capacity is unavailable at this time. Please try again later or in a different availability zone";
/// `stoppedReason` of an interrupted FARGATE_SPOT task.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-capacity-providers.html>
pub const INTERRUPTED: &str = "Your Spot Task was interrupted.";
/// The capacity provider whose tasks can be interrupted.
pub const SPOT: &str = "FARGATE_SPOT";

/// The name that machines register under that offer Fargate capacity and nothing else. No cluster can have it.
const RESERVED: &str = "berth:fargate";

/// The reserved name of the machines that are no container instances of any cluster.
#[must_use]
pub fn machines() -> ClusterName {
    ClusterName(RESERVED.into())
}

/// The name is that of [`machines`].
#[must_use]
pub fn is_reserved(cluster: &ClusterName) -> bool {
    cluster.as_str() == RESERVED
}

/// A definition can be run by Fargate: its `requiresCompatibilities` say so.
#[must_use]
pub fn is_compatible(definition: &TaskDefinition) -> bool {
    definition.document.requires_compatibilities.iter().flatten().any(|one| one.as_str() == "FARGATE")
}

/// GiB of disk of a task: what its overrides, or else its definition, say; 0 of one that is not Fargate's.
#[must_use]
pub fn storage_gib(task: &Task, document: Option<&ecs::TaskDefinition>) -> u32 {
    if task.launch_type != LaunchType::Fargate {
        return 0;
    }
    let own = task.overrides.as_ref().and_then(|own| own.ephemeral_storage.as_ref());
    let given = own.or_else(|| document?.ephemeral_storage.as_ref()).and_then(|given| given.size_in_gib);
    given.and_then(|size| u32::try_from(size).ok()).unwrap_or(DEFAULT_STORAGE_GIB)
}

/// Each size's CPU units with its least and most memory in MiB, and the steps between them.
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-cpu-memory-error.html>
const SIZES: [(u32, u32, u32, u32); 6] = [
    (512, 1_024, 4_096, 1_024),
    (1_024, 2_048, 8_192, 1_024),
    (2_048, 4_096, 16_384, 1_024),
    (4_096, 8_192, 30_720, 1_024),
    (8_192, 16_384, 61_440, 4_096),
    (16_384, 32_768, 122_880, 8_192),
];
/// The smallest size doubles its memory from step to step.
const SMALLEST: (u32, [u32; 3]) = (256, [512, 1_024, 2_048]);

/// Whether Fargate has tasks of so many CPU units and MiB.
#[must_use]
pub fn has_size(cpu: u32, memory: u32) -> bool {
    if cpu == SMALLEST.0 {
        return SMALLEST.1.contains(&memory);
    }
    SIZES.iter().any(|&(of, least, most, step)| of == cpu && (least..=most).contains(&memory) && (memory - least).is_multiple_of(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cluster_can_have_the_machines_name() {
        assert!(is_reserved(&machines()));
        assert_eq!(ClusterName::parse(machines().as_str()), None);
    }

    #[test]
    fn sizes_are_those_of_the_table() {
        for (cpu, memory) in [(256, 512), (256, 2_048), (512, 1_024), (1_024, 8_192), (4_096, 30_720), (8_192, 20_480), (16_384, 122_880)] {
            assert!(has_size(cpu, memory), "{cpu} {memory}");
        }
        for (cpu, memory) in [(0, 0), (128, 512), (256, 1_536), (256, 4_096), (512, 512), (1_024, 2_050), (8_192, 17_408), (32_768, 65_536)]
        {
            assert!(!has_size(cpu, memory), "{cpu} {memory}");
        }
    }
}
