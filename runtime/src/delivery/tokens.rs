//! Fetches the tokens that authenticate deliveries, and keeps them until shortly before they end.
//!
//! A lane has one token. However many of its deliveries need it, one request for it is in progress, with a deadline; a failed one
//! is not repeated for a while. So a token endpoint that is slow or down delays the deliveries of its destination and nothing
//! else. Only addresses that the egress policy permits are called; redirects are not followed, and the answer is bounded.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request};
use http_body_util::Full;
use tokio::time::{Instant, timeout};

use crate::egress::{CallClient, CallError, Egress, EgressError};
use grapnel_core::delivery::oauth2::TokenRequest;

/// The deadline of a request for a token, and the longest wait for one.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// The most bytes of an answer.
const MAX_ANSWER: usize = 64 * 1024;
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(60);

const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A client for token endpoints. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct TokenClient(CallClient);

/// The token of one lane.
#[derive(Debug)]
pub(super) struct LaneToken {
    client: TokenClient,
    request: Arc<TokenRequest>,
    state: Mutex<TokenState>,
}

/// A token that can be sent.
#[derive(Debug, Clone)]
pub(super) struct CurrentToken {
    /// Tells it from earlier and later ones.
    number: u64,
    pub authorization: HeaderValue,
    used_until: Instant,
}

type FetchResult = Result<CurrentToken, Arc<str>>;

/// A request in progress, for which everybody waits who needs its token.
type Fetch = Shared<BoxFuture<'static, FetchResult>>;

#[derive(Debug, Default)]
struct TokenState {
    current: Option<CurrentToken>,
    fetch: Option<Fetch>,
    /// How many tokens were fetched.
    fetched: u64,
    failure: Option<Failure>,
}

/// The last failure, until a token is fetched.
#[derive(Debug)]
struct Failure {
    reason: Arc<str>,
    backoff: Duration,
    not_before: Instant,
}

impl TokenClient {
    pub(crate) fn new(egress: Egress) -> Self {
        Self(CallClient::new(egress, LONGEST_WAIT))
    }

    /// Requests a token and returns it with the time for which it is used, or why there is none: a text without a URL or a secret.
    async fn fetch(&self, request: &TokenRequest) -> Result<(HeaderValue, Duration), String> {
        let mut sent = Request::new(Full::new(request.body.clone().into()));
        *sent.method_mut() = Method::POST;
        if let Some(authorization) = &request.authorization {
            sent.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        sent.headers_mut().insert(CONTENT_TYPE, FORM);
        sent.headers_mut().insert(ACCEPT, JSON);
        let answer = self.0.call(&request.url, sent, MAX_ANSWER).await.map_err(|error| cause_of(&error))?;
        let token = TokenRequest::read_answer(answer.status().as_u16(), answer.body())
            .map_err(|error| format!("the token endpoint cannot be used: {error}"))?;
        Ok((token.authorization, token.used_for))
    }
}

impl LaneToken {
    pub(super) fn new(client: TokenClient, request: Arc<TokenRequest>) -> Arc<Self> {
        Arc::new(Self { client, request, state: Mutex::default() })
    }

    /// Returns the current token, or waits for one; never for `refused`, which the receiver did not accept.
    ///
    /// # Errors
    /// Why there is none: for an operator.
    pub(super) async fn get(
        self: &Arc<Self>,
        refused: Option<&CurrentToken>,
    ) -> Result<CurrentToken, String> {
        let fetch = match self.current_or_fetch(refused.map(|token| token.number), Instant::now()) {
            Ok(token) => return Ok(token),
            Err(fetch) => fetch.map_err(|reason| reason.to_string())?,
        };
        match timeout(LONGEST_WAIT, fetch).await {
            Ok(result) => result.map_err(|reason| reason.to_string()),
            Err(_) => Err(no_answer()),
        }
    }

    /// Returns the current token; else the request in progress, which is started if there is none; else the reason why none is
    /// started now.
    fn current_or_fetch(
        self: &Arc<Self>,
        refused: Option<u64>,
        now: Instant,
    ) -> Result<CurrentToken, Result<Fetch, Arc<str>>> {
        let mut state = self.state();
        if let Some(token) = &state.current
            && now < token.used_until
            && Some(token.number) != refused
        {
            return Ok(token.clone());
        }
        // One that has ended without a trace has panicked.
        if let Some(fetch) = state.fetch.as_ref().filter(|fetch| fetch.peek().is_none()) {
            return Err(Ok(fetch.clone()));
        }
        if let Some(failure) = state.failure.as_ref().filter(|failure| now < failure.not_before) {
            return Err(Err(Arc::clone(&failure.reason)));
        }
        let token = Arc::clone(self);
        // A task of its own: whoever waits for it may give up.
        let running = tokio::spawn(async move {
            let result = token.client.fetch(&token.request).await;
            token.settle(result, Instant::now())
        });
        let fetch = running
            .map(|ended| ended.unwrap_or_else(|_| Err("the request for a token was abandoned".into())))
            .boxed()
            .shared();
        state.fetch = Some(fetch.clone());
        Err(Ok(fetch))
    }

    /// Keeps what a request returned.
    fn settle(&self, result: Result<(HeaderValue, Duration), String>, now: Instant) -> FetchResult {
        let mut state = self.state();
        state.fetch = None;
        match result {
            Ok((authorization, used_for)) => {
                state.fetched += 1;
                state.failure = None;
                let token = CurrentToken { number: state.fetched, authorization, used_until: now + used_for };
                state.current = Some(token.clone());
                Ok(token)
            }
            Err(reason) => {
                metrics::counter!("grapnel_token_failures_total").increment(1);
                tracing::warn!(reason, "a token for a destination cannot be fetched");
                let reason: Arc<str> = reason.into();
                let before = state.failure.as_ref().map(|failure| failure.backoff);
                let backoff = before.map_or(FIRST_BACKOFF, |backoff| (backoff * 2).min(MAX_BACKOFF));
                let failure = Failure { reason: Arc::clone(&reason), backoff, not_before: now + backoff };
                state.failure = Some(failure);
                Err(reason)
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, TokenState> {
        // Nothing panics while this is held, and the state is consistent between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Describes a failure without the URL, which may contain a secret.
fn cause_of(error: &CallError) -> String {
    match error {
        CallError::Egress(EgressError::Name(error)) => of_token_endpoint(error),
        CallError::Egress(EgressError::Proxy(error)) => error.to_string(),
        CallError::Egress(_) => "the token endpoint cannot be reached".to_owned(),
        CallError::TimedOut(_) => no_answer(),
        CallError::TooLong(longest) => format!("the token endpoint's answer is longer than {longest} bytes"),
        CallError::Url | CallError::Tls(_) | CallError::Http(_) | CallError::Body(_) => {
            "the request to the token endpoint failed".to_owned()
        }
    }
}

/// Returns the message about a destination as one about the token endpoint.
fn of_token_endpoint(error: &dyn Error) -> String {
    error.to_string().replacen("the destination", "the token endpoint", 1)
}

fn no_answer() -> String {
    format!("the token endpoint did not answer within {} s", LONGEST_WAIT.as_secs())
}
