//! `berth env`: the variables that make any AWS tool talk to the Berth of this machine.

use std::fmt::Write as _;
use std::time::Duration;

use crate::client::Client;
use crate::connection::{Connection, ConnectionError, DataDirArgument};
use crate::console::Console;
use crate::data_dir::Endpoint;
use crate::environment::Environment;
use crate::failure::Failure;

/// How long the server may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(5);

/// Print the variables that point AWS tools at the Berth of this machine.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  eval \"$(berth env)\"\n  aws ecs list-clusters\n\n  berth env --output dotenv > berth.env")]
pub struct Env {
    /// Data directory of the Berth to point at [default: ~/.berth; root: /var/lib/berth]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<std::path::PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: EnvOutput,
}

/// How variables are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum EnvOutput {
    /// `export` lines for a shell's `eval`.
    #[default]
    Text,
    /// One object.
    Json,
    /// `NAME=value` lines, as env files have them.
    Dotenv,
}

impl Env {
    pub(crate) async fn run(&self, environment: &Environment, console: &mut Console<'_>) -> Result<(), Failure> {
        // What the environment says already is no answer here: it may be of a Berth that is long gone.
        let argument = DataDirArgument { data_dir: self.data_dir.clone() };
        let data_dir = argument.path(environment)?;
        let file = Endpoint::read(&data_dir).map_err(ConnectionError::from)?;
        let Some(file) = file else {
            let message = format!("no Berth has run with this data directory: there is no {}", Endpoint::path(&data_dir).display());
            return Err(Failure::new(
                message,
                "start one with `berth up`, or name its directory with --data-dir DIR. If root started it, use `sudo berth env`.",
            ));
        };
        let url = file.endpoint.clone();
        let connection = Connection::of_data_dir(&data_dir, file, environment)?;
        console.out.write_all(render(&url, &connection, self.output, environment).as_bytes())?;
        console.out.flush()?;
        if !Client::new(&connection)?.is_healthy(PATIENCE).await {
            console.warn(&format!("no Berth answers at {url} now; start it with `berth up`"))?;
        }
        Ok(())
    }
}

fn variables<'a>(url: &'a str, connection: &'a Connection) -> Vec<(&'static str, &'a str)> {
    let mut variables = vec![
        ("AWS_ENDPOINT_URL", url),
        ("AWS_ACCESS_KEY_ID", connection.key.id.as_str()),
        ("AWS_SECRET_ACCESS_KEY", connection.key.secret.expose()),
    ];
    if let Some(token) = &connection.key.session_token {
        variables.push(("AWS_SESSION_TOKEN", token.expose()));
    }
    variables.extend([("AWS_REGION", connection.region.as_str()), ("AWS_DEFAULT_REGION", connection.region.as_str())]);
    variables
}

fn render(url: &str, connection: &Connection, output: EnvOutput, environment: &Environment) -> String {
    let variables = variables(url, connection);
    match output {
        EnvOutput::Text => {
            let mut text = String::new();
            // Left from real AWS they would be sent along, or win over what is exported here.
            for name in ["AWS_ENDPOINT_URL_ECS", "AWS_SESSION_TOKEN"] {
                if environment.get(name).is_some() && !variables.iter().any(|(set, _)| *set == name) {
                    writeln!(text, "unset {name}").expect("a String takes any text");
                }
            }
            for (name, value) in variables {
                writeln!(text, "export {name}={}", quoted(value)).expect("a String takes any text");
            }
            text
        }
        EnvOutput::Dotenv => variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect(),
        EnvOutput::Json => {
            let object: serde_json::Map<_, _> = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
            format!("{}\n", serde_json::Value::Object(object))
        }
    }
}

/// A word that a POSIX shell takes for exactly this text.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@%+=,".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeServer, Written, connection};
    use berth_identity::AccessKey;

    #[test]
    fn three_forms() {
        let mut connection = connection("http://127.0.0.1:4566");
        connection.key = AccessKey::long_term("AKIA1", "a/b+c$(id) '", "");
        let url = "http://127.0.0.1:4566";
        let nothing = Environment::default();
        assert_eq!(
            render(url, &connection, EnvOutput::Text, &nothing),
            "export AWS_ENDPOINT_URL=http://127.0.0.1:4566\n\
             export AWS_ACCESS_KEY_ID=AKIA1\n\
             export AWS_SECRET_ACCESS_KEY='a/b+c$(id) '\\'''\n\
             export AWS_REGION=us-east-1\n\
             export AWS_DEFAULT_REGION=us-east-1\n"
        );
        assert_eq!(
            render(url, &connection, EnvOutput::Dotenv, &nothing),
            "AWS_ENDPOINT_URL=http://127.0.0.1:4566\nAWS_ACCESS_KEY_ID=AKIA1\nAWS_SECRET_ACCESS_KEY=a/b+c$(id) '\nAWS_REGION=us-east-1\nAWS_DEFAULT_REGION=us-east-1\n"
        );
        let json: serde_json::Value = serde_json::from_str(&render(url, &connection, EnvOutput::Json, &nothing)).unwrap();
        assert_eq!(json["AWS_SECRET_ACCESS_KEY"], "a/b+c$(id) '");
        assert_eq!(json.as_object().unwrap().len(), 5);
    }

    #[test]
    fn what_real_aws_left_behind_is_unset() {
        let left: Environment = [("AWS_SESSION_TOKEN", "t"), ("AWS_ENDPOINT_URL_ECS", "http://x")].into_iter().collect();
        let text = render("http://y", &connection("http://y"), EnvOutput::Text, &left);
        assert!(text.starts_with("unset AWS_ENDPOINT_URL_ECS\nunset AWS_SESSION_TOKEN\nexport AWS_ENDPOINT_URL="), "{text}");
    }

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for text in ["", "plain", "two words", "it's", "$HOME `id` \"x\" \\", "new\nline", "*;&|<>()#~"] {
            let shell = std::process::Command::new("sh").arg("-c").arg(format!("printf %s {}", quoted(text))).output().unwrap();
            assert_eq!(String::from_utf8(shell.stdout).unwrap(), text);
        }
    }

    fn data_dir(url: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let file = Endpoint { endpoint: url.to_owned(), region: "us-east-1".into(), account: "000000000000".into(), pid: 1 };
        file.write(folder.path()).unwrap();
        std::fs::write(folder.path().join("credentials"), "[default]\naws_access_key_id = AKIATEST\naws_secret_access_key = s\n").unwrap();
        folder
    }

    #[tokio::test]
    async fn a_silent_server_is_a_warning() {
        let server = FakeServer::start(|_, _| Ok(serde_json::json!({}))).await;
        let folder = data_dir(&server.url);
        let env = Env { data_dir: Some(folder.path().to_owned()), output: EnvOutput::Text };
        let mut written = Written::default();
        env.run(&Environment::default(), &mut written.console()).await.unwrap();
        assert!(written.out().starts_with(&format!("export AWS_ENDPOINT_URL={}\n", server.url)), "{}", written.out());
        assert_eq!(written.err(), "");

        let unused = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", unused.local_addr().unwrap());
        drop(unused);
        let folder = data_dir(&url);
        let env = Env { data_dir: Some(folder.path().to_owned()), output: EnvOutput::Dotenv };
        let mut written = Written::default();
        env.run(&Environment::default(), &mut written.console()).await.unwrap();
        assert!(written.out().starts_with(&format!("AWS_ENDPOINT_URL={url}\n")));
        assert_eq!(written.err(), format!("warning: no Berth answers at {url} now; start it with `berth up`\n"));
    }

    #[tokio::test]
    async fn no_berth_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let env = Env { data_dir: Some(folder.path().to_owned()), output: EnvOutput::Text };
        let failure = env.run(&Environment::default(), &mut Written::default().console()).await.unwrap_err();
        assert!(failure.render().unwrap().contains("start one with `berth up`"));
    }
}
