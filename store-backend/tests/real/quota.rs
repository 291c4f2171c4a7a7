//! A full account at RCPT: deferred, or refused by setting; after RCPT nothing is.

use crate::imap_dialogue::imap;
use crate::site::{Backend, Dialogue, Site, until_listed};

const MESSAGE: &[u8] = b"Subject: x\r\n\r\nhello\r\n";

async fn site() -> (Site, Backend, Backend) {
    let site = Site::new().await;
    for (local, accounts) in [
        ("ann", &[1][..]),
        ("bob", &[2]),
        ("carl", &[3]),
        ("both", &[1, 2]),
    ] {
        site.directory.address(local, accounts);
    }
    for (account, home) in [(1, "b1"), (2, "b1"), (3, "b2")] {
        site.directory.home(account, home, 1);
    }
    site.directory.quota(1, None, Some(2));
    site.directory.quota(3, Some(1000), None);
    let b1 = site.backend("b1").await;
    let b2 = site.backend_starting("b2", "over_quota_is_permanent = true");
    b2.ready().await;
    (site, b1, b2)
}

async fn recipient(lmtp: &mut Dialogue, parameters: &str, local: &str) -> String {
    lmtp.ask(&format!("MAIL FROM:<s@elsewhere.test>{parameters}"), "250 ")
        .await;
    lmtp.say(&format!("RCPT TO:<{local}@example.test>")).await;
    let reply = lmtp.line().await;
    lmtp.ask("RSET", "250 ").await;
    reply
}

#[tokio::test]
async fn mail_for_a_full_account_is_deferred_at_rcpt_and_taken_once_rcpt_said_yes() {
    let (site, b1, _b2) = site().await;
    let mut lmtp = Dialogue::lmtp(&b1).await;
    let mut early = Dialogue::lmtp(&b1).await;
    early.ask("MAIL FROM:<s@elsewhere.test>", "250 ").await;
    early.ask("RCPT TO:<ann@example.test>", "250 ").await;
    for count in 1..=2 {
        assert!(lmtp.deliver(&["ann"], MESSAGE).await[0].starts_with("250 "));
        drop(until_listed(&b1, "ann", count).await);
    }
    let full = recipient(&mut lmtp, "", "ann").await;
    assert!(full.starts_with("452 4.2.2 "), "{full}");
    // The other one's mail does not wait for her.
    let alias = recipient(&mut lmtp, "", "both").await;
    assert!(alias.starts_with("250 "), "{alias}");
    early.ask("DATA", "354 ").await;
    early.send(b"Subject: grace\r\n\r\n.\r\n").await;
    early.expect("250 ").await;
    drop(until_listed(&b1, "ann", 3).await);

    // A new limit comes with a lookup, to a session that is open too.
    let mut open = imap(&b1, "ann").await;
    open.ask("a GETQUOTA \"\"", "* QUOTA \"\" (MESSAGE 3 2)")
        .await;
    open.expect("a OK").await;
    site.directory.quota(1, None, Some(4));
    site.directory.address("anna", &[1]);
    let again = recipient(&mut lmtp, "", "anna").await;
    assert!(again.starts_with("250 "), "{again}");
    open.ask("b GETQUOTA \"\"", "* QUOTA \"\" (MESSAGE 3 4)")
        .await;
    open.expect("b OK").await;
    let figures = b1.get("/metrics").await.unwrap();
    assert!(
        figures.contains("posthouse_store_quota_total{event=\"recipient\"} 2"),
        "{figures}"
    );
}

#[tokio::test]
async fn a_declared_size_that_fits_not_even_with_the_grace_is_refused_by_the_home_and_through_a_sibling()
 {
    let (_site, b1, b2) = site().await;
    let mut there = Dialogue::lmtp(&b1).await;
    let mut here = Dialogue::lmtp(&b2).await;
    for (size, fits) in [(1100, true), (1101, false)] {
        let parameters = format!(" SIZE={size}");
        let deferred = recipient(&mut there, &parameters, "carl").await;
        let refused = recipient(&mut here, &parameters, "carl").await;
        let expected = if fits {
            ["250 ", "250 "]
        } else {
            ["452 4.2.2 ", "552 5.2.2 "]
        };
        assert!(deferred.starts_with(expected[0]), "{size}: {deferred}");
        assert!(refused.starts_with(expected[1]), "{size}: {refused}");
    }
    // No answer is a yes.
    drop(b2);
    let mut later = Dialogue::lmtp(&b1).await;
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    let away = recipient(&mut later, " SIZE=1101", "carl").await;
    assert!(away.starts_with("250 "), "{away}");
}
