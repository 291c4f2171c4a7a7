//! The trace lines put before the message, for each delivery its own. RFC 5321 §4.4.

use std::net::SocketAddr;

use daemon::stream::UserStream;
use mail_proto::Address;
use mail_proto::smtp::{ReversePath, Server};
use mail_proto::trace::{Prologue, Received};

/// What the connection tells about a message.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) client: SocketAddr,
    pub(super) client_name: String,
    /// Its name in the DNS, where somebody vouches for it.
    pub(super) client_host: Option<Box<str>>,
    /// The word after "with".
    pub(super) protocol: &'static str,
    pub(super) tls: Option<String>,
}

impl Connection {
    pub(super) fn of(
        core: &Server,
        stream: &UserStream,
        client: SocketAddr,
        client_host: Option<Box<str>>,
    ) -> Self {
        Self {
            client,
            client_name: core.client_name().to_owned(),
            client_host,
            protocol: core.protocol(),
            tls: stream
                .tls_facts()
                .map(|facts| format!("{} {}", facts.version, facts.cipher)),
        }
    }
}

/// What all deliveries of one message share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    pub(super) connection: &'a Connection,
    pub(super) reverse_path: &'a ReversePath,
    pub(super) hostname: &'a str,
    pub(super) trace_id: &'a str,
    /// Authentication-Results, where something was looked at.
    pub(super) results: Option<&'a str>,
    pub(super) date: &'a str,
}

/// The lines for one recipient. Naming it tells nobody of another: these lines are its own.
pub(super) fn prologue(facts: &Facts<'_>, recipient: &Address) -> Vec<u8> {
    let mut lines = Prologue::new().return_path(facts.reverse_path);
    if let Some(results) = facts.results {
        lines = lines.field("Authentication-Results", results);
    }
    lines.delivered_to(recipient).received(&Received {
        client_name: &facts.connection.client_name,
        client_address: facts.connection.client.ip(),
        client_host: facts.connection.client_host.as_deref(),
        by: facts.hostname,
        protocol: facts.connection.protocol,
        tls: facts.connection.tls.as_deref(),
        id: facts.trace_id,
        recipient: Some(recipient),
        date: facts.date,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made_up::address;

    #[test]
    fn the_lines_stand_in_order_and_received_is_last() {
        let connection = Connection {
            client: "192.0.2.7:1025".parse().unwrap(),
            client_name: "client.test".into(),
            client_host: Some("host.client.test".into()),
            protocol: "ESMTPS",
            tls: Some("TLSv1.3 X".into()),
        };
        let facts = Facts {
            connection: &connection,
            reverse_path: &ReversePath::Mailbox(address("bob@sender.test")),
            hostname: "mx.test",
            trace_id: "t1",
            results: Some("mx.test; spf=pass"),
            date: "Sun, 22 Nov 2026 14:11:12 +0000",
        };
        let lines = String::from_utf8(prologue(&facts, &address("ann@example.test"))).unwrap();
        assert!(
            lines.starts_with("Return-Path: <bob@sender.test>\r\n"),
            "{lines}"
        );
        let results = lines.find("\r\nAuthentication-Results: mx.test; spf=pass\r\n");
        assert!(results.is_some(), "{lines}");
        let delivered = lines.find("Delivered-To: ann@example.test\r\n").unwrap();
        let received = lines.find("\r\nReceived: from client.test ").unwrap();
        assert!(
            delivered < received && lines.ends_with("+0000\r\n"),
            "{lines}"
        );
        let lines = lines[received..].replace("\r\n\t", " ");
        for word in [
            "(host.client.test [192.0.2.7])",
            "by mx.test",
            "with ESMTPS",
            "id t1",
        ] {
            assert!(lines.contains(word), "{word}: {lines}");
        }
    }
}
