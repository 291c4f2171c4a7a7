//! What a client keeps of lookups: addresses that somebody has, and those that strangers make up.
#![allow(clippy::unwrap_used)]

mod site;

use std::time::Duration;

use daemon::identity::Role;
use daemon::shutdown::Shutdown;
use directory_api::ClientOptions;
use directory_api::wire::{AddressPut, Target, Verdict};
use site::{Site, address, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn what_strangers_make_up_pushes_out_nothing_that_is_kept_for_an_outage() {
    let mut site = Site::start().await;
    let ann = site.settle().await;
    let operator = site.client(Role::Operator, "op");
    for name in ["*@x.test", "list@x.test", "ann+own@x.test", "late@x.test"] {
        let targets = vec![Target::Address(address("ann@x.test"))];
        let put = AddressPut { targets };
        operator.put_address(&address(name), &put).await.unwrap();
    }
    let options = ClientOptions {
        positive_ttl: Duration::from_millis(1),
        negative_ttl: Duration::from_millis(1),
        entries_max: 50,
        ..ClientOptions::default()
    };
    let client = site.client_with(Role::MxFrontend, "mx1", &options);
    let look = async |name: &str| client.lookup(&address(name)).await;
    let ways = async |name: &str| match look(name).await {
        Ok(Verdict::Accounts(located)) => {
            let ways = located.into_iter();
            let ways = ways.map(|one| (one.account, one.detail, one.is_caught));
            ways.collect::<Vec<_>>()
        }
        other => panic!("{name}: {other:?}"),
    };
    for name in ["ann@x.test", "list@x.test", "ann+own@x.test"] {
        assert_eq!(ways(name).await, [(ann, None, false)], "{name}");
    }
    for number in 0..200 {
        let detail = Some(number.to_string());
        let name = format!("ann+{number}@x.test");
        assert_eq!(ways(&name).await, [(ann, detail, false)]);
        let name = format!("nobody{number}@x.test");
        assert_eq!(ways(&name).await, [(ann, None, true)]);
    }
    assert_eq!(ways("late@x.test").await, [(ann, None, false)]);

    site.down().await;
    for name in ["ann@x.test", "list@x.test", "ann+own@x.test", "late@x.test"] {
        assert_eq!(ways(name).await, [(ann, None, false)], "{name}");
    }
    for name in ["ann+7@x.test", "ann+never@x.test", "list+never@x.test"] {
        let detail = address(name).subaddress().map(|(_, one)| one.to_owned());
        assert_eq!(ways(name).await, [(ann, detail, false)], "{name}");
    }
    // Somebody may have got these meanwhile, and nobody says whether.
    for name in ["nobody7@x.test", "nobody+a@x.test", "bob@x.test"] {
        let error = look(name).await.unwrap_err();
        assert!(error.is_away(), "{name}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_itself_is_kept_no_longer_than_an_unknown() {
    let site = Site::start().await;
    site.settle().await;
    let operator = site.client(Role::Operator, "op");
    // Nor does it follow the changes.
    let options = ClientOptions {
        positive_ttl: Duration::from_secs(3_600),
        negative_ttl: Duration::from_millis(1),
        ..ClientOptions::default()
    };
    let client = site.client_with(Role::MxFrontend, "mx1", &options);
    let put = async |name: &str, target: &str| {
        let targets = vec![Target::Address(address(target))];
        let put = AddressPut { targets };
        operator.put_address(&address(name), &put).await.unwrap();
    };
    put("*@x.test", "ann@x.test").await;
    for name in ["bob@x.test", "ann+bob@x.test"] {
        let before = client.lookup(&address(name)).await.unwrap();
        assert!(matches!(before, Verdict::Accounts(_)), "{before:?}");
        put(name, "bob@elsewhere.test").await;
        eventually(async || {
            let now = client.lookup(&address(name)).await.unwrap();
            matches!(now, Verdict::External { .. })
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_would_be_found_first_reaches_who_follows() {
    let site = Site::start().await;
    site.settle().await;
    let operator = site.client(Role::Operator, "op");
    let hour = Duration::from_secs(3_600);
    let options = ClientOptions {
        positive_ttl: hour,
        negative_ttl: hour,
        ..ClientOptions::default()
    };
    let client = site.client_with(Role::MxFrontend, "mx1", &options);
    let shutdown = Shutdown::new();
    client.follow(&shutdown);
    let put = async |name: &str, target: &str| {
        let targets = vec![Target::Address(address(target))];
        let put = AddressPut { targets };
        operator.put_address(&address(name), &put).await.unwrap();
    };
    let look = async |name: &str| client.lookup(&address(name)).await.unwrap();
    put("*@x.test", "ann@x.test").await;
    put("ext@x.test", "a@y.test").await;
    let is_external = |verdict| matches!(verdict, Verdict::External { .. });
    eventually(async || is_external(look("ext@x.test").await)).await;
    for name in ["bob@x.test", "ann+bob@x.test", "bob+a@x.test"] {
        eventually(async || matches!(look(name).await, Verdict::Accounts(_))).await;
    }
    for name in ["bob@x.test", "ann+bob@x.test"] {
        put(name, "b@z.test").await;
        eventually(async || is_external(look(name).await)).await;
    }
    eventually(async || is_external(look("bob+a@x.test").await)).await;
    operator
        .put_domain(&"y.test".parse().unwrap())
        .await
        .unwrap();
    let is_unknown = |verdict| verdict == Verdict::UnknownAddress;
    eventually(async || is_unknown(look("ext@x.test").await)).await;
    assert!(matches!(look("carl@x.test").await, Verdict::Accounts(_)));
    operator.delete_address(&address("*@x.test")).await.unwrap();
    eventually(async || is_unknown(look("carl@x.test").await)).await;
    shutdown.begin();
    assert!(shutdown.drained(Duration::from_secs(5)).await);
}
