//! Answers made from what the store returns.

use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::cursor::{self, ListOrder};
use super::model::InvalidJson;
use super::query::MAX_PAGE_SIZE;
use crate::http::RETRY_AFTER_SECONDS;
use crate::http::envelope::{ApiError, ErrorCode, success, success_with_meta};
use grapnel_core::error_chain::chain;
use grapnel_store::views::{Page, TOTAL_CAP};

/// `meta` of a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListMeta {
    /// The number of the page; behind a cursor it counts on from where the cursors began.
    #[schema(minimum = 1)]
    page: u32,
    #[schema(minimum = 1, maximum = 100)]
    page_size: u32,
    /// Items of the whole list, exact up to 10,000.
    #[schema(minimum = 0, maximum = 10_000)]
    total: u32,
    /// Pages of that total.
    #[schema(minimum = 0)]
    total_pages: u32,
    /// The `cursor` of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_cursor: Option<String>,
    /// True when there are more than `total` items, else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    total_is_capped: Option<bool>,
}

// The numbers of the schema above.
const _: () = assert!(MAX_PAGE_SIZE == 100 && TOTAL_CAP == 10_000);

/// Returns a 200 with the page of a list in this order, each row rendered by `view`.
pub(super) fn list<R, V: Serialize>(
    page: Page<R>,
    order: ListOrder,
    view: impl Fn(R) -> Result<V, InvalidJson>,
) -> Result<Response, ApiError> {
    let next = page.next.map(|position| cursor::encode(order, position, page.number.saturating_add(1)));
    let meta = ListMeta {
        page: page.number.get(),
        page_size: page.size,
        total: page.total.count,
        total_pages: page.total.count.div_ceil(page.size),
        next_cursor: next,
        total_is_capped: page.total.is_capped.then_some(true),
    };
    let items = page.items.into_iter().map(view).collect::<Result<Vec<_>, _>>()?;
    Ok(success_with_meta(StatusCode::OK, &items, &meta))
}

/// Returns a 200 with the item, or the 404 of its kind.
pub(super) fn item<V: Serialize>(item: Option<V>, kind: &str) -> Result<Response, ApiError> {
    item.map(|item| success(StatusCode::OK, &item)).ok_or_else(|| not_found(kind))
}

/// The 404 of an id that no item of this kind has.
pub(super) fn not_found(kind: &str) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("There is no such {kind}"))
}

/// A failure is logged here, once, and a client gets only what it can act on.
impl From<grapnel_store::Error> for ApiError {
    fn from(failure: grapnel_store::Error) -> Self {
        match &failure {
            grapnel_store::Error::Deadline => {
                tracing::warn!("management request exceeded the deadline of its statements");
                let message = "The request took too long; narrow it, for example with from and to";
                Self::new(ErrorCode::DependencyUnavailable, message).retry_after(RETRY_AFTER_SECONDS)
            }
            grapnel_store::Error::Unavailable(_) => {
                tracing::warn!(error = %chain(&failure), "management request found no database");
                Self::unavailable(RETRY_AFTER_SECONDS)
            }
            grapnel_store::Error::Corrupt { .. } | grapnel_store::Error::Statement(_) => {
                tracing::error!(error = %chain(&failure), "management request failed");
                Self::internal()
            }
        }
    }
}
