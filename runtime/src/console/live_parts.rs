//! Live parts that several tabs of a visitor show. Each is made once a second, however many tabs ask for it.
//!
//! A part is shared within a session (or by one actor, where there is none), after the visitor was judged for the request as for any
//! other. Only parts that were made are kept, not errors.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};

/// A part is made again when it is older. Tabs ask every two seconds.
const LASTS: Duration = Duration::from_secs(1);

/// Parts that are kept at a time.
const KEPT: usize = 256;

/// Longer parts, in bytes, are made for each tab.
const LONG: usize = 64 * 1024;

/// The parts of all visitors.
#[derive(Debug, Default)]
pub(super) struct LiveParts(Mutex<HashMap<PartKey, Arc<Kept>>>);

/// A part, and for whom it was made.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PartKey {
    /// Whom the page knows: a session or an actor.
    pub(super) subject: Vec<u8>,
    /// The path and the query of the page.
    pub(super) here: Arc<str>,
    pub(super) accepts_gzip: bool,
}

#[derive(Debug)]
struct Kept {
    since: Instant,
    part: tokio::sync::Mutex<Option<Part>>,
}

#[derive(Debug, Clone)]
struct Part {
    headers: HeaderMap,
    body: Bytes,
}

impl LiveParts {
    /// Returns the part. One request makes it, and the others wait for that.
    pub(super) async fn get(
        &self,
        key: PartKey,
        now: Instant,
        make: impl Future<Output = Response>,
    ) -> Response {
        let Some(kept) = self.kept(key, now) else { return make.await };
        let mut part = kept.part.lock().await;
        if let Some(part) = &*part {
            return part.clone().into_response();
        }
        let (headers, body) = make.await.into_parts();
        if headers.status != StatusCode::OK {
            return Response::from_parts(headers, body);
        }
        let Ok(body) = to_bytes(body, usize::MAX).await else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        if body.len() <= LONG {
            *part = Some(Part { headers: headers.headers.clone(), body: body.clone() });
        }
        Response::from_parts(headers, Body::from(body))
    }

    /// Returns what is kept under a key for now; `None` if there is no room.
    fn kept(&self, key: PartKey, now: Instant) -> Option<Arc<Kept>> {
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_current = |kept: &Kept| now.saturating_duration_since(kept.since) < LASTS;
        if let Some(kept) = parts.get(&key).filter(|kept| is_current(kept)) {
            return Some(Arc::clone(kept));
        }
        parts.retain(|_, kept| is_current(kept));
        if parts.len() >= KEPT {
            return None;
        }
        let kept = Arc::new(Kept { since: now, part: tokio::sync::Mutex::default() });
        parts.insert(key, Arc::clone(&kept));
        Some(kept)
    }
}

impl IntoResponse for Part {
    fn into_response(self) -> Response {
        (self.headers, self.body).into_response()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn key(subject: &str) -> PartKey {
        PartKey { subject: subject.into(), here: "/events".into(), accepts_gzip: false }
    }

    async fn text(response: Response) -> String {
        let body = to_bytes(response.into_body(), usize::MAX).await.expect("a body");
        String::from_utf8(body.to_vec()).expect("text")
    }

    #[tokio::test]
    async fn a_part_is_made_once_a_second_for_each_visitor() {
        let (parts, made, now) = (LiveParts::default(), AtomicUsize::new(0), Instant::now());
        let get = async |subject, now| {
            let make = async { format!("{}", made.fetch_add(1, Ordering::Relaxed)).into_response() };
            text(parts.get(key(subject), now, make).await).await
        };
        assert_eq!(get("a", now).await, "0");
        assert_eq!(get("a", now).await, "0");
        assert_eq!(get("b", now).await, "1");
        assert_eq!(get("a", now + LASTS).await, "2");
    }

    #[tokio::test]
    async fn errors_and_long_parts_are_not_kept() {
        let (parts, now) = (LiveParts::default(), Instant::now());
        for status in [StatusCode::SERVICE_UNAVAILABLE, StatusCode::OK] {
            let response = parts.get(key("a"), now, async { (status, "x").into_response() }).await;
            assert_eq!(response.status(), status);
        }
        for length in [LONG + 1, 1] {
            let response = parts.get(key("b"), now, async { "x".repeat(length).into_response() }).await;
            assert_eq!(text(response).await.len(), length);
        }
    }

    #[tokio::test]
    async fn the_number_of_kept_parts_is_bounded() {
        let (parts, now) = (LiveParts::default(), Instant::now());
        for number in 0..2 * KEPT {
            parts.get(key(&number.to_string()), now, async { "x".into_response() }).await;
        }
        assert!(parts.0.lock().expect("a lock").len() <= KEPT);
    }
}
