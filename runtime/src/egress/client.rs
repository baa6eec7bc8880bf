//! Single calls: for a certificate, a confirmation or a token.
//!
//! Invariants: a call takes the same way out as deliveries and ends by the deadline; no more of an answer is read than the caller
//! allows; redirects are not followed, and nothing is repeated. Each call has a connection of its own, since calls are rare and
//! what they return is kept.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::{Position, Url};

use super::trust::{for_http_1, server_name};
use super::{Egress, EgressError};

/// A client for single calls. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct CallClient {
    egress: Egress,
    tls: Arc<ClientConfig>,
    deadline: Duration,
}

/// A call without an answer. No message contains the URL.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("the URL cannot be requested")]
    Url,
    #[error(transparent)]
    Egress(#[from] EgressError),
    #[error("the TLS handshake failed")]
    Tls(#[source] io::Error),
    #[error("the exchange failed")]
    Http(#[from] hyper::Error),
    #[error("the answer broke off")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    #[error("no answer within {} s", _0.as_secs_f64())]
    TimedOut(Duration),
}

impl CallClient {
    /// Returns a client whose calls take no longer than `deadline`, each as a whole.
    pub(crate) fn new(egress: Egress, deadline: Duration) -> Self {
        let builder = ClientConfig::builder().with_root_certificates(Arc::clone(egress.roots()));
        let tls = Arc::new(for_http_1(builder.with_no_client_auth()));
        Self { egress, tls, deadline }
    }

    /// Sends a request to a URL, and returns the answer with a body of at most `longest` bytes. Of the request, the URL and the
    /// host are set here.
    pub(crate) async fn call(
        &self,
        url: &Url,
        request: Request<Full<Bytes>>,
        longest: usize,
    ) -> Result<Response<Bytes>, CallError> {
        let answered = timeout(self.deadline, self.call_without_deadline(url, request, longest)).await;
        answered.map_err(|_| CallError::TimedOut(self.deadline))?
    }

    async fn call_without_deadline(
        &self,
        url: &Url,
        mut request: Request<Full<Bytes>>,
        longest: usize,
    ) -> Result<Response<Bytes>, CallError> {
        let host = &url[Position::BeforeHost..Position::AfterPort];
        request.headers_mut().insert(HOST, HeaderValue::from_str(host).map_err(|_| CallError::Url)?);
        let path = &url[Position::BeforePath..Position::AfterQuery];
        *request.uri_mut() = Uri::try_from(path).map_err(|_| CallError::Url)?;

        let stream = self.egress.connect(url).await?;
        if url.scheme() != "https" {
            return exchange(stream, request, longest).await;
        }
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let name = server_name(url).ok_or(CallError::Url)?;
        let stream = connector.connect(name, stream).await.map_err(CallError::Tls)?;
        exchange(stream, request, longest).await
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Full<Bytes>>,
    longest: usize,
) -> Result<Response<Bytes>, CallError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, longest).collect().await;
        let body = body.map_err(|error| match error.is::<LengthLimitError>() {
            true => CallError::TooLong(longest),
            false => CallError::Body(error),
        })?;
        Ok::<_, CallError>(Response::from_parts(head, body.to_bytes()))
    };
    beside(connection, exchange).await
}

/// Runs a future beside a connection that it uses, until the former has ended.
async fn beside<T>(connection: impl Future, exchange: impl Future<Output = T>) -> T {
    let (mut connection, mut exchange) = (pin!(connection), pin!(exchange));
    let mut has_ended = false;
    poll_fn(|cx| {
        has_ended = has_ended || connection.as_mut().poll(cx).is_ready();
        exchange.as_mut().poll(cx)
    })
    .await
}
