//! Outcomes of responses.

use super::*;

async fn answered(answer: impl Fn() -> Response + Clone + Send + Sync + 'static) -> AttemptOutcome {
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
    assert_eq!(outcome, AttemptOutcome::Gone { body: "moved away".to_owned() });
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
    let AttemptOutcome::Refused { retry_after: Some(wait), .. } = soon("Tue, 24 Nov 2026 12:02:00 GMT").await
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
    assert_eq!(client().deliver(&request).await.outcome, refused(413, "", None));
}

#[test]
fn what_went_wrong_is_told_in_one_line() {
    assert_eq!(succeeded(200, "").error_message(), None);
    assert_eq!(refused(500, "no", None).error_message().unwrap(), "the receiver answered 500");
    assert_eq!(unreachable("connection refused").error_message().unwrap(), "connection refused");
}

/// Answers with this head, and a body of 2 bytes.
async fn answered_with_head(head: String) -> AttemptOutcome {
    let receiver = Receiver::after_request(move |mut stream| {
        let head = head.clone();
        async move {
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(b"content-length: 2\r\n\r\nok").await.unwrap();
            std::future::pending().await
        }
    })
    .await;
    outcome(&receiver.url("/"), PATIENT).await
}

#[tokio::test]
async fn the_status_decides_whatever_the_head_looks_like() {
    let many = |count: usize| (0..count).map(|number| format!("x-{number}: a\r\n")).collect::<String>();
    for head in [
        "HTTP/1.1 200\r\n".to_owned(),
        "HTTP/1.1 200 OK\nx-a: line feeds\n".to_owned(),
        "HTTP/1.1 200 OK\r\nX-Powered : php\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nX Powered By: php\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nx-folded: a\r\n b\r\n\tc\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nno colon at all\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nx-(brackets): a\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nx-latin: gr\u{fc}n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\n{}", many(150)),
        format!("HTTP/1.1 200 OK\r\n{}", many(255)),
        format!("HTTP/1.1 200 OK\r\nx-long: {}\r\n", "x".repeat(60 * 1024)),
        format!("HTTP/1.1 103 Early Hints\r\n{}\r\nHTTP/1.1 200 OK\r\n", many(200)),
    ] {
        assert_eq!(answered_with_head(head.clone()).await, succeeded(200, "ok"), "{head}");
    }
}

#[tokio::test]
async fn a_head_beyond_the_bounds_is_no_answer() {
    let many: String = (0..256).map(|number| format!("x-{number}: a\r\n")).collect();
    for head in [
        format!("HTTP/1.1 200 OK\r\n{many}"),
        format!("HTTP/1.1 200 OK\r\nx-long: {}\r\n", "x".repeat(64 * 1024)),
    ] {
        let expected = unreachable("the headers of the answer are too large");
        assert_eq!(answered_with_head(head).await, expected);
    }
}
