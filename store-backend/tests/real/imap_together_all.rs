//! Everything on one mailbox at once: IMAP of every kind, IDLE, deliveries, POP3. Each client keeps what it knows of the
//! mailbox from untagged responses alone; in the end all know the same, and every moment that a client remembers can
//! be come back to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::imap_client::Imap;
use crate::imap_messages::site;
use crate::imap_model::{Facts, Model, given_by};
use crate::site::{Backend, Dialogue, PATIENCE};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Condstore,
    Resync,
    UidOnly,
}

struct Random(u64);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % count.max(1)
    }
}

/// One IMAP session and what it knows.
struct Client<'a> {
    imap: Imap,
    kind: Kind,
    model: Model,
    facts: &'a Facts,
    tag: u32,
    random: Random,
    /// What it knew at some moments.
    remembered: Vec<Model>,
}

impl<'a> Client<'a> {
    async fn open(backend: &Backend, facts: &'a Facts, kind: Kind, seed: u64) -> Self {
        let mut client = Self {
            imap: Imap::login(backend, "ann").await,
            kind,
            model: Model::of(kind == Kind::UidOnly),
            facts,
            tag: 0,
            random: Random(seed),
            remembered: Vec::new(),
        };
        match kind {
            Kind::Plain => {}
            Kind::Condstore => drop(client.command("ENABLE CONDSTORE").await),
            Kind::Resync => drop(client.command("ENABLE QRESYNC").await),
            Kind::UidOnly => drop(client.command("ENABLE UIDONLY CONDSTORE").await),
        }
        client.model.select();
        client.command("SELECT INBOX").await;
        client
    }

    async fn say(&mut self, command: &str) -> String {
        self.tag += 1;
        let tag = format!("x{} ", self.tag);
        let line = format!("{tag}{command}\r\n");
        self.imap.send(line.as_bytes()).await;
        tag
    }

    /// Hears until the answer of a tag, which is given without it.
    async fn answer(&mut self, tag: &str, command: &str) -> String {
        let numbered = ["FETCH", "STORE", "SEARCH", "SORT"];
        let may_expunge = !numbered.iter().any(|verb| command.starts_with(verb));
        loop {
            let response = self.imap.response().await;
            assert!(!response.is_empty(), "{command}: the connection ended");
            if response.starts_with(b"+ ") {
                return String::new();
            }
            let Some(tagged) = response.strip_prefix(tag.as_bytes()) else {
                self.model.hear(&response, self.facts, may_expunge);
                continue;
            };
            let tagged = String::from_utf8(tagged.to_vec()).unwrap();
            assert!(!tagged.starts_with("BAD"), "{command}: {tagged}");
            self.facts.gave(&given_by(&tagged));
            self.model.is_selected();
            if let Some((_, rest)) = tagged.split_once("[HIGHESTMODSEQ ") {
                self.model.modseq = rest.split(']').next().unwrap().parse().unwrap();
            }
            return tagged;
        }
    }

    async fn command(&mut self, command: &str) -> String {
        let tag = self.say(command).await;
        self.answer(&tag, command).await
    }

    fn knows_all(&self) -> bool {
        self.model.rows.iter().all(|row| row.subject.is_some())
    }

    /// Asks for what it does not know.
    async fn learn(&mut self) {
        let unknown = self.model.rows.iter().position(|row| row.subject.is_none());
        let Some(unknown) = unknown else { return };
        let modseq = match self.kind {
            Kind::Plain => "",
            _ => " MODSEQ",
        };
        let items = format!("(UID FLAGS{modseq} BODY.PEEK[HEADER.FIELDS (SUBJECT)])");
        match self.kind {
            Kind::UidOnly => self.command(&format!("UID FETCH 1:* {items}")).await,
            _ => {
                self.command(&format!("FETCH {}:* {items}", unknown + 1))
                    .await
            }
        };
    }

    /// A message that may go: its place and UID.
    fn fodder(&mut self) -> Option<(usize, u32)> {
        let rows = self.model.rows.iter().enumerate();
        let is_fodder = |subject: &String| subject.starts_with("fodder");
        let fodder: Vec<(usize, u32)> = rows
            .filter(|(_, row)| row.subject.as_ref().is_some_and(is_fodder))
            .filter_map(|(place, row)| Some((place + 1, row.uid?)))
            .collect();
        (!fodder.is_empty()).then(|| fodder[self.random.below(fodder.len())])
    }

    /// One command of any kind.
    async fn step(&mut self, step: usize) {
        let count = self.model.rows.len();
        if count < 4 || self.random.below(4) == 0 {
            self.learn().await;
        }
        let (one, other) = (self.random.below(count) + 1, self.random.below(count) + 1);
        let (one, other) = (one.min(other), one.max(other));
        let fodder = self.fodder();
        let key = format!("key{}", self.random.below(6));
        let choice = self.random.below(20);
        let by_uid = self.kind == Kind::UidOnly || self.random.below(2) == 0;
        let known = |place: usize| self.model.rows.get(place - 1).and_then(|row| row.uid);
        let (set, uid) = match (by_uid, count) {
            (_, 0) => (None, ""),
            (false, _) => (Some(format!("{one}:{other}")), ""),
            (true, _) => (
                known(one)
                    .zip(known(other))
                    .map(|(one, other)| format!("{one}:{other}")),
                "UID ",
            ),
        };
        let command = match (choice, set, fodder) {
            (0, ..) => {
                let body = format!("Subject: fodder {step}\r\n\r\nbody {step}\r\n");
                format!("APPEND INBOX ({key}) {{{}+}}\r\n{body}", body.len())
            }
            (1, Some(set), _) => format!("{uid}STORE {set} +FLAGS ({key} \\Flagged)"),
            (2, Some(set), _) => format!("{uid}STORE {set} -FLAGS ({key})"),
            (3, Some(set), _) if count > 0 && !by_uid => {
                self.model
                    .store_silently(one - 1..=other - 1, true, "\\Answered");
                format!("STORE {set} +FLAGS.SILENT (\\Answered)")
            }
            (4, Some(set), _) if count > 0 && !by_uid => {
                self.model
                    .store_silently(one - 1..=other - 1, false, "\\Answered");
                format!("STORE {set} -FLAGS.SILENT (\\Answered)")
            }
            (5 | 6, _, Some((place, of))) => match by_uid {
                true => format!("UID STORE {of} +FLAGS (\\Deleted)"),
                false => format!("STORE {place} +FLAGS (\\Deleted)"),
            },
            (7, ..) => "EXPUNGE".to_owned(),
            (8, _, Some((_, of))) => format!("UID EXPUNGE {of}"),
            (9, _, Some((place, of))) => match by_uid {
                true => format!("UID COPY {of} INBOX"),
                false => format!("COPY {place} INBOX"),
            },
            (10, _, Some((place, of))) => match by_uid {
                true => format!("UID MOVE {of} INBOX"),
                false => format!("MOVE {place} INBOX"),
            },
            (11, Some(set), _) => format!("{uid}FETCH {set} (BODY[TEXT])"),
            (12, Some(set), _) => format!("{uid}FETCH {set} (FLAGS)"),
            (13, ..) if !by_uid => format!("SEARCH NOT KEYWORD {key}"),
            (13, ..) => format!("UID SEARCH KEYWORD {key}"),
            (14, Some(set), _) if self.kind != Kind::Plain => {
                let since = self.model.modseq;
                format!("{uid}STORE {set} (UNCHANGEDSINCE {since}) +FLAGS ({key})")
            }
            (15, ..) if self.kind == Kind::Resync => {
                let since = self.model.modseq.saturating_sub(20).max(1);
                format!("UID FETCH 1:* (FLAGS) (CHANGEDSINCE {since} VANISHED)")
            }
            (16, ..) => return self.idle_a_little().await,
            (17, ..) if self.kind == Kind::Resync && self.knows_all() => {
                let (validity, modseq) = (self.model.uid_validity, self.model.modseq);
                self.model.select();
                format!("SELECT INBOX (QRESYNC ({validity} {modseq}))")
            }
            (18, Some(set), _) if !by_uid => {
                // The next one is sent before the answer to the first: no number may change.
                let first = format!("STORE {set} +FLAGS (\\Draft)");
                let second = format!("FETCH {set} (UID FLAGS)");
                let tags = [self.say(&first).await, self.say(&second).await];
                self.answer(&tags[0], &first).await;
                self.answer(&tags[1], &second).await;
                return;
            }
            _ => "NOOP".to_owned(),
        };
        self.command(&command).await;
        if self.kind == Kind::Resync && self.knows_all() && self.random.below(8) == 0 {
            self.remembered.push(self.model.clone());
        }
    }

    async fn idle_a_little(&mut self) {
        let tag = self.say("IDLE").await;
        self.answer(&tag, "IDLE").await;
        for _ in 0..self.random.below(4) {
            if !self.imap.speaks_within(Duration::from_millis(20)).await {
                break;
            }
            let response = self.imap.response().await;
            self.model.hear(&response, self.facts, true);
        }
        self.imap.send(b"DONE\r\n").await;
        self.answer(&tag, "DONE").await;
    }

    /// Stays in IDLE from the beginning on, and must come to know the end by what it is told there.
    async fn idle_until(&mut self, last: impl Future<Output = Model>) -> Model {
        self.learn().await;
        let tag = self.say("IDLE").await;
        self.answer(&tag, "IDLE").await;
        tokio::pin!(last);
        let last = loop {
            // Whatever is read is read whole.
            tokio::select! {
                last = &mut last => break last,
                _ = self.imap.speaks_within(PATIENCE) => {
                    let response = self.imap.response().await;
                    self.model.hear(&response, self.facts, true);
                }
            }
        };
        let began = Instant::now();
        while let Err(differs) = self.model.agrees(&last) {
            assert!(
                began.elapsed() < PATIENCE,
                "{:?} was not told in IDLE: {differs}",
                self.kind
            );
            if self.imap.speaks_within(Duration::from_millis(100)).await {
                let response = self.imap.response().await;
                self.model.hear(&response, self.facts, true);
            }
        }
        self.imap.send(b"DONE\r\n").await;
        self.answer(&tag, "DONE").await;
        last
    }
}

/// What works, and what is to be found in the end.
struct Run<'a> {
    backend: &'a Backend,
    facts: &'a Facts,
    working: AtomicUsize,
    done: tokio::sync::Notify,
    last: tokio::sync::watch::Sender<Option<Model>>,
}

impl Run<'_> {
    fn ends(&self) {
        if self.working.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_one();
        }
    }

    async fn last(&self) -> Model {
        let mut last = self.last.subscribe();
        let last = last.wait_for(Option::is_some).await.unwrap();
        last.clone().unwrap()
    }

    async fn work(&self, kind: Kind, seed: u64) -> Vec<Model> {
        let mut client = Client::open(self.backend, self.facts, kind, seed).await;
        for step in 0..STEPS {
            client.step(step).await;
        }
        self.ends();
        let last = self.last().await;
        client.command("NOOP").await;
        if let Err(differs) = client.model.agrees(&last) {
            panic!("{kind:?} does not know the end: {differs}");
        }
        client.remembered
    }

    async fn idle(&self, kind: Kind) {
        let mut client = Client::open(self.backend, self.facts, kind, 0).await;
        client.idle_until(self.last()).await;
    }

    /// Subjects of what was accepted and must be there.
    async fn deliver(&self, name: &str) -> BTreeSet<String> {
        let mut lmtp = Dialogue::lmtp(self.backend).await;
        let mut kept = BTreeSet::new();
        for number in 0..DELIVERIES {
            let subject = match number % 4 {
                0 => format!("keep {name} {number}"),
                _ => format!("fodder {name} {number}"),
            };
            let message = format!("Subject: {subject}\r\n\r\nbody {number}\r\n");
            let replies = lmtp.deliver(&["ann"], message.as_bytes()).await;
            assert!(replies[0].starts_with("250 "), "{replies:?}");
            if subject.starts_with("keep") {
                kept.insert(subject);
            }
        }
        self.ends();
        kept
    }

    async fn read_by_pop3(&self, seed: u64) {
        let mut random = Random(seed);
        let mut removed: BTreeSet<String> = BTreeSet::new();
        for _ in 0..POP3_SESSIONS {
            let mut pop3 = Dialogue::pop3(self.backend, "ann").await;
            let stat = pop3.ask("STAT", "+OK ").await;
            pop3.ask("UIDL", "+OK").await;
            let listed = String::from_utf8(pop3.lines().await).unwrap();
            let ids: Vec<&str> = listed
                .lines()
                .map(|line| line.split_once(' ').unwrap().1)
                .collect();
            assert!(
                !ids.iter().any(|id| removed.contains(*id)),
                "what QUIT removed is back"
            );
            let quits = random.below(3) > 0;
            let mut deleted = Vec::new();
            for number in 1..=ids.len().min(12) {
                pop3.say(&format!("TOP {number} 0")).await;
                if !pop3.line().await.starts_with("+OK") {
                    // Somebody removed it meanwhile.
                    continue;
                }
                let header = String::from_utf8(pop3.lines().await).unwrap();
                // Without QUIT nothing goes, whatever it is.
                if !quits || header.contains("Subject: fodder") && random.below(3) == 0 {
                    pop3.ask(&format!("DELE {number}"), "+OK").await;
                    deleted.push(ids[number - 1].to_owned());
                }
            }
            pop3.ask("RSET", "+OK").await;
            assert_eq!(pop3.ask("STAT", "+OK ").await, stat, "a snapshot changed");
            for id in &deleted {
                let place = ids.iter().position(|one| one == id).unwrap();
                pop3.ask(&format!("DELE {}", place + 1), "+OK").await;
            }
            if quits {
                pop3.ask("QUIT", "+OK").await;
                removed.extend(deleted);
            }
        }
        self.ends();
    }

    /// The mailbox when nobody changes it any more.
    async fn conclude(&self, workers: usize) -> Model {
        assert!(workers > 0);
        self.done.notified().await;
        let mut client = Client::open(self.backend, self.facts, Kind::Condstore, 0).await;
        client.learn().await;
        assert!(client.knows_all());
        self.last.send_replace(Some(client.model.clone()));
        client.model
    }
}

/// Comes back to a moment that a client remembers: it is told exactly what has changed since.
async fn come_back(backend: &Backend, facts: &Facts, then: &Model, last: &Model) {
    let mut imap = Imap::login(backend, "ann").await;
    imap.ok("ENABLE QRESYNC").await;
    let (validity, modseq) = (then.uid_validity, then.modseq);
    let answer = imap
        .ok(&format!("SELECT INBOX (QRESYNC ({validity} {modseq}))"))
        .await;
    let mut now = then.clone();
    now.select();
    let mut told = BTreeSet::new();
    for response in &answer.untagged {
        now.hear(response, facts, false);
        let text = String::from_utf8_lossy(response);
        if let Some((_, rest)) = text.split_once(" FETCH (UID ") {
            told.insert(rest.split(' ').next().unwrap().parse::<u32>().unwrap());
        }
    }
    now.is_selected();
    now.agrees(last)
        .unwrap_or_else(|differs| panic!("since {modseq}: {differs}"));
    assert!(
        now.rows.iter().all(|row| row.uid.is_some()),
        "since {modseq}: {:?}",
        now.uids()
    );
    let changed = last.rows.iter().filter(|row| row.modseq > Some(modseq));
    let changed: BTreeSet<u32> = changed.filter_map(|row| row.uid).collect();
    assert_eq!(told, changed, "since {modseq}");
}

async fn run(seed: u64) {
    println!("seed {seed}");
    let (_site, backend) = site().await;
    let facts = Facts::default();
    let run = Run {
        backend: &backend,
        facts: &facts,
        working: AtomicUsize::new(8),
        done: tokio::sync::Notify::new(),
        last: tokio::sync::watch::Sender::new(None),
    };
    let at = |number: u64| seed.wrapping_mul(1000) + number;
    let (plain, condstore, resync, another, uid_only, one, two, (), (), (), last) = tokio::join!(
        run.work(Kind::Plain, at(1)),
        run.work(Kind::Condstore, at(2)),
        run.work(Kind::Resync, at(3)),
        run.work(Kind::Resync, at(4)),
        run.work(Kind::UidOnly, at(5)),
        run.deliver("one"),
        run.deliver("two"),
        run.read_by_pop3(at(6)),
        run.idle(Kind::Plain),
        run.idle(Kind::Resync),
        run.conclude(8),
    );
    assert!(plain.is_empty() && condstore.is_empty() && uid_only.is_empty());
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for subject in last.rows.iter().filter_map(|row| row.subject.as_deref()) {
        *counts.entry(subject).or_default() += 1;
    }
    for subject in one.iter().chain(&two) {
        assert_eq!(counts.get(&subject[..]), Some(&1), "{subject}");
    }
    for then in resync.iter().chain(&another) {
        come_back(&backend, &facts, then, &last).await;
    }
}

#[tokio::test]
async fn all_who_work_on_a_mailbox_at_once_come_to_know_the_same() {
    // Another one tries other commands.
    run(std::env::var("POSTHOUSE_TEST_SEED").map_or(1, |seed| seed.parse().unwrap())).await;
}

const STEPS: usize = 250;
const DELIVERIES: usize = 60;
const POP3_SESSIONS: usize = 8;
