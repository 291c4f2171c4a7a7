//! What the DNS says of a client, and what comes of it when it says nothing.

use std::time::{Duration, Instant};

use hickory_resolver::proto::rr::RecordType;
use mx_frontend::{Action, CheckSettings, DnsList, DnsSettings, Limits};
use tokio::net::TcpStream;

use crate::balancer::behind;
use crate::client::Client;
use crate::dns::{Manner, PlayedDns};
use crate::limits::counted;
use crate::played::{PlayedBackend, World};
use crate::trouble::get;

/// A front-end that asks a played server about everybody; `ann` lives on `b1`.
pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) b1: PlayedBackend,
    pub(crate) dns: PlayedDns,
}

/// Time enough: nothing is asked a second time because the machine is busy.
pub(crate) const PATIENT: u64 = 20_000;

impl Scene {
    pub(crate) async fn new(checks: CheckSettings) -> Self {
        let dns = PlayedDns::start().await;
        let world = World::with(Limits::default(), |config| {
            config.checks = CheckSettings {
                exempt_networks: Vec::new(),
                dns: DnsSettings {
                    servers: vec![dns.address],
                    ..checks.dns.clone()
                },
                ..checks
            };
            config.balancers.networks = vec!["127.0.0.1".parse().unwrap()];
        })
        .await;
        world.start_directory().await;
        let b1 = world.backend("b1").await;
        world.directory.add("ann@example.test", &[(1, "b1", 1)]);
        world
            .directory
            .add("postmaster@example.test", &[(1, "b1", 1)]);
        Self { world, b1, dns }
    }

    pub(crate) async fn client(&self, address: &str) -> Client<TcpStream> {
        let family = if address.contains(':') { 6 } else { 4 };
        let ours = if family == 6 { "::1" } else { "127.0.0.1" };
        let header = format!("PROXY TCP{family} {address} {ours} 4711 25\r\n");
        let mut client = behind(&header, self.world.smtp).await;
        client.expect(&["220 "]).await;
        client.command("EHLO client.test").await;
        client
    }

    /// What a client from there hears to RCPT.
    async fn recipient(&self, address: &str) -> String {
        let mut client = self.client(address).await;
        client.command("MAIL FROM:<bob@sender.test>").await;
        client.command("RCPT TO:<ann@example.test>").await
    }

    /// The trace lines of a message that comes from there.
    async fn trace(&mut self, address: &str) -> String {
        let mut client = self.client(address).await;
        client.begin(&["ann@example.test"]).await;
        client.send("hello\r\n.\r\n").await;
        client.expect(&["250 2.0.0"]).await;
        self.b1.opened().await;
        let (commit, _) = self.b1.committed().await;
        let prologue = commit.recipients[0].prologue.0.clone();
        String::from_utf8(prologue).unwrap().replace("\r\n\t", " ")
    }
}

pub(crate) fn reverse(action: Action, lookup_timeout_ms: u64) -> CheckSettings {
    CheckSettings {
        reverse_dns: action,
        spf: Action::Off,
        dns: DnsSettings {
            lookup_timeout_ms,
            session_timeout_ms: lookup_timeout_ms * 2,
            ..DnsSettings::default()
        },
        ..CheckSettings::default()
    }
}

async fn lookups(world: &World, result: &str) -> u64 {
    let line = format!("posthouse_mx_dns_lookups_total{{result=\"{result}\"}} ");
    let metrics = get(world, "/metrics").await;
    let count = metrics.lines().find_map(|one| one.strip_prefix(&line));
    count.map_or(0, |count| count.trim().parse().unwrap())
}

#[tokio::test]
async fn a_name_that_leads_back_stands_in_the_trace_and_others_are_refused() {
    let mut scene = Scene::new(reverse(Action::Reject, PATIENT)).await;
    let dns = &scene.dns;
    dns.pointer("192.0.2.7", "Host.Client.Test");
    dns.address("host.client.test", "192.0.2.7");
    dns.pointer("2001:db8::7", "host6.client.test");
    dns.address("host6.client.test", "2001:db8::7");
    // The second of its names, by an alias.
    dns.pointer("192.0.2.8", "other.client.test");
    dns.pointer("192.0.2.8", "alias.client.test");
    dns.alias("alias.client.test", "real.client.test");
    dns.address("real.client.test", "192.0.2.8");
    for (address, name) in [
        ("192.0.2.7", "host.client.test"),
        ("2001:db8::7", "host6.client.test"),
        ("192.0.2.8", "alias.client.test"),
    ] {
        let trace = scene.trace(address).await;
        assert!(trace.contains(&format!("({name} [")), "{trace}");
    }

    let dns = &scene.dns;
    // Leads elsewhere; leads nowhere; is no name; goes round in a circle; no such address.
    dns.pointer("192.0.2.10", "host.client.test");
    dns.pointer("192.0.2.11", "nowhere.client.test");
    dns.pointer("192.0.2.12", "a b.client.test");
    dns.pointer("192.0.2.13", "loop.client.test");
    dns.alias("loop.client.test", "pool.client.test");
    dns.alias("pool.client.test", "loop.client.test");
    for last in [10, 11, 12, 13, 14] {
        let said = scene.recipient(&format!("192.0.2.{last}")).await;
        assert!(said.starts_with("550 5.7.25"), "{last}: {said}");
    }
    counted(&scene.world, "rcpt", "reverse_dns").await;
    // Who is refused may say so.
    let mut client = scene.client("192.0.2.14").await;
    client.command("MAIL FROM:<bob@sender.test>").await;
    let said = client.command("RCPT TO:<postmaster@example.test>").await;
    assert!(said.starts_with("250"), "{said}");

    let scene = Scene::new(reverse(Action::Defer, PATIENT)).await;
    let said = scene.recipient("192.0.2.14").await;
    assert!(said.starts_with("450 4.7.25"), "{said}");
    let scene = Scene::new(reverse(Action::Log, PATIENT)).await;
    let said = scene.recipient("192.0.2.14").await;
    assert!(said.starts_with("250"), "{said}");
    // Nobody is asked about who brings no mail, nor where nobody wants to know.
    let scene = Scene::new(reverse(Action::Log, PATIENT)).await;
    scene.client("192.0.2.14").await.command("NOOP").await;
    assert_eq!(scene.dns.asked_in_all(), 0);
    let scene = Scene::new(reverse(Action::Off, PATIENT)).await;
    let said = scene.recipient("192.0.2.14").await;
    assert!(said.starts_with("250"), "{said}");
    assert_eq!(scene.dns.asked_in_all(), 0);
}

#[tokio::test]
async fn a_dns_that_is_slow_dead_or_lies_stops_no_mail() {
    for manner in [
        Manner::Slow(Duration::from_secs(600)),
        Manner::Silent,
        Manner::WrongId,
        Manner::WrongQuestion,
        Manner::Failing,
        Manner::Garbage,
    ] {
        let mut scene = Scene::new(reverse(Action::Reject, 500)).await;
        scene.dns.behave(manner);
        let before = lookups(&scene.world, "unknown").await;
        let began = Instant::now();
        let trace = scene.trace("192.0.2.7").await;
        // As slow as the machine is: far from the server's ten minutes.
        assert!(began.elapsed() < Duration::from_secs(60), "{manner:?}");
        assert!(trace.contains("(["), "{manner:?}: {trace}");
        assert!(scene.dns.asked_in_all() > 0, "{manner:?}");
        let after = lookups(&scene.world, "unknown").await;
        assert!(after > before, "{manner:?} is not counted");
    }
    // Nobody is there at all.
    let mut scene = Scene::new(reverse(Action::Reject, 500)).await;
    drop(std::mem::replace(&mut scene.dns, PlayedDns::start().await));
    let said = scene.recipient("192.0.2.7").await;
    assert!(said.starts_with("250"), "{said}");
}

#[tokio::test]
async fn an_answer_too_long_for_udp_comes_by_tcp() {
    let mut scene = Scene::new(reverse(Action::Reject, PATIENT)).await;
    scene.dns.behave(Manner::Truncated(Duration::ZERO));
    scene.dns.pointer("192.0.2.7", "host.client.test");
    scene.dns.address("host.client.test", "192.0.2.7");
    let trace = scene.trace("192.0.2.7").await;
    assert!(trace.contains("(host.client.test ["), "{trace}");
}

#[tokio::test]
async fn many_who_ask_the_same_at_once_ask_once_and_an_answer_is_kept_as_long_as_it_is_good() {
    let scene = Scene::new(reverse(Action::Reject, PATIENT)).await;
    // All of them are there before it answers.
    scene.dns.behave(Manner::Truncated(Duration::from_secs(3)));
    let (mut together, world) = (tokio::task::JoinSet::new(), scene.world.smtp);
    for _ in 0..20 {
        together.spawn(async move {
            let mut client = behind("PROXY TCP4 192.0.2.7 127.0.0.1 4711 25\r\n", world).await;
            client.expect(&["220 "]).await;
            client.command("EHLO client.test").await;
            client.command("MAIL FROM:<bob@sender.test>").await;
            client.command("RCPT TO:<ann@example.test>").await
        });
    }
    while let Some(said) = together.join_next().await {
        let said = said.unwrap();
        assert!(said.starts_with("550 5.7.25"), "{said}");
    }
    let pointer = "7.2.0.192.in-addr.arpa";
    assert_eq!(scene.dns.asked(pointer, RecordType::PTR), 1);
    // That there is nothing is kept too, longer than those who ask at once are gathered.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let said = scene.recipient("192.0.2.7").await;
    assert!(said.starts_with("550 5.7.25"), "{said}");
    assert_eq!(scene.dns.asked(pointer, RecordType::PTR), 1);

    let mut settings = reverse(Action::Reject, PATIENT);
    settings.dns.negative_ttl_max_s = 1;
    let scene = Scene::new(settings).await;
    scene.dns.behave(Manner::Truncated(Duration::ZERO));
    scene.recipient("192.0.2.7").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    scene.recipient("192.0.2.7").await;
    assert_eq!(scene.dns.asked(pointer, RecordType::PTR), 2);
}

#[tokio::test]
async fn lists_weigh_together_and_one_of_friends_outweighs_them() {
    let list = |zone: &str, weight: i32, answers: &[&str]| DnsList {
        zone: zone.into(),
        weight,
        answers: answers.iter().map(|one| one.parse().unwrap()).collect(),
    };
    let checks = CheckSettings {
        dns_lists: Action::Reject,
        helo_syntax: Action::Reject,
        lists: vec![
            list("one.test", 1, &[]),
            list("two.test", 2, &["127.0.0.2"]),
            list("friends.test", -5, &[]),
        ],
        lists_weight_min: 3,
        ..reverse(Action::Off, PATIENT)
    };
    let scene = Scene::new(checks).await;
    let dns = &scene.dns;
    for (name, answer) in [
        ("1.2.0.192.one.test", "127.0.0.2"),
        ("1.2.0.192.two.test", "127.0.0.2"),
        // One alone is not enough, nor an answer that does not count, nor one that is none.
        ("2.2.0.192.two.test", "127.0.0.2"),
        ("3.2.0.192.one.test", "127.0.0.2"),
        ("3.2.0.192.two.test", "127.0.0.3"),
        ("4.2.0.192.one.test", "127.255.255.254"),
        ("4.2.0.192.two.test", "127.0.0.2"),
        ("5.2.0.192.one.test", "127.0.0.2"),
        ("5.2.0.192.two.test", "127.0.0.2"),
        ("5.2.0.192.friends.test", "127.0.0.1"),
        (
            "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.one.test",
            "127.0.0.2",
        ),
        (
            "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.two.test",
            "127.0.0.2",
        ),
    ] {
        dns.address(name, answer);
    }
    for (address, expected) in [
        ("192.0.2.1", "550 5.7.1"),
        ("192.0.2.2", "250"),
        ("192.0.2.3", "250"),
        ("192.0.2.4", "250"),
        ("192.0.2.5", "250"),
        ("192.0.2.6", "250"),
        ("2001:db8::7", "550 5.7.1"),
    ] {
        let said = scene.recipient(address).await;
        assert!(said.starts_with(expected), "{address}: {said}");
    }
    counted(&scene.world, "rcpt", "dns_lists").await;
    // A friend may call itself what it likes.
    for (address, expected) in [("192.0.2.6", "550 5.7.1"), ("192.0.2.5", "250")] {
        let mut client = scene.client(address).await;
        client.command("EHLO localhost").await;
        client.command("MAIL FROM:<bob@sender.test>").await;
        let said = client.command("RCPT TO:<ann@example.test>").await;
        assert!(said.starts_with(expected), "{address}: {said}");
    }
    // Lists that do not answer name nobody.
    scene.dns.behave(Manner::Failing);
    let said = scene.recipient("192.0.2.77").await;
    assert!(said.starts_with("250"), "{said}");
}
