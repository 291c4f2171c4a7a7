//! A private Dovecot is the home of one user and our store that of another, behind one proxy of ours: both read and
//! write their mail by IMAP and POP3, and change over to the other side by a change of their home.
#![cfg(feature = "peers")]
#![allow(clippy::unwrap_used)]

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use daemon::identity::Authority;
use e2e::eventually;
use e2e::imap::Imap;
use e2e::pop3::Pop3;
use e2e::ports::PortBlock;
use e2e::provider::Provider;
use e2e::samples::own;
use posthouse::nodes::Node;
use posthouse::ports::Port;
use tempfile::TempDir;

const ANN: &str = "ann@example.test";
const BOB: &str = "bob@example.test";
const CID: &str = "cid@example.test";
const MASTER_PASSWORD: &str = "opens every door";

/// A Dovecot of our own: settings, mail and log in one folder, IMAP with STARTTLS and POP3 in TLS on loopback.
struct Dovecot {
    folder: TempDir,
    ports: PortBlock,
}

impl Dovecot {
    fn start() -> Self {
        let dovecot = Self {
            folder: tempfile::tempdir().unwrap(),
            ports: PortBlock::take(),
        };
        let path = dovecot.folder.path();
        // Its own users walk through it.
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(path.join("mail")).unwrap();
        let chowned = Command::new("chown")
            .arg("nobody:nogroup")
            .arg(path.join("mail"))
            .status();
        assert!(chowned.unwrap().success());
        let authority = Authority::create(path).unwrap();
        fs::write(dovecot.ca(), authority.certificate_pem()).unwrap();
        authority
            .issue_public(
                &["localhost"],
                &path.join("dovecot.pem"),
                &path.join("dovecot.key"),
            )
            .unwrap();
        let masters = format!("post:{{PLAIN}}{MASTER_PASSWORD}\n");
        fs::write(path.join("masters"), masters).unwrap();
        // Nobody logs in there by these passwords: the directory has others.
        let users = format!("{ANN}:{{PLAIN}}another\n{BOB}:{{PLAIN}}another\n");
        fs::write(path.join("users"), users).unwrap();
        fs::write(path.join("dovecot.conf"), dovecot.settings()).unwrap();
        dovecot.command(&[]);
        eventually("Dovecot listens", || {
            std::net::TcpStream::connect(("127.0.0.1", dovecot.imap())).ok()
        });
        dovecot
    }

    fn settings(&self) -> String {
        let path = self.folder.path().display();
        let (imap, pop3s) = (self.imap(), self.pop3s());
        format!(
            "protocols = imap pop3
base_dir = {path}/run
state_dir = {path}/state
log_path = {path}/log
listen = 127.0.0.1
ssl = required
ssl_cert = <{path}/dovecot.pem
ssl_key = <{path}/dovecot.key
disable_plaintext_auth = yes
auth_mechanisms = plain
auth_master_user_separator = *
# Whom it believes who the user's client is.
login_trusted_networks = 127.0.0.1
passdb {{
  driver = passwd-file
  args = {path}/masters
  master = yes
}}
passdb {{
  driver = passwd-file
  args = username_format=%u {path}/users
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={path}/mail/%u
}}
first_valid_uid = 1
first_valid_gid = 1
mail_location = maildir:~/Maildir
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service pop3-login {{
  chroot =
  inet_listener pop3 {{
    port = 0
  }}
  inet_listener pop3s {{
    port = {pop3s}
    ssl = yes
  }}
}}
"
        )
    }

    fn imap(&self) -> u16 {
        self.ports.base
    }

    fn pop3s(&self) -> u16 {
        self.ports.base + 1
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("dovecot-ca.pem")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn command(&self, arguments: &[&str]) {
        // Into a file: what goes on running keeps a pipe open.
        let said = self.folder.path().join("said");
        let status = Command::new("dovecot")
            .arg("-c")
            .arg(self.folder.path().join("dovecot.conf"))
            .args(arguments)
            .stderr(File::create(&said).unwrap())
            .status()
            .unwrap();
        let said = fs::read_to_string(said).unwrap();
        assert!(status.success(), "{said}\n{}", self.log());
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- Dovecot logged\n{}", self.log());
        }
        let settings = self.folder.path().join("dovecot.conf");
        _ = Command::new("dovecot")
            .arg("-c")
            .arg(settings)
            .arg("stop")
            .status();
    }
}

/// The proxy gets IMAP in TLS, and master logins at both names of the Dovecot: one by authorization identity, one by separator.
fn prepare(provider: &Provider, dovecot: &Dovecot) {
    let settings = provider.settings(Node::Proxy);
    let password = dovecot.folder.path().join("master");
    fs::write(&password, format!("{MASTER_PASSWORD}\n")).unwrap();
    let login = |backend: &str, more: &str| {
        format!(
            "{{ backend = \"{backend}\", master = \"post\", password_file = {password:?}, ca = {:?}, tell_client = true{more} }}",
            dovecot.ca()
        )
    };
    let foreign = [login("old", ""), login("older", ", separator = \"*\"")].join(", ");
    let imaps = provider.at(Port::Imaps);
    let text = fs::read_to_string(&settings).unwrap();
    let text = format!("imaps = \"{imaps}\"\nforeign = [{foreign}]\n{text}");
    fs::write(&settings, text).unwrap();
}

fn change_over(provider: &Provider, user: &str, backend: &str, volume: &str) {
    let shown = provider.operator(&["home", "show", user, "--json"], "");
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let epoch = shown["home"]["epoch"].to_string();
    let set = [
        "home",
        "set",
        user,
        "--backend",
        backend,
        "--volume",
        volume,
    ];
    let set = [set.as_slice(), &["--from-epoch", &epoch]].concat();
    _ = provider.operator(&set, "");
}

fn message_count(imap: &mut Imap) -> usize {
    imap.messages("INBOX").len()
}

#[test]
fn users_of_dovecot_and_of_ours_are_served_behind_one_proxy_and_change_over_one_by_one() {
    let (provider, dovecot) = (Provider::new(), Dovecot::start());
    prepare(&provider, &dovecot);
    let _running = provider.start_for(ANN, "pass");
    for name in ["old", "older"] {
        let imap = format!("starttls:localhost:{}", dovecot.imap());
        let pop3 = format!("implicit:localhost:{}", dovecot.pop3s());
        let add = ["backend", "add", name, "--foreign-imap", &imap];
        _ = provider.operator(&[add.as_slice(), &["--foreign-pop3", &pop3]].concat(), "");
    }
    _ = provider.operator(&["account", "add", BOB, "--backend", "old"], "pass\n");
    // Who is new unasked comes to ours.
    _ = provider.operator(&["account", "add", CID], "pass\n");
    let shown = provider.operator(&["home", "show", ANN, "--json"], "");
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let ours = shown["home"]["volume"].as_str().unwrap().to_owned();

    let imap = |user| {
        let imap = Imap::connect_tls(provider.at(Port::Imaps), &provider.ca());
        imap.login(user, "pass")
    };
    let pop3 = |user| {
        let pop3 = Pop3::connect_tls(provider.at(Port::Pop3s), &provider.ca());
        pop3.login(user, "pass")
    };
    // Both have mail of their own, and read it octet by octet by either protocol.
    let samples = own();
    for (user, samples) in [(ANN, &samples[..2]), (BOB, &samples[2..5])] {
        let mut session = imap(user);
        for sample in samples {
            session.append("INBOX", "", &sample.octets);
        }
        assert_eq!(session.messages("INBOX").len(), samples.len());
        assert_eq!(pop3(user).messages().len(), samples.len(), "{user}");
    }
    let log = dovecot.log();
    assert!(log.contains(&format!("user=<{BOB}>")), "{log}");
    assert!(!log.contains(ANN), "{log}");
    // It believed the proxy: its own names of sessions are longer.
    let is_ours =
        |name: &str| name.len() == 16 && name.bytes().all(|octet| octet.is_ascii_alphanumeric());
    let logins: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("Login: user="))
        .collect();
    assert_eq!(logins.len(), 2, "{log}");
    for line in logins {
        let (_, name) = line.rsplit_once("session=<").unwrap();
        assert!(is_ours(name.trim_end_matches('>')), "{line}");
    }

    // The directory's password counts, and Dovecot's own does not.
    let mut stranger = Pop3::connect_tls(provider.at(Port::Pop3s), &provider.ca());
    stranger.command(&format!("USER {BOB}"));
    let refused = stranger.try_command("PASS another").unwrap_err();
    assert!(refused.starts_with("-ERR [AUTH]"), "{refused}");

    // The other way of a master login.
    change_over(&provider, BOB, "older", "foreign");
    assert_eq!(message_count(&mut imap(BOB)), 3);
    assert_eq!(pop3(BOB).count(), 3);

    // One goes to ours, the other to Dovecot: no mail goes along, and what is there stays.
    change_over(&provider, BOB, "b1", &ours);
    change_over(&provider, ANN, "old", "foreign");
    assert_eq!((message_count(&mut imap(BOB)), pop3(ANN).count()), (0, 0));
    imap(BOB).append("INBOX", "", &samples[0].octets);
    assert_eq!(pop3(BOB).count(), 1);
    change_over(&provider, BOB, "old", "foreign");
    assert_eq!((pop3(BOB).count(), pop3(ANN).count()), (3, 0));
    let why = provider.operator(&["why", BOB], "");
    assert!(why.contains("another mail system, imap starttls:"), "{why}");
    assert!(why.contains("foreign_home"), "{why}");

    // Where it is gone, its users are told so at once, and ours notice nothing.
    dovecot.command(&["stop"]);
    eventually("Dovecot is gone", || {
        std::net::TcpStream::connect(("127.0.0.1", dovecot.pop3s())).err()
    });
    let mut user = Pop3::connect_tls(provider.at(Port::Pop3s), &provider.ca());
    user.command(&format!("USER {BOB}"));
    let began = Instant::now();
    let refused = user.try_command("PASS pass").unwrap_err();
    assert!(refused.starts_with("-ERR [SYS/TEMP]"), "{refused}");
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
    assert_eq!(pop3(CID).count(), 0);
}
