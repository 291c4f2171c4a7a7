//! A session changes its back-end, and its user sees every octet once and in order.

use pop_imap_proxy::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::played::{LONG, Play, Seen, World};
use crate::relay::octets;
use crate::user::User;

/// Sends `sent`, says that there is no more, and gives all that comes back.
async fn exchange(world: &World, sent: Vec<u8>) -> Vec<u8> {
    let mut user = User::connect(world.pop3).await;
    user.pop3_login().await;
    let mut got = std::mem::take(&mut user.pending);
    let (mut read, mut write) = user.stream.into_split();
    let writer = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    tokio::time::timeout(LONG, read.read_to_end(&mut got))
        .await
        .unwrap()
        .unwrap();
    writer.await.unwrap();
    got
}

#[tokio::test]
async fn a_session_that_is_paused_under_load_goes_on_where_it_was() {
    let world = World::start(Limits::default()).await;
    let mut b1 = world.backend("b1").await;
    world.directory.live_at(&[("b1", b1.address)]);
    b1.play(Play::Pause {
        behind: 1_000_001,
        elsewhere: None,
    });
    let sent = octets(3 << 20);
    let got = exchange(&world, sent.clone()).await;
    let expected = [&sent[..], b"bye\r\n"].concat();
    assert_eq!(got.len(), expected.len());
    assert!(got == expected);
    b1.opened().await;
    assert!(matches!(b1.next().await, Seen::End(count) if count == 3 << 20));
}

#[tokio::test]
async fn a_session_is_handed_to_another_back_end_and_back_under_load() {
    let world = World::start(Limits::default()).await;
    let (mut b1, mut b2) = (world.backend("b1").await, world.backend("b2").await);
    world.directory.live_at(&[("b1", b1.address)]);
    for (backend, behind, elsewhere) in [
        (&b1, 1_000_001, "b2"),
        (&b2, 2_000_003, "b1"),
        (&b1, 2_500_007, "b2"),
    ] {
        backend.play(Play::Pause {
            behind,
            elsewhere: Some(elsewhere),
        });
    }
    let sent = octets(4 << 20);
    let got = exchange(&world, sent.clone()).await;
    let expected = [&sent[..], b"bye\r\n"].concat();
    assert_eq!(got.len(), expected.len());
    assert!(got == expected);
    let open = b1.opened().await;
    let Seen::Resume(resume) = b2.next().await else {
        panic!("not handed on")
    };
    assert!(resume.from_user >= 1_000_001);
    assert_eq!(resume.trace_id, open.trace_id);
    assert!(matches!(b1.next().await, Seen::Resume(_)));
    // Once more, and the end is told to the last one.
    loop {
        match b2.next().await {
            Seen::End(count) => break assert_eq!(count, 4 << 20),
            Seen::Resume(_) | Seen::Broken => {}
            Seen::Open(_) => panic!("opened anew"),
        }
    }
}

#[tokio::test]
async fn an_idle_session_is_handed_on_and_the_next_command_goes_there() {
    let world = World::start(Limits::default()).await;
    let (b1, mut b2) = (world.backend("b1").await, world.backend("b2").await);
    world.directory.live_at(&[("b1", b1.address)]);
    b1.play(Play::Pause {
        behind: 6,
        elsewhere: Some("b2"),
    });
    let mut user = User::connect(world.pop3).await;
    user.pop3_login().await;
    assert_eq!(user.command("STAT").await, "STAT");
    assert!(matches!(b2.next().await, Seen::Resume(resume) if resume.from_user == 6));
    assert_eq!(user.command("LIST").await, "LIST");
    drop(user);
    assert!(matches!(b2.next().await, Seen::End(12) | Seen::Broken));
}

#[tokio::test]
async fn a_hand_over_that_leads_nowhere_or_lies_cuts_the_session_and_no_other() {
    let world = World::start(Limits::default()).await;
    let b1 = world.backend("b1").await;
    world.directory.live_at(&[("b1", b1.address)]);
    for play in [
        Play::Pause {
            behind: 3,
            elsewhere: Some("b9"),
        },
        Play::PauseAndLie,
    ] {
        b1.play(play);
        let mut user = User::connect(world.pop3).await;
        user.pop3_login().await;
        let mut other = User::connect(world.pop3).await;
        other.pop3_login().await;
        user.send("NOOP\r\n").await;
        let answer = user.line().await;
        assert!(!answer.contains("OP"), "{answer}");
        assert_eq!(user.line().await, "");
        assert_eq!(other.command("NOOP").await, "NOOP");
    }
    world
        .counted("posthouse_proxy_sessions_total{listener=\"pop3\",end=\"hand_over_failed\"}")
        .await;
}
