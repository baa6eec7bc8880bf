//! Deliveries through an HTTP proxy.

use std::net::ToSocketAddrs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;

use super::*;

/// A proxy that connects to `destination` whatever it is asked for, and records what that was.
struct Proxy {
    receiver: Receiver,
    asked: Arc<Mutex<Vec<String>>>,
}

/// Reads the head of a request.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

impl Proxy {
    /// Answers with `status`, and connects to an address if that is 200.
    async fn answering(
        answer: impl Fn(&str) -> (&'static str, Option<std::net::SocketAddr>) + Clone + Send + Sync + 'static,
    ) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let recorded = Arc::clone(&asked);
        let receiver = Receiver::scripted(move |mut stream| {
            let (recorded, answer) = (Arc::clone(&recorded), answer.clone());
            async move {
                let head = read_head(&mut stream).await;
                let (status, destination) = answer(&head);
                recorded.lock().unwrap().push(head);
                let head = format!("HTTP/1.1 {status}\r\n\r\n");
                stream.write_all(head.as_bytes()).await.unwrap();
                if let Some(destination) = destination {
                    let mut other = TcpStream::connect(destination).await.unwrap();
                    copy_bidirectional(&mut stream, &mut other).await.ok();
                }
            }
        })
        .await;
        Self { receiver, asked }
    }

    async fn to(destination: &Receiver) -> Self {
        let address = destination.address;
        Self::answering(move |_| ("200 Connection established", Some(address))).await
    }

    fn client(&self, allowed: &[&str], exceptions: &str, resolves_names: bool) -> DeliveryClient {
        DeliveryClient::new(self.egress(allowed, exceptions, resolves_names))
    }

    fn egress(&self, allowed: &[&str], exceptions: &str, resolves_names: bool) -> Egress {
        let url = format!("http://user:hunter2@{}", self.receiver.address);
        let proxy = EgressProxy::new(&url.into(), exceptions, resolves_names).unwrap();
        egress_with(allowed, Some(proxy))
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn a_name_is_resolved_and_judged_and_its_address_named_to_the_proxy() {
    let receiver = Receiver::speaking_http(|_| StatusCode::OK.into_response()).await;
    let proxy = Proxy::to(&receiver).await;
    let client = proxy.client(&["127.0.0.0/8"], "", false);
    let url = format!("http://localhost:{}/hooks", receiver.address.port());
    for _ in 0..3 {
        assert_eq!(deliver_at(&client, &target(&url, PATIENT), now()).await.outcome, succeeded(200, ""));
    }
    let address = receiver.address;
    let credentials = "proxy-authorization: Basic dXNlcjpodW50ZXIy";
    let expected = format!("CONNECT {address} HTTP/1.1\r\nhost: {address}\r\n{credentials}\r\n\r\n");
    assert_eq!(proxy.asked(), [expected], "the tunnel is used again");
    let (parts, _) = receiver.requests().remove(0);
    assert_eq!(parts.headers["host"], format!("localhost:{}", address.port()));
    assert!(!parts.headers.contains_key("proxy-authorization"));
}

#[tokio::test]
async fn a_name_that_changes_after_it_was_judged_is_not_named_to_the_proxy() {
    static LOOKUPS: AtomicUsize = AtomicUsize::new(0);
    let rebinding = |_: &str| match LOOKUPS.fetch_add(1, Ordering::SeqCst) {
        0 => Ok(vec![[127, 0, 0, 1].into()]),
        _ => Ok(vec![[10, 0, 0, 1].into()]),
    };
    let receiver = Receiver::speaking_http(|_| StatusCode::OK.into_response()).await;
    let proxy = Proxy::to(&receiver).await;
    let egress = proxy.egress(&["127.0.0.0/8"], "", false);
    let target = target("http://rebinding.example:8080/", PATIENT);
    let client = DeliveryClient::new(egress.clone().with_look_up(rebinding));
    assert_eq!(deliver_at(&client, &target, now()).await.outcome, succeeded(200, ""));
    let later = DeliveryClient::new(egress.with_look_up(rebinding));
    let outcome = deliver_at(&later, &target, now()).await.outcome;
    assert!(matches!(outcome, AttemptOutcome::Denied { .. }), "{outcome:?}");
    let asked = proxy.asked();
    assert!(asked.len() == 1 && asked[0].starts_with("CONNECT 127.0.0.1:8080 "), "{asked:?}");
}

#[tokio::test]
async fn a_proxy_that_switches_to_another_server_gets_no_request_twice() {
    let (first, second) = (
        Receiver::speaking_http(|_| StatusCode::OK.into_response()).await,
        Receiver::speaking_http(|_| StatusCode::ACCEPTED.into_response()).await,
    );
    let is_switched = Arc::new(AtomicBool::new(false));
    let (switched, addresses) = (Arc::clone(&is_switched), [first.address, second.address]);
    let proxy =
        Proxy::answering(move |_| ("200 OK", Some(addresses[usize::from(switched.load(Ordering::SeqCst))])))
            .await;
    let client = proxy.client(&[], "", true);
    let target = target("http://receiver.invalid/", PATIENT);
    assert_eq!(deliver_at(&client, &target, now()).await.outcome, succeeded(200, ""));
    is_switched.store(true, Ordering::SeqCst);
    // An open tunnel leads to where it led; when its end is gone, a new one leads to the other.
    assert_eq!(deliver_at(&client, &target, now()).await.outcome, succeeded(200, ""));
    assert_eq!(first.requests().len(), 2);
    drop(first);
    assert_eq!(deliver_at(&client, &target, now()).await.outcome, succeeded(202, ""));
    assert_eq!((second.requests().len(), proxy.asked().len()), (1, 2));
}

#[tokio::test]
async fn an_address_that_is_not_permitted_is_not_named_to_the_proxy() {
    let receiver = Receiver::speaking_http(|_| StatusCode::OK.into_response()).await;
    let proxy = Proxy::to(&receiver).await;
    for (url, resolves_names) in
        [("http://localhost/", false), ("http://10.0.0.1/", false), ("http://10.0.0.1/", true)]
    {
        let client = proxy.client(&[], "", resolves_names);
        let outcome = deliver_at(&client, &target(url, PATIENT), now()).await.outcome;
        assert!(matches!(outcome, AttemptOutcome::Denied { .. }), "{url}: {outcome:?}");
    }
    assert_eq!(proxy.asked(), [""; 0]);
}

#[tokio::test]
async fn a_proxy_that_resolves_gets_the_name() {
    let receiver = Receiver::speaking_http(|_| StatusCode::OK.into_response()).await;
    let proxy = Proxy::to(&receiver).await;
    let client = proxy.client(&[], "", true);
    let target = target("http://receiver.invalid/", PATIENT);
    assert_eq!(deliver_at(&client, &target, now()).await.outcome, succeeded(200, ""));
    assert!(proxy.asked()[0].starts_with("CONNECT receiver.invalid:80 HTTP/1.1\r\n"), "{:?}", proxy.asked());
    assert_eq!(receiver.requests()[0].0.headers["host"], "receiver.invalid");
}

#[tokio::test]
async fn an_exception_is_reached_directly() {
    let receiver = Receiver::speaking_http(|_| StatusCode::OK.into_response()).await;
    let proxy = Proxy::to(&receiver).await;
    for exceptions in ["127.0.0.0/8", "example.com, 127.0.0.1"] {
        let client = proxy.client(&LOOPBACK, exceptions, true);
        let target = target(&receiver.url("/"), PATIENT);
        assert_eq!(deliver_at(&client, &target, now()).await.outcome, succeeded(200, ""));
    }
    assert_eq!(proxy.asked(), [""; 0]);
    let (client, target) = (proxy.client(&[], "localhost", true), target("http://localhost/", PATIENT));
    let outcome = deliver_at(&client, &target, now()).await.outcome;
    assert!(matches!(outcome, AttemptOutcome::Denied { .. }), "an exception is judged: {outcome:?}");
}

#[tokio::test]
async fn an_answer_of_the_proxy_is_named() {
    let answered = async |status: &'static str| {
        let proxy = Proxy::answering(move |_| (status, None)).await;
        let client = proxy.client(&[], "", true);
        deliver_at(&client, &target("https://receiver.invalid/", PATIENT), now()).await.outcome
    };
    let message = |status: u16| format!("the egress proxy answered {status} to CONNECT");
    assert_eq!(answered("502 Bad Gateway").await, unreachable(&message(502)));
    assert_eq!(answered("403 Forbidden").await, AttemptOutcome::Denied { message: message(403) });
    for (status, code) in [("407 Proxy Authentication Required", 407), ("401 Unauthorized", 401)] {
        assert_eq!(answered(status).await, AttemptOutcome::NotSent { message: message(code) });
    }
}

#[tokio::test]
async fn an_address_that_the_proxy_cannot_reach_is_not_the_last() {
    let receiver = Receiver::speaking_http(|_| StatusCode::OK.into_response()).await;
    let address = receiver.address;
    let is_first = Arc::new(AtomicBool::new(true));
    let proxy = Proxy::answering(move |_| match is_first.swap(false, Ordering::SeqCst) {
        true => ("503 Service Unavailable", None),
        false => ("200 OK", Some(address)),
    })
    .await;
    let client = proxy.client(&LOOPBACK, "", false);
    let addresses = (("localhost", 0).to_socket_addrs().unwrap()).count();
    let url = format!("http://localhost:{}/", address.port());
    let outcome = deliver_at(&client, &target(&url, PATIENT), now()).await.outcome;
    match addresses {
        1 => assert_eq!(outcome, unreachable("the egress proxy answered 503 to CONNECT")),
        _ => assert_eq!(outcome, succeeded(200, "")),
    }
}

#[tokio::test]
async fn a_proxy_that_cannot_be_reached_is_no_attempt() {
    let unused = tokio::net::TcpSocket::new_v4().unwrap();
    unused.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", unused.local_addr().unwrap());
    let proxy = EgressProxy::new(&url.into(), "", true).unwrap();
    let client = DeliveryClient::new(egress_with(&[], Some(proxy)));
    let outcome = deliver_at(&client, &target("http://receiver.invalid/", PATIENT), now()).await.outcome;
    let message = "the egress proxy cannot be reached".to_owned();
    assert_eq!(outcome, AttemptOutcome::NotSent { message });
}
