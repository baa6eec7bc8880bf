//! What happens on a connection, and when that is too little to keep it.
//!
//! A client must send a first request, must read what it is answered, and must send a further request from time to time.
//! The HTTP library knows none of these: a ping that is answered counts as life for it, and an answer may wait without end
//! for a window that the client does not open.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use crate::client_network::ClientNetwork;
use crate::fair_shares::Share;

/// Bytes that a client must take of a blocked answer before the deadline begins again: less is not progress.
pub(super) const PROGRESS_BYTES: usize = 16 * 1024;

/// How long a connection may be of no use.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionDeadlines {
    /// From the connection to the first request.
    pub first_request: Duration,
    /// From the first byte of a further request to the end of its headers, over HTTP/1.1. One whose beginning came together with the
    /// request before it has the time of an idle connection until more of it arrives.
    pub head: Duration,
    /// An answer must be read within this time, or some of it if it is large.
    pub unread_answer: Duration,
    /// From the end of a request to the next one. Longer than proxies keep an idle connection (60 s in nginx and in AWS load
    /// balancers), so that the proxy closes it first and no request meets a closed one.
    pub idle: Duration,
}

impl Default for ConnectionDeadlines {
    fn default() -> Self {
        Self {
            first_request: super::HEADER_DEADLINE,
            head: super::HEADER_DEADLINE,
            unread_answer: Duration::from_secs(30),
            idle: Duration::from_secs(75),
        }
    }
}

/// Why a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    FirstRequest,
    UnfinishedHead,
    UnreadAnswer,
    NextRequest,
}

impl Overdue {
    /// Returns the value of the metric's label.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::FirstRequest => "no_request",
            Self::UnfinishedHead => "unfinished_head",
            Self::UnreadAnswer => "unread_answer",
            Self::NextRequest => "idle",
        }
    }
}

/// The activity of one connection, shared by its stream, its requests and the task that closes it.
#[derive(Debug)]
pub(super) struct Activity {
    deadlines: ConnectionDeadlines,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    has_request: bool,
    /// Whether a connection has one request at a time. Not known before the first one.
    is_http1: bool,
    /// Since when a further request has begun to arrive; `None` when its headers are there.
    head_since: Option<Instant>,
    /// Of the connection, or of the end of the last request.
    idle_since: Instant,
    /// Since when bytes wait for the client to take some.
    blocked_since: Option<Instant>,
    exchanges: Vec<ExchangeState>,
    next_id: u64,
}

#[derive(Debug)]
struct ExchangeState {
    id: u64,
    /// Since when the client has taken nothing of the answer; `None` before there is one.
    unread_since: Option<Instant>,
}

impl State {
    /// Returns the time at which to look again, if nothing is overdue.
    fn judge(&self, deadlines: &ConnectionDeadlines, now: Instant) -> Result<Instant, Overdue> {
        let unread = self.exchanges.iter().filter_map(|exchange| exchange.unread_since);
        let unread = unread.chain(self.blocked_since).min();
        let is_idle = self.exchanges.is_empty() && self.head_since.is_none();
        let waits = [
            (unread, deadlines.unread_answer, Overdue::UnreadAnswer),
            ((!self.has_request).then_some(self.idle_since), deadlines.first_request, Overdue::FirstRequest),
            (self.head_since, deadlines.head, Overdue::UnfinishedHead),
            (is_idle.then_some(self.idle_since), deadlines.idle, Overdue::NextRequest),
        ];
        // What begins after this moment has at least the shortest of these times.
        let shortest = waits.iter().map(|(_, allowed, _)| *allowed).min().unwrap_or_default();
        let mut next = now + shortest / 2;
        for (since, allowed, overdue) in waits {
            let Some(since) = since else { continue };
            if since + allowed <= now {
                return Err(overdue);
            }
            next = next.min(since + allowed);
        }
        Ok(next)
    }
}

impl Activity {
    pub(super) fn new(deadlines: ConnectionDeadlines) -> Arc<Self> {
        let state = State {
            has_request: false,
            is_http1: false,
            head_since: None,
            idle_since: Instant::now(),
            blocked_since: None,
            exchanges: Vec::new(),
            next_id: 0,
        };
        Arc::new(Self { deadlines, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while this is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Completes when the connection should be closed.
    pub(super) async fn overdue(&self) -> Overdue {
        loop {
            let judged = self.state().judge(&self.deadlines, Instant::now());
            match judged {
                Ok(next) => tokio::time::sleep_until(next).await,
                Err(overdue) => return overdue,
            }
        }
    }

    /// Notes that bytes of the client were read.
    pub(super) fn received(&self) {
        let mut state = self.state();
        if state.is_http1 && state.exchanges.is_empty() && state.head_since.is_none() {
            state.head_since = Some(Instant::now());
        }
    }

    /// Notes that written bytes wait for the client, from now on.
    pub(super) fn set_blocked(&self) {
        self.state().blocked_since = Some(Instant::now());
    }

    /// Notes that nothing waits.
    pub(super) fn set_unblocked(&self) {
        self.state().blocked_since = None;
    }

    /// Notes the begin of a request. It lasts, and keeps its share of all requests, until its answer is written or given up. One of
    /// HTTP/1.1 has no share.
    pub(super) fn begin(self: &Arc<Self>, share: Option<Share<ClientNetwork>>) -> Arc<Exchange> {
        let mut state = self.state();
        state.has_request = true;
        state.is_http1 = share.is_none();
        state.head_since = None;
        let id = state.next_id;
        state.next_id += 1;
        state.exchanges.push(ExchangeState { id, unread_since: None });
        drop(state);
        Arc::new(Exchange { activity: Arc::clone(self), id, _share: share })
    }
}

/// A request and its answer.
#[derive(Debug)]
pub(super) struct Exchange {
    activity: Arc<Activity>,
    id: u64,
    _share: Option<Share<ClientNetwork>>,
}

impl Exchange {
    /// Notes that there is an answer, or that the client has taken some of it.
    fn progressed(&self) {
        let mut state = self.activity.state();
        let own = state.exchanges.iter_mut().find(|exchange| exchange.id == self.id);
        if let Some(exchange) = own {
            exchange.unread_since = Some(Instant::now());
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        state.exchanges.retain(|exchange| exchange.id != self.id);
        state.idle_since = Instant::now();
    }
}

/// The body of an answer, which keeps its exchange open until the last byte is written.
pub(super) struct AnswerBody<B> {
    body: B,
    exchange: Arc<Exchange>,
}

impl<B> AnswerBody<B> {
    pub(super) fn new(body: B, exchange: Arc<Exchange>) -> Self {
        exchange.progressed();
        Self { body, exchange }
    }
}

impl<B: Body + Unpin> Body for AnswerBody<B> {
    type Data = AnswerBytes<B::Data>;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let exchange = &self.exchange;
        polled.map_ok(|frame| {
            exchange.progressed();
            frame.map_data(|data| AnswerBytes { data, exchange: Arc::clone(exchange) })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Bytes of an answer that wait for the client. HTTP/2 takes a whole body before the client's window allows any of it, so the
/// end of the body says nothing.
pub(super) struct AnswerBytes<D> {
    data: D,
    exchange: Arc<Exchange>,
}

impl<D: Buf> Buf for AnswerBytes<D> {
    fn remaining(&self) -> usize {
        self.data.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.data.chunk()
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [std::io::IoSlice<'a>]) -> usize {
        self.data.chunks_vectored(slices)
    }

    fn advance(&mut self, count: usize) {
        self.data.advance(count);
        self.exchange.progressed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINES: ConnectionDeadlines = ConnectionDeadlines {
        first_request: Duration::from_secs(15),
        head: Duration::from_secs(10),
        unread_answer: Duration::from_secs(30),
        idle: Duration::from_secs(60),
    };

    fn judge(activity: &Activity, seconds: u64) -> Result<(), Overdue> {
        let later = Instant::now() + Duration::from_secs(seconds);
        activity.state().judge(&DEADLINES, later).map(drop)
    }

    #[test]
    fn connection_must_send_a_first_request_and_further_ones() {
        let activity = Activity::new(DEADLINES);
        assert_eq!(judge(&activity, 14), Ok(()));
        assert_eq!(judge(&activity, 16), Err(Overdue::FirstRequest));
        let exchange = activity.begin(None);
        assert_eq!(judge(&activity, 1000), Ok(()), "the handler has deadlines of its own");
        drop(exchange);
        assert_eq!(judge(&activity, 59), Ok(()));
        assert_eq!(judge(&activity, 61), Err(Overdue::NextRequest));
    }

    #[test]
    fn further_request_must_be_whole_in_time_and_an_idle_connection_may_wait_for_it() {
        let activity = Activity::new(DEADLINES);
        activity.received();
        assert_eq!(judge(&activity, 14), Ok(()), "the first request has a deadline of its own");
        let exchange = activity.begin(None);
        activity.received();
        drop(exchange);
        assert_eq!(judge(&activity, 59), Ok(()), "what arrived was its body");
        activity.received();
        assert_eq!(judge(&activity, 9), Ok(()));
        assert_eq!(judge(&activity, 11), Err(Overdue::UnfinishedHead));
        assert_eq!(judge(&activity, 61), Err(Overdue::UnfinishedHead));
        let exchange = activity.begin(None);
        assert_eq!(judge(&activity, 1000), Ok(()));
        drop(exchange);
        assert_eq!(judge(&activity, 61), Err(Overdue::NextRequest));
    }

    #[test]
    fn every_answer_must_be_read() {
        let activity = Activity::new(DEADLINES);
        let (stuck, _other) = (activity.begin(None), activity.begin(None));
        stuck.progressed();
        assert_eq!(judge(&activity, 29), Ok(()));
        assert_eq!(judge(&activity, 31), Err(Overdue::UnreadAnswer));
        drop(stuck);
        assert_eq!(judge(&activity, 31), Ok(()));
        activity.set_blocked();
        assert_eq!(judge(&activity, 31), Err(Overdue::UnreadAnswer));
        activity.set_unblocked();
        assert_eq!(judge(&activity, 31), Ok(()));
    }
}
