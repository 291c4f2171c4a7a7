//! XCLIENT: a relay tells whom it speaks for, and only one that may.

use mx_frontend::Limits;

use crate::client::Client;
use crate::played::World;

async fn behind_a_relay(is_allowed: bool) -> World {
    let limits = Limits {
        client_connections_max: 1,
        ..Limits::default()
    };
    let world = World::with(limits, |config| {
        if is_allowed {
            config.xclient_networks = vec!["127.0.0.0/8".parse().unwrap()];
        }
    })
    .await;
    world.start_directory().await;
    world.directory.add("ann@example.test", &[(1, "b1", 1)]);
    world
}

#[tokio::test]
async fn the_told_client_stands_in_the_trace_and_has_its_own_limits() {
    let world = behind_a_relay(true).await;
    let mut b1 = world.backend("b1").await;
    let mut relay = Client::connect(world.smtp).await;
    let hello = relay.command("EHLO relay.test").await;
    assert!(hello.contains("XCLIENT NAME ADDR"), "{hello}");
    let said = relay
        .command("XCLIENT ADDR=192.0.2.9 PORT=4711 NAME=host.sender.test")
        .await;
    assert!(said.starts_with("220 mx.test"), "{said}");
    relay.begin(&["ann@example.test"]).await;
    relay.send("hello\r\n.\r\n").await;
    relay.expect(&["250 2.0.0"]).await;
    b1.opened().await;
    let (commit, _) = b1.committed().await;
    let prologue = String::from_utf8(commit.recipients[0].prologue.0.clone()).unwrap();
    let prologue = prologue.replace("\r\n\t", " ");
    let from = "from client.test (host.sender.test [192.0.2.9])";
    assert!(prologue.contains(from), "{prologue}");

    // The same client once more, by the same relay, which is not limited itself.
    let mut again = Client::connect(world.smtp).await;
    again.command("EHLO relay.test").await;
    let said = again.command("XCLIENT ADDR=192.0.2.9").await;
    assert!(said.starts_with("421 4.7.0"), "{said}");
    assert_eq!(again.reply().await, "");
    // Who speaks for another now has given the first one's place back.
    let said = relay.command("XCLIENT ADDR=IPV6:2001:db8::9").await;
    assert!(said.starts_with("220"), "{said}");
    let mut again = Client::connect(world.smtp).await;
    let said = again.command("XCLIENT ADDR=192.0.2.9").await;
    assert!(said.starts_with("220"), "{said}");
}

#[tokio::test]
async fn nobody_else_is_believed() {
    let world = behind_a_relay(false).await;
    let mut client = Client::connect(world.smtp).await;
    let hello = client.command("EHLO client.test").await;
    assert!(!hello.contains("XCLIENT"), "{hello}");
    let said = client.command("XCLIENT ADDR=192.0.2.9").await;
    assert!(said.starts_with("550 5.7.0"), "{said}");
}
