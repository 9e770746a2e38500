//! The query strings with which agents open their two websockets. TCS names the same things differently from ACS.

use std::fmt::Write;

/// The longest query string that is read, in bytes.
pub const LONGEST_QUERY: usize = 8 * 1024;

/// A query string that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Beyond [`LONGEST_QUERY`].
    #[error("the query string is longer than {LONGEST_QUERY} bytes")]
    TooLong,
    /// A parameter without which nothing can be done.
    #[error("the query parameter '{0}' is missing")]
    Missing(&'static str),
    /// A parameter that is not of its type.
    #[error("the query parameter '{name}' cannot be '{value}'")]
    Bad {
        /// Which.
        name: &'static str,
        /// What it was, shortened.
        value: String,
    },
}

/// What an agent says of itself when it opens its ACS socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcsQuery {
    /// The agent's build.
    pub agent_hash: String,
    /// The agent's version.
    pub agent_version: String,
    /// The cluster as the agent was configured: a name or, in spite of the parameter's name, not always an ARN.
    pub cluster: String,
    /// The container instance's ARN.
    pub container_instance_arn: String,
    /// `DockerVersion: 20.10.24` from the official agent.
    pub docker_version: String,
    /// From 2 on the server may close the socket when heartbeats stay unanswered.
    pub protocol_version: u32,
    /// Whether the agent has lost all credentials and wants those of its running tasks again.
    pub send_credentials: bool,
    /// Always 1; agents keep their own count.
    pub seq_num: i64,
    /// Berth's own agent asks for a heartbeat every second with `berthHeartbeat=1`, to notice a lost server sooner.
    pub berth_heartbeat: bool,
    /// Berth's own agent asks with `berthDns=1` to be told what names answer, since it has a DNS server.
    pub berth_dns: bool,
    /// Berth's own agent says with `berthDifferences=1` that it takes changes of tables, and asks for the whole of one that it misses.
    pub berth_differences: bool,
}

impl AcsQuery {
    /// Reads a query string, without its question mark.
    ///
    /// # Errors
    /// When it is too long, names no cluster or container instance, or a number is none.
    pub fn parse(query: &str) -> Result<Self, QueryError> {
        let pairs = pairs(query)?;
        Ok(Self {
            agent_hash: optional(&pairs, "agentHash"),
            agent_version: optional(&pairs, "agentVersion"),
            cluster: required(&pairs, "clusterArn")?,
            container_instance_arn: required(&pairs, "containerInstanceArn")?,
            docker_version: optional(&pairs, "dockerVersion"),
            protocol_version: number(&pairs, "protocolVersion", 1)?,
            send_credentials: flag(&pairs, "sendCredentials")?,
            seq_num: number(&pairs, "seqNum", 1)?,
            berth_heartbeat: flag(&pairs, "berthHeartbeat")?,
            berth_dns: flag(&pairs, "berthDns")?,
            berth_differences: flag(&pairs, "berthDifferences")?,
        })
    }

    /// Renders the query string, its names sorted as the official agent's are.
    pub fn render(&self) -> String {
        let (protocol, seq_num) = (self.protocol_version.to_string(), self.seq_num.to_string());
        let mut pairs = vec![
            ("agentHash", self.agent_hash.as_str()),
            ("agentVersion", &self.agent_version),
            ("clusterArn", &self.cluster),
            ("containerInstanceArn", &self.container_instance_arn),
            ("dockerVersion", &self.docker_version),
            ("protocolVersion", &protocol),
            ("sendCredentials", if self.send_credentials { "true" } else { "false" }),
            ("seqNum", &seq_num),
        ];
        if self.berth_heartbeat {
            pairs.insert(2, ("berthHeartbeat", "1"));
        }
        if self.berth_dns {
            pairs.insert(2, ("berthDns", "1"));
        }
        if self.berth_differences {
            pairs.insert(2, ("berthDifferences", "1"));
        }
        render(&pairs)
    }
}

/// What an agent says of itself when it opens its TCS socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetryQuery {
    /// The agent's build.
    pub agent_hash: String,
    /// The agent's version.
    pub agent_version: String,
    /// The cluster as the agent was configured: a name or an ARN.
    pub cluster: String,
    /// The container instance's ARN.
    pub container_instance: String,
    /// Such as `20.10.24`.
    pub docker_version: String,
}

impl TelemetryQuery {
    /// Reads a query string, without its question mark.
    ///
    /// # Errors
    /// When it is too long, or names no cluster or container instance.
    pub fn parse(query: &str) -> Result<Self, QueryError> {
        let pairs = pairs(query)?;
        Ok(Self {
            agent_hash: optional(&pairs, "agentHash"),
            agent_version: optional(&pairs, "agentVersion"),
            cluster: required(&pairs, "cluster")?,
            container_instance: required(&pairs, "containerInstance")?,
            docker_version: optional(&pairs, "dockerVersion"),
        })
    }

    /// Renders the query string, its names sorted.
    pub fn render(&self) -> String {
        render(&[
            ("agentHash", &self.agent_hash),
            ("agentVersion", &self.agent_version),
            ("cluster", &self.cluster),
            ("containerInstance", &self.container_instance),
            ("dockerVersion", &self.docker_version),
        ])
    }
}

type Pairs<'a> = Vec<(&'a str, String)>;

fn pairs(query: &str) -> Result<Pairs<'_>, QueryError> {
    if query.len() > LONGEST_QUERY {
        return Err(QueryError::TooLong);
    }
    let parts = query.split('&').filter_map(|part| part.split_once('='));
    Ok(parts.map(|(name, value)| (name, decoded(value))).collect())
}

fn find<'a>(pairs: &'a Pairs<'_>, name: &str) -> Option<&'a str> {
    pairs.iter().find(|pair| pair.0 == name).map(|pair| pair.1.as_str())
}

fn optional(pairs: &Pairs<'_>, name: &str) -> String {
    find(pairs, name).unwrap_or_default().to_owned()
}

fn required(pairs: &Pairs<'_>, name: &'static str) -> Result<String, QueryError> {
    find(pairs, name).filter(|value| !value.is_empty()).map(str::to_owned).ok_or(QueryError::Missing(name))
}

fn number<T: std::str::FromStr>(pairs: &Pairs<'_>, name: &'static str, absent: T) -> Result<T, QueryError> {
    find(pairs, name).map_or(Ok(absent), |value| value.parse().map_err(|_| bad(name, value)))
}

fn flag(pairs: &Pairs<'_>, name: &'static str) -> Result<bool, QueryError> {
    match find(pairs, name) {
        None | Some("" | "false" | "0") => Ok(false),
        Some("true" | "1") => Ok(true),
        Some(value) => Err(bad(name, value)),
    }
}

fn bad(name: &'static str, value: &str) -> QueryError {
    QueryError::Bad { name, value: value.chars().take(64).collect() }
}

// Go writes a space as a plus.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let nibble = |at: usize| bytes.get(at).and_then(|byte| (*byte as char).to_digit(16)).map(|digit| digit as u8);
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], nibble(at + 1), nibble(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(high << 4 | low);
                at += 2;
            }
            (b'+', ..) => out.push(b' '),
            (byte, ..) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

// A space becomes %20, never a plus: signers and servers agree on that spelling alone.
fn render(pairs: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (name, value) in pairs {
        let separator = if out.is_empty() { "" } else { "&" };
        write!(out, "{separator}{name}=").expect("a String takes any text");
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
                out.push(char::from(byte));
            } else {
                write!(out, "%{byte:02X}").expect("a String takes any text");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSTANCE: &str = "arn:aws:ecs:us-east-1:000000000000:container-instance/default/0123";

    #[test]
    fn the_official_agents_query() {
        let query = AcsQuery::parse(
            "agentHash=a8b3e7d3&agentVersion=1.105.1&clusterArn=default&containerInstanceArn=arn%3Aaws%3Aecs%3Aus-east-1%3A000000000000%3A\
             container-instance%2Fdefault%2F0123&dockerVersion=DockerVersion%3A+20.10.24%2Bdfsg1&protocolVersion=2&sendCredentials=true&seqNum=1",
        )
        .unwrap();
        assert_eq!(
            query,
            AcsQuery {
                agent_hash: "a8b3e7d3".into(),
                agent_version: "1.105.1".into(),
                cluster: "default".into(),
                container_instance_arn: INSTANCE.into(),
                docker_version: "DockerVersion: 20.10.24+dfsg1".into(),
                protocol_version: 2,
                send_credentials: true,
                seq_num: 1,
                berth_heartbeat: false,
                berth_dns: false,
                berth_differences: false,
            }
        );
        let ours = AcsQuery { berth_heartbeat: true, berth_dns: true, berth_differences: true, ..query };
        assert!(ours.render().contains("&berthDifferences=1&berthDns=1&berthHeartbeat=1&clusterArn=default&"), "{}", ours.render());
        assert_eq!(AcsQuery::parse(&ours.render()), Ok(ours));
    }

    #[test]
    fn the_telemetry_query_has_other_names() {
        let query = TelemetryQuery {
            agent_hash: "a".into(),
            agent_version: "1".into(),
            cluster: "my cluster".into(),
            container_instance: INSTANCE.into(),
            docker_version: "20.10".into(),
        };
        assert!(query.render().contains("cluster=my%20cluster&containerInstance=arn%3Aaws"), "{}", query.render());
        assert_eq!(TelemetryQuery::parse(&query.render()), Ok(query));
    }

    #[test]
    fn what_is_refused_says_which_parameter() {
        assert_eq!(AcsQuery::parse("clusterArn=default"), Err(QueryError::Missing("containerInstanceArn")));
        assert_eq!(TelemetryQuery::parse("cluster="), Err(QueryError::Missing("cluster")));
        let error = AcsQuery::parse("clusterArn=c&containerInstanceArn=i&protocolVersion=two").unwrap_err();
        assert_eq!(error.to_string(), "the query parameter 'protocolVersion' cannot be 'two'");
        assert_eq!(AcsQuery::parse(&"a".repeat(LONGEST_QUERY + 1)), Err(QueryError::TooLong));
    }
}
