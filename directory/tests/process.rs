//! The directory as a process of its own: killed at any time, it has what it acknowledged.
#![allow(clippy::unwrap_used)]

mod site;

use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use daemon::identity::Role;
use directory_api::ChangeNumber;
use directory_api::wire::ListQuery;
use site::Site;

struct Process(Child);

impl Process {
    fn start(site: &Site) -> Self {
        let file = site.dir.path().join("directory.toml");
        let config = site.config();
        let quoted = |path: &std::path::Path| format!("{:?}", path.display().to_string());
        let text = format!(
            "listen = \"{}\"\nmetrics_listen = \"{}\"\ndata = {}\n[identity]\nca = {}\ncertificate = {}\nkey = {}\n",
            config.listen,
            config.metrics_listen,
            quoted(&config.data),
            quoted(&config.identity.ca),
            quoted(&config.identity.certificate),
            quoted(&config.identity.key),
        );
        fs::write(&file, text).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_directory"))
            .arg("--config")
            .arg(&file)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_a_kill_at_any_moment() {
    let site = Site::prepare();
    let operator = site.client(Role::Operator, "op");
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let mut process = Process::start(&site);
        let start = Instant::now();
        while operator.keys().await.is_err() {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "it does not come up"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let writer = {
            let operator = operator.clone();
            tokio::spawn(async move {
                let mut written = Vec::new();
                for number in 0.. {
                    let name = format!("r{round}n{number:06}.test");
                    match operator.put_domain(&name.parse().unwrap()).await {
                        Ok(_) => written.push(name),
                        Err(_) => break,
                    }
                }
                written
            })
        };
        tokio::time::sleep(Duration::from_millis(150 + 70 * round)).await;
        process.0.kill().unwrap();
        process.0.wait().unwrap();
        let written = writer.await.unwrap();
        assert!(!written.is_empty());
        acknowledged.extend(written);
    }
    let _process = Process::start(&site);
    let start = Instant::now();
    let mut names = Vec::new();
    let mut query = ListQuery::default();
    while start.elapsed() < Duration::from_secs(20) {
        match operator.domains(&query).await {
            Ok(page) => {
                names.extend(page.items.into_iter().map(|domain| domain.name.to_string()));
                query.after = page.next;
                if query.after.is_none() {
                    break;
                }
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    for name in &acknowledged {
        assert!(names.contains(name), "{name} was acknowledged and is gone");
    }
    let last = operator
        .changes(ChangeNumber(0), 0, Duration::ZERO)
        .await
        .unwrap()
        .last;
    assert_eq!(last.0, names.len() as u64, "each domain is one change");
}

#[test]
fn a_start_that_cannot_be_is_one_clear_line_and_a_code() {
    let dir = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_directory"))
            .args(arguments)
            .stderr(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut said, mut printed) = (String::new(), String::new());
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut printed)
            .unwrap();
        (child.wait().unwrap().code(), said, printed)
    };
    let (code, _, sample) = run(&["--print-sample-config"]);
    assert_eq!(code, Some(0));
    assert!(sample.contains("verified_passwords_kept_s"), "{sample}");

    let file = dir.path().join("directory.toml");
    fs::write(
        &file,
        "listenn = \"127.0.0.1:1\"\npassword_threads = 1000\n",
    )
    .unwrap();
    let (code, said, _) = run(&["--config", file.to_str().unwrap()]);
    assert_eq!(code, Some(2));
    assert!(
        said.contains("listenn") && said.contains("directory.toml"),
        "{said}"
    );

    fs::write(&file, "[identity]\nca = \"/nowhere/ca.pem\"\n").unwrap();
    let (code, said, _) = run(&["--config", file.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(said.contains("/nowhere/ca.pem"), "{said}");
}
