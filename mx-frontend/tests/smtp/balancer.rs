//! Behind a load balancer: the client is who the balancer says.

use std::net::SocketAddr;

use mx_frontend::Limits;
use tokio::net::TcpStream;

use crate::client::Client;
use crate::played::World;

pub(crate) async fn behind(header: &str, address: SocketAddr) -> Client<TcpStream> {
    let mut client = Client::silent(address).await;
    client.send(header.as_bytes()).await;
    client
}

#[tokio::test]
async fn the_balancer_s_client_stands_in_the_trace_and_has_connections_of_its_own() {
    let limits = Limits {
        client_connections_max: 1,
        ..Limits::default()
    };
    let world = World::with(limits, |config| {
        config.balancers.networks = vec!["127.0.0.1".parse().unwrap()];
    })
    .await;
    world.start_directory().await;
    let mut b1 = world.backend("b1").await;
    world.directory.add("ann@example.test", &[(1, "b1", 1)]);
    let header = "PROXY TCP4 192.0.2.7 198.51.100.1 4711 25\r\n";
    let mut client = behind(header, world.smtp).await;
    assert!(client.reply().await.starts_with("220 "));
    client.command("EHLO client.test").await;
    client.command("MAIL FROM:<bob@sender.test>").await;
    client.command("RCPT TO:<ann@example.test>").await;
    client.command("DATA").await;
    let said = client.command("Subject: x\r\n\r\nx\r\n.").await;
    assert!(said.starts_with("250"), "{said}");
    b1.opened().await;
    let (commit, _) = b1.committed().await;
    let prologue = String::from_utf8(commit.recipients[0].prologue.0.to_vec()).unwrap();
    assert!(prologue.contains("[192.0.2.7]"), "{prologue}");

    for same in [header, &header.replace(".7 ", ".8 ")] {
        let mut second = behind(same, world.smtp).await;
        assert!(second.reply().await.starts_with("421 4.7.0"), "one /24");
    }
    let mut other = behind(&header.replace("192.0.2.", "192.0.3."), world.smtp).await;
    assert!(other.reply().await.starts_with("220 "));
    // A balancer that says nothing of the kind is closed without a word.
    let mut mute = behind("EHLO client.test\r\n", world.smtp).await;
    mute.closed().await;
}
