//! IMAP dialogues as text: each file of `tests/dialogue` is a claim, by its name.
//!
//! ```text
//! C: what a client sends          C2: the same of a second session
//! S: what it gets, line by line   S2:
//! @deliver Subject: a header line of a message that arrives; it is in the mailbox when the next line runs
//! @append 999     so many messages are appended to INBOX by another session
//! @quota 5000 10                  from the next login on the account may keep 5000 octets and 10 messages; - for no limit
//! @end                            the connection is closed by the server
//! # a comment
//! ```
//!
//! In an `S:` line `<n>` stands for a number, `<id>` for an identifier, `<...>` for anything. Each dialogue runs four
//! times, each with an account of its own: over a socket, over a socket octet by octet, through
//! the framed stream of a proxy, and through that with COMPRESS, also octet by octet. Before every command the server writes the session's state out and reads it back.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use daemon::identity::Role;
use directory_api::Service;
use store_api::session::{Session, SessionOpen};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use crate::imap_compress::compressed;
use crate::site::{Backend, Dialogue, PATIENCE, Site};

#[derive(Clone, Copy, Debug)]
enum Way {
    Whole,
    OctetByOctet,
    Framed,
    Compressed,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_dialogue_holds_over_a_socket_octet_by_octet_and_through_a_proxy() {
    let site = Site::new().await;
    let backend = site.backend("b1").await;
    play_all(&site, &backend, "tests/dialogue").await;
}

/// These in `tests/dialogue/message_limit` are about a mailbox just below the limit, at it and above it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_dialogue_holds_where_the_message_limit_is_kept() {
    let site = Site::new().await;
    let backend = site.backend_starting("b1", "imap_message_limit_is_kept = true");
    backend.ready().await;
    play_all(&site, &backend, "tests/dialogue/message_limit").await;
}

async fn play_all(site: &Site, backend: &Backend, folder: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "imap"))
        .collect();
    files.sort();
    let mut account = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for way in [Way::Whole, Way::OctetByOctet, Way::Framed, Way::Compressed] {
            account += 1;
            let user = format!("u{account}");
            site.directory.address(&user, &[account]);
            site.directory.home(account, "b1", 1);
            let name = file.file_stem().unwrap().to_string_lossy().into_owned();
            let place = format!("{name}, {way:?}");
            println!("{place}");
            Play {
                site,
                backend,
                account,
                user,
                way,
                sessions: BTreeMap::new(),
            }
            .run(&text, &place)
            .await;
        }
    }
    assert!(account > 0, "there are dialogues");
}

struct Play<'a> {
    site: &'a Site,
    backend: &'a Backend,
    account: u64,
    user: String,
    way: Way,
    sessions: BTreeMap<char, Dialogue>,
}

impl Play<'_> {
    async fn run(mut self, text: &str, place: &str) {
        for (number, line) in text.lines().enumerate() {
            let place = format!("{place}, line {}", number + 1);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(header) = line.strip_prefix("@deliver ") {
                deliver(self.backend, &self.user, header).await;
                continue;
            }
            if let Some(count) = line.strip_prefix("@append ") {
                let messages = " {1+}\r\nx".repeat(count.parse().expect(&place));
                let mut beside = imap(self.backend, &self.user).await;
                beside.say(&format!("a APPEND INBOX{messages}")).await;
                beside.expect("a OK [APPENDUID ").await;
                continue;
            }
            if let Some(limits) = line.strip_prefix("@quota ") {
                let (octets, messages) = limits.split_once(' ').expect(&place);
                let limit = |text: &str| text.parse().ok();
                let directory = &self.site.directory;
                directory.quota(self.account, limit(octets), limit(messages));
                continue;
            }
            let (who, what) = line.split_once(':').expect(&place);
            let what = what.strip_prefix(' ').unwrap_or(what);
            let (kind, session) = match who.as_bytes() {
                [kind] => (*kind, '1'),
                [kind, number] => (*kind, char::from(*number)),
                _ => panic!("{place}: not a line of a dialogue"),
            };
            let way = self.way;
            let dialogue = self.session(session).await;
            match (kind, what) {
                (b'C', what) => {
                    let octets = format!("{what}\r\n");
                    match way {
                        Way::OctetByOctet => {
                            for octet in octets.bytes() {
                                dialogue.send(&[octet]).await;
                                tokio::task::yield_now().await;
                            }
                        }
                        _ => dialogue.send(octets.as_bytes()).await,
                    }
                }
                (b'S', "@end") => {
                    assert_eq!(dialogue.line().await, "", "{place}");
                    self.sessions.remove(&session);
                }
                (b'S', wanted) => {
                    let line = dialogue.line().await;
                    assert!(
                        is_match(wanted, &line),
                        "{place}\n  wanted {wanted:?}\n  got    {line:?}"
                    );
                }
                _ => panic!("{place}: not a line of a dialogue"),
            }
        }
        for (_, mut dialogue) in self.sessions {
            // Nothing was said that the dialogue does not have.
            dialogue.say("end NOOP").await;
            let line = dialogue.line().await;
            assert!(line.starts_with("end "), "{place}, at its end: {line:?}");
        }
    }

    async fn session(&mut self, number: char) -> &mut Dialogue {
        if !self.sessions.contains_key(&number) {
            let dialogue = match self.way {
                Way::Framed => framed(self.site, self.backend, self.account).await,
                Way::Compressed => {
                    let plain = framed(self.site, self.backend, self.account).await;
                    compressed(plain, 1).await
                }
                _ => imap(self.backend, &self.user).await,
            };
            self.sessions.insert(number, dialogue);
        }
        self.sessions.get_mut(&number).unwrap()
    }
}

/// IMAP after the login as `local@example.test`.
pub(crate) async fn imap(backend: &Backend, local: &str) -> Dialogue {
    let mut imap = Dialogue::open(backend.imap).await;
    imap.expect("* OK").await;
    imap.ask(
        &format!("l LOGIN {local}@example.test pass"),
        "l OK [CAPABILITY IMAP4rev1 ",
    )
    .await;
    imap
}

/// The same by a proxy's stream.
pub(crate) async fn framed(site: &Site, backend: &Backend, account: u64) -> Dialogue {
    let link = site.link(Role::PopImapProxy, backend);
    let grant = site.directory.grant(account, "b1", 1, Service::Imap);
    let open = SessionOpen {
        grant: site.directory.signer.sign(&grant),
        service: Service::Imap,
        client: "192.0.2.7:4711".into(),
        tls: None,
        tag: Some("l".into()),
        client_id: None,
        trace_id: "t-1".into(),
    };
    let session = Session::open(&link, &open, PATIENCE).await.unwrap();
    let (ours, theirs) = duplex(1 << 16);
    tokio::spawn(pump(session, theirs));
    let mut dialogue = Dialogue::over(ours);
    dialogue.expect("l OK [CAPABILITY IMAP4rev1 ").await;
    dialogue
}

async fn pump(session: Session, user: DuplexStream) {
    let (sender, mut receiver) = session.split();
    let (mut from_user, mut to_user) = tokio::io::split(user);
    let sending = async {
        let mut piece = vec![0; 4096];
        while let Ok(count @ 1..) = from_user.read(&mut piece).await {
            if sender.send(piece[..count].to_vec().into()).await.is_err() {
                break;
            }
        }
    };
    let receiving = async {
        while let Ok(Some(octets)) = receiver.next().await {
            if to_user.write_all(&octets).await.is_err() {
                break;
            }
        }
        let _ = to_user.shutdown().await;
    };
    tokio::join!(sending, receiving);
}

/// Delivers a message and waits until it is listed.
pub(crate) async fn deliver(backend: &Backend, local: &str, header: &str) {
    let mut beside = imap(backend, local).await;
    let before = uid_next(&mut beside).await;
    let mut lmtp = Dialogue::lmtp(backend).await;
    let message = format!("{header}\r\n\r\nbody\r\n");
    assert!(lmtp.deliver(&[local], message.as_bytes()).await[0].starts_with("250 "));
    while uid_next(&mut beside).await == before {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn uid_next(imap: &mut Dialogue) -> String {
    let line = imap.ask("u STATUS INBOX (UIDNEXT)", "* STATUS ").await;
    imap.expect("u OK").await;
    line
}

/// `<n>`, `<id>` and `<...>` stand for a number, an identifier, anything.
fn is_match(wanted: &str, line: &str) -> bool {
    let Some(place) = wanted.find('<') else {
        return wanted == line;
    };
    let (before, rest) = wanted.split_at(place);
    let Some(line) = line.strip_prefix(before) else {
        return false;
    };
    let count = |is_in: fn(char) -> bool| line.find(|c| !is_in(c)).unwrap_or(line.len());
    for (mark, taken) in [
        ("<n>", count(|c| c.is_ascii_digit())),
        ("<id>", count(|c| c.is_ascii_alphanumeric())),
    ] {
        if let Some(rest) = rest.strip_prefix(mark) {
            return taken > 0 && is_match(rest, &line[taken..]);
        }
    }
    match rest.strip_prefix("<...>") {
        Some(rest) => (0..=line.len())
            .filter(|end| line.is_char_boundary(*end))
            .any(|end| is_match(rest, &line[end..])),
        None => line.starts_with('<') && is_match(&rest[1..], &line[1..]),
    }
}
