//! A gateway that misbehaves as its test requires.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use secrecy::SecretString;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use crate::{Amount, Config, Pace, Provider, Report, Run, Target};

pub(super) const SECRET: &str = "acme-test-secret";
pub(super) const SIGNING_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// How the gateway treats one request for a number.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fate {
    /// `None`: the connection is closed without an answer.
    pub(super) answer: Option<u16>,
    /// Number of deliveries of the event; each is repeated until it is accepted.
    pub(super) deliveries: u32,
    pub(super) badly_signed: bool,
    pub(super) altered: bool,
    /// Delay before the answer.
    pub(super) delay: Duration,
}

pub(super) const RELAY: Fate =
    Fate { answer: Some(202), deliveries: 1, badly_signed: false, altered: false, delay: Duration::ZERO };

/// A gateway on a loopback port. It ends with the runtime of its test.
pub(super) struct Gateway {
    addr: SocketAddr,
    sink: Arc<OnceLock<SocketAddr>>,
    pub(super) deliveries: TaskTracker,
}

impl Gateway {
    /// `fate` depends on the number and on the attempt, which counts from 0.
    pub(super) async fn start(fate: impl Fn(u64, u32) -> Fate + Send + Sync + 'static) -> Gateway {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let (sink, tasks) = (Arc::new(OnceLock::new()), TaskTracker::new());
        let gateway = Gateway { addr, sink: Arc::clone(&sink), deliveries: tasks.clone() };
        let attempts = Arc::new(Mutex::new(HashMap::<u64, u32>::new()));
        let fate = Arc::new(fate);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let (sink, tasks, attempts, fate) =
                    (sink.clone(), tasks.clone(), attempts.clone(), fate.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (sink, tasks, attempts, fate) =
                        (sink.clone(), tasks.clone(), attempts.clone(), fate.clone());
                    async move {
                        let body = read_signed(request).await;
                        let events = body.as_array().cloned().unwrap_or_else(|| vec![body]);
                        let number = events[0]["data"]["loadtest"]["number"].as_u64().expect("a number");
                        let attempt = {
                            let mut attempts = attempts.lock().expect("no panic");
                            let count = attempts.entry(number).or_default();
                            *count += 1;
                            *count - 1
                        };
                        let fate = fate(number, attempt);
                        for event in events.iter().flat_map(|event| (0..fate.deliveries).map(move |_| event))
                        {
                            let sink = *sink.get().expect("the sink is known before the first event");
                            tasks.spawn(deliver(sink, event.clone(), fate));
                        }
                        tokio::time::sleep(fate.delay).await;
                        match fate.answer {
                            None => Err("closed without an answer"),
                            Some(code) => Ok(Response::builder()
                                .status(code)
                                .body(Full::new(Bytes::from_static(b"{\"success\":true}")))
                                .expect("a response")),
                        }
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        gateway
    }

    pub(super) fn config(&self, amount: Amount) -> Config {
        let target =
            Target::parse(&format!("http://{}/api/v1/webhooks/acme", self.addr)).expect("a good URL");
        Config {
            pace: Pace::Closed { clients: 8 },
            request_timeout: Duration::from_secs(5),
            ..Config::new(target, Provider::Acme, SecretString::from(SECRET), amount)
        }
    }

    /// Starts a run whose sink receives the deliveries.
    pub(super) fn run(&self, config: Config) -> Run {
        let run = Run::start(config).expect("a usable configuration");
        self.sink.set(run.sink_addr().expect("a sink")).expect("one run for each gateway");
        run
    }

    pub(super) async fn report(&self, config: Config) -> Report {
        self.run(config).finish().await.expect("a report")
    }
}

/// Reads an event and checks its signature, which is computed here independently.
async fn read_signed(request: Request<Incoming>) -> Value {
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    let mut hmac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("a key");
    hmac.update(&body);
    assert_eq!(head.headers["x-acme-signature"], hex::encode(hmac.finalize().into_bytes()));
    assert_eq!(head.headers["content-type"], "application/json");
    assert_eq!(head.uri.path(), "/api/v1/webhooks/acme");
    serde_json::from_slice(&body).expect("the body is JSON")
}

/// Delivers until the sink accepts the event, up to five times.
async fn deliver(sink: SocketAddr, event: Value, fate: Fate) {
    let mut delivered = json!({
        "provider": "acme",
        "eventType": event["eventType"],
        "externalEventId": event["eventId"],
        "data": event["data"],
    });
    if fate.altered {
        delivered["data"]["loadtest"]["number"] = json!(1_000_000);
    }
    let body = delivered.to_string();
    let key = if fate.badly_signed { b"another key".to_vec() } else { base64_decode(&SIGNING_SECRET[6..]) };
    for _ in 0..5 {
        if post(sink, &body, &key).await == StatusCode::OK {
            return;
        }
    }
    panic!("the sink never accepted the delivery");
}

pub(super) async fn post(sink: SocketAddr, body: &str, key: &[u8]) -> StatusCode {
    let now = jiff::Timestamp::now().as_second();
    let mut hmac = Hmac::<Sha256>::new_from_slice(key).expect("a key");
    hmac.update(format!("msg_1.{now}.{body}").as_bytes());
    let signature = format!("v1,{}", base64_encode(&hmac.finalize().into_bytes()));
    let request = Request::post("/")
        .header("host", "sink")
        .header("webhook-id", "msg_1")
        .header("webhook-timestamp", now)
        .header("webhook-signature", signature)
        .body(Full::new(Bytes::from(body.to_owned())))
        .expect("a request");
    let stream = TcpStream::connect(sink).await.expect("the sink listens");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    sender.send_request(request).await.expect("an answer").status()
}

pub(super) fn base64_decode(text: &str) -> Vec<u8> {
    STANDARD.decode(text).expect("base64")
}

fn base64_encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}
