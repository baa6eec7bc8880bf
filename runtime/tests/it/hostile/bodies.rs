//! Bodies that are not events.

use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::join_all;
use futures::{FutureExt, join};
use grapnel_testing::{acme_event, wait_until};

use super::super::harness::wire::{Wire, request};
use super::super::harness::{destination, integration, sign};
use super::Target;

const ROUTE: &str = "/api/v1/webhooks/acme";

/// Posts a body with a signature, so that it is read.
async fn post_signed(target: &Target, body: &[u8]) -> (u16, String, String) {
    let signature = sign(body);
    let mut wire = Wire::connect(target.platform.http_port).await;
    let bytes = request("POST", ROUTE, &[("x-acme-signature", &signature)], body);
    assert!(wire.send(bytes).await);
    let answer = wire.answer().await.expect("an answer");
    (answer.status, answer.code(), answer.field())
}

#[tokio::test]
async fn body_that_is_not_an_event_is_400() {
    let target = Target::new().await;
    let event = acme_event("e-1");
    let in_data = |value: &[u8]| {
        let (before, after) = event.split_once("12").expect("a number");
        [before.as_bytes(), value, after.as_bytes()].concat()
    };
    let nested = |open: &str, close: &str| {
        in_data(format!("{}1{}", open.repeat(10_000), close.repeat(10_000)).as_bytes())
    };
    let bodies: Vec<Vec<u8>> = vec![
        vec![],
        b"null".to_vec(),
        b"[]".to_vec(),
        b"\"text\"".to_vec(),
        b"12".to_vec(),
        b"{".to_vec(),
        b"{}{}".to_vec(),
        b"\xef\xbb\xbf\xef\xbb\xbf{}".to_vec(),
        b"\xff\xfe{\0}\0".to_vec(),
        vec![0; 1000],
        // Invalid UTF-8: a lone byte, an overlong slash, a surrogate, a truncated character.
        in_data(b"\"\xff\""),
        in_data(b"\"\xc0\xaf\""),
        in_data(b"\"\xed\xa0\x80\""),
        in_data(b"\"\xe2\x82\""),
        // Values that JSON does not have.
        in_data(b"\"\0\""),
        in_data(b"\"a\nb\""),
        in_data(b"'x'"),
        in_data(b"NaN"),
        in_data(b"Infinity"),
        in_data(b"0x10"),
        in_data(b"01"),
        in_data(b"1."),
        in_data(b"1e"),
        in_data(b"+1"),
        in_data(b"\"\\u12\""),
        in_data(b"\"\\x41\""),
        in_data(b"1 /* comment */"),
        // 10,000 levels, closed, open, and inside an unknown member.
        nested("[", "]"),
        nested("{\"a\":", "}"),
        "[".repeat(1_000_000).into_bytes(),
        format!("{{\"x\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000)).into_bytes(),
    ];
    for body in &bodies {
        let start = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let (status, code, field) = post_signed(&target, body).await;
        assert_eq!((status, code.as_str(), field.as_str()), (400, "VALIDATION_ERROR", "body"), "{start}");
    }
    target.assert_unharmed().await;
}

#[tokio::test]
async fn number_of_any_size_is_refused_only_where_a_text_is_needed() {
    let target = Target::new().await;
    let digits = "9".repeat(100_000);
    for number in ["1e999", "-1e999999999999999999", digits.as_str(), &format!("0.{digits}e-{digits}")] {
        for field in ["eventId", "eventType", "occurredAt"] {
            let mut event: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(&acme_event("e-1")).expect("JSON");
            event.remove(field);
            let rest = serde_json::to_string(&event).expect("JSON");
            let body = rest.replacen('{', &format!("{{\"{field}\":{number},"), 1);
            let (status, _, named) = post_signed(&target, body.as_bytes()).await;
            assert_eq!((status, named.as_str()), (400, field));
        }
    }
    target.assert_unharmed().await;
}

#[tokio::test]
async fn endless_body_is_refused_without_being_read_on() {
    let target = Target::new().await;
    let attack = async |head: &str, chunk: &[u8]| {
        let mut wire = Wire::connect(target.platform.http_port).await;
        let start = format!("POST {ROUTE} HTTP/1.1\r\nhost: test\r\n{head}\r\n\r\n");
        assert!(wire.send(start).await);
        let mut taken = 0;
        while taken < 64 * 1024 * 1024 && wire.send(chunk).await {
            taken += chunk.len();
        }
        // The buffers of the system on both sides are filled; the rest is never read.
        assert!(taken < 32 * 1024 * 1024, "{head}: {taken} bytes were taken");
    };
    let filler = vec![b'x'; 64 * 1024];
    let chunk = [b"10000\r\n", filler.as_slice(), b"\r\n"].concat();
    let announced = attack("content-length: 1099511627776", &filler);
    let chunked = attack("transfer-encoding: chunked", &chunk);
    let many_small = attack("transfer-encoding: chunked", b"1\r\nx\r\n");
    join!(announced, chunked, many_small);
    target.assert_unharmed().await;
}

/// Together they would be 320 MiB. Some are refused with a retry time, since there is no room; the others are cut off at the
/// deadline, and then there is room again.
#[tokio::test]
async fn many_unfinished_bodies_hold_bounded_memory() {
    const LARGEST: usize = 10 * 1024 * 1024;
    let spec = format!("  ingress: {{maxBodyBytes: {LARGEST}}}\n");
    let destination = destination("orders", "http://127.0.0.1:9/");
    let target = Target::with(&integration("acme", &spec, &[destination])).await;
    let head = format!("POST {ROUTE} HTTP/1.1\r\nhost: test\r\ncontent-length: {LARGEST}\r\n\r\n");
    let almost = vec![b' '; LARGEST - 1];
    let attacks = join_all((0..32).map(|_| async {
        let mut wire = Wire::connect(target.platform.http_port).await;
        wire.send(&head).await;
        wire.send(&almost).await;
        // The response is lost if the sender was still sending.
        let answer = wire.answer().await?;
        if answer.status == 503 {
            assert_eq!(answer.header("retry-after"), "5");
        }
        Some(answer.status)
    }));
    let over = AtomicBool::new(false);
    let meanwhile = wait_until("the end of the attacks", || async {
        target.assert_bounded();
        over.load(Ordering::Relaxed)
    });
    let attacks = attacks.inspect(|_| over.store(true, Ordering::Relaxed));
    let (answers, _) = join!(attacks, meanwhile);
    let cut_off = answers.iter().filter(|answer| **answer == Some(400)).count();
    assert!(cut_off <= 6, "{cut_off} bodies of 10 MiB were in memory at once");
    assert!(answers.iter().all(|answer| matches!(answer, None | Some(400 | 503))), "{answers:?}");
    // As large as these, and read to its end before its credentials are verified.
    assert_eq!(target.platform.post(ROUTE, &[], &" ".repeat(LARGEST)).await.status, 401);
    target.assert_unharmed().await;
}
