//! Cloud Map's errors. Their text stands in `Message`, as its model has it, and in `message`, where most clients look first.

use berth_shapes::protocol::cbor;
use berth_shapes::servicediscovery::ErrorCode;

use crate::failure::Failure;

/// An exception out of Cloud Map's model.
pub(super) fn failure(code: ErrorCode, message: impl Into<String>) -> Failure {
    let message = message.into();
    Failure::common(code.name(), code.http_status(), message.clone()).with("Message", message.into())
}

/// `InvalidInput`.
pub(super) fn invalid(message: impl Into<String>) -> Failure {
    failure(ErrorCode::InvalidInput, message)
}

/// What the edge's common parts refuse in ECS's words, in Cloud Map's.
pub(super) fn in_cloud_maps_words(refusal: Failure) -> Failure {
    match refusal.code {
        "InvalidParameterException" => invalid(refusal.message),
        "ThrottlingException" => failure(ErrorCode::RequestLimitExceeded, refusal.message),
        _ => refusal,
    }
}

/// What is said to a client that speaks Smithy's RPC v2 CBOR to Cloud Map, in CBOR so that it can read it.
pub(crate) fn no_cbor() -> (&'static str, Vec<u8>) {
    const CODE: &str = "UnknownOperationException";
    const TEXT: &str = "Berth serves AWS Cloud Map over AWS JSON 1.1, and not over Smithy RPC v2 CBOR: configure the client for JSON.";
    (CODE, cbor::render_error(CODE, TEXT))
}
