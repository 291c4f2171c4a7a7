//! Mail that is held here for accounts that live elsewhere, or have just gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::identity::Role;
use directory_api::{AccountId, Epoch, Quota};
use durable::RealDisk;
use http::Method;
use serde_json::{Value, json};
use store_api::MoveId;
use store_api::deliver::{DeliverCommit, DeliverError, DeliverOpen, Outcome};
use store_api::hold::{Drop, Held, Hold, HoldClient, List};
use store_api::load::{LoadClient, LoadRequest};
use store_api::room::RoomRequest;
use store_api::transfer::{Activate, Freeze, Offer, Pull, Release, TransferClient, Undo};
use store_backend::volume::{
    Delivery, HOLD_EPOCH, MailboxId, Recipient, Volume, VolumeConfig, holder_of,
};

use crate::deliver::{commit, deliver, open};
use crate::site::{Backend, PATIENCE, Site, until_listed};

const MESSAGE: &[u8] = b"Subject: held\r\n\r\nhello\r\n";

/// As a front-end asks for it when the home is down.
fn held_for(txn: u8, account: u64) -> (DeliverOpen, DeliverCommit) {
    held_message(txn, account, MESSAGE)
}

fn held_message(txn: u8, account: u64, message: &[u8]) -> (DeliverOpen, DeliverCommit) {
    let (mut open, mut commit) = (open(txn, &[account]), commit(message, &[account]));
    open.recipients[0].hold = true;
    commit.recipients[0].hold = Some(Hold {
        address: "ann@example.test".into(),
        only: true,
    });
    (open, commit)
}

async fn outcome(
    link: &daemon::link::Link,
    (open, commit): &(DeliverOpen, DeliverCommit),
) -> Outcome {
    let reply = deliver(link, open, MESSAGE, commit).await.unwrap();
    assert_eq!(reply.results.len(), 1);
    reply.results[0].outcome.clone()
}

async fn until_held(client: &HoldClient, wanted: u64) {
    let began = Instant::now();
    loop {
        let held = count(client).await;
        if held == wanted {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{held} are held");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn count(client: &HoldClient) -> u64 {
    let listed = client.list(&List::default()).await.unwrap();
    assert!(!listed.has_more);
    listed.accounts.iter().flat_map(|one| one.messages).sum()
}

/// The feeder tells at its next look.
async fn until_metric(backend: &Backend, line: &str) {
    let began = Instant::now();
    loop {
        let metrics = backend.get("/metrics").await.unwrap();
        if metrics.lines().any(|one| one == line) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{metrics}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_transaction_is_held_once_fed_once_and_known_afterwards() {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let holder = site.backend("b2").await;
    let link = site.link(Role::MxFrontend, &holder);
    let operator = HoldClient::new(site.link(Role::Operator, &holder));
    let message = held_for(1, 1);
    assert_eq!(outcome(&link, &message).await, Outcome::Held);
    assert_eq!(outcome(&link, &message).await, Outcome::Held, "the same");
    assert_eq!(outcome(&link, &held_for(2, 1)).await, Outcome::Held);
    until_held(&operator, 2).await;

    // The home comes up. It had the second one already, and its answer was lost.
    let home = site.backend("b1").await;
    let direct = site.link(Role::MxFrontend, &home);
    let had = (open(2, &[1]), commit(MESSAGE, &[1]));
    assert!(outcome(&direct, &had).await.is_kept());
    operator.flush().await.unwrap();
    until_held(&operator, 0).await;
    let mut pop3 = until_listed(&home, "ann", 2).await;
    let expected = [b"Received: by test\r\n", MESSAGE].concat();
    assert_eq!(pop3.retrieve(1).await, expected);
    assert_eq!(pop3.retrieve(2).await, expected);
    // A front-end that did not hear it asks again, here and there.
    assert_eq!(outcome(&link, &message).await, Outcome::Held);
    let again = (open(1, &[1]), commit(MESSAGE, &[1]));
    assert_eq!(outcome(&direct, &again).await, Outcome::Duplicate);
    assert_eq!(count(&operator).await, 0);
}

#[tokio::test]
async fn what_a_home_cannot_deliver_it_holds_if_it_may() {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let home = site.backend("b1").await;
    let link = site.link(Role::MxFrontend, &home);
    let operator = HoldClient::new(site.link(Role::Operator, &home));
    let first = (open(1, &[1]), commit(MESSAGE, &[1]));
    assert!(outcome(&link, &first).await.is_kept());
    // An epoch that is not the one of here: it is on its way here, or gone.
    let (mut open, mut commit) = (open(2, &[1, 2]), commit(MESSAGE, &[1, 2]));
    open.recipients[0].epoch = Epoch(7);
    commit.recipients[0].epoch = Epoch(7);
    let refused = deliver(&link, &open, MESSAGE, &commit).await.unwrap();
    assert!(matches!(
        refused.results[0].outcome,
        Outcome::StaleEpoch { .. }
    ));
    for recipient in &mut commit.recipients {
        recipient.hold = Some(Hold {
            address: "ann@example.test".into(),
            only: false,
        });
    }
    let held = deliver(&link, &open, MESSAGE, &commit).await.unwrap();
    assert_eq!(held.results[0].outcome, Outcome::Held);
    assert_eq!(
        held.results[1].outcome,
        Outcome::Duplicate,
        "it had it, and needs no hold"
    );
    // The directory says that it lives here, at the epoch of here: so it is fed to itself.
    until_held(&operator, 0).await;
    until_listed(&home, "ann", 2).await;
}

#[tokio::test]
async fn a_holder_has_a_limit_and_an_operator_gives_up_what_has_no_home() {
    let site = Site::new().await;
    site.directory.home(1, "b1", 1);
    let holder = site.backend_starting("b2", "[hold]\nmax_bytes = 600\n");
    holder.ready().await;
    let link = site.link(Role::MxFrontend, &holder);
    let operator = HoldClient::new(site.link(Role::Operator, &holder));
    assert_eq!(outcome(&link, &held_for(1, 1)).await, Outcome::Held);
    assert_eq!(outcome(&link, &held_for(2, 5)).await, Outcome::Held);
    assert_eq!(outcome(&link, &held_for(3, 1)).await, Outcome::Held);
    let (open, commit) = held_for(4, 1);
    let refused = deliver(&link, &open, MESSAGE, &commit).await.unwrap_err();
    assert!(matches!(refused, DeliverError::Refused(problem) if problem.code == "full"));

    until_held(&operator, 3).await;
    let dropped = operator
        .drop(&Drop {
            account: AccountId(1),
            only_aside: false,
        })
        .await
        .unwrap();
    assert_eq!(dropped.messages, 2);
    until_held(&operator, 1).await;
    let not_ours = HoldClient::new(link).list(&List::default()).await;
    assert!(not_ours.is_err(), "only operators look");
}

/// Waits until one account's row is as wanted.
async fn until_row(client: &HoldClient, account: u64, is_wanted: impl Fn(&Held) -> bool) -> Held {
    let began = Instant::now();
    loop {
        let listed = client.list(&List::default()).await.unwrap();
        let mut rows = listed.accounts.into_iter();
        match rows.find(|one| one.account.0 == account) {
            Some(row) if is_wanted(&row) => return row,
            other => assert!(began.elapsed() < PATIENCE, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Six accounts that are being moved from there, and one that is not.
#[tokio::test]
async fn accounts_that_their_home_does_not_take_hold_up_nobody_else() {
    let site = Site::new().await;
    let moving: Vec<u64> = (1..=6).collect();
    site.directory.address("ann", &[7]);
    for account in 1..=7 {
        site.directory.home(account, "b1", 1);
    }
    let home = site.backend("b1").await;
    let migrator = TransferClient::new(site.link(Role::Migrator, &home));
    for account in &moving {
        let freeze = Freeze {
            account: AccountId(*account),
            epoch: Epoch(1),
            move_id: MoveId::from_octets([7; 16]),
            force: true,
            target: None,
        };
        let offer = Offer {
            account: freeze.account,
            epoch: freeze.epoch,
            move_id: freeze.move_id,
            target: "b3".parse().unwrap(),
        };
        migrator.offer(&offer).await.unwrap();
        migrator.freeze(&freeze).await.unwrap();
    }
    let holder = site.backend("b2").await;
    let link = site.link(Role::MxFrontend, &holder);
    let operator = HoldClient::new(site.link(Role::Operator, &holder));
    for account in 1..=7 {
        let message = held_for(u8::try_from(account).unwrap(), account);
        assert_eq!(outcome(&link, &message).await, Outcome::Held);
    }
    until_listed(&home, "ann", 1).await;
    until_held(&operator, 6).await;
    for account in &moving {
        let waits = until_row(&operator, *account, |row| row.waits.is_some()).await;
        assert_eq!(waits.waits.unwrap().reason, "frozen");
        let undo = Undo {
            account: AccountId(*account),
            move_id: MoveId::from_octets([7; 16]),
            source: None,
            volume: None,
        };
        migrator.thaw(&undo).await.unwrap();
    }
    operator.flush().await.unwrap();
    until_held(&operator, 0).await;
}

#[tokio::test]
async fn a_message_that_its_home_never_takes_is_set_aside_and_the_others_go_on() {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let holder = site.backend("b2").await;
    let link = site.link(Role::MxFrontend, &holder);
    let operator = HoldClient::new(site.link(Role::Operator, &holder));
    let large = [MESSAGE, &b"0123456789abcdef\r\n".repeat(5000)].concat();
    for (txn, message) in [(1, &large[..]), (2, MESSAGE), (3, &large), (4, MESSAGE)] {
        let (open, commit) = held_message(txn, 1, message);
        let reply = deliver(&link, &open, message, &commit).await.unwrap();
        assert_eq!(reply.results[0].outcome, Outcome::Held);
    }
    let home = site.backend_starting("b1", "message_size_max_bytes = 65536");
    home.ready().await;
    operator.flush().await.unwrap();
    until_listed(&home, "ann", 2).await;
    let row = until_row(&operator, 1, |row| row.aside_count == 2).await;
    assert_eq!(row.messages.iter().sum::<u64>(), 2);
    let told: Vec<_> = row.aside.iter().map(|one| (one.uid, &one.waits)).collect();
    for ((uid, waits), expected) in told.into_iter().zip([1, 3]) {
        assert_eq!((uid, &waits.reason[..]), (expected, "too_large"));
        assert!(waits.tries >= 1 && waits.next_s <= 60 * u64::from(waits.tries));
    }
    until_metric(&holder, "posthouse_store_hold_set_aside_messages 2").await;
    assert!(holder.log().contains("hold_set_aside"));

    // An operator has it tried now, which changes nothing, and gives it up; what came meanwhile is not concerned.
    operator.flush().await.unwrap();
    until_row(&operator, 1, |row| {
        row.aside.iter().all(|one| one.waits.tries >= 2)
    })
    .await;
    let drop = Drop {
        account: AccountId(1),
        only_aside: true,
    };
    assert_eq!(operator.drop(&drop).await.unwrap().messages, 2);
    assert_eq!(operator.drop(&drop).await.unwrap().messages, 0);
    until_held(&operator, 0).await;
    until_listed(&home, "ann", 2).await;
}

/// The home has heard nothing of it: an operator has the account elsewhere, while it was down.
#[tokio::test]
async fn an_old_home_that_comes_back_is_fed_nothing_of_an_account_that_has_gone() {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let mut old = site.backend("b1").await;
    old.terminate().await;
    let holder = site.backend("b2").await;
    let link = site.link(Role::MxFrontend, &holder);
    let operator = HoldClient::new(site.link(Role::Operator, &holder));
    assert_eq!(outcome(&link, &held_for(1, 1)).await, Outcome::Held);
    until_row(&operator, 1, |row| row.home.is_some()).await;
    site.directory.home(1, "b3", 2);
    let new = site.backend("b3").await;
    old.restart().await;
    until_held(&operator, 0).await;
    until_listed(&new, "ann", 1).await;
    let had = (open(1, &[1]), commit(MESSAGE, &[1]));
    let had = outcome(&site.link(Role::MxFrontend, &old), &had).await;
    assert!(
        matches!(had, Outcome::Committed { .. }),
        "it had it: {had:?}"
    );
}

/// While the directory is away the holder knows only the old home, which knows better itself.
#[tokio::test]
async fn a_home_refuses_an_account_that_it_has_given_away_and_the_directory_is_asked_again() {
    let mut site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let (old, new) = (site.backend("b1").await, site.backend("b3").await);
    let holder = site.backend("b2").await;
    let link = site.link(Role::MxFrontend, &holder);
    let operator = HoldClient::new(site.link(Role::Operator, &holder));
    // The holder has heard where it lives, and is fed from.
    assert_eq!(outcome(&link, &held_for(1, 1)).await, Outcome::Held);
    until_listed(&old, "ann", 1).await;
    let (source, target) = (
        TransferClient::new(site.link(Role::Migrator, &old)),
        TransferClient::new(site.link(Role::Migrator, &new)),
    );
    let (account, move_id) = (AccountId(1), MoveId::from_octets([7; 16]));
    let offer = Offer {
        account,
        epoch: Epoch(1),
        move_id,
        target: "b3".parse().unwrap(),
    };
    source.offer(&offer).await.unwrap();
    let freeze = Freeze {
        account,
        epoch: Epoch(1),
        move_id,
        force: true,
        target: None,
    };
    source.freeze(&freeze).await.unwrap();
    assert_eq!(outcome(&link, &held_for(2, 1)).await, Outcome::Held);
    let row = until_row(&operator, 1, |row| row.waits.is_some()).await;
    assert_eq!(row.home.unwrap().as_str(), "b1");
    site.stop_directory().await;
    let pull = Pull {
        account,
        move_id,
        source: "b1".parse().unwrap(),
        source_address: old.link.to_string(),
        source_epoch: Epoch(1),
        volume: None,
        is_last: true,
        octets_per_s: None,
    };
    let mut events = target.pull(&pull).await.unwrap();
    while events.next().await.unwrap().is_some() {}
    let epoch = Epoch(2);
    let activate = Activate {
        account,
        move_id,
        epoch,
    };
    target.activate(&activate).await.unwrap();
    let release = Release {
        account,
        move_id,
        backend: "b3".parse().unwrap(),
        epoch,
    };
    source.release(&release).await.unwrap();
    // The fence itself: whoever asks by the old epoch, sibling or front-end.
    for role in [Role::StoreBackend, Role::MxFrontend] {
        let late = (open(3, &[1]), commit(MESSAGE, &[1]));
        let refused = outcome(&site.link(role, &old), &late).await;
        let backend = "b3".parse().unwrap();
        assert_eq!(refused, Outcome::Moved { backend, epoch });
    }
    operator.flush().await.unwrap();
    let away = |row: &Held| {
        let waits = row.waits.as_ref();
        waits.is_some_and(|waits| waits.reason == "directory_away")
    };
    until_row(&operator, 1, away).await;
    site.directory.home(1, "b3", 2);
    site.start_directory().await;
    operator.flush().await.unwrap();
    until_held(&operator, 0).await;
    until_listed(&new, "ann", 2).await;
}

/// Its number would be that of a user's for whoever counts on from 1.
#[tokio::test]
async fn nobody_opens_moves_saves_or_reads_what_is_held() {
    let site = Site::new().await;
    let holder = site.backend("b2").await;
    let link = site.link(Role::MxFrontend, &holder);
    let operator = HoldClient::new(site.link(Role::Operator, &holder));
    assert_eq!(outcome(&link, &held_for(1, 1)).await, Outcome::Held);
    let number = AccountId::MAX.0 + 2;
    let account = AccountId(number);
    let as_operator = site.link(Role::Operator, &holder);
    for (path, request) in [
        (
            store_api::transfer::path::SUMMARY,
            json!({"account": number}),
        ),
        (
            store_api::transfer::path::OFFER,
            json!({"account": number, "epoch": 1, "move_id": MoveId::from_octets([1; 16]), "target": "b1"}),
        ),
        (
            store_api::undelete::path::LIST,
            json!({"account": number, "epoch": 1}),
        ),
        (store_api::hold::path::DROP, json!({"account": number})),
        (
            store_api::load::PATH,
            json!({"ask": "accounts", "volume": "main", "after": number}),
        ),
    ] {
        let asked = as_operator.json::<_, Value>(Method::POST, path, &request, PATIENCE);
        let refused = asked.await.unwrap_err().to_string();
        assert!(
            refused.contains("no account has such a number"),
            "{path}: {refused}"
        );
    }
    let quota = Quota {
        octets: Some(1),
        ..Quota::NONE
    };
    let room = RoomRequest { account, quota };
    let asked = link.json::<_, Value>(Method::POST, store_api::room::PATH, &room, PATIENCE);
    assert!(asked.await.is_err());
    let (mut open, mut commit) = (open(2, &[1]), commit(MESSAGE, &[1]));
    open.recipients[0].account = account;
    commit.recipients[0].account = account;
    assert!(deliver(&link, &open, MESSAGE, &commit).await.is_err());
    // Not among those that could be moved, nor their costs; the volume's has it.
    let migrator = LoadClient::new(site.link(Role::Migrator, &holder));
    let heaviest = LoadRequest::Heaviest { count: 10 };
    assert!(migrator.ask(&heaviest).await.unwrap().accounts.is_empty());
    assert_eq!(count(&operator).await, 1);
}

#[tokio::test]
async fn one_account_may_be_held_so_much_mail_and_others_theirs() {
    let site = Site::new().await;
    let holder = site.backend_starting("b2", "[hold]\naccount_max_bytes = 300\n");
    holder.ready().await;
    let link = site.link(Role::MxFrontend, &holder);
    let operator = HoldClient::new(site.link(Role::Operator, &holder));
    for (txn, account, expected) in [
        (1, 1, Outcome::Held),
        // One message may go over it.
        (2, 1, Outcome::Held),
        (3, 1, Outcome::Full),
        (4, 2, Outcome::Held),
    ] {
        assert_eq!(
            outcome(&link, &held_for(txn, account)).await,
            expected,
            "{txn}"
        );
    }
    assert_eq!(count(&operator).await, 3);
    let metrics = holder.get("/metrics").await.unwrap();
    let refused = "posthouse_store_hold_refused_total{reason=\"hold_account_full\"} 1";
    assert!(metrics.contains(refused), "{metrics}");
    let drop = Drop {
        account: AccountId(1),
        only_aside: false,
    };
    operator.drop(&drop).await.unwrap();
    operator.flush().await.unwrap();
    until_held(&operator, 1).await;
    let began = Instant::now();
    while outcome(&link, &held_for(5, 1)).await != Outcome::Held {
        assert!(began.elapsed() < PATIENCE, "what went makes room");
    }
}

/// Only its body is left, as after `fsck --new-uidvalidity`: the home gets that, once.
#[tokio::test]
async fn held_mail_of_which_only_the_body_is_left_comes_to_its_home() {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let mut holder = site.backend("b2").await;
    holder.terminate().await;
    let (backend, name) = ("b2".parse().unwrap(), "main".parse().unwrap());
    let config = VolumeConfig::new(site.data("b2"), backend, name);
    let volume = Volume::open(config, Arc::new(RealDisk)).unwrap();
    let mut blob = volume.begin_blob();
    blob.write(MESSAGE).await.unwrap();
    let delivery = Delivery {
        txn: [1; 16],
        sender: Vec::new(),
        content_key: [1; 32],
        repeats: store_api::deliver::Repeats::Deliver,
        blob: blob.finish().await.unwrap(),
        trace: String::new(),
        received_ms: 1,
        recipients: vec![Recipient {
            account: holder_of(AccountId(1)).unwrap(),
            epoch: HOLD_EPOCH,
            mailbox: MailboxId::INBOX,
            detail: None,
            prologue: Vec::new(),
        }],
    };
    let delivered = volume.deliver(delivery).await;
    assert!(matches!(
        delivered[..],
        [store_backend::volume::Outcome::Committed { .. }]
    ));
    volume.close();
    drop(volume);
    holder.restart().await;
    let operator = HoldClient::new(site.link(Role::Operator, &holder));
    until_held(&operator, 1).await;
    let home = site.backend("b1").await;
    operator.flush().await.unwrap();
    until_held(&operator, 0).await;
    assert_eq!(
        until_listed(&home, "ann", 1).await.retrieve(1).await,
        MESSAGE
    );
}

/// Its disk was put back from an old copy. Two rounds pass over it, which are known by what comes from the volume beside it.
#[tokio::test]
async fn a_volume_that_may_not_be_written_is_not_fed_from_until_it_is_adopted() {
    let site = Site::new().await;
    for (account, local) in [(1, "ann"), (2, "bob")] {
        site.directory.address(local, &[account]);
        site.directory.home(account, "b1", 1);
    }
    let folder = |volume: &str| {
        let folder = site.data("b2").with_extension(volume);
        format!("{{ name = {volume:?}, folder = {folder:?} }}")
    };
    let one = format!("volumes = [{}]", folder("d1"));
    let two = format!("volumes = [{}, {}]", folder("d1"), folder("d2"));
    let mut holder = site.backend_of("b2", &one, "plaintext_login = true", "");
    holder.ready().await;
    let link = site.link(Role::MxFrontend, &holder);
    let operator = HoldClient::new(site.link(Role::Operator, &holder));
    assert_eq!(outcome(&link, &held_for(1, 1)).await, Outcome::Held);
    holder.terminate().await;
    site.directory.claim_position(1 << 40);
    holder.configure(|text| text.replace(&one, &two));
    holder.start();
    holder.fails("older than the directory knows").await;
    let home = site.backend("b1").await;
    for (txn, count) in [(2, 1), (3, 2)] {
        let (began, message) = (Instant::now(), held_for(txn, 2));
        while !matches!(
            deliver(&link, &message.0, MESSAGE, &message.1).await,
            Ok(reply) if reply.results[0].outcome == Outcome::Held
        ) {
            assert!(began.elapsed() < PATIENCE, "the other volume holds");
        }
        operator.flush().await.unwrap();
        until_listed(&home, "bob", count).await;
    }
    until_held(&operator, 1).await;
    until_row(&operator, 1, |row| row.volume.as_str() == "d1").await;
    site.directory.adopt();
    let began = Instant::now();
    while count(&operator).await > 0 {
        assert!(began.elapsed() < PATIENCE, "it is fed when it is adopted");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    until_listed(&home, "ann", 1).await;
}
