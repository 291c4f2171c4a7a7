//! What a look-up costs on each engine: single ones and batches of 50, one after the other and sixteen at once.
//!
//! ```sh
//! POSTHOUSE_TEST_POSTGRES=1 cargo bench -p directory --bench lookups
//! ```
//!
//! Without the variable only LMDB is measured. It prints look-ups a second and how long requests took.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use directory::engine::{AccountDraft, Engine, Lmdb, Postgres, PostgresSettings};
use directory_api::wire::{AnnounceRequest, DomainPut, Incarnation, Verdict, VolumePosition};
use directory_api::{AccountStatus, Address, Service};
use testkit::postgres::Cluster;

/// Accounts with an address each.
const ACCOUNTS: usize = 10_000;
const MEASURED: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() {
    daemon::tier::install_crypto();
    let dir = tempfile::tempdir().unwrap();
    measure("lmdb", Lmdb::open(dir.path()).unwrap()).await;
    if let Some(cluster) = Cluster::own() {
        let settings = PostgresSettings {
            url: Some(cluster.database()),
            ..PostgresSettings::default()
        };
        measure("postgres", Postgres::open(settings).await.unwrap()).await;
    }
}

async fn measure<E: Engine + Clone>(name: &str, engine: E) {
    let began = Instant::now();
    fill(&engine).await;
    let filled = began.elapsed().as_secs_f64();
    println!("{name}: {ACCOUNTS} accounts in one write, {filled:.1} s");
    for (at_once, batch) in [(1, 1), (16, 1), (1, 50), (16, 50)] {
        let tasks: Vec<_> = (0..at_once)
            .map(|task| tokio::spawn(ask(engine.clone(), task, batch)))
            .collect();
        let mut took = Vec::new();
        for task in tasks {
            took.extend(task.await.unwrap());
        }
        took.sort_unstable();
        let rate = (took.len() * batch) as f64 / MEASURED.as_secs_f64();
        let at = |share: usize| took[(took.len() - 1) * share / 100].as_secs_f64() * 1e3;
        let (half, most) = (at(50), at(99));
        println!(
            "{name}: {at_once:2} at once, batches of {batch:2}: {rate:8.0} look-ups/s, p50 {half:.2} ms, p99 {most:.2} ms"
        );
    }
}

/// Addresses in an order that is no order of their keys.
async fn ask<E: Engine>(engine: E, task: usize, batch: usize) -> Vec<Duration> {
    let began = Instant::now();
    let mut took = Vec::new();
    let mut number = task * 1_237;
    while began.elapsed() < MEASURED {
        let addresses = (0..batch)
            .map(|step| address(number + step * 7_919))
            .collect();
        let asked = Instant::now();
        let found = engine.lookup(addresses).await.unwrap().results;
        took.push(asked.elapsed());
        assert!(
            found
                .iter()
                .all(|one| matches!(one.verdict, Verdict::Accounts(_)))
        );
        number += 104_729;
    }
    took
}

fn address(number: usize) -> Address {
    format!("user{}@x.test", number % ACCOUNTS).parse().unwrap()
}

async fn fill<E: Engine>(engine: &E) {
    let announced = AnnounceRequest {
        backend: "b1".parse().unwrap(),
        address: "b1.test:4300".to_owned(),
        volumes: vec![VolumePosition {
            name: "v1".parse().unwrap(),
            incarnation: Incarnation(1),
            position: 1,
        }],
    };
    engine.announce(announced, 1).await.unwrap();
    let domain = "x.test".parse().unwrap();
    engine
        .put_domain(domain, DomainPut::default(), 1)
        .await
        .unwrap();
    let draft = |number| AccountDraft {
        login_name: format!("user{number}").parse().unwrap(),
        credential: None,
        addresses: vec![address(number)],
        status: AccountStatus::Active,
        services: Service::ALL.to_vec(),
        quota_octets: Some(1 << 30),
        quota_messages: None,
        backend: None,
        volume: None,
    };
    let drafts = (0..ACCOUNTS).map(draft).collect();
    engine.create_accounts(drafts, 1).await.unwrap();
}
