//! What a sender's domain says of the client, and what whoever reads the message is told.

use hickory_resolver::proto::rr::RecordType;
use mx_frontend::{Action, CheckSettings, Limits};

use crate::client::Client;
use crate::dns::Manner;
use crate::limits::counted;
use crate::look_ups::{PATIENT, Scene, reverse};
use crate::played::World;

fn spf(action: Action, lookup_timeout_ms: u64) -> CheckSettings {
    CheckSettings {
        spf: action,
        ..reverse(Action::Off, lookup_timeout_ms)
    }
}

/// What RCPT is told, and if it is a yes, what Authentication-Results says and what came of the message.
async fn sent(
    scene: &mut Scene,
    address: &str,
    from: &str,
    message: &str,
) -> (String, String, String) {
    let mut client = scene.client(address).await;
    client.command(&format!("MAIL FROM:<{from}>")).await;
    let said = client.command("RCPT TO:<ann@example.test>").await;
    if !said.starts_with("250") {
        return (said, String::new(), String::new());
    }
    client.command("DATA").await;
    client.send(format!("{message}\r\n.\r\n")).await;
    client.expect(&["250 2.0.0"]).await;
    scene.b1.opened().await;
    let (commit, body) = scene.b1.committed().await;
    let prologue = String::from_utf8(commit.recipients[0].prologue.0.clone()).unwrap();
    let prologue = prologue.replace("\r\n\t", " ");
    let mut lines = prologue.lines();
    let field = lines.find_map(|line| line.strip_prefix("Authentication-Results: "));
    let field = field.unwrap_or_default().to_owned();
    (said, field, String::from_utf8(body).unwrap())
}

async fn result(scene: &mut Scene, from: &str) -> String {
    let (said, field, _) = sent(scene, "192.0.2.7", from, "hello").await;
    if said.starts_with("550 5.7.23") {
        return "refused".into();
    }
    let (_, result) = field.split_once("spf=").expect(&field);
    result.split(' ').next().unwrap().to_owned()
}

#[tokio::test]
async fn what_the_domain_says_is_told_and_a_fail_is_refused() {
    let mut scene = Scene::new(spf(Action::Reject, PATIENT)).await;
    let dns = &scene.dns;
    dns.text("pass.test", "v=spf1 ip4:192.0.2.0/24 -all");
    dns.text("fail.test", "v=spf1 ip4:198.51.100.0/24 -all");
    dns.text("soft.test", "v=spf1 ~all");
    dns.text("neutral.test", "v=spf1 ?all");
    dns.text("none.test", "nothing to see here");
    dns.text("broken.test", "v=spf1 ip4:192.0.2.0.0/24 -all");
    dns.text("mx.pass.test", "v=spf1 mx -all");
    dns.exchange("mx.pass.test", "host.pass.test");
    dns.address("host.pass.test", "192.0.2.7");
    dns.text("include.test", "v=spf1 include:pass.test -all");
    dns.text("redirect.test", "v=spf1 redirect=fail.test");
    // As long as one answer may be, in many pieces.
    let long = format!(
        "v=spf1 {} ip4:192.0.2.7 -all",
        "ip4:198.51.100.1 ".repeat(2000)
    );
    dns.text("long.test", &long);
    // Includes itself; goes round; asks for more than ten look-ups, and for ten.
    dns.text("self.test", "v=spf1 include:self.test -all");
    dns.text("round1.test", "v=spf1 include:round2.test -all");
    dns.text("round2.test", "v=spf1 include:round1.test -all");
    for count in [10, 11] {
        let many: Vec<_> = (0..count).map(|n| format!("exists:no{n}.test")).collect();
        dns.text(
            &format!("many{count}.test"),
            &format!("v=spf1 {} ?all", many.join(" ")),
        );
    }
    dns.alias("loop.test", "pool.test");
    dns.alias("pool.test", "loop.test");
    // The name in EHLO.
    dns.text("client.test", "v=spf1 -all");
    for (from, expected) in [
        ("bob@pass.test", "pass"),
        ("bob@fail.test", "refused"),
        ("bob@soft.test", "softfail"),
        ("bob@neutral.test", "neutral"),
        ("bob@none.test", "none"),
        ("bob@absent.test", "none"),
        ("bob@broken.test", "permerror"),
        ("bob@mx.pass.test", "pass"),
        ("bob@include.test", "pass"),
        ("bob@redirect.test", "refused"),
        ("bob@long.test", "pass"),
        ("bob@self.test", "permerror"),
        ("bob@round1.test", "permerror"),
        ("bob@many10.test", "neutral"),
        ("bob@many11.test", "permerror"),
        ("bob@[192.0.2.7]", "none"),
        ("", "refused"),
    ] {
        assert_eq!(result(&mut scene, from).await, expected, "<{from}>");
    }
    let looped = result(&mut scene, "bob@loop.test").await;
    assert!(
        ["none", "temperror", "permerror"].contains(&looped.as_str()),
        "{looped}"
    );
    assert_eq!(scene.dns.asked("no10.test", RecordType::A), 0);
    counted(&scene.world, "rcpt", "spf").await;

    let mut scene = Scene::new(spf(Action::Defer, PATIENT)).await;
    scene.dns.text("fail.test", "v=spf1 -all");
    let (said, ..) = sent(&mut scene, "192.0.2.7", "bob@fail.test", "hello").await;
    assert!(said.starts_with("450 4.7.23"), "{said}");
}

#[tokio::test]
async fn a_dead_dns_refuses_nobody_and_the_message_says_that_nobody_knows() {
    for manner in [Manner::Silent, Manner::Failing, Manner::WrongId] {
        let mut scene = Scene::new(CheckSettings {
            reverse_dns: Action::Reject,
            ..spf(Action::Reject, 500)
        })
        .await;
        scene.dns.behave(manner);
        let (_, field, _) = sent(&mut scene, "192.0.2.7", "bob@fail.test", "hello").await;
        assert_eq!(
            field,
            "mx.test; iprev=temperror policy.iprev=192.0.2.7; spf=temperror smtp.mailfrom=bob@fail.test",
            "{manner:?}"
        );
    }
}

#[tokio::test]
async fn results_in_our_name_are_taken_out_of_what_comes_from_outside() {
    let mut scene = Scene::new(spf(Action::Log, PATIENT)).await;
    scene.dns.text("fail.test", "v=spf1 -all");
    let forged =
        "Authentication-Results: (really)\r\n\tMX.test; spf=pass\r\n\tsmtp.mailfrom=bob@fail.test";
    let others = "Authentication-Results: mx.other.test; spf=pass";
    let message = format!("{forged}\r\n{others}\r\n{forged}\r\nSubject: x\r\n\r\n{forged}");
    let (_, field, body) = sent(&mut scene, "192.0.2.7", "bob@fail.test", &message).await;
    assert_eq!(field, "mx.test; spf=fail smtp.mailfrom=bob@fail.test");
    assert_eq!(body, format!("{others}\r\nSubject: x\r\n\r\n{forged}\r\n"));

    // A filter of ours on this machine has looked itself.
    let world = World::start(Limits::default()).await;
    let mut b1 = world.backend("b1").await;
    world.directory.add("ann@example.test", &[(1, "b1", 1)]);
    let mut client = Client::connect(world.smtp).await;
    client.begin(&["ann@example.test"]).await;
    client.send(format!("{message}\r\n.\r\n")).await;
    client.expect(&["250 2.0.0"]).await;
    b1.opened().await;
    let (commit, body) = b1.committed().await;
    assert_eq!(String::from_utf8(body).unwrap(), format!("{message}\r\n"));
    assert_eq!(commit.blob_hash.0, commit.content_key.0);
}
