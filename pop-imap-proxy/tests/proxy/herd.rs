//! All users come back at once.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pop_imap_proxy::Limits;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::played::World;
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
