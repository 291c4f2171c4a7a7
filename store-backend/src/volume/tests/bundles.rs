//! Prologues in bundles: each is its message's alone, and goes with it.

use super::*;

/// Rows of a table, as hexadecimal digits.
async fn rows(volume: &Volume, table: &str) -> Vec<String> {
    let dump = volume.dump_index().await.unwrap();
    let of_table = |line: &str| Some(line.strip_prefix(table)?.strip_prefix(' ')?.to_owned());
    dump.lines().filter_map(of_table).collect()
}

const BODY: &[u8] = b"Subject: to many\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_prologue_goes_with_its_message_and_the_bundle_with_the_last() {
    let dir = TempDir::new().unwrap();
    let config = VolumeConfig {
        expunge_grace: Duration::from_secs(3600),
        ..config(dir.path())
    };
    let volume = Volume::open(config, Arc::new(RealDisk)).unwrap();
    let accounts: Vec<AccountId> = (101..=120).map(AccountId).collect();
    deliver(&volume, 1, BODY, &accounts).await;
    assert_eq!(rows(&volume, "bundles").await.len(), 2);
    assert_eq!(rows(&volume, "prologues").await.len(), 0);
    // The first of a bundle, which the others are told by, among the first to go.
    let left = AccountId(103);
    for account in accounts.iter().filter(|account| **account != left) {
        assert_eq!(text(&volume, *account, 1).await, expected(*account, BODY));
        let gone = volume.expunge(*account, E1, MailboxId::INBOX, vec![1]);
        gone.await.unwrap();
        assert_eq!(text(&volume, left, 1).await, expected(left, BODY));
    }
    let prologue = data_encoding::HEXLOWER.encode(b"Delivered-To: 103\r\n");
    let bundles = rows(&volume, "bundles").await;
    assert!(
        bundles.len() == 1 && bundles[0].ends_with(&format!(" 01021300{prologue}")),
        "{bundles:?}"
    );
    // What was expunged can be brought back with it.
    let back = volume.kept(accounts[0], None, 10, 0).await.unwrap();
    let octets = expected(accounts[0], BODY).len() as u64;
    assert_eq!(back[0].size_octets, octets);
    let gone = volume.expunge(left, E1, MailboxId::INBOX, vec![1]);
    gone.await.unwrap();
    assert_eq!(rows(&volume, "bundles").await.len(), 0);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn copied_and_moved_messages_and_those_of_a_deleted_mailbox_have_their_own() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    deliver(&volume, 1, BODY, &[ANN, BOB]).await;
    let other = volume.create_mailbox(ANN, E1, "other", SpecialUse::default());
    let other = other.await.unwrap();
    volume
        .copy_messages(ANN, E1, MailboxId::INBOX, vec![1], other)
        .await
        .unwrap();
    volume
        .move_messages(ANN, E1, MailboxId::INBOX, vec![1], other)
        .await
        .unwrap();
    for uid in [1, 2] {
        let message = volume.read_message(ANN, other, uid).await.unwrap();
        assert_eq!(message.unwrap().prologue, &b"Delivered-To: 7\r\n"[..]);
    }
    assert_eq!(text(&volume, BOB, 1).await, expected(BOB, BODY));
    // One by a delivery into that mailbox, of which only that goes with it.
    let into = Recipient {
        mailbox: other,
        ..to(ANN)
    };
    deliver_to(&volume, 2, BODY, vec![into, to(BOB)]).await;
    let counts = async || {
        let [bundles, own] = ["bundles", "prologues"].map(|table| rows(&volume, table));
        (bundles.await.len(), own.await.len())
    };
    assert_eq!(counts().await, (2, 2));
    volume.delete_mailbox(ANN, E1, "other").await.unwrap();
    assert_eq!(counts().await, (2, 0));
    for uid in [1, 2] {
        assert_eq!(text(&volume, BOB, uid).await, expected(BOB, BODY));
    }
    let hex = data_encoding::HEXLOWER.encode(b"Delivered-To: 7\r\n");
    let bundles = rows(&volume, "bundles").await;
    assert!(!bundles.iter().any(|row| row.contains(&hex)), "{bundles:?}");
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_prologue_has_a_row_of_its_own_and_none_has_none() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    let prologues = [0, 1, 2048, 2049].map(|count| vec![b'p'; count]);
    let accounts = 11..;
    let recipients = accounts
        .zip(&prologues)
        .map(|(account, prologue)| Recipient {
            prologue: prologue.clone(),
            ..to(AccountId(account))
        });
    deliver_to(&volume, 1, BODY, recipients.collect()).await;
    assert_eq!(rows(&volume, "bundles").await.len(), 1);
    assert_eq!(rows(&volume, "prologues").await.len(), 1);
    for (account, prologue) in (11..).map(AccountId).zip(prologues) {
        assert_eq!(
            text(&volume, account, 1).await,
            [&prologue[..], BODY].concat()
        );
        let gone = volume.expunge(account, E1, MailboxId::INBOX, vec![1]);
        gone.await.unwrap();
    }
    assert_eq!(rows(&volume, "bundles").await.len(), 0);
    assert_eq!(rows(&volume, "prologues").await.len(), 0);
    volume.close();
}
