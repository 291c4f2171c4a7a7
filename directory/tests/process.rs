//! The directory as a process of its own: killed at any time, it has what it acknowledged.
#![allow(clippy::unwrap_used)]

mod site;

use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use daemon::identity::Role;
use directory::engine::{Engine, Lmdb};
use directory_api::wire::{
    AccountBatch, AccountChange, AccountNew, ChangeKind, Credential, ListQuery, code,
};
use directory_api::{AccountId, ChangeNumber, DirectoryClient};
use site::{Process, Site, comes_up, login, secret};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_a_kill_at_any_moment() {
    let site = Site::prepare();
    let operator = site.client(Role::Operator, "op");
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let mut process = Process::start(&site);
        comes_up(&operator).await;
        let writer = {
            let operator = operator.clone();
            tokio::spawn(async move {
                let mut written = Vec::new();
                for number in 0.. {
                    let name = format!("r{round}n{number:06}.test");
                    match operator.put_domain(&name.parse().unwrap()).await {
                        Ok(_) => written.push(name),
                        Err(_) => break,
                    }
                }
                written
            })
        };
        tokio::time::sleep(Duration::from_millis(150 + 70 * round)).await;
        process.stop();
        let written = writer.await.unwrap();
        assert!(!written.is_empty());
        acknowledged.extend(written);
    }
    let _process = Process::start(&site);
    let start = Instant::now();
    let mut names = Vec::new();
    let mut query = ListQuery::default();
    while start.elapsed() < Duration::from_secs(20) {
        match operator.domains(&query).await {
            Ok(page) => {
                names.extend(page.items.into_iter().map(|domain| domain.name.to_string()));
                query.after = page.next;
                if query.after.is_none() {
                    break;
                }
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    for name in &acknowledged {
        assert!(names.contains(name), "{name} was acknowledged and is gone");
    }
    let last = operator
        .changes(ChangeNumber(0), 0, Duration::ZERO)
        .await
        .unwrap()
        .last;
    assert_eq!(last.0, names.len() as u64, "each domain is one change");
}

/// "secret" as Dovecot keeps it, by every scheme.
const IMPORTED: [&str; 12] = [
    "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$QJyqtf9ovT/Bl0Zw96PTgA$4pwjTU8N8y7pAjiEGb7I1HkhisObT8fmuvwMqdkB4c4",
    "{BLF-CRYPT}$2y$06$Xss15/ED03fWfCHGv67Ncer9MHl3o5s/6wV5TAfPGPRqmGQa5ewni",
    "{SHA512-CRYPT}$6$rounds=20000$RC0hUR/Cb8zRzeXI$MXQZVLuApVJ7LsvTWFiiZUrWz0PAOnkcnwNFhiQNCs7HlJL95PxfbKfLLelAxsjPKDOs3iHlJXytNS6dJgCOC/",
    "{SHA256-CRYPT}$5$rounds=1000$0hODDq7PYe1FCmOm$wbORQKJBkyYHA3tKwjp.aA2Hm.BUHzrTcbUB6fpRs2B",
    "{CRYPT}$5$rounds=1000$0hODDq7PYe1FCmOm$wbORQKJBkyYHA3tKwjp.aA2Hm.BUHzrTcbUB6fpRs2B",
    "{PBKDF2}$1$7VXIRia/utOPtMcA$10000$4d3f6a39b581431f5649c2e06a11d81d42ae1024",
    "{SMD5}KQWpYMF9mCeXPU/iScyHtjFoSzU=",
    "{SSHA}iQrL+xd/s2lVWm1ZUufKoAbHRkjX2kzd",
    "{SSHA256}hi4gWHjm5z9yOSyWBH2RWOqf7vzbWsmXdjwRlNEMSxiNT+gU",
    "{SSHA512}sjVyoKuPw7Mb/UFcTuA8ScJHsIRoBpZ8nYHRVaaA5y7oFhjggU2qbl5WwkF4jMcSCeBuDGRHr2C4U3LyOCa1QqLRf0k=",
    "{PLAIN}secret",
    "{plain.b64}c2VjcmV0",
];

async fn import(operator: &DirectoryClient, prefix: &str) -> Vec<String> {
    let name = |number: usize| format!("{prefix}{number}");
    let account = |(number, stored): (usize, &&str)| {
        let credential = Credential::Hashed(secret(stored));
        AccountNew::new(name(number).parse().unwrap(), Some(credential))
    };
    let accounts = IMPORTED.iter().enumerate().map(account).collect();
    let made = operator.create_accounts(&AccountBatch { accounts }).await;
    assert_eq!(made.unwrap().created, IMPORTED.len());
    (0..IMPORTED.len()).map(name).collect()
}

/// The accounts whose password came to be kept in another form.
async fn upgraded(operator: &DirectoryClient) -> HashSet<String> {
    let none = ChangeNumber(0);
    let reply = operator.changes(none, 1_000, Duration::ZERO).await.unwrap();
    let hashes = reply.changes.into_iter();
    hashes
        .filter(|change| change.kind == ChangeKind::Hash)
        .map(|change| change.key)
        .collect()
}

async fn upgraded_are(operator: &DirectoryClient, count: usize) {
    let start = Instant::now();
    while upgraded(operator).await.len() < count {
        assert!(
            start.elapsed() < Duration::from_secs(120),
            "{:?}",
            upgraded(operator).await
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The stored forms, of a directory that does not run.
async fn stored(site: &Site) -> Vec<String> {
    let engine = Lmdb::open(&site.config().data.join("data")).unwrap();
    let page = engine.credentials(AccountId(0), 1_000).await.unwrap();
    engine.close();
    page.into_iter()
        .flat_map(|(_, credentials)| credentials)
        .map(|stored| stored.secret.reveal().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_of_every_scheme_are_argon2id_after_a_login_and_across_a_restart() {
    let site = Site::prepare();
    let operator = site.client(Role::Operator, "op");
    let proxy = site.client(Role::PopImapProxy, "p1");
    let mut process = Process::start_with(&site, "upgrade_passwords = false");
    comes_up(&operator).await;
    site.settle().await;
    let names = import(&operator, "user").await;
    let log_in = async |password: &str, right: bool| {
        for name in &names {
            let allowed = proxy.login(&login(name, password)).await.is_ok();
            assert_eq!(allowed, right, "{name} {password}");
        }
    };
    log_in("secret", true).await;
    process.stop();
    let kept = stored(&site).await;
    assert_eq!(kept[1..11], IMPORTED[..10], "off is off");
    assert!(kept.iter().all(|stored| !stored.contains("secret")));

    process = Process::start(&site);
    comes_up(&operator).await;
    log_in("secret", true).await;
    upgraded_are(&operator, names.len()).await;
    process.stop();
    let kept = stored(&site).await;
    let current = "{ARGON2ID}$argon2id$v=19$m=19456,t=2,p=1$";
    assert!(
        kept.iter().all(|stored| stored.starts_with(current)),
        "{kept:?}"
    );
    let distinct: HashSet<_> = kept.iter().collect();
    assert_eq!(distinct.len(), names.len() + 1, "each has its own salt");

    process = Process::start(&site);
    comes_up(&operator).await;
    let before = operator.changes(ChangeNumber(0), 0, Duration::ZERO).await;
    log_in("secret", true).await;
    log_in("Secret", false).await;
    let after = operator.changes(ChangeNumber(0), 0, Duration::ZERO).await;
    assert_eq!(after.unwrap().last, before.unwrap().last, "once is enough");
    process.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_changed_beside_its_upgrade_is_the_one_that_counts() {
    let site = Site::prepare();
    let operator = site.client(Role::Operator, "op");
    let proxy = site.client(Role::PopImapProxy, "p1");
    let mut process = Process::start(&site);
    comes_up(&operator).await;
    site.settle().await;
    let names = import(&operator, "user").await;
    for name in &names {
        let id = operator
            .account_of(&name.parse().unwrap())
            .await
            .unwrap()
            .id;
        let change = AccountChange {
            credential: Some(Credential::Password(secret("new"))),
            ..AccountChange::default()
        };
        let old = login(name, "secret");
        let (allowed, changed) = tokio::join!(proxy.login(&old), async {
            // The old password may be right or wrong by then; the upgrade comes behind it.
            operator.change_account(id, &change).await
        });
        changed.unwrap();
        if let Err(refused) = allowed {
            assert_eq!(refused.code(), code::BAD_CREDENTIALS);
        }
    }
    for round in ["before", "after"] {
        for name in &names {
            let new = proxy.login(&login(name, "new")).await;
            assert!(new.is_ok(), "{name} {round} the restart: {new:?}");
            let old = proxy.login(&login(name, "secret")).await;
            assert!(old.is_err(), "{name} {round} the restart");
        }
        process.stop();
        process = Process::start(&site);
        comes_up(&operator).await;
    }
}

#[test]
fn a_start_that_cannot_be_is_one_clear_line_and_a_code() {
    let dir = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_directory"))
            .args(arguments)
            .stderr(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut said, mut printed) = (String::new(), String::new());
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut printed)
            .unwrap();
        (child.wait().unwrap().code(), said, printed)
    };
    let (code, _, sample) = run(&["--print-sample-config"]);
    assert_eq!(code, Some(0));
    assert!(sample.contains("verified_passwords_kept_s"), "{sample}");

    let file = dir.path().join("directory.toml");
    fs::write(
        &file,
        "listenn = \"127.0.0.1:1\"\npassword_threads = 1000\n",
    )
    .unwrap();
    let (code, said, _) = run(&["--config", file.to_str().unwrap()]);
    assert_eq!(code, Some(2));
    assert!(
        said.contains("listenn") && said.contains("directory.toml"),
        "{said}"
    );

    fs::write(&file, "[identity]\nca = \"/nowhere/ca.pem\"\n").unwrap();
    let (code, said, _) = run(&["--config", file.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(said.contains("/nowhere/ca.pem"), "{said}");
}
