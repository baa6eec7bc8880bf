//! Answers made from what the store returns.

use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::cursor::{self, ListOrder};
use super::model::{InvalidJson, Rfc3339Millis};
use super::query::MAX_PAGE_SIZE;
use crate::http::RETRY_AFTER_SECONDS;
use crate::http::envelope::{ApiError, ErrorCode, success, success_with_meta};
use grapnel_core::error_chain::chain;
use grapnel_store::views::{Page, TOTAL_CAP, time_of_id};

/// `meta` of a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListMeta {
    /// The number of the page; behind a cursor it counts on from where the cursors began.
    #[schema(minimum = 1)]
    pub(crate) page: u32,
    #[schema(minimum = 1, maximum = 100)]
    pub(crate) page_size: u32,
    /// Items of the whole list, exact up to 10,000. Null when counting them would take too long, which only happens with filters that have
    /// no index.
    #[schema(required, minimum = 0, maximum = 10_000)]
    pub(crate) total: Option<u32>,
    /// Pages of that total.
    #[schema(required, minimum = 0)]
    pub(crate) total_pages: Option<u32>,
    /// The `cursor` of the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) next_cursor: Option<String>,
    /// True when there are more than `total` items, else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) total_is_capped: Option<bool>,
    /// When there was no time to fill the page: it has what was found up to this time, and `nextCursor` goes on from there. The page may be
    /// empty. Else absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) scanned_through: Option<Rfc3339Millis>,
}

// The numbers of the schema above.
const _: () = assert!(MAX_PAGE_SIZE == 100 && TOTAL_CAP == 10_000);

/// A page of a list.
#[derive(Debug)]
pub(crate) struct Listed<V> {
    pub(crate) items: Vec<V>,
    pub(crate) meta: ListMeta,
}

impl<V: Serialize> Listed<V> {
    /// Returns a 200 with the page.
    pub(super) fn respond(&self) -> Response {
        success_with_meta(StatusCode::OK, &self.items, &self.meta)
    }
}

/// Renders the page of a list in this order, each row by `view`.
pub(super) fn list<R, V>(
    page: Page<R>,
    order: ListOrder,
    view: impl Fn(R) -> Result<V, InvalidJson>,
) -> Result<Listed<V>, ApiError> {
    let next = page.next.map(|position| cursor::encode(order, position, page.number.saturating_add(1)));
    let meta = ListMeta {
        page: page.number.get(),
        page_size: page.size,
        total: page.total.map(|total| total.count),
        total_pages: page.total.map(|total| total.count.div_ceil(page.size)),
        next_cursor: next,
        total_is_capped: page.total.filter(|total| total.is_capped).map(|_| true),
        scanned_through: page.scanned_through.and_then(time_of_id).map(Rfc3339Millis),
    };
    let items = page.items.into_iter().map(view).collect::<Result<Vec<_>, _>>()?;
    Ok(Listed { items, meta })
}

/// Returns a 200 with the item.
pub(super) fn item<V: Serialize>(item: &V) -> Response {
    success(StatusCode::OK, item)
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
            grapnel_store::Error::Unavailable(_) | grapnel_store::Error::ReadOnly => {
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
