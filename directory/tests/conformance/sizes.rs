//! Lookups and lists of more than is read at once.

use directory::engine::{Engine, ImportDraft, RowDraft};
use directory_api::wire::{ImportAddress, ImportTarget, ListQuery, Target, Verdict};

use super::{address, create, last, point, prepare};

/// More rows than are read at once, and the same ones from several sides.
pub(super) async fn what_many_come_to_is_found_for_each<E: Engine>(engine: E) {
    prepare(&engine).await;
    let ann = create(&engine, "ann@x.test").await;
    let alias = |number: usize| Target::Address(address(&format!("a{number}@x.test")));
    let row = |number: usize| {
        let to = if number.is_multiple_of(2) {
            "ann"
        } else {
            "nobody"
        };
        RowDraft::Address(ImportAddress {
            address: address(&format!("a{number}@x.test")),
            targets: vec![ImportTarget::Address(address(&format!("{to}@x.test")))],
        })
    };
    let import = ImportDraft {
        rows: (0..300).map(row).collect(),
        ..ImportDraft::default()
    };
    let imported = engine.import(import, 1).await.unwrap().now;
    assert!(imported.iter().all(Result::is_ok));
    for list in ["one@x.test", "other@x.test"] {
        point(&engine, list, (0..300).map(alias).collect()).await;
    }
    point(&engine, "none@x.test", vec![alias(1), alias(3)]).await;
    let asked = [
        "one@x.test",
        "none@x.test",
        "other@x.test",
        "a0@x.test",
        "x@y.test",
    ];
    let reply = engine.lookup(asked.map(address).to_vec()).await.unwrap();
    assert_eq!(reply.change, last(&engine).await);
    let comes_to = |verdict: &Verdict| match verdict {
        Verdict::Accounts(located) => located.iter().map(|one| one.account).collect(),
        _ => Vec::new(),
    };
    let found: Vec<_> = reply
        .results
        .iter()
        .map(|one| comes_to(&one.verdict))
        .collect();
    assert_eq!(
        found,
        [vec![ann.id], vec![], vec![ann.id], vec![ann.id], vec![]]
    );
    assert_eq!(reply.results[0].via.len(), 302);
    assert_eq!(reply.results[2].via.len(), 302);
    assert_eq!(reply.results[4].verdict, Verdict::UnknownDomain);
    assert_eq!(
        engine.lookup(Vec::new()).await.unwrap().change,
        reply.change
    );
}

/// Some rows are larger together than what is read at once, whatever their number.
pub(super) async fn rows_of_any_size_are_listed_whole<E: Engine>(engine: E) {
    prepare(&engine).await;
    let long = "l".repeat(60);
    let domain = format!("{}.test", "d".repeat(240));
    let target = |number: usize| Target::Address(address(&format!("{long}{number:03}@{domain}")));
    let mut names = Vec::new();
    for list in 0..12 {
        names.push(address(&format!("list{list:02}@x.test")));
        let targets = (0..1_000).map(target).collect();
        point(&engine, names[list].as_str(), targets).await;
    }
    let page = engine.addresses(ListQuery::default()).await.unwrap();
    assert_eq!(page.next, None);
    let listed: Vec<_> = page.items.into_iter().map(|one| one.address).collect();
    assert_eq!(listed, names);
    let query = ListQuery {
        after: Some(names[4].to_string()),
        limit: Some(5),
        ..ListQuery::default()
    };
    let page = engine.addresses(query).await.unwrap();
    let listed: Vec<_> = page.items.into_iter().map(|one| one.address).collect();
    assert_eq!(
        (listed.as_slice(), page.next),
        (&names[5..10], Some(names[9].to_string()))
    );
}
