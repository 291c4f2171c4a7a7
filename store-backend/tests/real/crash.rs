//! `kill -9` under load: every acknowledged message is there, once (P1, P2).

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::site::{Dialogue, Site};

const USERS: usize = 4;
const CLIENTS: usize = 6;

/// Sends numbered messages until the connection breaks; notes what was acknowledged and what was sent at all.
async fn load(
    address: std::net::SocketAddr,
    next: Arc<AtomicUsize>,
    acknowledged: Arc<Mutex<HashSet<usize>>>,
) -> Option<()> {
    let mut stream = BufReader::new(TcpStream::connect(address).await.ok()?);
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    stream.write_all(b"LHLO load\r\n").await.ok()?;
    loop {
        line.clear();
        stream
            .read_line(&mut line)
            .await
            .ok()
            .filter(|count| *count > 0)?;
        if line.starts_with("250 ") {
            break;
        }
    }
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let padding = "x".repeat(number * 37 % 900);
        let large = if number.is_multiple_of(50) {
            "0123456789abcdef\r\n".repeat(12_000)
        } else {
            String::new()
        };
        let message = format!(
            "MAIL FROM:<>\r\nRCPT TO:<user{}@example.test>\r\nDATA\r\nSubject: {number} end\r\n\r\n{padding}\r\n{large}.\r\n",
            number % USERS
        );
        stream.write_all(message.as_bytes()).await.ok()?;
        for _ in 0..4 {
            line.clear();
            stream
                .read_line(&mut line)
                .await
                .ok()
                .filter(|count| *count > 0)?;
        }
        if line.starts_with("250 ") {
            acknowledged.lock().unwrap().insert(number);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_message_is_there_once_after_kills_under_load() {
    let site = Site::new().await;
    for user in 0..USERS {
        site.directory
            .address(&format!("user{user}"), &[user as u64 + 1]);
        site.directory.home(user as u64 + 1, "b1", 1);
    }
    let mut backend = site.backend("b1").await;
    let next = Arc::new(AtomicUsize::new(0));
    let acknowledged = Arc::new(Mutex::new(HashSet::new()));
    for round in 0..3u64 {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                tokio::spawn(load(
                    backend.lmtp,
                    Arc::clone(&next),
                    Arc::clone(&acknowledged),
                ))
            })
            .collect();
        let before = acknowledged.lock().unwrap().len();
        // Killed in the middle of work, not after it: wait for some progress, then a little more.
        let began = std::time::Instant::now();
        while acknowledged.lock().unwrap().len() < before + 30 {
            assert!(began.elapsed() < crate::site::PATIENCE, "no progress");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(17 * (round + 1))).await;
        backend.kill();
        for client in clients {
            client.await.unwrap();
        }
        backend.restart().await;
    }
    let acknowledged = acknowledged.lock().unwrap().clone();
    let mut seen: HashMap<usize, usize> = HashMap::new();
    for user in 0..USERS {
        let mut pop3 = Dialogue::pop3(&backend, &format!("user{user}")).await;
        let stat = pop3.ask("STAT", "+OK ").await;
        let count: usize = stat.split(' ').nth(1).unwrap().parse().unwrap();
        for number in 1..=count {
            let message = String::from_utf8(pop3.retrieve(number).await).unwrap();
            let subject = message
                .split("Subject: ")
                .nth(1)
                .unwrap()
                .split(' ')
                .next()
                .unwrap();
            *seen.entry(subject.parse().unwrap()).or_default() += 1;
        }
    }
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|number| !seen.contains_key(number))
        .collect();
    assert!(
        lost.is_empty(),
        "acknowledged and lost: {lost:?} of {}",
        acknowledged.len()
    );
    let doubled: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).collect();
    assert!(doubled.is_empty(), "there more than once: {doubled:?}");
}
