//! Connects to the first of several addresses that answers (RFC 8305).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an address may take before the next one is tried beside it. RFC 8305, section 8.
const HEAD_START: Duration = Duration::from_millis(250);

/// Connects to the addresses in their order, without waiting for one that does not answer. Returns the last error.
pub(super) async fn first_of(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let stream = match addresses {
        [only] => TcpStream::connect(only).await?,
        several => race(several).await?,
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn race(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut connecting = FuturesUnordered::new();
    let mut next = addresses.iter();
    let mut last_error = io::ErrorKind::AddrNotAvailable.into();
    loop {
        let is_last = next.len() <= 1;
        if let Some(address) = next.next() {
            connecting.push(TcpStream::connect(*address));
        }
        let connected = match is_last {
            true => connecting.next().await,
            false => match timeout(HEAD_START, connecting.next()).await {
                Ok(connected) => connected,
                Err(_) => continue,
            },
        };
        match connected {
            Some(Ok(stream)) => return Ok(stream),
            Some(Err(error)) => last_error = error,
            None => return Err(last_error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{TcpListener, TcpSocket};

    /// Bound and not listening: nobody else gets the port, and connections to it are refused.
    fn refusing() -> (TcpSocket, SocketAddr) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    #[tokio::test]
    async fn an_address_that_refuses_is_passed_over() {
        let (_first, first) = refusing();
        let (_second, second) = refusing();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let answering = listener.local_addr().unwrap();
        for order in [[first, answering, second], [answering, first, second], [first, second, answering]] {
            assert_eq!(first_of(&order).await.unwrap().peer_addr().unwrap(), answering);
        }
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_is_not_waited_for() {
        // The backlog of a listener that never accepts is full after one connection, and then packets are dropped.
        let silent = TcpSocket::new_v4().unwrap();
        silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let silent = silent.listen(0).unwrap();
        let silent_address = silent.local_addr().unwrap();
        let _first = TcpStream::connect(silent_address).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let answering = listener.local_addr().unwrap();
        let stream = first_of(&[silent_address, answering]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), answering);
    }

    #[tokio::test]
    async fn without_an_answer_the_error_is_returned() {
        let ((_first, first), (_second, second)) = (refusing(), refusing());
        assert_eq!(first_of(&[first, second]).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(first_of(&[]).await.unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
    }
}
