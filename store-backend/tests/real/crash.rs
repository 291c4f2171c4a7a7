//! `kill -9` under load: LMTP clients deliver to everybody while each account's owner works on it by IMAP and POP3, and the
//! process is killed somewhere in the middle, or while it starts. After each kill
//!
//! - every acknowledged message is there, once (P1, P2), with the octets that were sent (P9), and nobody else's (P8);
//! - every mailbox is as after the last answered command of its owner, or as after the one that had no answer yet;
//! - a UID means the message that it always meant, one at a MODSEQ has the flags that it always had, and UIDVALIDITY, UIDNEXT
//!   and the highest MODSEQ are not behind what was told (P3).
//!
//! `POSTHOUSE_TEST_KILLS=500` kills so often, `POSTHOUSE_TEST_SEED` chooses the commands.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::imap_client::{Answer, Imap, Value};
use crate::imap_model::{FlagNames, given_by};
use crate::site::{Backend, PATIENCE, Site};

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = self.0.wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit.max(1)
    }
}

/// What its number tells; some are large enough for a file of their own.
fn body(number: u64) -> Vec<u8> {
    let padding = match number % 40 {
        0 => "0123456789abcdef\r\n".repeat(12_000),
        _ => "x".repeat(usize::try_from(number).unwrap() * 37 % 900),
    };
    format!("Subject: {number} end\r\n\r\n{padding}\r\n").into_bytes()
}

/// What is common to all clients.
#[derive(Default)]
struct Load {
    /// Of the next message.
    next: AtomicU64,
    /// Deliveries by recipient.
    sent: Mutex<BTreeSet<(usize, u64)>>,
    acknowledged: Mutex<BTreeSet<(usize, u64)>>,
    commands: AtomicU64,
}

impl Load {
    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// Delivers until the connection breaks.
async fn deliver(address: SocketAddr, load: Arc<Load>) -> Option<()> {
    let mut stream = BufReader::new(TcpStream::connect(address).await.ok()?);
    reply(&mut stream).await?;
    stream.write_all(b"LHLO load\r\n").await.ok()?;
    reply(&mut stream).await?;
    loop {
        let number = load.number();
        let first = usize::try_from(number).unwrap();
        let recipients: Vec<usize> = (first..=first + first / 7 % USERS)
            .map(|user| user % USERS)
            .collect();
        let (mut sent, mut replies) = ("MAIL FROM:<>\r\n".to_owned(), 2 + recipients.len());
        for user in &recipients {
            sent.push_str(&format!("RCPT TO:<user{user}@example.test>\r\n"));
            load.sent.lock().unwrap().insert((*user, number));
        }
        sent.push_str("DATA\r\n");
        let octets = [sent.as_bytes(), &body(number), b".\r\n"].concat();
        stream.write_all(&octets).await.ok()?;
        while replies > 0 {
            reply(&mut stream).await?;
            replies -= 1;
        }
        for user in recipients {
            if reply(&mut stream).await?.starts_with("250 ") {
                load.acknowledged.lock().unwrap().insert((user, number));
            }
        }
    }
}

/// The last line of a reply.
async fn reply(stream: &mut BufReader<TcpStream>) -> Option<String> {
    loop {
        let mut line = String::new();
        let count = stream.read_line(&mut line).await.ok()?;
        if count == 0 || !line.ends_with("\r\n") {
            return None;
        }
        if line.as_bytes().get(3) != Some(&b'-') {
            return Some(line);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Message {
    number: u64,
    flags: FlagNames,
}

#[derive(Clone, Debug, Default)]
struct Mailbox {
    messages: BTreeMap<u32, Message>,
    uidnext: u32,
}

/// What an owner knows of the account.
#[derive(Clone, Debug, Default)]
struct Account {
    mailboxes: [Mailbox; NAMES.len()],
    /// Deliveries that were in the INBOX and are no more.
    taken: BTreeSet<u64>,
}

/// A command that changes an account; mailboxes are indices of [`NAMES`].
#[derive(Clone, Debug)]
enum Change {
    Append(usize, u64),
    Store(usize, Vec<u32>, bool, &'static str),
    Copy(usize, Vec<u32>, usize),
    Move(usize, Vec<u32>, usize),
    /// By IMAP or POP3.
    Remove(Vec<u32>, usize),
}

impl Change {
    fn draw(random: &mut Random, account: &Account, at: usize, load: &Load) -> Self {
        let messages = &account.mailboxes[at].messages;
        let every = 1 + random.below(4);
        let mut uids: Vec<u32> = messages.keys().copied().collect();
        uids.retain(|_| random.below(every) == 0);
        let to = 1 + random.below(NAMES.len() - 1);
        if uids.is_empty() {
            return Self::Append(to, load.number());
        }
        match random.below(9) {
            _ if messages.len() > MESSAGES_MAX => Self::Remove(uids, at),
            0 | 1 => Self::Append(to, load.number()),
            2..5 => {
                let flag = FLAGS[random.below(FLAGS.len())];
                Self::Store(at, uids, random.below(3) > 0, flag)
            }
            5 => Self::Copy(at, uids, to),
            6 | 7 if to != at => Self::Move(at, uids, to),
            _ => Self::Remove(uids, at),
        }
    }

    fn command(&self) -> Vec<u8> {
        let set = |uids: &[u32]| {
            let uids: Vec<String> = uids.iter().map(u32::to_string).collect();
            uids.join(",")
        };
        match self {
            Self::Append(to, number) => {
                let body = body(*number);
                let head = format!("APPEND {} {{{}+}}\r\n", NAMES[*to], body.len());
                return [head.as_bytes(), &body].concat();
            }
            Self::Store(_, uids, set_it, flag) => {
                let sign = if *set_it { '+' } else { '-' };
                format!("UID STORE {} {sign}FLAGS ({flag})", set(uids))
            }
            Self::Copy(_, uids, to) => format!("UID COPY {} {}", set(uids), NAMES[*to]),
            Self::Move(_, uids, to) => format!("UID MOVE {} {}", set(uids), NAMES[*to]),
            Self::Remove(uids, _) => format!("UID EXPUNGE {}", set(uids)),
        }
        .into_bytes()
    }

    fn apply(&self, account: &Account) -> Account {
        let mut after = account.clone();
        match self {
            Self::Append(to, number) => after.mailboxes[*to].add(Message {
                number: *number,
                flags: FlagNames::new(),
            }),
            Self::Store(at, uids, set_it, flag) => {
                for uid in uids {
                    let message = after.mailboxes[*at].messages.get_mut(uid).unwrap();
                    if *set_it {
                        message.flags.insert((*flag).to_owned());
                    } else {
                        message.flags.remove(*flag);
                    }
                }
            }
            Self::Copy(at, uids, to) => after.copy(*at, uids, *to),
            Self::Move(at, uids, to) => {
                after.copy(*at, uids, *to);
                after.remove(*at, uids);
            }
            Self::Remove(uids, at) => after.remove(*at, uids),
        }
        after
    }

    /// The mailbox that gets new messages.
    fn target(&self) -> Option<usize> {
        match self {
            Self::Append(to, _) | Self::Copy(.., to) | Self::Move(.., to) => Some(*to),
            Self::Store(..) | Self::Remove(..) => None,
        }
    }
}

impl Mailbox {
    fn add(&mut self, message: Message) {
        self.messages.insert(self.uidnext, message);
        self.uidnext += 1;
    }
}

impl Account {
    fn copy(&mut self, at: usize, uids: &[u32], to: usize) {
        for uid in uids {
            let message = self.mailboxes[at].messages[uid].clone();
            self.mailboxes[to].add(message);
        }
    }

    fn remove(&mut self, at: usize, uids: &[u32]) {
        for uid in uids {
            let message = self.mailboxes[at].messages.remove(uid).unwrap();
            if at == INBOX {
                self.taken.insert(message.number);
            }
        }
    }

    /// Takes in a mailbox as it was seen: as is known, and with deliveries that were sent in the INBOX.
    fn see(&mut self, at: usize, seen: &Mailbox, sent: impl Fn(u64) -> bool) -> Result<(), String> {
        let name = NAMES[at];
        let mailbox = &mut self.mailboxes[at];
        for (uid, message) in &mailbox.messages {
            let found = seen.messages.get(uid);
            if found != Some(message) {
                return Err(format!("{name} has {found:?} for {uid} {message:?}"));
            }
        }
        let mut numbers: BTreeSet<u64> = mailbox.messages.values().map(|one| one.number).collect();
        for (uid, message) in &seen.messages {
            let number = message.number;
            let is_new = at == INBOX && *uid >= mailbox.uidnext && message.flags.is_empty();
            if mailbox.messages.contains_key(uid) {
                continue;
            }
            if !is_new || !sent(number) || self.taken.contains(&number) || !numbers.insert(number) {
                return Err(format!("{name} has {uid} {message:?}"));
            }
            mailbox.messages.insert(*uid, message.clone());
        }
        if seen.uidnext < mailbox.uidnext || at != INBOX && seen.uidnext > mailbox.uidnext {
            let (is, was) = (seen.uidnext, mailbox.uidnext);
            return Err(format!("{name} has UIDNEXT {is}, not {was}"));
        }
        mailbox.uidnext = seen.uidnext;
        Ok(())
    }
}

/// What was told once and holds for ever.
#[derive(Default)]
struct Told {
    uidvalidities: HashMap<usize, u32>,
    modseqs: HashMap<usize, u64>,
    numbers: HashMap<(usize, u32), u64>,
    flags: HashMap<(usize, u32, u64), FlagNames>,
    texts: HashMap<u64, Vec<u8>>,
}

/// Whom an account belongs to.
struct Owner {
    user: usize,
    random: Random,
    account: Account,
    /// Asked for and not answered.
    pending: Option<Change>,
    told: Told,
    load: Arc<Load>,
}

impl Owner {
    async fn new(user: usize, seed: u64, backend: &Backend, load: &Arc<Load>) -> Self {
        let mut imap = Imap::login(backend, &format!("user{user}")).await;
        for name in &NAMES[1..] {
            imap.ok(&format!("CREATE {name}")).await;
        }
        let mut account = Account::default();
        for mailbox in &mut account.mailboxes {
            mailbox.uidnext = 1;
        }
        Self {
            user,
            random: Random(seed),
            account,
            pending: None,
            told: Told::default(),
            load: Arc::clone(load),
        }
    }

    /// Works until the connection breaks.
    async fn work(mut self, imap: SocketAddr, pop3: SocketAddr) -> Self {
        while self.by_imap(imap).await.is_some() && self.by_pop3(pop3).await.is_some() {}
        self
    }

    async fn by_imap(&mut self, address: SocketAddr) -> Option<()> {
        let local = format!("user{}", self.user);
        let mut imap = Imap::login_unless_cut(address, &local).await?;
        for _ in 0..COMMANDS {
            let at = self.random.below(NAMES.len());
            let seen = self.look(&mut imap, at).await?;
            let (user, load) = (self.user, Arc::clone(&self.load));
            let sent = |number| load.sent.lock().unwrap().contains(&(user, number));
            self.account.see(at, &seen, sent).unwrap();
            let change = Change::draw(&mut self.random, &self.account, at, &self.load);
            if let Change::Remove(uids, _) = &change {
                let delete = Change::Store(at, uids.clone(), true, "\\Deleted");
                self.change(&mut imap, at, delete).await?;
            }
            self.change(&mut imap, at, change).await?;
        }
        Some(())
    }

    async fn change(&mut self, imap: &mut Imap, at: usize, change: Change) -> Option<()> {
        let after = change.apply(&self.account);
        self.pending = Some(change.clone());
        let answer = imap.command_unless_cut(&change.command()).await?;
        assert!(answer.tagged.starts_with("OK"), "{change:?}: {answer:?}");
        self.pending = None;
        self.load.commands.fetch_add(1, Ordering::Relaxed);
        self.hear(at, &answer);
        if let Some(to) = change.target() {
            let (first, next) = (
                self.account.mailboxes[to].uidnext,
                after.mailboxes[to].uidnext,
            );
            let mut lines = answer.lines();
            lines.push(answer.tagged.clone());
            let given = lines.iter().map(|line| given_by(line));
            let given = given.max_by_key(Vec::len).unwrap_or_default();
            assert_eq!(
                given,
                (first..next).collect::<Vec<_>>(),
                "{change:?}: {answer:?}"
            );
        }
        self.account = after;
        Some(())
    }

    /// Every MODSEQ in an answer is one that the mailbox has had.
    fn hear(&mut self, at: usize, answer: &Answer) {
        let highest = self.told.modseqs.entry(at).or_default();
        for line in answer.lines().iter().chain([&answer.tagged]) {
            for (place, word) in line.match_indices("MODSEQ ") {
                let number = line[place + word.len()..].trim_start_matches('(');
                let number = number.split(|c: char| !c.is_ascii_digit()).next().unwrap();
                *highest = number
                    .parse()
                    .map_or(*highest, |number: u64| number.max(*highest));
            }
        }
    }

    /// Reads a mailbox whole and holds it against what was told before.
    async fn look(&mut self, imap: &mut Imap, at: usize) -> Option<Mailbox> {
        let select = format!("SELECT {} (CONDSTORE)", NAMES[at]);
        let selected = imap.command_unless_cut(select.as_bytes()).await?;
        assert!(selected.tagged.starts_with("OK"), "{select}: {selected:?}");
        let number = |name: &str| {
            let head = format!("* OK [{name} ");
            let lines = selected.lines();
            let found = lines.iter().find_map(|line| line.strip_prefix(&head));
            let found = found.unwrap_or_else(|| panic!("no {name} in {lines:?}"));
            found.split(']').next().unwrap().parse::<u64>().unwrap()
        };
        let uidvalidity = u32::try_from(number("UIDVALIDITY")).unwrap();
        let known = *self.told.uidvalidities.entry(at).or_insert(uidvalidity);
        assert_eq!(known, uidvalidity, "UIDVALIDITY of {}", NAMES[at]);
        let (modseq, told) = (
            number("HIGHESTMODSEQ"),
            self.told.modseqs.entry(at).or_default(),
        );
        assert!(
            modseq >= *told,
            "{} had MODSEQ {told}, has {modseq}",
            NAMES[at]
        );
        *told = modseq;
        let mut seen = Mailbox {
            messages: BTreeMap::new(),
            uidnext: u32::try_from(number("UIDNEXT")).unwrap(),
        };
        let fetch = b"UID FETCH 1:* (UID FLAGS MODSEQ BODY.PEEK[])";
        let fetched = imap.command_unless_cut(fetch).await?;
        self.hear(at, &fetched);
        for line in &fetched.untagged {
            let Some(items) = line.iter().position(|octet| *octet == b'(') else {
                continue;
            };
            let items = Value::list_of(&line[items..]);
            let item = |name: &str| {
                let place = items
                    .iter()
                    .position(|item| *item == Value::Atom(name.to_owned()));
                place.map(|place| &items[place + 1])
            };
            // One that tells of others' changes.
            let Some(text) = item("BODY[]") else { continue };
            let uid = u32::try_from(item("UID").unwrap().number()).unwrap();
            let modseq = item("MODSEQ").unwrap().list()[0].number() as u64;
            let flags = item("FLAGS").unwrap().list().iter().map(Value::text);
            let flags: FlagNames = flags.filter(|flag| flag != "\\Recent").collect();
            let Value::Text(text) = text else {
                panic!("{text:?}")
            };
            let number = self.number_of(text);
            let meant = *self.told.numbers.entry((at, uid)).or_insert(number);
            assert_eq!(meant, number, "UID {uid} of {}", NAMES[at]);
            let had = self.told.flags.entry((at, uid, modseq));
            let had = had.or_insert_with(|| flags.clone());
            assert_eq!(*had, flags, "UID {uid} of {} at {modseq}", NAMES[at]);
            seen.messages.insert(uid, Message { number, flags });
        }
        Some(seen)
    }

    /// Which message that is; it has the octets that it always had.
    fn number_of(&mut self, text: &[u8]) -> u64 {
        let head = b"Subject: ";
        let place = text.windows(head.len()).position(|part| part == head);
        let place = place.expect("a message of ours");
        let number = String::from_utf8_lossy(&text[place + head.len()..]);
        let number = number.split(' ').next().unwrap().parse().unwrap();
        assert!(text[place..] == body(number), "the octets of {number}");
        let known = self.told.texts.entry(number);
        assert!(
            *known.or_insert_with(|| text.to_vec()) == text,
            "the octets of {number}"
        );
        number
    }

    /// Takes some messages out of the INBOX.
    async fn by_pop3(&mut self, address: SocketAddr) -> Option<()> {
        let mut stream = BufReader::new(TcpStream::connect(address).await.ok()?);
        reply(&mut stream).await?;
        for line in [
            format!("USER user{}@example.test", self.user),
            "PASS pass".to_owned(),
        ] {
            ask(&mut stream, &line).await?;
        }
        ask(&mut stream, "UIDL").await?;
        let mut places = Vec::new();
        loop {
            let line = reply(&mut stream).await?;
            let Some((number, id)) = line.trim_end().split_once(' ') else {
                break;
            };
            // UIDVALIDITY and UID.
            let uid = u32::from_str_radix(&id[id.len() - 8..], 16).unwrap();
            places.push((number.to_owned(), uid));
        }
        let known = &self.account.mailboxes[INBOX].messages;
        places.retain(|(_, uid)| known.contains_key(uid) && self.random.below(3) == 0);
        let mut uids = Vec::new();
        for (number, uid) in places {
            ask(&mut stream, &format!("DELE {number}")).await?;
            uids.push(uid);
        }
        let change = Change::Remove(uids, INBOX);
        self.pending = Some(change.clone());
        ask(&mut stream, "QUIT").await?;
        self.pending = None;
        self.load.commands.fetch_add(1, Ordering::Relaxed);
        self.account = change.apply(&self.account);
        Some(())
    }

    /// After a restart: everything is as it was left, but for what had no answer yet.
    async fn check(&mut self, backend: &Backend) {
        let mut imap = Imap::login(backend, &format!("user{}", self.user)).await;
        let mut seen = Vec::new();
        for at in 0..NAMES.len() {
            seen.push(self.look(&mut imap, at).await.unwrap());
        }
        let sent = self.load.sent.lock().unwrap().clone();
        let mut may_be = vec![self.account.clone()];
        let pending = self.pending.take();
        may_be.extend(pending.iter().map(|change| change.apply(&self.account)));
        let mut problems = Vec::new();
        for mut account in may_be {
            let mut all = seen.iter().enumerate();
            let sent = |number| sent.contains(&(self.user, number));
            let fits = all.try_for_each(|(at, seen)| account.see(at, seen, sent));
            match fits {
                Ok(()) => {
                    self.account = account;
                    return self.check_deliveries();
                }
                Err(problem) => problems.push(problem),
            }
        }
        panic!(
            "user {} with {pending:?} unanswered: {problems:#?}",
            self.user
        );
    }

    fn check_deliveries(&self) {
        let inbox = &self.account.mailboxes[INBOX];
        let there: BTreeSet<u64> = inbox.messages.values().map(|one| one.number).collect();
        let acknowledged = self.load.acknowledged.lock().unwrap();
        let lost = acknowledged.iter().filter(|(user, number)| {
            *user == self.user && !there.contains(number) && !self.account.taken.contains(number)
        });
        let lost: Vec<_> = lost.collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    }
}

/// A command of POP3 that succeeds.
async fn ask(stream: &mut BufReader<TcpStream>, line: &str) -> Option<()> {
    stream
        .write_all(format!("{line}\r\n").as_bytes())
        .await
        .ok()?;
    let answer = reply(stream).await?;
    assert!(answer.starts_with("+OK"), "{line}: {answer}");
    Some(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_was_acknowledged_is_there_once_after_kills_under_load() {
    let variable = |name: &str| -> Option<u64> { Some(std::env::var(name).ok()?.parse().unwrap()) };
    let kills = variable("POSTHOUSE_TEST_KILLS").unwrap_or(KILLS);
    let seed = variable("POSTHOUSE_TEST_SEED").unwrap_or(1);
    println!("seed {seed}");
    let mut random = Random(seed);
    let site = Site::new().await;
    for user in 0..USERS {
        let account = user as u64 + 1;
        site.directory.address(&format!("user{user}"), &[account]);
        site.directory.home(account, "b1", 1);
    }
    let mut backend = site.backend("b1").await;
    let load = Arc::new(Load::default());
    let mut owners = Vec::new();
    for user in 0..USERS {
        owners.push(Owner::new(user, seed + user as u64, &backend, &load).await);
    }
    for _ in 0..kills {
        let deliveries =
            (0..CLIENTS).map(|_| tokio::spawn(deliver(backend.lmtp, Arc::clone(&load))));
        let deliveries: Vec<_> = deliveries.collect();
        let work = owners.drain(..);
        let work = work.map(|owner| tokio::spawn(owner.work(backend.imap, backend.pop3)));
        let work: Vec<_> = work.collect();
        // Killed in the middle of work, not after it: wait for some progress, then a little more.
        let (before, began) = (load.commands.load(Ordering::Relaxed), Instant::now());
        let wanted = 1 + random.below(40) as u64;
        while load.commands.load(Ordering::Relaxed) < before + wanted {
            let is_broken = work.iter().any(tokio::task::JoinHandle::is_finished);
            assert!(!is_broken && began.elapsed() < PATIENCE, "no progress");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_micros(random.below(20_000) as u64)).await;
        backend.kill();
        for client in deliveries {
            client.await.unwrap();
        }
        for owner in work {
            owners.push(owner.await.unwrap());
        }
        // Some starts are killed too.
        while random.below(3) == 0 {
            backend.start();
            tokio::time::sleep(Duration::from_millis(random.below(150) as u64)).await;
            backend.kill();
        }
        backend.restart().await;
        for owner in &mut owners {
            owner.check(&backend).await;
        }
    }
    let deliveries = load.acknowledged.lock().unwrap().len();
    let commands = load.commands.load(Ordering::Relaxed);
    println!("{kills} kills, {deliveries} deliveries and {commands} commands acknowledged");
}

const USERS: usize = 3;
/// That deliver.
const CLIENTS: usize = 3;
const NAMES: [&str; 3] = ["INBOX", "a", "b"];
const INBOX: usize = 0;
const FLAGS: [&str; 4] = ["\\Seen", "\\Flagged", "\\Answered", "$Label"];
/// In one IMAP session, before it is POP3's turn.
const COMMANDS: usize = 12;
/// More than these in a mailbox are removed.
const MESSAGES_MAX: usize = 40;
/// A few seconds.
const KILLS: u64 = 3;
