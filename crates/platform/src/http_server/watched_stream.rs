//! A TCP stream that notes when its client sends bytes and when it takes no more, and that lingers before it is closed.
//!
//! A socket that is closed with unread bytes discards what it has sent. A request that is refused before it has been read
//! leaves such bytes, and a client that reads only after it has written everything would see a reset in place of the answer.
//! So after the last byte has been sent, what still arrives is read for a while and discarded.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

use super::activity::{Activity, PROGRESS_BYTES};

/// What is read of a connection at most while it is closed.
const MAX_LINGER_BYTES: usize = 1024 * 1024;
const MAX_LINGER_TIME: Duration = Duration::from_secs(2);

/// Connections that linger at the same time. Further ones are closed at once.
const MAX_LINGERING: usize = 256;

/// A stream with the activity that it reports to.
pub(super) struct WatchedStream {
    stream: TcpStream,
    activity: Arc<Activity>,
    /// Bytes that the client has taken since it was noted as blocked; `None` while it is not.
    taken: Option<usize>,
    closes: LingeringCloses,
    linger: Option<Linger>,
}

/// The lingering connections of a port. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct LingeringCloses(Arc<Semaphore>);

impl Default for LingeringCloses {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_LINGERING)))
    }
}

/// A close that is in progress.
struct Linger {
    read: usize,
    deadline: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl WatchedStream {
    pub(super) fn new(stream: TcpStream, activity: Arc<Activity>, closes: LingeringCloses) -> Self {
        Self { stream, activity, taken: None, closes, linger: None }
    }

    fn note(&mut self, written: &Poll<io::Result<usize>>) {
        match (written, self.taken) {
            (Poll::Pending, None) => {
                self.taken = Some(0);
                self.activity.set_blocked();
            }
            (Poll::Ready(Ok(written)), Some(taken)) => {
                let taken = taken + written;
                if taken >= PROGRESS_BYTES {
                    self.activity.set_blocked();
                }
                self.taken = Some(taken % PROGRESS_BYTES);
            }
            _ => {}
        }
    }

    /// Reads what still arrives, until the client closes its side too.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(linger) = &mut self.linger else { return Poll::Ready(()) };
        let mut discarded = [0; 4096];
        while linger.read < MAX_LINGER_BYTES {
            let mut buffer = ReadBuf::new(&mut discarded);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => linger.read += buffer.filled().len(),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return linger.deadline.as_mut().poll(context),
            }
        }
        Poll::Ready(())
    }
}

impl Drop for WatchedStream {
    fn drop(&mut self) {
        // What the client did not take would stay in the kernel's memory.
        if self.taken.is_some()
            && let Err(error) = self.stream.set_zero_linger()
        {
            tracing::debug!(%error, "connection not reset");
        }
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.received();
        }
        polled
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Called when everything has been written.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.taken.take().is_some() {
            self.activity.set_unblocked();
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            match Pin::new(&mut self.stream).poll_shutdown(context) {
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
            let Ok(permit) = Arc::clone(&self.closes.0).try_acquire_owned() else {
                return Poll::Ready(Ok(()));
            };
            self.linger =
                Some(Linger { read: 0, deadline: Box::pin(sleep(MAX_LINGER_TIME)), _permit: permit });
        }
        self.poll_linger(context).map(Ok)
    }
}
