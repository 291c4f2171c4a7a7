//! curl sends and reads; the commands that `posthouse up` prints do what they say; the public corpus travels.
#![cfg(feature = "peers")]
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

use e2e::pop3::Pop3;
use e2e::samples::{Sample, assert_delivered, corpus, own};
use e2e::smtp::Smtp;
use e2e::system::System;

const SENDER: &str = "carla@elsewhere.test";

fn succeeded(output: Output) -> Vec<u8> {
    assert!(
        output.status.success(),
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

fn curl(arguments: &[&str]) -> Vec<u8> {
    succeeded(
        Command::new("curl")
            .args(["-sS", "--max-time", "30"])
            .args(arguments)
            .output()
            .unwrap(),
    )
}

#[test]
fn the_commands_printed_at_the_start_work_as_they_are() {
    let system = System::start(&[]);
    let printed = system.up.printed();
    let commands: Vec<&str> = printed
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("printf ") || line.starts_with("curl "))
        .collect();
    let [send, list, read] = commands[..] else {
        panic!("three commands expected: {printed}")
    };
    let shell = |command: &str| {
        let output = Command::new("sh").args(["-ec", command]).output().unwrap();
        String::from_utf8(succeeded(output)).unwrap()
    };
    shell(send);
    assert!(shell(list).starts_with("1 "));
    assert!(shell(read).ends_with("Subject: Hello\r\n\r\nIt works.\r\n"));
}

#[test]
fn curl_sends_and_reads_every_sample_by_starttls_stls_and_pop3s() {
    let system = System::start(&[]);
    let (user, password) = system.demo(0);
    let ca = system.ca();
    let tls = ["--ssl-reqd", "--cacert", ca.to_str().unwrap()];
    let samples = own();
    let smtp = format!("smtp://{}/client.example.test", system.endpoints.mx.smtp);
    for sample in &samples {
        let envelope = [
            "--url",
            &smtp,
            "--mail-from",
            SENDER,
            "--mail-rcpt",
            &user,
            "--upload-file",
            &sample.name,
        ];
        curl(&[tls.as_slice(), &envelope].concat());
    }
    let login = format!("{user}:{password}");
    let proxy = &system.endpoints.proxy;
    for base in [
        format!("pop3://{}", proxy.pop3),
        format!("pop3s://{}", proxy.pop3s),
    ] {
        for (at, sample) in samples.iter().enumerate() {
            let url = format!("{base}/{}", at + 1);
            let message = curl(&[tls.as_slice(), &["--user", &login, "--url", &url]].concat());
            assert_delivered(&message, sample, SENDER);
        }
    }
    let wrong = format!("{login}x");
    let mut curl = Command::new("curl");
    curl.args(tls).args([
        "-sS",
        "--user",
        &wrong,
        "--url",
        &format!("pop3s://{}", proxy.pop3s),
    ]);
    let status = curl.output().unwrap().status;
    // 67: the user name, password, or similar was not accepted.
    assert_eq!(status.code(), Some(67));
}

#[test]
fn the_corpus_travels_or_is_refused_as_the_rfc_says() {
    let system = System::start(&["--seed-accounts", "2"]);
    let users = ["user00000@example.test", "user00001@example.test"];
    let (travelling, refused): (Vec<Sample>, Vec<Sample>) =
        corpus().into_iter().partition(Sample::may_travel);
    let mut smtp = Smtp::connect(system.endpoints.mx.smtp);
    for sample in &travelling {
        let reply = smtp.send(SENDER, &users, &sample.octets);
        assert_eq!(reply.code, 250, "{}: {}", sample.name, reply.text);
    }
    for sample in &refused {
        // A connection each: many refusals in one would be slowed and then cut.
        let mut smtp = Smtp::connect(system.endpoints.mx.smtp);
        let reply = smtp.send(SENDER, &users, &sample.octets);
        assert!(
            (500..600).contains(&reply.code),
            "{}: {}",
            sample.name,
            reply.text
        );
        smtp.command("NOOP").expect(250);
    }
    for user in users {
        let mut pop3 = Pop3::connect(system.endpoints.proxy.pop3).login(user, "pass");
        assert_eq!(pop3.count(), travelling.len(), "{user}");
        for (message, sample) in pop3.messages().iter().zip(&travelling) {
            assert_delivered(message, sample, SENDER);
        }
    }
    println!(
        "{} messages travelled to two accounts, {} were refused",
        travelling.len(),
        refused.len()
    );
}
