//! What an operator sees and does: the list of sessions, ending some, taking no new ones.

use daemon::identity::Role;
use daemon::link::CallError;
use directory_api::{BackendName, LoginName};
use pop_imap_proxy::Limits;
use pop_imap_proxy::operate::{Drain, ListConnections, Which};

use crate::played::World;
use crate::user::User;

fn of(user: &str) -> Which {
    Which {
        user: Some(LoginName::new(user).unwrap()),
        ..Which::default()
    }
}

#[tokio::test]
async fn sessions_are_listed_and_those_of_a_user_end_with_a_word() {
    let world = World::start(Limits::default()).await;
    let b1 = world.backend("b1").await;
    world.directory.live_at(&[("b1", b1.address)]);
    let operator = world.operator(Role::Operator);
    let mut ann = User::connect(world.imap).await;
    ann.expect("* OK").await;
    assert_eq!(ann.command("a1 LOGIN ann right").await, "+OK welcome");
    let mut bob = User::connect(world.pop3).await;
    bob.expect("+OK").await;
    bob.command("USER bob").await;
    assert_eq!(bob.command("PASS right").await, "+OK welcome");
    assert_eq!(ann.command("a2 NOOP").await, "a2 NOOP");

    let listed = operator
        .connections(&ListConnections::default())
        .await
        .unwrap();
    assert_eq!((listed.connections.len(), listed.next), (2, None));
    let first = &listed.connections[0];
    assert_eq!(
        (first.user.as_str(), first.service.as_str()),
        ("ann", "imap")
    );
    assert_eq!(first.client, ann.stream.local_addr().unwrap().to_string());
    assert_eq!(first.backend.as_str(), "b1");
    assert_eq!((first.octets_from_user, first.octets_to_user), (9, 13 + 9));

    assert_eq!(operator.kick(&of("ann")).await.unwrap().ended, 1);
    assert_eq!(ann.line().await, "bye");
    ann.expect("* BYE [UNAVAILABLE]").await;
    assert_eq!(ann.line().await, "");
    assert_eq!(bob.command("NOOP").await, "NOOP");
    world
        .counted("posthouse_proxy_sessions_total{listener=\"imap\",end=\"kicked\"}")
        .await;
    let left = operator
        .connections(&ListConnections::default())
        .await
        .unwrap();
    assert_eq!(left.connections.len(), 1);
    assert_eq!(operator.kick(&of("nobody")).await.unwrap().ended, 0);
}

#[tokio::test]
async fn nobody_but_an_operator_is_answered() {
    let world = World::start(Limits::default()).await;
    for role in [Role::StoreBackend, Role::Directory, Role::PopImapProxy] {
        let other = world.operator(role);
        let drain = Drain {
            backend: None,
            on: Some(true),
        };
        let refused = [
            other.state().await.err(),
            other.connections(&ListConnections::default()).await.err(),
            other.kick(&Which::default()).await.err(),
            other.drain(&drain).await.err(),
        ];
        for refused in refused {
            assert!(
                matches!(&refused, Some(CallError::Refused(problem)) if problem.code == "role_forbidden"),
                "{refused:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_drained_back_end_gets_no_new_sessions_and_keeps_those_it_has() {
    let world = World::start(Limits::default()).await;
    let (b1, b2) = (world.backend("b1").await, world.backend("b2").await);
    world.directory.live_at(&[("b1", b1.address)]);
    let operator = world.operator(Role::Operator);
    let mut open = User::connect(world.pop3).await;
    open.pop3_login().await;
    let mut drain = Drain {
        backend: Some(BackendName::new("b1").unwrap()),
        on: Some(true),
    };
    assert_eq!(operator.drain(&drain).await.unwrap().open, 1);
    let mut user = User::connect(world.imap).await;
    user.expect("* OK").await;
    let refused = user.command("a1 LOGIN bob right").await;
    assert!(refused.starts_with("a1 NO [UNAVAILABLE]"), "{refused}");
    assert_eq!(open.command("NOOP").await, "NOOP");
    // Who lives elsewhere is not concerned.
    world.directory.live_at(&[("b2", b2.address)]);
    assert_eq!(user.command("a2 LOGIN bob right").await, "+OK welcome");

    world.directory.live_at(&[("b1", b1.address)]);
    drain.on = Some(false);
    operator.drain(&drain).await.unwrap();
    let mut again = User::connect(world.pop3).await;
    again.pop3_login().await;
}

#[tokio::test]
async fn a_drained_proxy_is_not_ready_takes_nobody_and_says_so() {
    let world = World::start(Limits::default()).await;
    let b1 = world.backend("b1").await;
    world.directory.live_at(&[("b1", b1.address)]);
    let operator = world.operator(Role::Operator);
    let mut open = User::connect(world.pop3).await;
    open.pop3_login().await;
    let mut waiting = User::connect(world.imap).await;
    waiting.expect("* OK").await;
    let mut drain = Drain {
        backend: None,
        on: Some(true),
    };
    let drained = operator.drain(&drain).await.unwrap();
    assert_eq!((drained.proxy.as_str(), drained.open), ("p1", 1));
    let told = operator.drain(&Drain::default()).await.unwrap();
    assert!(told.is_on, "asking changes nothing");
    assert!(world.get("/health").await.starts_with("HTTP/1.1 503"));
    let mut late = User::connect(world.imap).await;
    late.expect("* OK").await;
    late.expect("* BYE [UNAVAILABLE]").await;
    assert_eq!(late.line().await, "");
    let refused = waiting.command("a1 LOGIN ann right").await;
    assert!(refused.starts_with("a1 NO [UNAVAILABLE]"), "{refused}");
    assert_eq!(open.command("NOOP").await, "NOOP");
    let state = operator.state().await.unwrap();
    assert!(state.is_drained && state.open == 1);

    drain.on = Some(false);
    assert!(!operator.drain(&drain).await.unwrap().is_on);
    world.ready().await;
    let mut again = User::connect(world.pop3).await;
    again.pop3_login().await;
}
