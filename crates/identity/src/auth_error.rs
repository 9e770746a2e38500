//! Why a request was not let in, with the codes and sentences AWS answers, so that SDKs recognise them and retry or
//! complain as they would against AWS. It must never carry a secret or a signature.

use crate::sigv4::amz_date;

/// The reasons for refusing a request. `Display` is the message AWS sends; [`AuthError::code`] the error code of the JSON
/// protocols, [`AuthError::query_code`] that of the Query and REST-XML protocols.
///
/// Source: "Common Error Types" and "Troubleshoot AWS Signature Version 4" in AWS's general reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// Neither an `Authorization` header nor `X-Amz-*` query parameters.
    #[error("Missing Authentication Token")]
    MissingAuthenticationToken,
    /// The signature's parts are not all there, or one cannot be read.
    #[error("{message}")]
    IncompleteSignature {
        /// AWS's sentence for the part at fault.
        message: String,
    },
    /// The signature was made for another day, region, service or terminator than the ones it arrived at.
    #[error("{message}")]
    WrongScope {
        /// AWS's sentence for the part at fault.
        message: String,
    },
    /// The `host` header is not among the signed ones, so the request could have been meant for somebody else.
    #[error("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")]
    HostNotSigned,
    /// The signature is not the one that this secret gives for this request.
    #[error(
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing \
         method. Consult the service documentation for details."
    )]
    SignatureMismatch,
    /// Signed too long ago. All values in Unix seconds.
    #[error("{}", expired_text(*.signed_at, *.now, *.window))]
    SignatureExpired {
        /// When the request says it was signed.
        signed_at: i64,
        /// When it was checked.
        now: i64,
        /// Seconds for which it was good.
        window: i64,
    },
    /// Signed in the future. All values in Unix seconds.
    #[error("{}", not_yet_current_text(*.signed_at, *.now, *.window))]
    SignatureNotYetCurrent {
        /// When the request says it was signed.
        signed_at: i64,
        /// When it was checked.
        now: i64,
        /// Seconds by which a clock may be ahead.
        window: i64,
    },
    /// No such access key, or the session token is not that key's.
    #[error("The security token included in the request is invalid.")]
    UnrecognizedClient,
    /// The temporary credentials have run out.
    #[error("The security token included in the request is expired")]
    ExpiredToken,
}

impl AuthError {
    /// The error code for the JSON and CBOR protocols (`__type`).
    pub fn code(&self) -> &'static str {
        match self {
            Self::MissingAuthenticationToken => "MissingAuthenticationTokenException",
            Self::IncompleteSignature { .. } => "IncompleteSignatureException",
            Self::WrongScope { .. }
            | Self::HostNotSigned
            | Self::SignatureMismatch
            | Self::SignatureExpired { .. }
            | Self::SignatureNotYetCurrent { .. } => "InvalidSignatureException",
            Self::UnrecognizedClient => "UnrecognizedClientException",
            Self::ExpiredToken => "ExpiredTokenException",
        }
    }

    /// The HTTP status for the JSON and CBOR protocols: always 400, as ECS answers.
    pub fn http_status(&self) -> u16 {
        400
    }

    /// The error code for the Query and REST-XML protocols (`<Code>`), as IAM, STS and Elastic Load Balancing answer.
    pub fn query_code(&self) -> &'static str {
        match self {
            Self::MissingAuthenticationToken => "MissingAuthenticationToken",
            Self::IncompleteSignature { .. } => "IncompleteSignature",
            Self::WrongScope { .. }
            | Self::HostNotSigned
            | Self::SignatureMismatch
            | Self::SignatureExpired { .. }
            | Self::SignatureNotYetCurrent { .. } => "SignatureDoesNotMatch",
            Self::UnrecognizedClient => "InvalidClientTokenId",
            Self::ExpiredToken => "ExpiredToken",
        }
    }

    /// The HTTP status for the Query and REST-XML protocols.
    pub fn query_http_status(&self) -> u16 {
        match self {
            Self::IncompleteSignature { .. } => 400,
            _ => 403,
        }
    }
}

fn expired_text(signed_at: i64, now: i64, window: i64) -> String {
    format!(
        "Signature expired: {} is now earlier than {} ({} - {})",
        amz_date::render(signed_at),
        amz_date::render(now - window),
        amz_date::render(now),
        window_text(window)
    )
}

fn not_yet_current_text(signed_at: i64, now: i64, window: i64) -> String {
    format!(
        "Signature not yet current: {} is still later than {} ({} + {})",
        amz_date::render(signed_at),
        amz_date::render(now + window),
        amz_date::render(now),
        window_text(window)
    )
}

fn window_text(seconds: i64) -> String {
    if seconds % 60 == 0 { format!("{} min.", seconds / 60) } else { format!("{seconds} sec.") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skew_texts_are_awss() {
        let now = amz_date::parse("20261121T040500Z").unwrap();
        let signed_at = amz_date::parse("20261121T035500Z").unwrap();
        assert_eq!(
            AuthError::SignatureExpired { signed_at, now, window: 300 }.to_string(),
            "Signature expired: 20261121T035500Z is now earlier than 20261121T040000Z (20261121T040500Z - 5 min.)"
        );
        assert_eq!(
            AuthError::SignatureNotYetCurrent { signed_at: now, now: signed_at, window: 300 }.to_string(),
            "Signature not yet current: 20261121T040500Z is still later than 20261121T040000Z (20261121T035500Z + 5 min.)"
        );
    }

    #[test]
    fn every_json_code_is_an_exception_with_400() {
        for error in [
            AuthError::MissingAuthenticationToken,
            AuthError::HostNotSigned,
            AuthError::SignatureMismatch,
            AuthError::UnrecognizedClient,
            AuthError::ExpiredToken,
        ] {
            assert!(error.code().ends_with("Exception"), "{error:?}");
            assert_eq!(error.http_status(), 400);
            assert!(!error.query_code().ends_with("Exception"), "{error:?}");
        }
    }
}
