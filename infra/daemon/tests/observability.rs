//! What balancers and scrapers see, by real HTTP.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use daemon::{
    health::{Health, serve_observability},
    listener::bind,
    metrics,
    shutdown::Shutdown,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

async fn get(to: SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(to).await.unwrap();
    socket
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

fn serve(health: &Health) -> SocketAddr {
    let listener = bind(([127, 0, 0, 1], 0).into(), "test metrics").unwrap();
    let to = listener.local_addr().unwrap();
    tokio::spawn(serve_observability(
        listener,
        health.clone(),
        Shutdown::new(),
    ));
    to
}

#[tokio::test]
async fn health_tells_what_is_waited_for_and_what_fails() {
    let health = Health::new("test");
    let to = serve(&health);
    let check = async |status: &str, body: &str| {
        let answer = get(to, "/health").await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{answer}");
        assert_eq!(health.is_ready(), status == "200");
    };
    check("503", r#"{"for":["start-up"],"status":"waiting"}"#).await;
    health.set_waiting("directory at 127.0.0.1:4205");
    health.set_waiting("b1");
    check(
        "503",
        r#"{"for":["b1","directory at 127.0.0.1:4205"],"status":"waiting"}"#,
    )
    .await;
    health.arrived("directory at 127.0.0.1:4205");
    check("503", r#"{"for":["b1"],"status":"waiting"}"#).await;
    health.arrived("b1");
    check("200", r#"{"status":"ready"}"#).await;
    health.set_failing("the journal's disk does not sync");
    check(
        "503",
        r#"{"status":"failing","why":"the journal's disk does not sync"}"#,
    )
    .await;
    health.set_ready();
    check("200", r#"{"status":"ready"}"#).await;
}

#[tokio::test]
async fn metrics_carry_help_and_type() {
    let to = serve(&Health::new("test"));
    metrics::install();
    metrics::install();
    metrics::describe_counter!("posthouse_test_things_total", "Things counted by a test.");
    metrics::counter!("posthouse_test_things_total", "kind" => "a").increment(3);
    metrics::histogram!("posthouse_test_wait_seconds").record(0.3);
    let answer = get(to, "/metrics").await;
    for line in [
        "content-type: text/plain; version=0.0.4; charset=utf-8",
        "# HELP posthouse_test_things_total Things counted by a test.",
        "# TYPE posthouse_test_things_total counter",
        "posthouse_test_things_total{kind=\"a\"} 3",
        "# TYPE posthouse_test_wait_seconds histogram",
        "posthouse_test_wait_seconds_bucket{le=\"0.5\"} 1",
    ] {
        assert!(answer.contains(line), "{line} in\n{answer}");
    }
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let to = serve(&Health::new("test"));
    assert!(get(to, "/").await.starts_with("HTTP/1.1 404 "));
    let mut socket = TcpStream::connect(to).await.unwrap();
    socket
        .write_all(b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}
