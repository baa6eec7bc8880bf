//! Addresses that are not dialed.

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
