//! Slow senders, and those that only hold a connection.

use std::time::Duration;

use futures::future::join_all;
use grapnel_testing::acme_event;
use tokio::time::{Instant, sleep, timeout};

use super::super::harness::sign;
use super::super::harness::wire::{Wire, request};
use super::Target;

/// The deadlines of the public port, with the delay of a busy machine.
const HEADER_DEADLINE: Duration = Duration::from_secs(15);
const BODY_PACE: Duration = Duration::from_secs(5);
const MARGIN: Duration = Duration::from_secs(45);

/// Sends the start, then the piece repeatedly, until the connection is closed. Returns the time that it took, and the
/// response.
async fn trickle(port: u16, start: &[u8], piece: &[u8]) -> (Duration, String) {
    let Wire { mut reader, mut writer } = Wire::connect(port).await;
    let began = Instant::now();
    writer.send(start).await;
    let writing = async {
        loop {
            sleep(Duration::from_millis(500)).await;
            if !piece.is_empty() && !writer.send(piece).await {
                return std::future::pending::<()>().await;
            }
        }
    };
    let said = tokio::select! {
        said = reader.until_closed() => said,
        () = writing => unreachable!("never ends"),
    };
    (began.elapsed(), said)
}

#[tokio::test]
async fn body_that_arrives_too_slowly_is_cut_off() {
    let target = Target::new().await;
    let port = target.platform.http_port;
    let head = "POST /api/v1/webhooks/acme HTTP/1.1\r\nhost: test\r\n";
    let announced = format!("{head}content-length: 1000\r\n\r\n{{");
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n");
    let attacks = [
        trickle(port, announced.as_bytes(), b""),
        trickle(port, announced.as_bytes(), b" "),
        trickle(port, chunked.as_bytes(), b"1\r\n \r\n"),
        trickle(port, chunked.as_bytes(), b"0"),
    ];
    for (took, said) in join_all(attacks).await {
        assert!(took >= BODY_PACE && took < BODY_PACE + MARGIN, "{took:?}: {said}");
        assert!(said.starts_with("HTTP/1.1 400 ") && said.contains("VALIDATION_ERROR"), "{said}");
    }
    target.assert_unharmed().await;
}

#[tokio::test]
async fn connection_without_a_whole_request_is_closed_in_time() {
    let target = Target::new().await;
    let port = target.platform.http_port;
    let line = b"POST /api/v1/webhooks/acme HTTP/1.1\r\n";
    let answered = b"GET /api/v1/health HTTP/1.1\r\nhost: test\r\n\r\n";
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let attacks = [
        ("nothing at all", trickle(port, b"", b"")),
        ("the letter that both versions begin with", trickle(port, b"P", b"")),
        ("most of the preface of HTTP/2", trickle(port, &preface[..23], b"")),
        ("the preface and no request", trickle(port, preface, b"")),
        ("a request line", trickle(port, line, b"")),
        ("a header again and again", trickle(port, line, b"x: y\r\n")),
        ("a letter again and again", trickle(port, line, b"x")),
        ("a letter again and again after an answer", trickle(port, answered, b"x")),
    ];
    let attacks =
        attacks.map(|(what, attack)| async move { (what, timeout(HEADER_DEADLINE + MARGIN, attack).await) });
    for (what, closed) in join_all(attacks).await {
        assert!(closed.is_ok(), "a connection that sends {what} stays");
    }
    target.assert_unharmed().await;
}

/// The api serves others in the meantime.
#[tokio::test]
async fn many_held_connections_do_not_hold_up_a_good_webhook() {
    let target = Target::new().await;
    let port = target.platform.http_port;
    let head = b"POST /api/v1/webhooks/acme HTTP/1.1\r\nhost: test\r\ncontent-length: 1000\r\n";
    let mut held = Vec::new();
    for number in 0..400 {
        let mut wire = Wire::connect(port).await;
        match number % 4 {
            0 => {}
            1 => assert!(wire.send(b"P").await),
            2 => assert!(wire.send(head).await),
            _ => assert!(wire.send([&head[..], b"\r\n{"].concat()).await),
        }
        held.push(wire);
    }
    // On a new connection, as another sender would.
    let body = acme_event("before");
    let signature = sign(body.as_bytes());
    let mut wire = Wire::connect(port).await;
    let began = Instant::now();
    wire.send(request("POST", "/api/v1/webhooks/acme", &[("x-acme-signature", &signature)], body.as_bytes()))
        .await;
    assert_eq!(wire.answer().await.expect("an answer").status, 200);
    // Until then those are open.
    assert!(began.elapsed() < HEADER_DEADLINE, "{:?}", began.elapsed());
    target.assert_bounded();
    drop(held);
    target.assert_unharmed().await;
}
