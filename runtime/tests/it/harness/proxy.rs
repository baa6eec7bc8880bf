//! A network between a process and a service, which a test can break.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use url::Url;

/// Forwards connections to one service.
pub(crate) struct Proxy {
    address: SocketAddr,
    frozen: Arc<Mutex<CancellationToken>>,
    task: AbortHandle,
}

impl Proxy {
    /// A proxy for the service of a URL, on any port.
    pub(crate) async fn new(service: &str) -> Self {
        Self::at(0, service).await
    }

    /// On a port that was free a moment ago.
    pub(crate) async fn at(port: u16, service: &str) -> Self {
        let service = Url::parse(service).expect("a URL");
        let target = (service.host_str().expect("a host").to_owned(), service.port().expect("a port"));
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let frozen = Arc::new(Mutex::new(CancellationToken::new()));
        let current = Arc::clone(&frozen);
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let token = current.lock().expect("no panic").clone();
                tokio::spawn(forward(near, target.clone(), token));
            }
        });
        Self { address, frozen, task: task.abort_handle() }
    }

    /// The URL of the service through the proxy.
    pub(crate) fn url(&self, service: &str) -> String {
        through(service, self.address.port())
    }

    /// Nothing comes through the connections of this moment any more, in either direction, and neither side is told:
    /// as when a machine vanishes or a router forgets them. New connections work.
    pub(crate) fn freeze(&self) {
        let mut token = self.frozen.lock().expect("no panic");
        token.cancel();
        *token = CancellationToken::new();
    }
}

/// A service's URL with another port on loopback.
pub(crate) fn through(service: &str, port: u16) -> String {
    let mut url = Url::parse(service).expect("a URL");
    url.set_host(Some("127.0.0.1")).expect("a URL with a host");
    url.set_port(Some(port)).expect("a URL with a port");
    url.into()
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(mut near: TcpStream, target: (String, u16), frozen: CancellationToken) {
    let Ok(mut far) = TcpStream::connect(target).await else {
        return;
    };
    tokio::select! {
        // Either side has closed or broken; both are closed here.
        _ended = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
        // Both sockets stay open until the test's runtime ends.
        () = frozen.cancelled() => std::future::pending().await,
    }
}
