//! Fetching, with sources that are a table.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use berth_acs::messages as acs;
use berth_identity::AccessKey;
use parking_lot::Mutex;

use super::*;

const SECRET: &str = "arn:aws:secretsmanager:us-east-1:000000000000:secret:db-AbCdEf";

#[derive(Default)]
struct Table {
    values: BTreeMap<String, String>,
    keys: Mutex<Vec<String>>,
    calls: Mutex<usize>,
}

impl Table {
    fn of(values: &[(&str, &str)]) -> Self {
        Self { values: values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(), ..Self::default() }
    }

    fn get(&self, name: &str, key: &AccessKey) -> Result<String, SourceError> {
        self.keys.lock().push(key.id.clone());
        *self.calls.lock() += 1;
        self.values.get(name).cloned().ok_or_else(|| SourceError(format!("no {name}")))
    }
}

#[async_trait]
impl Sources for Table {
    fn own_key(&self) -> AccessKey {
        AccessKey::long_term("AGENT", "secret", "")
    }

    async fn parameters(&self, region: &str, names: &[String], key: &AccessKey) -> Result<BTreeMap<String, String>, SourceError> {
        assert!(names.len() <= 10);
        *self.calls.lock() += 1;
        self.keys.lock().push(key.id.clone());
        Ok(names.iter().filter_map(|name| Some((name.clone(), self.values.get(&format!("{region} {name}"))?.clone()))).collect())
    }

    async fn secret(&self, _: &str, secret: &SecretReference, key: &AccessKey) -> Result<String, SourceError> {
        self.get(&secret.id, key)
    }

    async fn object(&self, _: &str, object: &ObjectReference, key: &AccessKey) -> Result<Vec<u8>, SourceError> {
        self.get(&object.key, key).map(String::into_bytes)
    }

    fn has_registries(&self) -> bool {
        self.values.keys().any(|name| name.starts_with("ecr "))
    }

    async fn registry_login(&self, region: &str, account: &str, key: &AccessKey) -> Result<RegistryLogin, SourceError> {
        let password = self.get(&format!("ecr {region} {account}"), key)?;
        let credentials = RegistryCredentials { username: "AWS".to_owned(), password };
        Ok(RegistryLogin { host: "127.0.0.1:5000".to_owned(), credentials })
    }
}

fn secret(name: &str, provider: &str, value_from: &str) -> acs::Secret {
    acs::Secret {
        name: name.into(),
        provider: provider.into(),
        value_from: value_from.into(),
        kind: "ENVIRONMENT_VARIABLE".into(),
        ..Default::default()
    }
}

fn file(name: &str) -> acs::EnvironmentFile {
    acs::EnvironmentFile { value: format!("arn:aws:s3:::b/{name}"), kind: "s3".into() }
}

async fn fetch(container: &acs::Container, table: &Table) -> Result<Fetched, SourceError> {
    Wanted::of(container, "us-east-1")?.fetch(table).await
}

#[tokio::test]
async fn secrets_win_over_the_definition_and_the_definition_over_files() {
    let table = Table::of(&[
        ("first.env", "A=first\nB=first\nC=first\n"),
        ("second.env", "A=second\nD=second\n"),
        ("us-east-1 /app/token", "t"),
        ("eu-west-1 name", "elsewhere"),
        (SECRET, r#"{"password":"p"}"#),
    ]);
    let container = acs::Container {
        environment_files: vec![file("first.env"), file("second.env")],
        secrets: vec![
            secret("C", "asm", &format!("{SECRET}:password::")),
            secret("TOKEN", "ssm", "/app/token"),
            acs::Secret { region: "eu-west-1".into(), ..secret("REGIONAL", "ssm", "arn:aws:ssm:eu-west-1:000000000000:parameter/name") },
        ],
        ..Default::default()
    };
    let fetched = fetch(&container, &table).await.unwrap();
    let own = BTreeMap::from([("B".to_owned(), "own".to_owned()), ("C".to_owned(), "own".to_owned())]);
    let all = fetched.laid_around(&own);
    let expected = [("A", "first"), ("B", "own"), ("C", "p"), ("D", "second"), ("REGIONAL", "elsewhere"), ("TOKEN", "t")];
    assert_eq!(all, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    assert!(!format!("{fetched:?}").contains("first"), "values are not shown");
}

#[tokio::test]
async fn every_value_that_is_missing_is_named() {
    let container = acs::Container {
        environment_files: vec![file("none.env")],
        secrets: vec![secret("A", "asm", SECRET), secret("B", "ssm", "gone")],
        ..Default::default()
    };
    let SourceError(text) = fetch(&container, &Table::default()).await.unwrap_err();
    for part in ["none.env", SECRET, "SSM Parameter Store in us-east-1: invalid parameters: gone"] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn many_parameters_take_a_call_for_ten() {
    let names: Vec<String> = (0..25).map(|number| format!("p{number}")).collect();
    let values: Vec<(String, &str)> = names.iter().map(|name| (format!("us-east-1 {name}"), "v")).collect();
    let table = Table::of(&values.iter().map(|(name, value)| (name.as_str(), *value)).collect::<Vec<_>>());
    let secrets = names.iter().map(|name| secret(&name.to_uppercase(), "ssm", name)).collect();
    let wanted = Wanted::of(&acs::Container { secrets, ..Default::default() }, "us-east-1").unwrap();
    assert_eq!(wanted.fetch(&table).await.unwrap().secret_variables.len(), 25);
    assert_eq!(*table.calls.lock(), 3);
    assert!(table.keys.lock().iter().all(|id| id == "AGENT"));
}

#[tokio::test]
async fn a_registrys_login() {
    let login = acs::RegistryAuthentication {
        kind: "asm".into(),
        asm_auth_data: Some(acs::SecretsManagerAuth { credentials_parameter: "registry".into(), region: String::new() }),
        ..Default::default()
    };
    let container = acs::Container { registry_authentication: Some(login), ..Default::default() };
    let table = Table::of(&[("registry", r#"{"username":"u","password":"p"}"#)]);
    assert_eq!(fetch(&container, &table).await.unwrap().registry.unwrap().username, "u");
    assert!(fetch(&container, &Table::default()).await.is_err());
}

#[tokio::test]
async fn options_of_the_log_driver_are_apart_from_variables() {
    let option = |of: acs::Secret| acs::Secret { kind: "BOOTSTRAP".into(), target: "LOG_DRIVER".into(), ..of };
    let secrets =
        vec![secret("max-size", "ssm", "size"), option(secret("max-size", "asm", SECRET)), option(secret("max-file", "ssm", "size"))];
    let container = acs::Container { secrets, ..Default::default() };
    assert!(has_log_options(&container));
    let fetched = fetch(&container, &Table::of(&[("us-east-1 size", "7"), (SECRET, "1m")])).await.unwrap();
    assert_eq!(fetched.secret_variables, BTreeMap::from([("max-size".to_owned(), "7".to_owned())]));
    let wanted = [("max-file", "7"), ("max-size", "1m")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(fetched.log_options, BTreeMap::from(wanted));
    assert!(!format!("{fetched:?}").contains("1m"), "values are not shown");
    let plain = acs::Container { secrets: vec![secret("A", "ssm", "size")], ..Default::default() };
    assert!(!has_log_options(&plain));
}

#[test]
fn what_is_not_supported_is_named() {
    let wrong = [
        acs::Secret { kind: "MOUNT_POINT".into(), ..secret("A", "asm", SECRET) },
        acs::Secret { target: "FILE".into(), ..secret("A", "asm", SECRET) },
        secret("A", "vault", SECRET),
    ];
    for secret in wrong {
        let error = Wanted::of(&acs::Container { secrets: vec![secret], ..Default::default() }, "r").unwrap_err();
        assert!(error.0.contains("secret A") && error.0.contains("not supported"), "{error}");
    }
    assert!(Wanted::of(&acs::Container::default(), "r").unwrap().is_empty());
}

#[tokio::test]
async fn only_images_of_ecr_are_logged_in_for() {
    let table = Arc::new(Table::of(&[("ecr eu-west-1 123456789012", "token")]));
    let sources: Arc<dyn Sources> = table.clone();
    let image = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/app:1";
    let login = ecr_logins(&sources, image).unwrap().login().await.unwrap();
    assert_eq!((login.host.as_str(), login.credentials.password.as_str()), ("127.0.0.1:5000", "token"));
    assert_eq!(*table.keys.lock(), ["AGENT"]);
    let other = ecr_logins(&sources, &image.replace('9', "8")).unwrap().login().await.unwrap_err();
    assert_eq!(other, "unable to log in to the registry of account 123456788012: no ecr eu-west-1 123456788012");
    for elsewhere in ["app:1", "ghcr.io/a/b", "NONSENSE"] {
        assert!(ecr_logins(&sources, elsewhere).is_none(), "{elsewhere}");
    }
    let without: Arc<dyn Sources> = Arc::new(Table::default());
    assert!(ecr_logins(&without, image).is_none());
}
