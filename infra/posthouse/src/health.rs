//! Asks a tier for its health, as a load balancer would.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What a tier says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It serves.
    Ready,
    /// It runs and does not serve yet; what it waits for or why it fails, in its words.
    Waiting(Vec<String>),
    /// Nothing answers there.
    Away,
}

#[derive(Default, Deserialize)]
struct Answer {
    #[serde(default)]
    status: String,
    #[serde(default, rename = "for")]
    waiting_for: Vec<String>,
    #[serde(default)]
    why: Option<String>,
    #[serde(default)]
    notes: BTreeMap<String, String>,
}

/// Asks once.
pub async fn ask(address: SocketAddr) -> Condition {
    look(address).await.0
}

/// Asks once, and gives besides what somebody should look at though the tier serves, such as `stress: since …`.
pub async fn look(address: SocketAddr) -> (Condition, Vec<String>) {
    timeout(DEADLINE, exchange(address))
        .await
        .ok()
        .flatten()
        .unwrap_or((Condition::Away, Vec::new()))
}

/// None when anything goes wrong on the way: that tier is away.
async fn exchange(address: SocketAddr) -> Option<(Condition, Vec<String>)> {
    let stream = TcpStream::connect(address).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .ok()?;
    let request = http::Request::get("/health").header(http::header::HOST, address.to_string());
    let request = request.body(Empty::<Bytes>::new()).ok()?;
    let exchange = async move {
        let answer = sender.send_request(request).await.ok()?;
        let ready = answer.status().is_success();
        let body = Limited::new(answer.into_body(), ANSWER_MAX_BYTES)
            .collect()
            .await
            .ok()?
            .to_bytes();
        Some((ready, body))
    };
    // The connection moves the octets; it may end before the exchange has looked at the last of them.
    let (done, _) = tokio::join!(exchange, connection);
    let (ready, body) = done?;
    let said = serde_json::from_slice::<Answer>(&body);
    if ready {
        // Who serves, serves, whatever it says.
        let notes = notes(said.unwrap_or_default().notes);
        return Some((Condition::Ready, notes));
    }
    let said = said.ok()?;
    let named: Vec<String> = said.waiting_for.into_iter().chain(said.why).collect();
    let named = if named.is_empty() {
        vec![said.status]
    } else {
        named
    };
    Some((Condition::Waiting(named), notes(said.notes)))
}

fn notes(notes: BTreeMap<String, String>) -> Vec<String> {
    let line = |(what, text)| format!("{what}: {text}");
    notes.into_iter().map(line).collect()
}

/// On loopback an answer takes a millisecond; a stopped process never gives one.
const DEADLINE: Duration = Duration::from_secs(2);
/// An answer is one short line.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn told(answer: &'static str) -> Condition {
        ask(answering(answer).await).await
    }

    async fn answering(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            _ = stream.read(&mut [0; 4096]).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        address
    }

    #[tokio::test]
    async fn an_answer_is_understood_and_silence_is_away() {
        assert_eq!(
            told("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await,
            Condition::Ready
        );
        let waiting = "HTTP/1.1 503 x\r\ncontent-length: 38\r\n\r\n{\"status\":\"waiting\",\"for\":[\"directory\"]}";
        assert_eq!(
            told(waiting).await,
            Condition::Away,
            "cut short by its own length"
        );
        let waiting = "HTTP/1.1 503 x\r\ncontent-length: 40\r\n\r\n{\"status\":\"waiting\",\"for\":[\"directory\"]}";
        assert_eq!(
            told(waiting).await,
            Condition::Waiting(vec!["directory".into()])
        );
        assert_eq!(told("nonsense\r\n\r\n").await, Condition::Away);
    }

    #[tokio::test]
    async fn what_is_to_be_looked_at_is_told_of_a_tier_that_serves() {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 56\r\n\r\n{\"status\":\"ready\",\"notes\":{\"stress\":\"since 9 of 10\"}}   ";
        let (condition, notes) = look(answering(answer).await).await;
        assert_eq!(condition, Condition::Ready);
        assert_eq!(notes, ["stress: since 9 of 10"]);
    }
}
