//! The protocols that AWS's services speak, behind one door: where a request says what it asks for, and how answers and refusals are written.
//! What is common to all requests, whichever they are spoken in, is the edge's.

use std::future::Future;

use berth_identity::{AuthError, Identity};
use bytes::Bytes;
use http::request::Parts;

use crate::context::Api;
use crate::failure::Failure;

/// A protocol. A type that has this needs one more line in the edge, where protocols are told apart.
pub(crate) trait Protocol {
    /// What a request's head says of what it asks for.
    type Head: Copy + Send;
    /// What a request asks for.
    type Asked: Send;
    /// `Content-Type` of answers.
    const CONTENT_TYPE: &'static str;

    /// Is a request in this protocol?
    fn speaks(head: &Parts) -> bool;

    /// What the head says, with the operation's name in logs and metrics where it stands there; else that is empty.
    ///
    /// # Errors
    /// [`Failure`], which is told once the body was read: a client that is still sending may not look at an answer.
    fn head(head: &Parts) -> Result<(Self::Head, &'static str), Failure>;

    /// Reads a request that is let in, as far as it takes to know the operation, whose name it gives.
    ///
    /// # Errors
    /// [`Failure`] in the protocol's own code.
    fn read(head: Self::Head, body: Bytes) -> Result<(Self::Asked, &'static str), Failure>;

    /// Refuses a request that whoever signed it may not make.
    ///
    /// # Errors
    /// [`Failure`] in the protocol's own code.
    fn authorize(api: &Api, identity: &Identity, asked: &Self::Asked) -> Result<(), Failure>;

    /// Refuses a request that comes too soon after others.
    ///
    /// # Errors
    /// [`Failure`].
    fn admit(api: &Api, asked: &Self::Asked) -> Result<(), Failure>;

    /// Does what is asked.
    ///
    /// # Errors
    /// [`Failure`] in any protocol's code.
    fn answer(api: &Api, asked: Self::Asked, id: &str) -> impl Future<Output = Result<Bytes, Failure>> + Send;

    /// A refusal in this protocol's code and status.
    fn refusal(failure: Failure) -> Failure;

    /// Why a request is not let in.
    fn unauthenticated(error: AuthError) -> Failure;

    /// The body of an error's answer, and what is said of the error in the header `x-amzn-errortype`.
    fn render_failure(failure: &Failure, id: &str) -> (Bytes, Option<&'static str>);
}
