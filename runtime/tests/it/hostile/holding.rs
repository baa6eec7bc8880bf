//! Clients that hold what they can: connections, answers that they do not read, bodies that they do not end.

use std::time::Duration;

use futures::FutureExt;
use futures::future::{join_all, select_all};
use grapnel_testing::{acme_event, free_port, wait_until};
use tokio::time::interval;

use super::super::harness::frames;
use super::super::harness::wire::{Wire, request};
use super::super::harness::{Answer, Platform, acme_integration, destination, sign};
use super::Target;

const HEALTH: &str = "/api/v1/health";
const ACME: &str = "/api/v1/webhooks/acme";

/// Another client than the one of all other requests.
const OTHER_CLIENT: [u8; 4] = [127, 0, 0, 2];

/// A platform whose public port has other bounds, and whose operations port is known.
async fn platform(variables: &[(&str, &str)]) -> (Platform, u16) {
    let mut platform = Platform::new().await;
    let ops_port = free_port();
    platform.set("GRAPNEL_OPS_ADDR", &format!("127.0.0.1:{ops_port}"));
    for (name, value) in variables {
        platform.set(name, value);
    }
    (platform, ops_port)
}

async fn read_ops(platform: &Platform, ops_port: u16, path: &str) -> Answer {
    let url = format!("http://127.0.0.1:{ops_port}{path}");
    Answer::of(platform.http.get(url).send().await.expect("an answer")).await
}

/// Returns how many connections were closed for a reason.
async fn closed(platform: &Platform, ops_port: u16, reason: &str) -> u32 {
    let metrics = read_ops(platform, ops_port, "/metrics").await.text;
    let name = format!("grapnel_connections_closed_total{{reason=\"{reason}\"}} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&name));
    value.map_or(0, |value| value.parse().expect("a number"))
}

/// Posts signed webhooks as the other client, at the same time, and returns their statuses.
async fn post_as_other_client(platform: &Platform, count: usize) -> Vec<u16> {
    let client = reqwest::Client::builder().local_address(std::net::IpAddr::from(OTHER_CLIENT));
    let client = client.timeout(Duration::from_secs(30)).build().expect("a client");
    let posts = (0..count).map(|number| {
        let (client, body) = (client.clone(), acme_event(&format!("other-{number}")));
        let request = client.post(platform.url(ACME)).header("x-acme-signature", sign(body.as_bytes()));
        async move { request.body(body).send().await.expect("an answer").status().as_u16() }
    });
    join_all(posts).await
}

#[tokio::test]
async fn connection_whose_answers_are_not_read_is_closed() {
    let (platform, ops_port) = platform(&[("GRAPNEL_HTTP_UNREAD_SECONDS", "2")]).await;
    let api = platform.start_api(&acme_integration(&[destination("orders", "http://127.0.0.1:9/")])).await;
    let mut held = Vec::new();
    for _ in 0..5 {
        // More than the buffers of both kernels hold; nobody waits until it is sent.
        let mut wire = Wire::connect(platform.http_port).await;
        let requests = request("GET", "/openapi.json", &[], b"").repeat(500);
        held.push(tokio::spawn(async move {
            wire.send(requests).await;
            wire
        }));
    }
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(connection_without_window(&platform).await);
    }
    wait_until("all to be closed", async || closed(&platform, ops_port, "unread_answer").await == 10).await;
    for mut wire in streams {
        assert!(!wire.read_until_frame(frames::DATA).await, "closed without any of the answers");
    }
    for wire in held {
        wire.await.expect("no panic").reader.until_closed().await;
    }
    assert!(!api.log().contains("panicked"));
    assert_eq!(platform.post_acme(&acme_event("after")).await.status, 202);
}

/// Opens an HTTP/2 connection with as many requests as it may have and no window for their answers.
async fn connection_without_window(platform: &Platform) -> Wire {
    let mut wire = Wire::connect(platform.http_port).await;
    assert!(wire.send(frames::preface(0)).await);
    for stream in 0..64 {
        assert!(wire.send(frames::get(stream * 2 + 1, "/openapi.json")).await);
    }
    wire
}

/// Over HTTP/2 one connection can have many requests, and their answers can wait for a window.
#[tokio::test]
async fn one_client_gets_an_eighth_of_the_requests() {
    let (platform, ops_port) = platform(&[]).await;
    let _api = platform.start_api(&acme_integration(&[destination("orders", "http://127.0.0.1:9/")])).await;
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(connection_without_window(&platform).await);
    }
    // An eighth of 4,096 is 512 of these 640.
    wait_until("the rest to be refused", async || {
        let metrics = read_ops(&platform, ops_port, "/metrics").await.text;
        let refused = metrics.lines().find_map(|line| line.strip_prefix("grapnel_requests_refused_total "));
        refused == Some("128")
    })
    .await;
    let resets = held.iter_mut().map(|wire| wire.read_until_frame(frames::RST_STREAM).boxed());
    assert!(select_all(resets).await.0, "they are told so");
    assert_eq!(post_as_other_client(&platform, 3).await, [202; 3]);
}

/// A ping is no request, whoever sends it.
#[tokio::test]
async fn http_2_connection_without_requests_is_closed_though_pings_are_answered() {
    let (platform, ops_port) = platform(&[("GRAPNEL_HTTP_IDLE_SECONDS", "2")]).await;
    let _api = platform.start_api(&acme_integration(&[destination("orders", "http://127.0.0.1:9/")])).await;
    let mut wire = Wire::connect(platform.http_port).await;
    assert!(wire.send(frames::preface(65_535)).await);
    assert!(wire.send(frames::get(1, HEALTH)).await);
    assert!(wire.read_until_frame(frames::DATA).await, "it is answered");

    let Wire { mut reader, mut writer } = wire;
    let mut ticks = interval(Duration::from_millis(200));
    let pinging = async {
        loop {
            ticks.tick().await;
            writer.send(frames::ping()).await;
        }
    };
    tokio::select! {
        _ = reader.until_closed() => {}
        () = pinging => {}
    }
    // Those of the harness may be idle too.
    assert!(closed(&platform, ops_port, "idle").await >= 1);
}

/// Proxies keep their connections for a minute and longer.
#[tokio::test]
async fn idle_connection_stays_longer_than_one_whose_next_request_does_not_end() {
    let (platform, ops_port) = platform(&[("GRAPNEL_HTTP_HEAD_SECONDS", "1")]).await;
    let _api = platform.start_api(&acme_integration(&[destination("orders", "http://127.0.0.1:9/")])).await;
    let whole = request("GET", HEALTH, &[], b"");
    let mut idle = Wire::connect(platform.http_port).await;
    let mut unfinished = Wire::connect(platform.http_port).await;
    for wire in [&mut idle, &mut unfinished] {
        assert!(wire.send(&whole).await);
        wire.answer().await.expect("an answer");
    }
    // The idle one has then been idle for longer than headers may take to arrive.
    assert!(unfinished.send(&whole[..10]).await);
    assert_eq!(unfinished.reader.until_closed().await, "");
    assert_eq!(closed(&platform, ops_port, "unfinished_head").await, 1);
    assert!(idle.send(&whole).await);
    idle.answer().await.expect("an answer");
}

#[tokio::test]
async fn one_client_gets_a_quarter_of_the_connections() {
    let (platform, _) = platform(&[("GRAPNEL_HTTP_CONNECTIONS", "40")]).await;
    let _api = platform.start_api(&acme_integration(&[destination("orders", "http://127.0.0.1:9/")])).await;
    let mut held = Vec::new();
    let mut refused = 0;
    for _ in 0..30 {
        let mut wire = Wire::connect(platform.http_port).await;
        wire.send(request("GET", HEALTH, &[], b"")).await;
        match wire.answer().await {
            Some(answer) => {
                assert_eq!(answer.status, 200);
                held.push(wire);
            }
            None => refused += 1,
        }
    }
    // The clients of the harness may have connections of their own.
    assert!((5..=10).contains(&held.len()) && refused >= 20, "{} served, {refused} refused", held.len());
    assert_eq!(post_as_other_client(&platform, 3).await, [202; 3]);
}

#[tokio::test]
async fn port_whose_connections_are_used_up_is_not_ready() {
    let variables = [("GRAPNEL_HTTP_CONNECTIONS", "40"), ("GRAPNEL_TRUSTED_PROXIES", "127.0.0.0/8")];
    let (platform, ops_port) = platform(&variables).await;
    let _api = platform.start_api(&acme_integration(&[destination("orders", "http://127.0.0.1:9/")])).await;
    let is_ready = async || read_ops(&platform, ops_port, "/readyz").await.status == 200;
    assert!(is_ready().await);
    // A trusted proxy stands for many clients: it may have them all.
    let mut held = Vec::new();
    for _ in 0..38 {
        let mut wire = Wire::connect(platform.http_port).await;
        wire.send(request("GET", HEALTH, &[], b"")).await;
        assert_eq!(wire.answer().await.expect("an answer").status, 200);
        held.push(wire);
    }
    // Those that are held are busy: an idle one would be closed.
    let busy = async {
        let mut ticks = interval(Duration::from_secs(3));
        loop {
            ticks.tick().await;
            for wire in &mut held {
                wire.send(request("GET", HEALTH, &[], b"")).await;
                assert!(wire.answer().await.is_some());
            }
        }
    };
    tokio::select! {
        _ = wait_until("not to be ready", async || !is_ready().await) => {}
        () = busy => {}
    }
    let reason = read_ops(&platform, ops_port, "/readyz").await.text;
    assert_eq!(reason, "nearly all connections of the public port are in use\n");
    drop(held);
    wait_until("to be ready again", is_ready).await;
}

/// Each of the bodies is nearly as large as the integration accepts, and all together are larger than the memory for bodies.
#[tokio::test]
async fn stalled_bodies_of_one_client_leave_room_for_those_of_others() {
    let target = Target::new().await;
    let port = target.platform.http_port;
    let head = format!("POST {ACME} HTTP/1.1\r\nhost: test\r\ncontent-length: 1048576\r\n\r\n");
    let begun = [head.as_bytes(), &vec![b' '; 1_048_000]].concat();
    let stalled = (0..75).map(|_| {
        let begun = begun.clone();
        async move {
            let mut wire = Wire::connect(port).await;
            wire.send(begun).await;
            wire
        }
    });
    let mut stalled = join_all(stalled).await;
    // The client has its part when it is refused more.
    let answers = stalled.iter_mut().map(|wire| wire.answer().boxed());
    assert_eq!(select_all(answers).await.0.map(|answer| answer.status), Some(503));
    let statuses = post_as_other_client(&target.platform, 50).await;
    assert_eq!(statuses, [202; 50]);
    target.assert_bounded();
}

/// A client that reads only after it has written everything.
#[tokio::test]
async fn refusal_is_seen_by_a_client_that_sends_its_body_later() {
    let target = Target::new().await;
    for (path, expected) in [("/api/v1/webhooks/unknown", 404), ("/api/v1/events", 401), (ACME, 413)] {
        let mut wire = Wire::connect(target.platform.http_port).await;
        let length = if expected == 413 { 1_048_577 } else { 700_000 };
        let head = format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n");
        assert!(wire.send(head).await);
        // It is refused before any of the body is there.
        wire.reader.wait_until_readable().await;
        for _ in 0..7 {
            assert!(wire.send(vec![b' '; 100_000]).await, "{path}: the connection is reset");
        }
        assert_eq!(wire.answer().await.map(|answer| answer.status), Some(expected), "{path}");
    }
}
