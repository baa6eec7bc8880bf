//! Receivers with TLS: whom they trust and are trusted by, and those whose TLS is none.

use std::net::TcpListener;
use std::sync::Arc;

use grapnel_core::delivery::tls_material::{TlsMaterial, TlsSecrets};
use grapnel_crds::DestinationTls;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};

use super::*;

/// A key and a certificate for `localhost` and 127.0.0.1 that it signed itself; of use to nobody else.
const KEY: &str = "\
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgonoRhGfgiMmQTz0K/R7/yXgW3r9OBv0yw6zy1jIoysyhRANCAAQ7\
NVGfvUgMYUOD01x1JcK4I5a8yScG8CYvtSX3vHaPmJ8E7FvSBg7siTLUaMmqtwXiUdNsbUrcfMV0fbn8qHch";
const CERTIFICATE: &str = "\
MIIBvjCCAWSgAwIBAgIULyFKipAoOGskRi0AIL1YA+fQNt0wCgYIKoZIzj0EAwIwJzElMCMGA1UEAwwcYSByZWNlaXZlciB0aGF0\
IG5vYm9keSBrbm93czAgFw0yNjExMjQxNTEyMDJaGA8yMTI2MTAzMTE1MTIwMlowJzElMCMGA1UEAwwcYSByZWNlaXZlciB0aGF0\
IG5vYm9keSBrbm93czBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABDs1UZ+9SAxhQ4PTXHUlwrgjlrzJJwbwJi+1Jfe8do+YnwTs\
W9IGDuyJMtRoyaq3BeJR02xtStx8xXR9ufyodyGjbDBqMB0GA1UdDgQWBBRB4u+9u4ZA4aYa+2o6BM6deOSovDAfBgNVHSMEGDAW\
gBRB4u+9u4ZA4aYa+2o6BM6deOSovDAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwDAYDVR0TAQH/BAIwADAKBggqhkjOPQQD\
AgNIADBFAiBchWvyxiQ7VHMKVpcYfZZlHrtw/LDzWOCoXlKW5KRWMQIhAIt0k0f5HKoYTxgUocb8cFhjykTBHMgOH70/AFDo1d3N";

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_named() {
    let client = client();
    let key = PrivatePkcs8KeyDer::from(BASE64_STANDARD.decode(KEY).unwrap());
    let certificate = CertificateDer::from(BASE64_STANDARD.decode(CERTIFICATE).unwrap());
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.into())
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let receiver = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut connection = ServerConnection::new(Arc::new(config)).unwrap();
        while connection.is_handshaking() && connection.complete_io(&mut stream).is_ok() {}
        connection.is_handshaking()
    });

    let outcome = deliver_at(&client, &target(&url, PATIENT), now()).await.outcome;
    assert_eq!(outcome, unreachable("TLS: the certificate was issued by an unknown authority"));
    receiver.join().unwrap();
}

#[tokio::test]
async fn a_receiver_that_speaks_no_tls_is_named() {
    let receiver = Receiver::scripted(async |mut stream| {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        std::future::pending().await
    })
    .await;
    let url = format!("https://{}/", receiver.address);
    let outcome = outcome(&url, PATIENT).await;
    let AttemptOutcome::Unreachable { message } = outcome else { panic!("{outcome:?}") };
    assert!(message.starts_with("TLS: "), "{message}");
}

#[tokio::test]
async fn a_handshake_that_does_not_come_ends_by_the_connect_deadline() {
    install_crypto();
    let receiver = Receiver::scripted(async |_stream| std::future::pending().await).await;
    let target = target(&format!("https://{}/", receiver.address), PATIENT);
    let client = DeliveryClient::with_connect_deadline(egress_with(&LOOPBACK, None), IMPATIENT);
    assert_eq!(deliver_at(&client, &target, now()).await.outcome, timed_out("no connection within 0.5 s"));
}

fn root() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(file("root.pem")).unwrap()).unwrap();
    roots
}

/// A server with one of the certificates of the tests.
fn server(certificate: &str, requires_client: bool) -> ServerConfig {
    install_crypto();
    let builder = match requires_client {
        false => ServerConfig::builder().with_no_client_auth(),
        true => ServerConfig::builder()
            .with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(root())).build().unwrap()),
    };
    let certificate = CertificateDer::from_pem_slice(file(certificate)).unwrap();
    let key = PrivateKeyDer::from_pem_slice(file("server.key")).unwrap();
    builder.with_single_cert(vec![certificate], key).unwrap()
}

async fn receiver(config: ServerConfig) -> Receiver {
    Receiver::speaking_https(config, |_| StatusCode::OK.into_response()).await
}

fn material(ca: Option<&str>, client: Option<(&str, &str)>, server_name: Option<&str>) -> Arc<TlsMaterial> {
    let secrets = TlsSecrets {
        authorities: ca.map(file),
        client_certificate: client.map(|(chain, key)| (file(chain), file(key))),
    };
    let tls = DestinationTls { server_name: server_name.map(str::to_owned), ..DestinationTls::default() };
    Arc::new(TlsMaterial::new(&tls, secrets).unwrap())
}

fn tls_target(receiver: &Receiver, material: Option<Arc<TlsMaterial>>) -> DeliveryTarget {
    let url = format!("https://localhost:{}/", receiver.address.port());
    let mut target = target(&url, PATIENT);
    target.tls = material;
    target
}

/// A client that trusts the system's authorities only.
fn strict_client() -> DeliveryClient {
    install_crypto();
    let allowed = LOOPBACK.map(|net| net.parse().unwrap()).to_vec();
    DeliveryClient::new(Egress::new(EgressPolicy::new(allowed), None, trusted_roots(None).unwrap()))
}

#[tokio::test]
async fn a_receiver_that_prefers_http_2_gets_http_1() {
    let mut config = server("localhost.pem", false);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let receiver = receiver(config).await;
    let (client, target) = (client(), tls_target(&receiver, None));
    for _ in 0..3 {
        assert_eq!(deliver_at(&client, &target, now()).await.outcome, succeeded(200, ""));
    }
    assert_eq!(receiver.requests()[0].0.version, http::Version::HTTP_11);
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn a_receiver_that_speaks_only_http_2_is_named() {
    let mut config = server("localhost.pem", false);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let receiver = receiver(config).await;
    let outcome = deliver_at(&client(), &tls_target(&receiver, None), now()).await.outcome;
    assert_eq!(outcome, unreachable("TLS: the receiver does not speak HTTP/1.1"));
}

#[tokio::test]
async fn the_authorities_of_a_destination_are_the_only_ones() {
    let receiver = receiver(server("localhost.pem", false)).await;
    let delivered = async |client: &DeliveryClient, material| {
        deliver_at(client, &tls_target(&receiver, material), now()).await.outcome
    };
    let unknown = unreachable("TLS: the certificate was issued by an unknown authority");
    assert_eq!(delivered(&strict_client(), None).await, unknown);
    let own = material(Some("root.pem"), None, None);
    assert_eq!(delivered(&strict_client(), Some(own)).await, succeeded(200, ""));
    let other = material(Some("other-root.pem"), None, None);
    let message = "TLS: the receiver's certificate was issued by none of the authorities of tls.caRef";
    assert_eq!(delivered(&client(), Some(other)).await, unreachable(message));
}

#[tokio::test]
async fn a_receiver_that_requires_a_certificate_gets_the_destinations() {
    let receiver = receiver(server("localhost.pem", true)).await;
    let client = client();
    let delivered =
        async |material| deliver_at(&client, &tls_target(&receiver, material), now()).await.outcome;
    let message = "TLS: the receiver requires a client certificate: tls.clientCertificateRef";
    assert_eq!(delivered(None).await, unreachable(message));
    let own = material(None, Some(("client.pem", "signer.key")), None);
    for _ in 0..2 {
        assert_eq!(delivered(Some(Arc::clone(&own))).await, succeeded(200, ""));
    }
    // A connection that presented the certificate is not for another destination.
    assert_eq!(delivered(None).await, unreachable(message));
    let other = material(None, Some(("other-root.pem", "other-root.key")), None);
    let message = "TLS: the receiver refused the certificate of tls.clientCertificateRef";
    assert_eq!(delivered(Some(other)).await, unreachable(message));
    assert_eq!(receiver.requests().len(), 2);
}

#[tokio::test]
async fn a_certificate_has_the_name_of_the_url_or_of_the_destination() {
    let receiver = receiver(server("server.pem", false)).await;
    let client = client();
    let delivered = async |name: Option<&str>| {
        let material = name.map(|name| material(None, None, Some(name)));
        deliver_at(&client, &tls_target(&receiver, material), now()).await.outcome
    };
    assert_eq!(delivered(None).await, unreachable("TLS: the certificate is for another name"));
    assert_eq!(delivered(Some("api.paypal.com")).await, succeeded(200, ""));
    assert_eq!(delivered(Some("b.example")).await, unreachable("TLS: the certificate is for another name"));
    let port = receiver.address.port();
    assert_eq!(receiver.requests()[0].0.headers["host"], format!("localhost:{port}"));
}

#[tokio::test]
async fn a_changed_material_is_used_at_once_and_an_equal_one_shares_connections() {
    let receiver = receiver(server("localhost.pem", true)).await;
    let client = client();
    for (chain, key) in
        [("client.pem", "signer.key"), ("client.pem", "signer.key"), ("sns.pem", "signer.key")]
    {
        let target = tls_target(&receiver, Some(material(None, Some((chain, key)), None)));
        assert_eq!(deliver_at(&client, &target, now()).await.outcome, succeeded(200, ""));
    }
    assert_eq!(receiver.connections(), 2);
}
