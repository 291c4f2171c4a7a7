//! What becomes of connections when this process may have no more files open: a process of its own, for the limit is everybody's.
#![allow(clippy::unwrap_used)]

use std::fs::read_dir;
use std::time::Duration;

use daemon::listener::{accept_each_or, bind};
use daemon::shutdown::Shutdown;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn who_comes_when_no_more_files_may_be_open_is_refused_and_not_left_waiting() {
    let listener = bind(([127, 0, 0, 1], 0).into(), "test").unwrap();
    let to = listener.local_addr().unwrap();
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(TcpStream::connect(to).await.unwrap());
    }
    let open = read_dir("/proc/self/fd").unwrap().count() as u64;
    let before = getrlimit(Resource::Nofile);
    let tight = Rlimit {
        current: Some(open + 10),
        ..before
    };
    setrlimit(Resource::Nofile, tight).unwrap();

    let hold = |mut socket: TcpStream, _| async move {
        socket.write_all(b"welcome").await.unwrap();
        _ = socket.read_u8().await;
    };
    let full = |mut socket: TcpStream, _| async move { _ = socket.write_all(b"full").await };
    tokio::spawn(accept_each_or(listener, 1000, Shutdown::new(), hold, full));
    let (mut welcome, mut told) = (0, 0);
    for client in &mut clients {
        let mut said = [0; 4];
        timeout(LONG, client.read_exact(&mut said))
            .await
            .unwrap()
            .unwrap();
        match &said {
            b"welc" => welcome += 1,
            b"full" => told += 1,
            other => panic!("{other:?}"),
        }
    }
    // As many as there was room for, and all others.
    assert!(welcome >= 1 && told >= 20, "{welcome} {told}");

    // Once some are free all goes on.
    drop(clients);
    let again = async {
        loop {
            let mut client = TcpStream::connect(to).await.unwrap();
            let mut said = [0; 4];
            if client.read_exact(&mut said).await.is_ok() && said == *b"welc" {
                return;
            }
        }
    };
    timeout(LONG, again).await.unwrap();
}
