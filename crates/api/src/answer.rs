//! What an action hands back, as a body: most a shape that is rendered here, lists of tasks written already.

use berth_shapes::ecs::ErrorCode;
use bytes::Bytes;
use serde::Serialize;

use crate::failure::Failure;

/// What becomes the body of an answer.
pub(crate) trait Answer {
    /// The body: JSON.
    fn into_body(self) -> Result<Bytes, Failure>;
}

impl<T: Serialize> Answer for T {
    fn into_body(self) -> Result<Bytes, Failure> {
        serde_json::to_vec(&self).map(Bytes::from).map_err(|error| unwritable(&error))
    }
}

/// An answer that cannot be JSON. Those that there are all can.
pub(crate) fn unwritable(error: &serde_json::Error) -> Failure {
    Failure::modelled(ErrorCode::Server, format!("the answer cannot be rendered: {error}"))
}

/// An answer that its action wrote from the state, without a shape in between.
pub(crate) struct Written(pub(crate) Bytes);

impl Answer for Written {
    fn into_body(self) -> Result<Bytes, Failure> {
        Ok(self.0)
    }
}
