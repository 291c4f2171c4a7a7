//! What passes between a user and another mail system once the user is in there.

use std::io::ErrorKind;

use directory_api::wire::ForeignTls;
use pop_imap_proxy::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::foreign::{Act, Other, certificates, failures, imap_login, say, world};
use crate::played::{LONG, World};
use crate::relay::octets;
use crate::user::User;

/// A login that is followed by these.
fn login_then(acts: impl IntoIterator<Item = Act>) -> Vec<Act> {
    let mut script = imap_login();
    script.pop();
    script.extend(acts);
    script
}

async fn user(world: &World) -> User<TcpStream> {
    let mut user = User::connect(world.imap).await;
    user.expect("* OK").await;
    let told = user.command("a1 LOGIN ann right").await;
    assert!(told.starts_with("a1 OK"), "{told}");
    user
}

#[tokio::test]
async fn megabytes_pass_both_ways_unchanged_and_a_half_close_is_answered() {
    let (world, _folder) = world(Limits::default(), |_| {}).await;
    let other = Other::start().await;
    world.directory.live_abroad("old", other.plain());
    other.plays(login_then([Act::Return]));
    let user = user(&world).await;
    let sent = octets(5 << 20);
    let expected = [sent.as_slice(), b"bye\r\n"].concat();
    let mut got = user.pending;
    let (mut read, mut write) = user.stream.into_split();
    let writer = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
        write
    });
    let ended = timeout(LONG, read.read_to_end(&mut got)).await;
    ended.unwrap().unwrap();
    drop(writer.await.unwrap());
    assert_eq!(got.len(), expected.len());
    assert!(got == expected);
}

#[tokio::test]
async fn one_that_takes_nothing_for_a_while_is_still_heard_and_loses_nothing() {
    let (world, _folder) = world(Limits::default(), |_| {}).await;
    let mut other = Other::start().await;
    world.directory.live_abroad("old", other.plain());
    // Much more than the buffers between the two take.
    let (from_there, from_user) = (octets(5 << 20), 32 << 20);
    other.plays(login_then([Act::Say(from_there.clone()), Act::Count]));
    let user = user(&world).await;
    let mut got = user.pending;
    let (mut read, mut write) = user.stream.into_split();
    let writer = tokio::spawn(async move {
        let piece = octets(1 << 20);
        for _ in 0..from_user / piece.len() {
            write.write_all(&piece).await.unwrap();
        }
        write.shutdown().await.unwrap();
    });
    let ended = timeout(LONG, read.read_to_end(&mut got)).await;
    ended.unwrap().unwrap();
    writer.await.unwrap();
    assert!(got == from_there);
    for _ in 0..2 {
        other.heard().await;
    }
    assert_eq!(other.heard().await, from_user.to_string());
}

#[tokio::test]
async fn a_cut_of_its_tls_is_a_cut_for_the_user_and_an_end_an_end() {
    let there = tempfile::tempdir().unwrap();
    let (ca, files) = certificates(there.path());
    let (world, _folder) = world(Limits::default(), |login| login.ca = Some(ca)).await;
    let other = Other::start().await;
    let foreign = other.imap(ForeignTls::Implicit);
    world.directory.live_abroad("old", foreign);
    for (last, is_cut) in [
        (vec![say("* 1 FETCH (BODY[] {9}\n")], true),
        (vec![Act::Echo], false),
    ] {
        let mut script = vec![Act::Tls(files.clone())];
        script.extend(login_then(last));
        other.plays(script);
        let user = User::connect(world.imaps).await;
        let mut user = user.handshake(world.authority_pem()).await;
        user.expect("* OK").await;
        user.command("a1 LOGIN ann right").await;
        if !is_cut {
            user.send("BYE\r\n").await;
        }
        let mut rest = Vec::new();
        let ended = timeout(LONG, user.stream.read_to_end(&mut rest)).await;
        let cut = ended.unwrap().err().map(|error| error.kind());
        assert_eq!(cut, is_cut.then_some(ErrorKind::UnexpectedEof));
    }
}

#[tokio::test]
async fn what_is_put_behind_the_yes_to_starttls_reaches_nobody() {
    let there = tempfile::tempdir().unwrap();
    let (ca, files) = certificates(there.path());
    let (world, _folder) = world(Limits::default(), |login| login.ca = Some(ca)).await;
    let mut other = Other::start().await;
    let foreign = other.imap(ForeignTls::StartTls);
    world.directory.live_abroad("old", foreign);
    let yes = say("p1 OK begin\n* OK injected\np2 OK [CAPABILITY X-EVIL] in\n");
    other.plays([say("* OK\n"), Act::Hear, yes, Act::Tls(files)]);
    let line = failures("foreign_nonsense");
    let before = world.count(&line).await;
    let mut user = User::connect(world.imap).await;
    user.expect("* OK").await;
    let told = user.command("a1 LOGIN ann right").await;
    assert!(told.starts_with("a1 NO [UNAVAILABLE]"), "{told}");
    world.counted_to(&line, before + 1.0).await;
    assert_eq!(other.heard().await, "p1 STARTTLS");
}
