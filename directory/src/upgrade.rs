//! Keeps a password as Argon2id that was imported as another server's hash, and with the keys for SCRAM
//! that a setting asks for or without, behind the login that showed it. Of an app password only the keys
//! change.
//!
//! The user does not wait for it: the login is answered, and one task does what is asked here, one
//! after the other, with rests, so that it takes a fifth of one turn of the pool or less as a rule. Little
//! waits, for clear passwords wait with it; who finds no place is upgraded at his next login. The
//! stored form is replaced only where it is still the one that matched: a password that was changed
//! meanwhile wins. It is a numbered change of a kind that no cache cares for.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use daemon::clock::now_ms;
use directory_api::wire::{LoginReply, Secret};
use directory_api::{AccountId, LoginName};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::engine::{Engine, StoredCredential};
use crate::password::{Outdated, Passwords};

/// Where logins ask for upgrades.
pub(crate) struct Upgrades {
    queue: Sender<Upgrade>,
    waiting: Waiting,
}

/// What was asked for.
pub(crate) struct Asked {
    queue: Receiver<Upgrade>,
    waiting: Waiting,
}

/// The accounts in the queue or at work: mail programs log in several times at once.
type Waiting = Arc<Mutex<HashSet<AccountId>>>;

struct Upgrade {
    account: AccountId,
    user: LoginName,
    outdated: Outdated,
    stored: StoredCredential,
    password: Secret,
    asked: Instant,
}

impl Upgrades {
    /// Where to ask, and what does it.
    pub(crate) fn new() -> (Self, Asked) {
        let (sender, receiver) = channel(WAITING_MAX);
        let waiting = Waiting::default();
        let upgrades = Self {
            queue: sender,
            waiting: Arc::clone(&waiting),
        };
        let asked = Asked {
            queue: receiver,
            waiting,
        };
        (upgrades, asked)
    }

    /// Asks for an upgrade if what matched is outdated. Does not wait.
    pub(crate) fn ask(
        &self,
        passwords: &Passwords,
        login: &LoginReply,
        matched: StoredCredential,
        password: &Secret,
    ) {
        let account = login.account;
        let Some(outdated) = passwords.outdated(&login.login_name, &matched, password) else {
            return;
        };
        if !lock(&self.waiting).insert(account) {
            return;
        }
        let from = outdated.scheme;
        let upgrade = Upgrade {
            account,
            user: login.login_name.clone(),
            outdated,
            stored: matched,
            password: password.clone(),
            asked: Instant::now(),
        };
        if let Err(TrySendError::Full(_) | TrySendError::Closed(_)) = self.queue.try_send(upgrade) {
            lock(&self.waiting).remove(&account);
            count(from, "later");
        }
    }
}

impl Asked {
    /// Until nobody can ask any more.
    pub(crate) async fn perform<E: Engine>(mut self, engine: &E, passwords: &Passwords) {
        while let Some(upgrade) = self.queue.recv().await {
            let (account, from) = (upgrade.account, upgrade.outdated.scheme);
            let began = Instant::now();
            let outcome = match upgrade.asked.elapsed() <= WAIT_MAX {
                true => replace(engine, passwords, upgrade).await,
                false => "later",
            };
            count(from, outcome);
            lock(&self.waiting).remove(&account);
            tokio::time::sleep((began.elapsed() * RESTS).min(REST_MAX)).await;
        }
    }
}

async fn replace<E: Engine>(engine: &E, passwords: &Passwords, upgrade: Upgrade) -> &'static str {
    let Upgrade {
        account,
        user,
        outdated,
        stored,
        password,
        ..
    } = upgrade;
    let from = outdated.scheme;
    let Ok(new) = passwords.renew(&user, &stored, &outdated, &password).await else {
        return "later";
    };
    match engine
        .replace_credential(account, stored, new.clone(), now_ms())
        .await
    {
        Ok(Some(change)) => {
            // The next poll of a mail program shall not cost a full check.
            passwords.remember(&new, &password).await;
            let scram = new.scram.is_some();
            let to = new.scheme();
            info!(%account, from, to, scram, %change, "a password is kept otherwise from now on");
            "upgraded"
        }
        Ok(None) => "changed_meanwhile",
        Err(error) => {
            warn!(%account, from, %error, "the password stays as it is kept until the next login");
            "failed"
        }
    }
}

fn count(from: &'static str, outcome: &'static str) {
    metrics::counter!(UPGRADES, "from" => from, "outcome" => outcome).increment(1);
}

fn lock(waiting: &Waiting) -> MutexGuard<'_, HashSet<AccountId>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Logins with an outdated hash, by scheme and what became of it.
pub(crate) const UPGRADES: &str = "posthouse_directory_password_upgrades_total";

const WAITING_MAX: usize = 64;
/// A clear password that has waited so long while the pool was busy is let go.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// So many times as long as an upgrade took is the rest behind it: logins come first.
const RESTS: u32 = 4;
const REST_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use directory_api::wire::{AnnounceRequest, Credential};
    use directory_api::{AccountStatus, ChangeNumber, Service};

    use super::*;
    use crate::engine::{AccountDraft, AccountEdit, Lmdb};

    const IMPORTED: &str =
        "{SHA256-CRYPT}$5$rounds=1000$0hODDq7PYe1FCmOm$wbORQKJBkyYHA3tKwjp.aA2Hm.BUHzrTcbUB6fpRs2B";

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    fn login(account: AccountId) -> LoginReply {
        serde_json::from_value(serde_json::json!({
            "account": account, "login_name": "ann", "backend_address": "b1:1", "grant": "",
            "home": {"backend": "b1", "volume": "v1", "epoch": 1},
        }))
        .unwrap()
    }

    fn imported() -> StoredCredential {
        StoredCredential::own(secret(IMPORTED))
    }

    async fn engine_with_ann(folder: &std::path::Path) -> (Lmdb, AccountId) {
        let engine = Lmdb::open(folder).unwrap();
        let b1: AnnounceRequest = serde_json::from_str(
            r#"{"backend":"b1","address":"b1:1","volumes":[{"name":"v1","incarnation":"00000000000000000000000000000007","position":1}]}"#,
        )
        .unwrap();
        engine.announce(b1, 1).await.unwrap();
        let draft = AccountDraft {
            login_name: "ann".parse().unwrap(),
            credential: Some(imported()),
            addresses: Vec::new(),
            status: AccountStatus::Active,
            services: vec![Service::Pop3],
            quota_octets: None,
            quota_messages: None,
            backend: None,
            volume: None,
        };
        let ann = engine.create_account(draft, 1).await.unwrap().now.id;
        (engine, ann)
    }

    async fn stored(engine: &Lmdb) -> String {
        let page = engine.credentials(AccountId(0), 10).await.unwrap();
        page[0].1[0].secret.reveal().to_owned()
    }

    #[tokio::test]
    async fn a_password_that_is_changed_while_its_upgrade_waits_stays_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (engine, ann) = engine_with_ann(folder.path()).await;
        let passwords = Passwords::new(1, Duration::from_secs(60)).unwrap();
        let (old, new) = (secret("secret"), secret("new"));
        let new = Credential::Password(new);
        let edit = AccountEdit {
            credential: Some(passwords.store(&"ann".parse().unwrap(), new).await.unwrap()),
            ..AccountEdit::default()
        };
        let matched = passwords
            .verify(vec![imported()], &old, Service::Pop3)
            .await
            .unwrap();
        let (upgrades, asked) = Upgrades::new();
        upgrades.ask(&passwords, &login(ann), matched.unwrap(), &old);
        drop(upgrades);
        let turns = passwords.all_turns().await;
        let (changed, ()) = tokio::join!(
            async {
                // The upgrade waits for its turn by now, or has not even begun.
                tokio::task::yield_now().await;
                let changed = engine.change_account(ann, edit.clone(), 1).await.unwrap();
                drop(turns);
                changed.change
            },
            asked.perform(&engine, &passwords),
        );
        let set = edit.credential.unwrap();
        assert_eq!(stored(&engine).await, set.secret.reveal());
        let last = engine.changes(changed, 0).await.unwrap().last;
        assert_eq!(last, changed, "what was not replaced is no change");
    }

    #[tokio::test]
    async fn what_matched_is_replaced_once_however_often_it_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let (engine, ann) = engine_with_ann(folder.path()).await;
        let before = engine.changes(ChangeNumber(0), 0).await.unwrap().last;
        let passwords = Passwords::new(1, Duration::from_secs(60)).unwrap();
        let password = secret("secret");
        let (upgrades, asked) = Upgrades::new();
        for _ in 0..WAITING_MAX + 1 {
            let matched = passwords
                .verify(vec![imported()], &password, Service::Pop3)
                .await;
            let matched = matched.unwrap().unwrap();
            upgrades.ask(&passwords, &login(ann), matched, &password);
        }
        assert_eq!(asked.queue.len(), 1);
        drop(upgrades);
        asked.perform(&engine, &passwords).await;
        let kept = stored(&engine).await;
        assert!(kept.starts_with("{ARGON2ID}"), "{kept}");
        let last = engine.changes(before, 0).await.unwrap().last;
        assert_eq!(last.0, before.0 + 1);
        let credential = StoredCredential::own(secret(&kept));
        let matched = passwords
            .verify(vec![credential], &password, Service::Pop3)
            .await;
        let matched = matched.unwrap().unwrap();
        let ann = "ann".parse().unwrap();
        assert_eq!(passwords.outdated(&ann, &matched, &password), None);
    }

    #[tokio::test]
    async fn more_than_may_wait_are_left_to_their_next_login() {
        let passwords = Passwords::new(1, Duration::from_secs(60)).unwrap();
        let password = secret("secret");
        let (upgrades, asked) = Upgrades::new();
        for number in 0..WAITING_MAX as u64 + 10 {
            let matched = passwords
                .verify(vec![imported()], &password, Service::Pop3)
                .await;
            upgrades.ask(
                &passwords,
                &login(AccountId(number)),
                matched.unwrap().unwrap(),
                &password,
            );
        }
        assert_eq!(asked.queue.len(), WAITING_MAX);
        assert_eq!(lock(&asked.waiting).len(), WAITING_MAX);
    }

    /// What bcrypt cut was never checked: mistyped there, it would become the password.
    #[tokio::test]
    async fn a_password_that_bcrypt_cut_is_not_upgraded() {
        let passwords = Passwords::new(1, Duration::from_secs(60)).unwrap();
        let cut = "{BLF-CRYPT}$2y$04$344AGsy1tgniuhXWiOiyAOUg6Z1UOEVd43t9dIKuGo9YQVbk8LYG.";
        let short = "{BLF-CRYPT}$2y$06$Xss15/ED03fWfCHGv67Ncer9MHl3o5s/6wV5TAfPGPRqmGQa5ewni";
        for (text, password, outdated) in [
            (cut, "a".repeat(72), None),
            (cut, "a".repeat(1_024), None),
            (short, "secret".to_owned(), Some("BLF-CRYPT")),
        ] {
            let stored = StoredCredential::own(secret(text));
            let password = secret(&password);
            let matched = passwords
                .verify(vec![stored], &password, Service::Pop3)
                .await;
            let matched = matched.unwrap().unwrap();
            let found = passwords.outdated(&"ann".parse().unwrap(), &matched, &password);
            assert_eq!(found.map(|found| found.scheme), outdated, "{text}");
        }
    }
}
