//! Domains that are another name of one, and accounts whose mail is refused.

use directory::engine::{AccountEdit, Engine, EngineError};
use directory_api::wire::{ChangeKind, Domain, DomainPut, ListQuery, Target, Verdict};
use directory_api::{AccountId, AccountStatus, DomainName};

use super::{accounts_of, address, create, last, point, prepare, verdict};

fn domain(name: &str) -> DomainName {
    name.parse().unwrap()
}

async fn alias<E: Engine>(engine: &E, name: &str, of: &str) -> Result<Domain, EngineError> {
    let put = DomainPut {
        alias_of: Some(domain(of)),
        own: false,
    };
    let changed = engine.put_domain(domain(name), put, 1).await?;
    Ok(changed.now)
}

async fn own<E: Engine>(engine: &E, name: &str) -> Domain {
    let put = DomainPut {
        own: true,
        ..DomainPut::default()
    };
    engine.put_domain(domain(name), put, 1).await.unwrap().now
}

pub(super) async fn mail_and_logins_in_an_alias_are_those_of_its_domain<E: Engine>(engine: E) {
    prepare(&engine).await;
    let ann = create(&engine, "ann@x.test").await;
    let alias_of = Some(domain("x.test"));
    let before = last(&engine).await;
    let made = alias(&engine, "y.test", "x.test").await.unwrap();
    let name = domain("y.test");
    assert_eq!(made, Domain { name, alias_of });
    alias(&engine, "y.test", "x.test").await.unwrap();
    let changes = engine.changes(before, 9).await.unwrap().changes;
    let seen: Vec<_> = changes.iter().map(|one| (one.kind, &*one.key)).collect();
    assert_eq!(seen, [(ChangeKind::Domain, "y.test")]);

    assert_eq!(accounts_of(&engine, "Ann@Y.test").await, [ann.id.0]);
    assert_eq!(
        verdict(&engine, "nobody@y.test").await,
        Verdict::UnknownAddress
    );
    // Whoever keeps the answer is told of changes of what it came through.
    let asked = vec![address("ann@y.test"), address("nobody@y.test")];
    let results = engine.lookup(asked.clone()).await.unwrap().results;
    assert_eq!(results[0].via, [address("*@y.test"), address("ann@x.test")]);
    let all = ["*@y.test", "nobody@x.test", "*@x.test"].map(address);
    assert_eq!(results[1].via, all);
    let told: Vec<_> = results.into_iter().map(|one| one.address).collect();
    assert_eq!(told, asked);
    // Behind an alias of an address, too.
    let targets = vec![Target::Address(address("ann@y.test"))];
    point(&engine, "info@x.test", targets).await;
    assert_eq!(accounts_of(&engine, "info@y.test").await, [ann.id.0]);

    let record = async |name: &str| engine.login_record(name.parse().unwrap()).await.unwrap();
    let found = record("ann@Y.test").await.unwrap().account;
    assert_eq!(found, ann);
    assert!(record("bob@y.test").await.is_none() && record("ann@z.test").await.is_none());

    // Who says nothing of it leaves it an alias.
    let silent = engine.put_domain(domain("y.test"), DomainPut::default(), 1);
    assert_eq!(silent.await.unwrap().now.alias_of, Some(domain("x.test")));
    let both = DomainPut {
        alias_of: Some(domain("x.test")),
        own: true,
    };
    let both = engine.put_domain(domain("y.test"), both, 1).await;
    assert!(matches!(both, Err(EngineError::Invalid(_))));
    own(&engine, "y.test").await;
    assert_eq!(
        verdict(&engine, "ann@y.test").await,
        Verdict::UnknownAddress
    );
    assert!(record("ann@y.test").await.is_none());
    let listed = engine.domains(ListQuery::default()).await.unwrap().items;
    assert!(listed.iter().all(|one| one.alias_of.is_none()) && listed.len() == 2);
}

pub(super) async fn aliases_of_domains_make_no_chains_and_hide_nothing<E: Engine>(engine: E) {
    prepare(&engine).await;
    create(&engine, "ann@x.test").await;
    own(&engine, "z.test").await;
    alias(&engine, "y.test", "x.test").await.unwrap();
    let before = last(&engine).await;
    for (name, of) in [
        ("x.test", "x.test"),
        ("z.test", "y.test"),
        ("w.test", "w.test"),
    ] {
        let refused = alias(&engine, name, of).await;
        let expected = matches!(
            refused,
            Err(EngineError::Invalid(_) | EngineError::UnknownDomain(_))
        );
        assert!(expected, "{name} of {of}: {refused:?}");
    }
    // It has addresses; the other one has an alias; the third is not ours.
    let refused = alias(&engine, "x.test", "z.test").await;
    assert!(matches!(refused, Err(EngineError::InUse(_))));
    alias(&engine, "v.test", "z.test").await.unwrap();
    let refused = alias(&engine, "z.test", "x.test").await;
    assert!(matches!(refused, Err(EngineError::InUse(_))));
    let refused = alias(&engine, "z.test", "nowhere.test").await;
    assert!(matches!(refused, Err(EngineError::UnknownDomain(_))));
    assert_eq!(last(&engine).await.0, before.0 + 1, "v.test alone");

    let targets = vec![Target::Address(address("ann@x.test"))];
    let put = directory_api::wire::AddressPut { targets };
    let refused = engine.put_address(address("a@y.test"), put, 1).await;
    let Err(EngineError::AliasDomain { domain: name, of }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!((name, of), (domain("y.test"), domain("x.test")));

    let refused = engine.delete_domain(domain("z.test"), 1).await;
    assert!(matches!(refused, Err(EngineError::InUse(_))));
    let removed = engine.delete_domain(domain("v.test"), 1).await.unwrap();
    assert_eq!(removed.now.alias_of, Some(domain("z.test")));
    engine.delete_domain(domain("z.test"), 1).await.unwrap();
    assert_eq!(verdict(&engine, "a@v.test").await, Verdict::UnknownDomain);
}

pub(super) async fn an_account_that_is_closing_gets_no_mail_and_keeps_its_addresses<E: Engine>(
    engine: E,
) {
    prepare(&engine).await;
    let ann = create(&engine, "ann@x.test").await;
    let bob = create(&engine, "bob@x.test").await;
    let both = vec![Target::Account(ann.id), Target::Account(bob.id)];
    point(&engine, "both@x.test", both).await;
    point(
        &engine,
        "a@x.test",
        vec![Target::Address(address("ann@x.test"))],
    )
    .await;
    let set = async |account: AccountId, status| {
        let before = last(&engine).await;
        let edit = AccountEdit {
            status: Some(status),
            ..AccountEdit::default()
        };
        engine.change_account(account, edit, 1).await.unwrap();
        let changes = engine.changes(before, 9).await.unwrap().changes;
        changes
            .into_iter()
            .map(|one| (one.kind, one.key))
            .collect::<Vec<_>>()
    };
    // Every address whose verdict is another now is told; `a` was found through one of them.
    let news = [
        (ChangeKind::Address, "ann@x.test".to_owned()),
        (ChangeKind::Address, "both@x.test".to_owned()),
        (ChangeKind::Account, ann.id.to_string()),
    ];
    assert_eq!(set(ann.id, AccountStatus::Closing).await, news);
    for gone in ["ann@x.test", "a@x.test"] {
        assert_eq!(verdict(&engine, gone).await, Verdict::UnknownAddress);
    }
    assert_eq!(accounts_of(&engine, "both@x.test").await, [bob.id.0]);
    let kept = engine.account(ann.id).await.unwrap();
    assert_eq!((kept.status, kept.home), (AccountStatus::Closing, ann.home));

    assert_eq!(set(ann.id, AccountStatus::Suspended).await, news);
    assert_eq!(set(ann.id, AccountStatus::Active).await, news[2..]);
    assert_eq!(accounts_of(&engine, "a@x.test").await, [ann.id.0]);
    assert_eq!(accounts_of(&engine, "both@x.test").await.len(), 2);
}

/// What one address leads to: account, detail, and whether the catch-all had it.
async fn ways<E: Engine>(engine: &E, text: &str) -> Vec<(u64, Option<String>, bool)> {
    match verdict(engine, text).await {
        Verdict::Accounts(located) => located
            .into_iter()
            .map(|one| (one.account.0, one.detail, one.is_caught))
            .collect(),
        Verdict::UnknownAddress => Vec::new(),
        other => panic!("{text}: {other:?}"),
    }
}

pub(super) async fn a_subaddress_leads_to_its_address_and_brings_the_detail<E: Engine>(engine: E) {
    prepare(&engine).await;
    alias(&engine, "y.test", "x.test").await.unwrap();
    let ann = create(&engine, "ann@x.test").await.id.0;
    let own = create(&engine, "ann+own@x.test").await.id.0;
    let to = |text: &str| vec![Target::Address(address(text))];
    point(&engine, "sales@x.test", to("ann@x.test")).await;
    point(&engine, "shop@x.test", to("ann+orders@x.test")).await;
    let loops = vec![
        Target::Address(address("loop+a@x.test")),
        Target::Address(address("ann@x.test")),
    ];
    point(&engine, "loop@x.test", loops).await;
    let way = |account, detail: Option<&str>| vec![(account, detail.map(str::to_owned), false)];
    for (asked, wanted) in [
        ("ann@x.test", way(ann, None)),
        ("Ann+Lists@x.test", way(ann, Some("lists"))),
        ("ann+a+b@x.test", way(ann, Some("a+b"))),
        // What is there comes first.
        ("ann+own@x.test", way(own, None)),
        ("ann+own+more@x.test", way(ann, Some("own+more"))),
        // Through aliases, of domains too; an alias with a detail of its own has the last word.
        ("sales+may@x.test", way(ann, Some("may"))),
        ("ann+lists@y.test", way(ann, Some("lists"))),
        ("shop@x.test", way(ann, Some("orders"))),
        ("shop+may@x.test", way(ann, Some("orders"))),
        // Not through one of several users.
        ("loop+b@x.test", way(ann, None)),
        ("+ann@x.test", vec![]),
        ("ann+@x.test", vec![]),
        ("bob+lists@x.test", vec![]),
    ] {
        assert_eq!(ways(&engine, asked).await, wanted, "{asked}");
    }
    // Who keeps an answer is told when another name would be found first.
    let result = engine.lookup(vec![address("sales+may@y.test")]).await;
    let via = result.unwrap().results.remove(0).via;
    for name in ["sales+may@x.test", "sales@x.test", "ann@x.test"] {
        assert!(via.contains(&address(name)), "{name} is not in {via:?}");
    }
}

pub(super) async fn a_catch_all_gets_what_nobody_else_does<E: Engine>(engine: E) {
    prepare(&engine).await;
    alias(&engine, "y.test", "x.test").await.unwrap();
    let ann = create(&engine, "ann@x.test").await.id.0;
    let bob = create(&engine, "bob@x.test").await;
    assert_eq!(ways(&engine, "nobody@x.test").await, []);
    point(&engine, "*@x.test", vec![Target::Account(bob.id)]).await;
    let caught = vec![(bob.id.0, None, true)];
    for nobody in ["nobody@x.test", "nobody+a@x.test", "nobody@y.test"] {
        assert_eq!(ways(&engine, nobody).await, caught, "{nobody}");
    }
    let somebody = vec![(ann, Some("a".to_owned()), false)];
    assert_eq!(ways(&engine, "ann+a@y.test").await, somebody);
    // Also who writes to its own name.
    for own in ["*@x.test", "*+a@x.test", "*@y.test"] {
        assert_eq!(ways(&engine, own).await, caught, "{own}");
    }
    // Who had an address behind an alias and left is not the catch-all's reader; one that leads to itself ends.
    let to = |text: &str| vec![Target::Address(address(text))];
    point(&engine, "gone@x.test", to("left@x.test")).await;
    assert_eq!(ways(&engine, "gone@x.test").await, []);
    point(&engine, "*@x.test", to("left@x.test")).await;
    assert_eq!(ways(&engine, "nobody@x.test").await, []);
    assert_eq!(verdict(&engine, "a@z.test").await, Verdict::UnknownDomain);
}

pub(super) async fn a_verdict_says_whether_somebody_has_the_address_itself<E: Engine>(engine: E) {
    prepare(&engine).await;
    alias(&engine, "y.test", "x.test").await.unwrap();
    let ann = create(&engine, "ann@x.test").await.id;
    create(&engine, "ann+own@x.test").await;
    let to = |text: &str| vec![Target::Address(address(text))];
    point(&engine, "shop@x.test", to("ann+orders@x.test")).await;
    point(&engine, "far+off@x.test", to("ann@elsewhere.test")).await;
    point(&engine, "*@x.test", vec![Target::Account(ann)]).await;
    for (asked, is_derived) in [
        ("ann@x.test", false),
        ("ann@y.test", false),
        ("ann+own@x.test", false),
        ("ann+own@y.test", false),
        ("shop@x.test", false),
        ("far+off@x.test", false),
        ("far+off+more@x.test", true),
        ("ann+a@x.test", true),
        ("ann+a@y.test", true),
        ("shop+a@x.test", true),
        ("nobody@x.test", true),
        ("nobody@y.test", true),
        ("*@x.test", true),
        ("*+a@x.test", true),
        ("ann@elsewhere.test", false),
    ] {
        let result = engine.lookup(vec![address(asked)]).await;
        let result = result.unwrap().results.remove(0);
        assert_eq!(result.is_derived, is_derived, "{asked}: {result:?}");
    }
}

pub(super) async fn targets_that_are_not_ours_are_told_apart<E: Engine>(engine: E) {
    prepare(&engine).await;
    let ann = create(&engine, "ann@x.test").await;
    let external = |text: &str| Target::Address(address(text));
    point(
        &engine,
        "list@x.test",
        vec![
            Target::Account(ann.id),
            external("carl@elsewhere.test"),
            external("also@x.test"),
        ],
    )
    .await;
    point(
        &engine,
        "also@x.test",
        vec![external("carl@elsewhere.test"), external("dora+d@far.test")],
    )
    .await;
    let Verdict::External { accounts, external } = verdict(&engine, "list@x.test").await else {
        panic!("some of it is not ours")
    };
    assert_eq!(accounts.len(), 1);
    let far = ["carl@elsewhere.test", "dora+d@far.test"].map(address);
    assert_eq!(external, far);
    let Verdict::External { accounts, .. } = verdict(&engine, "also+x@x.test").await else {
        panic!("none of it is ours")
    };
    assert!(accounts.is_empty());
    // When the domain becomes ours, nobody is there.
    engine
        .put_domain(domain("elsewhere.test"), DomainPut::default(), 1)
        .await
        .unwrap();
    engine
        .put_domain(domain("far.test"), DomainPut::default(), 1)
        .await
        .unwrap();
    assert_eq!(accounts_of(&engine, "list@x.test").await, [ann.id.0]);
    assert_eq!(
        verdict(&engine, "also@x.test").await,
        Verdict::UnknownAddress
    );
}
