#![allow(clippy::unwrap_used)]

use super::super::acl::{AclEntry, Rights};
use super::super::rows::quota_of;
use super::*;

fn samples() -> Vec<Record> {
    let blob = |body, octets| BlobRef {
        number: 7,
        hash: [9; 32],
        octets,
        body,
    };
    let to = DeliverTo {
        account: AccountId(3),
        epoch: Epoch(2),
        inbox_uidvalidity: 5,
        mailbox: MailboxId::INBOX,
        uid: 8,
        modseq: 13,
        identity: [21; 16],
        key: NO_KEY,
        prologue: Bytes::from_static(b"Received: x\r\n"),
    };
    let deliver = |body, octets| {
        Record::Deliver(Deliver {
            at_ms: -1,
            txn: [1; 16],
            content_key: [2; 32],
            received_ms: 1 << 40,
            sender: Bytes::from_static(b"a@b"),
            trace: Bytes::new(),
            recipients: vec![to.clone(), to.clone()],
            blob: blob(body, octets),
        })
    };
    let (account, mailbox) = (AccountId(3), MailboxId(4));
    let flags = FlagsOf {
        uid: 8,
        flags: Flags::SEEN,
        keywords: vec![0, 511],
    };
    vec![
        deliver(Body::Inline(Bytes::from_static(b"body")), 4),
        deliver(Body::Known, 4),
        deliver(Body::Spilled([4; 16]), 1 << 33),
        deliver(Body::Copied(6), 1),
        Record::Expunge(Expunge {
            account,
            mailbox,
            modseq: 9,
            grace: Grace::none(1),
            uids: vec![1, 5],
        }),
        Record::Flags(StoreFlags {
            account,
            mailbox,
            modseq: 9,
            new_keywords: vec!["$Junk".into()],
            changes: vec![flags.clone()],
        }),
        Record::Mailbox(CreateMailboxes {
            account,
            created: vec![NewMailbox {
                mailbox,
                uidvalidity: 77,
                special_use: SpecialUse::SENT,
                name: "Ärger".into(),
            }],
        }),
        Record::Account(SetAccount {
            account,
            state: State::Moved,
            epoch: Epoch(9),
            move_id: [3; 16],
            elsewhere: Some(BackendName::new("b2").unwrap()),
            quota: quota_of(10, 0, 3),
            inbox_uidvalidity: 0,
            wipe: true,
            keep_until_ms: 4,
        }),
        Record::Import(Import {
            account,
            copies: vec![blob(Body::Copied(6), 3)],
            numbers: vec![7, 7],
            items: vec![Bytes::from_static(b"i"), Bytes::from_static(b"j")],
        }),
        Record::Blob(PutBlob {
            keep_until_ms: 4,
            blob: blob(Body::Inline(Bytes::from_static(b"b")), 1),
        }),
        Record::Drop(DropBlobs {
            blobs: vec![(1, [2; 32])],
        }),
        Record::Append(Append {
            account,
            mailbox,
            modseq: 3,
            saved_ms: 4,
            new_keywords: vec!["a".into(), "b".into()],
            copies: vec![blob(Body::Copied(6), 3)],
            messages: vec![Appended {
                flags: flags.clone(),
                internal_date_ms: 5,
                identity: [6; 16],
                blob: 7,
                hash: [8; 32],
                octets: 9,
            }],
            replaced: None,
        }),
        Record::Append(Append {
            account,
            mailbox,
            modseq: 3,
            saved_ms: 4,
            new_keywords: Vec::new(),
            copies: Vec::new(),
            messages: Vec::new(),
            replaced: Some(Replaced {
                mailbox: MailboxId::INBOX,
                uid: 6,
                modseq: 5,
                grace: Grace::none(7),
            }),
        }),
        Record::Copy(CopyMessages {
            account,
            source: mailbox,
            target: MailboxId::INBOX,
            modseq: 3,
            source_modseq: 4,
            saved_ms: 5,
            new_keywords: vec!["a".into()],
            copies: vec![blob(Body::Copied(6), 3)],
            messages: vec![CopiedMessage {
                source_uid: 2,
                flags,
                blob: 7,
                hash: [8; 32],
            }],
        }),
        Record::Delete(DeleteMailbox {
            account,
            mailbox,
            grace: Grace::none(4),
        }),
        Record::Rename(RenameMailboxes {
            account,
            renamed: vec![(mailbox, "b".into())],
        }),
        Record::Subscribe(Subscribe {
            account,
            subscribed: true,
            name: "b".into(),
        }),
        Record::SpecialUse(SetSpecialUse {
            account,
            mailbox,
            special_use: SpecialUse::JUNK,
        }),
        Record::Annotate(Annotate {
            account,
            mailbox,
            changes: vec![
                ("/shared/comment".into(), Some(Bytes::from_static(b"c"))),
                ("/private/empty".into(), Some(Bytes::new())),
                ("/private/gone".into(), None),
            ],
        }),
        Record::Acl(SetAcl {
            account,
            mailbox,
            acl: Acl {
                owner: "ann@example.test".into(),
                entries: vec![AclEntry {
                    account: AccountId(5),
                    name: "bob@example.test".into(),
                    rights: Rights::ALL,
                }],
            },
        }),
    ]
}

/// What came later: of version 2, and of kinds that version 1 did not have.
fn later_samples() -> Vec<Record> {
    let (account, mailbox) = (AccountId(3), MailboxId(4));
    let grace = Grace {
        at_ms: 5,
        until_ms: 7,
    };
    let flags = FlagsOf {
        uid: 8,
        flags: Flags::SEEN,
        keywords: vec![0, 511],
    };
    let copy = BlobRef {
        number: 7,
        hash: [9; 32],
        octets: 3,
        body: Body::Copied(6),
    };
    vec![
        Record::Answered(Answered {
            messages: vec![(account, [5; 16]), (AccountId(1 << 39), [6; 16])],
        }),
        Record::Deliver(Deliver {
            at_ms: 2,
            txn: [1; 16],
            content_key: [2; 32],
            received_ms: 3,
            sender: Bytes::new(),
            trace: Bytes::new(),
            recipients: vec![DeliverTo {
                account,
                epoch: Epoch(2),
                inbox_uidvalidity: 0,
                mailbox,
                uid: 8,
                modseq: 13,
                identity: [21; 16],
                key: [22; 16],
                prologue: Bytes::from_static(b"Received: x\r\n"),
            }],
            blob: copy.clone(),
        }),
        Record::Expunge(Expunge {
            account,
            mailbox,
            modseq: 9,
            grace,
            uids: vec![1, 5],
        }),
        Record::Append(Append {
            account,
            mailbox,
            modseq: 3,
            saved_ms: 4,
            new_keywords: Vec::new(),
            copies: Vec::new(),
            messages: Vec::new(),
            replaced: Some(Replaced {
                mailbox: MailboxId::INBOX,
                uid: 6,
                modseq: 5,
                grace,
            }),
        }),
        Record::Delete(DeleteMailbox {
            account,
            mailbox,
            grace,
        }),
        Record::Undelete(CopyMessages {
            account,
            source: mailbox,
            target: MailboxId::INBOX,
            modseq: 3,
            source_modseq: 0,
            saved_ms: 5,
            new_keywords: vec!["a".into()],
            copies: vec![copy],
            messages: vec![CopiedMessage {
                source_uid: 2,
                flags,
                blob: 7,
                hash: [8; 32],
            }],
        }),
        Record::Purge(Purge {
            until_ms: 7,
            account,
            mailbox,
            uid: 8,
        }),
    ]
}

fn all_samples() -> Vec<Record> {
    [samples(), later_samples()].concat()
}

fn payload(record: &Record) -> (u8, Bytes) {
    let encoded = record.encode();
    (
        encoded.kind,
        [&encoded.head[..], &encoded.body[..]].concat().into(),
    )
}

#[test]
fn every_record_reads_back_as_it_was_written() {
    for record in all_samples() {
        let (kind, payload) = payload(&record);
        assert_eq!(Record::decode(kind, payload).unwrap(), record);
    }
}

#[test]
fn a_record_cut_anywhere_or_with_more_behind_it_is_refused() {
    for record in all_samples() {
        let (kind, payload) = payload(&record);
        for cut in 0..payload.len() {
            assert!(
                Record::decode(kind, payload.slice(..cut)).is_err(),
                "{record:?} cut at {cut}"
            );
        }
        let longer = [&payload[..], b"x"].concat();
        assert!(Record::decode(kind, longer.into()).is_err(), "{record:?}");
    }
}

#[test]
fn an_unknown_kind_or_version_is_refused() {
    let (kind, payload) = payload(&samples()[0]);
    assert!(Record::decode(99, payload.clone()).is_err());
    let mut newer = payload.to_vec();
    newer[0] = 3;
    assert!(Record::decode(kind, newer.into()).is_err());
}

#[test]
fn the_bytes_of_version_1_stay() {
    let all: Vec<u8> = samples()
        .iter()
        .flat_map(|record| payload(record).1)
        .collect();
    assert_eq!(
        blake3::hash(&all).to_hex().as_str(),
        include_str!("../record.golden").trim_end()
    );
}

#[test]
fn the_bytes_of_what_came_later_stay() {
    let all: Vec<u8> = later_samples()
        .iter()
        .flat_map(|record| payload(record).1)
        .collect();
    assert_eq!(
        blake3::hash(&all).to_hex().as_str(),
        include_str!("../record_later.golden").trim_end()
    );
}
