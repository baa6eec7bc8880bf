//! Connections that are used again, and those that were closed meanwhile.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::*;
use receiver::{answer_requests, read_request};

/// Answers the first requests of each connection, reads one more, and then runs `end`.
async fn answering_first<F, R>(count: usize, end: F) -> Receiver
where
    F: Fn(tokio::net::TcpStream) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    Receiver::scripted(move |mut stream| {
        let end = end.clone();
        async move {
            answer_requests(&mut stream, count).await;
            read_request(&mut stream).await;
            end(stream).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_request_that_met_a_closing_connection_is_sent_again_on_a_new_one() {
    for is_reset in [false, true] {
        let receiver = answering_first(2, move |stream| async move {
            if is_reset {
                stream.set_zero_linger().unwrap();
            }
        })
        .await;
        let (client, target) = (client(), target(&receiver.url("/"), PATIENT));
        for _ in 0..9 {
            assert_eq!(deliver_at(&client, &target, now()).await.outcome, succeeded(200, ""));
        }
        // The third request of each connection is the first of the next.
        assert_eq!(receiver.connections(), 5);
    }
}

#[tokio::test]
async fn a_receiver_that_closes_every_idle_connection_loses_nothing() {
    let received = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&received);
    let receiver = Receiver::scripted(move |mut stream| {
        let counted = Arc::clone(&counted);
        async move {
            read_request(&mut stream).await;
            counted.fetch_add(1, Ordering::SeqCst);
            // Keep-alive is announced and not kept.
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        }
    })
    .await;
    let (client, target) = (client(), target(&receiver.url("/"), PATIENT));
    for _ in 0..50 {
        assert_eq!(deliver_at(&client, &target, now()).await.outcome, succeeded(200, ""));
    }
    assert_eq!(received.load(Ordering::SeqCst), 50);
}

#[tokio::test]
async fn a_request_is_sent_again_only_once() {
    let connections = Arc::new(AtomicUsize::new(0));
    let receiver = Receiver::scripted(move |mut stream| {
        let number = connections.fetch_add(1, Ordering::SeqCst);
        async move {
            if number == 0 {
                answer_requests(&mut stream, 1).await;
            }
            read_request(&mut stream).await;
        }
    })
    .await;
    let (client, target) = (client(), target(&receiver.url("/"), PATIENT));
    deliver_at(&client, &target, now()).await;
    let expected = unreachable("the connection was closed before an answer came");
    assert_eq!(deliver_at(&client, &target, now()).await.outcome, expected);
    assert_eq!(receiver.connections(), 2);
}

#[tokio::test]
async fn a_request_whose_answer_began_is_not_sent_again() {
    for beginning in [&b"H"[..], b"HTTP/1.1 200 OK\r\ncontent-le", b"HTTP/1.1 103 Early Hints\r\n\r\n"] {
        let receiver = answering_first(1, move |mut stream| async move {
            stream.write_all(beginning).await.unwrap();
            stream.shutdown().await.unwrap();
        })
        .await;
        let (client, target) = (client(), target(&receiver.url("/"), PATIENT));
        deliver_at(&client, &target, now()).await;
        let expected = unreachable("the connection was closed before an answer came");
        assert_eq!(deliver_at(&client, &target, now()).await.outcome, expected);
        assert_eq!(receiver.connections(), 1, "{beginning:?}");
    }
}

#[tokio::test]
async fn a_request_on_a_new_connection_is_not_sent_again() {
    let receiver = Receiver::after_request(async |_| {}).await;
    outcome(&receiver.url("/"), PATIENT).await;
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn a_connection_is_closed_before_the_receiver_would_close_it() {
    let (closed, was_closed) = mpsc::channel();
    let receiver = Receiver::scripted(move |mut stream| {
        let closed = closed.clone();
        async move {
            read_request(&mut stream).await;
            let answer = b"HTTP/1.1 200 OK\r\nkeep-alive: timeout=2\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
            closed.send(()).unwrap();
        }
    })
    .await;
    let client = client();
    deliver_at(&client, &target(&receiver.url("/"), PATIENT), now()).await;
    let was_closed = tokio::task::spawn_blocking(move || was_closed.recv_timeout(PATIENT));
    was_closed.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_of_which_a_close_is_announced_is_not_used_again() {
    for header in ["connection: close", "keep-alive: timeout=1"] {
        let receiver = Receiver::after_request(move |mut stream| async move {
            let answer = format!("HTTP/1.1 200 OK\r\n{header}\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            std::future::pending().await
        })
        .await;
        let (client, target) = (client(), target(&receiver.url("/"), PATIENT));
        for _ in 0..2 {
            assert_eq!(deliver_at(&client, &target, now()).await.outcome, succeeded(200, ""));
        }
        assert_eq!(receiver.connections(), 2, "{header}");
    }
}

#[tokio::test]
async fn what_comes_after_an_answer_is_not_the_next_one() {
    let receiver = Receiver::after_request(async |mut stream| {
        let answers =
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 500 Stray\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answers).await.unwrap();
        std::future::pending().await
    })
    .await;
    let (client, target) = (client(), target(&receiver.url("/"), PATIENT));
    for _ in 0..3 {
        assert_eq!(deliver_at(&client, &target, now()).await.outcome, succeeded(200, ""));
    }
}

#[tokio::test]
async fn concurrent_attempts_have_connections_of_their_own() {
    let receiver = Receiver::speaking_http(|_| StatusCode::OK.into_response()).await;
    let (client, target) = (client(), target(&receiver.url("/"), PATIENT));
    for _ in 0..2 {
        let attempts = (0..20).map(|_| deliver_at(&client, &target, now()));
        for measured in futures::future::join_all(attempts).await {
            assert_eq!(measured.outcome, succeeded(200, ""));
        }
    }
    assert_eq!(receiver.requests().len(), 40);
    assert!(receiver.connections() <= 20, "{}", receiver.connections());
}

#[tokio::test]
async fn an_attempt_that_is_given_up_closes_its_connection() {
    let (closed, mut was_closed) = tokio::sync::mpsc::channel(1);
    let (asked, mut was_asked) = tokio::sync::mpsc::channel(1);
    let receiver = Receiver::after_request(move |mut stream| {
        let (asked, closed) = (asked.clone(), closed.clone());
        async move {
            asked.send(()).await.unwrap();
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
            closed.send(()).await.unwrap();
        }
    })
    .await;
    let (client, target) = (client(), target(&receiver.url("/"), PATIENT));
    let attempt = tokio::spawn(async move { deliver_at(&client, &target, now()).await });
    was_asked.recv().await.unwrap();
    attempt.abort();
    tokio::time::timeout(PATIENT, was_closed.recv()).await.unwrap().unwrap();
}
