//! One of the reasons that the server's own plans give for how something is. It must never be made up here.

use serde::{Deserialize, Serialize};

use crate::console::{Colours, Style, one_line};

/// As `/why` and `/plan` answer it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reason {
    /// What kind it is, for programs.
    pub code: String,
    /// The reason in words.
    pub text: String,
    /// Of a `PLACEMENT`, the rule that refused as `failures[]` names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The tasks or container instances it is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arns: Vec<String>,
}

impl Reason {
    /// A line for people: what keeps something is red, what is well is green, all else is on its way.
    pub fn render(&self, colours: Colours) -> String {
        let style = match self.code.as_str() {
            "PLACEMENT" | "FAILED" | "AGENT_AWAY" | "CONTAINER_ENDED" | "LOST" | "CONTAINER" => Style::Bad,
            "STEADY" | "RUNNING" | "ROOM" | "DRAINED" => Style::Good,
            _ => Style::Changing,
        };
        format!("  {} {}\n", colours.paint(style, "-"), one_line(&self.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_follow_the_code() {
        let of = |code: &str| Reason { code: code.into(), text: "x".into(), rule: None, arns: Vec::new() }.render(Colours::On);
        assert_eq!(of("PLACEMENT"), "  \x1b[31m-\x1b[0m x\n");
        assert_eq!(of("STEADY"), "  \x1b[32m-\x1b[0m x\n");
        assert_eq!(of("WAITS"), "  \x1b[33m-\x1b[0m x\n");
    }
}
