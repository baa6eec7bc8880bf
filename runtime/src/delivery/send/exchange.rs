//! One connection, and one request on it at a time.
//!
//! Invariants: a connection makes progress only while its owner waits for it, so no task runs beside the attempt, and an
//! attempt that is given up closes its connection. Only a connection whose last answer was read to its end is idle.
//!
//! The status of an answer decides, so its head is read leniently: lines that are no header are passed over, folded lines and
//! spaces before the colon are accepted, interim answers are skipped. A head has at most 256 headers and 64 KiB.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

use super::stream::{Received, Stream};

/// The most headers of an answer.
const MAX_HEADERS: usize = 256;
/// The largest head of an answer.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// A connection over which requests are sent.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: http1::Connection<TokioIo<Stream>, Full<Bytes>>,
    has_ended: bool,
    received: Received,
    /// The address at the other end; that of the proxy if there is one.
    pub(super) peer: Option<SocketAddr>,
}

/// A request without an answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    #[error("the exchange failed")]
    Http(#[from] hyper::Error),
    /// The connection ended and the library did not say why.
    #[error("the connection ended")]
    Ended,
}

impl Connection {
    pub(super) async fn new(stream: Stream, peer: Option<SocketAddr>) -> Result<Self, ExchangeError> {
        let received = stream.received();
        let (sender, driver) = http1::Builder::new()
            .ignore_invalid_headers_in_responses(true)
            .allow_obsolete_multiline_headers_in_responses(true)
            .allow_spaces_after_header_name_in_responses(true)
            .max_headers(MAX_HEADERS)
            .max_header_size(MAX_HEAD_BYTES)
            .max_buf_size(MAX_HEAD_BYTES)
            .handshake(TokioIo::new(stream))
            .await?;
        Ok(Self { sender, driver, has_ended: false, received, peer })
    }

    /// Sends a request, and returns the head of its answer as soon as that has come.
    pub(super) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, ExchangeError> {
        let Self { sender, driver, has_ended, received, .. } = self;
        received.reset();
        let mut answer = pin!(sender.send_request(request));
        poll_fn(|cx| {
            drive(driver, has_ended, cx);
            match answer.as_mut().poll(cx) {
                Poll::Pending if *has_ended => Poll::Ready(Err(ExchangeError::Ended)),
                polled => polled.map_err(ExchangeError::Http),
            }
        })
        .await
    }

    /// Returns the next part of the body; `None` at its end, and when it breaks off.
    pub(super) async fn next_part(&mut self, body: &mut Incoming) -> Option<Bytes> {
        let Self { driver, has_ended, .. } = self;
        poll_fn(|cx| {
            loop {
                let mut polled = Pin::new(&mut *body).poll_frame(cx);
                if polled.is_pending() {
                    // The library reads a part only after it was asked for.
                    drive(driver, has_ended, cx);
                    polled = Pin::new(&mut *body).poll_frame(cx);
                }
                return match polled {
                    Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                        Ok(part) => Poll::Ready(Some(part)),
                        Err(_trailers) => continue,
                    },
                    Poll::Ready(Some(Err(_)) | None) => Poll::Ready(None),
                    Poll::Pending if *has_ended => Poll::Ready(None),
                    Poll::Pending => Poll::Pending,
                };
            }
        })
        .await
    }

    /// Returns whether the last request failed because the connection was at its end already, as it can be when it was used
    /// before: nothing of an answer has come.
    pub(super) fn was_at_its_end(&self, error: &ExchangeError) -> bool {
        // The library cancels a request of which it has written nothing.
        let was_not_sent = matches!(error, ExchangeError::Http(error) if error.is_canceled());
        was_not_sent || !self.received.any()
    }

    /// Returns whether a request can be sent now: the last one is over, and the other side has not closed the connection.
    pub(super) fn is_idle(&mut self) -> bool {
        // Whoever sends the next request waits for the connection; until then nobody needs to be woken.
        drive(&mut self.driver, &mut self.has_ended, &mut Context::from_waker(Waker::noop()));
        !self.has_ended && self.sender.is_ready()
    }
}

/// Lets a connection read and write what it can.
fn drive(
    driver: &mut http1::Connection<TokioIo<Stream>, Full<Bytes>>,
    has_ended: &mut bool,
    cx: &mut Context<'_>,
) {
    if !*has_ended && Pin::new(driver).poll(cx).is_ready() {
        *has_ended = true;
    }
}
