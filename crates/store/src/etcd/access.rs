//! How etcd is entered: TLS with its certificates, user and password, and the token that etcd gives for those. The password is in
//! no text that this writes: neither `Debug` nor an error nor an address that is shown.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use http::uri::PathAndQuery;
use parking_lot::Mutex;
use prost::Message;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic_prost::ProstCodec;

use super::EtcdAddress;

/// etcd's authentication service.
const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";
/// What etcd says of a token that it does not know, or no longer: then it has done nothing, and a new one helps.
const STALE: [&str; 2] = ["etcdserver: invalid auth token", "etcdserver: revision of auth store is old"];

/// An etcd cluster and how it is entered: `etcd://[USER:PASSWORD@]HOST:PORT,HOST:PORT/PREFIX`, or over TLS
/// `etcds://...?ca=FILE[&cert=FILE&key=FILE]`. In user and password, what a URL has other uses for is written `%XX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdUrl {
    /// Its members, and the store's keys there.
    pub address: EtcdAddress,
    /// How they are entered.
    pub access: EtcdAccess,
}

/// What etcd wants to see of whoever enters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EtcdAccess {
    /// Who this is; nobody in particular where etcd has authentication switched off, or goes by certificates.
    pub user: Option<EtcdUser>,
    /// TLS; without it everything goes over the network as it is.
    pub tls: Option<EtcdTls>,
}

/// A user of etcd's.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdUser {
    /// The name.
    pub name: String,
    /// The password.
    pub password: String,
}

/// Certificates, as files in PEM. They are read at the start; changed ones count from the next start on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdTls {
    /// Whose certificates etcd's members must have.
    pub ca: PathBuf,
    /// This server's own certificate and its key, where etcd wants one (`--client-cert-auth`).
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Why a text is no URL of an etcd cluster. It does not repeat the text: a password may be in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not of the form etcd://[USER:PASSWORD@]HOST:PORT,HOST:PORT/PREFIX or etcds://...?ca=FILE[&cert=FILE&key=FILE]: {0}")]
pub struct UrlError(pub &'static str);

impl fmt::Debug for EtcdUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdUser").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Display for EtcdUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = self.address.to_string();
        let rest = plain.strip_prefix("etcd://").unwrap_or(&plain);
        let user = self.access.user.iter().map(|user| format!("{}@", user.name)).collect::<String>();
        write!(f, "{}://{user}{rest}", if self.access.tls.is_some() { "etcds" } else { "etcd" })
    }
}

impl FromStr for EtcdUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(UrlError("it has no ://"))?;
        let secured = match scheme {
            "etcd" => false,
            "etcds" => true,
            _ => return Err(UrlError("it begins with something else")),
        };
        let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
        let (authority, prefix) = place.split_once('/').unwrap_or((place, ""));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(user_of(user)?), hosts),
            None => (None, authority),
        };
        let address = format!("etcd://{hosts}/{prefix}").parse().map_err(|_| UrlError("hosts, ports or prefix are not legal"))?;
        let tls = match (secured, query) {
            (true, query) => Some(certificates(query.unwrap_or_default())?),
            (false, None) => None,
            (false, Some(_)) => return Err(UrlError("only etcds:// takes certificates")),
        };
        Ok(Self { address, access: EtcdAccess { user, tls } })
    }
}

fn user_of(text: &str) -> Result<EtcdUser, UrlError> {
    let (name, password) = text.split_once(':').ok_or(UrlError("before the @ there is no USER:PASSWORD"))?;
    let part = |text: &str| decoded(text).ok_or(UrlError("user or password have a % that is not one of %XX in UTF-8"));
    let user = EtcdUser { name: part(name)?, password: part(password)? };
    if user.name.is_empty() { Err(UrlError("the user has no name")) } else { Ok(user) }
}

fn certificates(query: &str) -> Result<EtcdTls, UrlError> {
    let (mut ca, mut cert, mut key) = (None, None, None);
    for (name, value) in query.split('&').filter(|part| !part.is_empty()).map(|part| part.split_once('=').unwrap_or((part, ""))) {
        let place = match name {
            "ca" => &mut ca,
            "cert" => &mut cert,
            "key" => &mut key,
            _ => return Err(UrlError("after the ? there is something else than ca, cert and key")),
        };
        let file = decoded(value).filter(|file| !file.is_empty()).ok_or(UrlError("ca, cert and key each need the name of a file"))?;
        *place = Some(PathBuf::from(file));
    }
    let ca = ca.ok_or(UrlError("etcds:// needs ca=FILE, the certificate of the authority that signed those of etcd's members"))?;
    let identity = match (cert, key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => return Err(UrlError("cert and key go together")),
    };
    Ok(EtcdTls { ca, identity })
}

/// `%XX` as the bytes they stand for (RFC 3986, 2.1).
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        if *first == b'%' {
            let (digits, after) = others.split_at_checked(2)?;
            let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after;
        } else {
            bytes.push(*first);
            rest = others;
        }
    }
    String::from_utf8(bytes).ok()
}

impl EtcdAccess {
    /// Where members are, by the way that leads to them.
    pub(super) fn endpoints(&self, members: &[String]) -> Result<Vec<Endpoint>, String> {
        let tls = self.tls.as_ref().map(EtcdTls::config).transpose()?;
        let endpoint = |member: &String| {
            let failed = |error: tonic::transport::Error| format!("{member}: {error}");
            let Some(tls) = &tls else { return Endpoint::from_shared(format!("http://{member}")).map_err(failed) };
            let host = member.rsplit_once(':').map_or(member.as_str(), |(host, _)| host);
            // A certificate has an address without the brackets that a URL needs.
            let tls = tls.clone().domain_name(host.trim_start_matches('[').trim_end_matches(']'));
            Endpoint::from_shared(format!("https://{member}")).and_then(|endpoint| endpoint.tls_config(tls)).map_err(failed)
        };
        members.iter().map(endpoint).collect()
    }
}

impl EtcdTls {
    fn config(&self) -> Result<ClientTlsConfig, String> {
        let read = |file: &Path| std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()));
        let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(&self.ca)?));
        if let Some((cert, key)) = &self.identity {
            config = config.identity(Identity::from_pem(read(cert)?, read(key)?));
        }
        Ok(config)
    }
}

#[derive(Clone, PartialEq, Message)]
struct AuthenticateRequest {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    password: String,
}

#[derive(Clone, PartialEq, Message)]
struct AuthenticateResponse {
    #[prost(string, tag = "2")]
    token: String,
}

/// The token that calls carry; asked for when there is none, once for all that wait for it.
#[derive(Debug)]
pub(super) struct Pass {
    user: Option<EtcdUser>,
    token: Mutex<Option<MetadataValue<Ascii>>>,
    asking: tokio::sync::Mutex<()>,
}

impl Pass {
    pub(super) fn new(user: Option<EtcdUser>) -> Self {
        Self { user, token: Mutex::new(None), asking: tokio::sync::Mutex::new(()) }
    }

    /// Puts the token to a call's other words, if etcd knows who this is.
    pub(super) async fn show(&self, channel: &Channel, metadata: &mut MetadataMap) -> Result<(), tonic::Status> {
        let Some(user) = &self.user else { return Ok(()) };
        let known = || self.token.lock().clone();
        let token = match known() {
            Some(token) => token,
            None => {
                let _only = self.asking.lock().await;
                match known() {
                    Some(token) => token,
                    None => self.ask(user, channel).await?,
                }
            }
        };
        metadata.insert("token", token);
        Ok(())
    }

    async fn ask(&self, user: &EtcdUser, channel: &Channel) -> Result<MetadataValue<Ascii>, tonic::Status> {
        let mut client = tonic::client::Grpc::new(channel.clone());
        client.ready().await.map_err(|error| tonic::Status::from_error(Box::new(error)))?;
        let request = AuthenticateRequest { name: user.name.clone(), password: user.password.clone() };
        let codec = ProstCodec::<AuthenticateRequest, AuthenticateResponse>::default();
        let answer = client.unary(Request::new(request), PathAndQuery::from_static(AUTHENTICATE), codec).await?;
        let token = MetadataValue::try_from(answer.into_inner().token);
        let mut token = token.map_err(|_| tonic::Status::internal("etcd gave a token that no header can carry"))?;
        token.set_sensitive(true);
        *self.token.lock() = Some(token.clone());
        Ok(token)
    }

    /// The next call asks for a new token.
    pub(super) fn forget(&self) {
        *self.token.lock() = None;
    }

    /// Is this what etcd says of a token that another one would do instead of?
    pub(super) fn is_stale(message: &str) -> bool {
        STALE.contains(&message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let plain: EtcdUrl = "etcd://a:1,b:2/cell".parse().unwrap();
        assert_eq!((plain.address.endpoints.len(), plain.address.prefix.as_str(), &plain.access), (2, "/cell/", &EtcdAccess::default()));
        let url: EtcdUrl = "etcds://be%40rth:p%2Fw%3f:x@a:1,[::1]:2/cell?ca=/tmp/a%20b.pem&cert=c.pem&key=k.pem".parse().unwrap();
        let user = EtcdUser { name: "be@rth".to_owned(), password: "p/w?:x".to_owned() };
        assert_eq!(url.access.user, Some(user));
        let identity = Some((PathBuf::from("c.pem"), PathBuf::from("k.pem")));
        assert_eq!(url.access.tls, Some(EtcdTls { ca: PathBuf::from("/tmp/a b.pem"), identity }));
        assert_eq!(url.to_string(), "etcds://be@rth@a:1,[::1]:2/cell");
    }

    #[test]
    fn what_is_wrong_is_said_without_the_text() {
        for (wrong, word) in [
            ("sqlite", "://"),
            ("http://u:hunter2@a:1", "something else"),
            ("etcd://u:hunter2@a", "hosts"),
            ("etcd://hunter2@a:1", "USER:PASSWORD"),
            ("etcd://u:hunter2%4@a:1", "%XX"),
            ("etcd://:hunter2@a:1", "no name"),
            ("etcd://u:hunter2@a:1?ca=x", "only etcds"),
            ("etcds://u:hunter2@a:1", "ca=FILE"),
            ("etcds://u:hunter2@a:1?ca=x&cert=y", "together"),
            ("etcds://u:hunter2@a:1?ca=x&password=hunter2", "something else"),
            ("etcds://u:hunter2@a:1?ca=", "file"),
        ] {
            let error = wrong.parse::<EtcdUrl>().unwrap_err().to_string();
            assert!(error.contains(word) && !error.contains("hunter2"), "{wrong}: {error}");
        }
        let url: EtcdUrl = "etcd://u:hunter2@a:1".parse().unwrap();
        assert!(!format!("{url} {url:?}").contains("hunter2"));
    }
}
