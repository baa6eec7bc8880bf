//! How much of a body is read, and for how long.

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
            let head = format!("HTTP/1.1 {head}\r\ncontent-length: 1000000\r\n\r\n.");
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut tick = tokio::time::interval(Duration::from_millis(10));
            while stream.write_all(b".").await.is_ok() {
                tick.tick().await;
            }
        })
        .await;
        let measured = deliver_at(&client(), &target(&receiver.url("/"), IMPATIENT), now()).await;
        assert_eq!(measured.outcome.http_status(), expected.http_status());
        let body = measured.outcome.response_body().unwrap();
        assert!(!body.is_empty() && body.len() < 1000 && body.chars().all(|c| c == '.'), "{body}");
        assert!(measured.duration >= IMPATIENT && measured.duration < PATIENT / 2);
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
