//! Which grants open a session, and what a session stream answers. P8.

use std::time::Duration;

use daemon::clock::now_ms;
use daemon::identity::Role;
use daemon::link::Link;
use directory_api::Service;
use directory_api::grant::{Grant, GrantSigner};
use store_api::session::{OpenError, Session, SessionOpen};

use crate::site::{Backend, Dialogue, PATIENCE, Site, until_listed};

fn open(grant: String) -> SessionOpen {
    SessionOpen {
        grant,
        service: Service::Pop3,
        client: "192.0.2.7:4711".into(),
        tls: None,
        tag: None,
        client_id: None,
        trace_id: "t-1".into(),
    }
}

async fn opened(link: &Link, grant: String) -> Result<Session, OpenError> {
    Session::open(link, &open(grant), PATIENCE).await
}

async fn site() -> (Site, Backend) {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let backend = site.backend("b1").await;
    (site, backend)
}

#[tokio::test]
async fn a_grant_opens_its_session_once() {
    let (site, backend) = site().await;
    let mut lmtp = Dialogue::lmtp(&backend).await;
    lmtp.deliver(&["ann"], b"Subject: by the proxy\r\n\r\n")
        .await;
    drop(until_listed(&backend, "ann", 1).await);
    let link = site.link(Role::PopImapProxy, &backend);
    let grant = site
        .directory
        .signer
        .sign(&site.directory.grant(1, "b1", 1, Service::Pop3));
    let (sender, mut receiver) = opened(&link, grant.clone()).await.unwrap().split();
    sender
        .send("STAT\r\nRETR 1\r\nQUIT\r\n".into())
        .await
        .unwrap();
    let mut said = Vec::new();
    while let Some(octets) = receiver.next().await.unwrap() {
        said.extend_from_slice(&octets);
    }
    let said = String::from_utf8(said).unwrap();
    assert!(
        said.starts_with("+OK"),
        "the login is answered first: {said}"
    );
    assert!(said.contains("\r\n+OK 1 "), "{said}");
    assert!(
        said.contains("Subject: by the proxy\r\n\r\n.\r\n"),
        "{said}"
    );
    assert!(
        matches!(opened(&link, grant).await, Err(OpenError::GrantRefused(_))),
        "used before"
    );
}

#[tokio::test]
async fn a_login_within_the_interval_is_told_to_the_proxy_with_the_seconds_left() {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let backend = site.backend_starting("b1", "pop3_login_delay_s = 300");
    backend.ready().await;
    let link = site.link(Role::PopImapProxy, &backend);
    let grant = || {
        let grant = site.directory.grant(1, "b1", 1, Service::Pop3);
        site.directory.signer.sign(&grant)
    };
    opened(&link, grant()).await.unwrap();
    let refused = opened(&link, grant()).await;
    assert!(
        matches!(refused, Err(OpenError::LoginDelay(1..=300))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_grant_that_is_missing_expired_forged_or_foreign_is_refused() {
    let (site, backend) = site().await;
    let link = site.link(Role::PopImapProxy, &backend);
    let signer = &site.directory.signer;
    let good = || site.directory.grant(1, "b1", 1, Service::Pop3);
    let (stranger, _) = GrantSigner::generate().unwrap();
    let mut cut = signer.sign(&good());
    cut.truncate(cut.len() - 3);
    let mut altered = signer.sign(&good());
    let other = signer.sign(&Grant {
        account: directory_api::AccountId(2),
        ..good()
    });
    let payload = |text: &str| text.split('.').nth(2).unwrap().to_owned();
    altered = altered.replace(&payload(&altered), &payload(&other));
    let refused = [
        ("missing", String::new()),
        ("cut", cut),
        ("altered", altered),
        (
            "expired",
            signer.sign(&Grant {
                issued_at_ms: now_ms() - 60_000,
                expires_at_ms: now_ms() - 50_000,
                ..good()
            }),
        ),
        ("forged", stranger.sign(&good())),
        (
            "for another back-end",
            signer.sign(&Grant {
                backend: "b2".parse().unwrap(),
                ..good()
            }),
        ),
        (
            "for another service",
            signer.sign(&Grant {
                service: Service::Imap,
                ..good()
            }),
        ),
        (
            "from before the start",
            signer.sign(&Grant {
                issued_at_ms: now_ms() - 9_000,
                expires_at_ms: now_ms() + 9_000,
                ..good()
            }),
        ),
        (
            "from the future",
            signer.sign(&Grant {
                issued_at_ms: now_ms() + 60_000,
                expires_at_ms: now_ms() + 70_000,
                ..good()
            }),
        ),
    ];
    for (what, grant) in refused {
        if what == "from before the start" && backend.started.elapsed() > Duration::from_secs(8) {
            continue;
        }
        let answer = opened(&link, grant).await;
        assert!(
            matches!(answer, Err(OpenError::GrantRefused(_))),
            "a grant {what}: {:?}",
            answer.err()
        );
    }
    assert!(opened(&link, signer.sign(&good())).await.is_ok());
}

#[tokio::test]
async fn an_old_epoch_is_told_and_other_roles_are_refused() {
    let (site, backend) = site().await;
    let signer = &site.directory.signer;
    let link = site.link(Role::PopImapProxy, &backend);
    drop(
        opened(
            &link,
            signer.sign(&site.directory.grant(1, "b1", 5, Service::Pop3)),
        )
        .await
        .unwrap(),
    );
    let stale = opened(
        &link,
        signer.sign(&site.directory.grant(1, "b1", 4, Service::Pop3)),
    )
    .await;
    assert!(
        matches!(stale, Err(OpenError::StaleEpoch)),
        "{:?}",
        stale.err()
    );
    let front = site.link(Role::MxFrontend, &backend);
    let grant = signer.sign(&site.directory.grant(1, "b1", 5, Service::Pop3));
    match opened(&front, grant).await {
        Err(OpenError::Refused(problem)) => assert_eq!(problem.code, "role_forbidden"),
        other => panic!("{:?}", other.err()),
    }
}
