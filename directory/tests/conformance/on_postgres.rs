//! What only a database that several servers write to can do wrong.

use std::time::Duration;

use directory::engine::{Engine, EngineError, Postgres, PostgresSettings};
use directory_api::wire::{Domain, DomainPut};
use directory_api::{AccountId, ChangeNumber, DomainName};
use testkit::postgres::Cluster;
use tokio_postgres::{Client, NoTls};

use super::{address, draft, last, postgres_on, prepare};

/// Somebody else on the database.
async fn other(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Writes nothing, and lets nobody else.
async fn hold(other: &Client) {
    let hold = "BEGIN; SELECT version FROM schema_version FOR UPDATE";
    other.batch_execute(hold).await.unwrap();
}

async fn number(other: &Client, question: &str) -> i64 {
    other
        .query_one(question, &[])
        .await
        .unwrap()
        .try_get(0)
        .unwrap()
}

const WAITING: &str = "SELECT count(*) FROM pg_stat_activity \
    WHERE datname = current_database() AND wait_event_type = 'Lock'";
/// Which connections there are.
const CONNECTIONS: &str = "SELECT sum(pid)::bigint FROM pg_stat_activity \
    WHERE datname = current_database() AND application_name = 'posthouse directory'";

/// Ends them.
const END: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
    WHERE datname = current_database() AND application_name = 'posthouse directory'";

fn domain(text: &str) -> DomainName {
    text.parse().unwrap()
}

async fn put(engine: &Postgres, name: &str) -> Result<(), EngineError> {
    let put = engine.put_domain(domain(name), DomainPut::default(), 1);
    put.await.map(drop)
}

fn is_storage<T>(answer: &Result<T, EngineError>) -> bool {
    matches!(answer, Err(EngineError::Storage(_)))
}

#[tokio::test]
async fn writers_that_wait_leave_connections_to_who_reads() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let url = cluster.database();
    let engine = postgres_on(url.clone()).await;
    let other = other(&url).await;
    put(&engine, "x.test").await.unwrap();
    tokio::try_join!(
        engine.domain(domain("x.test")),
        engine.domain(domain("x.test"))
    )
    .unwrap();
    let connections = number(&other, CONNECTIONS).await;
    let before = last(&engine).await;
    hold(&other).await;
    let writers: Vec<_> = (0..6)
        .map(|writer| {
            let engine = engine.clone();
            tokio::spawn(async move { put(&engine, &format!("w{writer}.test")).await })
        })
        .collect();
    while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
        engine.lookup(vec![address("a@x.test")]).await.unwrap();
    }
    for writer in writers {
        assert!(is_storage(&writer.await.unwrap()));
    }
    other.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(last(&engine).await, before);
    put(&engine, "y.test").await.unwrap();
    assert_eq!(
        number(&other, CONNECTIONS).await,
        connections,
        "who was refused keeps the connection"
    );
}

#[tokio::test]
async fn a_write_is_not_kept_once_its_caller_is_gone() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let url = cluster.database();
    let engine = postgres_on(url.clone()).await;
    let other = other(&url).await;
    loop {
        hold(&other).await;
        let writer = {
            let engine = engine.clone();
            tokio::spawn(async move { put(&engine, "late.test").await })
        };
        while !writer.is_finished() && number(&other, WAITING).await == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        writer.abort();
        // Released while it waits: it gets the lock, unless the machine is slow.
        let is_gone = writer.await.is_err_and(|error| error.is_cancelled());
        let is_waiting = number(&other, WAITING).await == 1;
        other.batch_execute("ROLLBACK").await.unwrap();
        if is_gone && is_waiting {
            break;
        }
    }
    // It has the only turn behind the one that was given up.
    put(&engine, "next.test").await.unwrap();
    let late = engine.domain(domain("late.test")).await;
    assert!(matches!(late, Err(EngineError::NotFound)), "{late:?}");
}

#[tokio::test]
async fn nothing_is_read_or_written_under_another_schema() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let url = cluster.database();
    let engine = postgres_on(url.clone()).await;
    let other = other(&url).await;
    put(&engine, "x.test").await.unwrap();
    for change in [
        "UPDATE schema_version SET version = version + 1",
        "UPDATE schema_version SET version = -1",
        "INSERT INTO schema_version VALUES (1)",
        "DELETE FROM schema_version",
    ] {
        other.batch_execute(change).await.unwrap();
        assert!(
            is_storage(&engine.domain(domain("x.test")).await),
            "{change}"
        );
        assert!(is_storage(&put(&engine, "y.test").await), "{change}");
        let again = Postgres::open(super::settings_of(url.clone())).await;
        assert!(again.is_err(), "{change}");
        let mend = "DELETE FROM schema_version; INSERT INTO schema_version VALUES (2)";
        other.batch_execute(mend).await.unwrap();
        engine.domain(domain("x.test")).await.unwrap();
    }
    put(&engine, "y.test").await.unwrap();
}

#[tokio::test]
async fn writers_come_one_after_the_other_whatever_the_database_does_by_default() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let url = cluster.database();
    let name = url.rsplit('/').next().unwrap();
    let default =
        format!("ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'");
    other(&url).await.batch_execute(&default).await.unwrap();
    let engines = [
        postgres_on(url.clone()).await,
        postgres_on(url.clone()).await,
    ];
    let before = last(&engines[0]).await;
    let writers = engines.each_ref().map(|engine| async move {
        for number in 0..20 {
            let name = format!("n{number}p{:p}.test", std::ptr::from_ref(engine));
            put(engine, &name).await.unwrap();
        }
    });
    let [one, another] = writers;
    tokio::join!(one, another);
    assert_eq!(last(&engines[0]).await.0, before.0 + 40);
}

#[tokio::test]
async fn a_host_that_takes_connections_and_says_nothing_is_passed_over() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let url = cluster.database();
    let other = other(&url).await;
    // The kernel takes them; nobody ever does.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_first = format!("@{},127", silent.local_addr().unwrap());
    let engine = postgres_on(url.replacen("@127", &silent_first, 1)).await;
    put(&engine, "x.test").await.unwrap();
    // New connections begin at the host that answers.
    assert!(number(&other, END).await > 0);
    let began = std::time::Instant::now();
    while engine.domain(domain("x.test")).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(20));
    }
}

#[tokio::test]
async fn a_database_that_goes_back_in_time_wakes_who_waits() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let url = cluster.database();
    let engine = postgres_on(url.clone()).await;
    for name in ["a.test", "b.test", "c.test"] {
        put(&engine, name).await.unwrap();
    }
    let mut wakes = engine.wakes();
    let back = "DELETE FROM changes WHERE number_of(key) > 1";
    other(&url).await.batch_execute(back).await.unwrap();
    let noticed = wakes.wait_for(|last| last.0 == 1);
    let noticed = tokio::time::timeout(Duration::from_secs(20), noticed).await;
    assert_eq!(noticed.expect("it is noticed").unwrap().0, 1);
}

#[tokio::test]
async fn a_database_that_may_forget_is_refused_at_each_connection() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let url = cluster.database();
    let engine = postgres_on(url.clone()).await;
    let other = other(&url).await;
    let name = url.rsplit('/').next().unwrap();
    for value in ["off", "local", "remote_write"] {
        let set = format!("ALTER DATABASE {name} SET synchronous_commit = {value}");
        other.batch_execute(&set).await.unwrap();
        let refused = Postgres::open(super::settings_of(url.clone())).await.err();
        assert!(refused.unwrap().to_string().contains(value));
    }
    number(&other, END).await;
    // Those of the pool are gone when it has noticed; new ones are refused.
    for _ in 0..3 {
        assert!(is_storage(&put(&engine, "x.test").await));
    }
    let reset = format!("ALTER DATABASE {name} RESET synchronous_commit");
    other.batch_execute(&reset).await.unwrap();
    put(&engine, "x.test").await.unwrap();
}

#[tokio::test]
async fn a_large_write_waits_for_a_long_writer_behind_which_others_are_refused() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let url = cluster.database();
    let engine = postgres_on(url.clone()).await;
    let other = other(&url).await;
    prepare(&engine).await;
    hold(&other).await;
    let large = {
        let engine = engine.clone();
        tokio::spawn(async move { engine.create_accounts(vec![draft("ann@x.test")], 1).await })
    };
    assert!(is_storage(&put(&engine, "y.test").await));
    other.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(large.await.unwrap().unwrap().created, 1);
    // Not for ever.
    hold(&other).await;
    let began = std::time::Instant::now();
    let refused = engine.create_accounts(vec![draft("bob@x.test")], 1).await;
    assert!(is_storage(&refused));
    assert!(
        began.elapsed() < Duration::from_secs(25),
        "before its caller gives up"
    );
}

#[tokio::test]
async fn an_older_schema_becomes_ours_with_what_is_in_it() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let url = cluster.database();
    let other = other(&url).await;
    let oldest = include_str!("../../src/engine/postgres/1.sql");
    other.batch_execute(oldest).await.unwrap();
    let rows = r#"UPDATE schema_version SET version = 1;
        INSERT INTO domains VALUES ('x.test', '{}'), ('y.test', '{"alias_of":"x.test"}');
        INSERT INTO changes VALUES (int8send(1), '{"number":1,"kind":"domain","key":"x.test","at_ms":1}')"#;
    other.batch_execute(rows).await.unwrap();
    // As two servers that are updated at once.
    let (one, another) = tokio::join!(postgres_on(url.clone()), postgres_on(url.clone()));
    for engine in [&one, &another] {
        let alias_of = Some(domain("x.test"));
        let name = domain("y.test");
        let found = engine.domain(name.clone()).await.unwrap();
        assert_eq!(found, Domain { name, alias_of });
        assert_eq!(engine.links(AccountId(0), 9).await.unwrap(), []);
        assert_eq!(last(engine).await, ChangeNumber(1));
    }
    put(&one, "z.test").await.unwrap();
    assert_eq!(last(&another).await, ChangeNumber(2));
    let version = number(&other, "SELECT version::bigint FROM schema_version").await;
    assert_eq!(version, 2);
}

#[tokio::test]
async fn old_changes_go_and_who_asks_for_them_is_told() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let url = cluster.database();
    let engine = postgres_on(url.clone()).await;
    let other = other(&url).await;
    let many = r#"INSERT INTO changes SELECT int8send(n), convert_to(
        '{"number":' || n || ',"kind":"domain","key":"x.test","at_ms":1}', 'UTF8')
        FROM generate_series(1::bigint, 200199) AS n"#;
    other.batch_execute(many).await.unwrap();
    // Kept are 200,000, which is looked after at every hundredth change.
    put(&engine, "x.test").await.unwrap();
    assert_eq!(last(&engine).await, ChangeNumber(200_200));
    assert_eq!(
        number(&other, "SELECT count(*) FROM changes").await,
        200_000
    );
    let gone = engine.changes(ChangeNumber(199), 9).await;
    assert!(
        matches!(gone, Err(EngineError::ChangesGone(ChangeNumber(201)))),
        "{gone:?}"
    );
    let kept = engine.changes(ChangeNumber(200), 1).await.unwrap().changes;
    assert_eq!(kept[0].number, ChangeNumber(201));
}

#[tokio::test]
async fn a_server_is_spoken_with_in_tls_if_the_authority_knows_it() {
    let Some(cluster) = Cluster::shared() else {
        return;
    };
    let url = cluster.database();
    let with = |tls_ca| PostgresSettings {
        tls_ca: Some(tls_ca),
        ..super::settings_of(url.clone())
    };
    daemon::tier::install_crypto();
    let engine = Postgres::open(with(cluster.ca())).await.unwrap();
    put(&engine, "x.test").await.unwrap();
    let other = other(&url).await;
    let in_tls = "SELECT count(*) FILTER (WHERE ssl) - count(*) FILTER (WHERE NOT ssl) \
        FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
        WHERE datname = current_database() AND application_name = 'posthouse directory'";
    assert!(number(&other, in_tls).await > 0);
    let connections = number(&other, CONNECTIONS).await;

    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("wrong.pem");
    let stranger = testkit::user_certificate::UserAuthority::new();
    std::fs::write(&wrong, stranger.pem()).unwrap();
    let refused = Postgres::open(with(wrong)).await.err();
    let told = daemon::log::causes(&refused.expect("it is refused"));
    assert!(told.contains("certificate"), "{told}");
    assert_eq!(number(&other, CONNECTIONS).await, connections);
}
