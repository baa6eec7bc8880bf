//! The refused requests, with their status, and the order of the checks.

use grapnel_testing::{TestProcess, acme_event, unique_name};

use super::super::harness::wire::{Wire, request};
use super::super::harness::{Answer, Platform, acme_integration, integration, integration_named, sign};
use super::{assert_refused, nowhere};

/// Posts until a request is over a limit of one in a minute; a minute of the clock may end in between.
async fn post_over_the_limit(platform: &Platform, route: &str) {
    for _ in 0..3 {
        let path = format!("/api/v1/webhooks/{route}");
        if platform.post(&path, &[], "{}").await.status == 429 {
            return;
        }
    }
    panic!("three requests in a row were all within a limit of one");
}

#[tokio::test]
async fn refusals_come_in_the_order_of_the_contract() {
    let platform = Platform::new().await;
    let name = unique_name("limited");
    let small = "  ingress: {maxBodyBytes: 1024}\n";
    let limited = |state: &str| {
        let spec = format!("  state: {state}\n  ingress: {{maxBodyBytes: 1024, rateLimitPerMinute: 1}}\n");
        let limited = integration_named(&name, "acme", &spec, &[nowhere()]);
        integration("acme", small, &[nowhere()]) + "---\n" + &limited
    };
    let _api = platform.start_api(&limited("Active")).await;
    platform.wait_until_known(&name).await;
    let large = format!("{{\"filler\":\"{}\"}}", "x".repeat(1024));
    let acme = "/api/v1/webhooks/acme";
    let limited_path = format!("/api/v1/webhooks/{name}");

    post_over_the_limit(&platform, &name).await;
    let limit_before_size = platform.post(&limited_path, &[], &large).await;
    // The minute of the clock may have ended; then this request was the first of the next.
    if limit_before_size.status != 429 {
        assert_refused(&platform.post(&limited_path, &[], &large).await, 429, "RATE_LIMITED");
    }

    let size_before_credentials = platform.post(acme, &[("content-type", "text/plain")], &large).await;
    assert_refused(&size_before_credentials, 413, "PAYLOAD_TOO_LARGE");

    let headers = [("content-type", "text/plain"), ("x-acme-signature", "00")];
    assert_refused(&platform.post(acme, &headers, "no json").await, 401, "UNAUTHORIZED");

    let signature = sign(b"no json");
    let headers = [("content-type", "text/plain"), ("x-acme-signature", &signature)];
    assert_refused(&platform.post(acme, &headers, "no json").await, 415, "UNSUPPORTED_MEDIA_TYPE");

    let malformed = platform.post(acme, &[("x-acme-signature", &signature)], "no json").await;
    assert_refused(&malformed, 400, "VALIDATION_ERROR");

    // Requests to a route that is not served are not counted, and answered before the limit.
    platform.apply(&limited("Disabled")).await;
    platform.wait_for_status(&limited_path, 404).await;
    for _ in 0..3 {
        assert_refused(&platform.post(&limited_path, &[], &large).await, 404, "NOT_FOUND");
    }
}

/// Starts an api behind a trusted proxy, with a route that has this limit; returns its path.
async fn limited_behind_proxy(per_minute: u32) -> (Platform, TestProcess, String) {
    let mut platform = Platform::new().await;
    platform.set("GRAPNEL_TRUSTED_PROXIES", "127.0.0.0/8");
    let name = unique_name("limited");
    let spec = format!("  ingress: {{rateLimitPerMinute: {per_minute}}}\n");
    platform.apply(&integration_named(&name, "acme", &spec, &[nowhere()])).await;
    let api = platform.start(&["api"]);
    platform.wait_until_known(&name).await;
    (platform, api, format!("/api/v1/webhooks/{name}"))
}

#[tokio::test]
async fn over_the_limit_is_429_with_the_seconds_to_wait() {
    let (platform, _api, path) = limited_behind_proxy(3).await;
    let post = async |address: &str, number: usize| {
        let body = acme_event(&format!("{address}-{number}"));
        let signature = sign(body.as_bytes());
        let headers = [("x-acme-signature", signature.as_str()), ("x-forwarded-for", address)];
        platform.post(&path, &headers, &body).await
    };

    // A minute of the clock may end in between: three of the first minute and three of the second.
    let mut accepted = 0;
    let refused = loop {
        let answer = post("198.51.100.1", accepted).await;
        if answer.status == 429 {
            break answer;
        }
        assert_eq!(answer.status, 202, "{answer:?}");
        accepted += 1;
        assert!(accepted <= 6, "more than the limit was accepted");
    };
    assert!(accepted >= 3, "refused within the limit, after {accepted}");
    assert_refused(&refused, 429, "RATE_LIMITED");
    let seconds: u64 = refused.header("retry-after").parse().expect("seconds");
    assert!((1..=60).contains(&seconds), "{seconds}");

    // Each source address has a limit of its own.
    assert_eq!(post("198.51.100.2", 0).await.status, 202);
}

/// Posts to a route that a proxy has forwarded for an address.
async fn post_for(platform: &Platform, path: &str, address: &str, body: &str, signature: &str) -> Answer {
    platform.post(path, &[("x-acme-signature", signature), ("x-forwarded-for", address)], body).await
}

#[tokio::test]
async fn requests_of_strangers_do_not_use_up_the_limit_of_verified_ones() {
    let (platform, _api, path) = limited_behind_proxy(5).await;
    let signed = async |number: usize| {
        let body = acme_event(&format!("e-{number}"));
        post_for(&platform, &path, "198.51.100.1", &body, &sign(body.as_bytes())).await.status
    };
    let unsigned = async |address: &str| post_for(&platform, &path, address, "{}", "00").await.status;

    assert_eq!(signed(0).await, 202);
    // From the provider's own address, as many as it may send and more.
    for _ in 0..30 {
        assert_eq!(unsigned("198.51.100.1").await, 401);
    }
    for number in 1..5 {
        assert_eq!(signed(number).await, 202);
    }
    // A minute of the clock may end in between.
    let mut more = 5;
    while signed(more).await == 202 {
        more += 1;
        assert!(more <= 10, "more verified ones than the limit");
    }
    // An address that has never sent a verified one is refused before its request is read.
    let mut refused = 0;
    for _ in 0..11 {
        refused += usize::from(unsigned("198.51.100.2").await == 429);
    }
    assert!((1..=6).contains(&refused), "{refused} of 11 were refused");
}

#[tokio::test]
async fn ipv6_addresses_of_one_network_are_one_client() {
    let (platform, _api, path) = limited_behind_proxy(3).await;
    let unsigned = async |address: &str| post_for(&platform, &path, address, "{}", "00").await.status;
    let mut statuses = Vec::new();
    // Each from another address, of which some proxies also write the port. Two minutes of the clock allow six.
    for number in 1..8 {
        statuses.push(unsigned(&format!("[2001:db8:1:2::{number}]:443")).await);
    }
    assert!(statuses.contains(&429), "{statuses:?}");
    assert_eq!(unsigned("2001:db8:1:3::1").await, 401);
    assert_eq!(unsigned("198.51.100.7:5678").await, 401);
}

#[tokio::test]
async fn event_that_cannot_be_stored_is_503_with_a_retry_time() {
    let platform = Platform::new().await;
    let _api = platform.start_api(&acme_integration(&[nowhere()])).await;
    let rename = async |from: &str, to: &str| {
        platform.database.execute(&format!("ALTER TABLE {from} RENAME TO {to}")).await;
    };

    rename("idempotency_keys", "elsewhere").await;
    let refused = platform.post_acme(&acme_event("e-1")).await;
    assert_refused(&refused, 503, "DEPENDENCY_UNAVAILABLE");
    assert_eq!(refused.header("retry-after"), "5");
    assert_eq!(platform.count("SELECT count(*) FROM events").await, 0);

    rename("elsewhere", "idempotency_keys").await;
    assert_eq!(platform.post_acme(&acme_event("e-1")).await.status, 202);
}

#[tokio::test]
async fn announced_large_body_is_refused_before_it_is_sent() {
    let platform = Platform::new().await;
    let _api =
        platform.start_api(&integration("acme", "  ingress: {maxBodyBytes: 1024}\n", &[nowhere()])).await;

    let mut wire = Wire::connect(platform.http_port).await;
    let head = "POST /api/v1/webhooks/acme HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\n";
    assert!(wire.send(format!("{head}content-length: 1025\r\n\r\n")).await);
    // The first response is the refusal and not 100: the client was never asked to continue.
    assert_refused(&wire.answer().await.expect("an answer"), 413, "PAYLOAD_TOO_LARGE");

    let mut wire = Wire::connect(platform.http_port).await;
    assert!(wire.send(format!("{head}content-length: 10000000000000\r\n\r\n")).await);
    assert_refused(&wire.answer().await.expect("an answer"), 413, "PAYLOAD_TOO_LARGE");
}

#[tokio::test]
async fn chunked_body_is_refused_as_soon_as_it_is_too_large() {
    let platform = Platform::new().await;
    let _api =
        platform.start_api(&integration("acme", "  ingress: {maxBodyBytes: 1024}\n", &[nowhere()])).await;

    let mut wire = Wire::connect(platform.http_port).await;
    let head = "POST /api/v1/webhooks/acme HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n";
    assert!(wire.send(head).await);
    for _ in 0..3 {
        assert!(wire.send(format!("200\r\n{}\r\n", "x".repeat(512))).await);
    }
    // The body has not ended yet.
    assert_refused(&wire.answer().await.expect("an answer"), 413, "PAYLOAD_TOO_LARGE");
}

#[tokio::test]
async fn body_of_exactly_the_largest_size_is_accepted() {
    let platform = Platform::new().await;
    let _api =
        platform.start_api(&integration("acme", "  ingress: {maxBodyBytes: 1024}\n", &[nowhere()])).await;
    let event = acme_event("e-1");
    let fitting = event.clone() + &" ".repeat(1024 - event.len());
    assert_eq!(platform.post_acme(&fitting).await.status, 202);
    assert_refused(&platform.post_acme(&(fitting.clone() + " ")).await, 413, "PAYLOAD_TOO_LARGE");

    // Chunked, nothing is announced.
    let mut wire = Wire::connect(platform.http_port).await;
    let signature = sign(fitting.as_bytes());
    let head = format!(
        "POST /api/v1/webhooks/acme HTTP/1.1\r\nhost: test\r\nx-acme-signature: {signature}\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    assert!(
        wire.send(format!("{head}200\r\n{}\r\n200\r\n{}\r\n0\r\n\r\n", &fitting[..512], &fitting[512..]))
            .await
    );
    assert_eq!(wire.answer().await.expect("an answer").status, 200);
}

#[tokio::test]
async fn only_json_is_accepted_under_each_of_its_types() {
    let platform = Platform::new().await;
    let _api = platform.start_api(&acme_integration(&[nowhere()])).await;
    let body = acme_event("e-1");
    let signature = sign(body.as_bytes());
    let check = async |content_type: Option<&str>, status: u16| {
        let mut headers = vec![("x-acme-signature", signature.as_str())];
        headers.extend(content_type.map(|value| ("content-type", value)));
        let answer = platform.post("/api/v1/webhooks/acme", &headers, &body).await;
        assert_eq!(answer.status, status, "{content_type:?}: {answer:?}");
    };
    check(None, 202).await;
    for json in [
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/cloudevents+json",
        "application/vnd.acme.order+JSON;v=1",
    ] {
        check(Some(json), 200).await;
    }
    for other in
        ["text/plain", "text/json", "application/xml", "application/x-www-form-urlencoded", "json", "*/*"]
    {
        check(Some(other), 415).await;
    }
}

#[tokio::test]
async fn other_methods_are_405_and_name_the_allowed_one() {
    let platform = Platform::new().await;
    let _api = platform.start_api(&acme_integration(&[nowhere()])).await;
    let send = async |method: &str, path: &str| {
        let mut wire = Wire::connect(platform.http_port).await;
        assert!(wire.send(request(method, path, &[("connection", "close")], b"")).await);
        let answer = wire.answer().await.expect("an answer");
        (answer, wire)
    };
    for method in ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
        for route in ["acme", "unknown"] {
            let (answer, _) = send(method, &format!("/api/v1/webhooks/{route}")).await;
            assert_refused(&answer, 405, "METHOD_NOT_ALLOWED");
            assert_eq!(answer.header("allow"), "POST", "{method}");
        }
    }
    for method in ["POST", "DELETE"] {
        let (answer, _) = send(method, "/api/v1/health").await;
        assert_refused(&answer, 405, "METHOD_NOT_ALLOWED");
        assert_eq!(answer.header("allow"), "GET,HEAD");
    }
    let head = platform.http.head(platform.url("/api/v1/webhooks/acme")).send().await.expect("an answer");
    assert_eq!((head.status().as_u16(), head.headers()["allow"].as_bytes()), (405, &b"POST"[..]));
}

#[tokio::test]
async fn path_that_is_not_exactly_a_route_is_404() {
    let platform = Platform::new().await;
    let _api = platform.start_api(&acme_integration(&[nowhere()])).await;
    let body = acme_event("e-1");
    let signature = sign(body.as_bytes());
    for path in [
        "/api/v1/webhooks/acme//",
        "/api/v1/webhooks/acme/x",
        "/api/v1/webhooks/ACME",
        "/api/v1/webhooks/acm",
        "/api/v1/webhooks/acme1",
        "/api/v1/webhooks/",
        "/api/v1/webhooks",
        "/api/v1/Webhooks/acme",
        "/api/v2/webhooks/acme",
        "/webhooks/acme",
        "/api/v1/health/",
        "/api/v1/",
        "/api/v1",
        "/",
    ] {
        let answer = platform.post(path, &[("x-acme-signature", &signature)], &body).await;
        assert_refused(&answer, 404, "NOT_FOUND");
    }
    assert_eq!(
        platform
            .post("/api/v1/webhooks/acme?from=test", &[("x-acme-signature", &signature)], &body)
            .await
            .status,
        202
    );
}
