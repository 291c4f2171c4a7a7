//! What decides a login, the stored forms of passwords included.

use directory::engine::{AccountDraft, AccountEdit, Engine, StoredCredential};
use directory_api::wire::{ChangeKind, Secret};
use directory_api::{AccountId, AccountStatus, BackendState, ChangeNumber};

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
    StoredCredential {
        secret: Secret::new(text.to_owned()),
    }
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
