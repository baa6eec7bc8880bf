//! How what the store says is answered.

use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::cursor::{self, ListOrder};
use super::query::MAX_PAGE_SIZE;
use crate::http::RETRY_AFTER_SECONDS;
use crate::http::envelope::{ApiError, ErrorCode, success_with_meta};
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

/// 200 with the page of a list in this order.
pub(super) fn list<T: Serialize>(page: &Page<T>, order: ListOrder) -> Response {
    let next = page.next.map(|position| cursor::encode(order, position, page.number.saturating_add(1)));
    let meta = ListMeta {
        page: page.number.get(),
        page_size: page.size,
        total: page.total.count,
        total_pages: page.total.count.div_ceil(page.size),
        next_cursor: next,
        total_is_capped: page.total.is_capped.then_some(true),
    };
    success_with_meta(StatusCode::OK, &page.items, &meta)
}

/// The 404 of an id that nothing has.
pub(super) fn unknown(what: &str) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("There is no such {what}"))
}

/// A failure is logged here, once, and a client learns only what it can do about it.
impl From<grapnel_store::Error> for ApiError {
    fn from(failure: grapnel_store::Error) -> Self {
        match &failure {
            grapnel_store::Error::Deadline => {
                tracing::warn!("management request exceeded the deadline of its statements");
                let message =
                    "The answer took too long to find; narrow the request, for example with from and to";
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
