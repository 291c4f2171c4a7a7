//! Behind a load balancer: the client is who the balancer says.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::site::{Dialogue, Site};

const HEADER: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 110\r\n";

/// All that is said on a connection before the other side ends its direction, to who says this and no more.
async fn said_to(address: std::net::SocketAddr, words: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(words).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut said = Vec::new();
    // Closed with octets unread, it is a reset.
    _ = stream.read_to_end(&mut said).await;
    String::from_utf8(said).unwrap()
}

#[tokio::test]
async fn users_come_through_balancers_and_mail_servers_only_where_the_settings_say_so() {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let balancers = "[balancers]\nnetworks = [\"127.0.0.1\"]\n";
    let backend = site.backend_starting("b1", balancers);
    backend.ready().await;
    // Loopback is the balancer's own: its client may not log in in the clear.
    let greeting = said_to(backend.imap, &[HEADER, b"a1 LOGOUT\r\n"].concat()).await;
    assert!(greeting.contains("LOGINDISABLED"), "{greeting}");
    for address in [backend.pop3, backend.imap, backend.pop3s] {
        assert_eq!(said_to(address, b"a1 LOGOUT\r\n").await, "");
    }
    let mut lmtp = Dialogue::lmtp(&backend).await;
    assert!(lmtp.deliver(&["ann"], b"Subject: x\r\n\r\n").await[0].starts_with("250 "));
    drop(backend);

    let listen = "plaintext_login = true\nlmtp_behind_balancers = true";
    let backend = site.backend_with("b1", listen, balancers);
    backend.ready().await;
    assert_eq!(said_to(backend.lmtp, b"QUIT\r\n").await, "");
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 24\r\nQUIT\r\n";
    let greeting = said_to(backend.lmtp, header).await;
    assert!(greeting.starts_with("220 "), "{greeting}");
}
