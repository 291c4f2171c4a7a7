//! What accounts cost is seen by an operator, and a plan made of it does what it says, however old it is when it is run.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use e2e::pop3::Pop3;
use e2e::programs::program;
use e2e::smtp::Smtp;
use e2e::system::System;
use serde_json::Value;

const SENDER: &str = "carla@elsewhere.test";

/// Runs a program on the system's data: whether it succeeded, and what it printed.
fn run(system: &System, name: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(program(name));
    command.args(arguments).arg("--data").arg(&system.data);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(printed).unwrap())
}

fn done(system: &System, name: &str, arguments: &[&str]) -> String {
    let (success, printed) = run(system, name, arguments);
    assert!(success, "{name} {arguments:?}: {printed}");
    printed
}

fn migrate(system: &System, arguments: &[&str]) -> String {
    done(system, "migrator", arguments)
}

/// The lines of JSON that an operator's verb prints.
fn shown(system: &System, arguments: &[&str]) -> Vec<Value> {
    let printed = done(system, "posthouse", &[arguments, &["--json"]].concat());
    printed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn home(system: &System, account: &str) -> String {
    let shown = shown(system, &["account", "show", account]);
    shown[0]["home"]["backend"].as_str().unwrap().to_owned()
}

fn letters(system: &System, account: &str, password: &str) -> Vec<Vec<u8>> {
    let pop3 = Pop3::connect(system.endpoints.proxy.pop3);
    pop3.login(account, password).messages()
}

fn send(system: &System, to: &[&str], count: usize) {
    for number in 0..count {
        let mut smtp = Smtp::connect(system.endpoints.mx.smtp);
        let letter = format!("Subject: {number}\r\n\r\nletter {number}\r\n");
        smtp.send(SENDER, to, letter.as_bytes()).expect(250);
    }
}

/// Makes a plan that empties a back-end, in files beside the data.
struct Emptying {
    plan: String,
    load: String,
    page: String,
}

impl Emptying {
    fn of(system: &System, from: &str) -> Self {
        let beside = |name: &str| {
            let path = system.data.join(name);
            path.to_str().unwrap().to_owned()
        };
        let files = Self {
            plan: beside("plan.json"),
            load: beside("load.jsonl"),
            page: beside("plan.html"),
        };
        done(
            system,
            "posthouse",
            &["backend", "set", from, "--state", "draining"],
        );
        let said = migrate(
            system,
            &[
                "plan",
                "--out",
                &files.plan,
                "--record",
                &files.load,
                "--html",
                &files.page,
            ],
        );
        assert!(said.contains("its back-end is being emptied"), "{said}");
        assert!(said.contains("nothing was moved"), "{said}");
        files
    }
}

fn json(path: &str) -> Value {
    serde_json::from_slice(&fs::read(Path::new(path)).unwrap()).unwrap()
}

fn report(printed: &str) -> Value {
    let line = printed.lines().find(|line| line.starts_with('{'));
    serde_json::from_str(line.unwrap()).unwrap()
}

#[test]
fn a_plan_is_shown_then_done_then_told_against_what_came_of_it() {
    let system = System::start(&["--seed-accounts", "1"]);
    let ((anna, password), (ben, _)) = (system.demo(0), system.demo(1));
    send(&system, &[&anna, &ben], 3);
    let before = letters(&system, &anna, &password);
    assert_eq!(before.len(), 3);
    let (from, other_home) = (home(&system, &anna), home(&system, &ben));
    assert_ne!(from, other_home);

    let loads = shown(&system, &["load"]);
    let volumes = loads.iter().filter(|one| one["weight"].is_number());
    let volumes: Vec<&Value> = volumes.collect();
    assert_eq!(volumes.len(), 2, "{loads:?}");
    assert!(
        volumes.iter().all(|one| one["is_open"] == true),
        "{loads:?}"
    );
    assert!(done(&system, "posthouse", &["load", "--accounts", "0"]).contains("BUSY/H"));

    let files = Emptying::of(&system, &from);
    assert_eq!(home(&system, &anna), from, "a plan moves nobody");
    let plan = json(&files.plan);
    let moves = plan["moves"].as_array().unwrap();
    assert!(!moves.is_empty());
    assert!(moves.iter().all(|one| one["from"] == from.as_str()));
    let page = fs::read_to_string(&files.page).unwrap();
    assert!(page.contains("<svg") && !page.contains("<script"));
    // What was recorded gives the same plan, and nobody is asked for it.
    let again = system.data.join("again.json");
    let again = again.to_str().unwrap();
    migrate(&system, &["plan", "--from", &files.load, "--out", again]);
    assert_eq!(json(again)["moves"], plan["moves"]);

    let told = report(&migrate(&system, &["run", &files.plan, "--json"]));
    assert_eq!(told["moved"], moves.len(), "{told}");
    assert_eq!(told["failed"], 0);
    assert_eq!(told["predicted_octets"], plan["moved_octets"]);
    let of = |name: &str| {
        let mut backends = told["backends"].as_array().unwrap().iter();
        backends.find(|one| one["backend"] == name).unwrap()
    };
    assert!(of(&from)["actual"].is_number(), "{told}");
    assert_eq!(home(&system, &anna), other_home);
    assert_eq!(letters(&system, &anna, &password), before);
    send(&system, &[&anna], 1);
    assert_eq!(letters(&system, &anna, &password).len(), 4);

    // Nothing is done twice.
    let told = report(&migrate(&system, &["run", &files.plan, "--json"]));
    assert_eq!(told["moved"], 0, "{told}");
    assert_eq!(told["failed"], 0, "{told}");
    assert_eq!(told["already_there"], moves.len());
    assert!(migrate(&system, &["run", &files.plan]).contains("there already"));
}

#[test]
fn a_plan_that_time_has_overtaken_moves_nobody_whom_it_does_not_mean() {
    let system = System::start(&["--seed-accounts", "4"]);
    let (anna, password) = system.demo(0);
    send(&system, &[&anna], 2);
    let (from, before) = (home(&system, &anna), letters(&system, &anna, &password));
    let to = if from == "b1" { "b2" } else { "b1" };
    let files = Emptying::of(&system, &from);
    let plan = json(&files.plan);
    let number = shown(&system, &["account", "show", &anna])[0]["id"].clone();
    let moves = plan["moves"].as_array().unwrap();
    assert!(moves.iter().any(|one| one["account"] == number));

    // Older than a week: the answer says so, and nothing is done.
    let mut old = plan.clone();
    old["taken_ms"] = (plan["taken_ms"].as_i64().unwrap() - 8 * 86_400_000).into();
    let old_file = system.data.join("old.json");
    fs::write(&old_file, old.to_string()).unwrap();
    let old_file = old_file.to_str().unwrap();
    let (success, said) = run(&system, "migrator", &["run", old_file]);
    assert!(!success && said.contains("8 days old"), "{said}");
    assert_eq!(home(&system, &anna), from);

    // Moved away and back: it lives where the plan says, and is not whom the plan means.
    done(
        &system,
        "posthouse",
        &["backend", "set", &from, "--state", "active"],
    );
    migrate(&system, &["move", &anna, "--to", to]);
    migrate(&system, &["move", &anna, "--to", &from]);
    // And one of the others is gone.
    let gone = moves.iter().find(|one| one["account"] != number);
    if let Some(gone) = gone {
        let gone = gone["account"].to_string();
        done(&system, "posthouse", &["account", "remove", &gone]);
    }
    let told = report(&migrate(
        &system,
        &["run", old_file, "--age-max", "9", "--json"],
    ));
    assert_eq!(told["moved_since"], 1, "{told}");
    assert_eq!(told["gone"], usize::from(gone.is_some()), "{told}");
    assert_eq!(home(&system, &anna), from);
    assert_eq!(letters(&system, &anna, &password), before);

    // A move to the same place that somebody has left half done is finished.
    let files = Emptying::of(&system, &from);
    migrate(&system, &["move", &anna, "--to", to, "--until", "frozen"]);
    let told = report(&migrate(&system, &["run", &files.plan, "--json"]));
    assert_eq!(told["failed"], 0, "{told}");
    assert_eq!(home(&system, &anna), to);
    assert_eq!(letters(&system, &anna, &password), before);
    assert!(migrate(&system, &["status"]).contains("every move is finished"));
}

#[test]
fn a_run_that_was_killed_is_taken_up_and_a_back_end_is_emptied_by_several_moves_at_once() {
    let system = System::start(&["--seed-accounts", "12"]);
    let ((anna, password), (ben, _)) = (system.demo(0), system.demo(1));
    send(&system, &[&anna, &ben], 3);
    let before = letters(&system, &anna, &password);
    let (from, to) = (home(&system, &anna), home(&system, &ben));
    let files = Emptying::of(&system, &from);
    let moves = json(&files.plan)["moves"].as_array().unwrap().len();
    assert!(moves >= 6, "{moves}");
    // Wherever it is when it is killed, several moves are under way.
    let mut killed = Command::new(program("migrator"))
        .args(["run", &files.plan, "--at-once", "3", "--per-backend", "3"])
        .arg("--data")
        .arg(&system.data)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(120));
    killed.kill().unwrap();
    killed.wait().unwrap();
    let told = report(&migrate(
        &system,
        &[
            "run",
            &files.plan,
            "--json",
            "--at-once",
            "4",
            "--per-backend",
            "4",
        ],
    ));
    assert_eq!(told["failed"], 0, "{told}");
    let count = |what: &str| told[what].as_u64().unwrap();
    assert_eq!(
        count("moved") + count("already_there"),
        moves as u64,
        "{told}"
    );
    assert!(migrate(&system, &["status"]).contains("every move is finished"));
    assert_eq!(home(&system, &anna), to);
    assert_eq!(letters(&system, &anna, &password), before);

    // And all of them back, by one word.
    done(
        &system,
        "posthouse",
        &["backend", "set", &from, "--state", "active"],
    );
    let (success, said) = run(&system, "migrator", &["drain", &to]);
    assert!(!success && said.contains("--state draining"), "{said}");
    let drains = |name: &str| {
        let set = ["backend", "set", name, "--state", "draining"];
        done(&system, "posthouse", &set);
    };
    drains(&to);
    let said = migrate(&system, &["drain", &to, "--octets-per-s", "50000000"]);
    assert!(said.contains(&format!("back-end {to} is empty")), "{said}");
    for account in [&anna, &ben] {
        assert_eq!(home(&system, account), from);
    }
    assert_eq!(letters(&system, &anna, &password), before);
    assert!(migrate(&system, &["drain", &to]).contains("0 accounts were moved"));
    // Nobody is left to take those of the last one: some jobs want to know that from others.
    drains(&from);
    let mut last = Command::new(program("migrator"));
    last.args(["drain", &from]).arg("--data").arg(&system.data);
    let last = last.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&last.stderr).into_owned();
    assert_eq!(last.status.code(), Some(3), "{said}");
    assert!(said.contains("accounts are left on back-end"), "{said}");
    assert_eq!(home(&system, &anna), from);
}
