//! Behind a load balancer: the client is who the balancer says, and nobody else may say so.

use std::net::SocketAddr;

use pop_imap_proxy::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::played::{LONG, World};
use crate::user::User;

const HEADER: &str = "PROXY TCP4 192.0.2.7 198.51.100.1 4711 143\r\n";

async fn behind_a_balancer(limits: Limits) -> World {
    World::with(|config| {
        config.limits = limits;
        config.balancers.networks = vec!["127.0.0.1".parse().unwrap()];
    })
    .await
}

async fn behind(header: &str, address: SocketAddr) -> User<TcpStream> {
    let mut user = User::connect(address).await;
    user.send(header).await;
    user
}

#[tokio::test]
async fn the_balancer_s_client_is_told_to_the_directory_and_to_the_home() {
    let world = behind_a_balancer(Limits::default()).await;
    let mut b1 = world.backend("b1").await;
    world.directory.live_at(&[("b1", b1.address)]);
    let user = behind(HEADER, world.imaps).await;
    let mut user = user.handshake(world.authority_pem()).await;
    user.expect("* OK").await;
    assert_eq!(user.command("a1 LOGIN ann right").await, "+OK welcome");
    assert_eq!(b1.opened().await.client, "192.0.2.7:4711");
    let asked = world.directory.asked();
    assert_eq!(asked[0].client_address.to_string(), "192.0.2.7");
    // Loopback is the balancer's own, not its client's: a password is not taken in the clear.
    let mut plain = behind(HEADER, world.imap).await;
    assert!(plain.line().await.contains("LOGINDISABLED"));
    // What looks whether we are there is served as itself.
    let mut check = behind("PROXY UNKNOWN\r\n", world.pop3).await;
    check.expect("+OK proxy.test").await;
    // And has no more rights on loopback than whoever may be behind it.
    assert!(check.command("USER ann").await.starts_with("-ERR"));
}

#[tokio::test]
async fn each_of_the_balancer_s_clients_has_connections_of_its_own() {
    let world = behind_a_balancer(Limits {
        client_connections_max: 1,
        ..Limits::default()
    })
    .await;
    let mut first = behind(HEADER, world.imap).await;
    first.expect("* OK").await;
    let other = HEADER.replace("192.0.2.7", "192.0.2.8");
    let mut other = behind(&other, world.imap).await;
    other.expect("* OK").await;
    assert!(other.command("a1 NOOP").await.starts_with("a1 OK"));
    let mut second = behind(HEADER, world.imap).await;
    second.expect("* OK").await;
    second.expect("* BYE").await;
}

#[tokio::test]
async fn a_balancer_without_a_header_or_with_a_broken_one_is_refused_with_a_reason() {
    // The time for the header is short only where it is to run out: a busy machine may take a second for what is sent.
    let world = behind_a_balancer(Limits::default()).await;
    let hasty = World::with(|config| {
        config.balancers.networks = vec!["127.0.0.1".parse().unwrap()];
        config.balancers.header_timeout_s = 1;
    });
    let hasty = hasty.await;
    for (world, sent, reason) in [
        (&hasty, "", "proxy_header_missing"),
        (&world, "a1 LOGIN ann right\r\n", "proxy_header_missing"),
        (&world, "PROXY TCP4 192.0.2.7\r\n", "proxy_header_malformed"),
        (&hasty, "PROXY TCP4 192.0.2", "proxy_header_timed_out"),
        (&world, &"PROXY ".repeat(40), "proxy_header_too_long"),
    ] {
        let line =
            format!("posthouse_proxy_refusals_total{{listener=\"imap\",limit=\"{reason}\"}}");
        let before = world.count(&line).await;
        let mut user = behind(sent, world.imap).await;
        assert_eq!(user.line().await, "", "{sent:?}");
        world.counted_to(&line, before + 1.0).await;
    }
    assert!(world.directory.asked().is_empty());
}

#[tokio::test]
async fn a_header_from_elsewhere_ends_the_connection_with_a_reason() {
    let world = World::start(Limits::default()).await;
    let signature = "\r\n\r\n\0\r\nQUIT\n";
    for (door, address) in [
        ("pop3", world.pop3),
        ("imap", world.imap),
        ("imaps", world.imaps),
    ] {
        for header in [HEADER, signature] {
            let line = format!(
                "posthouse_proxy_ends_before_login_total{{listener=\"{door}\",reason=\"proxy_header_unexpected\"}}"
            );
            let before = world.count(&line).await;
            let mut user = TcpStream::connect(address).await.unwrap();
            user.write_all(header.as_bytes()).await.unwrap();
            let mut said = Vec::new();
            // Closed with octets unread or in order: nothing but the greeting was said.
            _ = tokio::time::timeout(LONG, user.read_to_end(&mut said))
                .await
                .unwrap();
            let said = String::from_utf8(said).unwrap();
            assert!(said.lines().count() <= 1, "{said}");
            world.counted_to(&line, before + 1.0).await;
        }
    }
    assert!(world.directory.asked().is_empty());
}
