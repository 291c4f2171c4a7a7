//! XCLIENT: from now on the client is whom a relay of ours speaks for.

use std::net::SocketAddr;

use mail_proto::smtp::XClient;
use tracing::debug;

use super::Session;
use crate::door::Client;
use crate::timeline::Timeline;
use tokio::time::Instant;

use super::Phase;

impl Session<'_> {
    /// Takes whom the relay speaks for as the client, with a place among that one's connections; or ends the connection.
    pub(super) async fn speaks_for(&mut self, told: XClient) {
        let before = self.client.address;
        let address = SocketAddr::new(
            told.address.unwrap_or(before.ip()),
            told.port.unwrap_or(before.port()),
        );
        let client = Client::at(self.shared, address).await;
        if client.key != self.client.key {
            match client.admit(self.shared) {
                Ok(counted) => self.counted = counted,
                Err(why) => {
                    debug!(relay = %before, client = %address, reason = why.code(), "connection refused");
                    return self.shut(why);
                }
            }
        }
        debug!(relay = %before, client = %address, "speaks for");
        self.client = client;
        self.client_host = told.name.map(String::into_boxed_str);
        self.phase = Phase::Idle(Timeline::new(Instant::now()));
        self.core.accept();
    }
}
