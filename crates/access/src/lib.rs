//! Who asks, and what they may do, as the API server of a cluster answers it.
//!
//! [`Authenticator`] turns a token into a [`User`] (TokenReview), [`Authorizer`] says whether a user has a [`Right`]
//! (SubjectAccessReview). Answers are kept for a short time under keyed hashes, so that neither a token nor a user's name is kept
//! as a key. While the API server cannot be reached, what it allowed in the last minutes stays allowed, and nothing else is
//! decided: an [`Unavailable`] is never a refusal.
//!
//! The rights themselves, and what needs which, are the caller's. Nothing here reads or changes objects of the cluster.

mod user;
mod right;
mod api_server;
mod digest;
mod answers;
mod review_rate;
mod authentication;
mod authorization;

pub use api_server::{ApiServer, ConnectError, Unavailable};
pub use authentication::{Authenticator, Refusal};
pub use authorization::{Authorizer, Namespaces};
pub use right::{Place, Right};
pub use user::User;
