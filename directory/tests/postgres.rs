//! Two directory servers, each a process of its own, on one PostgreSQL.
#![allow(clippy::unwrap_used)]

mod site;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use daemon::clock::now_ms;
use daemon::identity::Role;
use directory::{Config, CopyError, CopyTo, copy};
use directory_api::grant::GrantVerifier;
use directory_api::wire::{ChangesReply, CompareAndSet, ListQuery, Place, Verdict};
use directory_api::{
    AccountId, ChangeNumber, ClientOptions, DirectoryClient, DirectoryError, DomainName, Epoch,
    Home, LoginError,
};
use site::{Process, Site, address, backend, comes_up, eventually, login};
use testkit::address::unused_address;
use testkit::postgres::Cluster;

/// Two servers that were started at once on an empty database; ann lives on b1.
struct Pair {
    site: Site,
    configs: [Config; 2],
    _servers: [Process; 2],
    ann: AccountId,
}

impl Pair {
    async fn on(cluster: &Cluster) -> Self {
        let site = Site::prepare();
        let setting = format!("[postgres]\nurl = {:?}", cluster.database());
        let configs = [unused_address(), unused_address()].map(|listen| Config {
            listen,
            metrics_listen: unused_address(),
            // Nothing is made there.
            data: "/nowhere".into(),
            ..site.config()
        });
        let servers = configs
            .each_ref()
            .map(|config| Process::start_at(&site, config, &setting));
        let mut pair = Self {
            site,
            configs,
            _servers: servers,
            ann: AccountId(0),
        };
        for server in [0, 1] {
            comes_up(&pair.operator(server)).await;
        }
        pair.ann = pair
            .site
            .settle_by(|role, node| pair.client(0, role, node))
            .await;
        pair
    }

    /// One that believes nothing it is not told now.
    fn client(&self, server: usize, role: Role, node: &str) -> DirectoryClient {
        let options = ClientOptions {
            positive_ttl: Duration::ZERO,
            negative_ttl: Duration::ZERO,
            stale_max: Duration::ZERO,
            ..ClientOptions::default()
        };
        self.site
            .client_at(self.configs[server].listen, role, node, &options)
    }

    fn operator(&self, server: usize) -> DirectoryClient {
        self.client(server, Role::Operator, "op")
    }
}

fn domain(round: usize, number: usize) -> DomainName {
    format!("r{round}n{number}.test").parse().unwrap()
}

async fn last(client: &DirectoryClient) -> ChangeNumber {
    client
        .changes(ChangeNumber(0), 0, Duration::ZERO)
        .await
        .unwrap()
        .last
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_on_one_postgres_are_one_directory() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let pair = Pair::on(&cluster).await;
    let [one, other] = [0, 1].map(|server| pair.operator(server));

    // What is written through one is read through the other at once, and whoever waits there is woken.
    let before = last(&other).await;
    let waits = {
        let other = other.clone();
        tokio::spawn(async move { other.changes(before, 9, Duration::from_secs(20)).await })
    };
    let written = one.put_domain(&domain(0, 0)).await.unwrap();
    let began = Instant::now();
    assert_eq!(other.domain(&domain(0, 0)).await.unwrap(), written.now);
    let told = waits.await.unwrap().unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "it was woken, not timed out"
    );
    assert_eq!(
        (told.changes[0].number, told.last),
        (written.change, written.change)
    );
    let mx = pair.client(1, Role::MxFrontend, "m1");
    let found = mx.lookup(&address("ann@x.test")).await.unwrap();
    assert!(matches!(found, Verdict::Accounts(located) if located[0].account == pair.ann));

    // A grant of either is one that the other publishes the key of.
    let verifier = GrantVerifier::new(now_ms());
    verifier.set_keys(&other.keys().await.unwrap());
    let proxy = pair.client(0, Role::PopImapProxy, "p1");
    let granted = proxy.login(&login("ann@x.test", "right")).await.unwrap();
    verifier
        .verify(&granted.grant, now_ms(), &backend("b1"))
        .unwrap();
    let rotated = one.rotate_key().await.unwrap();
    eventually(async || other.keys().await.unwrap() == rotated).await;
    assert!(other.rotate_key().await.is_err(), "one is on its way");

    numbers_have_no_gaps(&pair).await;
    of_two_that_move_an_account_one_wins(&pair).await;
}

/// Whoever follows the feed while many write through both servers sees every number, in order.
async fn numbers_have_no_gaps(pair: &Pair) {
    const WRITERS: usize = 4;
    const WRITES: usize = 25;
    let begin = last(&pair.operator(0)).await;
    let follower = {
        let client = pair.operator(1);
        tokio::spawn(async move {
            let mut seen = begin;
            while seen.0 < begin.0 + (WRITERS * WRITES) as u64 {
                let told = client.changes(seen, 1_000, Duration::from_secs(10)).await;
                let ChangesReply { changes, last, .. } = told.unwrap();
                assert!(!changes.is_empty(), "{seen} is the last that comes");
                for change in changes {
                    assert_eq!(change.number.0, seen.0 + 1, "a number was passed over");
                    seen = change.number;
                }
                assert!(last >= seen);
            }
        })
    };
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let client = pair.operator(writer % 2);
            tokio::spawn(async move {
                for number in 0..WRITES {
                    client
                        .put_domain(&domain(1 + writer, number))
                        .await
                        .unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    follower.await.unwrap();
}

async fn of_two_that_move_an_account_one_wins(pair: &Pair) {
    let operators = [0, 1].map(|server| pair.operator(server));
    let mut home: Home = operators[0].home(pair.ann).await.unwrap().home;
    for round in 0..20 {
        let moves = operators.iter().zip(["b1", "b2"]).map(|(operator, to)| {
            let request = CompareAndSet {
                from_epoch: home.epoch,
                to: Place {
                    backend: backend(to),
                    volume: "v1".parse().unwrap(),
                },
                move_id: None,
            };
            let (operator, ann) = (operator.clone(), pair.ann);
            tokio::spawn(async move { operator.compare_and_set(ann, &request).await })
        });
        let mut won = Vec::new();
        let mut lost = Vec::new();
        for moved in moves.collect::<Vec<_>>() {
            match moved.await.unwrap() {
                Ok(reply) => won.push(reply.home),
                Err(error) => lost.push(error.stale_home().unwrap()),
            }
        }
        assert_eq!((won.len(), lost.len()), (1, 1), "round {round}");
        assert_eq!(won, lost, "the one that lost is told where it is");
        assert_eq!(won[0].epoch, home.epoch.next());
        home = won.remove(0);
    }
    assert_eq!(operators[1].home(pair.ann).await.unwrap().home, home);
    assert!(home.epoch > Epoch::FIRST);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_is_killed_is_away_and_loses_no_acknowledged_write() {
    let Some(cluster) = Cluster::own() else {
        return;
    };
    let pair = Pair::on(&cluster).await;
    let mut acknowledged = Vec::new();
    let mut unknown = Vec::new();
    for round in 0..3 {
        let stop = Arc::new(AtomicBool::new(false));
        let writers = [0, 1].map(|server| {
            let (client, stop) = (pair.operator(server), Arc::clone(&stop));
            tokio::spawn(async move {
                let (mut kept, mut unsaid) = (Vec::new(), Vec::new());
                for number in (server..).step_by(2) {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let name = domain(10 + round, number);
                    match client.put_domain(&name).await {
                        Ok(_) => kept.push(name),
                        Err(DirectoryError::Away(_)) => {
                            unsaid.push(name);
                            tokio::time::sleep(Duration::from_millis(10)).await;
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
                (kept, unsaid)
            })
        });
        let readers = [0, 1].map(|server| {
            let mx = pair.client(server, Role::MxFrontend, "m1");
            let proxy = pair.client(server, Role::PopImapProxy, "p1");
            let stop = Arc::clone(&stop);
            tokio::spawn(async move {
                let mut away = 0;
                while !stop.load(Ordering::Relaxed) {
                    match mx.lookup(&address("ann@x.test")).await {
                        Ok(Verdict::Accounts(_)) => {}
                        Err(DirectoryError::Away(_)) => away += 1,
                        other => panic!("ann became {other:?}"),
                    }
                    match proxy.login(&login("ann@x.test", "right")).await {
                        Ok(_) | Err(LoginError::Away(_)) => {}
                        Err(other) => panic!("ann is told {other:?}"),
                    }
                }
                away
            })
        });
        let operator = pair.operator(0);
        let begin = last(&operator).await;
        eventually(async || last(&operator).await.0 > begin.0 + 20).await;
        cluster.kill();
        eventually(async || {
            operator
                .domain(&domain(0, 0))
                .await
                .is_err_and(|error| error.is_away())
        })
        .await;
        cluster.start_again();
        for server in [0, 1] {
            let operator = pair.operator(server);
            // It says that there is no such domain, which only the database knows.
            eventually(async || {
                matches!(
                    operator.domain(&domain(0, 0)).await,
                    Err(DirectoryError::Unknown)
                )
            })
            .await;
            let written = async || {
                operator
                    .put_domain(&domain(20 + round, server))
                    .await
                    .is_ok()
            };
            eventually(written).await;
        }
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            let (kept, unsaid) = writer.await.unwrap();
            acknowledged.extend(kept);
            unknown.extend(unsaid);
        }
        for reader in readers {
            assert!(reader.await.unwrap() > 0, "the outage was noticed");
        }
    }
    let operator = pair.operator(1);
    let mut names = Vec::new();
    let mut query = ListQuery::default();
    loop {
        let page = operator.domains(&query).await.unwrap();
        names.extend(page.items.into_iter().map(|domain| domain.name));
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    for name in &acknowledged {
        assert!(names.contains(name), "{name} was acknowledged and is gone");
    }
    // What was not said to be kept may have been: to write it again is right either way.
    assert!(!unknown.is_empty());
    for name in &unknown {
        let before = last(&operator).await;
        operator.put_domain(name).await.unwrap();
        let is_new = !names.contains(name);
        assert_eq!(
            last(&operator).await.0 - before.0,
            u64::from(is_new),
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_copied_to_postgres_and_back_with_passwords_and_keys() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let mut site = Site::start().await;
    let ann = site.settle().await;
    let operator = site.client(Role::Operator, "op");
    let (keys, change) = (operator.keys().await.unwrap(), last(&operator).await);
    let mut config = site.config();
    config.postgres.url = Some(cluster.database());
    let in_use = copy(&config, CopyTo::Postgres).await;
    assert!(matches!(in_use, Err(CopyError::Folder(_))), "{in_use:?}");
    site.down().await;
    let there = copy(&config, CopyTo::Postgres).await.unwrap();
    assert!(there.rows > 10 && there.keys == 2, "{there:?}");
    let again = copy(&config, CopyTo::Postgres).await;
    assert!(matches!(again, Err(CopyError::Engine(_))), "{again:?}");

    let is_as_before = async |config: &Config| {
        let options = ClientOptions::default();
        let client = |role, node| site.client_at(config.listen, role, node, &options);
        let operator = client(Role::Operator, "op");
        comes_up(&operator).await;
        assert_eq!(operator.keys().await.unwrap(), keys);
        assert_eq!(last(&operator).await, change);
        let proxy = client(Role::PopImapProxy, "p1");
        let reply = proxy.login(&login("ann@x.test", "right")).await.unwrap();
        assert_eq!(reply.account, ann);
    };
    let setting = format!(
        "[postgres]\nurl = {:?}",
        config.postgres.url.clone().unwrap()
    );
    let mut server = Process::start_at(&site, &config, &setting);
    is_as_before(&config).await;
    let occupied = copy(&config, CopyTo::Folder).await;
    assert!(
        matches!(occupied, Err(CopyError::Served(_))),
        "{occupied:?}"
    );
    server.stop();

    // Back, beside the old folder, which is not written over. The server's connections end when the database notices,
    // and so do those of a copy.
    let alone = async |config: &Config| {
        let began = Instant::now();
        loop {
            match copy(config, CopyTo::Folder).await {
                Err(CopyError::Served(_)) if began.elapsed() < Duration::from_secs(20) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                done => break done,
            }
        }
    };
    let over = alone(&config).await;
    assert!(matches!(over, Err(CopyError::Place(..))), "{over:?}");
    config.data = site.dir.path().join("back");
    let back = alone(&config).await.unwrap();
    assert!(
        back.rows >= there.rows && back.keys == there.keys,
        "{back:?}"
    );
    let mut server = Process::start_at(&site, &config, "");
    is_as_before(&config).await;
    server.stop();
}
