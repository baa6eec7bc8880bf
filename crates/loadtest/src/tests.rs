//! The probe against a gateway that misbehaves in known ways: the ledger must say exactly that.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use super::*;

const SECRET: &str = "acme-test-secret";
const SIGNING_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What the gateway does with one request for a number. The attempt counts from 0.
#[derive(Debug, Clone, Copy, Default)]
struct Fate {
    /// `None`: the connection is closed without an answer.
    answer: Option<u16>,
    /// How often the event is delivered, each delivery repeated until it is taken.
    deliveries: u32,
    badly_signed: bool,
    altered: bool,
    after: Duration,
}

const RELAY: Fate =
    Fate { answer: Some(202), deliveries: 1, badly_signed: false, altered: false, after: Duration::ZERO };

/// A gateway on a loopback port, gone with its test's runtime.
struct Gateway {
    addr: SocketAddr,
    sink: Arc<OnceLock<SocketAddr>>,
    deliveries: TaskTracker,
}

impl Gateway {
    async fn start(fate: impl Fn(u64, u32) -> Fate + Send + Sync + 'static) -> Gateway {
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
                        let event = read_signed(request).await;
                        let number = event["data"]["probe"]["number"].as_u64().expect("a number");
                        let attempt = {
                            let mut attempts = attempts.lock().expect("no panic");
                            let count = attempts.entry(number).or_default();
                            *count += 1;
                            *count - 1
                        };
                        let fate = fate(number, attempt);
                        for _ in 0..fate.deliveries {
                            let sink = *sink.get().expect("the sink is known before the first event");
                            tasks.spawn(deliver(sink, event.clone(), fate));
                        }
                        tokio::time::sleep(fate.after).await;
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

    fn config(&self, amount: Amount) -> Config {
        let target =
            Target::parse(&format!("http://{}/api/v1/webhooks/acme", self.addr)).expect("a good URL");
        Config {
            pace: Pace::Closed { clients: 8 },
            request_timeout: Duration::from_secs(5),
            ..Config::new(target, Provider::Acme, SecretString::from(SECRET), amount)
        }
    }

    /// Starts a run whose deliveries come back to its sink.
    fn probe(&self, config: Config) -> Run {
        let run = Run::start(config).expect("a usable configuration");
        self.sink.set(run.sink_addr().expect("a sink")).expect("one run for each gateway");
        run
    }

    async fn report(&self, config: Config) -> Report {
        self.probe(config).finish().await.expect("a report")
    }
}

/// Reads an event and insists on its signature, computed here once more.
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

/// Delivers until the sink takes it, for five attempts.
async fn deliver(sink: SocketAddr, event: Value, fate: Fate) {
    let mut delivered = json!({
        "provider": "acme",
        "eventType": event["eventType"],
        "externalEventId": event["eventId"],
        "data": event["data"],
    });
    if fate.altered {
        delivered["data"]["probe"]["number"] = json!(1_000_000);
    }
    let body = delivered.to_string();
    let key = if fate.badly_signed { b"another key".to_vec() } else { base64_decode(&SIGNING_SECRET[6..]) };
    for _ in 0..5 {
        if post(sink, &body, &key).await == StatusCode::OK {
            return;
        }
    }
    panic!("the sink never took the delivery");
}

async fn post(sink: SocketAddr, body: &str, key: &[u8]) -> StatusCode {
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

fn base64_decode(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).expect("base64")
}

fn base64_encode(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn verifying_sink() -> Option<SinkConfig> {
    let signing_key = SigningKey::parse(&SecretString::from(SIGNING_SECRET)).expect("a good key");
    Some(SinkConfig { signing_key: Some(signing_key), ..SinkConfig::default() })
}

const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_gateway_that_relays_everything_is_found_good() {
    let gateway = Gateway::start(|_, _| RELAY).await;
    let mut config = gateway.config(Amount::Events(500));
    config.sink = verifying_sink().map(|sink| SinkConfig { fail_percent: 20, ..sink });
    let report = gateway.report(config).await;
    assert!(report.ok, "{report}");
    assert_eq!((report.sent, report.requests, report.accepted, report.unknown), (500, 500, 500, 0));
    assert_eq!((report.stop_reason, report.scheduled_not_sent), (StopReason::Completed, 0));
    assert_eq!((report.answers.get(&202), report.latency_ms.accept.count), (Some(&500), 500));
    let deliveries = report.deliveries.expect("a sink");
    assert_eq!((deliveries.delivered, deliveries.duplicate_deliveries), (500, 0));
    assert_eq!((deliveries.lost, deliveries.phantom, deliveries.bad_signatures), (0, 0, Some(0)));
    assert!((50..150).contains(&deliveries.failed_on_purpose), "{}", deliveries.failed_on_purpose);
    assert_eq!((deliveries.settled, deliveries.altered), (Settled::Complete, 0));
    assert_eq!(report.latency_ms.end_to_end.map(|percentiles| percentiles.count), Some(500));
}

#[tokio::test]
async fn the_ledger_says_exactly_what_the_gateway_did() {
    let gateway = Gateway::start(|number, _| match number {
        10..15 => Fate { deliveries: 0, ..RELAY },
        20..23 => Fate { deliveries: 3, ..RELAY },
        30..34 => Fate { answer: Some(401), deliveries: 0, ..RELAY },
        40..42 => Fate { answer: Some(401), ..RELAY },
        50..53 => Fate { answer: None, ..RELAY },
        60..64 => Fate { answer: None, deliveries: 0, ..RELAY },
        70 => Fate { answer: Some(503), ..RELAY },
        80..82 => Fate { badly_signed: true, ..RELAY },
        90 => Fate { altered: true, ..RELAY },
        _ => RELAY,
    })
    .await;
    let mut config = gateway.config(Amount::Events(100));
    (config.sink, config.settle) = (verifying_sink(), Duration::from_secs(1));
    let run = gateway.probe(config);
    let (sink, run_id) = (run.sink_addr().expect("a sink"), run.run_id().clone());
    let stranger = json!({"provider": "acme", "externalEventId": "another-run-7"}).to_string();
    let key = base64_decode(&SIGNING_SECRET[6..]);
    assert_eq!(post(sink, &stranger, &key).await, StatusCode::OK);
    let beyond = json!({"externalEventId": format!("{}-100", run_id.as_str()), "data": {}}).to_string();
    assert_eq!(post(sink, &beyond, &key).await, StatusCode::OK);
    let report = run.finish().await.expect("a report");

    assert!(!report.ok);
    assert_eq!((report.sent, report.accepted, report.duplicates_answered), (100, 86, 0));
    assert_eq!(report.refused, [(401, 6), (503, 1)].into());
    assert_eq!((report.unknown, report.attempts_without_answer), (7, 7));
    let deliveries = report.deliveries.as_ref().expect("a sink");
    assert_eq!((deliveries.lost, deliveries.lost_numbers.clone()), (5, vec![10, 11, 12, 13, 14]));
    assert_eq!((deliveries.delivered_twice_or_more, deliveries.duplicate_deliveries), (3, 6));
    // Two that were refused and came all the same, and one beyond the run.
    assert_eq!((deliveries.phantom, deliveries.phantom_numbers.clone()), (3, vec![40, 41]));
    assert_eq!(deliveries.unknown_delivered, 4);
    assert_eq!(deliveries.delivered, 86 - 5 + 2 + 4);
    assert_eq!((deliveries.bad_signatures, deliveries.foreign, deliveries.unreadable), (Some(2), 1, 0));
    assert_eq!(deliveries.altered, 1);
    assert_eq!(deliveries.settled, Settled::TimedOut);
    assert_eq!(report.faults, ["5 lost", "3 phantom", "2 with a bad signature", "1 altered"]);
}

#[tokio::test]
async fn what_is_unknown_is_sent_again_until_it_is_accepted() {
    let gateway = Gateway::start(|number, attempt| match (number % 4, attempt) {
        // Committed, but the answer was lost: the next attempt is a duplicate.
        (1, 0) => Fate { answer: None, ..RELAY },
        (1, _) => Fate { answer: Some(200), deliveries: 0, ..RELAY },
        (2, 0) => Fate { answer: Some(429), deliveries: 0, ..RELAY },
        (3, 0 | 1) => Fate { answer: Some(503), deliveries: 0, ..RELAY },
        _ => RELAY,
    })
    .await;
    let mut config = gateway.config(Amount::Events(40));
    config.retry_unknown = true;
    let report = gateway.report(config).await;
    assert!(report.ok, "{report}");
    assert_eq!((report.sent, report.requests), (40, 40 + 10 + 10 + 20));
    assert_eq!((report.accepted, report.duplicates_answered, report.duplicates_unexplained), (30, 10, 0));
    assert_eq!((report.unknown, report.refused.len()), (0, 0));
    assert_eq!(report.answers, [(200, 10), (202, 30), (429, 10), (503, 20)].into());
    assert_eq!(report.deliveries.map(|deliveries| deliveries.delivered), Some(40));
}

#[tokio::test]
async fn an_open_loop_counts_a_stall_against_everything_that_was_due_in_it() {
    let stall = Duration::from_millis(400);
    let gateway = Gateway::start(move |number, _| Fate {
        after: if number == 0 { stall } else { Duration::ZERO },
        ..RELAY
    })
    .await;
    let mut config = gateway.config(Amount::Events(200));
    config.pace = Pace::Open { rate_per_second: 1_000, max_in_flight: 1 };
    let report = gateway.report(config).await;
    assert!(report.ok, "{report}");
    assert_eq!((report.sent, report.accepted, report.scheduled_not_sent), (200, 200, 0));
    // A closed loop would have seen one slow answer. Here number 199, due 199 ms after the stall began, waited for
    // the rest of it, and so did all others.
    assert!(report.latency_ms.accept.p50 >= 200.0, "{report}");
    assert!(report.latency_ms.accept.max >= 400.0, "{report}");
}

#[tokio::test]
async fn an_open_loop_that_cannot_keep_its_schedule_says_what_it_did_not_send() {
    let gateway = Gateway::start(|_, _| Fate { after: Duration::from_millis(100), ..RELAY }).await;
    let mut config = gateway.config(Amount::Time(Duration::from_secs(1)));
    config.pace = Pace::Open { rate_per_second: 1_000, max_in_flight: 2 };
    let report = gateway.report(config).await;
    assert!(report.ok, "{report}");
    assert_eq!(report.sent + report.scheduled_not_sent, 1_000);
    assert!((2..=30).contains(&report.sent), "{report}");
    assert_eq!(report.accepted, report.sent);
}

#[tokio::test]
async fn a_run_that_is_stopped_settles_and_reports() {
    let gateway = Gateway::start(|_, _| RELAY).await;
    let run = gateway.probe(gateway.config(Amount::Time(Duration::from_secs(600))));
    let handle = run.handle();
    let stop = async {
        assert!(handle.reaches(DEADLINE, |progress| progress.accepted >= 50).await);
        handle.stop();
    };
    let (report, ()) = tokio::join!(run.finish(), stop);
    let report = report.expect("a report");
    assert!(report.ok, "{report}");
    assert_eq!((report.stop_reason, report.unknown), (StopReason::Interrupted, 0));
    assert!(report.accepted >= 50);
    assert_eq!(report.deliveries.map(|deliveries| deliveries.delivered), Some(report.accepted));
}

#[tokio::test]
async fn a_run_that_is_cut_while_the_gateway_hangs_calls_what_is_in_flight_unknown() {
    let gateway =
        Gateway::start(|_, _| Fate { after: Duration::from_secs(3600), deliveries: 0, ..RELAY }).await;
    let mut config = gateway.config(Amount::Events(100));
    config.request_timeout = Duration::from_secs(600);
    let run = gateway.probe(config);
    let handle = run.handle();
    let cut = async {
        assert!(handle.reaches(DEADLINE, |progress| progress.sent == 8).await);
        handle.cut();
    };
    let (report, ()) = tokio::join!(run.finish(), cut);
    let report = report.expect("a report");
    assert_eq!((report.sent, report.unknown, report.accepted), (8, 8, 0));
    assert_eq!(report.faults, ["nothing was accepted"]);
}

#[tokio::test]
async fn a_target_that_goes_away_uses_up_no_numbers_and_ends_the_run() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let target = Target::parse(&format!("http://{addr}/")).expect("a good URL");
    let mut config =
        Config::new(target, Provider::Globex, SecretString::from("token"), Amount::Events(1_000));
    (config.unreachable_limit, config.sink) = (Duration::from_millis(200), None);
    // Takes the first connection, which only shows that the target is there, and is gone.
    let vanish = async {
        listener.accept().await.expect("a connection");
        drop(listener);
    };
    let run = Run::start(config).expect("a usable configuration");
    let (report, ()) = tokio::join!(run.finish(), vanish);
    let report = report.expect("a report");
    assert_eq!((report.stop_reason, report.accepted), (StopReason::Unreachable, 0));
    // Connections that were waiting to be accepted may have taken a request along.
    assert!(report.sent <= 64 && report.connect_failures > 0, "{report}");
    assert!(report.deliveries.is_none());
}

#[tokio::test]
async fn a_target_that_never_accepts_does_not_keep_a_retrying_run_for_ever() {
    let refuse = |_, _| Fate { answer: Some(503), deliveries: 0, ..RELAY };
    let gateway = Gateway::start(refuse).await;
    let mut config = gateway.config(Amount::Events(100));
    (config.retry_unknown, config.unreachable_limit) = (true, Duration::from_millis(300));
    let report = gateway.report(config).await;
    assert_eq!(
        (report.stop_reason, report.sent, report.refused),
        (StopReason::Unreachable, 8, [(503, 8)].into())
    );

    let gateway = Gateway::start(refuse).await;
    let mut config = gateway.config(Amount::Time(Duration::from_secs(1)));
    (config.retry_unknown, config.settle, config.request_timeout) =
        (true, Duration::ZERO, Duration::from_secs(1));
    let report = gateway.report(config).await;
    assert_eq!((report.stop_reason, report.sent), (StopReason::Completed, 8));
    assert_eq!(report.faults, ["nothing was accepted"]);
}

#[tokio::test]
async fn a_target_that_hangs_does_not_hold_up_the_end_of_the_time() {
    let hang = |_, _| Fate { after: Duration::from_secs(3600), deliveries: 0, ..RELAY };
    for pace in [Pace::Closed { clients: 2 }, Pace::Open { rate_per_second: 100, max_in_flight: 2 }] {
        let gateway = Gateway::start(hang).await;
        let mut config = gateway.config(Amount::Time(Duration::from_secs(1)));
        (config.pace, config.request_timeout) = (pace, Duration::from_secs(600));
        let run = gateway.probe(config);
        let handle = run.handle();
        let cut = async {
            while !handle.is_sending_over() {
                tokio::task::yield_now().await;
            }
            handle.cut();
        };
        let (report, ()) = tokio::time::timeout(DEADLINE, async { tokio::join!(run.finish(), cut) })
            .await
            .expect("sending is over in time");
        let report = report.expect("a report");
        assert_eq!((report.sent, report.unknown), (2, 2), "{report}");
    }
}

#[tokio::test]
async fn without_a_sink_only_acceptance_is_judged() {
    let gateway = Gateway::start(|_, _| Fate { deliveries: 0, ..RELAY }).await;
    let mut config = gateway.config(Amount::Events(20));
    config.sink = None;
    let report = Run::start(config).expect("a usable configuration").finish().await.expect("a report");
    assert!(report.ok, "{report}");
    assert_eq!((report.accepted, report.latency_ms.end_to_end), (20, None));
    gateway.deliveries.close();
    gateway.deliveries.wait().await;
}

#[tokio::test]
async fn the_json_is_camel_case_and_without_secrets() {
    let gateway = Gateway::start(|_, _| RELAY).await;
    let mut config = gateway.config(Amount::Events(20));
    config.sink = verifying_sink();
    let report = gateway.report(config).await;
    let text = serde_json::to_string(&report).expect("it is JSON");
    assert!(!text.contains(SECRET) && !text.contains("whsec_"));
    let json: Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!(json["deliveries"]["lost"], 0);
    assert_eq!(json["stopReason"], "completed");
    assert_eq!(json["config"]["concurrency"], 8);
    assert_eq!(json["config"]["signaturesVerified"], true);
    assert_eq!(json["answers"]["202"], 20);
    assert!(json["latencyMs"]["endToEnd"]["p99.9"].is_number());
}

#[test]
fn arguments_become_a_configuration() {
    #[derive(Debug, clap::Parser)]
    struct Command {
        #[command(flatten)]
        probe: ProbeArgs,
    }
    let parse = |more: &[&str]| {
        let base = ["probe", "--target", "http://127.0.0.1:1/x", "--provider", "acme"];
        <Command as clap::Parser>::try_parse_from(base.iter().chain(more))
            .map_err(|error| error.exit_code())
            .map(|command| command.probe.into_config())
    };
    for bad in [
        &["--events", "1"][..],
        &["--secret-env", "PATH"],
        &["--secret-env", "PATH", "--events", "1", "--duration-seconds", "1"],
        &["--secret-env", "PATH", "--secret-file", "x", "--events", "1"],
        &["--secret-env", "PATH", "--events", "1", "--rate", "5", "--concurrency", "5"],
        &["--secret-env", "PATH", "--events", "1", "--no-sink", "--sink-addr", "127.0.0.1:1"],
        &["--secret-env", "PATH", "--events", "50000001"],
        &["--secret-env", "PATH", "--events", "1", "--secret", "x"],
    ] {
        assert_eq!(parse(bad).expect_err("wrong usage"), i32::from(EXIT_USAGE), "{bad:?}");
    }
    let config =
        parse(&["--secret-env", "PATH", "--events", "1"]).expect("good usage").expect("a configuration");
    assert_eq!((config.amount, config.pace), (Amount::Events(1), Pace::Closed { clients: 64 }));
    assert!(config.sink.is_some_and(|sink| sink.addr.port() == 0 && sink.signing_key.is_none()));
    let config = parse(&["--secret-env", "PATH", "--duration-seconds", "2", "--rate", "5", "--no-sink"]);
    let config = config.expect("good usage").expect("a configuration");
    assert_eq!(config.pace, Pace::Open { rate_per_second: 5, max_in_flight: 512 });
    assert!(config.sink.is_none());
    assert!(parse(&["--secret-env", "NOT_SET_ANYWHERE", "--events", "1"]).expect("good usage").is_err());
}

#[test]
fn a_secret_file_ends_without_its_line_break() {
    let file = std::env::temp_dir().join(format!("grapnel-probe-secret-{}", RunId::random().as_str()));
    for (text, secret) in
        [("s3cret\n", Some("s3cret")), ("s3cret\r\n", Some("s3cret")), (" s ", Some(" s ")), ("\n", None)]
    {
        std::fs::write(&file, text).expect("a temporary file");
        let read = read_secret(&file).ok();
        assert_eq!(read.as_ref().map(secrecy::ExposeSecret::expose_secret), secret);
    }
    std::fs::remove_file(&file).expect("it was there");
}
