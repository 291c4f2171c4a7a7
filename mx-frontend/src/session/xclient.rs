//! XCLIENT: from now on the client is whom a relay of ours speaks for.

use std::net::SocketAddr;

use mail_proto::smtp::XClient;
use tracing::debug;

use super::Session;
use crate::door::{Client, Places};
use crate::timeline::Timeline;
use tokio::time::Instant;

use super::Phase;

impl Session<'_> {
    /// Takes whom the relay speaks for as the client, with a place among that one's connections; or ends the connection.
    pub(super) async fn speaks_for(&mut self, told: XClient) {
        let before = self.client.address;
        let port = told.port.unwrap_or(before.port());
        let mut client = match told.address {
            Some(ip) => Client::at(self.shared, SocketAddr::new(ip, port)).await,
            // Whom it cannot name is nobody to be limited.
            None => Client::connected(self.shared, SocketAddr::new(before.ip(), port)).await,
        };
        let address = client.address;
        // The one before has gone.
        self.counted = Places::free();
        match client.admit(self.shared) {
            Ok(counted) => self.counted = counted,
            Err(why) => {
                debug!(relay = %before, client = %address, reason = why.code(), "connection refused");
                return self.shut(why);
            }
        }
        debug!(relay = %before, client = %address, "speaks for");
        self.client = client;
        self.is_out_of_turn_told = false;
        self.client_host = told.name.map(String::into_boxed_str);
        self.phase = Phase::Idle(Timeline::new(Instant::now()));
        self.core.accept();
    }
}
