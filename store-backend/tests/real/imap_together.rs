//! Sessions that change one mailbox at once: whatever happens, a number means the same message to client and server.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::imap_client::{Answer, Imap, Value};
use crate::imap_messages::site;
use crate::site::Backend;

/// UIDs and the bodies they were first seen with, by anybody.
type Bodies = Mutex<HashMap<usize, Vec<u8>>>;

/// A client that knows which UID each of its numbers has.
struct Client<'a> {
    imap: Imap,
    /// By sequence number; `None` until it was told.
    uids: Vec<Option<usize>>,
    bodies: &'a Bodies,
}

impl<'a> Client<'a> {
    async fn open(backend: &Backend, bodies: &'a Bodies) -> Self {
        let mut client = Self {
            imap: Imap::login(backend, "ann").await,
            uids: Vec::new(),
            bodies,
        };
        client.command("SELECT INBOX").await;
        client
    }

    async fn command(&mut self, command: &str) -> Answer {
        let answer = self.imap.command(command.as_bytes()).await;
        assert!(!answer.tagged.starts_with("BAD"), "{command}: {answer:?}");
        for response in &answer.untagged {
            let text = String::from_utf8_lossy(response);
            let words: Vec<&str> = text.splitn(4, ' ').collect();
            let Ok(number) = words[1].parse::<usize>() else {
                continue;
            };
            match words[2] {
                "EXISTS" => {
                    assert!(number >= self.uids.len(), "{command}: {answer:?}");
                    self.uids.resize(number, None);
                }
                "EXPUNGE" => {
                    let is_numbered = command.starts_with("FETCH") || command.starts_with("STORE");
                    assert!(!is_numbered, "{command}: {answer:?}");
                    self.uids.remove(number - 1);
                }
                "FETCH" => {
                    let head = format!("* {number} FETCH ").len();
                    self.check(number, &Value::list_of(&response[head..]));
                }
                _ => {}
            }
        }
        answer
    }

    fn check(&mut self, number: usize, items: &[Value]) {
        let value = |name: &str| {
            let at = items
                .iter()
                .position(|item| *item == Value::Atom(name.to_owned()));
            at.map(|at| &items[at + 1])
        };
        let Some(uid) = value("UID").map(Value::number) else {
            return;
        };
        let known = self.uids[number - 1].get_or_insert(uid);
        assert_eq!(*known, uid, "message {number}");
        assert!(self.uids.iter().flatten().is_sorted(), "{:?}", self.uids);
        if let Some(Value::Text(body)) = value("BODY[TEXT]") {
            let mut bodies = self.bodies.lock().unwrap();
            let first = bodies.entry(uid).or_insert_with(|| body.clone());
            assert_eq!(first, body, "UID {uid}");
        }
    }
}

async fn work(backend: &Backend, bodies: &Bodies, seed: u64) -> usize {
    let mut client = Client::open(backend, bodies).await;
    let mut random = seed;
    let mut next = |below: usize| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap() % below.max(1)
    };
    for step in 0..200 {
        let count = client.uids.len();
        let (one, other) = (next(count) + 1, next(count) + 1);
        let command = match next(12) {
            _ if count < 3 => 0,
            choice => choice,
        };
        let command = match command {
            0 | 1 => {
                let body = format!("\r\nbody {seed} {step}");
                format!("APPEND INBOX {{{}+}}\r\n{body}", body.len())
            }
            2 => format!("FETCH {one}:{other} (UID FLAGS BODY.PEEK[TEXT])"),
            3 => format!("FETCH {one},{other} (UID BODY[TEXT])"),
            4 => format!("STORE {one} +FLAGS (\\Deleted)"),
            5 => format!("STORE {one}:{other} -FLAGS.SILENT (\\Seen key{step})"),
            6 => "EXPUNGE".to_owned(),
            7 => format!("COPY {one} INBOX"),
            8 => format!("MOVE {one} INBOX"),
            9 => format!("UID FETCH {one}:* (FLAGS)"),
            10 => format!("SEARCH NOT BODY {step}"),
            _ => "FETCH 1:* (UID)".to_owned(),
        };
        client.command(&command).await;
    }
    client.command("NOOP").await;
    client.uids.len()
}

#[tokio::test]
async fn a_number_means_the_same_message_to_client_and_server_whatever_others_do() {
    let (_site, backend) = site().await;
    let bodies = Bodies::default();
    tokio::join!(
        work(&backend, &bodies, 3),
        work(&backend, &bodies, 5),
        work(&backend, &bodies, 8),
    );
    let mut last = Client::open(&backend, &bodies).await;
    last.command("FETCH 1:* (UID BODY.PEEK[TEXT])").await;
    assert!(last.uids.iter().all(Option::is_some));
    assert!(bodies.lock().unwrap().len() > 50);
}

#[tokio::test]
async fn an_expunge_that_another_session_was_first_with_is_told_at_once() {
    let (_site, backend) = site().await;
    let mut first = Imap::inbox(&backend, "ann").await;
    let mut second = Imap::inbox(&backend, "ann").await;
    for round in 0..20 {
        first.append(b"x").await;
        first.ok("STORE 1 +FLAGS.SILENT (\\Deleted)").await;
        second.ok("NOOP").await;
        let command = match round % 2 {
            0 => "EXPUNGE",
            _ => "UID EXPUNGE 1:*",
        };
        assert_eq!(first.ok(command).await.untagged, [b"* 1 EXPUNGE"]);
        assert_eq!(second.ok(command).await.untagged, [b"* 1 EXPUNGE"]);
    }
}
