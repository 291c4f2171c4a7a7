//! curl sends and reads, by POP3 and by IMAP; the commands that `posthouse up` prints do what they say; the public corpus travels.
#![cfg(feature = "peers")]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::{Command, Output};

use daemon::clock::now_ms;
use e2e::eventually;
use e2e::imap::Imap;
use e2e::pop3::Pop3;
use e2e::provider::Provider;
use e2e::samples::{Sample, assert_delivered, corpus, own};
use e2e::smtp::{Smtp, ended};
use e2e::system::System;
use posthouse::ports::Port;
use testkit::issuer::Issuer;

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
    // Printed after the endpoints were written.
    let printed = eventually("everything is printed", || {
        Some(system.up.printed()).filter(|printed| printed.contains("Stop with"))
    });
    let commands: Vec<&str> = printed
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("printf ") || line.starts_with("curl "))
        .collect();
    let [send, list, by_pop3, by_imap] = commands[..] else {
        panic!("four commands expected: {printed}")
    };
    let shell = |command: &str| {
        let output = Command::new("sh").args(["-ec", command]).output().unwrap();
        String::from_utf8(succeeded(output)).unwrap()
    };
    shell(send);
    assert!(shell(list).starts_with("1 "));
    for read in [by_pop3, by_imap] {
        assert!(shell(read).ends_with("Subject: Hello\r\n\r\nIt works.\r\n"));
    }
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
fn curl_lists_appends_fetches_searches_and_commands_by_starttls_and_imaps() {
    let system = System::start(&[]);
    let (user, password) = system.demo(0);
    let login = format!("{user}:{password}");
    let ca = system.ca();
    let tls = [
        "--ssl-reqd",
        "--cacert",
        ca.to_str().unwrap(),
        "--user",
        &login,
    ];
    let proxy = &system.endpoints.proxy;
    let mut imap = Imap::connect_tls(proxy.imaps, &ca).login(&user, &password);
    let samples = own();
    for (folder, base) in [
        ("by starttls", format!("imap://{}", proxy.imap)),
        ("by imaps", format!("imaps://{}", proxy.imaps)),
    ] {
        let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
        let ask = |path: &str, more: &[&str]| {
            let url = format!("{base}/{}", path.replace(' ', "%20"));
            curl(&[tls.as_slice(), &["--url", &url], more].concat())
        };
        ask("", &["--request", &format!("CREATE \"{folder}\"")]);
        assert!(text(ask("", &[])).contains(&format!("\"/\" \"{folder}\"\r\n")));
        for sample in &samples {
            ask(folder, &["--upload-file", &sample.name]);
        }
        for (uid, sample) in (1..).zip(&samples) {
            let all = ask(&format!("{folder};UID={uid}"), &[]);
            assert_eq!(all, sample.octets, "{}", sample.name);
            assert_eq!(ask(&format!("{folder};MAILINDEX={uid}"), &[]), all);
            let part = |section: &str| ask(&format!("{folder};UID={uid};SECTION={section}"), &[]);
            assert_eq!(
                [part("HEADER"), part("TEXT")].concat(),
                all,
                "{}",
                sample.name
            );
        }
        let size = samples[0].octets.len();
        assert_eq!(
            text(ask(
                &format!("{folder}?SMALLER {} NOT LARGER {size}", size + 1),
                &[]
            )),
            text(ask(
                folder,
                &["--request", &format!("SEARCH NOT LARGER {size}")]
            ))
        );
        ask(folder, &["--request", "STORE 1 FLAGS (\\Flagged)"]);
        let told = text(ask(folder, &["--request", "FETCH 1 (UID FLAGS)"]));
        assert_eq!(told, "* 1 FETCH (UID 1 FLAGS (\\Flagged))\r\n");
        ask(folder, &["--request", "STORE 1 +FLAGS (\\Deleted)"]);
        ask(folder, &["--request", "EXPUNGE"]);
        assert_eq!(imap.messages(folder).len(), samples.len() - 1);
    }
}

#[test]
fn curl_reads_the_whole_corpus_and_appends_a_tenth_of_it() {
    let system = System::start(&["--seed-accounts", "1"]);
    let (user, password) = ("user00000@example.test", "pass");
    let login = format!("{user}:{password}");
    let ca = system.ca();
    let tls = ["--cacert", ca.to_str().unwrap(), "--user", &login];
    let proxy = &system.endpoints.proxy;
    let mut imap = Imap::connect(proxy.imap).login(user, password);
    let corpus = corpus();
    imap.append_all(
        "INBOX",
        "",
        corpus.iter().map(|sample| sample.octets.as_slice()),
    );
    let folder = tempfile::tempdir().unwrap();
    let path = |name: String| folder.path().join(name).display().to_string();
    // curl counts through the brackets, in one connection.
    let range = format!("[1-{}]", corpus.len());
    let pop3 = (
        path("pop3-#1".into()),
        format!("pop3s://{}/{range}", proxy.pop3s),
    );
    let base = format!("imaps://{}/INBOX;MAILINDEX={range}", proxy.imaps);
    let by_imap = (path("imap-#1".into()), base);
    for (files, url) in [pop3, by_imap] {
        curl(&[tls.as_slice(), &["--url", &url, "--output", &files]].concat());
    }
    for (number, sample) in (1..).zip(&corpus) {
        let read = |protocol: &str| fs::read(path(format!("{protocol}-{number}"))).unwrap();
        assert!(read("imap") == sample.octets, "{} by IMAP", sample.name);
        // POP3 has no message without a line's end.
        assert!(
            read("pop3") == ended(&sample.octets),
            "{} by POP3",
            sample.name
        );
    }

    let tenth: Vec<&Sample> = corpus.iter().step_by(10).collect();
    for (at, sample) in tenth.iter().enumerate() {
        fs::write(path(format!("up-{at}")), &sample.octets).unwrap();
    }
    imap.command("CREATE tenth");
    let url = format!("imaps://{}/tenth", proxy.imaps);
    let files = path(format!("up-[0-{}]", tenth.len() - 1));
    curl(&[tls.as_slice(), &["--url", &url, "--upload-file", &files]].concat());
    let appended = imap.messages("tenth");
    assert_eq!(appended.len(), tenth.len());
    for (message, sample) in appended.iter().zip(tenth) {
        assert!(message.octets == sample.octets, "{}", sample.name);
    }
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

#[test]
fn curl_shows_a_token_instead_of_a_password() {
    const USER: &str = "dora@example.test";
    let (provider, issuer) = (Provider::new(), Issuer::new());
    provider.take_proofs_and_tokens(&issuer.key_set());
    let _running = provider.start_for(USER, "open sesame");
    let expires = now_ms() / 1_000 + 600;
    let claims = format!(
        r#"{{"iss":"https://id.test","aud":"mail","email":"{USER}","email_verified":true,"exp":{expires}}}"#
    );
    let token = issuer.token("RS256", &claims);
    let ca = provider.ca();
    let url = format!("pop3s://localhost:{}", provider.at(Port::Pop3s).port());
    let list = |token: &str| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "30", "--cacert", ca.to_str().unwrap()]);
        curl.args(["--user", &format!("{USER}:"), "--oauth2-bearer", token]);
        curl.args(["--url", &url]).output().unwrap().status.code()
    };
    assert_eq!(list(&token), Some(0));
    // 67: the user name, password, or similar was not accepted.
    assert_eq!(list("no.token.x"), Some(67));
}
