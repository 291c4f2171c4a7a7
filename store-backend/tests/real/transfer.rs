//! Moves of an account between two processes, step by step as the migrator does them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use daemon::identity::Role;
use directory_api::{AccountId, Epoch, Service};
use store_api::deliver::Outcome;
use store_api::session::{OpenError, Session, SessionOpen};
use store_api::transfer::{
    AccountState, Activate, Blob, BlockName, Export, Freeze, Offer, Pull, PullProgress, Release,
    SummaryQuery, SumsQuery, TransferClient, TransferError, Undo,
};
use store_api::{BlobHash, MoveId};

use crate::deliver::{commit, deliver, open};
use crate::rot::rot_of;
use crate::site::{Backend, Dialogue, PATIENCE, Site, until_listed};

const ACCOUNT: AccountId = AccountId(1);

struct Move {
    id: MoveId,
    source: TransferClient,
    target: TransferClient,
    from: Backend,
    to: Backend,
    site: Site,
}

impl Move {
    /// An account on `b1` with five messages, one of them large, two alike; `b2` is empty.
    async fn new() -> Self {
        let site = Site::new().await;
        site.directory.address("ann", &[1]);
        site.directory.home(1, "b1", 1);
        let (from, to) = (site.backend("b1").await, site.backend("b2").await);
        let mut lmtp = Dialogue::lmtp(&from).await;
        let large = [
            &b"Subject: large\r\n\r\n"[..],
            &b"0123456789abcdef\r\n".repeat(30_000),
        ]
        .concat();
        for message in [
            &b"Subject: gone\r\n\r\n"[..],
            b"Subject: alike\r\n\r\n",
            &large,
            b"Subject: alike\r\n\r\n",
            b"Subject: last\r\n\r\n",
        ] {
            assert!(lmtp.deliver(&["ann"], message).await[0].starts_with("250 "));
        }
        let mut pop3 = until_listed(&from, "ann", 5).await;
        pop3.ask("DELE 1", "+OK").await;
        pop3.ask("QUIT", "+OK").await;
        Self {
            id: MoveId::from_octets([7; 16]),
            source: TransferClient::new(site.link(Role::Migrator, &from)),
            target: TransferClient::new(site.link(Role::Migrator, &to)),
            from,
            to,
            site,
        }
    }

    async fn freeze(&self) -> Result<store_api::transfer::Summary, TransferError> {
        self.source
            .freeze(&Freeze {
                account: ACCOUNT,
                epoch: Epoch(1),
                move_id: self.id,
                force: true,
                target: Some(self.to.name.clone()),
            })
            .await
    }

    fn offered(&self) -> Offer {
        Offer {
            account: ACCOUNT,
            epoch: Epoch(1),
            move_id: self.id,
            target: self.to.name.clone(),
        }
    }

    /// The last round, of a source that is frozen.
    async fn pull(&self) -> Result<PullProgress, TransferError> {
        self.pull_until(true).await
    }

    async fn pull_until(&self, is_last: bool) -> Result<PullProgress, TransferError> {
        let mut events = self.target.pull(&self.request(is_last)).await?;
        let mut last = PullProgress::default();
        while let Some(progress) = events.next().await? {
            last = progress;
        }
        Ok(last)
    }

    fn request(&self, is_last: bool) -> Pull {
        Pull {
            account: ACCOUNT,
            move_id: self.id,
            source: self.from.name.clone(),
            source_address: self.from.link.to_string(),
            source_epoch: Epoch(1),
            volume: None,
            is_last,
            octets_per_s: None,
        }
    }

    fn undo(&self) -> Undo {
        Undo {
            account: ACCOUNT,
            move_id: self.id,
            source: Some(self.from.name.clone()),
            volume: None,
        }
    }
}

async fn everything(backend: &Backend, count: usize) -> (String, Vec<Vec<u8>>) {
    let mut pop3 = until_listed(backend, "ann", count).await;
    pop3.ask("UIDL", "+OK").await;
    let uidl = String::from_utf8(pop3.lines().await).unwrap();
    let mut messages = Vec::new();
    for number in 1..=count {
        messages.push(pop3.retrieve(number).await);
    }
    (uidl, messages)
}

#[tokio::test]
async fn an_account_moves_whole_and_every_step_may_be_repeated() {
    let moving = Move::new().await;
    let before = everything(&moving.from, 4).await;
    for _ in 0..2 {
        assert_eq!(moving.freeze().await.unwrap().state, AccountState::Frozen);
    }
    let pulled = moving.pull().await.unwrap();
    assert!(pulled.done);
    assert_eq!((pulled.messages, pulled.messages_total), (4, 4));
    assert_eq!(pulled.octets, pulled.octets_total);
    assert!(
        pulled.copied_octets < pulled.octets_total,
        "the two that are alike are copied once"
    );
    let again = moving.pull().await.unwrap();
    assert!(again.done);
    assert_eq!(again.copied_octets, 0, "what is here is not copied again");
    let query = SummaryQuery { account: ACCOUNT };
    let (source, target) = (
        moving.source.summary(&query).await.unwrap(),
        moving.target.summary(&query).await.unwrap(),
    );
    assert_eq!(target.state, AccountState::Importing);
    assert_eq!(
        (source.set_hash, source.messages),
        (target.set_hash, target.messages)
    );

    let proxy = moving.site.link(Role::MxFrontend, &moving.to);
    let early = deliver(&proxy, &open(1, &[1]), b"x\r\n", &commit(b"x\r\n", &[1]))
        .await
        .unwrap();
    assert!(
        !early.results[0].outcome.is_kept(),
        "an import takes no delivery: {early:?}"
    );

    moving.site.directory.home(1, "b2", 2);
    for _ in 0..2 {
        let activate = Activate {
            account: ACCOUNT,
            move_id: moving.id,
            epoch: Epoch(2),
        };
        assert_eq!(
            moving.target.activate(&activate).await.unwrap().state,
            AccountState::Active
        );
        let release = Release {
            account: ACCOUNT,
            move_id: moving.id,
            backend: moving.to.name.clone(),
            epoch: Epoch(2),
        };
        assert_eq!(
            moving.source.release(&release).await.unwrap().state,
            AccountState::Moved
        );
    }
    assert_eq!(everything(&moving.to, 4).await, before);
    // Asked at the old home, the user is led to the new one.
    assert_eq!(everything(&moving.from, 4).await, before);

    let old = moving.site.link(Role::MxFrontend, &moving.from);
    let late = deliver(&old, &open(2, &[1]), b"x\r\n", &commit(b"x\r\n", &[1]))
        .await
        .unwrap();
    assert_eq!(
        late.results[0].outcome,
        Outcome::Moved {
            backend: moving.to.name.clone(),
            epoch: Epoch(2)
        }
    );
}

#[tokio::test]
async fn a_freeze_ends_open_sessions_with_a_temporary_answer_and_a_thaw_lets_them_in_again() {
    let moving = Move::new().await;
    let mut open = Dialogue::pop3(&moving.from, "ann").await;
    open.ask("DELE 1", "+OK").await;
    moving.freeze().await.unwrap();
    let bye = open.expect("-ERR [SYS/TEMP]").await;
    assert!(bye.contains("in a moment"), "{bye}");
    assert_eq!(open.line().await, "");
    let mut refused = Dialogue::open(moving.from.pop3).await;
    refused.expect("+OK").await;
    refused.ask("USER ann@example.test", "+OK").await;
    refused.ask("PASS pass", "-ERR [SYS/TEMP]").await;
    let mut lmtp = Dialogue::lmtp(&moving.from).await;
    // It waits a moment for the end of the move.
    assert!(lmtp.deliver(&["ann"], b"Subject: held\r\n\r\n").await[0].starts_with("451 4.3.2"));
    // Who comes later does not wait again for what may take hours.
    let began = Instant::now();
    for _ in 0..8 {
        assert!(lmtp.deliver(&["ann"], b"Subject: held\r\n\r\n").await[0].starts_with("451 4.3.2"));
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(12), "{took:?}");
    moving.source.thaw(&moving.undo()).await.unwrap();
    drop(until_listed(&moving.from, "ann", 4).await);
    assert!(lmtp.deliver(&["ann"], b"Subject: after\r\n\r\n").await[0].starts_with("250 "));
}

/// The large message so often that no buffer between the two takes it all.
const DEAF_FETCHES: usize = 60;

#[tokio::test]
async fn a_client_that_does_not_take_its_answers_does_not_hold_up_a_freeze() {
    let moving = Move::new().await;
    let mut deaf = Dialogue::open(moving.from.imap).await;
    deaf.expect("* OK").await;
    deaf.ask("a LOGIN ann@example.test pass", "a OK").await;
    deaf.say("b SELECT INBOX").await;
    while !deaf.line().await.starts_with("b OK") {}
    for number in 0..DEAF_FETCHES {
        deaf.say(&format!("c{number} FETCH 1:* BODY.PEEK[]")).await;
    }
    let mut also_deaf = Dialogue::pop3(&moving.from, "ann").await;
    for _ in 0..DEAF_FETCHES {
        also_deaf.say("RETR 2").await;
    }
    // So that both stand in a write.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let began = Instant::now();
    moving.freeze().await.unwrap();
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    // They are counted a moment after the freeze has seen them go.
    let mut metrics = String::new();
    for _ in 0..100 {
        metrics = moving.from.get("/metrics").await.unwrap();
        let stalled = metrics
            .lines()
            .filter(|line| line.contains("end=\"stalled\"} 1"));
        if stalled.count() == 2 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{metrics}");
}

#[tokio::test]
async fn a_freeze_ends_proxied_sessions_in_order_and_names_itself_to_the_next() {
    let moving = Move::new().await;
    let link = moving.site.link(Role::PopImapProxy, &moving.from);
    let directory = &moving.site.directory;
    let open = || SessionOpen {
        grant: directory
            .signer
            .sign(&directory.grant(1, "b1", 1, Service::Pop3)),
        service: Service::Pop3,
        client: "192.0.2.7:4711".into(),
        tls: None,
        tag: None,
        client_id: None,
        trace_id: "t-1".into(),
    };
    let session = Session::open(&link, &open(), PATIENCE).await.unwrap();
    let (_sender, mut receiver) = session.split();
    moving.freeze().await.unwrap();
    let mut said = Vec::new();
    while let Some(octets) = receiver.next().await.expect("an end, not a cut") {
        said.extend_from_slice(&octets);
    }
    let said = String::from_utf8(said).unwrap();
    assert!(
        said.starts_with("+OK") && said.contains("\r\n-ERR [SYS/TEMP]"),
        "{said}"
    );
    let next = Session::open(&link, &open(), PATIENCE).await;
    assert!(matches!(next, Err(OpenError::Frozen)), "{:?}", next.err());
}

#[tokio::test]
async fn a_discarded_import_leaves_nothing_and_the_source_serves_on() {
    let moving = Move::new().await;
    moving.freeze().await.unwrap();
    moving.pull().await.unwrap();
    for _ in 0..2 {
        let left = moving.target.discard(&moving.undo()).await.unwrap();
        assert_eq!(left.state, AccountState::Absent);
        assert_eq!((left.messages, left.octets), (0, 0));
    }
    moving.source.thaw(&moving.undo()).await.unwrap();
    assert_eq!(everything(&moving.from, 4).await.1.len(), 4);
}

#[tokio::test]
async fn a_target_killed_within_a_pull_goes_on_after_its_restart() {
    let mut moving = Move::new().await;
    moving.freeze().await.unwrap();
    let before = moving
        .source
        .summary(&SummaryQuery { account: ACCOUNT })
        .await
        .unwrap();
    moving.pull().await.unwrap();
    moving.to.kill();
    moving.to.restart().await;
    assert!(moving.pull().await.unwrap().done);
    let after = moving
        .target
        .summary(&SummaryQuery { account: ACCOUNT })
        .await
        .unwrap();
    assert_eq!(
        (before.set_hash, before.messages),
        (after.set_hash, after.messages)
    );
}

#[tokio::test]
async fn mail_is_given_away_only_to_the_target_of_its_move() {
    let moving = Move::new().await;
    let query = SumsQuery {
        account: ACCOUNT,
        move_id: moving.id,
    };
    fn code<T>(answer: Result<T, TransferError>) -> String {
        match answer {
            Err(TransferError::Refused(problem)) => problem.code.into_owned(),
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("given"),
        }
    }
    assert_eq!(code(moving.source.sums(&query).await), "role_forbidden");
    let node =
        |name| TransferClient::new(moving.site.link_of(Role::StoreBackend, name, &moving.from));
    let (sibling, third) = (node("b2"), node("b3"));
    assert_eq!(code(sibling.sums(&query).await), "wrong_state");
    moving.source.offer(&moving.offered()).await.unwrap();
    assert_eq!(code(third.sums(&query).await), "wrong_state");
    drop(sibling.sums(&query).await.unwrap());
    moving.freeze().await.unwrap();
    // Nor does the freeze open it to everybody who knows of the move.
    assert_eq!(code(third.sums(&query).await), "wrong_state");
    let other = SumsQuery {
        move_id: MoveId::from_octets([8; 16]),
        ..query.clone()
    };
    assert_eq!(code(sibling.sums(&other).await), "other_move");
    let mut sums = sibling.sums(&query).await.unwrap();
    assert_eq!(sums.head().await.unwrap().messages, 4);
    let mut blocks = Vec::new();
    while let Some(some) = sums.next().await.unwrap() {
        blocks.extend(some.into_iter().map(|(name, _)| name));
    }
    let export = Export {
        account: ACCOUNT,
        move_id: moving.id,
        blocks,
    };
    for wrong in [
        vec![BlockName([8; 9])],
        export.blocks.iter().rev().copied().collect(),
        vec![export.blocks[0]; 257],
    ] {
        let wrong = Export {
            blocks: wrong,
            ..export.clone()
        };
        assert_eq!(code(sibling.export(&wrong).await), "malformed");
    }
    let mut items = sibling.export(&export).await.unwrap();
    let mut count = 0;
    while let Some(item) = items.next().await.unwrap() {
        assert_ne!(item, Bytes::new());
        count += 1;
    }
    assert!(count >= 6, "account, mailbox and four messages at least");

    // A message of the account, by the hash of somebody else's mail on the same volume.
    let secret = b"Subject: for bob alone\r\n\r\n";
    let front_end = moving.site.link(Role::MxFrontend, &moving.from);
    let delivered = deliver(&front_end, &open(9, &[2]), secret, &commit(secret, &[2])).await;
    assert!(delivered.unwrap().results[0].outcome.is_kept());
    let wanted = |uid, octets: &[u8]| Blob {
        account: ACCOUNT,
        move_id: moving.id,
        mailbox: 1,
        uid,
        hash: BlobHash(*blake3::hash(octets).as_bytes()),
    };
    let code = async |blob| match sibling.blob(&blob).await {
        Err(TransferError::Refused(problem)) => problem.code.into_owned(),
        Err(other) => panic!("{other:?}"),
        Ok(_) => "given".to_owned(),
    };
    let last = b"Subject: last\r\n\r\n";
    assert_eq!(code(wanted(5, last)).await, "given");
    assert_eq!(code(wanted(5, secret)).await, "not_found");
    assert_eq!(code(wanted(4, last)).await, "not_found");
    assert_eq!(code(wanted(99, last)).await, "not_found");
}

#[tokio::test]
async fn an_account_is_copied_while_it_is_written_and_its_freeze_finds_little_left() {
    let moving = Move::new().await;
    let early = moving.pull_until(false).await;
    assert!(
        matches!(&early, Err(TransferError::Stopped(why)) if why.contains("wrong_state")),
        "nothing was offered: {early:?}"
    );
    moving.source.offer(&moving.offered()).await.unwrap();
    let mut lmtp = Dialogue::lmtp(&moving.from).await;
    let mut expected = 4;
    for round in 0..3 {
        let copied = moving.pull_until(false).await.unwrap();
        assert!(copied.done);
        assert_eq!(copied.messages, expected);
        if round > 0 {
            assert!(copied.copied_octets < 1000, "{copied:?}");
        }
        // The source serves, its target shows nothing.
        let letter = format!("Subject: round {round}\r\n\r\n");
        assert!(lmtp.deliver(&["ann"], letter.as_bytes()).await[0].starts_with("250 "));
        expected += 1;
        let mut pop3 = until_listed(&moving.from, "ann", usize::try_from(expected).unwrap()).await;
        pop3.ask("DELE 1", "+OK").await;
        pop3.ask("QUIT", "+OK").await;
        expected -= 1;
        let seen = moving.target.summary(&SummaryQuery { account: ACCOUNT });
        assert_eq!(seen.await.unwrap().state, AccountState::Importing);
    }
    moving.freeze().await.unwrap();
    let last = moving.pull().await.unwrap();
    assert_eq!((last.messages, last.round), (4, 1), "{last:?}");
    let query = SummaryQuery { account: ACCOUNT };
    let (source, target) = (
        moving.source.summary(&query).await.unwrap(),
        moving.target.summary(&query).await.unwrap(),
    );
    assert!(source.set_hash.is_some());
    assert_eq!(
        (source.set_hash, source.messages, source.octets),
        (target.set_hash, target.messages, target.octets)
    );
}

#[tokio::test]
async fn a_pop3_session_postpones_a_freeze_until_it_is_over() {
    let moving = Move::new().await;
    let mut pop3 = until_listed(&moving.from, "ann", 4).await;
    pop3.ask("DELE 1", "+OK").await;
    let patient = Freeze {
        account: ACCOUNT,
        epoch: Epoch(1),
        move_id: moving.id,
        force: false,
        target: None,
    };
    let postponed = moving.source.freeze(&patient).await;
    assert!(
        matches!(&postponed, Err(TransferError::Refused(problem)) if problem.code == "pop3_open"),
        "{postponed:?}"
    );
    pop3.ask("QUIT", "+OK").await;
    // It is over when the server has noticed.
    let mut frozen = moving.source.freeze(&patient).await;
    for _ in 0..200 {
        if frozen.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        frozen = moving.source.freeze(&patient).await;
    }
    let frozen = frozen.unwrap();
    assert_eq!((frozen.state, frozen.messages), (AccountState::Frozen, 3));
}

#[tokio::test]
async fn an_imap_session_ends_with_bye_and_a_new_one_waits_for_the_end_of_the_move() {
    let moving = Move::new().await;
    let mut open = Dialogue::open(moving.from.imap).await;
    open.expect("* OK").await;
    open.ask("a LOGIN ann@example.test pass", "a OK").await;
    open.say("b IDLE").await;
    open.expect("+").await;
    moving.freeze().await.unwrap();
    let bye = open.expect("* BYE [UNAVAILABLE]").await;
    assert!(!bye.contains("shutting"), "{bye}");
    assert_eq!(open.line().await, "");
}

#[tokio::test]
async fn a_rotten_body_at_the_source_stops_the_copy_and_is_named() {
    let moving = Move::new().await;
    rot_of(&moving.from, b"Subject: large").await;
    moving.source.offer(&moving.offered()).await.unwrap();
    for is_last in [false, true] {
        if is_last {
            moving.freeze().await.unwrap();
        }
        let stopped = moving.pull_until(is_last).await;
        assert!(
            matches!(&stopped, Err(TransferError::Stopped(why)) if why.contains("body of message 3 in mailbox 1")),
            "{stopped:?}"
        );
    }
    // Nothing of it is lost: the account stays where it is.
    let left = moving.target.discard(&moving.undo()).await.unwrap();
    assert_eq!(left.state, AccountState::Absent);
    moving.source.thaw(&moving.undo()).await.unwrap();
    drop(until_listed(&moving.from, "ann", 4).await);
}

#[tokio::test]
async fn what_comes_late_of_a_move_that_was_given_up_does_nothing_to_the_next() {
    let mut moving = Move::new().await;
    let (old_offer, old_undo, old_id) = (moving.offered(), moving.undo(), moving.id);
    moving.source.offer(&old_offer).await.unwrap();
    moving.source.thaw(&old_undo).await.unwrap();
    moving.target.discard(&old_undo).await.unwrap();
    // An offer that comes behind the undoing lets nobody read.
    let late = moving.source.offer(&old_offer).await;
    assert!(
        matches!(&late, Err(TransferError::Refused(problem)) if problem.code == "wrong_state"),
        "{late:?}"
    );
    let early = moving.pull_until(false).await;
    assert!(early.is_err(), "{early:?}");

    moving.id = MoveId::from_octets([8; 16]);
    moving.source.offer(&moving.offered()).await.unwrap();
    assert!(moving.pull_until(false).await.unwrap().done);
    // Slow enough to be running when the others come: it copies a letter in many seconds.
    let mut lmtp = Dialogue::lmtp(&moving.from).await;
    let letter = [
        &b"Subject: slow\r\n\r\n"[..],
        &b"0123456789\r\n".repeat(2000),
    ]
    .concat();
    assert!(lmtp.deliver(&["ann"], &letter).await[0].starts_with("250 "));
    let slow = Pull {
        octets_per_s: Some(letter.len() as u64 / 4),
        ..moving.request(false)
    };
    let mut running = moving.target.pull(&slow).await.unwrap();
    while running.next().await.unwrap().unwrap().copied_octets == 0 {}
    let thawed = moving.source.thaw(&old_undo).await;
    let discarded = moving.target.discard(&old_undo).await;
    assert!(
        thawed.is_ok() && discarded.is_err(),
        "{thawed:?} {discarded:?}"
    );
    assert!(moving.source.offer(&old_offer).await.is_err());
    let mut last = PullProgress::default();
    while let Some(progress) = running.next().await.unwrap() {
        last = progress;
    }
    assert!(last.done, "the pull went on to its end");
    // Now the second is given up, too: what comes late of the first is refused still.
    moving.source.thaw(&moving.undo()).await.unwrap();
    moving.target.discard(&moving.undo()).await.unwrap();
    moving.id = old_id;
    for answer in [moving.freeze().await, moving.source.offer(&old_offer).await] {
        assert!(
            matches!(&answer, Err(TransferError::Refused(problem)) if problem.code == "wrong_state"),
            "{answer:?}"
        );
    }
    let late = moving.pull_until(true).await;
    assert!(
        matches!(&late, Err(TransferError::Refused(problem)) if problem.code == "wrong_state"),
        "{late:?}"
    );
    drop(until_listed(&moving.from, "ann", 5).await);
}
