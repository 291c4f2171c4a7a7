//! Many things brought at once, and the targets of an address one by one.

use std::slice::from_ref;

use directory::engine::{
    AccountEdit, Brought, Engine, EngineError, ImportDraft, RowDraft, StoredCredential,
};
use directory_api::wire::{
    AddressEdit, ImportAccount, ImportAddress, ImportDomain, ImportTarget, ListQuery, Secret,
    Target, Verdict,
};
use directory_api::{AccountId, AccountStatus, Service};

use super::{accounts_of, address, create, last, point, prepare, verdict};

fn domain(name: &str, alias_of: Option<&str>) -> RowDraft {
    RowDraft::Domain(ImportDomain {
        name: name.parse().unwrap(),
        alias_of: alias_of.map(|of| of.parse().unwrap()),
    })
}

fn account(name: &str, hashed: &str, status: Option<AccountStatus>) -> RowDraft {
    let row = ImportAccount {
        login_name: name.parse().unwrap(),
        credential: None,
        status,
        services: Some(vec![Service::Imap, Service::Pop3]),
        quota_octets: Some(5),
        quota_messages: None,
        backend: None,
        volume: None,
    };
    RowDraft::Account(
        row,
        Some(StoredCredential::own(Secret::new(hashed.to_owned()))),
    )
}

fn to(text: &str, targets: &[&str]) -> RowDraft {
    let target = |text: &&str| match text.strip_prefix('=') {
        Some(alias) => ImportTarget::Address(address(alias)),
        None => ImportTarget::Login(text.parse().unwrap()),
    };
    RowDraft::Address(ImportAddress {
        address: address(text),
        targets: targets.iter().map(target).collect(),
    })
}

fn rows() -> Vec<RowDraft> {
    vec![
        domain("y.test", None),
        domain("z.test", Some("y.test")),
        account("Ann@y.test", "{A}1", None),
        to("ann@y.test", &["ann@y.test"]),
        to("info@y.test", &["=ann@y.test", "ann@Y.test", "=bob@z.test"]),
    ]
}

/// What became of each row: how it was brought, or the variant of the refusal.
async fn bring<E: Engine>(engine: &E, import: ImportDraft) -> Vec<String> {
    let outcomes = engine.import(import, 9).await.unwrap().now;
    let told = |outcome: Result<Brought, EngineError>| match outcome {
        Ok(brought) => format!("{brought:?}"),
        Err(error) => error.to_string(),
    };
    outcomes.into_iter().map(told).collect()
}

fn import(rows: Vec<RowDraft>) -> ImportDraft {
    ImportDraft {
        rows,
        ..ImportDraft::default()
    }
}

pub(super) async fn an_import_made_twice_is_made_once_and_differences_are_named<E: Engine>(
    engine: E,
) {
    prepare(&engine).await;
    assert_eq!(bring(&engine, import(rows())).await, ["Created"; 5]);
    assert_eq!(accounts_of(&engine, "info@z.test").await, [1]);
    let before = last(&engine).await;
    assert_eq!(bring(&engine, import(rows())).await, ["Equal"; 5]);
    assert_eq!(last(&engine).await, before);

    // What is refused leaves the others, and says which it is.
    let other = || {
        vec![
            domain("z.test", Some("x.test")),
            account("ann@y.test", "{A}2", Some(AccountStatus::Suspended)),
            to("info@y.test", &["ann@y.test"]),
            to("a@z.test", &["ann@y.test"]),
            to("a@w.test", &["ann@y.test"]),
            to("a@y.test", &["nobody@y.test"]),
            domain("w.test", None),
            // A plain list of names does not make domains of their own of aliases.
            domain("z.test", None),
        ]
    };
    let told = bring(&engine, import(other())).await;
    for (row, words) in [
        (0, "z.test, which is an alias of y.test, exists already"),
        (1, "ann@y.test, with other status, exists already"),
        (2, "info@y.test, with 3 other targets, exists already"),
        (3, "alias of y.test"),
        (4, "domain w.test is not one of ours"),
        (5, "no account logs in as nobody@y.test"),
    ] {
        assert!(told[row].contains(words), "{row}: {told:?}");
    }
    assert_eq!(told[6..], ["Created", "Equal"]);
    assert_eq!(last(&engine).await.0, before.0 + 1);

    let own = async || {
        let found = engine.credentials_of(AccountId(1)).await.unwrap();
        found[0].0.secret.reveal().to_owned()
    };
    let update = ImportDraft {
        update: true,
        ..import(other())
    };
    let told = bring(&engine, update.clone()).await;
    assert_eq!(told[..3], ["Updated"; 3]);
    assert!(told[3].contains("alias of x.test"), "{told:?}");
    assert_eq!(told[6..], ["Equal", "Equal"]);
    let z_test = engine.domain("z.test".parse().unwrap()).await.unwrap();
    assert_eq!(z_test.alias_of, Some("x.test".parse().unwrap()));
    assert_eq!(accounts_of(&engine, "info@y.test").await, [1]);
    let now = engine.account(AccountId(1)).await.unwrap();
    assert_eq!(
        (now.status, now.quota_octets),
        (AccountStatus::Suspended, Some(5))
    );
    assert_eq!(own().await, "{A}1", "a password may be newer than the file");
    let passwords = ImportDraft {
        update_passwords: true,
        ..update
    };
    assert_eq!(bring(&engine, passwords.clone()).await[1], "Updated");
    assert_eq!(own().await, "{A}2");
    assert_eq!(bring(&engine, passwords).await[1], "Equal");

    // A quota of 0 is none, and what a row does not say is not compared.
    let edit = AccountEdit {
        quota_octets: Some(0),
        ..AccountEdit::default()
    };
    engine.change_account(AccountId(1), edit, 1).await.unwrap();
    let silent = |quota_octets| {
        let RowDraft::Account(row, _) = account("ann@y.test", "", None) else {
            unreachable!()
        };
        let row = ImportAccount {
            services: None,
            quota_octets,
            ..row
        };
        import(vec![RowDraft::Account(row, None)])
    };
    assert_eq!(bring(&engine, silent(None)).await, ["Equal"]);
    assert_eq!(bring(&engine, silent(Some(0))).await, ["Equal"]);
    assert!(bring(&engine, silent(Some(5))).await[0].contains("quota_octets"));
}

pub(super) async fn a_trial_of_an_import_says_what_would_be_and_changes_nothing<E: Engine>(
    engine: E,
) {
    prepare(&engine).await;
    let before = last(&engine).await;
    let wakes = engine.wakes();
    let mut all = rows();
    all.push(to("a@y.test", &["nobody@y.test"]));
    let trial = ImportDraft {
        on_trial: true,
        ..import(all)
    };
    let told = bring(&engine, trial).await;
    assert_eq!(told[..5], ["Created"; 5]);
    assert!(told[5].contains("nobody@y.test"), "{told:?}");
    assert_eq!((last(&engine).await, *wakes.borrow()), (before, before));
    let domains = engine.domains(ListQuery::default()).await.unwrap().items;
    assert_eq!(domains.len(), 1);
    let backends = engine.backends(ListQuery::default()).await.unwrap().items;
    assert!(backends.iter().all(|one| one.accounts == 0));
    assert_eq!(create(&engine, "ann@x.test").await.id, AccountId(1));
}

pub(super) async fn targets_of_an_address_are_added_and_removed_one_by_one<E: Engine>(engine: E) {
    prepare(&engine).await;
    let ann = create(&engine, "ann@x.test").await.id;
    let bob = create(&engine, "bob@x.test").await.id;
    let edit = async |add: Vec<Target>, remove: Vec<Target>| {
        let edit = AddressEdit { add, remove };
        let changed = engine.edit_address(address("all@x.test"), edit, 1).await?;
        Ok::<_, EngineError>(changed.now.targets)
    };
    let (to_ann, to_bob) = (Target::Account(ann), Target::Account(bob));
    let alias = Target::Address(address("ann@x.test"));
    let nothing = edit(vec![], vec![to_ann.clone()]).await;
    assert!(matches!(nothing, Err(EngineError::NotFound)));
    let first = edit(vec![to_ann.clone()], vec![]).await.unwrap();
    assert_eq!(first, from_ref(&to_ann));
    let both = vec![to_bob.clone(), alias.clone(), to_ann.clone()];
    let all = [to_ann.clone(), to_bob.clone(), alias.clone()];
    assert_eq!(edit(both, vec![]).await.unwrap(), all);
    let before = last(&engine).await;
    edit(vec![to_ann.clone()], vec![]).await.unwrap();
    let nobody = edit(vec![Target::Account(AccountId(99))], vec![]).await;
    assert!(matches!(nobody, Err(EngineError::UnknownAccount(_))));
    let stranger = edit(vec![], vec![Target::Address(address("x@x.test"))]).await;
    assert!(matches!(stranger, Err(EngineError::Invalid(_))));
    assert_eq!(last(&engine).await, before);
    let rest = edit(vec![], vec![alias, to_ann]).await.unwrap();
    assert_eq!(rest, from_ref(&to_bob));
    assert_eq!(accounts_of(&engine, "all@x.test").await, [bob.0]);
    // With the last one it goes.
    assert!(edit(vec![], vec![to_bob]).await.unwrap().is_empty());
    assert_eq!(
        verdict(&engine, "all@x.test").await,
        Verdict::UnknownAddress
    );
    let many = |count: u64| {
        let one = |n| Target::Address(address(&format!("n{n}@x.test")));
        (0..count).map(one).collect::<Vec<_>>()
    };
    point(&engine, "all@x.test", many(1_000)).await;
    let over = edit(vec![Target::Account(ann)], vec![]).await;
    assert!(matches!(over, Err(EngineError::Invalid(_))));
}
