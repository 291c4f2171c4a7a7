//! What passes once a user is in: every octet, in order, and every end.

use pop_imap_proxy::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::played::{LONG, Play, Seen, World};
use crate::user::User;

/// Octets that no protocol would send: every value, no period of two to the power of anything.
pub(crate) fn octets(count: usize) -> Vec<u8> {
    (0..count)
        .map(|at| u8::try_from((at * 31 + at / 251) % 256).unwrap())
        .collect()
}

#[tokio::test]
async fn five_megabytes_pass_both_ways_unchanged_and_a_half_close_is_answered() {
    let world = World::start(Limits::default()).await;
    let mut b1 = world.backend("b1").await;
    world.directory.live_at(&[("b1", b1.address)]);
    let mut user = User::connect(world.pop3).await;
    user.pop3_login().await;
    b1.opened().await;
    let sent = octets(5 << 20);
    let expected = [sent.as_slice(), b"bye\r\n"].concat();
    let early = std::mem::take(&mut user.pending);
    let (mut read, mut write) = user.stream.into_split();
    let writer = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut got = early;
    tokio::time::timeout(LONG, read.read_to_end(&mut got))
        .await
        .unwrap()
        .unwrap();
    writer.await.unwrap();
    assert_eq!(got.len(), expected.len());
    assert!(got == expected);
    assert!(matches!(b1.next().await, Seen::End(count) if count == 5 << 20));
}

#[tokio::test]
async fn five_megabytes_pass_through_tls_unchanged() {
    let world = World::start(Limits::default()).await;
    let b1 = world.backend("b1").await;
    world.directory.live_at(&[("b1", b1.address)]);
    let user = User::connect(world.imaps).await;
    let mut user = user.handshake(world.authority_pem()).await;
    user.expect("* OK").await;
    user.send("a1 LOGIN ann right\r\n").await;
    user.expect("+OK welcome").await;
    let sent = octets(5 << 20);
    let expected = sent.clone();
    let (mut read, mut write) = tokio::io::split(user.stream);
    let writer = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.flush().await.unwrap();
        write
    });
    let mut got = user.pending;
    while got.len() < expected.len() {
        assert!(
            tokio::time::timeout(LONG, read.read_buf(&mut got))
                .await
                .unwrap()
                .unwrap()
                > 0
        );
    }
    assert!(got == expected);
    let mut write = writer.await.unwrap();
    write.shutdown().await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(LONG, read.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(rest, b"bye\r\n");
}

#[tokio::test]
async fn a_stream_cut_by_the_home_cuts_the_user_too() {
    let world = World::start(Limits::default()).await;
    let b1 = world.backend("b1").await;
    world.directory.live_at(&[("b1", b1.address)]);
    b1.play(Play::Cut);
    let mut user = User::connect(world.pop3).await;
    user.pop3_login().await;
    assert_eq!(user.command("NOOP").await, "");
}

#[tokio::test]
async fn a_user_who_vanishes_is_an_end_or_a_cut_for_the_home() {
    let world = World::start(Limits::default()).await;
    let mut b1 = world.backend("b1").await;
    world.directory.live_at(&[("b1", b1.address)]);
    let mut user = User::connect(world.pop3).await;
    user.pop3_login().await;
    b1.opened().await;
    drop(user);
    assert!(matches!(b1.next().await, Seen::End(0) | Seen::Broken));
}

#[tokio::test]
async fn an_idle_session_is_cut_on_both_sides() {
    let world = World::start(Limits {
        pop3_idle_timeout_s: 1,
        ..Limits::default()
    })
    .await;
    let mut b1 = world.backend("b1").await;
    world.directory.live_at(&[("b1", b1.address)]);
    let mut user = User::connect(world.pop3).await;
    user.pop3_login().await;
    b1.opened().await;
    assert_eq!(user.line().await, "");
    assert!(matches!(b1.next().await, Seen::Broken));
}

#[tokio::test]
async fn a_drain_ends_dialogues_in_words_and_sessions_at_both_ends() {
    let world = World::start(Limits::default()).await;
    let mut b1 = world.backend("b1").await;
    world.directory.live_at(&[("b1", b1.address)]);
    let mut user = User::connect(world.pop3).await;
    user.pop3_login().await;
    b1.opened().await;
    let mut waiting = User::connect(world.imap).await;
    waiting.expect("* OK").await;
    world.proxy_shutdown.begin();
    waiting.expect("* BYE").await;
    // The home ends first, so that nothing is half said, and then the proxy says why.
    assert_eq!(user.line().await, "bye");
    user.expect("-ERR [SYS/TEMP]").await;
    assert_eq!(user.line().await, "");
    assert!(matches!(b1.next().await, Seen::End(0)));
    assert!(world.proxy_shutdown.drained(LONG).await);
}

#[tokio::test]
async fn a_drain_lets_pass_what_is_on_its_way() {
    let world = World::start(Limits::default()).await;
    let mut b1 = world.backend("b1").await;
    world.directory.live_at(&[("b1", b1.address)]);
    let mut user = User::connect(world.pop3).await;
    user.pop3_login().await;
    b1.opened().await;
    let sent = octets(5 << 20);
    let expected = sent.clone();
    let mut got = std::mem::take(&mut user.pending);
    let (mut read, mut write) = user.stream.into_split();
    let writer = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write
    });
    read.read_buf(&mut got).await.unwrap();
    world.proxy_shutdown.begin();
    tokio::time::timeout(LONG, read.read_to_end(&mut got))
        .await
        .unwrap()
        .unwrap_or_default();
    let farewell = b"bye\r\n-ERR [SYS/TEMP] come back in a moment\r\n";
    let expected = [expected.as_slice(), farewell].concat();
    assert_eq!(got.len(), expected.len());
    assert!(got == expected);
    drop(writer.await.unwrap());
    assert!(world.proxy_shutdown.drained(LONG).await);
}
