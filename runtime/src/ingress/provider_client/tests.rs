//! Against a TLS server of our own that goes by the providers' names, with its root for the only one. It is the proxy, too, so that
//! the names lead there.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use jiff::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::*;
use crate::egress::EgressProxy;
use grapnel_core::delivery::egress_policy::EgressPolicy;
use grapnel_core::preset;
use grapnel_core::request::IncomingRequest;
use grapnel_core::verification::{Evaluation, Verifier, VerifyError};
use grapnel_testing::certificates::file;

const PAYPAL: &str = "https://api.paypal.com/v1/notifications/certs/CERT-360caa42";
const SNS: &str = "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0a1b.pem";
const TOPIC: &str = "arn:aws:sns:eu-central-1:123456789012:orders";

/// While the certificates are valid.
const NOW: &str = "2027-01-31T09:00:00Z";

/// Answers every request with the same, except for paths with `hangs` in them, which it does not answer.
struct Server {
    address: SocketAddr,
    connected: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
}

/// Agrees to a tunnel if the client asks for one.
fn open_tunnel(mut stream: &TcpStream) -> std::io::Result<()> {
    let mut first = [0];
    stream.peek(&mut first)?;
    if first != *b"C" {
        return Ok(());
    }
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut first)?;
        head.extend(first);
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")
}

/// Serves one connection.
fn answer(
    mut stream: StreamOwned<ServerConnection, TcpStream>,
    asked: &AtomicUsize,
    head: &str,
    body: &[u8],
) {
    let mut request = [0; 4096];
    // A client that does not trust it hangs up.
    let Ok(length @ 1..) = stream.read(&mut request) else { return };
    asked.fetch_add(1, Ordering::SeqCst);
    if request[..length].windows(5).any(|part| part == b"hangs") {
        // Until the client gives up.
        let _gone = stream.read(&mut request);
        return;
    }
    let head = format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    // It may have read enough before the end.
    let _sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    stream.conn.send_close_notify();
    let _flushed = stream.flush();
}

impl Server {
    fn new(head: &'static str, body: &'static [u8]) -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        let certificate = CertificateDer::from_pem_slice(file("server.pem")).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(file("server.key")).expect("a key");
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a server");
        let (config, asked) = (Arc::new(config), Arc::new(AtomicUsize::new(0)));
        let connected = Arc::new(AtomicUsize::new(0));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let server = Self {
            address: listener.local_addr().expect("an address"),
            connected: Arc::clone(&connected),
            asked: Arc::clone(&asked),
        };
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                connected.fetch_add(1, Ordering::SeqCst);
                let connection = ServerConnection::new(Arc::clone(&config)).expect("a connection");
                let asked = Arc::clone(&asked);
                std::thread::spawn(move || {
                    if open_tunnel(&stream).is_ok() {
                        answer(StreamOwned::new(connection, stream), &asked, head, body);
                    }
                });
            }
        });
        server
    }

    fn client(&self) -> ProviderClient {
        self.client_that_trusts(&[file("root.pem")])
    }

    /// Returns a client to which every name leads to this server, which is its proxy.
    fn client_that_trusts(&self, roots: &[&[u8]]) -> ProviderClient {
        let url = format!("http://{}", self.address).into();
        let proxy = EgressProxy::new(&url, "", true).expect("a proxy");
        ProviderClient::new(egress(EgressPolicy::default(), Some(proxy), roots))
    }

    fn connected(&self) -> usize {
        self.connected.load(Ordering::SeqCst)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// An egress that trusts these authorities only.
fn egress(policy: EgressPolicy, proxy: Option<EgressProxy>, roots: &[&[u8]]) -> Egress {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(CertificateDer::from_pem_slice(root).expect("a certificate")).expect("an authority");
    }
    Egress::new(policy, proxy, store)
}

fn url(text: &str) -> Url {
    Url::parse(text).expect("a URL")
}

fn integration(number: u128) -> IntegrationId {
    IntegrationId::new(uuid::Uuid::from_u128(number))
}

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn verifier(provider: &str, secret: &str) -> Verifier {
    let preset = preset::find(provider).expect("a preset");
    Verifier::new(&preset.verification, None, None, &[secret]).expect("a verifier")
}

fn signature(message: &str) -> String {
    let key = PrivateKeyDer::from_pem_slice(file("signer.key")).expect("a key");
    let pair = RsaKeyPair::from_pkcs8(key.secret_der()).expect("a pair");
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature).expect("signed");
    STANDARD.encode(signature)
}

struct Webhook {
    headers: HeaderMap,
    body: String,
}

/// Of the webhook `WH-1`.
fn paypal() -> Webhook {
    let body = r#"{"id":"WH-2WR","event_type":"PAYMENT.SALE.COMPLETED"}"#.to_owned();
    let message = format!("t-1|2027-01-31T09:00:00Z|WH-1|{}", crc32fast::hash(body.as_bytes()));
    let headers = [
        ("paypal-transmission-id", "t-1"),
        ("paypal-transmission-time", "2027-01-31T09:00:00Z"),
        ("paypal-auth-algo", "SHA256withRSA"),
        ("paypal-cert-url", PAYPAL),
        ("paypal-transmission-sig", &signature(&message)),
    ];
    let pair = |(name, value): (&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
    };
    Webhook { headers: headers.into_iter().map(pair).collect(), body }
}

fn sns() -> Webhook {
    let members = [
        ("Message", "m"),
        ("MessageId", "1"),
        ("Timestamp", "t"),
        ("TopicArn", TOPIC),
        ("Type", "Notification"),
    ];
    let message: String = members.iter().map(|(name, value)| format!("{name}\n{value}\n")).collect();
    let mut body: serde_json::Map<String, serde_json::Value> =
        members.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    for (name, value) in
        [("SignatureVersion", "2"), ("SigningCertURL", SNS), ("Signature", &signature(&message))]
    {
        body.insert(name.to_owned(), value.into());
    }
    Webhook { headers: HeaderMap::new(), body: serde_json::Value::Object(body).to_string() }
}

/// As the ingress does it: asks for the certificate that the webhook points to, and judges by it.
async fn judge(
    client: &ProviderClient,
    verifier: &Verifier,
    webhook: &Webhook,
    now: &str,
) -> Result<usize, VerifyError> {
    let (method, uri) = (Method::POST, Uri::from_static("/api/v1/webhooks/r"));
    let (headers, body) = (&webhook.headers, webhook.body.as_bytes());
    let incoming = IncomingRequest {
        method: &method,
        uri: &uri,
        headers,
        body,
        encoded_body: None,
        form: None,
        public_url: None,
        json: None,
    };
    let Evaluation::NeedsCertificate(claim) = verifier.evaluate(&incoming, time(now))? else {
        panic!("nothing is pinned")
    };
    let certificate =
        client.certificate(integration(1), claim.certificate_url()).await.expect("a certificate");
    claim.verify_by(&certificate, time(now)).map(|verified| verified.secret)
}

#[tokio::test]
async fn paypals_webhook_is_judged_by_the_certificate_that_it_points_to() {
    let server = Server::new("200 OK", file("paypal.pem"));
    let (client, verifier, webhook) = (server.client(), verifier("paypal", "WH-1"), paypal());
    assert_eq!(judge(&client, &verifier, &webhook, NOW).await, Ok(0));
    let changed = Webhook { body: webhook.body.replace("SALE", "GIFT"), headers: webhook.headers.clone() };
    assert_eq!(judge(&client, &verifier, &changed, NOW).await, Err(VerifyError::Mismatch));
    let of_another = self::verifier("paypal", "WH-2");
    assert_eq!(judge(&client, &of_another, &webhook, NOW).await, Err(VerifyError::Mismatch));
    assert_eq!(server.asked(), 1, "it is kept");
}

#[tokio::test]
async fn notification_of_sns_is_judged_by_the_certificate_that_it_points_to() {
    let server = Server::new("200 OK", file("sns.pem"));
    let (client, verifier, webhook) = (server.client(), verifier("aws-sns", TOPIC), sns());
    assert_eq!(judge(&client, &verifier, &webhook, NOW).await, Ok(0));
    let changed = Webhook { body: webhook.body.replace(r#""m""#, r#""n""#), headers: HeaderMap::new() };
    assert_eq!(judge(&client, &verifier, &changed, NOW).await, Err(VerifyError::Mismatch));
    let of_another = self::verifier("aws-sns", &format!("{TOPIC}-2"));
    assert_eq!(judge(&client, &of_another, &webhook, NOW).await, Err(VerifyError::WrongName));
}

#[tokio::test]
async fn certificate_counts_only_while_it_is_valid() {
    let server = Server::new("200 OK", file("paypal.pem"));
    let (client, verifier, webhook) = (server.client(), verifier("paypal", "WH-1"), paypal());
    for moment in ["2020-01-31T09:00:00Z", "2200-01-31T09:00:00Z"] {
        let judged = judge(&client, &verifier, &webhook, moment).await;
        assert_eq!(judged, Err(VerifyError::CertificateTime), "{moment}");
    }
}

#[tokio::test]
async fn certificate_must_name_the_provider() {
    let stranger = Server::new("200 OK", file("stranger.pem"));
    let judged = judge(&stranger.client(), &verifier("paypal", "WH-1"), &paypal(), NOW).await;
    assert_eq!(judged, Err(VerifyError::CertificateName));
    // One provider's certificate is not another's, though both are signed with the same key here.
    let server = Server::new("200 OK", file("paypal.pem"));
    let judged = judge(&server.client(), &verifier("aws-sns", TOPIC), &sns(), NOW).await;
    assert_eq!(judged, Err(VerifyError::CertificateName));
}

#[tokio::test]
async fn server_that_cannot_prove_its_name_is_not_asked() {
    let server = Server::new("200 OK", file("paypal.pem"));
    // Another root is trusted, or the name is not in the server's certificate.
    let distrustful = server.client_that_trusts(&[file("stranger.pem")]);
    assert_eq!(distrustful.certificate(integration(1), &url(PAYPAL)).await, Err(ProviderCallError));
    let sandbox = url("https://api.sandbox.paypal.com/v1/notifications/certs/CERT-1");
    assert_eq!(server.client().certificate(integration(1), &sandbox).await, Err(ProviderCallError));
    assert_eq!(
        server.client().confirm(integration(1), url("http://api.paypal.com/")).await,
        Err(ProviderCallError)
    );
    assert_eq!(server.asked(), 0);
    assert!(server.client().certificate(integration(1), &url(PAYPAL)).await.is_ok());
}

#[tokio::test]
async fn answer_that_is_no_certificate_is_kept_as_none_for_a_while() {
    let large = Box::leak(vec![b'\n'; MAX_CERTIFICATE_BYTES + 1].into_boxed_slice());
    for (head, body) in [
        ("302 Found\r\nlocation: https://api.paypal.com/other", file("paypal.pem")),
        ("404 Not Found", file("paypal.pem")),
        ("200 OK", b"no certificate"),
        ("200 OK", large),
    ] {
        let server = Server::new(head, body);
        let client = server.client();
        for _ in 0..3 {
            assert_eq!(
                client.certificate(integration(1), &url(PAYPAL)).await,
                Err(ProviderCallError),
                "{head}"
            );
        }
        assert_eq!(server.asked(), 1, "{head}");
    }
}

#[tokio::test]
async fn hanging_url_holds_up_neither_another_integration_nor_a_kept_certificate() {
    let server = Server::new("200 OK", file("paypal.pem"));
    let client = server.client();
    let hanging = |number: usize| url(&format!("{PAYPAL}-hangs-{number}"));
    // What anybody who knows a route can send to it.
    let unsigned: Vec<_> = (0..20)
        .map(|number| {
            let (client, url) = (client.clone(), hanging(number));
            tokio::spawn(async move { client.certificate(integration(1), &url).await })
        })
        .collect();
    while server.asked() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Both complete while the others hang.
    assert!(client.certificate(integration(2), &url(PAYPAL)).await.is_ok());
    assert!(client.certificate(integration(1), &url(PAYPAL)).await.is_ok(), "it is kept");
    assert_eq!(unsigned.iter().filter(|request| !request.is_finished()).count(), 2, "two wait");
    assert_eq!(server.asked(), 3, "one integration has two fetches in progress");
    for request in unsigned {
        assert_eq!(request.await.expect("no panic"), Err(ProviderCallError));
    }
}

#[tokio::test]
async fn one_url_is_fetched_once_for_all_that_wait_for_it() {
    let server = Server::new("200 OK", file("paypal.pem"));
    let client = server.client();
    let url = url(PAYPAL);
    let all = (0..20).map(|_| client.certificate(integration(1), &url));
    assert!(futures::future::join_all(all).await.iter().all(Result::is_ok));
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn failed_urls_displace_no_certificate() {
    let server = Server::new("200 OK", file("paypal.pem"));
    let client = server.client();
    assert!(client.certificate(integration(1), &url(PAYPAL)).await.is_ok());
    for number in 0..300 {
        // The name is not in the server's certificate.
        let failing = url(&format!("https://api.sandbox.paypal.com/v1/notifications/certs/CERT-{number}"));
        assert_eq!(client.certificate(integration(2), &failing).await, Err(ProviderCallError));
    }
    assert!(client.certificate(integration(1), &url(PAYPAL)).await.is_ok());
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn name_that_is_loopback_is_not_called() {
    let server = Server::new("200 OK", file("paypal.pem"));
    let local = |scheme: &str| url(&format!("https://{scheme}:{}/", server.address.port()));
    let client = |policy| ProviderClient::new(egress(policy, None, &[file("root.pem")]));
    let refusing = client(EgressPolicy::default());
    for host in ["localhost", "127.0.0.1", "[::ffff:127.0.0.1]"] {
        assert_eq!(refusing.confirm(integration(1), local(host)).await, Err(ProviderCallError));
        assert_eq!(refusing.certificate(integration(1), &local(host)).await, Err(ProviderCallError));
    }
    assert_eq!(server.connected(), 0, "nothing was dialed");
    let allowing = client(EgressPolicy::new(vec!["127.0.0.0/8".parse().expect("a network")]));
    assert_eq!(
        allowing.confirm(integration(1), local("localhost")).await,
        Err(ProviderCallError),
        "its name"
    );
    assert_eq!(server.connected(), 1);
}
