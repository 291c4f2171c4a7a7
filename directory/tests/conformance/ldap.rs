//! Users who are entries in LDAP.

use directory::engine::{
    AccountDraft, AccountEdit, Brought, Engine, EngineError, EntryName, ImportDraft, LdapBatch,
    LdapUser, RowDraft, StoredCredential, Taken, Unusables,
};
use directory_api::wire::{
    Account, AddressEdit, AddressPut, DomainPut, ImportAccount, Secret, Target, Verdict,
};
use directory_api::{AccountId, AccountStatus};

use super::{accounts_of, address, create, draft, last, point, prepare, verdict};

fn user(id: &str, name: &str, addresses: &[&str]) -> LdapUser {
    LdapUser {
        id: id.to_owned(),
        dn: format!("uid={id},dc=x"),
        version: "1".to_owned(),
        login_name: name.parse().unwrap(),
        addresses: addresses.iter().map(|text| address(text)).collect(),
        status: Some(AccountStatus::Active),
        quota_octets: Some(1_000),
    }
}

async fn take_all<E: Engine>(engine: &E, users: &[LdapUser], adopt: bool) -> Vec<Taken> {
    let batch = LdapBatch {
        users: users.to_vec(),
        adopt,
        over_catch_all: false,
        losses_max: 9,
    };
    engine.take_users(batch, 7).await.unwrap().now
}

async fn take<E: Engine>(engine: &E, user: &LdapUser) -> Taken {
    take_all(engine, std::slice::from_ref(user), false)
        .await
        .remove(0)
}

async fn account<E: Engine>(engine: &E, id: AccountId) -> Account {
    engine.account(id).await.unwrap()
}

fn is_owned<T>(answer: &Result<T, EngineError>) -> bool {
    matches!(answer, Err(EngineError::OwnedByLdap(_)))
}

pub(super) async fn a_user_of_ldap_is_one_account_whatever_it_is_called<E: Engine>(engine: E) {
    prepare(&engine).await;
    let mut ann = user("7", "ann@x.test", &["ann@x.test", "sales@x.test"]);
    let taken = take(&engine, &ann).await;
    let id = taken.account.unwrap();
    assert_eq!((taken.brought, taken.left_out.len()), (Brought::Created, 0));
    let shown = account(&engine, id).await;
    assert_eq!(shown.login_name.as_str(), "ann@x.test");
    assert_eq!(
        (shown.status, shown.quota_octets),
        (AccountStatus::Active, Some(1_000))
    );
    assert_eq!(shown.ldap.unwrap().dn, "uid=7,dc=x");
    for mail in ["ann@x.test", "sales@x.test"] {
        assert_eq!(accounts_of(&engine, mail).await, [id.0]);
    }
    let record = async |name: &str| engine.login_record(name.parse().unwrap()).await.unwrap();
    let found = record("ann@x.test").await.unwrap();
    assert_eq!(found.credentials[0].entry().unwrap().dn, "uid=7,dc=x");

    // Once more is no change.
    let before = last(&engine).await;
    assert_eq!(take(&engine, &ann).await.brought, Brought::Equal);
    assert_eq!(last(&engine).await, before);

    // What was verified before counts no more when the entry has changed, and uses stay.
    let old = record("ann@x.test").await.unwrap().credentials.remove(0);
    ann.version = "2".to_owned();
    assert_eq!(take(&engine, &ann).await.brought, Brought::Updated);
    let new = record("ann@x.test").await.unwrap().credentials.remove(0);
    assert_ne!(old.secret, new.secret);

    // Renamed, moved in the tree, with other addresses, suspended, and without a limit.
    ann.login_name = "ann.lee@x.test".parse().unwrap();
    ann.dn = "cn=Ann Lee,ou=y,dc=x".to_owned();
    ann.addresses = vec![address("ann.lee@x.test"), address("sales@x.test")];
    ann.status = Some(AccountStatus::Suspended);
    ann.quota_octets = Some(0);
    let taken = take(&engine, &ann).await;
    assert_eq!((taken.account, taken.is_loss), (Some(id), true));
    let shown = account(&engine, id).await;
    assert_eq!(shown.login_name.as_str(), "ann.lee@x.test");
    assert_eq!(
        (shown.status, shown.quota_octets),
        (AccountStatus::Suspended, None)
    );
    assert_eq!(
        verdict(&engine, "ann@x.test").await,
        Verdict::UnknownAddress
    );
    assert_eq!(accounts_of(&engine, "ann.lee@x.test").await, [id.0]);
    assert!(record("ann@x.test").await.is_none());
    let found = record("ann.lee@x.test").await.unwrap();
    let entry = EntryName {
        dn: "cn=Ann Lee,ou=y,dc=x",
        id: "7",
    };
    assert_eq!(found.credentials[0].entry(), Some(entry));
}

pub(super) async fn what_somebody_else_has_is_not_taken_by_ldap<E: Engine>(engine: E) {
    prepare(&engine).await;
    let bob = create(&engine, "bob@x.test").await;
    point(&engine, "bob@x.test", vec![Target::Account(bob.id)]).await;
    let alias = DomainPut {
        alias_of: Some("x.test".parse().unwrap()),
        own: false,
    };
    engine
        .put_domain("alias.test".parse().unwrap(), alias, 1)
        .await
        .unwrap();

    // Neither an address nor a domain that is not there; what else it says is taken.
    let ann = user(
        "7",
        "ann@x.test",
        &[
            "*@x.test",
            "ann@alias.test",
            "ann@other.test",
            "bob+x@x.test",
            "bob@x.test",
        ],
    );
    let taken = take(&engine, &ann).await;
    let id = taken.account.unwrap();
    assert!(matches!(
        taken.left_out.as_slice(),
        [
            EngineError::Invalid(_),
            EngineError::UnknownDomain(_),
            EngineError::Exists(_),
            EngineError::Exists(_)
        ]
    ));
    assert_eq!(accounts_of(&engine, "bob+x@x.test").await, [bob.id.0]);
    assert_eq!(accounts_of(&engine, "bob@x.test").await, [bob.id.0]);
    // An alias of a domain has no addresses of its own.
    assert_eq!(accounts_of(&engine, "ann@x.test").await, [id.0]);

    // Nor a login name, be it of an account of ours or of another entry, in whatever case.
    for (other, name) in [("8", "Bob@x.test"), ("9", "ANN@x.test")] {
        let taken = take(&engine, &user(other, name, &["new@x.test"])).await;
        assert!(
            matches!(taken.left_out[0], EngineError::Exists(_)),
            "{name}"
        );
        assert_eq!(taken.account, None);
        assert_eq!(
            verdict(&engine, "new@x.test").await,
            Verdict::UnknownAddress
        );
    }
    let renamed = user("7", "bob@x.test", &["ann@x.test"]);
    assert!(matches!(
        take(&engine, &renamed).await.left_out.as_slice(),
        [EngineError::Exists(_)]
    ));
    assert_eq!(account(&engine, id).await.login_name.as_str(), "ann@x.test");

    // Only where the settings say so an account of ours becomes the user's, as it is.
    let taken = take_all(&engine, &[user("8", "bob@x.test", &["bob@x.test"])], true).await;
    assert_eq!(taken[0].account, Some(bob.id));
    let shown = account(&engine, bob.id).await;
    assert_eq!(
        (shown.home, shown.ldap.unwrap().dn.as_str()),
        (bob.home, "uid=8,dc=x")
    );
    let record = engine.login_record("bob@x.test".parse().unwrap()).await;
    assert!(
        record
            .unwrap()
            .unwrap()
            .credentials
            .iter()
            .all(|one| one.entry().is_some())
    );
    // Another's account never.
    let thief = take_all(&engine, &[user("9", "bob@x.test", &[])], true).await;
    assert_eq!(thief[0].account, None);
}

pub(super) async fn what_ldap_says_is_not_changed_here<E: Engine>(engine: E) {
    prepare(&engine).await;
    engine.ldap_turn("a".to_owned(), false, 1, 1).await.unwrap();
    let bob = create(&engine, "bob@x.test").await;
    let id = take(&engine, &user("7", "ann@x.test", &["ann@x.test"]))
        .await
        .account
        .unwrap();
    let unsaid = LdapUser {
        status: None,
        quota_octets: None,
        ..user("8", "carl@x.test", &[])
    };
    let carl = take(&engine, &unsaid).await.account.unwrap();
    let before = last(&engine).await;

    let secret = Secret::new("{SSHA256}x".to_owned());
    let edits = [
        AccountEdit {
            login_name: Some("eve@x.test".parse().unwrap()),
            ..AccountEdit::default()
        },
        AccountEdit {
            credential: Some(StoredCredential::own(secret.clone())),
            ..AccountEdit::default()
        },
        AccountEdit {
            status: Some(AccountStatus::Suspended),
            ..AccountEdit::default()
        },
        AccountEdit {
            quota_octets: Some(5),
            ..AccountEdit::default()
        },
    ];
    for edit in &edits {
        assert!(
            is_owned(&engine.change_account(id, edit.clone(), 1).await),
            "{edit:?}"
        );
    }
    assert!(is_owned(&engine.delete_account(id, 1).await));
    let to_bob = Target::Account(bob.id);
    let put = AddressPut {
        targets: vec![to_bob.clone()],
    };
    assert!(is_owned(
        &engine.put_address(address("ann@x.test"), put, 1).await
    ));
    assert!(is_owned(
        &engine.delete_address(address("ann@x.test"), 1).await
    ));
    let edit = AddressEdit {
        add: vec![to_bob.clone()],
        remove: vec![Target::Account(id)],
    };
    assert!(is_owned(
        &engine.edit_address(address("ann@x.test"), edit, 1).await
    ));
    let import = ImportDraft {
        rows: vec![RowDraft::Account(
            ImportAccount {
                login_name: "ann@x.test".parse().unwrap(),
                credential: None,
                status: Some(AccountStatus::Suspended),
                services: None,
                quota_octets: None,
                quota_messages: None,
                backend: None,
                volume: None,
            },
            None,
        )],
        update: true,
        ..ImportDraft::default()
    };
    let imported = engine.import(import, 1).await.unwrap().now.remove(0);
    assert!(is_owned(&imported));
    assert_eq!(last(&engine).await, before, "nothing was changed");

    // What LDAP says nothing of is ours: app passwords, services, others at an address, and what is not mapped.
    let ours = AccountEdit {
        app_passwords: vec![StoredCredential {
            name: Some("phone".parse().unwrap()),
            ..StoredCredential::own(secret)
        }],
        services: Some(Vec::new()),
        ..AccountEdit::default()
    };
    engine.change_account(id, ours, 1).await.unwrap();
    for edit in &edits[2..] {
        engine.change_account(carl, edit.clone(), 1).await.unwrap();
    }
    let edit = AddressEdit {
        add: vec![to_bob],
        remove: Vec::new(),
    };
    engine
        .edit_address(address("ann@x.test"), edit, 1)
        .await
        .unwrap();
    // And stays, whatever comes from LDAP.
    let moved_on = LdapUser {
        version: "2".to_owned(),
        ..user("7", "ann@x.test", &["ann@x.test"])
    };
    take(&engine, &moved_on).await;
    take(
        &engine,
        &LdapUser {
            version: "2".to_owned(),
            ..unsaid
        },
    )
    .await;
    assert_eq!(accounts_of(&engine, "ann@x.test").await, [bob.id.0, id.0]);
    let record = engine
        .login_record("ann@x.test".parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(record.credentials.len(), 2);
    assert!(record.account.services.is_empty());
    let shown = account(&engine, carl).await;
    assert_eq!(
        (shown.status, shown.quota_octets),
        (AccountStatus::Suspended, Some(5))
    );

    // Two hours after the last look everything is ours; who gets a password stays it.
    let later = 1 + 2 * 3_600_000;
    let too_early = engine.change_account(id, edits[1].clone(), later - 1).await;
    assert!(is_owned(&too_early));
    engine
        .change_account(id, edits[1].clone(), later)
        .await
        .unwrap();
    assert_eq!(account(&engine, id).await.ldap, None);
    assert_eq!(take(&engine, &moved_on).await.account, None);
    engine.delete_account(carl, later).await.unwrap();
}

pub(super) async fn a_user_who_is_gone_leaves_the_mail_to_nobody_and_comes_back_to_it<E: Engine>(
    engine: E,
) {
    prepare(&engine).await;
    engine.ldap_turn("a".to_owned(), false, 1, 1).await.unwrap();
    let ann = user("7", "ann@x.test", &["ann@x.test"]);
    let id = take(&engine, &ann).await.account.unwrap();
    let links = engine.links(AccountId(0), 9).await.unwrap();
    assert_eq!((links[0].0, links[0].1.gone_ms), (id, None));
    assert_eq!(engine.users_gone(vec![id], 5).await.unwrap(), 1);
    let before = last(&engine).await;
    assert_eq!(engine.users_gone(vec![id], 6).await.unwrap(), 0);
    assert_eq!(last(&engine).await, before);
    assert_eq!(
        engine.links(AccountId(0), 9).await.unwrap()[0].1.gone_ms,
        Some(5)
    );
    let shown = account(&engine, id).await;
    assert_eq!(
        (shown.status, shown.ldap.unwrap().gone_ms),
        (AccountStatus::Closing, Some(5))
    );
    assert_eq!(
        verdict(&engine, "ann@x.test").await,
        Verdict::UnknownAddress
    );

    // The entry is back, and has everything.
    let back = take(&engine, &ann).await;
    assert_eq!((back.account, back.is_loss), (Some(id), false));
    assert_eq!(account(&engine, id).await.status, AccountStatus::Active);
    assert_eq!(accounts_of(&engine, "ann@x.test").await, [id.0]);

    // Somebody else of the same name gets a new account, and not the other's mail (P8).
    engine.users_gone(vec![id], 8).await.unwrap();
    let other = take(&engine, &user("8", "ann@x.test", &["ann@x.test"])).await;
    let new = other.account.unwrap();
    assert!(new > id && other.left_out.is_empty());
    assert_eq!(accounts_of(&engine, "ann@x.test").await, [new.0]);
    let record = engine
        .login_record("ann@x.test".parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(record.account.id, new);
    let old = account(&engine, id).await;
    assert_eq!(old.login_name.as_str(), format!("ann@x.test#{id}"));
    // Should the first come back now, the name is another's; the mail is not.
    let late = take(&engine, &ann).await;
    assert_eq!(late.account, Some(id));
    assert_eq!(late.left_out.len(), 2, "{:?}", late.left_out);

    // By a name that somebody has who is gone one may also be called from now on.
    engine.users_gone(vec![new], 9).await.unwrap();
    let called = take(&engine, &user("7", "ann@x.test", &["ann@x.test"])).await;
    assert!(called.left_out.is_empty(), "{:?}", called.left_out);
    assert_eq!(account(&engine, id).await.login_name.as_str(), "ann@x.test");

    // Then the account is an operator's to remove, though LDAP is looked at, and the number is never given again.
    engine.delete_account(new, 9).await.unwrap();
    assert_eq!(engine.links(AccountId(0), 9).await.unwrap().len(), 1);
    let third = take(&engine, &user("8", "third@x.test", &[])).await;
    assert!(third.account.unwrap() > new);
    let ours: AccountDraft = draft("ours@x.test");
    assert!(engine.create_account(ours, 1).await.unwrap().now.id > new);
}

pub(super) async fn more_losses_than_allowed_change_nothing<E: Engine>(engine: E) {
    prepare(&engine).await;
    let named = |number: usize| {
        let name = format!("u{number}@x.test");
        user(&number.to_string(), &name, &[&name])
    };
    let mut users: Vec<_> = (0..6).map(named).collect();
    take_all(&engine, &users, false).await;
    users[0].status = Some(AccountStatus::Suspended);
    for user in &mut users[1..5] {
        user.addresses.clear();
    }
    // No loss, so it is not held.
    users[5].addresses.push(address("more@x.test"));
    let batch = LdapBatch {
        users,
        adopt: false,
        over_catch_all: false,
        losses_max: 2,
    };
    let taken = engine.take_users(batch, 7).await.unwrap().now;
    let is_held = |one: &Taken| matches!(one.left_out.as_slice(), [EngineError::LossHeld]);
    let held: Vec<_> = taken.iter().map(is_held).collect();
    assert_eq!(held, [false, false, true, true, true, false]);
    let lost: Vec<_> = taken.iter().map(|one| one.is_loss).collect();
    assert_eq!(lost, [true, true, false, false, false, false]);
    assert_eq!(verdict(&engine, "u1@x.test").await, Verdict::UnknownAddress);
    for kept in ["u2@x.test", "u3@x.test", "u4@x.test", "more@x.test"] {
        assert_eq!(accounts_of(&engine, kept).await.len(), 1, "{kept}");
    }
}

pub(super) async fn what_a_catch_all_brings_to_somebody_else_ldap_does_not_take<E: Engine>(
    engine: E,
) {
    prepare(&engine).await;
    let bob = create(&engine, "bob@x.test").await;
    let mut ann = user("7", "ann@x.test", &["ann@x.test"]);
    let id = take(&engine, &ann).await.account.unwrap();
    point(&engine, "*@x.test", vec![Target::Account(bob.id)]).await;

    // What she had before stays hers; nothing comes to it but by an operator.
    ann.addresses = ["ann@x.test", "sales@x.test", "eve@x.test"]
        .map(address)
        .to_vec();
    let account = Target::Account(id);
    point(&engine, "eve@x.test", vec![account.clone()]).await;
    let taken = take(&engine, &ann).await;
    assert!(
        matches!(taken.left_out.as_slice(), [EngineError::Exists(what)] if what.contains("sales@x.test") && what.contains("catch-all")),
        "{:?}",
        taken.left_out
    );
    for (mail, reached) in [("ann", id), ("eve", id), ("sales", bob.id)] {
        let mail = format!("{mail}@x.test");
        assert_eq!(accounts_of(&engine, &mail).await, [reached.0], "{mail}");
    }

    // Of her own catch-all, or where the settings say so, she may have it.
    let batch = LdapBatch {
        users: vec![ann.clone()],
        over_catch_all: true,
        losses_max: 9,
        ..LdapBatch::default()
    };
    let taken = engine.take_users(batch, 7).await.unwrap().now.remove(0);
    assert!(taken.left_out.is_empty(), "{:?}", taken.left_out);
    assert_eq!(accounts_of(&engine, "sales@x.test").await, [id.0]);
    point(&engine, "*@x.test", vec![account]).await;
    ann.addresses.push(address("more@x.test"));
    assert!(take(&engine, &ann).await.left_out.is_empty());
}

pub(super) async fn a_login_name_in_an_alias_is_whose_it_is_in_its_domain<E: Engine>(engine: E) {
    prepare(&engine).await;
    let alias = DomainPut {
        alias_of: Some("x.test".parse().unwrap()),
        own: false,
    };
    let name = "alias.test".parse().unwrap();
    engine.put_domain(name, alias, 1).await.unwrap();
    let bob = create(&engine, "bob@x.test").await;
    let whose = async |name: &str| {
        let record = engine.login_record(name.parse().unwrap()).await.unwrap();
        record.map(|record| record.account.id)
    };
    assert_eq!(whose("bob@alias.test").await, Some(bob.id));

    // Neither somebody new, nor by another name.
    let taken = take(&engine, &user("8", "Bob@alias.test", &[])).await;
    assert_eq!(taken.account, None);
    assert!(matches!(
        taken.left_out.as_slice(),
        [EngineError::Exists(_)]
    ));
    let eve = take(&engine, &user("9", "eve@alias.test", &[])).await;
    let eve = eve.account.unwrap();
    let taken = take(&engine, &user("9", "bob@alias.test", &[])).await;
    assert_eq!(taken.account, Some(eve));
    assert!(matches!(
        taken.left_out.as_slice(),
        [EngineError::Exists(_)]
    ));
    assert_eq!(whose("bob@alias.test").await, Some(bob.id));
    assert_eq!(whose("eve@alias.test").await, Some(eve));

    // She may be called so in either; and of somebody who is gone the name is free.
    let taken = take(&engine, &user("9", "eve@x.test", &[])).await;
    assert!(taken.left_out.is_empty());
    let taken = take(&engine, &user("9", "eve@alias.test", &[])).await;
    assert!(taken.left_out.is_empty());
    let carl = take(&engine, &user("10", "carl@x.test", &[])).await;
    engine
        .users_gone(vec![carl.account.unwrap()], 5)
        .await
        .unwrap();
    let other = take(&engine, &user("11", "carl@alias.test", &[])).await;
    assert_eq!(whose("carl@alias.test").await, other.account);
}

pub(super) async fn whose_entry_can_be_no_user_any_more_is_suspended_until_it_can<E: Engine>(
    engine: E,
) {
    prepare(&engine).await;
    let unsaid = |id: &str| LdapUser {
        status: None,
        ..user(id, &format!("u{id}@x.test"), &[])
    };
    let mut ids = Vec::new();
    for number in 1..=4 {
        let taken = take(&engine, &unsaid(&number.to_string())).await;
        ids.push(taken.account.unwrap());
    }
    let status = async |at: usize| account(&engine, ids[at]).await.status;
    let unusable = async |ids: &[&str], losses_max| {
        let ids = ids.iter().map(ToString::to_string).collect();
        engine.users_unusable(ids, losses_max, 7).await.unwrap()
    };
    let before = last(&engine).await;
    let held = unusable(&["1", "2", "nobody"], 1).await;
    assert_eq!((held.held, held.suspended.len()), (2, 0));
    assert_eq!(last(&engine).await, before);
    let now = unusable(&["1", "2", "nobody"], 2).await;
    assert_eq!(now.suspended, ids[..2]);
    // Once more is no change, and no loss.
    let before = last(&engine).await;
    assert_eq!(unusable(&["1", "2"], 0).await, Unusables::default());
    assert_eq!(last(&engine).await, before);
    for (at, now) in [
        (0, AccountStatus::Suspended),
        (1, AccountStatus::Suspended),
        (2, AccountStatus::Active),
    ] {
        assert_eq!(status(at).await, now, "{at}");
    }

    // What an operator says of one is neither undone, nor done, by an entry that is mended.
    let suspend = |status| AccountEdit {
        status: Some(status),
        ..AccountEdit::default()
    };
    for at in [1, 2] {
        let edit = suspend(AccountStatus::Suspended);
        engine.change_account(ids[at], edit, 7).await.unwrap();
    }
    assert_eq!(unusable(&["3"], 9).await, Unusables::default());
    for id in ["1", "2", "3"] {
        take(&engine, &unsaid(id)).await;
    }
    for (at, now) in [
        (0, AccountStatus::Active),
        (1, AccountStatus::Suspended),
        (2, AccountStatus::Suspended),
    ] {
        assert_eq!(status(at).await, now, "{at}");
    }
    // Nor is somebody who is gone.
    engine.users_gone(vec![ids[3]], 7).await.unwrap();
    assert_eq!(unusable(&["4"], 9).await, Unusables::default());
    assert_eq!(status(3).await, AccountStatus::Closing);
}

pub(super) async fn of_several_servers_one_takes_users<E: Engine>(engine: E) {
    let turn = async |server: &str, force, now, until| {
        engine
            .ldap_turn(server.to_owned(), force, now, until)
            .await
            .unwrap()
    };
    let before = last(&engine).await;
    assert!(turn("a", false, 10, 20).await);
    assert!(!turn("b", false, 15, 25).await);
    assert!(turn("a", false, 15, 30).await);
    assert!(!turn("b", false, 29, 40).await);
    assert!(turn("b", true, 29, 40).await, "an operator asked it");
    assert!(!turn("a", false, 30, 50).await);
    assert!(turn("b", false, 31, 31).await, "it gives its turn up");
    assert!(turn("a", false, 31, 50).await);
    assert_eq!(last(&engine).await, before);
}
