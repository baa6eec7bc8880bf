//! One HTTP/1.1 connection to the target, and the certainty whether a request left on it.
//!
//! Whoever waits for an answer drives the connection meanwhile; nothing runs on its own.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::config::Target;

/// A connection that fails this soon, without an answer, counts as one that could not be made.
const FRESH: Duration = Duration::from_secs(1);
/// An answer's body is read up to here, then the connection is dropped.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

pub(crate) enum SendFailure {
    /// Not a byte of the request left.
    NotSent,
    /// It may have left, and no answer will come.
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
            .context("begin HTTP")?;
        Ok(Connection { sender, driver: Some(driver), opened: Instant::now(), answered: false })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.driver.is_none() || self.sender.is_closed()
    }

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
            // hyper returns the request only when it had not begun to write it.
            Err(error) if error.message().is_some() => Err(SendFailure::NotSent),
            Err(_) => Err(SendFailure::Broken),
        }
    }

    /// Reads the rest of an answer. False: the connection cannot be used again.
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

/// Polls the connection beside the work that waits for it.
async fn drive<T>(driver: &mut Option<Driver>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(done);
        }
        if let Some(connection) = driver
            && Pin::new(connection).poll(cx).is_ready()
        {
            // Dropped at once, so that whoever waits for it is told.
            *driver = None;
        }
        work.as_mut().poll(cx)
    })
    .await
}
