//! Paths that imitate another one.

use grapnel_testing::acme_event;

use super::super::harness::sign;
use super::super::harness::wire::{Wire, request};
use super::Target;

#[tokio::test]
async fn path_is_taken_as_it_is_written() {
    let target = Target::new().await;
    let body = acme_event("e-1");
    let signature = sign(body.as_bytes());
    let long = format!("/api/v1/webhooks/{}", "a".repeat(14_000));
    let deep = "/a".repeat(7_000);
    for (path, status) in [
        ("/api/v1/webhooks/%61cme", 404),
        ("/api/v1/webhooks/acme%2f", 404),
        ("/api/v1/webhooks/x%2facme", 404),
        ("/api/v1/webhooks%2facme", 404),
        ("/api/v1/webhooks/acme%00", 404),
        ("/api/v1/webhooks/%00acme", 404),
        ("/api/v1/webhooks/acme%20", 404),
        ("/api/v1/webhooks/acme%0d%0ax:y", 404),
        ("/api/v1/webhooks/acme;x=1", 404),
        ("/api/v1/webhooks/%", 404),
        ("/api/v1/webhooks/%zz", 404),
        ("/api/v1/webhooks/%ff", 404),
        ("/api/v1/webhooks/..", 404),
        ("/api/v1/webhooks/%2e%2e", 404),
        ("/api/v1/webhooks/../webhooks/acme", 404),
        ("/api/v1/webhooks/%2e%2e/webhooks/acme", 404),
        ("/api/v1/webhooks/./acme", 404),
        ("/api/v1/webhooks//acme", 404),
        ("//api/v1/webhooks/acme", 404),
        ("/api//v1/webhooks/acme", 404),
        ("/api/v1/events/..%2fwebhooks/acme", 404),
        ("/api/v1/internal/../webhooks/acme", 404),
        ("/%2e%2e/%2e%2e/%2e%2e/etc/passwd", 404),
        (deep.as_str(), 404),
        (long.as_str(), 404),
    ] {
        let mut wire = Wire::connect(target.platform.http_port).await;
        let bytes = request("POST", path, &[("x-acme-signature", &signature)], body.as_bytes());
        assert!(wire.send(bytes).await);
        let answer = wire.answer().await.expect("an answer");
        let shown = &path[..path.len().min(80)];
        assert_eq!((answer.status, answer.code().as_str()), (status, "NOT_FOUND"), "{shown}: {answer:?}");
    }
    target.assert_unharmed().await;
}

#[tokio::test]
async fn request_target_that_is_not_a_path_is_refused() {
    let target = Target::new().await;
    for (line, statuses) in [
        ("POST acme HTTP/1.1", &[400, 404][..]),
        ("POST * HTTP/1.1", &[400, 404]),
        ("OPTIONS * HTTP/1.1", &[400, 404, 405]),
        ("CONNECT example.com:443 HTTP/1.1", &[400, 404, 405]),
        ("POST http:///api/v1/webhooks/acme HTTP/1.1", &[400, 404]),
        ("POST ?/api/v1/webhooks/acme HTTP/1.1", &[400, 404]),
        ("GET /api/v1/health\u{e9} HTTP/1.1", &[400, 404]),
    ] {
        let mut wire = Wire::connect(target.platform.http_port).await;
        wire.send(format!("{line}\r\nhost: test\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")).await;
        let answer = wire.answer().await.expect("an answer");
        assert!(statuses.contains(&answer.status), "{line}: {answer:?}");
    }
    let (path, length) = (format!("/{}", "a".repeat(70_000)), 0);
    let mut wire = Wire::connect(target.platform.http_port).await;
    wire.send(format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n")).await;
    let answer = wire.answer().await.expect("an answer");
    assert!(matches!(answer.status, 414 | 431), "{answer:?}");
    target.assert_unharmed().await;
}
