//! `berth version`.

use serde_json::json;

use crate::command::Output;
use crate::console::Console;
use crate::failure::Failure;

/// Print Berth's version.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  berth version --output json")]
pub struct Version {
    /// How to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

impl Version {
    pub(crate) fn run(&self, console: &mut Console<'_>) -> Result<(), Failure> {
        let version = env!("CARGO_PKG_VERSION");
        match self.output {
            Output::Text => writeln!(console.out, "berth {version}")?,
            Output::Json => {
                let (os, architecture) = (std::env::consts::OS, std::env::consts::ARCH);
                writeln!(console.out, "{}", json!({ "version": version, "os": os, "architecture": architecture }))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Written;

    #[test]
    fn both_forms() {
        let mut written = Written::default();
        Version { output: Output::Text }.run(&mut written.console()).unwrap();
        assert_eq!(written.out(), format!("berth {}\n", env!("CARGO_PKG_VERSION")));
        let mut written = Written::default();
        Version { output: Output::Json }.run(&mut written.console()).unwrap();
        let json: serde_json::Value = serde_json::from_str(written.out()).unwrap();
        assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    }
}
