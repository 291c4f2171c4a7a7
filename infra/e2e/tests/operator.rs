//! What an operator does with the real command, and what users and senders see of it.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use e2e::eventually;
use e2e::imap::Imap;
use e2e::pop3::Pop3;
use e2e::smtp::Smtp;
use e2e::system::{Running, System, posthouse};
use rustix::process::Signal;
use serde_json::Value;

/// Runs a verb: whether it succeeded, and what it printed.
fn verb(system: &System, arguments: &[&str]) -> (bool, String) {
    let data = system.data.to_str().unwrap();
    posthouse(&[arguments, &["--data", data]].concat())
}

fn done(system: &System, arguments: &[&str]) -> String {
    let (success, printed) = verb(system, arguments);
    assert!(success, "{arguments:?}: {printed}");
    printed
}

/// One line of what was printed as JSON.
fn json(printed: &str, has: &str, value: &str) -> Value {
    let mut objects = printed
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let found = objects.rfind(|line: &Value| line[has] == value);
    found.unwrap_or_else(|| panic!("no {has} {value}: {printed}"))
}

fn file(folder: &Path, name: &str, lines: &[&str]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    path
}

#[test]
fn a_file_of_another_system_is_imported_again_and_again_and_exported() {
    let system = System::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let all = file(
        folder.path(),
        "all.jsonl",
        &[
            // An address may stand before the account, an alias before the domain that it is of.
            r#"{"address":"ann@new.test","targets":["ann@new.test"]}"#,
            r#"{"domain":"other.test","alias_of":"new.test"}"#,
            r#"{"domain":"new.test"}"#,
            r#"{"account":"ann@new.test","password":"ann's","quota_octets":1000000}"#,
            r#"{"account":"bob@new.test","hashed":"{SSHA256}nonsense-of-bob","services":["pop3"]}"#,
            r#"{"address":"team@new.test","targets":["ann@new.test","=cid@new.test"]}"#,
        ],
    );
    let import = |path: &Path, options: &[&str]| {
        let arguments = [&["import", path.to_str().unwrap(), "--json"], options].concat();
        verb(&system, &arguments)
    };
    let counts = |printed: &str, kind: &str| {
        let line = json(printed, "kind", kind);
        ["created", "equal", "updated", "refused"].map(|what| line[what].as_u64().unwrap())
    };

    // Bob's hash cannot be one: the directory says so, on a trial as in earnest.
    let (whole, said) = import(&all, &["--dry-run"]);
    assert!(!whole && said.contains("all.jsonl:5: "), "{said}");
    assert_eq!(counts(&said, "domain"), [2, 0, 0, 0]);
    assert_eq!(counts(&said, "account"), [1, 0, 0, 1]);
    assert_eq!(counts(&said, "address"), [2, 0, 0, 0]);
    assert!(!done(&system, &["domain", "list"]).contains("new.test"));

    let (whole, said) = import(&all, &[]);
    assert!(!whole && said.contains("all.jsonl:5: "), "{said}");
    assert_eq!(counts(&said, "account"), [1, 0, 0, 1]);
    let text = fs::read_to_string(&all).unwrap();
    fs::write(
        &all,
        text.replace("{SSHA256}nonsense-of-bob", "{PLAIN}bob's"),
    )
    .unwrap();
    let (whole, said) = import(&all, &[]);
    assert!(whole, "{said}");
    assert_eq!(counts(&said, "domain"), [0, 2, 0, 0]);
    assert_eq!(counts(&said, "account"), [1, 1, 0, 0]);
    assert_eq!(counts(&said, "address"), [0, 2, 0, 0]);

    // They are in use, under the other name of the domain too.
    let mail = b"Subject: welcome\r\n\r\nhello\r\n";
    let mut smtp = Smtp::connect(system.endpoints.mx.smtp);
    let to = ["ann@other.test", "team@new.test"];
    smtp.send("carla@elsewhere.test", &to, mail).expect(250);
    let pop3 = || Pop3::connect_tls(system.endpoints.proxy.pop3s, &system.ca());
    assert_eq!(pop3().login("ann@other.test", "ann's").count(), 1);
    drop(pop3().login("bob@new.test", "bob's"));

    // A file with a line that cannot be read changes nothing; a difference wants to be said.
    let broken = file(
        folder.path(),
        "broken.csv",
        &[
            "address,targets",
            "x@new.test,ann@new.test",
            "\"y@new.test\",a b@new.test,z",
            "x@new.test,=ann@new.test",
        ],
    );
    let (whole, said) = import(&broken, &[]);
    assert!(!whole, "{said}");
    assert!(said.contains("broken.csv:3: 3 fields"), "{said}");
    assert!(
        said.contains("broken.csv:4: stands on line 2 already"),
        "{said}"
    );
    assert!(!done(&system, &["address", "list"]).contains("x@new.test"));
    let other = file(
        folder.path(),
        "other.csv",
        &[
            "address,targets",
            "team@new.test,bob@new.test",
            "x@nowhere.test,=ann@new.test",
        ],
    );
    let (whole, said) = import(&other, &[]);
    assert!(!whole, "{said}");
    assert!(
        said.contains("other.csv:2: ") && said.contains("--update"),
        "{said}"
    );
    assert!(said.contains("other.csv:3: domain nowhere.test"), "{said}");
    let (_, said) = import(&other, &["--update"]);
    assert_eq!(counts(&said, "address"), [0, 0, 1, 1]);

    // A pipe gives its octets once, and they are read several times.
    let pipe = folder.path().join("pipe.csv");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let (whole, said) = import(&pipe, &[]);
    assert!(!whole && said.contains("no regular file"), "{said}");

    // What is exported is there and equal.
    let exported = folder.path().join("exported.jsonl");
    fs::write(&exported, done(&system, &["export"])).unwrap();
    let (whole, said) = import(&exported, &[]);
    assert!(whole, "{said}");
    assert_eq!(counts(&said, "domain"), [0, 3, 0, 0]);
    assert_eq!(counts(&said, "account"), [0, 4, 0, 0]);
    for (kind, name) in [("accounts", "account"), ("addresses", "address")] {
        let path = folder.path().join(format!("{kind}.csv"));
        let printed = done(&system, &["export", "--only", kind, "--format", "csv"]);
        fs::write(&path, printed).unwrap();
        let (whole, said) = import(&path, &[]);
        assert!(whole && counts(&said, name)[1] >= 4, "{said}");
    }
}

#[test]
fn an_import_that_was_killed_is_gone_on_with() {
    let system = System::start(&[]);
    let (user, _) = system.demo(0);
    let domain = user.split_once('@').unwrap().1;
    let folder = tempfile::tempdir().unwrap();
    let lines: Vec<String> = (0..12_000)
        .map(|n| format!(r#"{{"address":"a{n}@{domain}","targets":["{user}"]}}"#))
        .collect();
    let path = folder.path().join("many.jsonl");
    fs::write(&path, lines.join("\n")).unwrap();
    let path = path.to_str().unwrap();
    let data = system.data.to_str().unwrap();
    let mut import = Running::start(
        "posthouse",
        ["import", path, "--data", data],
        folder.path(),
        "import",
    );
    let first = format!("a0@{domain}");
    eventually("the first batch is there", || {
        verb(&system, &["address", "show", &first]).0.then_some(())
    });
    import.signal(Signal::KILL);
    import.ended();
    let said = done(&system, &["import", path, "--json"]);
    let counts = json(&said, "kind", "address");
    let (created, equal) = (&counts["created"], &counts["equal"]);
    assert_eq!(
        created.as_u64().unwrap() + equal.as_u64().unwrap(),
        12_000,
        "{said}"
    );
    assert!(equal.as_u64().unwrap() >= 5_000, "{said}");
}

#[test]
fn an_operator_closes_accounts_edits_groups_and_makes_app_passwords() {
    let system = System::start(&[]);
    let (user, password) = system.demo(0);
    let (other, _) = system.demo(1);
    let make = |name: &str, options: &[&str]| {
        let add = ["account", "app-password", "add", &user, name, "--json"];
        let made = json(&done(&system, &[&add, options].concat()), "name", name);
        made["password"].as_str().unwrap().to_owned()
    };
    let (phone, laptop) = (make("phone", &["--services", "imap"]), make("laptop", &[]));
    let pop3 = || Pop3::connect_tls(system.endpoints.proxy.pop3s, &system.ca());
    let refused = |password: &str| {
        let mut pop3 = pop3();
        pop3.command(&format!("USER {user}"));
        pop3.try_command(&format!("PASS {password}")).is_err()
    };
    drop(Imap::connect_tls(system.endpoints.proxy.imaps, &system.ca()).login(&user, &phone));
    assert!(refused(&phone), "it is for IMAP alone");
    drop((pop3().login(&user, &laptop), pop3().login(&user, &password)));
    let list = ["account", "app-password", "list", &user, "--json"];
    let listed = done(&system, &list);
    assert!(
        json(&listed, "name", "phone")["last_used_ms"].is_i64(),
        "{listed}"
    );
    done(
        &system,
        &["account", "app-password", "remove", &user, "laptop"],
    );
    assert!(refused(&laptop) && !refused(&password));

    let domain = user.split_once('@').unwrap().1;
    let group = format!("all@{domain}");
    done(&system, &["address", "add", &group, &user]);
    done(&system, &["address", "add", &group, &other]);
    done(&system, &["account", "set", &user, "--status", "closing"]);
    let mut smtp = Smtp::connect(system.endpoints.mx.smtp);
    smtp.command("MAIL FROM:<carla@elsewhere.test>").expect(250);
    smtp.command(&format!("RCPT TO:<{group}>")).expect(250);
    let unknown = smtp.command(&format!("RCPT TO:<{user}>"));
    unknown.expect(550);
    assert!(unknown.text.contains("5.1.1"), "{}", unknown.text);
    assert!(refused(&password));
    let rest = done(&system, &["address", "remove", &group, &user, "--json"]);
    let rest = json(&rest, "address", &group)["targets"]
        .as_array()
        .unwrap()
        .len();
    assert_eq!(rest, 1);
    done(&system, &["account", "set", &user, "--status", "active"]);
    drop(pop3().login(&user, &password));
}

#[test]
fn why_tells_the_way_of_mail_the_home_and_the_last_refusals() {
    let system = System::start(&[]);
    let (user, _) = system.demo(0);
    let (local, domain) = user.split_once('@').unwrap();
    done(
        &system,
        &["domain", "add", "other.test", "--alias-of", domain],
    );
    let group = format!("all@{domain}");
    let alias = format!("={local}@other.test");
    done(&system, &["address", "add", &group, &alias]);
    let mut pop3 = Pop3::connect_tls(system.endpoints.proxy.pop3s, &system.ca());
    pop3.command(&format!("USER {local}@other.test"));
    assert!(pop3.try_command("PASS wrong").is_err());
    let why = |name: &str, words: &[&str]| {
        let said = done(&system, &["why", name]);
        for word in words {
            assert!(said.contains(word), "{word:?} is not in: {said}");
        }
    };
    let of = format!("the domain is another name of {domain}");
    let words = [
        &*of,
        "account 1",
        "mail: accepted",
        "home: b1/main",
        "as was demanded",
    ];
    why(&group, &words);
    why(
        &format!("{local}@other.test"),
        &["login: as account 1", "bad_credentials", "127.0.0.1"],
    );

    let nobody = format!("nobody@{domain}");
    let mut smtp = Smtp::connect(system.endpoints.mx.smtp);
    smtp.command("MAIL FROM:<carla@elsewhere.test>").expect(250);
    smtp.command(&format!("RCPT TO:<{nobody}>")).expect(550);
    why(
        &nobody,
        &[
            "mail: refused, unknown_address",
            "recipient, asked by",
            "nobody has this name",
        ],
    );
    why(
        "x@nowhere.test",
        &["unknown_domain", "none that the directory remembers"],
    );
    let said = done(&system, &["why", &user, "--json"]);
    let told: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(told["accounts"][0]["account"]["placed"]["by"], "demand");
    assert_eq!(told["refusals"]["items"][0]["code"], "bad_credentials");
}

#[test]
fn a_foreign_back_end_keeps_the_service_of_which_nothing_is_said() {
    let system = System::start(&[]);
    let told = |arguments: &[&str]| {
        let said = done(&system, &[&["backend"], arguments, &["--json"]].concat());
        let backend: Value = serde_json::from_str(&said).unwrap();
        ["imap", "pop3"].map(|service| {
            let address = &backend["foreign"][service]["address"];
            address.as_str().map(str::to_owned)
        })
    };
    let at = |host: &str| Some(host.to_owned());
    let added = told(&["add", "old", "--foreign-imap", "implicit:one.test:993"]);
    assert_eq!(added, [at("one.test:993"), None]);
    let set = told(&["set", "old", "--foreign-pop3", "starttls:one.test:110"]);
    assert_eq!(set, [at("one.test:993"), at("one.test:110")]);
    let set = told(&["set", "old", "--foreign-imap", "plain:two.test:143"]);
    assert_eq!(set, [at("two.test:143"), at("one.test:110")]);
    let set = told(&["set", "old", "--foreign-imap", "none"]);
    assert_eq!(set, [None, at("one.test:110")]);
    let (success, said) = verb(
        &system,
        &["backend", "set", "old", "--foreign-pop3", "none"],
    );
    assert!(!success && said.contains("needs the address"), "{said}");
}
