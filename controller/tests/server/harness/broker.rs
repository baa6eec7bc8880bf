//! RabbitMQ as the tests use it: queues under a prefix, messages in them, and a management API that can be taken away.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use grapnel::queue::Link;
use lapin::BasicProperties;
use lapin::options::{BasicPublishOptions, QueuePurgeOptions};
use url::Url;

/// The queues under a prefix, as the management API tells.
pub(crate) async fn queues(management_url: &str, prefix: &str) -> Vec<String> {
    let mut url = Url::parse(management_url).expect("a URL");
    let (user, password) = (url.username().to_owned(), url.password().unwrap_or_default().to_owned());
    url.set_path("/api/queues/%2F");
    url.set_query(Some("columns=name"));
    url.set_username("").expect("a URL with a host");
    url.set_password(None).expect("a URL with a host");
    let answer =
        reqwest::Client::new().get(url).basic_auth(user, Some(password)).send().await.expect("an answer");
    let queues: serde_json::Value = answer.json().await.expect("JSON");
    let names = queues.as_array().expect("a list").iter().filter_map(|queue| queue["name"].as_str());
    names.filter(|name| name.starts_with(prefix)).map(str::to_owned).collect()
}

/// Puts messages into a queue without anyone to consume them.
pub(crate) async fn publish(url: &str, queue: &str, count: usize) {
    let link = Link::new(url.to_owned().into(), "grapnel-tests");
    let channel = link.channel().await.expect("a channel");
    for _ in 0..count {
        let properties = BasicProperties::default().with_delivery_mode(2);
        channel
            .basic_publish("".into(), queue.into(), BasicPublishOptions::default(), b"{}", properties)
            .await
            .expect("publish");
    }
    // The answer to a synchronous request says that all before it has arrived.
    link.ready_messages(queue).await.expect("look at the queue");
    link.close().await;
}

pub(crate) async fn purge(url: &str, queue: &str) {
    let link = Link::new(url.to_owned().into(), "grapnel-tests");
    let channel = link.channel().await.expect("a channel");
    channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await.expect("purge");
    link.close().await;
}

/// A thread of its own: this runs in a drop, where the test's runtime cannot be waited for.
pub(crate) fn delete_queues(url: &str, management_url: &str, prefix: &str) {
    let (url, management_url, prefix) = (url.to_owned(), management_url.to_owned(), prefix.to_owned());
    let deleted = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let link = Link::new(url.into(), "grapnel-tests");
            for queue in queues(&management_url, &prefix).await {
                link.delete_queue(&queue).await.expect("delete a queue");
            }
            link.close().await;
        });
    });
    if deleted.join().is_err() {
        eprintln!("queues of a test were not deleted");
    }
}

/// A way to a server that can be closed and opened.
pub(crate) struct Gate {
    pub(crate) port: u16,
    open: Arc<AtomicBool>,
}

impl Gate {
    /// In front of the server of that URL.
    pub(crate) fn new(url: &str) -> Self {
        let url = Url::parse(url).expect("a URL");
        let target = format!("{}:{}", url.host_str().expect("a host"), url.port().expect("a port"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let open = Arc::new(AtomicBool::new(true));
        let is_open = Arc::clone(&open);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if is_open.load(Ordering::Relaxed)
                    && let Ok(server) = TcpStream::connect(&target)
                {
                    relay(&client, &server, &is_open);
                    relay(&server, &client, &is_open);
                }
            }
        });
        Self { port, open }
    }

    pub(crate) fn set_open(&self, open: bool) {
        self.open.store(open, Ordering::Relaxed);
    }
}

/// Copies until either side ends, or a chunk arrives while the gate is closed.
fn relay(from: &TcpStream, to: &TcpStream, is_open: &Arc<AtomicBool>) {
    let (mut from, mut to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
    let is_open = Arc::clone(is_open);
    std::thread::spawn(move || {
        let mut chunk = [0; 16_384];
        while let Ok(length @ 1..) = io::Read::read(&mut from, &mut chunk) {
            if !is_open.load(Ordering::Relaxed) || io::Write::write_all(&mut to, &chunk[..length]).is_err() {
                break;
            }
        }
        for stream in [&from, &to] {
            if stream.shutdown(Shutdown::Both).is_err() {
                // It was closed by the other side.
            }
        }
    });
}
