//! All users come back at once.

use std::time::{Duration, Instant};

use pop_imap_proxy::Limits;
use tokio::task::JoinSet;

use crate::played::{LONG, World};
use crate::user::User;

/// Sends the login once the greeting is there; then the answer.
async fn log_in(world_imap: std::net::SocketAddr) -> String {
    let mut user = User::connect(world_imap).await;
    user.expect("* OK").await;
    user.command("a1 LOGIN ann right").await
}

#[tokio::test]
async fn a_herd_is_let_in_one_after_the_other_and_nobody_is_refused() {
    let world = World::start(Limits {
        logins_at_once_max: 2,
        user_sessions_max: 1_000,
        ..Limits::default()
    })
    .await;
    let b1 = world.backend("b1").await;
    world.directory.live_at(&[("b1", b1.address)]);
    let mut herd = JoinSet::new();
    for _ in 0..200 {
        herd.spawn(log_in(world.imap));
    }
    while let Some(answer) = herd.join_next().await {
        assert_eq!(answer.unwrap(), "+OK welcome");
    }
    assert_eq!(world.directory.asked().len(), 200);
    assert!(world.directory.asked_at_once() <= 2);
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
    let began = Instant::now();
    let mut herd = JoinSet::new();
    for _ in 0..10 {
        herd.spawn(log_in(world.imap));
    }
    let (mut welcome, mut refused) = (0, 0);
    while let Some(answer) = herd.join_next().await {
        match answer.unwrap() {
            answer if answer == "+OK welcome" => welcome += 1,
            answer if answer.starts_with("a1 NO [UNAVAILABLE]") => refused += 1,
            answer => panic!("{answer}"),
        }
    }
    assert!(began.elapsed() < LONG);
    assert!(welcome >= 1 && refused >= 1, "{welcome} in, {refused} not");
    world
        .counted("posthouse_directory_client_logins_without_turn_total{reason=\"queue_full\"}")
        .await;
}
