//! Connections run out: who is ended soon, and who is not.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mx_frontend::{Limits, StressSettings};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::balancer::behind;
use crate::client::Client;
use crate::played::{LONG, PlayedBackend, World};
use crate::trouble::get;

/// Ten connections; stress begins at five and ends below three.
async fn small(stress: StressSettings) -> (World, PlayedBackend) {
    let stress = StressSettings {
        enter_percent: 50,
        leave_percent: 20,
        leave_after_s: 1,
        ..stress
    };
    ten(stress, Limits::default()).await
}

async fn ten(stress: StressSettings, limits: Limits) -> (World, PlayedBackend) {
    let limits = Limits {
        connections_max: 10,
        ..limits
    };
    let world = World::with(limits, |config| {
        config.stress = stress;
        config.balancers.networks = vec!["127.0.0.1".parse().unwrap()];
    })
    .await;
    world.start_directory().await;
    let b1 = world.backend("b1").await;
    world.directory.add("ann@example.test", &[(1, "b1", 1)]);
    (world, b1)
}

async fn from(network: u8, address: SocketAddr) -> Client<TcpStream> {
    from_host(network, 7, address).await
}

async fn from_host(network: u8, host: u8, address: SocketAddr) -> Client<TcpStream> {
    let header = format!("PROXY TCP4 192.0.{network}.{host} 198.51.100.1 4711 25\r\n");
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
    let ended = timeout(LONG, mute.stream.read_to_end(&mut rest)).await;
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
    world.directory.add("far@example.test", &[(2, "b9", 1)]);
    let stranger = &mut strangers[1];
    assert!(stranger.command("EHLO c").await.starts_with("250"));
    for _ in 0..3 {
        stranger
            .send("MAIL FROM:<b@s.test>\r\nRCPT TO:<far@example.test>\r\nDATA\r\nRSET\r\n")
            .await;
        stranger
            .expect(&["250", "451 4.3.2", "554 5.5.1", "250"])
            .await;
    }
    brings_mail(stranger, 1).await;
}

#[tokio::test]
async fn a_good_history_is_for_the_first_connections_and_no_leave_to_take_them_all() {
    let (world, _b1) = small(StressSettings {
        good_connections_max: 2,
        ..StressSettings::default()
    })
    .await;
    let mut first = greeted(1, world.smtp).await;
    // Its history is one of both.
    let mut second = greeted(1, world.smtp).await;
    brings_mail(&mut first, 2).await;
    let mut third = greeted(1, world.smtp).await;
    let _others = (greeted(2, world.smtp).await, greeted(3, world.smtp).await);
    stressed(&world, true).await;
    for client in [&mut first, &mut second] {
        client.send("A\r\nB\r\nNOOP\r\n").await;
        client.expect(&["500", "500", "250"]).await;
    }
    third.send("A\r\nNOOP\r\n").await;
    third.expect(&["500", "421 4.7.0"]).await;
}

#[tokio::test]
async fn who_is_exempt_is_served_as_ever_and_takes_nothing_from_its_neighbours() {
    let limits = Limits {
        client_connections_max: 1,
        exempt_networks: vec!["192.0.9.7".parse().unwrap()],
        ..Limits::default()
    };
    let stress = StressSettings {
        enter_percent: 50,
        leave_percent: 20,
        reserved_percent: 50,
        ..StressSettings::default()
    };
    let (world, _b1) = ten(stress, limits).await;
    let mut exempt = Vec::new();
    for _ in 0..3 {
        exempt.push(greeted(9, world.smtp).await);
    }
    let mut neighbour = from_host(9, 8, world.smtp).await;
    neighbour.expect(&["220 "]).await;
    let mut again = from_host(9, 8, world.smtp).await;
    again.expect(&["421 4.7.0"]).await;
    exempt.push(greeted(9, world.smtp).await);
    exempt.push(greeted(9, world.smtp).await);
    stressed(&world, true).await;
    // Of the other half too.
    exempt.push(greeted(9, world.smtp).await);
    for client in &mut exempt {
        client.send("A\r\nB\r\nNOOP\r\n").await;
        client.expect(&["500", "500", "250"]).await;
    }
    neighbour.send("A\r\nNOOP\r\n").await;
    neighbour.expect(&["500", "421 4.7.0"]).await;
}

#[tokio::test]
async fn who_brings_no_message_is_ended_whatever_it_says() {
    let (world, _b1) = small(StressSettings {
        session_timeout_s: 4,
        ..StressSettings::default()
    })
    .await;
    // Recipients that are refused for now are no mistakes, and their transactions no junk.
    world.directory.add("far@example.test", &[(2, "b9", 1)]);
    let mut idler = greeted(1, world.stressed).await;
    idler.send("EHLO c\r\n").await;
    idler.expect(&["250"]).await;
    let deadline = Instant::now() + LONG;
    loop {
        assert!(Instant::now() < deadline, "held for ever");
        idler
            .send("MAIL FROM:<b@s.test>\r\nRCPT TO:<far@example.test>\r\nRSET\r\n")
            .await;
        let mut said = String::new();
        for _ in 0..3 {
            said = idler.reply().await;
            if said.starts_with("421") {
                break;
            }
        }
        if said.starts_with("421") {
            assert!(said.starts_with("421 4.4.2 too long without"), "{said}");
            break;
        }
        assert!(said.starts_with("250"), "{said}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let mut turns = greeted(1, world.stressed).await;
    turns
        .send("EHLO c\r\nMAIL FROM:<b@s.test>\r\nRSET\r\nMAIL FROM:<b@s.test>\r\nRSET\r\n")
        .await;
    turns
        .expect(&["250", "250", "250", "250", "250", "421 4.7.0"])
        .await;
}

#[tokio::test]
async fn a_refused_body_is_read_at_its_pace_and_its_verdict_said() {
    let (world, _b1) = small(StressSettings {
        command_timeout_s: 3,
        ..StressSettings::default()
    })
    .await;
    let mut client = greeted(1, world.stressed).await;
    client.begin(&["ann@example.test"]).await;
    client.send("bare\n").await;
    // Longer than a command may take, and never silent.
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        client.send([b'x'; 400]).await;
    }
    client.send("\r\n.\r\n").await;
    client.expect(&["550 5.5.2", "421 4.7.0"]).await;
    let mut client = greeted(1, world.stressed).await;
    client.begin(&["ann@example.test"]).await;
    client.send("bare\n").await;
    client.expect(&["550 5.5.2", "421 4.4.2"]).await;
}

#[tokio::test]
async fn who_does_not_read_is_ended_when_connections_run_out() {
    let limits = Limits {
        hard_error_limit: 1000,
        junk_command_limit: 100_000,
        ..Limits::default()
    };
    let stress = StressSettings {
        enter_percent: 50,
        leave_percent: 20,
        command_timeout_s: 2,
        ..StressSettings::default()
    };
    let (world, _b1) = ten(stress, limits).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(world.smtp).await.unwrap();
    let commands = [
        "PROXY TCP4 192.0.1.7 198.51.100.1 4711 25\r\n",
        &"EHLO client.test\r\n".repeat(90_000),
    ]
    .concat();
    // Their replies are more than the system takes, so that the server waits to write.
    let mut rest = commands.as_bytes();
    while let Ok(ready) = timeout(Duration::from_secs(2), stream.writable()).await {
        ready.unwrap();
        rest = &rest[stream.try_write(rest).unwrap_or(0)..];
        if rest.is_empty() {
            tokio::time::sleep(Duration::from_secs(2)).await;
            break;
        }
    }
    let mut others = Vec::new();
    for network in 2..6 {
        others.push(greeted(network, world.smtp).await);
    }
    stressed(&world, true).await;
    let reset = async {
        while stream
            .try_write(b"x")
            .map_or_else(|error| error.kind() == ErrorKind::WouldBlock, |_| true)
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let ended = timeout(LONG, reset).await;
    assert!(ended.is_ok(), "it has 300 s as things are");
}

#[tokio::test]
async fn the_last_connections_are_left_to_those_who_have_brought_mail() {
    // It begins at the latest when a stranger finds none.
    let stress = StressSettings {
        enter_percent: 100,
        reserved_percent: 20,
        ..StressSettings::default()
    };
    let (world, _b1) = ten(stress, Limits::default()).await;
    let mut good = greeted(1, world.smtp).await;
    brings_mail(&mut good, 2).await;
    let mut strangers = Vec::new();
    for network in 2..9 {
        strangers.push(greeted(network, world.smtp).await);
    }
    let mut ninth = from(20, world.smtp).await;
    ninth.expect(&["421 4.3.2"]).await;
    assert_eq!(ninth.reply().await, "");
    stressed(&world, true).await;
    for _ in 0..2 {
        let mut friend = greeted(1, world.smtp).await;
        assert!(friend.command("NOOP").await.starts_with("250"));
        strangers.push(friend);
    }
}

#[tokio::test]
async fn when_not_one_is_free_who_has_brought_mail_may_not_be_idle_for_long_either() {
    let stress = StressSettings {
        reserved_percent: 0,
        command_timeout_s: 3,
        ..StressSettings::default()
    };
    let (world, _b1) = ten(stress, Limits::default()).await;
    let mut good = greeted(1, world.smtp).await;
    brings_mail(&mut good, 2).await;
    // It is silent for longer than the others, who are ended for it too.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut strangers = Vec::new();
    for network in 2..11 {
        strangers.push(greeted(network, world.smtp).await);
    }
    stressed(&world, true).await;
    let mut eleventh = from(20, world.smtp).await;
    eleventh.expect(&["421 4.3.2"]).await;
    good.expect(&["421 4.4.2"]).await;
    assert_eq!(good.reply().await, "");
}

#[tokio::test]
async fn all_networks_of_a_site_with_ipv6_have_one_history() {
    let (world, _b1) = small(StressSettings {
        good_connections_max: 2,
        ..StressSettings::default()
    })
    .await;
    let of_site = async |site: &str| {
        let header = format!("PROXY TCP6 2001:db8:0:{site}::7 2001:db8::1 4711 25\r\n");
        let mut client = behind(&header, world.smtp).await;
        client.expect(&["220 "]).await;
        client
    };
    let mut first = of_site("a01").await;
    brings_mail(&mut first, 2).await;
    // A /64 of the same /56, one more of it than are served as ever, and one of another.
    let mut neighbour = of_site("aff").await;
    let mut third = of_site("a77").await;
    let mut stranger = of_site("b01").await;
    let _others = (greeted(2, world.smtp).await, greeted(3, world.smtp).await);
    stressed(&world, true).await;
    for client in [&mut first, &mut neighbour] {
        client.send("A\r\nB\r\nNOOP\r\n").await;
        client.expect(&["500", "500", "250"]).await;
    }
    for client in [&mut third, &mut stranger] {
        client.send("A\r\nNOOP\r\n").await;
        client.expect(&["500", "421 4.7.0"]).await;
    }
}

#[tokio::test]
async fn one_listener_shows_how_it_is_under_stress() {
    let (world, _b1) = small(StressSettings {
        command_timeout_s: 5,
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
