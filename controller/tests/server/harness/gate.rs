//! A TCP relay that can cut a server off from its clients.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use url::Url;

/// A relay to a server that can be closed and opened.
pub(crate) struct Gate {
    pub(crate) port: u16,
    open: Arc<AtomicBool>,
}

impl Gate {
    /// Starts a relay to the server of a URL.
    pub(crate) fn new(url: &str) -> Self {
        let url = Url::parse(url).expect("a URL");
        let target = format!("{}:{}", url.host_str().expect("a host"), url.port().expect("a port"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let open = Arc::new(AtomicBool::new(true));
        let is_open = Arc::clone(&open);
        // Ends with the process of the test.
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

/// Copies until either side closes, or a chunk arrives while the gate is closed.
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
                // The other side has closed it.
            }
        }
    });
}
