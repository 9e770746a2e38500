//! The error answers of the OCI distribution specification ("Error codes"): a code, a status and a JSON body that
//! clients branch on. It never carries a path of this machine to a client.

use std::io;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use http::{Response, StatusCode};

use crate::body::{ResponseBody, full};

/// The codes of the specification's table, and three as CNCF Distribution spells them: `UNKNOWN` for a failure of the
/// registry's own, `RANGE_INVALID` and `PAGINATION_NUMBER_INVALID`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the wire code of the same name")]
pub enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    PaginationNumberInvalid,
    RangeInvalid,
    SizeInvalid,
    TagInvalid,
    Unauthorized,
    Denied,
    Unsupported,
    TooManyRequests,
    Unknown,
}

impl Code {
    /// The code as it stands in the answer.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::BlobUnknown => "BLOB_UNKNOWN",
            Code::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Code::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Code::DigestInvalid => "DIGEST_INVALID",
            Code::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Code::ManifestInvalid => "MANIFEST_INVALID",
            Code::ManifestUnknown => "MANIFEST_UNKNOWN",
            Code::NameInvalid => "NAME_INVALID",
            Code::NameUnknown => "NAME_UNKNOWN",
            Code::PaginationNumberInvalid => "PAGINATION_NUMBER_INVALID",
            Code::RangeInvalid => "RANGE_INVALID",
            Code::SizeInvalid => "SIZE_INVALID",
            Code::TagInvalid => "TAG_INVALID",
            Code::Unauthorized => "UNAUTHORIZED",
            Code::Denied => "DENIED",
            Code::Unsupported => "UNSUPPORTED",
            Code::TooManyRequests => "TOOMANYREQUESTS",
            Code::Unknown => "UNKNOWN",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Code::BlobUnknown | Code::BlobUploadUnknown | Code::ManifestUnknown | Code::NameUnknown => StatusCode::NOT_FOUND,
            Code::BlobUploadInvalid
            | Code::DigestInvalid
            | Code::ManifestBlobUnknown
            | Code::ManifestInvalid
            | Code::NameInvalid
            | Code::PaginationNumberInvalid
            | Code::TagInvalid => StatusCode::BAD_REQUEST,
            Code::RangeInvalid => StatusCode::RANGE_NOT_SATISFIABLE,
            Code::SizeInvalid => StatusCode::PAYLOAD_TOO_LARGE,
            Code::Unauthorized => StatusCode::UNAUTHORIZED,
            Code::Denied => StatusCode::FORBIDDEN,
            Code::Unsupported => StatusCode::METHOD_NOT_ALLOWED,
            Code::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Code::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// One refusal on its way to the client.
#[derive(Debug, thiserror::Error)]
#[error("{}: {message}", code.as_str())]
pub struct Failure {
    code: Code,
    status: StatusCode,
    message: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Failure {
    /// A refusal with the code's usual status.
    pub fn new(code: Code, message: impl Into<String>) -> Failure {
        Failure { code, status: code.status(), message: message.into(), headers: Vec::new() }
    }

    /// The code it carries.
    pub fn code(&self) -> Code {
        self.code
    }

    pub(crate) fn with_status(mut self, status: StatusCode) -> Failure {
        self.status = status;
        self
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Failure {
        self.headers.push((name, value));
        self
    }

    /// A failure of the disk below: the cause goes to the log, the client only learns whether it was full.
    pub(crate) fn storage(step: &'static str, cause: &io::Error) -> Failure {
        tracing::error!(step, error = %cause, "registry storage failed");
        match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Failure::new(Code::Unknown, "the registry's disk is full").with_status(StatusCode::INSUFFICIENT_STORAGE)
            }
            _ => Failure::new(Code::Unknown, format!("the registry's storage failed: {step}")),
        }
    }

    /// The answer: status, headers and the specification's JSON body.
    pub fn into_response(self) -> Response<ResponseBody> {
        let body = serde_json::json!({
            "errors": [{ "code": self.code.as_str(), "message": self.message, "detail": null }]
        })
        .to_string();
        let mut response = Response::new(full(body.clone()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        headers.extend(self.headers);
        response
    }
}

/// The 401 answer for a request without valid credentials. Who asks is the caller's business (the api crate checks
/// Basic and Bearer before it calls the registry), how the refusal looks is the protocol's.
pub fn unauthorized() -> Response<ResponseBody> {
    let mut response = Failure::new(Code::Unauthorized, "authentication required")
        .with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"berth\""))
        .into_response();
    crate::mark_version(&mut response);
    response
}
