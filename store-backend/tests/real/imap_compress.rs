//! COMPRESS with a client of zlib: one stream each way, flushed behind each piece, its window used to the full.

use std::time::Duration;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::time::timeout;

use crate::imap_dialogue::{deliver, framed, imap};
use crate::site::{Backend, Dialogue, PATIENCE, Site, Wire};

/// One direction's machine of a client.
pub(crate) struct Deflater(Compress);

impl Deflater {
    pub(crate) fn new(level: u32) -> Self {
        Self(Compress::new(Compression::new(level), false))
    }

    pub(crate) fn deflate(&mut self, mut octets: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        loop {
            out.reserve(1 << 10);
            let before = self.0.total_in();
            self.0
                .compress_vec(octets, &mut out, FlushCompress::Sync)
                .unwrap();
            octets = &octets[usize::try_from(self.0.total_in() - before).unwrap()..];
            if octets.is_empty() && out.len() < out.capacity() {
                return out;
            }
        }
    }
}

fn inflate(machine: &mut Decompress, mut octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        out.reserve(1 << 10);
        let before = machine.total_in();
        machine
            .decompress_vec(octets, &mut out, FlushDecompress::Sync)
            .expect("the server compresses as agreed");
        octets = &octets[usize::try_from(machine.total_in() - before).unwrap()..];
        if octets.is_empty() && out.len() < out.capacity() {
            return out;
        }
    }
}

/// Goes over to compression; what is said from now on goes out in pieces of so many octets.
pub(crate) async fn compressed(mut plain: Dialogue, piece_octets: usize) -> Dialogue {
    plain.ask("z COMPRESS DEFLATE", "z OK ").await;
    over(plain, piece_octets)
}

/// The same, when compression is agreed on already.
fn over(plain: Dialogue, piece_octets: usize) -> Dialogue {
    let (ours, theirs) = duplex(1 << 16);
    tokio::spawn(pump(plain.into_wire(), theirs, piece_octets));
    Dialogue::over(ours)
}

async fn pump(server: Box<dyn Wire>, user: impl Wire, piece_octets: usize) {
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let (mut from_user, mut to_user) = tokio::io::split(user);
    let sending = async {
        let mut deflater = Deflater::new(9);
        let mut read = vec![0; 4096];
        while let Ok(count @ 1..) = from_user.read(&mut read).await {
            for piece in deflater.deflate(&read[..count]).chunks(piece_octets) {
                if to_server.write_all(piece).await.is_err() {
                    return;
                }
                if piece_octets < 100 {
                    tokio::task::yield_now().await;
                }
            }
        }
        let _ = to_server.shutdown().await;
    };
    let receiving = async {
        let mut inflater = Decompress::new(false);
        let mut read = vec![0; 4096];
        while let Ok(count @ 1..) = from_server.read(&mut read).await {
            let octets = inflate(&mut inflater, &read[..count]);
            if to_user.write_all(&octets).await.is_err() {
                return;
            }
        }
        let _ = to_user.shutdown().await;
    };
    tokio::join!(sending, receiving);
}

async fn site() -> (Site, Backend) {
    site_with("").await
}

async fn site_with(limits: &str) -> (Site, Backend) {
    let site = Site::new().await;
    for (local, account) in [("ann", 1), ("ben", 2)] {
        site.directory.address(local, &[account]);
        site.directory.home(account, "b1", 1);
    }
    let backend = site.backend_starting("b1", limits);
    backend.ready().await;
    (site, backend)
}

#[tokio::test]
async fn what_is_pipelined_behind_the_command_is_compressed_and_its_answer_is_not() {
    let (_site, backend) = site().await;
    let mut plain = imap(&backend, "ann").await;
    let mut deflater = Deflater::new(6);
    let behind = deflater.deflate(b"b NOOP\r\nc NOOP\r\n");
    plain
        .send(&[b"a COMPRESS DEFLATE\r\n", &behind[..]].concat())
        .await;
    plain.expect("a OK DEFLATE active").await;
    let mut wire = plain.into_unread();
    let mut got = wire.0.clone();
    let mut inflater = Decompress::new(false);
    let mut text = inflate(&mut inflater, &got);
    while !text.ends_with(b"\r\nc OK done\r\n") {
        got.resize(4096, 0);
        let reading = timeout(PATIENCE, wire.1.read(&mut got));
        let count = reading.await.expect("in time").unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&text));
        text.extend(inflate(&mut inflater, &got[..count]));
    }
    assert!(text.starts_with(b"b OK "));
}

#[tokio::test]
async fn it_is_active_once_and_another_mechanism_is_bad() {
    let (_site, backend) = site().await;
    let mut plain = imap(&backend, "ann").await;
    plain.ask("a COMPRESS LZ4", "a BAD ").await;
    plain.ask("b COMPRESS", "b BAD ").await;
    let mut imap = compressed(plain, 1 << 12).await;
    imap.ask("c COMPRESS DEFLATE", "c NO [COMPRESSIONACTIVE] ")
        .await;
    imap.ask("d NOOP", "d OK ").await;
    imap.ask("e LOGOUT", "* BYE ").await;
    imap.expect("e OK ").await;
    assert_eq!(imap.line().await, "");
}

#[tokio::test]
async fn a_message_goes_in_and_comes_out_whole_and_idle_tells_of_it() {
    let (site, backend) = site().await;
    let mut body = Vec::new();
    let mut seed = 1u32;
    while body.len() < 400_000 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        body.extend_from_slice(format!("{} line {:x}\r\n", seed % 7, seed).as_bytes());
    }
    let message = [&b"Subject: large\r\n\r\n"[..], &body].concat();
    for (who, piece_octets) in [
        (framed(&site, &backend, 1).await, 999),
        (imap(&backend, "ben").await, 1 << 14),
    ] {
        let local = if piece_octets == 999 { "ann" } else { "ben" };
        let mut client = compressed(who, piece_octets).await;
        client
            .say(&format!("a APPEND INBOX {{{}}}", message.len()))
            .await;
        client.expect("+ ").await;
        client.send(&message).await;
        client.say("").await;
        client.expect("a OK [APPENDUID ").await;
        client.ask("b SELECT INBOX", "* ").await;
        while !client.line().await.starts_with("b OK ") {}
        client
            .ask("c FETCH 1 BODY.PEEK[]", "* 1 FETCH (BODY[] {")
            .await;
        assert!(client.octets(message.len()).await == message);
        client.expect(")").await;
        client.expect("c OK ").await;
        client.ask("d IDLE", "+ ").await;
        deliver(&backend, local, "Subject: new").await;
        client.expect("* 2 EXISTS").await;
        client.say("DONE").await;
        while !client.line().await.starts_with("d OK ") {}
    }
}

#[tokio::test]
async fn what_is_not_compressed_ends_the_session() {
    let (_site, backend) = site().await;
    let mut plain = imap(&backend, "ann").await;
    plain.ask("a COMPRESS DEFLATE", "a OK ").await;
    plain.send(b"\xff\xffb NOOP\r\n").await;
    assert_eq!(plain.line().await, "");
    imap(&backend, "ann").await.ask("a NOOP", "a OK ").await;
}

#[tokio::test]
async fn a_bomb_is_a_command_too_long_and_costs_no_memory() {
    let (_site, backend) = site().await;
    let mut plain = imap(&backend, "ann").await;
    plain.ask("a COMPRESS DEFLATE", "a OK ").await;
    let before = backend.resident_octets();
    let bomb = Deflater::new(9).deflate(&vec![b'a'; 60 << 20]);
    assert!(bomb.len() < 100_000, "{}", bomb.len());
    let mut wire = plain.into_wire();
    wire.write_all(&bomb).await.unwrap();
    let mut text = Vec::new();
    let mut inflater = Decompress::new(false);
    let mut read = vec![0; 4096];
    while !text.ends_with(b"\r\n") {
        let reading = timeout(PATIENCE, wire.read(&mut read));
        let count = reading.await.expect("in time").unwrap();
        assert!(count > 0);
        text.extend(inflate(&mut inflater, &read[..count]));
    }
    assert!(
        text.starts_with(b"* BAD command line too long"),
        "{}",
        String::from_utf8_lossy(&text)
    );
    tokio::time::sleep(Duration::from_millis(300)).await;
    let held = backend.resident_octets().saturating_sub(before);
    assert!(held < 8 << 20, "60 MB of a bomb hold {held} octets");
}

#[tokio::test]
async fn only_so_many_sessions_compress_and_the_others_go_on_without() {
    let (_site, backend) = site_with("compressed_sessions_max = 1").await;
    let first = compressed(imap(&backend, "ann").await, 1 << 12).await;
    let mut second = imap(&backend, "ben").await;
    second.ask("a COMPRESS DEFLATE", "a NO [LIMIT] ").await;
    second.ask("b NOOP", "b OK ").await;
    drop(first);
    let freed = async {
        while !second
            .ask("c COMPRESS DEFLATE", "c ")
            .await
            .starts_with("c OK ")
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, freed).await.expect("the place is free");
    over(second, 1).ask("d NOOP", "d OK ").await;
}
