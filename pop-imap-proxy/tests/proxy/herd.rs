//! All users come back at once.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pop_imap_proxy::Limits;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::played::{LONG, PlayedBackend, World};
use crate::user::User;

/// What a user has for the login (DESIGN §13).
const LOGIN_MAX: Duration = Duration::from_secs(60);

/// Connects and logs in; the answer, how long it took, and the connection, which stays.
async fn log_in(address: SocketAddr) -> (String, Duration, BufReader<TcpStream>) {
    let began = Instant::now();
    let talk = async {
        let mut stream = BufReader::new(TcpStream::connect(address).await.unwrap());
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        assert!(line.starts_with("* OK"), "{line}");
        stream.write_all(b"a1 LOGIN ann right\r\n").await.unwrap();
        line.clear();
        stream.read_line(&mut line).await.unwrap();
        (line.trim_end().to_owned(), stream)
    };
    let (answer, stream) = timeout(LOGIN_MAX, talk).await.expect("an answer in time");
    (answer, began.elapsed(), stream)
}

/// `POSTHOUSE_TEST_HERD` says how many; each takes two descriptors of this process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_herd_is_let_in_and_nobody_is_refused_or_waits_too_long() {
    let count = std::env::var("POSTHOUSE_TEST_HERD");
    let count = count.map_or(200, |count| count.parse().unwrap());
    let world = World::start(Limits {
        connections_max: count + 1,
        logins_at_once_max: if count > 200 { 64 } else { 2 },
        user_sessions_max: 1_000_000,
        ..Limits::default()
    })
    .await;
    let b1 = world.backend("b1").await;
    world.directory.live_at(&[("b1", b1.address)]);
    let mut herd = JoinSet::new();
    for _ in 0..count {
        herd.spawn(log_in(world.imap));
    }
    let (mut longest, mut open) = (Duration::ZERO, Vec::new());
    while let Some(done) = herd.join_next().await {
        let (answer, took, stream) = done.unwrap();
        assert_eq!(answer, "+OK welcome");
        longest = longest.max(took);
        open.push(stream);
    }
    println!("{count} logins, the longest took {longest:?}");
    assert_eq!(world.directory.asked().len(), count);
    let at_once = world.directory.asked_at_once();
    assert!(at_once <= if count > 200 { 64 } else { 2 }, "{at_once}");
}

#[tokio::test]
async fn more_than_may_wait_are_told_to_come_again() {
    let world = World::start(Limits {
        logins_at_once_max: 1,
        logins_waiting_max: 1,
        ..Limits::default()
    })
    .await;
    let b1 = world.backend("b1").await;
    world.directory.live_at(&[("b1", b1.address)]);
    world.directory.answers_after(Duration::from_millis(300));
    let mut herd = JoinSet::new();
    for _ in 0..10 {
        herd.spawn(log_in(world.imap));
    }
    let (mut welcome, mut refused) = (0, 0);
    while let Some(answer) = herd.join_next().await {
        match answer.unwrap().0 {
            answer if answer == "+OK welcome" => welcome += 1,
            answer if answer.starts_with("a1 NO [UNAVAILABLE]") => refused += 1,
            answer => panic!("{answer}"),
        }
    }
    assert!(welcome >= 1 && refused >= 1, "{welcome} in, {refused} not");
    world
        .counted("posthouse_directory_client_logins_without_turn_total{reason=\"queue_full\"}")
        .await;
}

/// Waits until the directory was asked for so many logins.
async fn asked_for(world: &World, count: usize) {
    let reached = async {
        while world.directory.asked().len() < count {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, reached)
        .await
        .expect("that many are asked for");
}

/// Where the directory is asked for one login at a time, and has one that it does not answer.
async fn one_at_a_time(
    login_timeout_s: u64,
) -> (World, PlayedBackend, User<TcpStream>, OwnedMutexGuard<()>) {
    let world = World::start(Limits {
        logins_at_once_max: 1,
        login_timeout_s,
        ..Limits::default()
    })
    .await;
    let b1 = world.backend("b1").await;
    world.directory.live_at(&[("b1", b1.address)]);
    let held = world.directory.holds_refusals();
    let first = guesses(world.imap).await;
    asked_for(&world, 1).await;
    (world, b1, first, held)
}

#[tokio::test]
async fn who_leaves_the_line_is_asked_for_no_more() {
    let (world, _b1, _first, held) = one_at_a_time(60).await;
    for door in [world.imap, world.imaps] {
        for _ in 0..2 {
            let mut user = User::connect(door).await;
            if door == world.imaps {
                let mut user = user.handshake(world.authority_pem()).await;
                user.expect("* OK").await;
                user.send("a1 LOGIN bob right\r\n").await;
            } else {
                user.expect("* OK").await;
                user.send("a1 LOGIN bob right\r\n").await;
            }
        }
    }
    world.counted_to(LEFT, 4.0).await;
    drop(held);
    assert_eq!(log_in(world.imap).await.0, "+OK welcome");
    let asked = world.directory.asked();
    let right = asked.iter().filter(|one| one.password.reveal() == "right");
    assert_eq!(right.map(|one| &*one.user).collect::<Vec<_>>(), ["ann"]);
}

const LEFT: &str = "posthouse_directory_client_logins_without_turn_total{reason=\"left\"}";

#[tokio::test]
async fn who_waits_is_told_before_the_time_for_the_login_is_over() {
    let (world, _b1, _first, _held) = one_at_a_time(6).await;
    let mut user = User::connect(world.imap).await;
    user.expect("* OK").await;
    user.send("a1 LOGIN ann right\r\n").await;
    user.expect("a1 NO [UNAVAILABLE]").await;
    assert_eq!(world.directory.asked().len(), 1);
}

#[tokio::test]
async fn at_a_shutdown_who_waits_is_told_to_come_again_and_who_is_asked_for_is_answered() {
    let (world, _b1, mut first, held) = one_at_a_time(60).await;
    let mut user = User::connect(world.imap).await;
    user.expect("* OK").await;
    // With the answer to the first command the second is read.
    user.send("a0 NOOP\r\na1 LOGIN ann right\r\n").await;
    user.expect("a0 OK").await;
    world.proxy_shutdown.begin();
    user.expect("a1 NO [UNAVAILABLE]").await;
    user.expect("* BYE").await;
    drop(held);
    first.expect("a1 NO [AUTHENTICATIONFAILED]").await;
    first.expect("* BYE").await;
    assert_eq!(world.directory.asked().len(), 1);
}

/// A client at 127.0.0.2 whose login is sent.
async fn guesses(address: SocketAddr) -> User<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
    let mut user = User {
        stream: socket.connect(address).await.unwrap(),
        pending: Vec::new(),
    };
    user.expect("* OK").await;
    user.send("a1 LOGIN bob wrong\r\n").await;
    user
}

#[tokio::test]
async fn one_client_that_guesses_stands_before_nobody_else() {
    let world = World::start(Limits {
        client_connections_max: 1_000,
        client_limit_on_loopback: true,
        logins_at_once_max: 8,
        ..Limits::default()
    })
    .await;
    let b1 = world.backend("b1").await;
    world.directory.live_at(&[("b1", b1.address)]);
    let _held = world.directory.holds_refusals();
    let mut guessing = Vec::new();
    for _ in 0..200 {
        guessing.push(guesses(world.imap).await);
    }
    world
        .counted_to("posthouse_directory_client_logins_waiting", 150.0)
        .await;
    let (answer, took, _stream) = log_in(world.imap).await;
    assert_eq!(answer, "+OK welcome");
    println!("in after {took:?}");
    let asked = world.directory.asked();
    assert!(asked.iter().any(|login| login.user == "ann"));
}
