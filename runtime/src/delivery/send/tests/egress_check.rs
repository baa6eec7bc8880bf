//! Addresses that are not dialed.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const DENIED: &str = "the destination is a loopback address, which the platform does not allow";

#[tokio::test]
async fn every_form_of_loopback_is_denied_without_a_connection() {
    let receiver = Receiver::speaking_http(|_| StatusCode::OK.into_response()).await;
    let port = receiver.address.port();
    let client = client_with(&[]);
    for host in [
        "127.0.0.1",
        "127.1",
        "127.0.0.1.",
        "2130706433",
        "0x7f.1",
        "0x7f000001",
        "0177.0.0.1",
        "%31%32%37.0.0.1",
        "１２７.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "localhost",
        "LOCALHOST",
    ] {
        let target = target(&format!("http://{host}:{port}/"), PATIENT);
        let outcome = deliver_at(&client, &target, now()).await.outcome;
        assert_eq!(outcome, AttemptOutcome::Denied { message: DENIED.to_owned() }, "{host}");
    }
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn other_internal_addresses_are_denied() {
    for host in ["0.0.0.0", "10.0.0.1", "169.254.169.254", "[fd00:ec2::254]", "[fe80::1]", "192.168.1.1"] {
        let target = target(&format!("http://{host}/"), PATIENT);
        let outcome = deliver_at(&client_with(&[]), &target, now()).await.outcome;
        assert!(matches!(outcome, AttemptOutcome::Denied { .. }), "{host}: {outcome:?}");
    }
}

#[tokio::test]
async fn an_allowed_range_is_dialed_by_literal_and_by_name() {
    let receiver = Receiver::speaking_http(|_| StatusCode::OK.into_response()).await;
    for host in ["127.0.0.1", "2130706433", "localhost"] {
        let url = format!("http://{host}:{}/", receiver.address.port());
        assert_eq!(outcome(&url, PATIENT).await, succeeded(200, ""), "{host}");
    }
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_unreachable() {
    let outcome = outcome("http://no-such-name.invalid/", PATIENT).await;
    let AttemptOutcome::Unreachable { message } = outcome else { panic!("{outcome:?}") };
    assert!(message.starts_with("the name of the destination could not be resolved: "), "{message}");
}

#[tokio::test]
async fn a_receiver_with_an_ipv6_address_only_is_reached() {
    let receiver = Receiver::scripted_at(std::net::Ipv6Addr::LOCALHOST.into(), async |mut stream| {
        receiver::answer_requests(&mut stream, 1).await;
    })
    .await;
    let port = receiver.address.port();
    // Not every machine has a name for this address.
    for host in ["[::1]", "[0:0::1]"] {
        assert_eq!(outcome(&format!("http://{host}:{port}/"), PATIENT).await, succeeded(200, ""), "{host}");
    }
}

#[tokio::test]
async fn a_name_that_changes_between_check_and_connection_gains_nothing() {
    static LOOKUPS: AtomicUsize = AtomicUsize::new(0);
    // Permitted at first, and refused from the second time on.
    let rebinding = |_: &str| match LOOKUPS.fetch_add(1, Ordering::SeqCst) {
        0 => Ok(vec![[127, 0, 0, 1].into()]),
        _ => Ok(vec![[127, 0, 0, 2].into()]),
    };
    let receiver = Receiver::after_request(async |mut stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await.unwrap();
    })
    .await;
    let egress = egress_with(&["127.0.0.1/32"], None);
    let client = DeliveryClient::new(egress.clone().with_look_up(rebinding));
    let target = target(&format!("http://rebinding.example:{}/", receiver.address.port()), PATIENT);
    for _ in 0..3 {
        assert_eq!(deliver_at(&client, &target, now()).await.outcome, succeeded(200, ""));
    }
    assert_eq!(
        (LOOKUPS.load(Ordering::SeqCst), receiver.connections()),
        (1, 3),
        "what was checked is dialed"
    );
    let later = DeliveryClient::new(egress.with_look_up(rebinding));
    let outcome = deliver_at(&later, &target, now()).await.outcome;
    assert_eq!(outcome, AttemptOutcome::Denied { message: DENIED.to_owned() });
    assert_eq!(receiver.connections(), 3);
}

#[tokio::test]
async fn the_endpoints_of_a_service_are_dialed_in_place_of_its_name() {
    let receiver = Receiver::speaking_http(|_| StatusCode::OK.into_response()).await;
    let client = client();
    let service = |endpoints: &[std::net::SocketAddr]| {
        target("http://orders.shop.svc:8080/hooks", PATIENT).with_endpoints(endpoints.into())
    };
    let unused = tokio::net::TcpSocket::new_v4().unwrap();
    unused.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let ready = service(&[unused.local_addr().unwrap(), receiver.address]);
    for _ in 0..5 {
        assert_eq!(deliver_at(&client, &ready, now()).await.outcome, succeeded(200, ""));
    }
    assert_eq!(receiver.requests()[0].0.headers["host"], "orders.shop.svc:8080");
    assert_eq!(receiver.connections(), 1);

    let none = deliver_at(&client, &service(&[]), now()).await.outcome;
    let message = "the Service has no ready endpoint".to_owned();
    assert_eq!(none, AttemptOutcome::NotSent { message }, "an open connection is not used");
    let moved = Receiver::speaking_http(|_| StatusCode::ACCEPTED.into_response()).await;
    let outcome = deliver_at(&client, &service(&[moved.address]), now()).await.outcome;
    assert_eq!(outcome, succeeded(202, ""), "the connection to the former endpoint is not used");
}

#[tokio::test]
async fn an_endpoint_is_judged_again() {
    let receiver = Receiver::speaking_http(|_| StatusCode::OK.into_response()).await;
    let target = target("http://orders.shop.svc/", PATIENT).with_endpoints([receiver.address].into());
    let outcome = deliver_at(&client_with(&[]), &target, now()).await.outcome;
    assert_eq!(outcome, AttemptOutcome::Denied { message: DENIED.to_owned() });
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn a_connection_to_a_service_serves_no_url_with_its_name() {
    let receiver = Receiver::speaking_http(|_| StatusCode::OK.into_response()).await;
    let client = client();
    let url = "http://orders.shop.svc.invalid/";
    let service = target(url, PATIENT).with_endpoints([receiver.address].into());
    assert_eq!(deliver_at(&client, &service, now()).await.outcome, succeeded(200, ""));
    let outcome = deliver_at(&client, &target(url, PATIENT), now()).await.outcome;
    assert!(matches!(outcome, AttemptOutcome::Unreachable { .. }), "{outcome:?}");
    assert_eq!(receiver.requests().len(), 1);
}
