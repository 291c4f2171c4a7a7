//! What every engine must do, whatever database it is.
#![allow(clippy::unwrap_used)]

mod aliases;
mod foreign;
mod import;
mod ldap;
mod logins;
mod moves;
mod on_postgres;
mod sizes;

use std::task::{Context, Waker};
use std::time::Duration;

use directory::engine::{
    AccountDraft, AccountEdit, Engine, EngineError, Lmdb, Postgres, PostgresSettings,
};
use directory_api::wire::{
    Account, AddressPut, AnnounceRequest, BackendPut, ChangeKind, CompareAndSet, DomainPut,
    Incarnation, ListQuery, Place, Placed, PlacedBy, Target, Verdict, VolumePosition,
};
use directory_api::{
    AccountId, AccountStatus, Address, BackendName, BackendState, ChangeNumber, Epoch, Quota,
    Service,
};

use aliases::{
    a_catch_all_gets_what_nobody_else_does,
    a_subaddress_leads_to_its_address_and_brings_the_detail,
    a_verdict_says_whether_somebody_has_the_address_itself,
    aliases_of_domains_make_no_chains_and_hide_nothing,
    an_account_that_is_closing_gets_no_mail_and_keeps_its_addresses,
    mail_and_logins_in_an_alias_are_those_of_its_domain, targets_that_are_not_ours_are_told_apart,
};
use foreign::{
    a_foreign_back_end_gets_no_new_accounts_unasked_and_stays_what_it_is,
    a_foreign_back_end_is_a_home_by_hand_and_takes_no_part_in_moves,
};
use import::{
    a_trial_of_an_import_says_what_would_be_and_changes_nothing,
    an_import_made_twice_is_made_once_and_differences_are_named,
    targets_of_an_address_are_added_and_removed_one_by_one,
};
use ldap::{
    a_login_name_in_an_alias_is_whose_it_is_in_its_domain,
    a_user_of_ldap_is_one_account_whatever_it_is_called,
    a_user_who_is_gone_leaves_the_mail_to_nobody_and_comes_back_to_it,
    more_losses_than_allowed_change_nothing, of_several_servers_one_takes_users,
    what_a_catch_all_brings_to_somebody_else_ldap_does_not_take,
    what_ldap_says_is_not_changed_here, what_somebody_else_has_is_not_taken_by_ldap,
    whose_entry_can_be_no_user_any_more_is_suspended_until_it_can,
};
use logins::{
    a_login_name_finds_everything_that_decides_a_login,
    a_stored_form_is_replaced_only_while_it_is_the_one, a_use_of_a_credential_is_kept_once_an_hour,
    app_passwords_stand_beside_the_accounts_own_password,
    credentials_come_page_by_page_in_the_order_of_accounts,
};

use moves::{
    a_move_commits_its_home_only_when_verified,
    a_move_is_given_up_even_when_its_target_was_removed, a_move_is_not_taken_over_by_another,
};

use sizes::{rows_of_any_size_are_listed_whole, what_many_come_to_is_found_for_each};

/// Runs each claim on a fresh database of each engine.
macro_rules! claims {
    ($($name:ident),* $(,)?) => {
        mod lmdb {
            $(#[tokio::test]
            async fn $name() {
                let dir = tempfile::tempdir().unwrap();
                super::$name(super::Lmdb::open(dir.path()).unwrap()).await;
            })*
        }

        mod postgres {
            $(#[tokio::test]
            async fn $name() {
                let Some(cluster) = testkit::postgres::Cluster::shared() else {
                    return;
                };
                super::$name(super::postgres_on(cluster.database()).await).await;
            })*
        }
    };
}

claims! {
    an_address_resolves_to_accounts_through_aliases_and_loops,
    a_lookup_is_bounded,
    what_many_come_to_is_found_for_each,
    rows_of_any_size_are_listed_whole,
    unknown_address_and_unknown_domain_differ,
    every_write_is_one_change_and_a_write_of_nothing_is_none,
    a_change_whose_caller_is_gone_wakes_who_waits,
    new_accounts_are_spread_by_weight_over_active_back_ends,
    an_account_number_is_never_given_again,
    a_batch_made_twice_is_made_once,
    a_batch_with_one_bad_row_leaves_nothing,
    a_home_changes_only_from_the_epoch_it_has,
    a_removed_account_leaves_its_addresses,
    what_is_in_use_is_not_removed,
    a_move_is_not_taken_over_by_another,
    a_move_commits_its_home_only_when_verified,
    a_move_is_given_up_even_when_its_target_was_removed,
    a_restored_volume_is_told_what_was_known_until_it_is_adopted,
    lists_come_in_pages_and_filtered,
    a_login_name_finds_everything_that_decides_a_login,
    limits_are_told_with_the_home_and_grow_newer_with_each_change,
    credentials_come_page_by_page_in_the_order_of_accounts,
    a_stored_form_is_replaced_only_while_it_is_the_one,
    app_passwords_stand_beside_the_accounts_own_password,
    a_use_of_a_credential_is_kept_once_an_hour,
    mail_and_logins_in_an_alias_are_those_of_its_domain,
    a_subaddress_leads_to_its_address_and_brings_the_detail,
    a_catch_all_gets_what_nobody_else_does,
    a_verdict_says_whether_somebody_has_the_address_itself,
    targets_that_are_not_ours_are_told_apart,
    aliases_of_domains_make_no_chains_and_hide_nothing,
    an_account_that_is_closing_gets_no_mail_and_keeps_its_addresses,
    an_import_made_twice_is_made_once_and_differences_are_named,
    a_trial_of_an_import_says_what_would_be_and_changes_nothing,
    targets_of_an_address_are_added_and_removed_one_by_one,
    a_foreign_back_end_is_a_home_by_hand_and_takes_no_part_in_moves,
    a_foreign_back_end_gets_no_new_accounts_unasked_and_stays_what_it_is,
    a_user_of_ldap_is_one_account_whatever_it_is_called,
    what_somebody_else_has_is_not_taken_by_ldap,
    what_ldap_says_is_not_changed_here,
    a_user_who_is_gone_leaves_the_mail_to_nobody_and_comes_back_to_it,
    a_login_name_in_an_alias_is_whose_it_is_in_its_domain,
    what_a_catch_all_brings_to_somebody_else_ldap_does_not_take,
    whose_entry_can_be_no_user_any_more_is_suspended_until_it_can,
    more_losses_than_allowed_change_nothing,
    of_several_servers_one_takes_users,
}

fn settings_of(url: String) -> PostgresSettings {
    PostgresSettings {
        url: Some(url),
        connections_max: 2,
        ..PostgresSettings::default()
    }
}

async fn postgres_on(url: String) -> Postgres {
    daemon::tier::install_crypto();
    Postgres::open(settings_of(url)).await.unwrap()
}

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

fn backend(name: &str) -> BackendName {
    name.parse().unwrap()
}

fn draft(name: &str) -> AccountDraft {
    AccountDraft {
        login_name: name.parse().unwrap(),
        credential: None,
        addresses: Vec::new(),
        status: AccountStatus::Active,
        services: vec![Service::Pop3],
        quota_octets: None,
        quota_messages: None,
        backend: None,
        volume: None,
    }
}

fn announcement(name: &str, incarnation: u128, position: u64) -> AnnounceRequest {
    AnnounceRequest {
        backend: backend(name),
        address: format!("{name}.test:4300"),
        volumes: vec![VolumePosition {
            name: "v1".parse().unwrap(),
            incarnation: Incarnation(incarnation),
            position,
        }],
    }
}

fn place(name: &str) -> Place {
    Place {
        backend: backend(name),
        volume: "v1".parse().unwrap(),
    }
}

async fn prepare<E: Engine>(engine: &E) {
    engine
        .put_domain("x.test".parse().unwrap(), DomainPut::default(), 1)
        .await
        .unwrap();
    for name in ["b1", "b2"] {
        engine.announce(announcement(name, 7, 1), 1).await.unwrap();
    }
}

async fn create<E: Engine>(engine: &E, name: &str) -> Account {
    let mut draft = draft(name);
    draft.addresses = vec![address(name)];
    engine.create_account(draft, 1).await.unwrap().now
}

async fn point<E: Engine>(engine: &E, from: &str, targets: Vec<Target>) {
    engine
        .put_address(address(from), AddressPut { targets }, 1)
        .await
        .unwrap();
}

async fn verdict<E: Engine>(engine: &E, text: &str) -> Verdict {
    engine
        .lookup(vec![address(text)])
        .await
        .unwrap()
        .results
        .remove(0)
        .verdict
}

async fn accounts_of<E: Engine>(engine: &E, text: &str) -> Vec<u64> {
    match verdict(engine, text).await {
        Verdict::Accounts(located) => located.iter().map(|one| one.account.0).collect(),
        other => panic!("{other:?}"),
    }
}

async fn last<E: Engine>(engine: &E) -> ChangeNumber {
    engine.changes(ChangeNumber(0), 0).await.unwrap().last
}

async fn an_address_resolves_to_accounts_through_aliases_and_loops<E: Engine>(engine: E) {
    prepare(&engine).await;
    let ann = create(&engine, "ann@x.test").await;
    let bob = create(&engine, "bob@x.test").await;
    let alias = |text| Target::Address(address(text));
    point(
        &engine,
        "a@x.test",
        vec![alias("b@x.test"), alias("ann@x.test")],
    )
    .await;
    point(
        &engine,
        "b@x.test",
        vec![alias("a@x.test"), Target::Account(bob.id)],
    )
    .await;
    point(&engine, "self@x.test", vec![alias("self@x.test")]).await;
    let mut found = accounts_of(&engine, "a@x.test").await;
    found.sort_unstable();
    assert_eq!(found, [ann.id.0, bob.id.0]);
    let result = engine
        .lookup(vec![address("A@X.test")])
        .await
        .unwrap()
        .results
        .remove(0);
    assert_eq!(result.via.len(), 2, "{result:?}");
    assert_eq!(
        verdict(&engine, "self@x.test").await,
        Verdict::UnknownAddress
    );
    let Verdict::Accounts(located) = verdict(&engine, "ann@x.test").await else {
        panic!()
    };
    assert_eq!(located[0].home, ann.home);
    assert_eq!(ann.home.epoch, Epoch::FIRST);
}

async fn a_lookup_is_bounded<E: Engine>(engine: E) {
    prepare(&engine).await;
    let ann = create(&engine, "ann@x.test").await;
    // A thousand aliases in a row: the last one inside the limit still delivers, one more does not.
    for step in 0..1_000 {
        let target = if step == 0 {
            Target::Account(ann.id)
        } else {
            Target::Address(address(&format!("s{}@x.test", step - 1)))
        };
        point(&engine, &format!("s{step}@x.test"), vec![target]).await;
    }
    assert_eq!(accounts_of(&engine, "s998@x.test").await, [ann.id.0]);
    assert_eq!(accounts_of(&engine, "s999@x.test").await, [ann.id.0]);
    point(
        &engine,
        "s1000@x.test",
        vec![Target::Address(address("s999@x.test"))],
    )
    .await;
    // Neither nobody nor a part of them: either would lose mail.
    let refused = engine.lookup(vec![address("s1000@x.test")]).await;
    assert!(matches!(refused, Err(EngineError::TooManyTargets(_))));
    for (name, shared) in [("left@x.test", "l"), ("right@x.test", "r")] {
        let targets = (0..600)
            .map(|n| Target::Address(address(&format!("{shared}{n}@x.test"))))
            .chain([Target::Account(ann.id)])
            .collect();
        point(&engine, name, targets).await;
    }
    assert_eq!(accounts_of(&engine, "left@x.test").await, [ann.id.0]);
    let both = ["left@x.test", "right@x.test"].map(|text| Target::Address(address(text)));
    point(&engine, "both@x.test", both.into()).await;
    let refused = engine.lookup(vec![address("both@x.test")]).await;
    assert!(matches!(refused, Err(EngineError::TooManyTargets(_))));
    let many = (0..1_001)
        .map(|n| Target::Address(address(&format!("n{n}@x.test"))))
        .collect();
    let refused = engine
        .put_address(address("m@x.test"), AddressPut { targets: many }, 1)
        .await;
    assert!(matches!(refused, Err(EngineError::Invalid(_))));
}

async fn unknown_address_and_unknown_domain_differ<E: Engine>(engine: E) {
    prepare(&engine).await;
    assert_eq!(
        verdict(&engine, "nobody@x.test").await,
        Verdict::UnknownAddress
    );
    assert_eq!(
        verdict(&engine, "nobody@y.test").await,
        Verdict::UnknownDomain
    );
    let put = AddressPut {
        targets: vec![Target::Address(address("a@x.test"))],
    };
    let refused = engine.put_address(address("a@y.test"), put, 1).await;
    assert!(matches!(refused, Err(EngineError::UnknownDomain(_))));
    let put = AddressPut {
        targets: vec![Target::Account(AccountId(99))],
    };
    let refused = engine.put_address(address("a@x.test"), put, 1).await;
    assert!(matches!(
        refused,
        Err(EngineError::UnknownAccount(AccountId(99)))
    ));
}

async fn every_write_is_one_change_and_a_write_of_nothing_is_none<E: Engine>(engine: E) {
    prepare(&engine).await;
    let before = last(&engine).await;
    let wakes = engine.wakes();
    engine
        .put_domain("y.test".parse().unwrap(), DomainPut::default(), 5)
        .await
        .unwrap();
    assert_eq!(*wakes.borrow(), ChangeNumber(before.0 + 1));
    engine
        .put_domain("y.test".parse().unwrap(), DomainPut::default(), 6)
        .await
        .unwrap();
    engine.announce(announcement("b1", 7, 9), 6).await.unwrap();
    let ann = create(&engine, "ann@x.test").await;
    let reply = engine.changes(before, 100).await.unwrap();
    let seen: Vec<_> = reply
        .changes
        .iter()
        .map(|change| (change.kind, change.key.as_str()))
        .collect();
    let id = ann.id.to_string();
    assert_eq!(
        seen,
        [
            (ChangeKind::Domain, "y.test"),
            (ChangeKind::Address, "ann@x.test"),
            (ChangeKind::Account, id.as_str()),
        ]
    );
    let numbers: Vec<u64> = reply.changes.iter().map(|change| change.number.0).collect();
    assert_eq!(numbers, [before.0 + 1, before.0 + 2, before.0 + 3]);
    assert_eq!(reply.changes[0].at_ms, 5);
    assert_eq!(engine.changes(before, 1).await.unwrap().changes.len(), 1);
    assert!(
        engine
            .changes(reply.last, 100)
            .await
            .unwrap()
            .changes
            .is_empty()
    );
    assert!(
        engine
            .changes(ChangeNumber(u64::MAX), 100)
            .await
            .unwrap()
            .changes
            .is_empty()
    );
}

/// hyper drops the handler's future when the client gives up.
async fn a_change_whose_caller_is_gone_wakes_who_waits<E: Engine>(engine: E) {
    prepare(&engine).await;
    let mut wakes = engine.wakes();
    let before = *wakes.borrow_and_update();
    let work = engine.put_domain("y.test".parse().unwrap(), DomainPut::default(), 1);
    let mut work = Box::pin(work);
    // It is asked once and begins; nobody asks again when the change has been committed.
    let mut context = Context::from_waker(Waker::noop());
    assert!(work.as_mut().poll(&mut context).is_pending());
    while last(&engine).await == before {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(work);
    let woken = tokio::time::timeout(Duration::from_secs(20), wakes.changed());
    woken.await.expect("somebody wakes who waits").unwrap();
}

async fn new_accounts_are_spread_by_weight_over_active_back_ends<E: Engine>(engine: E) {
    engine
        .put_domain("x.test".parse().unwrap(), DomainPut::default(), 1)
        .await
        .unwrap();
    assert!(matches!(
        engine.create_account(draft("a"), 1).await,
        Err(EngineError::NoBackend)
    ));
    for name in ["b1", "b2", "b3"] {
        engine.announce(announcement(name, 7, 1), 1).await.unwrap();
    }
    let weight = BackendPut {
        weight: Some(3),
        ..BackendPut::default()
    };
    engine.put_backend(backend("b2"), weight, 1).await.unwrap();
    let drain = BackendPut {
        state: Some(BackendState::Draining),
        ..BackendPut::default()
    };
    engine.put_backend(backend("b3"), drain, 1).await.unwrap();
    let drafts = (0..40).map(|n| draft(&format!("u{n}"))).collect();
    engine.create_accounts(drafts, 1).await.unwrap();
    let page = engine.backends(ListQuery::default()).await.unwrap();
    let counts: Vec<u64> = page.items.iter().map(|one| one.accounts).collect();
    assert_eq!(counts, [10, 30, 0]);
    let demanded = AccountDraft {
        backend: Some(backend("b3")),
        ..draft("here")
    };
    assert_eq!(
        engine
            .create_account(demanded, 1)
            .await
            .unwrap()
            .now
            .home
            .backend,
        backend("b3")
    );
    let nowhere = AccountDraft {
        backend: Some(backend("b9")),
        ..draft("there")
    };
    let refused = engine.create_account(nowhere, 1).await;
    assert!(matches!(refused, Err(EngineError::UnknownPlace(_))));
}

async fn an_account_number_is_never_given_again<E: Engine>(engine: E) {
    prepare(&engine).await;
    let first = create(&engine, "ann@x.test").await;
    engine.delete_account(first.id, 1).await.unwrap();
    let second = create(&engine, "ann@x.test").await;
    assert_eq!((first.id.0, second.id.0), (1, 2));
    assert!(matches!(
        engine.account(first.id).await,
        Err(EngineError::NotFound)
    ));
}

async fn a_batch_made_twice_is_made_once<E: Engine>(engine: E) {
    prepare(&engine).await;
    let batch = || {
        (0..100)
            .map(|n| draft(&format!("u{n}")))
            .collect::<Vec<_>>()
    };
    let reply = engine.create_accounts(batch(), 1).await.unwrap();
    assert_eq!((reply.created, reply.existing), (100, 0));
    let again = engine.create_accounts(batch(), 1).await.unwrap();
    assert_eq!(
        (again.created, again.existing, again.change),
        (0, 100, reply.change)
    );
    let refused = engine.create_account(draft("U7"), 1).await;
    assert!(matches!(refused, Err(EngineError::Exists(_))));
}

async fn a_batch_with_one_bad_row_leaves_nothing<E: Engine>(engine: E) {
    prepare(&engine).await;
    let before = last(&engine).await;
    let bad = AccountDraft {
        addresses: vec![address("a@y.test")],
        ..draft("bad")
    };
    let refused = engine.create_accounts(vec![draft("good"), bad], 1).await;
    assert!(matches!(refused, Err(EngineError::UnknownDomain(_))));
    assert_eq!(last(&engine).await, before);
    assert!(
        engine
            .accounts(ListQuery::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
    let page = engine.backends(ListQuery::default()).await.unwrap();
    assert!(page.items.iter().all(|one| one.accounts == 0));
}

async fn a_home_changes_only_from_the_epoch_it_has<E: Engine>(engine: E) {
    prepare(&engine).await;
    let ann = create(&engine, "ann@x.test").await;
    assert_eq!(ann.home.backend, backend("b1"));
    let set = |epoch, to| CompareAndSet {
        from_epoch: Epoch(epoch),
        to: place(to),
        move_id: None,
    };
    let moved = engine
        .compare_and_set(ann.id, set(1, "b2"), 1)
        .await
        .unwrap();
    assert_eq!(
        (moved.home.backend.as_str(), moved.home.epoch),
        ("b2", Epoch(2))
    );
    for epoch in [0, 1, 3] {
        match engine.compare_and_set(ann.id, set(epoch, "b1"), 1).await {
            Err(EngineError::StaleEpoch(home)) => assert_eq!(home, moved.home),
            other => panic!("{other:?}"),
        }
    }
    let placed = async || engine.account(ann.id).await.unwrap().placed.unwrap();
    let (at_ms, by) = (1, PlacedBy::Hand);
    assert_eq!(placed().await, Placed { at_ms, by });
    let by = PlacedBy::Balance;
    assert_eq!(ann.placed, Some(Placed { at_ms, by }));
    let refused = engine.compare_and_set(ann.id, set(2, "b9"), 1).await;
    assert!(matches!(refused, Err(EngineError::UnknownPlace(_))));
    let refused = engine.compare_and_set(AccountId(99), set(1, "b2"), 1).await;
    assert!(matches!(refused, Err(EngineError::NotFound)));
    let Verdict::Accounts(located) = verdict(&engine, "ann@x.test").await else {
        panic!()
    };
    assert_eq!(located[0].home, moved.home);
    let counts: Vec<u64> = engine
        .backends(ListQuery::default())
        .await
        .unwrap()
        .items
        .iter()
        .map(|one| one.accounts)
        .collect();
    assert_eq!(counts, [0, 1]);
    let kinds: Vec<_> = engine
        .changes(ChangeNumber(moved.change.0 - 1), 9)
        .await
        .unwrap()
        .changes;
    assert_eq!(
        (kinds[0].kind, kinds[0].key.as_str()),
        (ChangeKind::Home, "1")
    );
}

async fn a_removed_account_leaves_its_addresses<E: Engine>(engine: E) {
    prepare(&engine).await;
    let ann = create(&engine, "ann@x.test").await;
    let bob = create(&engine, "bob@x.test").await;
    let both = vec![Target::Account(ann.id), Target::Account(bob.id)];
    point(&engine, "both@x.test", both).await;
    engine.delete_account(ann.id, 1).await.unwrap();
    assert_eq!(
        verdict(&engine, "ann@x.test").await,
        Verdict::UnknownAddress
    );
    assert_eq!(accounts_of(&engine, "both@x.test").await, [bob.id.0]);
    assert!(matches!(
        engine.address(address("ann@x.test")).await,
        Err(EngineError::NotFound)
    ));
}

async fn what_is_in_use_is_not_removed<E: Engine>(engine: E) {
    prepare(&engine).await;
    let ann = create(&engine, "ann@x.test").await;
    let domain = || "x.test".parse().unwrap();
    assert!(matches!(
        engine.delete_domain(domain(), 1).await,
        Err(EngineError::InUse(_))
    ));
    let home = ann.home.backend;
    assert!(matches!(
        engine.delete_backend(home.clone(), 1).await,
        Err(EngineError::InUse(_))
    ));
    engine.delete_account(ann.id, 1).await.unwrap();
    engine.delete_domain(domain(), 1).await.unwrap();
    engine.delete_backend(home, 1).await.unwrap();
    assert!(matches!(
        engine.delete_domain(domain(), 1).await,
        Err(EngineError::NotFound)
    ));
    assert_eq!(verdict(&engine, "ann@x.test").await, Verdict::UnknownDomain);
}

async fn a_restored_volume_is_told_what_was_known_until_it_is_adopted<E: Engine>(engine: E) {
    let known = async |incarnation, position| {
        let reply = engine
            .announce(announcement("b1", incarnation, position), 1)
            .await
            .unwrap();
        reply
            .known
            .first()
            .map(|one| (one.incarnation.0, one.position))
    };
    assert_eq!(known(7, 100).await, None);
    assert_eq!(known(7, 150).await, Some((7, 100)));
    assert_eq!(known(7, 120).await, Some((7, 150)));
    assert_eq!(known(8, 500).await, Some((7, 150)));
    assert_eq!(known(8, 500).await, Some((7, 150)));
    let adopt = BackendPut {
        adopt_volume: Some("v1".parse().unwrap()),
        ..BackendPut::default()
    };
    engine.put_backend(backend("b1"), adopt, 1).await.unwrap();
    assert_eq!(known(8, 500).await, None);
    assert_eq!(known(8, 501).await, Some((8, 500)));
}

async fn lists_come_in_pages_and_filtered<E: Engine>(engine: E) {
    prepare(&engine).await;
    for name in ["ann@x.test", "bob@x.test", "cid@x.test"] {
        create(&engine, name).await;
    }
    let query = |after: Option<String>, filter: Option<&str>| ListQuery {
        after,
        filter: filter.map(str::to_owned),
        limit: Some(2),
        ..ListQuery::default()
    };
    let first = engine.addresses(query(None, None)).await.unwrap();
    assert_eq!(
        (first.items.len(), first.next.as_deref()),
        (2, Some("bob@x.test"))
    );
    let second = engine.addresses(query(first.next, None)).await.unwrap();
    assert_eq!(
        (second.items[0].address.as_str(), second.next),
        ("cid@x.test", None)
    );
    let domains = engine.domains(query(Some(String::new()), None)).await;
    assert_eq!(domains.unwrap().items[0].name.as_str(), "x.test");
    let first = engine.accounts(query(None, None)).await.unwrap();
    assert_eq!(first.next.as_deref(), Some("2"));
    assert_eq!(
        engine
            .accounts(query(first.next, None))
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    let found = engine.accounts(query(None, Some("BO"))).await.unwrap();
    assert_eq!(found.items[0].login_name.as_str(), "bob@x.test");
    let homes = engine.homes(query(None, Some("b1"))).await.unwrap();
    assert_eq!(homes.items.len(), 2);
    let refused = engine.accounts(query(Some("x".into()), None)).await;
    assert!(matches!(refused, Err(EngineError::Invalid(_))));

    let of = |status: &str| ListQuery {
        status: Some(status.to_owned()),
        ..ListQuery::default()
    };
    let edit = AccountEdit {
        status: Some(AccountStatus::Suspended),
        ..AccountEdit::default()
    };
    engine
        .change_account(found.items[0].id, edit, 1)
        .await
        .unwrap();
    let accounts = async |status| engine.accounts(of(status)).await;
    let suspended = accounts("suspended").await.unwrap().items;
    assert_eq!(suspended.len(), 1);
    assert_eq!(suspended[0].id, found.items[0].id);
    assert_eq!(accounts("active").await.unwrap().items.len(), 2);
    assert_eq!(accounts("closing").await.unwrap().items.len(), 0);
    assert!(accounts("asleep").await.is_err());
    let down = BackendPut {
        state: Some(BackendState::Down),
        ..BackendPut::default()
    };
    engine.put_backend(backend("b2"), down, 1).await.unwrap();
    for (state, names) in [
        ("down", &["b2"][..]),
        ("active", &["b1"]),
        ("draining", &[]),
    ] {
        let listed = engine.backends(of(state)).await.unwrap().items;
        let listed: Vec<&str> = listed.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(listed, names);
    }
    assert!(engine.backends(of("asleep")).await.is_err());
}

async fn limits_are_told_with_the_home_and_grow_newer_with_each_change<E: Engine>(engine: E) {
    prepare(&engine).await;
    let ann = create(&engine, "ann@x.test").await;
    let to_ann = AddressPut {
        targets: vec![Target::Account(ann.id)],
    };
    engine
        .put_address(address("ann@x.test"), to_ann, 1)
        .await
        .unwrap();
    let told = async || {
        let addresses = vec![address("ann@x.test")];
        let reply = engine.lookup(addresses).await.unwrap();
        let Verdict::Accounts(located) = &reply.results[0].verdict else {
            panic!("{reply:?}")
        };
        let record = engine.login_record("ann@x.test".parse().unwrap()).await;
        assert_eq!(record.unwrap().unwrap().quota, located[0].quota);
        located[0].quota
    };
    assert_eq!(told().await, Quota::NONE);
    let set = async |octets, messages| {
        let edit = AccountEdit {
            quota_octets: octets,
            quota_messages: messages,
            ..AccountEdit::default()
        };
        engine.change_account(ann.id, edit, 1).await.unwrap()
    };
    let changed = set(Some(1000), None).await;
    let first = told().await;
    assert_eq!((first.octets, first.messages), (Some(1000), None));
    let changes = engine.changes(ChangeNumber(changed.change.0 - 2), 10).await;
    let kinds: Vec<_> = changes
        .unwrap()
        .changes
        .iter()
        .map(|one| one.kind)
        .collect();
    assert_eq!(kinds, [ChangeKind::Quota, ChangeKind::Account]);
    set(None, None).await;
    set(Some(1000), None).await;
    assert_eq!(told().await, first, "what changes nothing is no news");
    set(None, Some(7)).await;
    let second = told().await;
    assert_eq!((second.octets, second.messages), (Some(1000), Some(7)));
    assert!(second.as_of > first.as_of);
    set(Some(0), Some(0)).await;
    let none = told().await;
    assert!(!none.is_limited() && none.as_of > second.as_of);
}
