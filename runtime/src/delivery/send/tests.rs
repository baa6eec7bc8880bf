use std::time::Duration;

use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::StatusCode;
use http::header::{LOCATION, RETRY_AFTER};
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::egress::{EgressProxy, trusted_roots};
use grapnel_core::delivery::egress_policy::EgressPolicy;
use grapnel_core::delivery::signing::SigningKey;
use grapnel_core::delivery::target::{DeliveryTarget, TargetError};
use grapnel_testing::certificates::file;
use receiver::{Receiver, write_for_ever};

mod receiver;
mod requests;
mod answers;
mod bodies;
mod failures;
mod connections;
mod tls;
mod egress_check;
mod proxy;

const EVENT_ID: &str = "019ab0c4-7d7c-7000-8000-000000000001";
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const BODY: &str = r#"{"provider":"acme","data":{"big":12345678901234567890}}"#;
/// Long enough that no test comes near it unless something hangs.
const PATIENT: Duration = Duration::from_secs(30);
/// For tests in which the deadline is what happens.
const IMPATIENT: Duration = Duration::from_millis(500);

/// Every test may be the first.
fn install_crypto() {
    rustls::crypto::ring::default_provider().install_default().ok();
}

const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];

fn egress_with(allowed: &[&str], proxy: Option<EgressProxy>) -> Egress {
    install_crypto();
    let allowed = allowed.iter().map(|net| net.parse().unwrap()).collect();
    let roots = trusted_roots(Some(file("root.pem"))).unwrap();
    Egress::new(EgressPolicy::new(allowed), proxy, roots)
}

fn client_with(allowed: &[&str]) -> DeliveryClient {
    DeliveryClient::new(egress_with(allowed, None))
}

fn client() -> DeliveryClient {
    client_with(&LOOPBACK)
}

fn target(url: &str, timeout: Duration) -> DeliveryTarget {
    DeliveryTarget::new(url, timeout, "acme", Vec::new()).unwrap()
}

fn now() -> Timestamp {
    "2026-11-24T12:00:00.750Z".parse().unwrap()
}

async fn deliver_at(
    client: &DeliveryClient,
    target: &DeliveryTarget,
    attempted_at: Timestamp,
) -> MeasuredOutcome {
    let request = DeliveryRequest {
        target,
        event_id: EVENT_ID.parse().unwrap(),
        event_type: "order.created",
        external_event_id: None,
        attempt: 1,
        further_headers: &[],
        authorization: None,
        correlation_id: "corr-1",
        traceparent: TRACEPARENT,
        hops: 0,
        body: &Bytes::from_static(BODY.as_bytes()),
        content_type: None,
        attempted_at,
    };
    client.deliver(&request).await
}

async fn outcome(url: &str, timeout: Duration) -> AttemptOutcome {
    deliver_at(&client(), &target(url, timeout), now()).await.outcome
}

fn refused(status: u16, body: &str, retry_after: Option<u64>) -> AttemptOutcome {
    let retry_after = retry_after.map(Duration::from_secs);
    AttemptOutcome::Refused { status, body: body.to_owned(), retry_after }
}

fn succeeded(status: u16, body: &str) -> AttemptOutcome {
    AttemptOutcome::Succeeded { status, body: body.to_owned() }
}

fn unreachable(message: &str) -> AttemptOutcome {
    AttemptOutcome::Unreachable { message: message.to_owned() }
}

fn timed_out(message: &str) -> AttemptOutcome {
    AttemptOutcome::TimedOut { message: message.to_owned() }
}
