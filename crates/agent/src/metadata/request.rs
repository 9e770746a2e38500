//! What is asked, read once from a path: past this nobody sees one.

/// Which version of the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// As version 2, under a name.
    V3,
    /// With all that there is.
    V4,
}

/// What is asked of a container's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The container.
    Container,
    /// Its task.
    Task,
    /// Its task, with the tags of task and container instance.
    TaskWithTags,
    /// What the container uses.
    Stats,
    /// What all containers of its task use.
    TaskStats,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked<'a> {
    /// Metadata or figures.
    Metadata {
        /// The version.
        version: Version,
        /// The container's name at the endpoint.
        id: &'a str,
        /// Of what.
        subject: Subject,
    },
    /// Whether the task is protected from being stopped, or that it is to be.
    Protection {
        /// The container's name at the endpoint.
        id: &'a str,
    },
    /// The credentials of the task role.
    Credentials {
        /// By what name; empty if by none.
        id: &'a str,
    },
}

/// Reads a path; `None` if there is nothing there.
#[must_use]
pub fn parse(path: &str) -> Option<Asked<'_>> {
    if let Some(id) = path.strip_prefix("/v2/credentials") {
        return id.strip_prefix('/').or(Some(id).filter(|id| id.is_empty())).map(|id| Asked::Credentials { id });
    }
    let (version, rest) = path.strip_prefix('/')?.split_once('/')?;
    let (id, rest) = rest.split_once('/').map_or((rest, None), |(id, rest)| (id, Some(rest)));
    if id.is_empty() {
        return None;
    }
    let version = match version {
        "v3" => Version::V3,
        "v4" => Version::V4,
        "api" => return (rest == Some("task-protection/v1/state")).then_some(Asked::Protection { id }),
        _ => return None,
    };
    let subject = match rest {
        None => Subject::Container,
        Some("task") => Subject::Task,
        Some("taskWithTags") => Subject::TaskWithTags,
        Some("stats") => Subject::Stats,
        Some("task/stats") => Subject::TaskStats,
        Some(_) => return None,
    };
    Some(Asked::Metadata { version, id, subject })
}

impl Version {
    /// As it stands in the official agent's texts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V3 => "V3",
            Self::V4 => "V4",
        }
    }
}

/// The official agent's text where nobody is known by a name. (`agent/handlers/v4/tmdsstate.go`, `agent/handlers/v3`)
#[must_use]
pub fn unknown(version: Version, id: &str, subject: Subject) -> String {
    let name = version.name();
    match subject {
        Subject::Container => format!(
            "{name} container metadata handler: unable to get container ID from request: unable to get docker ID from v3 endpoint ID: {id}"
        ),
        Subject::Task | Subject::TaskWithTags => {
            format!("{name} task metadata handler: unable to get task arn from request: unable to get task Arn from v3 endpoint ID: {id}")
        }
        Subject::Stats => {
            format!("{name} container stats handler: unable to get task arn from request: unable to get task Arn from v3 endpoint ID: {id}")
        }
        Subject::TaskStats => {
            format!("{name} task stats handler: unable to get task arn from request: unable to get task Arn from v3 endpoint ID: {id}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let metadata = |version, id, subject| Some(Asked::Metadata { version, id, subject });
        for (path, asked) in [
            ("/v4/a-1", metadata(Version::V4, "a-1", Subject::Container)),
            ("/v3/a-1", metadata(Version::V3, "a-1", Subject::Container)),
            ("/v4/a-1/task", metadata(Version::V4, "a-1", Subject::Task)),
            ("/v4/a-1/taskWithTags", metadata(Version::V4, "a-1", Subject::TaskWithTags)),
            ("/v4/a-1/stats", metadata(Version::V4, "a-1", Subject::Stats)),
            ("/v3/a-1/task/stats", metadata(Version::V3, "a-1", Subject::TaskStats)),
            ("/api/a-1/task-protection/v1/state", Some(Asked::Protection { id: "a-1" })),
            ("/v2/credentials/a-1", Some(Asked::Credentials { id: "a-1" })),
            ("/v2/credentials/", Some(Asked::Credentials { id: "" })),
            ("/v2/credentials", Some(Asked::Credentials { id: "" })),
        ] {
            assert_eq!(parse(path), asked, "{path}");
        }
        for path in [
            "",
            "/",
            "/v4",
            "/v4/",
            "/v4//task",
            "/v2/metadata",
            "/v2/credentialsa",
            "/v4/a/",
            "/v4/a/tasks",
            "/v4/a/task/",
            "/api/a",
            "/api/a/fault/v1",
            "v4/a",
        ] {
            assert_eq!(parse(path), None, "{path}");
        }
    }
}
