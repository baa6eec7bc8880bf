//! Request lines and headers that no client should send.

use grapnel_testing::acme_event;

use super::super::harness::sign;
use super::super::harness::wire::{Wire, request};
use super::Target;

const ROUTE: &str = "/api/v1/webhooks/acme";

/// Returns a good webhook, to follow another request on the same connection.
fn follow_up() -> String {
    let body = acme_event("smuggled");
    let signature = sign(body.as_bytes());
    let headers = [("x-acme-signature", signature.as_str()), ("connection", "close")];
    String::from_utf8(request("POST", ROUTE, &headers, body.as_bytes())).expect("text")
}

/// Sends bytes and waits until the connection is closed. Returns the status of the first response, if any, and the whole
/// text.
async fn say(target: &Target, bytes: impl AsRef<[u8]>) -> (Option<u16>, String) {
    let mut wire = Wire::connect(target.platform.http_port).await;
    wire.send(bytes).await;
    let said = wire.reader.until_closed().await;
    let status = said.strip_prefix("HTTP/1.1 ").and_then(|rest| rest[..3].parse().ok());
    (status, said)
}

#[tokio::test]
async fn flood_of_headers_is_431() {
    let target = Target::new().await;
    let many = |count: usize| {
        let headers: String = (0..count).map(|number| format!("x-{number}: 1\r\n")).collect();
        format!(
            "POST {ROUTE} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: 0\r\n{headers}\r\n"
        )
    };
    let (status, _) = say(&target, many(90)).await;
    assert_eq!(status, Some(401), "as many as that are fine");
    for count in [101, 1_000, 20_000] {
        let (status, said) = say(&target, many(count)).await;
        assert_eq!(status, Some(431), "{count}: {said}");
    }
    for (name, value) in [(8, 70_000), (70_000, 8), (8, 10_000_000)] {
        let header = format!("{}: {}\r\n", "x".repeat(name), "y".repeat(value));
        let (status, said) =
            say(&target, format!("POST {ROUTE} HTTP/1.1\r\nhost: test\r\n{header}\r\n")).await;
        // The larger one may be cut off before its sender has read the response.
        assert!(
            matches!(status, Some(400 | 431)) || value > 1_000_000 && status.is_none(),
            "{name} {value}: {said}"
        );
    }
    // One line that never ends.
    let (status, _) = say(&target, "G".repeat(10_000_000)).await;
    assert!(matches!(status, Some(400 | 414 | 431) | None), "{status:?}");
    target.assert_unharmed().await;
}

#[tokio::test]
async fn requests_on_one_connection_are_answered_one_by_one() {
    let target = Target::new().await;
    let first = format!("POST {ROUTE} HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\n\r\n{{}}");
    let last = follow_up().replace("smuggled", "not-signed-for");
    let (_, said) = say(&target, first + &last).await;
    assert_eq!(said.matches("HTTP/1.1 401 ").count(), 2, "{said}");
    target.assert_unharmed().await;
}

#[tokio::test]
async fn invalid_length_is_refused_and_its_body_is_not_a_request() {
    let target = Target::new().await;
    for lengths in [
        &["-1"][..],
        &["+5"],
        &["abc"],
        &["1e3"],
        &["0x10"],
        &["5, 6"],
        &["5", "6"],
        &["18446744073709551614"],
        &["18446744073709551615"],
        &["18446744073709551616"],
        &["99999999999999999999999999999999"],
        &["5;5"],
        &["5 5"],
        &[""],
    ] {
        let headers: String = lengths.iter().map(|length| format!("content-length: {length}\r\n")).collect();
        let head = format!("POST {ROUTE} HTTP/1.1\r\nhost: test\r\n{headers}\r\n");
        let (status, said) = say(&target, head + &follow_up()).await;
        // The largest numbers are valid lengths, and exceed every limit.
        assert!(matches!(status, Some(400 | 413 | 431)), "{lengths:?}: {said}");
        assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{lengths:?}: {said}");
    }
    target.assert_unharmed().await;
}

/// A proxy in front and the api must not disagree about the end of such a request: either it is refused, or the connection
/// ends with it.
#[tokio::test]
async fn request_whose_end_is_ambiguous_smuggles_nothing() {
    let target = Target::new().await;
    let both = format!("content-length: {}\r\ntransfer-encoding: chunked", follow_up().len() + 5);
    let chunked = "transfer-encoding: chunked";
    let last_chunk = "0\r\n\r\n";
    let long_extension = format!("2;{}\r\n{{}}\r\n0\r\n\r\n", "x".repeat(100_000));
    let long_trailer = format!("0\r\nx: {}\r\n\r\n", "y".repeat(200_000));
    for (headers, body) in [
        // Two lengths: the follow-up is a body by one of them and a request by the other.
        (both.as_str(), last_chunk),
        ("transfer-encoding: chunked\r\ncontent-length: 5", last_chunk),
        ("content-length: 3\r\ntransfer-encoding: chunked", "2\r\n{}\r\n0\r\n\r\n"),
        // Encodings that only one of the two may understand.
        ("transfer-encoding: xchunked", last_chunk),
        ("transfer-encoding: chunked, identity", last_chunk),
        ("transfer-encoding: identity", ""),
        ("transfer-encoding: chunked\r\ntransfer-encoding: identity", last_chunk),
        ("transfer-encoding : chunked", last_chunk),
        ("transfer-encoding:\r\n chunked", last_chunk),
        ("x: y\r\n transfer-encoding: chunked", ""),
        // Chunk sizes that are too large, negative, in another base, in two parts, without digits, without an end.
        (chunked, "10000000000000000\r\n"),
        (chunked, "ffffffffffffffff\r\n"),
        (chunked, "-1\r\n"),
        (chunked, "0x2\r\n{}\r\n0\r\n\r\n"),
        (chunked, "2 2\r\n{}\r\n0\r\n\r\n"),
        (chunked, "2\n{}\r\n0\r\n\r\n"),
        (chunked, "\r\n"),
        (chunked, &long_extension),
        (chunked, &long_trailer),
    ] {
        let head = format!("POST {ROUTE} HTTP/1.1\r\nhost: test\r\n{headers}\r\n\r\n");
        let (status, said) = say(&target, head + body + &follow_up()).await;
        let shown = (headers, &body[..body.len().min(40)], &said[..said.len().min(300)]);
        assert!(matches!(status, Some(400 | 401)), "{shown:?}");
        assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{shown:?}");
        assert_eq!(target.platform.count("SELECT count(*) FROM events").await, 1, "{shown:?}");
    }
    target.assert_unharmed().await;
}

#[tokio::test]
async fn malformed_request_line_or_header_is_400() {
    let target = Target::new().await;
    for start in [
        "POST\r\n\r\n",
        "POST /\r\n\r\n",
        "POST  / HTTP/1.1\r\n\r\n",
        "P\0ST / HTTP/1.1\r\n\r\n",
        "POST /\0 HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nx y: z\r\n\r\n",
        "POST / HTTP/1.1\r\n: z\r\n\r\n",
        "POST / HTTP/1.1\r\nx: a\0b\r\n\r\n",
        "POST / HTTP/1.1\r\nx: a\rb\r\n\r\n",
        "POST / HTTP/9.9\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}",
        "\0\0\0\0\0\0\0\0\0\0\0\0\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
    ] {
        let (status, said) = say(&target, start).await;
        assert!(matches!(status, Some(400)), "{start:?}: {said}");
    }
    target.assert_unharmed().await;
}

#[tokio::test]
async fn signature_given_twice_is_401_even_if_one_is_valid() {
    let target = Target::new().await;
    let body = acme_event("e-1");
    let right = sign(body.as_bytes());
    let wrong = sign(b"other");
    for signatures in [[&right, &right], [&right, &wrong], [&wrong, &right]] {
        let mut headers = vec![("connection", "close")];
        headers.extend(signatures.map(|signature| ("x-acme-signature", signature.as_str())));
        let (status, said) = say(&target, request("POST", ROUTE, &headers, body.as_bytes())).await;
        assert_eq!(status, Some(401), "{said}");
    }
    let joined = format!("{right}, {right}");
    let headers = [("x-acme-signature", joined.as_str()), ("connection", "close")];
    let (status, said) = say(&target, request("POST", ROUTE, &headers, body.as_bytes())).await;
    assert_eq!(status, Some(401), "{said}");
    target.assert_unharmed().await;
}

#[tokio::test]
async fn credentials_that_are_not_text_are_401() {
    let target = Target::new().await;
    let mut bytes = format!(
        "POST {ROUTE} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: 2\r\nx-acme-signature: "
    )
    .into_bytes();
    bytes.extend((0x80..=0xff).cycle().take(64));
    bytes.extend(b"\r\n\r\n{}");
    let (status, said) = say(&target, bytes).await;
    assert_eq!(status, Some(401), "{said}");
    target.assert_unharmed().await;
}
