//! A network between a process and a service, which a test can break.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use url::Url;

/// A proxy in front of one service. New connections are refused when it is dropped.
pub struct FaultProxy {
    address: SocketAddr,
    network: Arc<Network>,
    task: AbortHandle,
}

struct Network {
    is_open: AtomicBool,
    /// How long bytes are on their way.
    delay: Duration,
    /// The text that is not let through.
    refused: Mutex<Option<&'static str>>,
    /// Freezes the connections that were made since the last time.
    frozen: Mutex<CancellationToken>,
}

impl FaultProxy {
    /// Starts a proxy for the service of a URL, on any port.
    pub async fn new(service: &str) -> Self {
        Self::at(0, service).await
    }

    /// Starts a proxy whose service is so far away.
    pub async fn with_delay(service: &str, delay: Duration) -> Self {
        Self::start(0, service, delay).await
    }

    /// Starts a proxy on a port that was free a moment ago.
    pub async fn at(port: u16, service: &str) -> Self {
        Self::start(port, service, Duration::ZERO).await
    }

    async fn start(port: u16, service: &str, delay: Duration) -> Self {
        let service = Url::parse(service).expect("a URL");
        let target = (service.host_str().expect("a host").to_owned(), service.port().expect("a port"));
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let network = Network {
            is_open: AtomicBool::new(true),
            delay,
            refused: Mutex::default(),
            frozen: Mutex::default(),
        };
        let network = Arc::new(network);
        let accepting = Arc::clone(&network);
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if accepting.is_open() {
                    let frozen = accepting.frozen.lock().expect("no panic").clone();
                    tokio::spawn(forward(near, target.clone(), Arc::clone(&accepting), frozen));
                }
            }
        });
        Self { address, network, task: task.abort_handle() }
    }

    /// Returns the URL of the service through the proxy.
    pub fn url(&self, service: &str) -> String {
        on_port(service, self.address.port())
    }

    /// Holds back everything on the present connections, in both directions, without closing them: as when a machine
    /// vanishes or a router forgets them. New connections work.
    pub fn freeze(&self) {
        let mut token = self.network.frozen.lock().expect("no panic");
        token.cancel();
        *token = CancellationToken::new();
    }

    /// Closes new connections at once, and the present ones with the next bytes on them.
    pub fn close(&self) {
        self.network.is_open.store(false, Ordering::Relaxed);
    }

    /// Closes each connection on which this text is sent to the service; `None`: none any more.
    pub fn refuse(&self, text: Option<&'static str>) {
        *self.network.refused.lock().expect("no panic") = text;
    }

    pub fn open(&self) {
        self.network.is_open.store(true, Ordering::Relaxed);
    }
}

/// Returns the URL of a service with another port on loopback.
pub fn on_port(service: &str, port: u16) -> String {
    let mut url = Url::parse(service).expect("a URL");
    url.set_host(Some("127.0.0.1")).expect("a URL with a host");
    url.set_port(Some(port)).expect("a URL with a port");
    url.into()
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Network {
    fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    fn refuses(&self, sent: &[u8]) -> bool {
        let refused = *self.refused.lock().expect("no panic");
        refused.is_some_and(|text| sent.windows(text.len()).any(|window| window == text.as_bytes()))
    }
}

async fn forward(near: TcpStream, target: (String, u16), network: Arc<Network>, frozen: CancellationToken) {
    let Ok(far) = TcpStream::connect(target).await else {
        return;
    };
    let ((near_reader, near_writer), (far_reader, far_writer)) = (near.into_split(), far.into_split());
    let out = copy(near_reader, far_writer, &network, |sent| network.refuses(sent));
    let back = copy(far_reader, near_writer, &network, |_| false);
    // One future for both directions: an error in one of them drops the other, which closes both connections.
    let mut both = std::pin::pin!(async { tokio::try_join!(out, back) });
    tokio::select! {
        _ended = &mut both => {}
        // Both connections stay open until the runtime of the test ends.
        () = frozen.cancelled() => std::future::pending().await,
    }
}

/// Copies until the sender closes. Fails with the first bytes that come while the proxy is closed, or that are refused.
async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    network: &Network,
    refuses: impl Fn(&[u8]) -> bool,
) -> io::Result<()> {
    let mut chunk = vec![0; 16_384];
    loop {
        let length = from.read(&mut chunk).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        if !network.is_open() || refuses(&chunk[..length]) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if !network.delay.is_zero() {
            tokio::time::sleep(network.delay).await;
        }
        to.write_all(&chunk[..length]).await?;
    }
}
