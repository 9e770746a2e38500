//! Logins to Amazon ECR: where an image is on one of its hosts, and somebody who speaks as ECR does was named.
//! <https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_GetAuthorizationToken.html>

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use berth_identity::AccessKey;
use berth_runtime::images::reference::{Reference, ecr_host};
use berth_runtime::port::{RegistryCredentials, RegistryLogin, RegistryLogins};
use serde_json::Value;

use super::{SourceError, Sources};
use crate::engine::Millis;

/// A login that ends sooner is not used any more: a pull may take its time. Tokens live for twelve hours.
pub(super) const LEAST_LEFT: Millis = 15 * 60 * 1000;

/// The login for an image; made only if it is asked for.
struct EcrLogins {
    sources: Arc<dyn Sources>,
    account: String,
    region: String,
    key: AccessKey,
}

#[async_trait]
impl RegistryLogins for EcrLogins {
    async fn login(&self) -> Result<RegistryLogin, String> {
        let login = self.sources.registry_login(&self.region, &self.account, &self.key).await;
        login.map_err(|SourceError(problem)| format!("unable to log in to the registry of account {}: {problem}", self.account))
    }
}

/// How to log in to the registry of `image`, if that is ECR and somebody was named who gives its tokens.
#[must_use]
pub fn ecr_logins(sources: &Arc<dyn Sources>, image: &str) -> Option<Arc<dyn RegistryLogins>> {
    let reference = Reference::parse(image).ok()?;
    let (account, region) = ecr_host(reference.host.as_deref()?)?;
    sources.has_registries().then(|| {
        let key = sources.own_key();
        let (account, region) = (account.to_owned(), region.to_owned());
        Arc::new(EcrLogins { sources: Arc::clone(sources), account, region, key }) as Arc<dyn RegistryLogins>
    })
}

/// What GetAuthorizationToken answered: the login, and until when it is good.
pub(super) fn parse(answer: &Value) -> Result<(RegistryLogin, Millis), SourceError> {
    let data = &answer["authorizationData"][0];
    let missing = |what: &str| SourceError(format!("GetAuthorizationToken gives no {what}"));
    let token = data["authorizationToken"].as_str().ok_or_else(|| missing("authorizationToken"))?;
    let token = STANDARD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let token = token.ok_or_else(|| missing("authorizationToken in base64"))?;
    let (username, password) = token.split_once(':').ok_or_else(|| missing("user and password in its authorizationToken"))?;
    let endpoint = data["proxyEndpoint"].as_str().ok_or_else(|| missing("proxyEndpoint"))?;
    let host = endpoint.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/').to_owned();
    let expires_at = data["expiresAt"].as_f64().ok_or_else(|| missing("expiresAt"))?;
    let credentials = RegistryCredentials { username: username.to_owned(), password: password.to_owned() };
    Ok((RegistryLogin { host, credentials }, (expires_at * 1000.0) as Millis))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_as_aws_documents_it() {
        let token = STANDARD.encode("AWS:eyJ:x");
        let data = json!({
            "authorizationToken": token, "expiresAt": 1_448_878_779.809, "proxyEndpoint": "https://012345678910.dkr.ecr.us-east-1.amazonaws.com",
        });
        let (login, expires_at) = parse(&json!({"authorizationData": [data]})).unwrap();
        assert_eq!((login.host.as_str(), expires_at), ("012345678910.dkr.ecr.us-east-1.amazonaws.com", 1_448_878_779_809));
        assert_eq!((login.credentials.username.as_str(), login.credentials.password.as_str()), ("AWS", "eyJ:x"));
        for (member, value) in [("authorizationToken", json!("!")), ("proxyEndpoint", json!(null)), ("expiresAt", json!("soon"))] {
            let mut bad = data.clone();
            bad[member] = value;
            let SourceError(problem) = parse(&json!({"authorizationData": [bad]})).unwrap_err();
            assert!(problem.contains(member), "{problem}");
        }
    }
}
