//! Sessions that a password opens while the directory is away: by a ticket that a login has left, and by nothing else. P8.

use std::time::{Duration, Instant};

use daemon::clock::now_ms;
use daemon::config::Secret;
use daemon::identity::Role;
use daemon::link::{CallError, Link, Problem};
use directory_api::grant::{Grant, GrantSigner};
use directory_api::ticket::{Ticket, Verifier};
use directory_api::{AccountId, ChangeNumber, Service};
use store_api::session::{OpenError, Session, SessionOpen, SessionShown, left};

use crate::site::{Backend, Dialogue, Logins, PATIENCE, Site};

const RIGHT: &str = "kvoxgltvqvgh4lmzbhvxpaq3zi";

fn open(grant: String, service: Service) -> SessionOpen {
    SessionOpen {
        grant,
        service,
        client: "192.0.2.7:4711".into(),
        tls: None,
        tag: (service == Service::Imap).then(|| "a1".to_owned()),
        client_id: None,
        trace_id: "t-1".into(),
    }
}

async fn show(link: &Link, user: &str, password: &str, service: Service) -> Result<(), OpenError> {
    let shown = SessionShown {
        user: user.to_owned(),
        password: Secret::new(password.to_owned()),
        session: open(String::new(), service),
    };
    let session = Session::open_shown(link, &shown, PATIENCE).await?;
    let (_sender, mut receiver) = session.split();
    let first = receiver.next().await.unwrap().unwrap();
    let first = String::from_utf8(first.to_vec()).unwrap();
    assert!(
        first.starts_with("+OK") || first.starts_with("a1 OK"),
        "{first}"
    );
    Ok(())
}

fn is_not_verified(answer: &Result<(), OpenError>) -> bool {
    matches!(answer, Err(OpenError::NotVerified))
}

/// A grant with a ticket for POP3 and IMAP.
fn with_ticket(site: &Site, account: u64, user: &str) -> Grant {
    let ticket = Ticket {
        user: user.parse().unwrap(),
        credential: None,
        services: vec![Service::Pop3, Service::Imap],
        as_of: ChangeNumber(u64::MAX),
        expires_at_ms: now_ms() + 3_600_000,
        verifier: Verifier::of_random(RIGHT).unwrap(),
    };
    Grant {
        ticket: Some(Box::new(ticket)),
        ..site.directory.grant(account, "b1", 1, Service::Pop3)
    }
}

async fn log_in(site: &Site, backend: &Backend, grant: &str) -> Result<(), OpenError> {
    let link = site.link(Role::PopImapProxy, backend);
    let open = open(grant.to_owned(), Service::Pop3);
    Session::open(&link, &open, PATIENCE).await.map(drop)
}

async fn site() -> (Site, Backend) {
    let site = Site::new().await;
    for (local, account) in [("ann", 1), ("ben", 2), ("eve", 3)] {
        site.directory.address(local, &[account]);
        site.directory.home(account, "b1", 1);
    }
    let backend = site.backend("b1").await;
    backend.ready().await;
    (site, backend)
}

#[tokio::test]
async fn who_left_a_ticket_is_let_in_by_the_password_while_the_directory_is_away() {
    let (site, backend) = site().await;
    let signer = &site.directory.signer;
    let link = site.link(Role::PopImapProxy, &backend);
    let grant = signer.sign(&with_ticket(&site, 1, "ann@example.test"));
    log_in(&site, &backend, &grant).await.unwrap();
    // The directory answers, and knows another password: a ticket is of no use.
    let answer = show(&link, "ann@example.test", RIGHT, Service::Pop3).await;
    assert!(is_not_verified(&answer));
    show(&link, "ann@example.test", "pass", Service::Pop3)
        .await
        .unwrap();

    site.stop_directory().await;
    for service in [Service::Pop3, Service::Imap, Service::Pop3] {
        show(&link, "ann@example.test", RIGHT, service)
            .await
            .unwrap();
    }
    for (user, password) in [
        ("ann@example.test", "pass"),
        ("ann@example.test", ""),
        ("ben@example.test", RIGHT),
        ("nobody@example.test", RIGHT),
    ] {
        let answer = show(&link, user, password, Service::Imap).await;
        assert!(is_not_verified(&answer), "{user} {password:?}");
    }
    let front = site.link(Role::MxFrontend, &backend);
    match show(&front, "ann@example.test", RIGHT, Service::Pop3).await {
        Err(OpenError::Refused(problem)) => assert_eq!(problem.code, "role_forbidden"),
        other => panic!("{other:?}"),
    }
    // Nobody is let in by an empty grant, or one used before.
    for grant in ["", &grant] {
        let refused = log_in(&site, &backend, grant).await;
        assert!(matches!(refused, Err(OpenError::GrantRefused(_))));
    }
}

/// The directory knows another password by now, so that what lets in by the ticket's shows who has decided.
#[tokio::test]
async fn a_directory_that_answers_late_or_strangely_decides_and_one_that_answers_no_logins_does_not()
 {
    let (site, backend) = site().await;
    let grant = site
        .directory
        .signer
        .sign(&with_ticket(&site, 1, "ann@example.test"));
    log_in(&site, &backend, &grant).await.unwrap();
    let link = site.link(Role::PopImapProxy, &backend);
    let shows = async |password| show(&link, "ann@example.test", password, Service::Pop3).await;
    // Of one client four are asked for at once, so that the others wait longer than the directory takes, and some in vain.
    let late = Duration::from_millis(1_200);
    site.directory.plays(Logins::DecidedLate(late));
    let four = async || {
        let asked = || shows(RIGHT);
        tokio::join!(asked(), asked(), asked(), asked())
    };
    let (one, two, three) = tokio::join!(four(), four(), four());
    for (a, b, c, d) in [one, two, three] {
        assert!([a, b, c, d].iter().all(is_not_verified));
    }
    site.directory.plays(Logins::NotFound);
    assert!(is_not_verified(&shows(RIGHT).await));
    site.directory.plays(Logins::Unanswered);
    shows(RIGHT).await.unwrap();
    assert!(is_not_verified(&shows("pass").await));
    site.directory.plays(Logins::Decided);
    shows("pass").await.unwrap();
    assert!(is_not_verified(&shows(RIGHT).await));
}

#[tokio::test]
async fn who_has_left_a_ticket_is_told_while_the_directory_is_away_and_so_often() {
    let (site, backend) = site().await;
    let signer = &site.directory.signer;
    let link = site.link(Role::PopImapProxy, &backend);
    let grant = signer.sign(&with_ticket(&site, 1, "ann@example.test"));
    log_in(&site, &backend, &grant).await.unwrap();
    let code = |answer| match answer {
        Err(CallError::Refused(Problem { code, .. })) => code,
        other => panic!("{other:?}"),
    };
    // A proxy that somebody has taken over could ask for all names there may be.
    let (ann, nobody) = ("ann@example.test", "nobody@example.test");
    for user in [ann, nobody] {
        let user = user.parse().unwrap();
        assert_eq!(code(left(&link, &user).await), "directory_answers");
    }

    site.stop_directory().await;
    let user = ann.parse().unwrap();
    let began = Instant::now();
    let told = loop {
        match left(&link, &user).await {
            Ok(told) => break told,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(told.account, Some(AccountId(1)));
    let user = nobody.parse().unwrap();
    assert_eq!(left(&link, &user).await.unwrap().account, None);
    let mut asked = 0;
    let refused = loop {
        match left(&link, &user).await {
            Ok(_) => asked += 1,
            refused => break refused,
        }
        assert!(asked < 100_000);
    };
    assert_eq!(code(refused), "left_rate");
}

#[tokio::test]
async fn a_user_who_left_a_ticket_is_let_in_at_the_homes_own_listener_too() {
    let (site, backend) = site().await;
    let grant = site
        .directory
        .signer
        .sign(&with_ticket(&site, 1, "ann@example.test"));
    // By a proxy: here nobody has asked where Ann lives.
    log_in(&site, &backend, &grant).await.unwrap();
    site.stop_directory().await;
    let mut pop3 = Dialogue::open(backend.pop3).await;
    pop3.expect("+OK").await;
    pop3.ask("USER ann@example.test", "+OK").await;
    pop3.ask(&format!("PASS {RIGHT}"), "+OK").await;
    let mut pop3 = Dialogue::open(backend.pop3).await;
    pop3.expect("+OK").await;
    pop3.ask("USER ann@example.test", "+OK").await;
    pop3.ask("PASS pass", "-ERR [SYS/TEMP]").await;
}

#[tokio::test]
async fn a_ticket_that_is_forged_old_or_of_another_account_lets_nobody_in() {
    let (site, backend) = site().await;
    let signer = &site.directory.signer;
    let (stranger, _) = GrantSigner::generate().unwrap();
    let of_ann = with_ticket(&site, 1, "ann@example.test");
    let forged = stranger.sign(&of_ann);
    let forged = forged.replace(&stranger.public_key().id, &signer.public_key().id);
    let for_b2 = Grant {
        backend: "b2".parse().unwrap(),
        ..of_ann.clone()
    };
    let old = Grant {
        issued_at_ms: now_ms() - 60_000,
        expires_at_ms: now_ms() - 50_000,
        ..of_ann.clone()
    };
    // A proxy that was taken over has Ann's and Ben's: neither says anything of the other's account.
    let payload = |text: &str| text.split('.').nth(2).unwrap().to_owned();
    let (text, of_ben) = (
        signer.sign(&of_ann),
        with_ticket(&site, 2, "ben@example.test"),
    );
    let mixed = text.replace(&payload(&text), &payload(&signer.sign(&of_ben)));
    for (what, grant) in [
        ("forged", forged),
        ("for another back-end", signer.sign(&for_b2)),
        ("brought again", signer.sign(&old)),
        ("mixed", mixed),
    ] {
        let refused = log_in(&site, &backend, &grant).await;
        assert!(matches!(refused, Err(OpenError::GrantRefused(_))), "{what}");
    }
    // It expires, though the grant that brought it is good.
    let mut expired = with_ticket(&site, 3, "eve@example.test");
    expired.ticket.as_mut().unwrap().expires_at_ms = now_ms();
    log_in(&site, &backend, &signer.sign(&expired))
        .await
        .unwrap();

    site.stop_directory().await;
    let link = site.link(Role::PopImapProxy, &backend);
    for user in ["ann@example.test", "ben@example.test", "eve@example.test"] {
        let answer = show(&link, user, RIGHT, Service::Pop3).await;
        assert!(is_not_verified(&answer), "{user}");
    }
}
