//! Mail that is held here for accounts that live elsewhere, or have just gone.

use std::time::{Duration, Instant};

use daemon::identity::Role;
use directory_api::AccountId;
use store_api::deliver::{DeliverCommit, DeliverError, DeliverOpen, Outcome};
use store_api::hold::{Drop, Hold, HoldClient, List};

use crate::deliver::{commit, deliver, open};
use crate::site::{PATIENCE, Site, until_listed};

const MESSAGE: &[u8] = b"Subject: held\r\n\r\nhello\r\n";

/// As a front-end asks for it when the home is down.
fn held_for(txn: u8, account: u64) -> (DeliverOpen, DeliverCommit) {
    let (mut open, mut commit) = (open(txn, &[account]), commit(MESSAGE, &[account]));
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
    open.recipients[0].epoch = directory_api::Epoch(7);
    commit.recipients[0].epoch = directory_api::Epoch(7);
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
        })
        .await
        .unwrap();
    assert_eq!(dropped.messages, 2);
    until_held(&operator, 1).await;
    let not_ours = HoldClient::new(link).list(&List::default()).await;
    assert!(not_ours.is_err(), "only operators look");
}
