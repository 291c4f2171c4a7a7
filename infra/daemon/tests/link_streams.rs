//! What goes over a link: requests, long streams, many of them, cuts and reconnects.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Json, Router, body::Body, extract::Request, routing::post};
use bytes::Bytes;
use common::{LONG, Site, any_port};
use daemon::{
    link::{BodySender, Link, LinkBody, LinkError, LinkOptions, next_data},
    listener::bind,
    shutdown::Shutdown,
};
use http::Method;
use http_body::Body as _;
use tokio::{
    io::copy_bidirectional,
    net::TcpStream,
    sync::{Barrier, mpsc, oneshot},
    task::{AbortHandle, JoinSet},
    time::timeout,
};

fn request(path: &str, body: LinkBody) -> http::Request<LinkBody> {
    http::Request::post(path).body(body).unwrap()
}

/// Sends each chunk back as it comes; a cut request cuts the answer.
async fn echo(request: Request) -> Body {
    let mut incoming = request.into_body();
    let (sender, body) = LinkBody::channel(4);
    tokio::spawn(async move {
        loop {
            match next_data(&mut incoming).await {
                Ok(Some(chunk)) => sender.send(chunk).await.unwrap(),
                Ok(None) => return sender.finish(),
                Err(_) => return,
            }
        }
    });
    Body::new(body)
}

async fn all(
    mut body: impl http_body::Body<Data = Bytes, Error = hyper::Error> + Unpin,
) -> Result<usize, LinkError> {
    let mut octets = 0;
    while let Some(chunk) = next_data(&mut body).await? {
        octets += chunk.len();
    }
    Ok(octets)
}

fn echo_router() -> Router {
    Router::new().route("/echo", post(echo))
}

/// How many octets came, and how they ended.
type Received = (usize, Result<(), String>);

/// A router that reports, for each request, what it received and how it ended.
fn recording_router() -> (Router, mpsc::UnboundedReceiver<Received>) {
    let (report, reports) = mpsc::unbounded_channel();
    let record = async move |request: Request| {
        let mut body = request.into_body();
        let mut octets = 0;
        let end = loop {
            match next_data(&mut body).await {
                Ok(Some(chunk)) => octets += chunk.len(),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.to_string()),
            }
        };
        report.send((octets, end)).unwrap();
    };
    (Router::new().route("/record", post(record)), reports)
}

#[tokio::test]
async fn json_is_asked_and_answered() {
    let site = Site::new();
    let router = Router::new().route("/double", post(async |Json(n): Json<u64>| Json(2 * n)));
    let (to, _) = site.serve(any_port(), router, &Shutdown::new());
    let answer: u64 = site
        .link(to)
        .json(Method::POST, "/double?why=not", &21, LONG)
        .await
        .unwrap();
    assert_eq!(answer, 42);
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_given_up() {
    let site = Site::new();
    let router = Router::new().route("/", post(async || std::future::pending::<()>().await));
    let (to, _) = site.serve(any_port(), router, &Shutdown::new());
    let error = site
        .link(to)
        .json::<_, ()>(Method::POST, "/", &(), Duration::from_millis(50))
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "no answer within 50 ms");
    assert!(!error.never_sent());
}

#[tokio::test]
async fn octets_flow_both_ways_at_the_same_time() {
    let site = Site::new();
    let (to, _) = site.serve(any_port(), echo_router(), &Shutdown::new());
    let (sender, body) = LinkBody::channel(1);
    let mut answer = site
        .link(to)
        .send(request("/echo", body))
        .await
        .unwrap()
        .into_body();
    for round in 0..100_u8 {
        sender.send(Bytes::from(vec![round; 100])).await.unwrap();
        // Each chunk comes back before the next is sent: nothing waits for the end of the body.
        assert_eq!(
            next_data(&mut answer).await.unwrap().unwrap(),
            vec![round; 100]
        );
    }
    assert!(!answer.is_end_stream());
    sender.finish();
    assert!(next_data(&mut answer).await.unwrap().is_none());
}

#[tokio::test]
async fn a_large_body_arrives_whole_through_small_windows() {
    let site = Site::new();
    let (router, mut reports) = recording_router();
    let (to, _) = site.serve(any_port(), router, &Shutdown::new());
    let (sender, body) = LinkBody::channel(2);
    let link = site.link(to);
    let sent = tokio::spawn(async move { link.send(request("/record", body)).await });
    let chunk = Bytes::from(vec![7; 1 << 20]);
    for _ in 0..64 {
        sender.send(chunk.clone()).await.unwrap();
    }
    sender.finish();
    assert_eq!(sent.await.unwrap().unwrap().status(), 200);
    assert_eq!(reports.recv().await.unwrap(), (64 << 20, Ok(())));
}

#[tokio::test]
async fn a_body_whose_sender_goes_away_is_cut_and_never_ends_cleanly() {
    let site = Site::new();
    let (router, mut reports) = recording_router();
    let (to, _) = site.serve(any_port(), router, &Shutdown::new());
    let link = site.link(to);
    // No octet, a few, as many as the windows hold, and many more than they hold.
    for octets in [0, 10, 256 << 10, 3 << 20] {
        let (sender, body) = LinkBody::channel(1);
        let answer = tokio::spawn({
            let link = link.clone();
            async move { link.send(request("/record", body)).await }
        });
        for part in vec![1; octets].chunks(64 << 10) {
            sender.send(Bytes::copy_from_slice(part)).await.unwrap();
        }
        drop(sender);
        let error = answer.await.unwrap().unwrap_err();
        assert!(!error.never_sent(), "{error:?}");
        let (received, end) = timeout(LONG, reports.recv()).await.unwrap().unwrap();
        assert!(received <= octets);
        assert_eq!(
            end,
            Err("the stream was cut".into()),
            "after {octets} octets"
        );
    }
    // The connection and its other streams do not suffer.
    let fine = link
        .send(request("/record", LinkBody::full("abc")))
        .await
        .unwrap();
    assert_eq!(fine.status(), 200);
    assert_eq!(reports.recv().await.unwrap(), (3, Ok(())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_cuts_on_one_connection_harm_none_of_its_other_streams() {
    const STREAMS: usize = 2000;
    let site = Site::new();
    let (router, mut reports) = recording_router();
    let (to, _) = site.serve(any_port(), router, &Shutdown::new());
    let link = site.link_with(
        to,
        LinkOptions {
            connections: 1,
            ..LinkOptions::default()
        },
    );
    let mut streams = JoinSet::new();
    for n in 0..STREAMS {
        let link = link.clone();
        streams.spawn(async move {
            let (sender, body) = LinkBody::channel(1);
            let feed = async move {
                for _ in 0..n % 4 {
                    sender.send(Bytes::from(vec![0; 1000])).await.unwrap();
                }
                match n % 2 {
                    0 => sender.finish(),
                    _ => drop(sender),
                }
            };
            let (answer, ()) = tokio::join!(link.send(request("/record", body)), feed);
            assert_eq!(answer.is_ok(), n % 2 == 0, "{n}: {answer:?}");
        });
    }
    timeout(LONG, streams.join_all()).await.unwrap();
    let mut whole = 0;
    while let Ok((octets, end)) = reports.try_recv() {
        // 0 or 2000 octets were finished; 1000 or 3000 were cut, some of them before they all arrived.
        match end {
            Ok(()) => {
                assert!([0, 2000].contains(&octets), "{octets} ended cleanly");
                whole += 1;
            }
            Err(_) => assert!(octets <= 3000),
        }
    }
    assert_eq!(whole, STREAMS / 2);
}

#[tokio::test]
async fn a_request_whose_caller_goes_away_is_cut() {
    let site = Site::new();
    let (router, mut reports) = recording_router();
    let (to, _) = site.serve(any_port(), router, &Shutdown::new());
    let (sender, body) = LinkBody::channel(1);
    let link = site.link(to);
    let call = tokio::spawn(async move { link.send(request("/record", body)).await.map(drop) });
    sender.send(Bytes::from_static(b"half")).await.unwrap();
    sender.send(Bytes::from_static(b" a mail")).await.unwrap();
    call.abort();
    timeout(LONG, sender.gone()).await.unwrap();
    // The handler is dropped with its stream or sees the cut; it never sees an end.
    drop(sender);
    if let Ok(Some((_, end))) = timeout(Duration::from_millis(200), reports.recv()).await {
        assert!(end.is_err());
    }
}

#[tokio::test]
async fn a_handler_is_dropped_where_it_waits_when_its_stream_is_reset() {
    let site = Site::new();
    let (held, mut dropped) = mpsc::channel::<()>(1);
    let (arrived, mut arrival) = mpsc::channel(1);
    let router = Router::new().route(
        "/",
        post(async move || {
            let _held = held.clone();
            arrived.send(()).await.unwrap();
            std::future::pending::<()>().await;
        }),
    );
    let down = Shutdown::new();
    let (to, _) = site.serve(any_port(), router, &down);
    let link = site.link(to);
    let call = tokio::spawn(async move { link.send(request("/", LinkBody::empty())).await });
    arrival.recv().await.unwrap();
    call.abort();
    down.begin();
    // The router's own sender goes with the server, the handler's with its stream; then nobody can send.
    assert!(timeout(LONG, dropped.recv()).await.unwrap().is_none());
    assert!(down.drained(LONG).await);
}

#[tokio::test]
async fn an_answer_whose_sender_goes_away_is_cut() {
    let site = Site::new();
    let router = Router::new().route(
        "/half",
        post(async || {
            let (sender, body) = LinkBody::channel(1);
            tokio::spawn(async move {
                sender.send(Bytes::from_static(b"half")).await.unwrap();
            });
            Body::new(body)
        }),
    );
    let (to, _) = site.serve(any_port(), router, &Shutdown::new());
    let answer = site
        .link(to)
        .send(request("/half", LinkBody::empty()))
        .await
        .unwrap();
    assert!(matches!(
        all(answer.into_body()).await,
        Err(LinkError::Cut(_))
    ));
}

#[tokio::test]
async fn a_sender_learns_that_nobody_takes_its_body() {
    let site = Site::new();
    let router = Router::new().route("/early", post(async || "no, thanks"));
    let (to, _) = site.serve(any_port(), router, &Shutdown::new());
    let (sender, body) = LinkBody::channel(1);
    let answer = site.link(to).send(request("/early", body)).await.unwrap();
    // The answer is whole although the request never ended.
    assert_eq!(all(answer.into_body()).await.unwrap(), 10);
    let fill = async { while sender.send(Bytes::from(vec![0; 65536])).await.is_ok() {} };
    timeout(LONG, fill).await.unwrap();
    timeout(LONG, sender.gone()).await.unwrap();
}

#[tokio::test]
async fn a_thousand_streams_are_open_at_once_on_one_connection() {
    const STREAMS: usize = 1000;
    let site = Site::new();
    let all_here = Arc::new(Barrier::new(STREAMS));
    let router = Router::new().route(
        "/",
        post(async move |request: Request| {
            all_here.wait().await;
            echo(request).await
        }),
    );
    let (to, _) = site.serve(any_port(), router, &Shutdown::new());
    let link = site.link_with(
        to,
        LinkOptions {
            connections: 1,
            ..LinkOptions::default()
        },
    );
    let mut streams = JoinSet::new();
    for n in 0..STREAMS {
        let link = link.clone();
        streams.spawn(async move {
            let text = format!("stream {n}");
            let body = LinkBody::full(text.clone());
            let mut answer = link.send(request("/", body)).await.unwrap().into_body();
            assert_eq!(next_data(&mut answer).await.unwrap().unwrap(), text);
            assert!(next_data(&mut answer).await.unwrap().is_none());
        });
    }
    timeout(LONG, streams.join_all()).await.unwrap();
}

#[tokio::test]
async fn streams_that_nobody_reads_do_not_stop_the_others() {
    const STUCK: usize = 100;
    let site = Site::new();
    let router = Router::new().route("/echo", post(echo)).route(
        "/stuck",
        post(async |_request: Request| std::future::pending::<()>().await),
    );
    let (to, _) = site.serve(any_port(), router, &Shutdown::new());
    let link = site.link_with(
        to,
        LinkOptions {
            connections: 1,
            ..LinkOptions::default()
        },
    );
    let mut stuck = JoinSet::new();
    for _ in 0..STUCK {
        let (sender, body) = LinkBody::channel(1);
        let link = link.clone();
        tokio::spawn(async move { link.send(request("/stuck", body)).await.map(drop) });
        stuck.spawn(async move {
            let fill = async { while sender.send(Bytes::from(vec![0; 65536])).await.is_ok() {} };
            let held = timeout(Duration::from_millis(500), fill).await;
            assert!(held.is_err(), "it must be held back");
            sender
        });
    }
    let _stuck = stuck.join_all().await;
    let body = LinkBody::full(vec![1; 1 << 20]);
    let answer = timeout(LONG, link.send(request("/echo", body)))
        .await
        .unwrap()
        .unwrap();
    let octets = timeout(LONG, all(answer.into_body())).await.unwrap();
    assert_eq!(octets.unwrap(), 1 << 20);
}

#[tokio::test]
async fn a_link_comes_back_when_its_server_does() {
    let site = Site::new();
    let down = Shutdown::new();
    let (to, serving) = site.serve(any_port(), echo_router(), &down);
    let link = site.link(to);
    let ask = async || {
        link.send(request("/echo", LinkBody::full("?")))
            .await
            .map(drop)
    };
    for _ in 0..4 {
        ask().await.unwrap();
    }
    assert!(link.is_up());
    down.begin();
    serving.await.unwrap();
    assert!(
        down.drained(LONG).await,
        "idle connections end by themselves"
    );
    let error = ask().await.unwrap_err();
    assert!(error.never_sent(), "{error:?}");
    assert!(
        daemon::log::causes(&error).contains("Connection refused"),
        "{error:?}"
    );
    assert!(!link.is_up());

    site.serve(to, echo_router(), &Shutdown::new());
    let begun = Instant::now();
    while ask().await.is_err() {
        tokio::task::yield_now().await;
    }
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "the wait after a failure stays short"
    );
    assert!(link.is_up());
}

#[tokio::test]
async fn a_server_that_drains_lets_open_streams_end() {
    let site = Site::new();
    let down = Shutdown::new();
    let (to, serving) = site.serve(any_port(), echo_router(), &down);
    let link = site.link_with(
        to,
        LinkOptions {
            connections: 1,
            ..LinkOptions::default()
        },
    );
    let (sender, body) = LinkBody::channel(1);
    let mut answer = link.send(request("/echo", body)).await.unwrap().into_body();
    down.begin();
    serving.await.unwrap();
    assert!(
        !down.drained(Duration::from_millis(100)).await,
        "a stream is open"
    );
    sender
        .send(Bytes::from_static(b"still here"))
        .await
        .unwrap();
    assert_eq!(next_data(&mut answer).await.unwrap().unwrap(), "still here");
    assert!(
        link.send(request("/echo", LinkBody::empty()))
            .await
            .unwrap_err()
            .never_sent()
    );
    sender.finish();
    assert!(next_data(&mut answer).await.unwrap().is_none());
    assert!(down.drained(LONG).await);
}

/// Passes TCP on to `to`; dropping what it gives cuts all connections at once, as a killed process does.
fn wire(to: SocketAddr) -> (SocketAddr, JoinSet<()>) {
    let listener = bind(any_port(), "wire").unwrap();
    let at = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut near, _)) = listener.accept().await {
            connections.spawn(async move {
                let mut far = TcpStream::connect(to).await.unwrap();
                _ = copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    (at, tasks)
}

#[tokio::test]
async fn a_connection_lost_under_a_request_may_have_sent_it() {
    let site = Site::new();
    let (arrived, arrival) = oneshot::channel();
    let arrived = Arc::new(std::sync::Mutex::new(Some(arrived)));
    let router = Router::new().route(
        "/",
        post(async move || {
            if let Some(arrived) = arrived.lock().unwrap().take() {
                arrived.send(()).unwrap();
            }
            std::future::pending::<()>().await;
        }),
    );
    let (to, _) = site.serve(any_port(), router, &Shutdown::new());
    let (at, wire) = wire(to);
    let link = site.link(at);
    let call = tokio::spawn(async move { link.send(request("/", LinkBody::full("x"))).await });
    arrival.await.unwrap();
    drop(wire);
    let error = timeout(LONG, call).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, LinkError::Interrupted { .. }), "{error:?}");
    assert!(!error.never_sent());
}

#[tokio::test]
async fn both_ends_of_a_stream_see_a_lost_connection_as_a_cut() {
    let site = Site::new();
    let (router, mut reports) = recording_router();
    let (to, _) = site.serve(any_port(), router.merge(echo_router()), &Shutdown::new());
    let (at, wire) = wire(to);
    let link = site.link(at);
    let (sender, body) = LinkBody::channel(1);
    let mut answer = link.send(request("/echo", body)).await.unwrap().into_body();
    sender.send(Bytes::from_static(b"a")).await.unwrap();
    next_data(&mut answer).await.unwrap().unwrap();
    let (recorded, body) = LinkBody::channel(1);
    tokio::spawn(async move { link.send(request("/record", body)).await });
    recorded.send(Bytes::from_static(b"b")).await.unwrap();
    drop(wire);
    assert!(matches!(
        timeout(LONG, next_data(&mut answer)).await.unwrap(),
        Err(LinkError::Cut(_))
    ));
    let fill = |sender: BodySender| async move {
        while sender.send(Bytes::from(vec![0; 65536])).await.is_ok() {}
    };
    timeout(LONG, fill(sender)).await.unwrap();
    timeout(LONG, fill(recorded)).await.unwrap();
    if let Ok(Some((_, end))) = timeout(Duration::from_millis(200), reports.recv()).await {
        assert!(end.is_err());
    }
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_noticed_in_ten_seconds() {
    let site = Site::new();
    let router = Router::new().route("/", post(async || std::future::pending::<()>().await));
    let (to, _) = site.serve(any_port(), router, &Shutdown::new());
    // A wire that stops passing octets on after the first moments, and keeps the connections open.
    let listener = bind(any_port(), "wire").unwrap();
    let at = listener.local_addr().unwrap();
    let _silent = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = TcpStream::connect(to).await.unwrap();
            let passing = copy_bidirectional(&mut near, &mut far);
            _ = timeout(Duration::from_millis(500), passing).await;
            kept.push((near, far));
        }
    });
    let link = site.link(at);
    let begun = Instant::now();
    let error = timeout(LONG, link.send(request("/", LinkBody::empty())))
        .await
        .unwrap()
        .unwrap_err();
    assert!(!error.never_sent());
    assert!(
        begun.elapsed() < Duration::from_secs(13),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn callers_share_one_attempt_and_survive_one_another() {
    let site = Site::new();
    let (to, _) = site.serve(any_port(), echo_router(), &Shutdown::new());
    let link = site.link_with(
        to,
        LinkOptions {
            connections: 1,
            ..LinkOptions::default()
        },
    );
    let ready = |link: Link| tokio::spawn(async move { link.ready().await });
    let callers: Vec<_> = (0..50).map(|_| ready(link.clone())).collect();
    let given_up: Vec<AbortHandle> = callers
        .iter()
        .take(25)
        .map(tokio::task::JoinHandle::abort_handle)
        .collect();
    given_up.iter().for_each(AbortHandle::abort);
    for caller in callers.into_iter().skip(25) {
        timeout(LONG, caller).await.unwrap().unwrap().unwrap();
    }
}
