//! What decides a login, the stored forms of passwords included.

use directory::engine::{
    AccountDraft, AccountEdit, CredentialUse, Engine, EngineError, StoredCredential,
    USE_KEPT_EVERY_MS,
};
use directory_api::wire::{ChangeKind, Secret, limit};
use directory_api::{AccountId, AccountStatus, BackendState, ChangeNumber, Service};

use super::{create, draft, last, prepare};

pub(super) async fn a_login_name_finds_everything_that_decides_a_login<E: Engine>(engine: E) {
    prepare(&engine).await;
    let ann = create(&engine, "ann@x.test").await;
    let record = async |name: &str| engine.login_record(name.parse().unwrap()).await.unwrap();
    assert!(record("nobody").await.is_none());
    let found = record("ANN@x.test").await.unwrap();
    assert_eq!(found.account, ann);
    assert_eq!(
        found.backend,
        Some(("b1.test:4300".to_owned(), BackendState::Active))
    );
    let edit = AccountEdit {
        login_name: Some("ann2".parse().unwrap()),
        status: Some(AccountStatus::Suspended),
        quota_octets: Some(5),
        ..AccountEdit::default()
    };
    engine.change_account(ann.id, edit, 1).await.unwrap();
    assert!(record("ann@x.test").await.is_none());
    let found = record("ann2").await.unwrap().account;
    assert_eq!(
        (found.status, found.quota_octets),
        (AccountStatus::Suspended, Some(5))
    );
    assert_eq!(record("ann2").await.unwrap().quota.octets, Some(5));
    let longest = "n".repeat(512);
    engine.create_account(draft(&longest), 1).await.unwrap();
    assert!(record(&longest).await.is_some());
    assert!(record(&longest[1..]).await.is_none());
}

fn credential(text: &str) -> StoredCredential {
    StoredCredential::own(Secret::new(text.to_owned()))
}

pub(super) async fn credentials_come_page_by_page_in_the_order_of_accounts<E: Engine>(engine: E) {
    prepare(&engine).await;
    for (name, text) in [("ann", Some("{A}1")), ("bob", None), ("cid", Some("{C}3"))] {
        let draft = AccountDraft {
            credential: text.map(credential),
            ..draft(name)
        };
        engine.create_account(draft, 1).await.unwrap();
    }
    let page = async |after, limit| engine.credentials(AccountId(after), limit).await.unwrap();
    let (one, three) = (vec![credential("{A}1")], vec![credential("{C}3")]);
    let first = [(AccountId(1), one), (AccountId(2), vec![])];
    assert_eq!(page(0, 2).await, first);
    assert_eq!(page(2, 2).await, [(AccountId(3), three)]);
    assert_eq!(page(3, 2).await, []);
}

pub(super) async fn a_stored_form_is_replaced_only_while_it_is_the_one<E: Engine>(engine: E) {
    prepare(&engine).await;
    let draft = AccountDraft {
        credential: Some(credential("{A}1")),
        ..draft("ann")
    };
    let ann = engine.create_account(draft, 1).await.unwrap().now;
    let replace = async |from: &str, to: &str| {
        let (from, to) = (credential(from), credential(to));
        let replaced = engine.replace_credential(ann.id, from, to, 7).await;
        replaced.unwrap()
    };
    let stored = async || {
        let record = engine.login_record("ann".parse().unwrap()).await.unwrap();
        record.unwrap().credentials
    };
    let before = last(&engine).await;
    let wakes = engine.wakes();
    assert_eq!(replace("{A}2", "{B}2").await, None);
    assert_eq!(replace("{B}1", "{B}2").await, None);
    assert_eq!(
        (stored().await, last(&engine).await),
        (vec![credential("{A}1")], before)
    );
    let number = replace("{A}1", "{B}1").await.unwrap();
    assert_eq!(number, ChangeNumber(before.0 + 1));
    assert_eq!(*wakes.borrow(), number);
    assert_eq!(stored().await, [credential("{B}1")]);
    let changes = engine.changes(before, 10).await.unwrap().changes;
    let kinds: Vec<_> = changes
        .iter()
        .map(|change| (change.kind, &*change.key))
        .collect();
    assert_eq!(kinds, [(ChangeKind::Hash, "1")]);
    assert_eq!(
        engine.account(ann.id).await.unwrap(),
        ann,
        "nothing else is touched"
    );
    assert_eq!(replace("{A}1", "{B}3").await, None, "once");

    engine.delete_account(ann.id, 1).await.unwrap();
    let gone = last(&engine).await;
    assert_eq!(replace("{B}1", "{B}2").await, None);
    assert_eq!(last(&engine).await, gone);
}

fn app_password(name: &str, text: &str) -> StoredCredential {
    StoredCredential {
        name: Some(name.parse().unwrap()),
        services: Some(vec![Service::Pop3]),
        ..credential(text)
    }
}

pub(super) async fn app_passwords_stand_beside_the_accounts_own_password<E: Engine>(engine: E) {
    prepare(&engine).await;
    let draft = AccountDraft {
        credential: Some(credential("{A}1")),
        ..draft("ann")
    };
    let ann = engine.create_account(draft, 1).await.unwrap().now.id;
    let set = async |own: Option<&str>, set: Vec<StoredCredential>, remove: &[&str]| {
        let edit = AccountEdit {
            credential: own.map(credential),
            app_passwords: set,
            remove_app_passwords: remove.iter().map(|name| name.parse().unwrap()).collect(),
            ..AccountEdit::default()
        };
        engine.change_account(ann, edit, 1).await
    };
    let stored = async || {
        let record = engine.login_record("ann".parse().unwrap()).await.unwrap();
        record.unwrap().credentials
    };
    let (phone, laptop) = (
        app_password("Phone", "{P}1"),
        app_password("laptop", "{L}1"),
    );
    set(None, vec![phone.clone(), laptop.clone()], &[])
        .await
        .unwrap();
    let all = [credential("{A}1"), laptop.clone(), phone.clone()];
    assert_eq!(stored().await, all);
    assert!(phone.opens(Service::Pop3) && !phone.opens(Service::Imap));

    // A new password of the account's own leaves them; one of the same name takes a place.
    let phone = app_password("phone", "{P}2");
    set(Some("{A}2"), vec![phone.clone()], &[]).await.unwrap();
    assert_eq!(stored().await, [credential("{A}2"), laptop, phone.clone()]);

    let before = last(&engine).await;
    let refused = set(None, vec![], &["tablet"]).await;
    assert!(matches!(refused, Err(EngineError::Invalid(_))));
    let refused = set(None, vec![phone.clone(), phone.clone()], &[]).await;
    assert!(matches!(refused, Err(EngineError::Invalid(_))));
    let refused = set(None, vec![credential("{N}1")], &[]).await;
    assert!(matches!(refused, Err(EngineError::Invalid(_))));
    let numbered = |count| {
        let one = |n| app_password(&format!("n{n}"), "{N}1");
        (0..count).map(one).collect::<Vec<_>>()
    };
    let refused = set(
        None,
        numbered(limit::APP_PASSWORDS_MAX + 1),
        &["phone", "laptop"],
    )
    .await;
    assert!(matches!(refused, Err(EngineError::Invalid(_))));
    assert_eq!(last(&engine).await, before);
    set(
        None,
        numbered(limit::APP_PASSWORDS_MAX),
        &["phone", "laptop"],
    )
    .await
    .unwrap();
    assert_eq!(stored().await.len(), limit::APP_PASSWORDS_MAX + 1);
}

pub(super) async fn a_use_of_a_credential_is_kept_once_an_hour<E: Engine>(engine: E) {
    prepare(&engine).await;
    let draft = AccountDraft {
        credential: Some(credential("{A}1")),
        ..draft("ann")
    };
    let ann = engine.create_account(draft, 1).await.unwrap().now.id;
    let set_phone = async || {
        let edit = AccountEdit {
            app_passwords: vec![app_password("phone", "{P}1")],
            ..AccountEdit::default()
        };
        engine.change_account(ann, edit, 1).await.unwrap();
    };
    set_phone().await;
    let keep = async |account, name: Option<&str>, at_ms| {
        let name = name.map(|name| name.parse().unwrap());
        let uses = vec![CredentialUse {
            account,
            name,
            at_ms,
        }];
        engine.keep_uses(uses).await.unwrap()
    };
    let told = async || {
        let found = engine.credentials_of(ann).await.unwrap();
        found.into_iter().map(|(_, last)| last).collect::<Vec<_>>()
    };
    let before = last(&engine).await;
    assert_eq!(told().await, [None, None]);
    assert_eq!(keep(ann, Some("phone"), 1_000).await, 1);
    assert_eq!(keep(ann, Some("phone"), 999 + USE_KEPT_EVERY_MS).await, 0);
    assert_eq!(told().await, [None, Some(1_000)]);
    assert_eq!(keep(ann, Some("phone"), 1_000 + USE_KEPT_EVERY_MS).await, 1);
    assert_eq!(keep(ann, None, 7).await, 1);
    assert_eq!(told().await, [Some(7), Some(1_000 + USE_KEPT_EVERY_MS)]);
    assert_eq!(keep(ann, Some("gone"), 7).await, 0);
    assert_eq!(keep(AccountId(99), None, 7).await, 0);
    assert_eq!(last(&engine).await, before, "a use is no change");
    set_phone().await;
    assert_eq!(told().await, [Some(7), None], "it is another password");
    let own = StoredCredential {
        set_ms: 20,
        ..credential("{A}2")
    };
    let edit = AccountEdit {
        credential: Some(own),
        status: Some(AccountStatus::Suspended),
        ..AccountEdit::default()
    };
    engine.change_account(ann, edit, 20).await.unwrap();
    assert_eq!(told().await, [None, None], "and so is this");
    assert_eq!(keep(ann, None, 19).await, 0, "the one before was used");
    assert_eq!(keep(ann, None, 20).await, 1);
    let edit = AccountEdit {
        status: Some(AccountStatus::Other),
        ..AccountEdit::default()
    };
    let unknown = engine.change_account(ann, edit, 21).await;
    assert!(matches!(unknown, Err(EngineError::Invalid(_))));
    let nobody = engine.credentials_of(AccountId(99)).await;
    assert!(matches!(nobody, Err(EngineError::NotFound)));
}
