//! Connections run out: who is ended soon, and who is not.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mx_frontend::{Limits, StressSettings};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::balancer::behind;
use crate::client::Client;
use crate::played::{LONG, PlayedBackend, World};
use crate::trouble::get;

/// Ten connections; stress begins at five and ends below three.
async fn small(stress: StressSettings) -> (World, PlayedBackend) {
    let limits = Limits {
        connections_max: 10,
        ..Limits::default()
    };
    let world = World::with(limits, |config| {
        config.stress = StressSettings {
            enter_percent: 50,
            leave_percent: 20,
            leave_after_s: 1,
            ..stress
        };
        config.balancers.networks = vec!["127.0.0.1".parse().unwrap()];
    })
    .await;
    world.start_directory().await;
    let b1 = world.backend("b1").await;
    world.directory.add("ann@example.test", &[(1, "b1", 1)]);
    (world, b1)
}

async fn from(network: u8, address: SocketAddr) -> Client<TcpStream> {
    let header = format!("PROXY TCP4 192.0.{network}.7 198.51.100.1 4711 25\r\n");
    behind(&header, address).await
}

async fn greeted(network: u8, address: SocketAddr) -> Client<TcpStream> {
    let mut client = from(network, address).await;
    client.expect(&["220 "]).await;
    client
}

/// Waits until health says, or no longer says, that connections run out.
async fn stressed(world: &World, is_on: bool) {
    let deadline = Instant::now() + LONG;
    loop {
        let health = get(world, "/health").await;
        // Ready all the same.
        if health.starts_with("HTTP/1.1 200") && health.contains("\"stress\"") == is_on {
            return;
        }
        assert!(Instant::now() < deadline, "{health}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn brings_mail(client: &mut Client<TcpStream>, messages: usize) {
    for _ in 0..messages {
        client.begin(&["ann@example.test"]).await;
        client.send("hello\r\n.\r\n").await;
        client.expect(&["250 2.0.0"]).await;
    }
}

#[tokio::test]
async fn when_connections_run_out_silent_clients_are_ended_until_there_is_room_again() {
    let (world, _b1) = small(StressSettings {
        command_timeout_s: 2,
        starttls_timeout_s: 2,
        ..StressSettings::default()
    })
    .await;
    stressed(&world, false).await;
    let mut silent = Vec::new();
    for network in 0..4 {
        silent.push(greeted(network, world.smtp).await);
    }
    // One in a handshake that never begins.
    let mut mute = from(4, world.smtps).await;
    stressed(&world, true).await;
    // All of them have 300 s as things are.
    for client in &mut silent {
        client.expect(&["421 4.4.2"]).await;
        assert_eq!(client.reply().await, "");
    }
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(LONG, mute.stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "a silent handshake holds its slot");
    stressed(&world, false).await;
    let metrics = get(&world, "/metrics").await;
    for change in ["entered", "left"] {
        let line = format!("posthouse_mx_stress_changes_total{{change=\"{change}\"}}");
        assert!(metrics.contains(&line), "{metrics}");
    }
    assert!(metrics.contains("posthouse_mx_stressed "), "{metrics}");
    // As ever: a mistake ends nothing.
    let mut client = greeted(1, world.smtp).await;
    client.send("A\r\nNOOP\r\n").await;
    client.expect(&["500", "250"]).await;
}

#[tokio::test]
async fn who_has_brought_mail_is_served_as_ever_and_a_stranger_s_first_mistake_is_the_last() {
    let (world, _b1) = small(StressSettings::default()).await;
    let mut good = greeted(1, world.smtp).await;
    brings_mail(&mut good, 2).await;
    let mut strangers = Vec::new();
    for network in 2..6 {
        strangers.push(greeted(network, world.smtp).await);
    }
    stressed(&world, true).await;
    good.send("A\r\nB\r\nNOOP\r\n").await;
    good.expect(&["500", "500", "250"]).await;
    let mut again = greeted(1, world.smtp).await;
    again.send("A\r\nNOOP\r\n").await;
    again.expect(&["500", "250"]).await;

    let stranger = &mut strangers[0];
    stranger
        .send("EHLO c\r\nMAIL FROM:<b@s.test>\r\nRCPT TO:<nobody@example.test>\r\n")
        .await;
    stranger
        .expect(&["250", "250", "550 5.1.1", "421 4.7.0"])
        .await;
    // What is our fault is none of theirs, and whoever makes no mistake brings mail as ever.
    brings_mail(&mut strangers[1], 1).await;
}

#[tokio::test]
async fn the_last_connections_are_left_to_those_who_have_brought_mail() {
    let (world, _b1) = small(StressSettings {
        reserved_percent: 20,
        ..StressSettings::default()
    })
    .await;
    let mut good = greeted(1, world.smtp).await;
    brings_mail(&mut good, 2).await;
    let mut strangers = Vec::new();
    for network in 2..9 {
        strangers.push(greeted(network, world.smtp).await);
    }
    let mut ninth = from(20, world.smtp).await;
    ninth.expect(&["421 4.3.2"]).await;
    assert_eq!(ninth.reply().await, "");
    for _ in 0..2 {
        let mut friend = greeted(1, world.smtp).await;
        assert!(friend.command("NOOP").await.starts_with("250"));
        strangers.push(friend);
    }
}

#[tokio::test]
async fn one_listener_shows_how_it_is_under_stress() {
    let (world, _b1) = small(StressSettings {
        command_timeout_s: 2,
        ..StressSettings::default()
    })
    .await;
    let mut silent = greeted(1, world.stressed).await;
    let mut calm = greeted(1, world.smtp).await;
    silent.expect(&["421 4.4.2"]).await;
    let mut faulty = greeted(1, world.stressed).await;
    faulty.send("A\r\nNOOP\r\n").await;
    faulty.expect(&["500", "421 4.7.0"]).await;
    let mut idle = greeted(1, world.stressed).await;
    idle.send("NOOP\r\nNOOP\r\nNOOP\r\n").await;
    idle.expect(&["250", "250", "421 4.7.0"]).await;
    let mut works = greeted(1, world.stressed).await;
    brings_mail(&mut works, 3).await;
    works.send("A\r\n").await;
    works.expect(&["500", "421 4.7.0"]).await;
    assert!(calm.command("NOOP").await.starts_with("250"));
    stressed(&world, false).await;
}
