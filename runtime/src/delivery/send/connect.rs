//! Opens connections to receivers.

use std::time::Duration;

use tokio::time::timeout;

use super::exchange::{Connection, ExchangeError};
use super::stream::Stream;
use super::tls::{Tls, TlsError};
use crate::egress::{Egress, EgressError};
use grapnel_core::delivery::target::DeliveryTarget;

/// Opens connections. One takes no longer than the deadline, with its lookup and its TLS handshake.
pub(super) struct Connector {
    pub egress: Egress,
    pub tls: Tls,
    pub deadline: Duration,
}

/// No connection to a receiver.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error(transparent)]
    Egress(#[from] EgressError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    #[error("no connection within {} s", _0.as_secs_f64())]
    TimedOut(Duration),
}

impl Connector {
    pub(super) async fn connect(&self, target: &DeliveryTarget) -> Result<Box<Connection>, ConnectError> {
        let connected = timeout(self.deadline, self.connect_without_deadline(target)).await;
        connected.map_err(|_| ConnectError::TimedOut(self.deadline))?
    }

    async fn connect_without_deadline(
        &self,
        target: &DeliveryTarget,
    ) -> Result<Box<Connection>, ConnectError> {
        let stream = match &target.endpoints {
            Some(endpoints) => self.egress.connect_to_endpoint(endpoints).await?,
            None => self.egress.connect(&target.url).await?,
        };
        let peer = stream.peer_addr().ok();
        let stream = match target.url.scheme() {
            "https" => Stream::tls(self.tls.handshake(stream, target).await?),
            _ => Stream::plain(stream),
        };
        Ok(Box::new(Connection::new(stream, peer).await?))
    }
}
