//! Who gets in, how, and what the others are told.

use std::time::{Duration, Instant};

use directory_api::Service;
use pop_imap_proxy::Limits;
use testkit::address::unused_address;

use crate::played::{Play, Seen, World};
use crate::user::User;

#[tokio::test]
async fn a_wrong_password_is_refused_and_the_right_one_opens_the_home() {
    let world = World::start(Limits::default()).await;
    let mut b1 = world.backend("b1").await;
    world.directory.live_at(&[("b1", b1.address)]);
    let mut user = User::connect(world.pop3).await;
    user.expect("+OK proxy.test").await;
    user.command("USER ann").await;
    assert!(user.command("PASS wrong").await.starts_with("-ERR [AUTH]"));
    user.command("USER nobody").await;
    assert!(user.command("PASS right").await.starts_with("-ERR [AUTH]"));
    user.command("USER ann").await;
    assert_eq!(user.command("PASS right").await, "+OK welcome");
    let open = b1.opened().await;
    assert_eq!(
        (open.service, open.tls, open.tag),
        (Service::Pop3, None, None)
    );
    assert_eq!(open.client, user.stream.local_addr().unwrap().to_string());
    let asked = world.directory.asked();
    assert_eq!(asked.len(), 3);
    assert!(!asked[2].secured && asked[2].backend.is_none());
}

#[tokio::test]
async fn imap_hands_the_tag_and_the_tls_facts_to_the_home() {
    let world = World::start(Limits::default()).await;
    let mut b1 = world.backend("b1").await;
    world.directory.live_at(&[("b1", b1.address)]);
    let user = User::connect(world.imaps).await;
    let mut user = user.handshake(world.authority_pem()).await;
    user.expect("* OK").await;
    assert!(
        user.command("a1 LOGIN ann wrong")
            .await
            .starts_with("a1 NO [AUTHENTICATIONFAILED]")
    );
    user.send("a2 LOGIN ann {5+}\r\nright\r\na3 NOOP\r\n").await;
    user.expect("+OK welcome").await;
    let open = b1.opened().await;
    assert_eq!(
        (open.service, open.tag.as_deref()),
        (Service::Imap, Some("a2"))
    );
    assert!(open.tls.unwrap().starts_with("TLSv1.3 TLS13_"));
    // What was sent behind the login goes on, first and once.
    assert_eq!(user.line().await, "a3 NOOP");
    assert!(world.directory.asked()[1].secured);
}

#[tokio::test]
async fn without_tls_nobody_logs_in_and_what_was_injected_before_tls_is_gone() {
    let world = World::without_directory(|config| config.plaintext_login_on_loopback = false).await;
    world.start_directory().await;
    let mut b1 = world.backend("b1").await;
    world.directory.live_at(&[("b1", b1.address)]);

    let mut user = User::connect(world.pop3).await;
    user.expect("+OK").await;
    assert!(user.command("USER ann").await.starts_with("-ERR"));
    user.send("STLS\r\nUSER evil\r\nPASS evil\r\n").await;
    user.expect("+OK").await;
    let mut user = user.handshake(world.authority_pem()).await;
    assert!(user.command("PASS right").await.starts_with("-ERR"));
    user.command("USER ann").await;
    assert_eq!(user.command("PASS right").await, "+OK welcome");
    b1.opened().await;

    let mut user = User::connect(world.imap).await;
    assert!(user.line().await.contains("LOGINDISABLED"));
    assert!(
        user.command("a1 LOGIN ann right")
            .await
            .starts_with("a1 NO [PRIVACYREQUIRED]")
    );
    user.send("a2 STARTTLS\r\na3 LOGIN evil evil\r\n").await;
    user.expect("a2 OK").await;
    let mut user = user.handshake(world.authority_pem()).await;
    assert_eq!(user.command("a4 LOGIN ann right").await, "+OK welcome");
    assert_eq!(b1.opened().await.tag.as_deref(), Some("a4"));
    assert!(
        world
            .directory
            .asked()
            .iter()
            .all(|login| login.user == "ann")
    );
}

#[tokio::test]
async fn a_moved_home_is_followed_with_a_fresh_grant() {
    let world = World::start(Limits::default()).await;
    let (mut b1, mut b2) = (world.backend("b1").await, world.backend("b2").await);
    let mut users = Vec::new();
    for play in [Play::Moved, Play::StaleEpoch] {
        world
            .directory
            .live_at(&[("b1", b1.address), ("b2", b2.address)]);
        b1.play(play);
        let mut user = User::connect(world.pop3).await;
        user.pop3_login().await;
        let (first, second) = (b1.opened().await, b2.opened().await);
        assert_ne!(first.grant, second.grant);
        assert_eq!(first.trace_id, second.trace_id);
        users.push(user);
    }
}

#[tokio::test]
async fn a_home_that_keeps_moving_ends_in_a_temporary_answer() {
    let world = World::start(Limits::default()).await;
    let mut b1 = world.backend("b1").await;
    world.directory.live_at(&[("b1", b1.address)]);
    for _ in 0..10 {
        b1.play(Play::Moved);
    }
    let mut user = User::connect(world.pop3).await;
    user.expect("+OK").await;
    user.command("USER ann").await;
    assert!(
        user.command("PASS right")
            .await
            .starts_with("-ERR [SYS/TEMP]")
    );
    assert_eq!(world.directory.asked().len(), 3);
    for _ in 0..3 {
        b1.opened().await;
    }
}

#[tokio::test]
async fn the_home_s_interval_between_logins_is_told_and_nothing_of_its_rules_before() {
    let world = World::start(Limits::default()).await;
    let b1 = world.backend("b1").await;
    world.directory.live_at(&[("b1", b1.address)]);
    b1.play(Play::LoginDelay(17));
    let mut user = User::connect(world.pop3).await;
    user.expect("+OK").await;
    user.send("CAPA\r\n").await;
    loop {
        let line = user.line().await;
        assert!(
            !line.starts_with("EXPIRE") && !line.starts_with("LOGIN-DELAY"),
            "{line}"
        );
        if line == "." {
            break;
        }
    }
    user.command("USER ann").await;
    assert_eq!(
        user.command("PASS right").await,
        "-ERR [LOGIN-DELAY] wait 17 s"
    );
    user.command("USER ann").await;
    assert_eq!(user.command("PASS right").await, "+OK welcome");
}

#[tokio::test]
async fn a_home_that_is_gone_is_said_at_once_and_the_connection_goes_on() {
    let world = World::start(Limits::default()).await;
    let mut b2 = world.backend("b2").await;
    let dead = unused_address();
    world
        .directory
        .live_at(&[("b1", dead), ("b1", dead), ("b2", b2.address)]);
    let began = Instant::now();
    let mut user = User::connect(world.pop3).await;
    user.expect("+OK").await;
    user.command("USER ann").await;
    assert!(
        user.command("PASS right")
            .await
            .starts_with("-ERR [SYS/TEMP]")
    );
    let mut imap = User::connect(world.imap).await;
    imap.expect("* OK").await;
    assert!(
        imap.command("a1 LOGIN ann right")
            .await
            .starts_with("a1 NO [UNAVAILABLE]")
    );
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );

    b2.play(Play::Unavailable);
    user.command("USER ann").await;
    assert!(
        user.command("PASS right")
            .await
            .starts_with("-ERR [SYS/TEMP]")
    );
    user.command("USER ann").await;
    assert_eq!(user.command("PASS right").await, "+OK welcome");
    assert!(matches!(b2.next().await, Seen::Open(_)));
}

#[tokio::test]
async fn a_directory_that_is_away_is_never_a_wrong_password_and_health_says_so() {
    let world = World::without_directory(|_| {}).await;
    let mut user = User::connect(world.pop3).await;
    user.expect("+OK").await;
    user.command("USER ann").await;
    assert!(
        user.command("PASS right")
            .await
            .starts_with("-ERR [SYS/TEMP]")
    );
    let health = world.get("/health").await;
    assert!(
        health.starts_with("HTTP/1.1 503") && health.contains("directory at 127.0.0.1:"),
        "{health}"
    );

    let b1 = world.backend("b1").await;
    world.directory.live_at(&[("b1", b1.address)]);
    world.start_directory().await;
    world.ready().await;
    user.command("USER ann").await;
    assert_eq!(user.command("PASS right").await, "+OK welcome");
}

#[tokio::test]
async fn who_does_not_log_in_in_time_is_told_and_closed() {
    let world = World::start(Limits {
        login_timeout_s: 1,
        ..Limits::default()
    })
    .await;
    let mut pop3 = User::connect(world.pop3).await;
    pop3.expect("+OK").await;
    pop3.expect("-ERR").await;
    assert_eq!(pop3.line().await, "");
    let mut imap = User::connect(world.imap).await;
    imap.expect("* OK").await;
    imap.expect("* BYE").await;
    assert_eq!(imap.line().await, "");
    // One that never begins its handshake is closed as well.
    let mut imaps = User::connect(world.imaps).await;
    assert_eq!(imaps.line().await, "");
}

#[tokio::test]
async fn one_client_has_only_so_many_connections_over_all_listeners() {
    let limits = Limits {
        client_connections_max: 2,
        client_limit_on_loopback: true,
        ..Limits::default()
    };
    let world = World::start(limits).await;
    let mut pop3 = User::connect(world.pop3).await;
    pop3.expect("+OK").await;
    let mut imap = User::connect(world.imap).await;
    imap.expect("* OK").await;
    let mut third = User::connect(world.imap).await;
    third.expect("* OK").await;
    third.expect("* BYE").await;
    assert_eq!(third.line().await, "");
    assert!(pop3.command("QUIT").await.starts_with("+OK"));
    assert_eq!(pop3.line().await, "");
    let mut fourth = User::connect(world.imap).await;
    fourth.expect("* OK").await;
    assert!(fourth.command("a1 NOOP").await.starts_with("a1 OK"));
    let metrics = world.get("/metrics").await;
    assert!(
        metrics.contains("posthouse_proxy_connections_open"),
        "{metrics}"
    );
}

#[tokio::test]
async fn one_user_has_only_so_many_sessions_over_both_services() {
    let world = World::start(Limits {
        user_sessions_max: 2,
        ..Limits::default()
    })
    .await;
    let b1 = world.backend("b1").await;
    world.directory.live_at(&[("b1", b1.address)]);
    let mut first = User::connect(world.pop3).await;
    first.pop3_login().await;
    let mut second = User::connect(world.imap).await;
    second.expect("* OK").await;
    assert_eq!(second.command("a1 LOGIN ann right").await, "+OK welcome");

    let mut imap = User::connect(world.imap).await;
    imap.expect("* OK").await;
    let refused = imap.command("a1 LOGIN ann right").await;
    assert!(refused.starts_with("a1 NO [LIMIT]"), "{refused}");
    let mut pop3 = User::connect(world.pop3).await;
    pop3.expect("+OK").await;
    pop3.command("USER ann").await;
    let refused = pop3.command("PASS right").await;
    assert!(refused.starts_with("-ERR [IN-USE]"), "{refused}");
    for listener in ["imap", "pop3"] {
        let line = format!(
            "posthouse_proxy_open_failures_total{{listener=\"{listener}\",reason=\"user_sessions_max\"}}"
        );
        world.counted(&line).await;
    }
    // Somebody else is not concerned, and a place is free as soon as a session has ended.
    imap.send("a2 LOGIN bob right\r\n").await;
    imap.expect("+OK welcome").await;
    drop(first);
    let deadline = Instant::now() + crate::played::LONG;
    loop {
        pop3.command("USER ann").await;
        let answer = pop3.command("PASS right").await;
        if answer == "+OK welcome" {
            break;
        }
        assert!(answer.starts_with("-ERR [IN-USE]"), "{answer}");
        assert!(Instant::now() < deadline, "the place stays taken");
        // Ten refusals end a connection.
        pop3 = User::connect(world.pop3).await;
        pop3.expect("+OK").await;
    }
}

#[tokio::test]
async fn a_login_waits_for_the_end_of_a_move_and_not_for_ever() {
    let world = World::start(Limits {
        move_wait_s: 2,
        ..Limits::default()
    })
    .await;
    let (mut b1, mut b2) = (world.backend("b1").await, world.backend("b2").await);
    // The old home is frozen already, then the directory says so too, then the account is elsewhere.
    world
        .directory
        .live_at(&[("b1", b1.address), ("b2", b2.address)]);
    b1.play(Play::Frozen);
    let mut user = User::connect(world.pop3).await;
    user.expect("+OK").await;
    user.command("USER ann").await;
    user.send("PASS right\r\n").await;
    b1.opened().await;
    world.directory.is_moving(3);
    user.expect("+OK welcome").await;
    b2.opened().await;

    world.directory.is_moving(usize::MAX);
    let began = Instant::now();
    let mut imap = User::connect(world.imap).await;
    imap.expect("* OK").await;
    let refused = imap.command("a1 LOGIN ann right").await;
    assert!(refused.starts_with("a1 NO [UNAVAILABLE]"), "{refused}");
    assert!(began.elapsed() < crate::played::LONG);
    let metrics = world.get("/metrics").await;
    for outcome in ["over", "gave_up"] {
        let counted = metrics.lines().any(|line| {
            line.starts_with("posthouse_front_move_waits_total{") && line.contains(outcome)
        });
        assert!(counted, "{outcome} in {metrics}");
    }
}

#[tokio::test]
async fn a_home_that_stays_frozen_for_a_while_is_waited_for_while_the_directory_says_nothing() {
    let world = World::start(Limits::default()).await;
    let b1 = world.backend("b1").await;
    world.directory.live_at(&[("b1", b1.address)]);
    for _ in 0..4 {
        b1.play(Play::Frozen);
    }
    let mut user = User::connect(world.imap).await;
    user.expect("* OK").await;
    assert_eq!(user.command("a1 LOGIN ann right").await, "+OK welcome");
}

#[tokio::test]
async fn a_back_end_that_says_nothing_is_soon_not_waited_for_and_others_are_not_touched() {
    let world = World::start(Limits {
        open_timeout_s: 2,
        ..Limits::default()
    })
    .await;
    let b2 = world.backend("b2").await;
    // Takes connections and never answers, as a process that was stopped.
    let silent = std::net::TcpListener::bind(crate::played::any_port()).unwrap();
    let silent_at = silent.local_addr().unwrap();
    world.directory.live_at(&[("b1", silent_at)]);
    let mut ann = User::connect(world.imap).await;
    ann.expect("* OK").await;
    for tag in ["a1", "a2", "a3"] {
        let refused = ann.command(&format!("{tag} LOGIN ann right")).await;
        assert!(
            refused.starts_with(&format!("{tag} NO [UNAVAILABLE]")),
            "{refused}"
        );
    }
    world.directory.live_at(&[("b2", b2.address)]);
    let mut bob = User::connect(world.imap).await;
    bob.expect("* OK").await;
    assert_eq!(bob.command("a1 LOGIN bob right").await, "+OK welcome");
}

#[tokio::test]
async fn what_is_announced_and_a_back_end_lacks_is_named_and_the_program_s_own_words_go_to_the_home()
 {
    let world = World::with(|config| {
        config.imap_capabilities = ["IMAP4rev1", "idle", "MOVE"].map(str::to_owned).to_vec();
    })
    .await;
    let mut b1 = world.backend("b1").await;
    world.directory.live_at(&[("b1", b1.address)]);
    let mut user = User::connect(world.imap).await;
    let greeting = user.line().await;
    assert!(
        greeting.starts_with("* OK [CAPABILITY IMAP4rev1 idle MOVE STARTTLS AUTH="),
        "{greeting}"
    );
    user.send("a0 ID (\"name\" \"Mail\tProgram\" \"version\" NIL)\r\n")
        .await;
    user.expect("* ID (").await;
    user.expect("a0 OK").await;
    assert_eq!(user.command("a1 LOGIN ann right").await, "+OK welcome");
    let told = b1.opened().await.client_id.unwrap();
    assert_eq!(told, "(\"name\" \"Mail?Program\" \"version\" NIL)");
    // It serves all the same.
    let health = world.ready().await;
    assert!(
        health.contains("back-end b1") && health.contains("before the login: MOVE\""),
        "{health}"
    );
}
