//! Messages of failures without a response.

use super::*;

#[tokio::test]
async fn a_refused_connection_is_named() {
    let unused = tokio::net::TcpSocket::new_v4().unwrap();
    // Bound and not listening: nobody else gets the port, and connections to it are refused.
    unused.bind("127.0.0.1:0".parse().unwrap()).unwrap();
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
    let measured = deliver_at(&client(), &target(&receiver.url("/"), IMPATIENT), now()).await;
    assert_eq!(measured.outcome, timed_out("no answer within 0.5 s"));
    assert!(measured.duration >= IMPATIENT && measured.duration < PATIENT / 2);
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
    assert_eq!(outcome(&receiver.url("/"), IMPATIENT).await, timed_out("no answer within 0.5 s"));
}

#[tokio::test]
async fn a_request_that_is_not_read_ends_by_the_deadline() {
    let receiver = Receiver::scripted(async |_stream| std::future::pending().await).await;
    let target = target(&receiver.url("/"), IMPATIENT);
    let request = DeliveryRequest {
        target: &target,
        event_id: EVENT_ID.parse().unwrap(),
        event_type: "order.created",
        external_event_id: None,
        attempt: 1,
        further_headers: &[],
        authorization: None,
        correlation_id: "",
        traceparent: "",
        hops: 0,
        body: &vec![b' '; 8 * 1024 * 1024].into(),
        content_type: None,
        attempted_at: now(),
    };
    assert_eq!(client().deliver(&request).await.outcome, timed_out("no answer within 0.5 s"));
}
