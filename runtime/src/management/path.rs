//! Ids in paths.

use axum::extract::{FromRequestParts, Path};
use http::request::Parts;
use uuid::Uuid;

use super::query::parse_uuid;
use crate::http::envelope::ApiError;

/// The `{id}` of the path. Anything but a UUID, in any encoding, is a 400 that names it.
#[derive(Debug)]
pub(super) struct PathId(pub(super) Uuid);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let id = Path::<String>::from_request_parts(parts, state).await.ok();
        let id = id.and_then(|Path(text)| parse_uuid(&text));
        id.map(Self).ok_or_else(|| ApiError::invalid("id", "must be a UUID"))
    }
}
