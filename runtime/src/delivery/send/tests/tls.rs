//! Receivers whose TLS cannot be trusted, or is none.

use std::net::TcpListener;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection};

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
    let policy = EgressPolicy::new(vec!["127.0.0.0/8".parse().unwrap()]);
    let client = DeliveryClient::with_connect_deadline(policy, IMPATIENT).unwrap();
    assert_eq!(deliver_at(&client, &target, now()).await.outcome, timed_out("no connection within 0.5 s"));
}
