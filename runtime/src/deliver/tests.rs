use std::time::Duration;

use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::StatusCode;
use http::header::{LOCATION, RETRY_AFTER};
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use receiver::{Receiver, write_for_ever};

mod receiver;
mod tls;

const EVENT_ID: &str = "019ab0c4-7d7c-7000-8000-000000000001";
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const BODY: &str = r#"{"provider":"acme","data":{"big":12345678901234567890}}"#;
/// Long enough that no test comes near it unless something hangs.
const PATIENT: Duration = Duration::from_secs(30);
/// For tests in which the deadline is what happens.
const IMPATIENT: Duration = Duration::from_millis(300);

fn client_with(allowed: &[&str]) -> DeliveryClient {
    rustls::crypto::ring::default_provider().install_default().ok();
    let allowed = allowed.iter().map(|net| net.parse().unwrap()).collect();
    DeliveryClient::with_connect_deadline(EgressPolicy::new(allowed), IMPATIENT).unwrap()
}

fn client() -> DeliveryClient {
    client_with(&["127.0.0.0/8", "::1/128"])
}

fn target(url: &str, timeout: Duration) -> Target {
    Target::new(url, timeout, "acme", Vec::new()).unwrap()
}

fn now() -> Timestamp {
    "2026-11-24T12:00:00.750Z".parse().unwrap()
}

async fn deliver_at(client: &DeliveryClient, target: &Target, attempted_at: Timestamp) -> Exchange {
    let request = DeliveryRequest {
        target,
        event_id: EVENT_ID.parse().unwrap(),
        correlation_id: "corr-1",
        traceparent: TRACEPARENT,
        body: &Bytes::from_static(BODY.as_bytes()),
        attempted_at,
    };
    client.deliver(&request).await
}

async fn outcome(url: &str, timeout: Duration) -> Outcome {
    deliver_at(&client(), &target(url, timeout), now()).await.outcome
}

fn refused(status: u16, body: &str, retry_after: Option<u64>) -> Outcome {
    let retry_after = retry_after.map(Duration::from_secs);
    Outcome::Refused { status, body: body.to_owned(), retry_after }
}

fn succeeded(status: u16, body: &str) -> Outcome {
    Outcome::Succeeded { status, body: body.to_owned() }
}

fn unreachable(message: &str) -> Outcome {
    Outcome::Unreachable { message: message.to_owned() }
}

fn timed_out(message: &str) -> Outcome {
    Outcome::TimedOut { message: message.to_owned() }
}

mod requests {
    use super::*;

    #[tokio::test]
    async fn a_request_has_exactly_the_headers_of_the_contract() {
        let receiver = Receiver::speaking_http(|_| StatusCode::ACCEPTED.into_response()).await;
        let keys = vec![SigningKey::parse(SECRET).unwrap()];
        let target = Target::new(&receiver.url("/hooks?a=b"), PATIENT, "acme", keys).unwrap();
        deliver_at(&client(), &target, now()).await;

        let (parts, body) = receiver.requests().remove(0);
        assert_eq!((parts.method.as_str(), parts.uri.to_string().as_str()), ("POST", "/hooks?a=b"));
        assert_eq!(body, BODY);
        let mut headers: Vec<(&str, &str)> =
            parts.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        headers.sort();
        headers.retain(|(name, _)| *name != "webhook-signature");
        let host = receiver.address.to_string();
        let agent = format!("grapnel/{}", env!("CARGO_PKG_VERSION"));
        let expected = [
            ("accept", "*/*"),
            ("content-length", "55"),
            ("content-type", "application/json"),
            ("host", host.as_str()),
            ("traceparent", TRACEPARENT),
            ("user-agent", agent.as_str()),
            ("webhook-id", EVENT_ID),
            ("webhook-timestamp", "1795521600"),
            ("x-correlation-id", "corr-1"),
            ("x-event-id", EVENT_ID),
            ("x-integration-provider", "acme"),
        ];
        assert_eq!(headers, expected);
    }

    #[tokio::test]
    async fn a_receiver_can_verify_the_signatures_of_both_keys() {
        let receiver = Receiver::speaking_http(|_| StatusCode::OK.into_response()).await;
        let keys = [SECRET, OTHER_SECRET].map(|secret| SigningKey::parse(secret).unwrap());
        let target = Target::new(&receiver.url("/"), PATIENT, "acme", keys.to_vec()).unwrap();
        deliver_at(&client(), &target, now()).await;

        let (parts, body) = receiver.requests().remove(0);
        let header = |name: &str| parts.headers[name].to_str().unwrap();
        let signed = format!(
            "{}.{}.{}",
            header("webhook-id"),
            header("webhook-timestamp"),
            std::str::from_utf8(&body).unwrap()
        );
        let expected = [SECRET, OTHER_SECRET].map(|secret| {
            let key = BASE64_STANDARD.decode(secret.trim_start_matches("whsec_")).unwrap();
            let mac = Hmac::<Sha256>::new_from_slice(&key).unwrap().chain_update(&signed).finalize();
            format!("v1,{}", BASE64_STANDARD.encode(mac.into_bytes()))
        });
        let signatures: Vec<&str> = header("webhook-signature").split(' ').collect();
        assert_eq!(signatures, expected);
    }

    #[tokio::test]
    async fn without_a_key_nothing_is_signed() {
        let receiver = Receiver::speaking_http(|_| StatusCode::OK.into_response()).await;
        outcome(&receiver.url("/"), PATIENT).await;
        assert!(!receiver.requests()[0].0.headers.contains_key("webhook-signature"));
    }

    #[tokio::test]
    async fn a_second_attempt_has_the_same_id_and_its_own_time_and_signature() {
        let receiver = Receiver::speaking_http(|_| StatusCode::OK.into_response()).await;
        let keys = vec![SigningKey::parse(SECRET).unwrap()];
        let target = Target::new(&receiver.url("/"), PATIENT, "acme", keys).unwrap();
        let client = client();
        deliver_at(&client, &target, now()).await;
        deliver_at(&client, &target, now() + SignedDuration::from_secs(5)).await;

        let requests = receiver.requests();
        let values = |name: &str| [0, 1].map(|index: usize| requests[index].0.headers[name].clone());
        assert_eq!(values("webhook-id"), [EVENT_ID, EVENT_ID]);
        assert_eq!(values("webhook-timestamp"), ["1795521600", "1795521605"]);
        let [first, second] = values("webhook-signature");
        assert_ne!(first, second);
    }

    #[tokio::test]
    async fn a_connection_is_used_again() {
        let receiver = Receiver::speaking_http(|_| StatusCode::OK.into_response()).await;
        let target = target(&receiver.url("/"), PATIENT);
        let client = client();
        for _ in 0..3 {
            assert_eq!(deliver_at(&client, &target, now()).await.outcome, succeeded(200, ""));
        }
        assert_eq!(receiver.connections(), 1);
    }

    #[tokio::test]
    async fn a_value_that_no_header_can_hold_is_not_an_attempt() {
        let receiver = Receiver::speaking_http(|_| StatusCode::OK.into_response()).await;
        let target = target(&receiver.url("/"), PATIENT);
        let request = DeliveryRequest {
            target: &target,
            event_id: EVENT_ID.parse().unwrap(),
            correlation_id: "a\r\nb: c",
            traceparent: TRACEPARENT,
            body: &Bytes::new(),
            attempted_at: now(),
        };
        let message = "the correlation id cannot be sent in a header".to_owned();
        assert_eq!(client().deliver(&request).await.outcome, Outcome::NotSent { message });
        assert_eq!(receiver.connections(), 0);
    }

    #[test]
    fn targets_that_nothing_can_be_sent_to_are_refused() {
        let error = |url: &str| Target::new(url, PATIENT, "acme", Vec::new()).unwrap_err();
        assert!(matches!(error("not a url"), TargetError::Url(_)));
        assert!(matches!(error("http://"), TargetError::Url(_)));
        assert!(matches!(error("ftp://example.com"), TargetError::Scheme));
        assert!(matches!(error("file:///etc/passwd"), TargetError::Scheme));
        assert!(matches!(error("https://user@example.com"), TargetError::Credentials));
        assert!(matches!(error("https://:password@example.com"), TargetError::Credentials));
        let provider = Target::new("https://example.com", PATIENT, "a\nb", Vec::new());
        assert!(matches!(provider.unwrap_err(), TargetError::Provider(_)));
    }
}

mod answers {
    use super::*;

    async fn answered(answer: impl Fn() -> Response + Clone + Send + Sync + 'static) -> Outcome {
        let receiver = Receiver::speaking_http(move |_| answer()).await;
        outcome(&receiver.url("/"), PATIENT).await
    }

    #[tokio::test]
    async fn any_2xx_is_a_success() {
        for status in [200, 201, 202, 204, 299] {
            let code = StatusCode::from_u16(status).unwrap();
            assert_eq!(answered(move || code.into_response()).await, succeeded(status, ""));
        }
        assert_eq!(answered(|| "taken".into_response()).await, succeeded(200, "taken"));
    }

    #[tokio::test]
    async fn anything_else_is_refused_with_its_body() {
        for status in [300, 304, 400, 401, 404, 429, 500, 503, 599] {
            let code = StatusCode::from_u16(status).unwrap();
            let body = if status == 304 { "" } else { "no" };
            assert_eq!(answered(move || (code, body).into_response()).await, refused(status, body, None));
        }
    }

    #[tokio::test]
    async fn gone_is_its_own_outcome() {
        let outcome = answered(|| (StatusCode::GONE, "moved away").into_response()).await;
        assert_eq!(outcome, Outcome::Gone { body: "moved away".to_owned() });
        assert_eq!(outcome.http_status(), Some(410));
        assert_eq!(outcome.response_body(), Some("moved away"));
    }

    #[tokio::test]
    async fn a_redirect_is_refused_and_not_followed() {
        for status in [301, 302, 303, 307, 308] {
            let code = StatusCode::from_u16(status).unwrap();
            let receiver = Receiver::speaking_http(move |path| match path {
                "/" => (code, [(LOCATION, "/elsewhere")]).into_response(),
                _ => StatusCode::OK.into_response(),
            })
            .await;
            assert_eq!(outcome(&receiver.url("/"), PATIENT).await, refused(status, "", None));
            assert_eq!(receiver.requests().len(), 1);
        }
    }

    #[tokio::test]
    async fn retry_after_is_read_as_seconds_and_as_a_date() {
        let soon = async |value: &'static str| {
            answered(move || (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, value)]).into_response()).await
        };
        assert_eq!(soon("120").await, refused(503, "", Some(120)));
        assert_eq!(soon("Tue, 24 Nov 2026 11:00:00 GMT").await, refused(503, "", Some(0)));
        assert_eq!(soon("whenever").await, refused(503, "", None));
        let Outcome::Refused { retry_after: Some(wait), .. } = soon("Tue, 24 Nov 2026 12:02:00 GMT").await
        else {
            panic!("the date was not read")
        };
        assert!(wait > Duration::from_secs(60) && wait < Duration::from_secs(120), "{wait:?}");
    }

    #[tokio::test]
    async fn interim_answers_are_passed_over() {
        let receiver = Receiver::after_request(async |mut stream| {
            let answer = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            stream.write_all(answer).await.unwrap();
        })
        .await;
        assert_eq!(outcome(&receiver.url("/"), PATIENT).await, succeeded(200, "ok"));
    }

    #[tokio::test]
    async fn a_refusal_before_the_request_was_read_is_still_an_answer() {
        let receiver = Receiver::scripted(async |mut stream| {
            let mut beginning = [0; 64];
            stream.read_exact(&mut beginning).await.unwrap();
            let answer = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            std::future::pending().await
        })
        .await;
        let target = target(&receiver.url("/"), PATIENT);
        let request = DeliveryRequest {
            target: &target,
            event_id: EVENT_ID.parse().unwrap(),
            correlation_id: "",
            traceparent: "",
            body: &vec![b' '; 8 * 1024 * 1024].into(),
            attempted_at: now(),
        };
        assert_eq!(client().deliver(&request).await.outcome, refused(413, "", None));
    }

    #[test]
    fn what_went_wrong_is_told_in_one_line() {
        assert_eq!(succeeded(200, "").error_message(), None);
        assert_eq!(refused(500, "no", None).error_message().unwrap(), "the receiver answered 500");
        assert_eq!(unreachable("connection refused").error_message().unwrap(), "connection refused");
    }
}

mod bodies {
    use super::*;

    const KEPT: usize = 16 * 1024;

    #[tokio::test]
    async fn no_more_than_16_kib_are_kept() {
        for (sent, kept) in [(KEPT, KEPT), (KEPT + 1, KEPT), (1024 * 1024, KEPT)] {
            let receiver = Receiver::speaking_http(move |_| "x".repeat(sent).into_response()).await;
            assert_eq!(outcome(&receiver.url("/"), PATIENT).await, succeeded(200, &"x".repeat(kept)));
        }
    }

    #[tokio::test]
    async fn a_connection_survives_an_answer_that_is_somewhat_longer() {
        let receiver = Receiver::speaking_http(|_| "x".repeat(40 * 1024).into_response()).await;
        let target = target(&receiver.url("/"), PATIENT);
        let client = client();
        for _ in 0..3 {
            deliver_at(&client, &target, now()).await;
        }
        assert_eq!(receiver.connections(), 1);
    }

    #[tokio::test]
    async fn an_endless_body_is_cut_and_its_connection_closed() {
        let (closed, mut was_closed) = tokio::sync::mpsc::channel(1);
        let receiver = Receiver::after_request(move |mut stream| {
            let closed = closed.clone();
            async move {
                stream.write_all(b"HTTP/1.1 500 Oh\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
                write_for_ever(&mut stream, b"4\r\nmore\r\n").await;
                closed.send(()).await.unwrap();
            }
        })
        .await;
        let outcome = outcome(&receiver.url("/"), PATIENT).await;
        assert_eq!(outcome, refused(500, &"more".repeat(KEPT / 4), None));
        tokio::time::timeout(PATIENT, was_closed.recv()).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn the_deadline_covers_a_body_that_drips() {
        for (head, expected) in [("200 OK", succeeded(200, "")), ("500 Oh", refused(500, "", None))] {
            let receiver = Receiver::after_request(move |mut stream| async move {
                let head = format!("HTTP/1.1 {head}\r\ncontent-length: 1000000\r\n\r\n");
                stream.write_all(head.as_bytes()).await.unwrap();
                let mut tick = tokio::time::interval(Duration::from_millis(10));
                while stream.write_all(b".").await.is_ok() {
                    tick.tick().await;
                }
            })
            .await;
            let exchange = deliver_at(&client(), &target(&receiver.url("/"), IMPATIENT), now()).await;
            assert_eq!(exchange.outcome.http_status(), expected.http_status());
            let body = exchange.outcome.response_body().unwrap();
            assert!(body.len() > 2 && body.len() < 1000 && body.chars().all(|c| c == '.'), "{body}");
            assert!(exchange.duration >= IMPATIENT && exchange.duration < PATIENT / 2);
        }
    }

    #[tokio::test]
    async fn a_reset_after_the_status_does_not_change_it() {
        for (head, expected) in [("202 OK", succeeded(202, "half")), ("500 Oh", refused(500, "half", None))] {
            let receiver = Receiver::after_request(move |mut stream| async move {
                let head = format!("HTTP/1.1 {head}\r\ncontent-length: 100\r\n\r\nhalf");
                stream.write_all(head.as_bytes()).await.unwrap();
                // Not a reset: that would also discard what was sent but not yet read.
                stream.shutdown().await.unwrap();
            })
            .await;
            assert_eq!(outcome(&receiver.url("/"), PATIENT).await, expected);
        }
    }

    #[tokio::test]
    async fn a_body_that_cannot_be_stored_as_it_is_becomes_text() {
        let receiver = Receiver::speaking_http(|_| b"a\0b\xff".to_vec().into_response()).await;
        assert_eq!(outcome(&receiver.url("/"), PATIENT).await, succeeded(200, "a\u{fffd}b\u{fffd}"));
    }
}

mod failures {
    use super::*;

    #[tokio::test]
    async fn a_refused_connection_is_named() {
        let address = Receiver::scripted(async |_| {}).await.address;
        let unused = tokio::net::TcpSocket::new_v4().unwrap();
        // Bound and not listening: nobody else gets the port, and connections to it are refused.
        unused.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        assert_ne!(unused.local_addr().unwrap(), address);
        let url = format!("http://{}/", unused.local_addr().unwrap());
        assert_eq!(outcome(&url, PATIENT).await, unreachable("connection refused"));
    }

    #[tokio::test]
    async fn a_reset_before_an_answer_is_named() {
        let receiver = Receiver::after_request(async |stream| stream.set_zero_linger().unwrap()).await;
        assert_eq!(outcome(&receiver.url("/"), PATIENT).await, unreachable("connection reset"));
    }

    #[tokio::test]
    async fn a_connection_closed_before_an_answer_is_named() {
        let receiver = Receiver::after_request(async |_| {}).await;
        let expected = unreachable("the connection was closed before an answer came");
        assert_eq!(outcome(&receiver.url("/"), PATIENT).await, expected);
        let receiver = Receiver::after_request(async |mut stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-le").await.unwrap();
        })
        .await;
        assert_eq!(outcome(&receiver.url("/"), PATIENT).await, expected);
    }

    #[tokio::test]
    async fn an_answer_that_is_not_http_is_named() {
        let receiver = Receiver::after_request(async |mut stream| {
            stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await.unwrap();
            std::future::pending().await
        })
        .await;
        assert_eq!(outcome(&receiver.url("/"), PATIENT).await, unreachable("the answer is not valid HTTP"));
    }

    #[tokio::test]
    async fn an_answer_before_the_request_is_named() {
        let receiver = Receiver::scripted(async |mut stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            std::future::pending().await
        })
        .await;
        // Whether the early answer is seen before the request leaves is a race; it is never a crash or a hang.
        let outcome = outcome(&receiver.url("/"), PATIENT).await;
        let early = unreachable("HTTP: received unexpected message from connection");
        assert!(outcome == early || outcome == succeeded(200, ""), "{outcome:?}");
    }

    #[tokio::test]
    async fn headers_without_end_are_not_read() {
        let receiver = Receiver::after_request(async |mut stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
            write_for_ever(&mut stream, format!("x: {}\r\n", "x".repeat(8000)).as_bytes()).await;
        })
        .await;
        let expected = unreachable("the headers of the answer are too large");
        assert_eq!(outcome(&receiver.url("/"), PATIENT).await, expected);
    }

    #[tokio::test]
    async fn the_deadline_covers_an_answer_that_does_not_come() {
        let receiver = Receiver::after_request(async |_stream| std::future::pending().await).await;
        let exchange = deliver_at(&client(), &target(&receiver.url("/"), IMPATIENT), now()).await;
        assert_eq!(exchange.outcome, timed_out("no answer within 0.3 s"));
        assert!(exchange.duration >= IMPATIENT && exchange.duration < PATIENT / 2);
    }

    #[tokio::test]
    async fn the_deadline_covers_headers_that_drip() {
        let receiver = Receiver::after_request(async |mut stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await.unwrap();
            let mut tick = tokio::time::interval(Duration::from_millis(10));
            while stream.write_all(b"x").await.is_ok() {
                tick.tick().await;
            }
        })
        .await;
        assert_eq!(outcome(&receiver.url("/"), IMPATIENT).await, timed_out("no answer within 0.3 s"));
    }

    #[tokio::test]
    async fn a_request_that_is_not_read_ends_by_the_deadline() {
        let receiver = Receiver::scripted(async |_stream| std::future::pending().await).await;
        let target = target(&receiver.url("/"), IMPATIENT);
        let request = DeliveryRequest {
            target: &target,
            event_id: EVENT_ID.parse().unwrap(),
            correlation_id: "",
            traceparent: "",
            body: &vec![b' '; 8 * 1024 * 1024].into(),
            attempted_at: now(),
        };
        assert_eq!(client().deliver(&request).await.outcome, timed_out("no answer within 0.3 s"));
    }
}

mod egress_is_checked {
    use super::*;

    const DENIED: &str = "the destination is a loopback address, which the platform does not allow";

    #[tokio::test]
    async fn every_form_of_loopback_is_denied_without_a_connection() {
        let receiver = Receiver::speaking_http(|_| StatusCode::OK.into_response()).await;
        let port = receiver.address.port();
        let client = client_with(&[]);
        for host in [
            "127.0.0.1",
            "127.1",
            "127.0.0.1.",
            "2130706433",
            "0x7f.1",
            "0x7f000001",
            "0177.0.0.1",
            "%31%32%37.0.0.1",
            "１２７.0.0.1",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::127.0.0.1]",
            "[64:ff9b::7f00:1]",
            "localhost",
            "LOCALHOST",
        ] {
            let target = target(&format!("http://{host}:{port}/"), PATIENT);
            let outcome = deliver_at(&client, &target, now()).await.outcome;
            assert_eq!(outcome, Outcome::Denied { message: DENIED.to_owned() }, "{host}");
        }
        assert_eq!(receiver.connections(), 0);
    }

    #[tokio::test]
    async fn other_internal_addresses_are_denied() {
        for host in ["0.0.0.0", "10.0.0.1", "169.254.169.254", "[fd00:ec2::254]", "[fe80::1]", "192.168.1.1"]
        {
            let target = target(&format!("http://{host}/"), PATIENT);
            let outcome = deliver_at(&client_with(&[]), &target, now()).await.outcome;
            assert!(matches!(outcome, Outcome::Denied { .. }), "{host}: {outcome:?}");
        }
    }

    #[tokio::test]
    async fn an_allowed_range_is_dialed_by_literal_and_by_name() {
        let receiver = Receiver::speaking_http(|_| StatusCode::OK.into_response()).await;
        for host in ["127.0.0.1", "2130706433", "localhost"] {
            let url = format!("http://{host}:{}/", receiver.address.port());
            assert_eq!(outcome(&url, PATIENT).await, succeeded(200, ""), "{host}");
        }
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_unreachable() {
        let outcome = outcome("http://no-such-name.invalid/", PATIENT).await;
        let Outcome::Unreachable { message } = outcome else { panic!("{outcome:?}") };
        assert!(message.starts_with("the name of the destination could not be resolved: "), "{message}");
    }
}
