//! The sizes of tasks that AWS Fargate has.

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
