//! A handshake that the server answers with something else than 101: which exception, in the two spellings agents know.

use serde_json::{Value, json};

/// The exceptions that a handshake may be refused with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefusalKind {
    /// The server's own fault.
    ServerException,
    /// A query that cannot be read.
    BadRequestException,
    /// No such cluster.
    InvalidClusterException,
    /// No such container instance.
    InvalidInstanceException,
    /// These credentials may not poll for this instance.
    AccessDeniedException,
    /// The container instance is deregistered: the agent comes back after an hour, not before.
    InactiveInstanceException,
    /// Any other name, or none.
    Other(String),
}

impl RefusalKind {
    /// The exception's name; empty if it had none.
    pub fn name(&self) -> &str {
        match self {
            Self::ServerException => "ServerException",
            Self::BadRequestException => "BadRequestException",
            Self::InvalidClusterException => "InvalidClusterException",
            Self::InvalidInstanceException => "InvalidInstanceException",
            Self::AccessDeniedException => "AccessDeniedException",
            Self::InactiveInstanceException => "InactiveInstanceException",
            Self::Other(name) => name,
        }
    }

    /// The exception of that name.
    pub fn named(name: &str) -> Self {
        match name {
            "ServerException" => Self::ServerException,
            "BadRequestException" => Self::BadRequestException,
            "InvalidClusterException" => Self::InvalidClusterException,
            "InvalidInstanceException" => Self::InvalidInstanceException,
            "AccessDeniedException" => Self::AccessDeniedException,
            "InactiveInstanceException" => Self::InactiveInstanceException,
            other => Self::Other(other.to_owned()),
        }
    }

    /// The HTTP status to refuse with.
    pub fn status(&self) -> u16 {
        match self {
            Self::ServerException => 500,
            Self::AccessDeniedException => 403,
            _ => 400,
        }
    }
}

/// A refused handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which exception.
    pub kind: RefusalKind,
    /// Its sentence, or what else the body said.
    pub message: String,
}

impl Refusal {
    /// A refusal of that kind.
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The response's body.
    pub fn render(&self) -> String {
        json!({"type": self.kind.name(), "message": {"message": self.message}}).to_string()
    }

    /// Reads a response's body: either spelling that agents know, or the one of the JSON API's errors. Anything else is kept as
    /// the message of a nameless refusal.
    pub fn parse(body: &str) -> Self {
        let json: Value = serde_json::from_str(body).unwrap_or_default();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let message = |value: &Value| text(value).or_else(|| text(&value["message"])).unwrap_or_default();
        if let Some(name) = json["type"].as_str().or_else(|| json["__type"].as_str()) {
            let name = name.rsplit('#').next().unwrap_or(name);
            return Self::new(RefusalKind::named(name), message(&json["message"]));
        }
        // {"InactiveInstanceException": "text"}
        if let Some((name, value)) = json.as_object().and_then(|fields| fields.iter().find(|(name, _)| name.ends_with("Exception"))) {
            return Self::new(RefusalKind::named(name), message(value));
        }
        Self::new(RefusalKind::Other(String::new()), body.trim().chars().take(512).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_read() {
        let inactive = Refusal::new(RefusalKind::InactiveInstanceException, "gone");
        assert_eq!(Refusal::parse(r#"{"type":"InactiveInstanceException","message":{"message":"gone"}}"#), inactive);
        assert_eq!(Refusal::parse(r#"{"InactiveInstanceException":"gone"}"#), inactive);
        assert_eq!(Refusal::parse(&inactive.render()), inactive);
    }

    #[test]
    fn other_answers_are_kept() {
        assert_eq!(
            Refusal::parse(r#"{"__type":"com.amazonaws#InvalidSignatureException","message":"no"}"#),
            Refusal::new(RefusalKind::Other("InvalidSignatureException".into()), "no")
        );
        assert_eq!(Refusal::parse(" <html> "), Refusal::new(RefusalKind::Other(String::new()), "<html>"));
        assert_eq!(Refusal::parse("[]").kind, RefusalKind::Other(String::new()));
        assert_eq!(Refusal::parse(""), Refusal::new(RefusalKind::Other(String::new()), ""));
    }
}
