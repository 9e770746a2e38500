//! What this agent announces that it can do, whatever its runtime; the runtime adds its own ([`berth_runtime::port::Runtime::capabilities`]).
//! A name belongs here only if the engine honours it: the control plane places tasks by these names.

/// Names without values, sorted.
pub const CAPABILITIES: [&str; 20] = [
    "com.amazonaws.ecs.capability.docker-remote-api.1.17",
    "com.amazonaws.ecs.capability.docker-remote-api.1.18",
    "com.amazonaws.ecs.capability.docker-remote-api.1.19",
    "com.amazonaws.ecs.capability.docker-remote-api.1.20",
    "com.amazonaws.ecs.capability.docker-remote-api.1.21",
    "com.amazonaws.ecs.capability.docker-remote-api.1.22",
    "com.amazonaws.ecs.capability.logging-driver.awslogs",
    "com.amazonaws.ecs.capability.logging-driver.json-file",
    "com.amazonaws.ecs.capability.logging-driver.none",
    "ecs.capability.container-health-check",
    "ecs.capability.container-ordering",
    "ecs.capability.container-restart-policy",
    "ecs.capability.docker-plugin.local",
    "ecs.capability.env-files.s3",
    "ecs.capability.external",
    "ecs.capability.full-sync",
    "ecs.capability.private-registry-authentication.secretsmanager",
    "ecs.capability.secrets.asm.environment-variables",
    "ecs.capability.secrets.ssm.environment-variables",
    "ecs.capability.task-cpu-mem-limit",
];

/// The machine's architecture in ECS's words.
#[must_use]
pub const fn cpu_architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" }
}

/// Attributes with values, besides those of the configuration.
#[must_use]
pub fn valued(availability_zone: &str) -> [(&'static str, String); 4] {
    [
        ("ecs.availability-zone", availability_zone.to_owned()),
        ("ecs.cpu-architecture", cpu_architecture().to_owned()),
        ("ecs.os-family", "LINUX".to_owned()),
        ("ecs.os-type", "linux".to_owned()),
    ]
}
