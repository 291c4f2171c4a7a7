//! What accounts cost, as the migrator and operators are told.

use daemon::identity::Role;
use daemon::link::CallError;
use directory_api::AccountId;
use store_api::load::{ACCOUNTS_MAX, AccountLoad, LoadClient, LoadReply, LoadRequest};

use crate::site::{Backend, Dialogue, Site, until_listed};

/// Ann gets much mail and reads it; Bob gets one message and never comes.
async fn used(backend: &Backend) {
    let mut lmtp = Dialogue::lmtp(backend).await;
    let large = [
        &b"Subject: large\r\n\r\n"[..],
        &b"0123456789abcdef\r\n".repeat(30_000),
    ]
    .concat();
    for message in [&large[..], b"Subject: a\r\n\r\n", b"Subject: b\r\n\r\n"] {
        assert!(lmtp.deliver(&["ann"], message).await[0].starts_with("250 "));
    }
    assert!(lmtp.deliver(&["bob"], b"Subject: c\r\n\r\n").await[0].starts_with("250 "));
    let mut pop3 = until_listed(backend, "ann", 3).await;
    assert!(pop3.retrieve(1).await.len() > large.len() - 1);
    pop3.ask("QUIT", "+OK").await;
}

async fn site() -> (Site, Backend) {
    let site = Site::new().await;
    for (name, account) in [("ann", 1), ("bob", 2)] {
        site.directory.address(name, &[account]);
        site.directory.home(account, "b1", 1);
    }
    let backend = site.backend("b1").await;
    (site, backend)
}

fn of(reply: &LoadReply, account: u64) -> AccountLoad {
    let mut accounts = reply.accounts.iter();
    let found = accounts.find(|one| one.account == AccountId(account));
    found.cloned().unwrap()
}

async fn asked(client: &LoadClient) -> LoadReply {
    let request = LoadRequest::Accounts {
        volume: "main".parse().unwrap(),
        after: None,
    };
    client.ask(&request).await.unwrap()
}

#[tokio::test]
async fn who_gets_and_reads_more_costs_more_and_a_restart_forgets_it_not() {
    let (site, mut backend) = site().await;
    used(&backend).await;
    // Counted is each minute, and when it stops.
    assert_eq!(backend.terminate().await, Some(0));
    backend.restart().await;
    let client = LoadClient::new(site.link(Role::Migrator, &backend));
    let reply = asked(&client).await;
    let (ann, bob) = (of(&reply, 1), of(&reply, 2));
    assert!(ann.is_home && bob.is_home && !reply.has_more);
    assert!(ann.figures.synced_octets > 540_000.0, "{ann:?}");
    assert!(ann.figures.read_octets >= 540_000.0, "{ann:?}");
    assert!(ann.stored_octets > 540_000);
    assert!(ann.figures.sessions >= 0.99, "{ann:?}");
    let few = 50.0..5_000.0;
    assert!(few.contains(&bob.figures.synced_octets), "{bob:?}");
    assert_eq!((bob.figures.read_octets, bob.figures.sessions), (0.0, 0.0));
    assert!(bob.figures.operations > 0.9 && ann.figures.operations > 4.5);
    let [volume] = &reply.volumes[..] else {
        panic!("{reply:?}");
    };
    assert!(volume.is_open && !volume.is_nearly_full);
    assert!(volume.size_bytes > volume.free_bytes && volume.free_bytes > 0);
    assert_eq!(volume.accounts, 2);
    assert!(volume.total.cost_us() >= ann.figures.cost_us());
    // The heavier one first, and no more than was asked for.
    let request = LoadRequest::Heaviest { count: 1 };
    let heaviest = client.ask(&request).await.unwrap().accounts;
    assert_eq!(heaviest.len(), 1);
    assert_eq!(heaviest[0].account, AccountId(1));
    let mut all = Vec::new();
    let each = client.each_account(&volume.name, |one| all.push(one.account.0));
    each.await.unwrap();
    assert_eq!(all, [1, 2]);
}

#[tokio::test]
async fn what_accounts_cost_is_told_to_the_migrator_and_to_operators_alone() {
    let (site, backend) = site().await;
    for role in Role::ALL {
        let client = LoadClient::new(site.link(role, &backend));
        let reply = client.ask(&LoadRequest::Volumes).await;
        let may = matches!(role, Role::Migrator | Role::Operator);
        assert_eq!(reply.is_ok(), may, "{role}: {reply:?}");
        if let Err(error) = reply {
            let CallError::Refused(problem) = error else {
                panic!("{role}: {error:?}");
            };
            assert_eq!(problem.status, 403);
        }
    }
    let client = LoadClient::new(site.link(Role::Operator, &backend));
    let count = ACCOUNTS_MAX + 1;
    let many = client.ask(&LoadRequest::Heaviest { count }).await;
    assert!(many.is_err(), "{many:?}");
    let count = ACCOUNTS_MAX;
    client.ask(&LoadRequest::Heaviest { count }).await.unwrap();
    let request = LoadRequest::Accounts {
        volume: "v9".parse().unwrap(),
        after: None,
    };
    assert!(client.ask(&request).await.is_err());
}

/// A kill forgets what was not written down, and a file that is torn forgets all of it: neither keeps the back-end from starting.
#[tokio::test]
async fn a_torn_file_of_costs_costs_nothing_else() {
    let (site, mut backend) = site().await;
    used(&backend).await;
    assert_eq!(backend.terminate().await, Some(0));
    let path = site.data("b1").join("load");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    backend.restart().await;
    let client = LoadClient::new(site.link(Role::Migrator, &backend));
    let heaviest = LoadRequest::Heaviest { count: 9 };
    let reply = client.ask(&heaviest).await.unwrap();
    assert!(reply.accounts.is_empty(), "{reply:?}");
    assert!(backend.log().contains("it is not whole"));
    until_listed(&backend, "ann", 3).await;
}
