//! One HTTP/1.1 connection to the target, which knows for certain whether a request has left on it.
//!
//! The caller that waits for an answer also drives the connection; there is no task in the background.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Collected, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::config::Target;

/// A connection that fails so soon, without an answer, counts as a failure to connect.
const FRESH: Duration = Duration::from_secs(1);
/// The connection is dropped when the body of an answer is longer.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// A request without an answer.
pub(crate) enum SendFailure {
    /// No byte of the request has left.
    NotSent,
    /// The request may have left, and no answer will come.
    Broken,
}

type Driver = http1::Connection<TokioIo<TcpStream>, Full<Bytes>>;

pub(crate) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    /// `None` when the connection is closed.
    driver: Option<Driver>,
    opened: Instant,
    answered: bool,
}

impl Connection {
    pub(crate) async fn open(target: &Target) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(target.address()).await.context("connect to the target")?;
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        // One write of head and body is cheaper than a vectored one at this size.
        let (sender, driver) = http1::Builder::new()
            .writev(false)
            .handshake(TokioIo::new(stream))
            .await
            .context("start HTTP")?;
        Ok(Connection { sender, driver: Some(driver), opened: Instant::now(), answered: false })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.driver.is_none() || self.sender.is_closed()
    }

    /// Whether it was opened just now and has not carried an answer.
    pub(crate) fn is_fresh(&self) -> bool {
        !self.answered && self.opened.elapsed() < FRESH
    }

    pub(crate) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, SendFailure> {
        let Connection { sender, driver, .. } = self;
        if drive(driver, sender.ready()).await.is_err() {
            return Err(SendFailure::NotSent);
        }
        match drive(driver, sender.try_send_request(request)).await {
            Ok(response) => {
                self.answered = true;
                Ok(response)
            }
            // hyper returns the request only if it has not begun to write it.
            Err(error) if error.message().is_some() => Err(SendFailure::NotSent),
            Err(_) => Err(SendFailure::Broken),
        }
    }

    /// Reads the body of an answer; `None` when it is too long or breaks off.
    pub(crate) async fn read(&mut self, response: Response<Incoming>) -> Option<Bytes> {
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect();
        drive(&mut self.driver, body).await.ok().map(Collected::to_bytes)
    }

    /// Reads the rest of an answer. Returns whether the connection can be used again.
    pub(crate) async fn drain(&mut self, mut response: Response<Incoming>) -> bool {
        let mut bytes = 0;
        loop {
            match drive(&mut self.driver, response.body_mut().frame()).await {
                None => return true,
                Some(Err(_)) => return false,
                Some(Ok(frame)) => bytes += frame.data_ref().map_or(0, Bytes::len),
            }
            if bytes > MAX_ANSWER_BYTES {
                return false;
            }
        }
    }
}

/// Polls the connection together with the work that waits for it.
async fn drive<T>(driver: &mut Option<Driver>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(done);
        }
        if let Some(connection) = driver
            && Pin::new(connection).poll(cx).is_ready()
        {
            // Dropping it at once wakes the work that waits for it.
            *driver = None;
        }
        work.as_mut().poll(cx)
    })
    .await
}
