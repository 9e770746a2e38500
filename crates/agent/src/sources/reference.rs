//! How task definitions name what is kept elsewhere: ARNs of secrets, parameters and objects, and what of a secret is meant.

use berth_runtime::port::RegistryCredentials;

use super::SourceError;

/// A secret, and what of it is wanted: `arn:..:secret:NAME-XXXXXX[:json-key:version-stage:version-id]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SecretReference {
    /// ARN or name, without the parts that follow it.
    pub id: String,
    /// Of a secret that is a JSON object: this member of it.
    pub json_key: Option<String>,
    /// `AWSCURRENT` if none.
    pub version_stage: Option<String>,
    /// A certain version.
    pub version_id: Option<String>,
}

impl SecretReference {
    /// Parses a secret's `valueFrom`.
    ///
    /// # Errors
    /// [`SourceError`] in the official agent's words.
    pub fn parse(value_from: &str) -> Result<Self, SourceError> {
        let invalid = || {
            SourceError(format!(
                "trying to retrieve secret with value {value_from} resulted in error: an invalid ARN format for the AWS Secrets Manager \
                 secret was specified. Specify a valid ARN and try again."
            ))
        };
        let parts: Vec<&str> = value_from.split(':').collect();
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        match parts[..] {
            ["arn", _, "secretsmanager", _, _, "secret", _] => Ok(Self::parse_id(value_from)),
            ["arn", _, "secretsmanager", _, _, "secret", _, json_key, version_stage, version_id] => Ok(Self {
                id: parts[..7].join(":"),
                json_key: given(json_key),
                version_stage: given(version_stage),
                version_id: given(version_id),
            }),
            _ => Err(invalid()),
        }
    }

    /// A secret as a whole, by ARN or name.
    #[must_use]
    pub fn parse_id(id: &str) -> Self {
        Self { id: id.to_owned(), ..Self::default() }
    }

    /// What of the secret's text is wanted.
    ///
    /// # Errors
    /// [`SourceError`] if a member of a JSON object is wanted and there is none.
    pub fn pick(&self, text: &str) -> Result<String, SourceError> {
        let Some(key) = &self.json_key else { return Ok(text.to_owned()) };
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text)
            .map_err(|_| SourceError(format!("secret {}: it is no JSON object, and its member {key} is wanted", self.id)))?;
        match object.get(key) {
            Some(serde_json::Value::String(value)) => Ok(value.clone()),
            Some(other) => Ok(other.to_string()),
            None => Err(SourceError(format!("secret {}: retrieved secret from Secrets Manager did not contain json key {key}", self.id))),
        }
    }
}

/// An object in S3, `arn:..:s3:::BUCKET/KEY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectReference {
    /// The bucket's name.
    pub bucket: String,
    /// The object's key.
    pub key: String,
}

impl ObjectReference {
    /// Parses an object's ARN.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn parse(arn: &str) -> Result<Self, SourceError> {
        let place = arn.strip_prefix("arn:").and_then(|rest| rest.split_once(":s3:::")).map(|(_, place)| place);
        Self::of_path(place.unwrap_or_default())
            .ok_or_else(|| SourceError(format!("unable to parse bucket and key from s3 ARN specified in environmentFile {arn}")))
    }

    /// Parses `s3://BUCKET/KEY`.
    #[must_use]
    pub fn parse_url(url: &str) -> Option<Self> {
        Self::of_path(url.strip_prefix("s3://")?)
    }

    fn of_path(place: &str) -> Option<Self> {
        let (bucket, key) = place.split_once('/').filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty())?;
        Some(Self { bucket: bucket.to_owned(), key: key.to_owned() })
    }
}

/// A parameter's name out of a `valueFrom`, which is a name or `arn:..:parameter/NAME`. A path keeps its leading slash.
pub(super) fn parameter_name(value_from: &str) -> String {
    let name = value_from.strip_prefix("arn:").and_then(|rest| rest.split_once(":parameter")).map(|(_, name)| name);
    match name {
        // `parameter/name` is the parameter `name`; `parameter/a/b` is `/a/b`.
        Some(path) if path[1.min(path.len())..].contains('/') => path.to_owned(),
        Some(path) => path.trim_start_matches('/').to_owned(),
        None => value_from.to_owned(),
    }
}

/// A registry's login out of a secret like `{"username": "..", "password": ".."}`.
pub(super) fn login(text: &str) -> Result<RegistryCredentials, SourceError> {
    let fail = |what: &str| SourceError(format!("asm fetching {what}"));
    let secret: serde_json::Value =
        serde_json::from_str(text).map_err(|_| fail("authorization data: unable to unmarshal secret value, invalid schema"))?;
    let member = |name: &str| {
        let value = secret[name].as_str().filter(|value| !value.is_empty()).map(str::to_owned);
        value.ok_or_else(|| fail(&format!("{name}: AuthorizationData is malformed, empty field")))
    };
    Ok(RegistryCredentials { username: member("username")?, password: member("password")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:secretsmanager:us-east-1:000000000000:secret:db-AbCdEf";

    #[test]
    fn secrets() {
        assert_eq!(SecretReference::parse(ARN), Ok(SecretReference::parse_id(ARN)));
        let parsed = SecretReference::parse(&format!("{ARN}:password::v1")).unwrap();
        let expected =
            SecretReference { id: ARN.into(), json_key: Some("password".into()), version_stage: None, version_id: Some("v1".into()) };
        assert_eq!(parsed, expected);
        for wrong in ["db", "arn:aws:s3:::b/k", &format!("{ARN}:key"), &format!("{ARN}:a:b:c:d")] {
            assert!(SecretReference::parse(wrong).unwrap_err().0.contains("invalid ARN format"), "{wrong}");
        }
        let text = r#"{"password":"p","port":5432}"#;
        assert_eq!(parsed.pick(text).unwrap(), "p");
        let member = |key: &str| SecretReference { json_key: Some(key.into()), ..expected.clone() };
        assert_eq!(member("port").pick(text).unwrap(), "5432");
        assert!(member("user").pick(text).unwrap_err().0.contains("did not contain json key user"));
        assert!(member("user").pick("plain").unwrap_err().0.contains("no JSON object"));
        assert_eq!(SecretReference::parse_id("x").pick("plain").unwrap(), "plain");
    }

    #[test]
    fn parameters() {
        for (value_from, name) in [
            ("name", "name"),
            ("/a/b", "/a/b"),
            ("arn:aws:ssm:us-east-1:000000000000:parameter/name", "name"),
            ("arn:aws:ssm:us-east-1:000000000000:parameter/a/b", "/a/b"),
        ] {
            assert_eq!(parameter_name(value_from), name, "{value_from}");
        }
    }

    #[test]
    fn objects() {
        let object = ObjectReference { bucket: "b".into(), key: "dir/app.env".into() };
        assert_eq!(ObjectReference::parse("arn:aws:s3:::b/dir/app.env"), Ok(object.clone()));
        assert_eq!(ObjectReference::parse_url("s3://b/dir/app.env"), Some(object));
        for wrong in ["arn:aws:s3:::b", "arn:aws:s3:::/k", "s3://b/k", ""] {
            assert!(ObjectReference::parse(wrong).unwrap_err().0.ends_with(wrong), "{wrong}");
        }
    }

    #[test]
    fn logins() {
        let text = r#"{"username":"u","password":"p"}"#;
        assert_eq!(login(text).unwrap(), RegistryCredentials { username: "u".into(), password: "p".into() });
        assert!(login("{}").unwrap_err().0.contains("username"));
        assert!(login(r#"{"username":"u","password":""}"#).unwrap_err().0.contains("password"));
        assert!(login("u:p").unwrap_err().0.contains("invalid schema"));
    }
}
