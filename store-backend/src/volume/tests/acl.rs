//! Rights of others than the owner, asked where everything is decided: over what is in flight too.

use super::super::error::IndexError;
use super::super::intake::{Command, Reply, Which};
use super::super::sequencer::{Batch, Decided};
use super::*;

const BODY: &[u8] = b"Subject: hello\r\n\r\nbody\r\n";

/// Two mailboxes of ann's, and what bob asks.
struct Site {
    _dir: TempDir,
    volume: Volume,
    work: MailboxId,
    team: MailboxId,
}

async fn site() -> Site {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    volume.ensure_account(ANN, E1).await.unwrap();
    let plain = SpecialUse::default();
    let work = volume.create_mailbox(ANN, E1, "Work", plain).await.unwrap();
    let team = volume.create_mailbox(ANN, E1, "Team", plain).await.unwrap();
    let message = AppendMessage {
        body: AppendBody::Finished(blob(&volume, BODY).await),
        flags: Flags::DELETED.into(),
        internal_date_ms: 0,
    };
    let appended = volume.append(ANN, E1, work, vec![message]).await;
    appended.unwrap();
    settle(&volume);
    Site {
        _dir: dir,
        volume,
        work,
        team,
    }
}

impl Site {
    /// What is answered to the last of some commands that are decided one after the other, in one batch or each in its
    /// own; nothing of them is ever applied.
    fn decide(
        &self,
        in_one_batch: bool,
        commands: Vec<(Option<AccountId>, Command)>,
    ) -> Result<(), Refusal> {
        let shared = self.volume.inner.shared();
        let mut sequencer = sequencer(&self.volume, 100);
        let applied = self.volume.status().applied;
        let decided = shared.index.read(|txn| {
            let mut next = Lsn(applied.0 + 1);
            let mut batch = Batch::new(txn, 0, next, false);
            let mut last = None;
            for (user, command) in commands {
                if !in_one_batch {
                    next = Lsn(next.0 + batch.records.len() as u64);
                    batch = Batch::new(txn, 0, next, false);
                    sequencer.begin(applied, applied);
                }
                last = Some(sequencer.decide(&mut batch, user, command)?);
            }
            Ok::<_, IndexError>(last.unwrap())
        });
        let (Decided::AfterSync(reply) | Decided::Settling(_, reply) | Decided::AfterApply(reply)) =
            decided.unwrap();
        match reply {
            Reply::Refused(refusal) => Err(refusal),
            _ => Ok(()),
        }
    }

    /// What bob is answered whose rights ann has just set, the last time to `rights`.
    fn ask(&self, rights: Rights, command: impl Fn(&Self) -> Command) -> Result<(), Refusal> {
        let grants = |mailbox, rights| (None, self.grant(mailbox, rights));
        let answers = [true, false].map(|in_one_batch| {
            let commands = vec![
                grants(self.team, Rights::ALL),
                grants(self.work, Rights::ALL),
                grants(self.work, rights),
                (Some(BOB), command(self)),
            ];
            self.decide(in_one_batch, commands)
        });
        assert_eq!(answers[0], answers[1], "{rights:?}");
        let [answer, _] = answers;
        answer
    }

    fn grant(&self, mailbox: MailboxId, rights: Rights) -> Command {
        Command::SetAcl {
            account: ANN,
            epoch: E1,
            mailbox,
            owner_name: Some("ann@example.test".into()),
            grantee: (BOB, "bob@example.test".into()),
            change: AclChange::Replace(rights),
        }
    }

    fn append(&self, flags: FlagSet) -> Command {
        let message = AppendMessage {
            body: AppendBody::Put {
                hash: *blake3::hash(BODY).as_bytes(),
                octets: BODY.len() as u64,
                identity: None,
            },
            flags,
            internal_date_ms: 0,
        };
        Command::Append {
            account: ANN,
            epoch: E1,
            mailbox: self.work,
            messages: vec![message],
            replaced: None,
        }
    }

    fn copy(&self, leave: bool) -> Command {
        Command::Copy {
            account: ANN,
            epoch: E1,
            source: self.work,
            uids: vec![1],
            target: self.work,
            leave,
        }
    }

    fn expunge(&self, which: Which) -> Command {
        Command::Expunge {
            account: ANN,
            epoch: E1,
            mailbox: self.work,
            which,
        }
    }

    fn store(&self, change: FlagChange) -> Command {
        Command::StoreFlags {
            account: ANN,
            epoch: E1,
            mailbox: self.work,
            uids: vec![1],
            change,
            unchanged_since: None,
        }
    }

    fn create(name: &str) -> Command {
        Command::CreateMailbox {
            account: ANN,
            epoch: E1,
            name: name.into(),
            special_use: SpecialUse::default(),
        }
    }

    fn delete(name: &str, mailbox: Option<MailboxId>) -> Command {
        Command::DeleteMailbox {
            account: ANN,
            epoch: E1,
            name: name.into(),
            mailbox,
        }
    }

    fn rename(from: &str, mailbox: Option<MailboxId>, to: &str) -> Command {
        Command::RenameMailbox {
            account: ANN,
            epoch: E1,
            from: from.into(),
            mailbox,
            to: to.into(),
            inbox_uids: Vec::new(),
        }
    }

    fn annotate(&self, entry: &str) -> Command {
        Command::Annotate {
            account: ANN,
            epoch: E1,
            mailbox: self.work,
            changes: vec![(entry.into(), Some("x".into()))],
        }
    }
}

fn keyword() -> FlagSet {
    FlagSet {
        system: Flags::default(),
        keywords: vec!["$Junk".into()],
    }
}

fn each(rights: Rights) -> impl Iterator<Item = Rights> {
    (0..11)
        .map(|bit| Rights(1 << bit))
        .filter(move |one| rights.has(*one))
}

fn without(rights: Rights, one: Rights) -> Rights {
    Rights(rights.0 & !one.0)
}

type Verb = (&'static str, Rights, fn(&Site) -> Command);

/// What bob may ask, and the rights it takes besides `l`.
fn verbs() -> [Verb; 18] {
    let flags = Rights::SEEN | Rights::DELETE | Rights::WRITE;
    [
        ("APPEND", Rights::INSERT, |site| {
            site.append(FlagSet::default())
        }),
        ("APPEND \\Seen", Rights::INSERT | Rights::SEEN, |site| {
            site.append(Flags::SEEN.into())
        }),
        (
            "APPEND \\Deleted",
            Rights::INSERT | Rights::DELETE,
            |site| site.append(Flags::DELETED.into()),
        ),
        ("APPEND $Junk", Rights::INSERT | Rights::WRITE, |site| {
            site.append(keyword())
        }),
        ("COPY", Rights::READ | Rights::INSERT | flags, |site| {
            site.copy(false)
        }),
        (
            "MOVE",
            Rights::READ | Rights::INSERT | Rights::EXPUNGE | flags,
            |site| site.copy(true),
        ),
        ("EXPUNGE", Rights::READ | Rights::EXPUNGE, |site| {
            site.expunge(Which::Deleted(vec![(1, 9)]))
        }),
        (
            "the end of a MOVE",
            Rights::READ | Rights::EXPUNGE | Rights::DELETE,
            |site| {
                let having = Flags::default();
                site.expunge(Which::Uids {
                    uids: vec![1],
                    having,
                })
            },
        ),
        ("STORE +\\Seen", Rights::READ | Rights::SEEN, |site| {
            site.store(FlagChange::Add(Flags::SEEN.into()))
        }),
        ("STORE -\\Deleted", Rights::READ | Rights::DELETE, |site| {
            site.store(FlagChange::Remove(Flags::DELETED.into()))
        }),
        ("STORE +$Junk", Rights::READ | Rights::WRITE, |site| {
            site.store(FlagChange::Add(keyword()))
        }),
        ("STORE +\\Draft", Rights::READ | Rights::WRITE, |site| {
            site.store(FlagChange::Add(Flags::DRAFT.into()))
        }),
        ("STORE of all", Rights::READ | flags, |site| {
            site.store(FlagChange::Replace(FlagSet::default()))
        }),
        (
            "STORE of some",
            Rights::READ | Rights::SEEN | Rights::WRITE,
            |site| {
                site.store(FlagChange::ReplaceWithin {
                    set: FlagSet::default(),
                    system: Flags::SEEN,
                    keywords: true,
                })
            },
        ),
        ("DELETE", Rights::DELETE_MAILBOX, |site| {
            Site::delete("Work", Some(site.work))
        }),
        ("RENAME", Rights::DELETE_MAILBOX, |site| {
            Site::rename("Work", Some(site.work), "Team/Work")
        }),
        ("SETACL", Rights::ADMINISTER, |site| Command::SetAcl {
            account: ANN,
            epoch: E1,
            mailbox: site.work,
            owner_name: None,
            grantee: (AccountId(9), "carl@example.test".into()),
            change: AclChange::Add(Rights::ALL),
        }),
        ("SETMETADATA", Rights::WRITE, |site| {
            site.annotate("/shared/comment")
        }),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_queued_behind_the_end_of_its_right_is_refused_and_what_has_its_right_is_done() {
    let site = site().await;
    for (verb, needed, command) in verbs() {
        let needed = needed | Rights::LOOKUP;
        assert_eq!(site.ask(needed, command), Ok(()), "{verb}");
        assert_eq!(site.ask(Rights::ALL, command), Ok(()), "{verb}");
        let absent = match command(&site) {
            Command::Copy { .. } => Refusal::NoSource,
            _ => Refusal::NoMailbox,
        };
        for one in each(needed) {
            let refusal = match one {
                Rights::LOOKUP => absent.clone(),
                _ => Refusal::NotPermitted,
            };
            let left = without(Rights::ALL, one);
            let answer = site.ask(left, command);
            assert_eq!(answer, Err(refusal), "{verb} without {one:?}");
        }
        let nothing = site.ask(Rights::default(), command);
        assert_eq!(nothing, Err(absent), "{verb}");
    }
    site.volume.close();
}

/// RFC 8508 §4.1. The message that shall go is none: so no answer but this one shows that it was permitted.
#[tokio::test(flavor = "multi_thread")]
async fn replace_takes_the_rights_of_append_and_of_expunge() {
    let site = site().await;
    let command = |site: &Site| match site.append(Flags::SEEN.into()) {
        Command::Append {
            account,
            epoch,
            mailbox,
            messages,
            ..
        } => Command::Append {
            account,
            epoch,
            mailbox,
            messages,
            replaced: Some((site.work, 99)),
        },
        other => other,
    };
    let append = Rights::INSERT | Rights::SEEN;
    let needed = append | Rights::READ | Rights::DELETE | Rights::EXPUNGE;
    let permitted = site.ask(needed | Rights::LOOKUP, command);
    assert_eq!(permitted, Err(Refusal::NoMessage));
    for one in each(needed) {
        let answer = site.ask(without(Rights::ALL, one), command);
        assert_eq!(answer, Err(Refusal::NotPermitted), "{one:?}");
    }
    site.volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_list_can_permit_is_refused_with_all_rights() {
    let site = site().await;
    let refused: [fn(&Site) -> Command; 5] = [
        |site| site.annotate("/private/comment"),
        |_| Command::Subscribe {
            account: ANN,
            epoch: E1,
            name: "Work".into(),
            subscribed: true,
        },
        |site| Command::SetSpecialUse {
            account: ANN,
            epoch: E1,
            mailbox: site.work,
            special_use: SpecialUse::TRASH,
        },
        |_| Command::EnsureAccount {
            account: ANN,
            epoch: E1,
            quota: None,
        },
        |site| site.grant(site.work, Rights::ALL),
    ];
    for (number, command) in refused.into_iter().enumerate() {
        let answer = site.ask(Rights::ALL, command);
        assert_eq!(answer, Err(Refusal::NotPermitted), "{number}");
    }
    site.volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_has_come_to_mean_another_mailbox_is_neither_deleted_nor_renamed() {
    let site = site().await;
    let (old, new) = (site.work, MailboxId(site.team.0 + 1));
    let again = || {
        vec![
            (None, site.grant(old, Rights::ALL)),
            (None, site.grant(site.team, Rights::ALL)),
            (None, Site::rename("Work", None, "Kept")),
            (None, Site::create("Work")),
            (None, site.grant(new, Rights::ALL)),
        ]
    };
    for in_one_batch in [true, false] {
        for user in [None, Some(BOB)] {
            for (known, answer) in [(old, Err(Refusal::NoMailbox)), (new, Ok(()))] {
                let mut deleted = again();
                deleted.push((user, Site::delete("Work", Some(known))));
                assert_eq!(site.decide(in_one_batch, deleted), answer);
                let mut renamed = again();
                renamed.push((user, Site::rename("Work", Some(known), "Team/Work")));
                assert_eq!(site.decide(in_one_batch, renamed), answer);
            }
        }
    }
    site.volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn mailboxes_are_made_and_renamed_where_the_nearest_above_and_those_below_permit_it() {
    let site = site().await;
    let hidden = MailboxId(site.team.0 + 1);
    let ask = |rights: Rights, below: Rights, command: Command| {
        let commands = vec![
            (None, Site::create("Work/hidden")),
            (None, site.grant(site.team, Rights::ALL)),
            (None, site.grant(hidden, below)),
            (None, site.grant(site.work, rights)),
            (Some(BOB), command),
        ];
        site.decide(true, commands)
    };
    let none = Rights::default();
    let refused = Err(Refusal::NotPermitted);
    let create = |rights, below, name: &str| ask(rights, below, Site::create(name));
    let (may_create, may_see) = (Rights::CREATE | Rights::LOOKUP, Rights::LOOKUP);
    assert_eq!(create(may_create, none, "Work/new"), Ok(()));
    assert_eq!(create(may_create, none, "Work/a/b/new"), Ok(()));
    assert_eq!(create(Rights::CREATE, none, "Work/new"), refused);
    assert_eq!(
        create(without(Rights::ALL, Rights::CREATE), none, "Work/new"),
        refused
    );
    assert_eq!(create(Rights::ALL, none, "Work/hidden/new"), refused);
    assert_eq!(create(Rights::ALL, may_see, "Work/hidden/new"), refused);
    assert_eq!(create(none, may_create, "Work/hidden/new"), Ok(()));
    assert_eq!(create(Rights::ALL, Rights::ALL, "top"), refused);

    let rename = |rights, below, to: &str| ask(rights, below, Site::rename("Work", None, to));
    assert_eq!(rename(Rights::ALL, Rights::ALL, "Team/Work"), Ok(()));
    assert_eq!(rename(Rights::ALL, Rights::ALL, "top"), refused);
    for below in [none, may_see, without(Rights::ALL, Rights::DELETE_MAILBOX)] {
        assert_eq!(rename(Rights::ALL, below, "Team/Work"), refused);
    }
    site.volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_sent_right_behind_the_end_of_its_right_does_not_go_through() {
    let site = site().await;
    let volume = &site.volume;
    let bob = Writer {
        epoch: E1,
        user: Some(BOB),
    };
    for change in [
        AclChange::Remove(Rights::INSERT),
        AclChange::Replace(Rights::default()),
    ] {
        let set = |change| {
            let name = "bob@example.test";
            volume.set_acl(ANN, E1, site.work, Some("ann"), BOB, name, change)
        };
        set(AclChange::Replace(Rights::ALL)).await.unwrap();
        let hash = *blake3::hash(BODY).as_bytes();
        let append = || {
            let message = AppendMessage {
                body: AppendBody::Put {
                    hash,
                    octets: BODY.len() as u64,
                    identity: None,
                },
                flags: FlagSet::default(),
                internal_date_ms: 0,
            };
            volume.append(ANN, bob, site.work, vec![message])
        };
        assert!(append().await.is_ok());
        // They stand in the queue in this order.
        let (ended, appended) = tokio::join!(set(change), append());
        ended.unwrap();
        assert!(
            matches!(appended, Err(Refusal::NotPermitted | Refusal::NoMailbox)),
            "{appended:?}"
        );
    }
    volume.close();
}
