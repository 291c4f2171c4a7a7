//! A directory whose users come from a real OpenLDAP.
#![allow(clippy::unwrap_used)]

mod site;

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use daemon::identity::Role;
use directory::Config;
use directory_api::wire::{
    Account, AccountChange, Credential, LdapState, LdapSync, LoginReply, Verdict, code,
};
use directory_api::{
    AccountStatus, ClientOptions, DirectoryClient, DirectoryError, LoginError, LoginName,
};
use ldap3::controls::ManageDsaIt;
use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, Mod};
use site::{Process, Site, address, announcement, comes_up, eventually, login, secret};
use testkit::address::unused_address;
use testkit::slapd::{ADMIN, BASE, PASSWORD, READER, Slapd};

/// A directory of its own process beside a server of LDAP with ann.
struct World {
    slapd: Slapd,
    site: Site,
    config: Config,
    directory: Process,
    admin: Ldap,
}

/// What says the status of a user here.
const STATUS: &str = "employeeType";
/// What says the quota.
const QUOTA: &str = "departmentNumber";

impl World {
    /// `more` is written into the directory's section of LDAP.
    async fn new(more: &str) -> Option<Self> {
        let slapd = Slapd::own()?;
        let site = Site::prepare();
        let mut admin = as_admin(&slapd).await;
        let organisation = vec![
            ("objectClass", HashSet::from(["dcObject", "organization"])),
            ("o", HashSet::from(["x"])),
        ];
        added(&mut admin, BASE, organisation).await;
        let reader = vec![
            (
                "objectClass",
                HashSet::from(["organizationalRole", "simpleSecurityObject"]),
            ),
            ("userPassword", HashSet::from([PASSWORD])),
        ];
        added(&mut admin, READER, reader).await;
        let config = Config {
            listen: unused_address(),
            metrics_listen: unused_address(),
            ..site.config()
        };
        let directory = start(&slapd, &site, &config, more);
        let mut world = Self {
            slapd,
            site,
            config,
            directory,
            admin,
        };
        comes_up(&world.operator()).await;
        for name in ["b1", "b2"] {
            let backend = world.client(Role::StoreBackend, name);
            backend.announce(&announcement(name)).await.unwrap();
        }
        world
            .operator()
            .put_domain(&"x.test".parse().unwrap())
            .await
            .unwrap();
        world.add("ann").await;
        world.sync().await;
        Some(world)
    }

    /// One that believes nothing it is not told now.
    fn client(&self, role: Role, node: &str) -> DirectoryClient {
        let options = ClientOptions {
            positive_ttl: Duration::ZERO,
            negative_ttl: Duration::ZERO,
            stale_max: Duration::ZERO,
            ..ClientOptions::default()
        };
        self.site
            .client_at(self.config.listen, role, node, &options)
    }

    fn operator(&self) -> DirectoryClient {
        self.client(Role::Operator, "op")
    }

    /// A user with the password "of NAME".
    async fn add(&mut self, name: &str) {
        let (mail, password) = (format!("{name}@x.test"), format!("of {name}"));
        let user = vec![
            ("objectClass", HashSet::from(["inetOrgPerson"])),
            ("cn", HashSet::from([name])),
            ("sn", HashSet::from([name])),
            ("mail", HashSet::from([mail.as_str()])),
            ("userPassword", HashSet::from([password.as_str()])),
        ];
        added(&mut self.admin, &dn(name), user).await;
    }

    async fn change(&mut self, name: &str, changes: Vec<Mod<&str>>) {
        let changed = self.admin.modify(&dn(name), changes).await;
        changed.unwrap().success().unwrap();
    }

    async fn set(&mut self, name: &str, attribute: &str, values: &[&str]) {
        let values = values.iter().copied().collect();
        self.change(name, vec![Mod::Replace(attribute, values)])
            .await;
    }

    async fn remove(&mut self, name: &str) {
        self.admin
            .delete(&dn(name))
            .await
            .unwrap()
            .success()
            .unwrap();
    }

    async fn sync(&self) -> LdapState {
        let state = self
            .operator()
            .ldap_sync(&LdapSync::default())
            .await
            .unwrap();
        assert_eq!(state.failure, None);
        state
    }

    async fn log_in(&self, user: &str, password: &str) -> Result<LoginReply, LoginError> {
        let proxy = self.client(Role::PopImapProxy, "p1");
        proxy.login(&login(user, password)).await
    }

    async fn account(&self, user: &str) -> Account {
        let name: LoginName = user.parse().unwrap();
        let operator = self.operator();
        let id = operator.account_of(&name).await.unwrap().id;
        operator.account(id).await.unwrap()
    }

    async fn verdict(&self, text: &str) -> Verdict {
        let mx = self.client(Role::MxFrontend, "m1");
        mx.lookup(&address(text)).await.unwrap()
    }

    async fn gets_mail(&self, text: &str) -> bool {
        matches!(self.verdict(text).await, Verdict::Accounts(_))
    }

    /// Starts the directory anew; it forgets which passwords were right.
    async fn again(&mut self, more: &str) {
        self.directory.stop();
        self.directory = start(&self.slapd, &self.site, &self.config, more);
        comes_up(&self.operator()).await;
    }
}

fn dn(name: &str) -> String {
    format!("cn={name},{BASE}")
}

async fn as_admin(slapd: &Slapd) -> Ldap {
    let settings = LdapConnSettings::new();
    let (connection, mut ldap) = LdapConnAsync::with_settings(settings, &slapd.url())
        .await
        .unwrap();
    tokio::spawn(connection.drive());
    ldap.simple_bind(ADMIN, PASSWORD)
        .await
        .unwrap()
        .success()
        .unwrap();
    ldap
}

async fn added(admin: &mut Ldap, dn: &str, attributes: Vec<(&str, HashSet<&str>)>) {
    let added = admin.add(dn, attributes).await;
    added.unwrap().success().unwrap();
}

fn start(slapd: &Slapd, site: &Site, config: &Config, more: &str) -> Process {
    let setting = format!(
        "[ldap]\nurls = [{:?}]\nbind_dn = {READER:?}\nbind_password_file = {:?}\nbase = {BASE:?}\n\
         status_attribute = {STATUS:?}\nquota_attribute = {QUOTA:?}\nanswer_timeout_s = 2\n{more}\n",
        slapd.url(),
        slapd.path("reader.password"),
    );
    Process::start_at(site, config, &setting)
}

fn is_bad(answer: &Result<LoginReply, LoginError>) -> bool {
    matches!(answer, Err(LoginError::BadCredentials))
}

fn is_away(answer: &Result<LoginReply, LoginError>) -> bool {
    matches!(answer, Err(LoginError::Away(_)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_ldap_gets_mail_and_logs_in_by_binding_there() {
    let Some(mut world) = World::new("").await else {
        return;
    };
    let ann = world.account("ann@x.test").await;
    assert_eq!(ann.ldap.unwrap().dn, dn("ann"));
    assert!(world.gets_mail("ann@x.test").await);
    let first = world.log_in("ann@x.test", "of ann").await.unwrap();
    assert_eq!(first.account, ann.id);
    // As the user types it, and from what was verified before.
    assert!(world.log_in("ANN@X.test", "of ann").await.is_ok());

    // Nobody else, and nobody by what a filter, a name or a server would read otherwise.
    for (user, password) in [
        ("ann@x.test", "wrong"),
        ("ann@x.test", ""),
        ("ann@x.test", "\0"),
        ("ann@x.test", "of ann\0"),
        ("ann@x.test", "Of ann"),
        ("nobody@x.test", "of ann"),
        ("*", "of ann"),
        ("ann*", "of ann"),
        ("ann@x.test)(cn=*", "of ann"),
        ("*)(objectClass=*", "of ann"),
        ("cn=ann,dc=x,dc=test", "of ann"),
        ("cn=admin,dc=x,dc=test", PASSWORD),
        ("reader", PASSWORD),
        ("", ""),
    ] {
        let answer = world.log_in(user, password).await;
        assert!(is_bad(&answer), "{user:?} {password:?}: {answer:?}");
    }

    // Entries with names that are to be escaped are users like any others.
    let strange = "a,b+c=(d)*";
    let escaped = format!("cn={},{BASE}", ldap3::dn_escape(strange));
    let user = vec![
        ("objectClass", HashSet::from(["inetOrgPerson"])),
        ("cn", HashSet::from([strange])),
        ("sn", HashSet::from(["x"])),
        ("mail", HashSet::from(["strange@x.test"])),
        ("userPassword", HashSet::from(["päss wörd"])),
    ];
    added(&mut world.admin, &escaped, user).await;
    world.sync().await;
    assert!(world.log_in("strange@x.test", "päss wörd").await.is_ok());

    // An app password is ours, beside it.
    let change = AccountChange {
        app_passwords: vec![directory_api::wire::AppPassword {
            name: "phone".parse().unwrap(),
            credential: Credential::Password(secret("made by a program")),
            services: None,
        }],
        ..AccountChange::default()
    };
    world
        .operator()
        .change_account(ann.id, &change)
        .await
        .unwrap();
    assert!(
        world
            .log_in("ann@x.test", "made by a program")
            .await
            .is_ok()
    );
    assert!(world.log_in("ann@x.test", "of ann").await.is_ok());
    let change = AccountChange {
        credential: Some(Credential::Password(secret("mine"))),
        ..AccountChange::default()
    };
    let refused = world.operator().change_account(ann.id, &change).await;
    let Err(DirectoryError::Refused(problem)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(problem.code, code::OWNED_BY_LDAP);
    assert!(problem.message.contains("LDAP"), "{}", problem.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_in_ldap_is_here_with_the_next_look() {
    let every = "look_every_s = 1\nlook_at_all_every_s = 2";
    let Some(mut world) = World::new(every).await else {
        return;
    };
    world.add("bob").await;
    eventually(async || world.gets_mail("bob@x.test").await).await;
    let bob = world.account("bob@x.test").await;
    assert!(world.log_in("bob@x.test", "of bob").await.is_ok());

    // An alias more, then one less.
    world
        .set("bob", "mail", &["bob@x.test", "sales@x.test"])
        .await;
    eventually(async || world.gets_mail("sales@x.test").await).await;
    world.set("bob", "mail", &["bob@x.test"]).await;
    eventually(async || world.verdict("sales@x.test").await == Verdict::UnknownAddress).await;

    // Another password: the old one is not remembered for longer than until the next look.
    world.set("bob", "userPassword", &["new"]).await;
    eventually(async || is_bad(&world.log_in("bob@x.test", "of bob").await)).await;
    assert!(world.log_in("bob@x.test", "new").await.is_ok());

    world.set("bob", QUOTA, &["3M"]).await;
    world.set("bob", STATUS, &["Suspended"]).await;
    eventually(async || {
        matches!(
            world.log_in("bob@x.test", "new").await,
            Err(LoginError::Suspended)
        )
    })
    .await;
    let shown = world.account("bob@x.test").await;
    assert_eq!(shown.quota_octets, Some(3 << 20));
    assert!(world.gets_mail("bob@x.test").await);
    world.set("bob", STATUS, &[]).await;
    eventually(async || world.log_in("bob@x.test", "new").await.is_ok()).await;

    // Renamed, entry and address: the account and what is in it stay.
    let renamed = world
        .admin
        .modifydn(&dn("bob"), "cn=robert", true, None)
        .await;
    renamed.unwrap().success().unwrap();
    world.set("robert", "mail", &["robert@x.test"]).await;
    eventually(async || world.gets_mail("robert@x.test").await).await;
    assert_eq!(world.account("robert@x.test").await.id, bob.id);
    assert!(world.log_in("robert@x.test", "new").await.is_ok());
    assert!(is_bad(&world.log_in("bob@x.test", "new").await));

    // Gone, which two looks at everything have to find.
    world.remove("robert").await;
    eventually(async || world.verdict("robert@x.test").await == Verdict::UnknownAddress).await;
    let gone = world.account("robert@x.test").await;
    assert_eq!((gone.id, gone.status), (bob.id, AccountStatus::Closing));
    assert!(gone.ldap.unwrap().gone_ms.is_some());
    assert!(world.log_in("robert@x.test", "new").await.is_err());
    assert!(
        world.gets_mail("ann@x.test").await,
        "the others are as they were"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ldap_server_that_is_away_makes_nobody_unknown() {
    let Some(mut world) = World::new("").await else {
        return;
    };
    let ann = world.log_in("ann@x.test", "of ann").await.unwrap();
    world.add("bob").await;
    world.sync().await;
    world.again("").await;
    assert_eq!(
        world.log_in("ann@x.test", "of ann").await.unwrap().account,
        ann.account
    );

    // It stops in the middle of a login.
    world.slapd.stop();
    let began = Instant::now();
    let waiting = world.log_in("bob@x.test", "of bob").await;
    assert!(is_away(&waiting), "{waiting:?}");
    assert!(began.elapsed() < Duration::from_secs(10));
    world.slapd.kill();
    for (user, password) in [
        ("bob@x.test", "of bob"),
        ("bob@x.test", "wrong"),
        ("ann@x.test", "wrong"),
        ("nobody@x.test", "of bob"),
    ] {
        let answer = world.log_in(user, password).await;
        assert!(is_away(&answer), "{user} {password}: {answer:?}");
    }
    // Mail, and who has logged in lately, go on; a look changes nothing.
    assert!(world.gets_mail("bob@x.test").await);
    assert!(world.log_in("ann@x.test", "of ann").await.is_ok());
    let state = world
        .operator()
        .ldap_sync(&LdapSync {
            losses_max: Some(9),
        })
        .await
        .unwrap();
    assert!(state.failure.is_some());
    assert!(world.gets_mail("bob@x.test").await);

    world.slapd.start();
    eventually(async || world.log_in("bob@x.test", "of bob").await.is_ok()).await;
    assert!(is_bad(&world.log_in("bob@x.test", "wrong").await));
    assert!(is_bad(&world.log_in("nobody@x.test", "wrong").await));
    world.sync().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_an_answer_of_ldap_removes_nobody() {
    let Some(mut world) = World::new("").await else {
        return;
    };
    let names: Vec<String> = (0..20).map(|number| format!("u{number}")).collect();
    for name in &names {
        world.add(name).await;
    }
    assert_eq!(world.sync().await.users, 21);
    let mails = || names.iter().map(|name| format!("{name}@x.test"));

    // The server says no more than some of them: a limit.
    world
        .slapd
        .restart_with("sizelimit size.soft=5 size.hard=5 size.prtotal=5");
    let operator = world.operator();
    let state = operator
        .ldap_sync(&LdapSync {
            losses_max: Some(99),
        })
        .await
        .unwrap();
    assert!(
        state
            .failure
            .is_some_and(|why| why.contains("list all its users"))
    );
    world.slapd.restart_with("");
    world.sync().await;
    for mail in mails() {
        assert!(world.gets_mail(&mail).await, "{mail}");
    }

    // It has lost most of them, and says so without an error.
    world.admin = as_admin(&world.slapd).await;
    for name in &names[..15] {
        world.remove(name).await;
    }
    for _ in 0..3 {
        let state = world.sync().await;
        assert!(state.users == 6);
    }
    let state = world.operator().ldap().await.unwrap();
    assert_eq!(state.held, 15);
    for mail in mails() {
        assert!(world.gets_mail(&mail).await, "{mail}");
    }

    // An operator says that it is so.
    let sync = LdapSync {
        losses_max: Some(15),
    };
    let state = world.operator().ldap_sync(&sync).await.unwrap();
    assert_eq!((state.held, state.failure), (0, None));
    for (number, mail) in mails().enumerate() {
        assert_eq!(world.gets_mail(&mail).await, number >= 15, "{mail}");
    }

    // That an attribute is not shown any more takes nobody's address.
    world.slapd.restart_with("access to attrs=mail by * none");
    let state = world
        .operator()
        .ldap_sync(&LdapSync::default())
        .await
        .unwrap();
    assert_eq!(state.left_out_count, 6, "{state:?}");
    assert!(world.gets_mail("ann@x.test").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gets_somebodys_name_opens_nothing_of_his() {
    let Some(mut world) = World::new("").await else {
        return;
    };
    world.add("bob").await;
    world.sync().await;
    let bob = world.account("bob@x.test").await;

    // Somebody else of the name, whom no look has seen yet, and whose password is right.
    world.remove("bob").await;
    world.add("bob").await;
    for password in ["of bob", "wrong"] {
        let answer = world.log_in("bob@x.test", password).await;
        assert!(is_bad(&answer), "{password}: {answer:?}");
    }
    // Nor does a name that is nobody's.
    world.remove("bob").await;
    assert!(is_bad(&world.log_in("bob@x.test", "of bob").await));
    world.add("bob").await;
    // Others are as they were, on the same connections.
    assert!(world.log_in("ann@x.test", "of ann").await.is_ok());

    // The looks find that one is gone, and then the other.
    for _ in 0..3 {
        world.sync().await;
    }
    let other = world.log_in("bob@x.test", "of bob").await.unwrap();
    assert_ne!(other.account, bob.id);
    let gone = world.operator().account(bob.id).await.unwrap();
    assert_eq!(gone.status, AccountStatus::Closing);
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_entry_can_be_no_user_any_more_may_not_log_in() {
    let Some(mut world) = World::new("").await else {
        return;
    };
    for name in ["bob", "carl"] {
        world.add(name).await;
    }
    world.sync().await;
    assert!(world.log_in("bob@x.test", "of bob").await.is_ok());
    let is_suspended = async |world: &World, name: &str| {
        let answer = world
            .log_in(&format!("{name}@x.test"), &format!("of {name}"))
            .await;
        matches!(answer, Err(LoginError::Suspended))
    };

    // No login name; and its mail comes still, as to anybody suspended.
    world.set("bob", "mail", &[]).await;
    let state = world.sync().await;
    assert_eq!((state.held, state.left_out_count), (0, 1), "{state:?}");
    assert!(is_suspended(&world, "bob").await);
    assert!(world.gets_mail("bob@x.test").await);
    world.set("bob", "mail", &["bob@x.test"]).await;
    world.sync().await;
    assert!(world.log_in("bob@x.test", "of bob").await.is_ok());

    // More at once than may lose their login stay as they are.
    for name in ["bob", "carl"] {
        world.set(name, "mail", &[]).await;
    }
    let state = world.sync().await;
    assert_eq!((state.held, state.left_out_count), (2, 2), "{state:?}");
    for name in ["bob", "carl"] {
        assert!(!is_suspended(&world, name).await, "{name}");
    }
    let sync = LdapSync {
        losses_max: Some(2),
    };
    assert_eq!(world.operator().ldap_sync(&sync).await.unwrap().held, 0);
    for name in ["bob", "carl"] {
        assert!(is_suspended(&world, name).await, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_ldap_refers_to_other_servers_nobody_is_taken_for_gone() {
    let Some(mut world) = World::new("").await else {
        return;
    };
    world.add("bob").await;
    world.sync().await;
    let elsewhere = format!("ou=elsewhere,{BASE}");
    let referral = vec![
        (
            "objectClass",
            HashSet::from(["referral", "extensibleObject"]),
        ),
        ("ou", HashSet::from(["elsewhere"])),
        ("ref", HashSet::from(["ldap://other.test/ou=elsewhere"])),
    ];
    added(&mut world.admin, &elsewhere, referral).await;
    world.remove("bob").await;
    let everything = LdapSync {
        losses_max: Some(9),
    };
    for _ in 0..3 {
        let state = world.operator().ldap_sync(&everything).await.unwrap();
        assert_eq!(state.failure, None);
        assert!(state.left_out[0].contains("referrals"), "{state:?}");
        assert!(world.gets_mail("bob@x.test").await);
    }

    let admin = world.admin.with_controls(ManageDsaIt);
    admin.delete(&elsewhere).await.unwrap().success().unwrap();
    let state = world.operator().ldap_sync(&everything).await.unwrap();
    assert_eq!(state.left_out, [""; 0]);
    assert!(!world.gets_mail("bob@x.test").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn ldap_is_spoken_in_tls_with_whom_the_authority_knows_and_nobody_else() {
    let Some(mut world) = World::new("").await else {
        return;
    };
    let ours: PathBuf = world.slapd.path("ca.pem");
    let others = world.site.dir.path().join("others.pem");
    let other = testkit::user_certificate::UserAuthority::new();
    std::fs::write(&others, other.pem()).unwrap();

    // The server takes nothing but TLS.
    world.slapd.restart_with("security tls=1");
    world.again(&format!("tls_ca = {ours:?}")).await;
    world.sync().await;
    assert!(world.log_in("ann@x.test", "of ann").await.is_ok());
    assert!(is_bad(&world.log_in("ann@x.test", "wrong").await));

    for wrong in ["", &format!("tls_ca = {others:?}")] {
        world.again(wrong).await;
        let answer = world.log_in("ann@x.test", "of ann").await;
        assert!(is_away(&answer), "{wrong}: {answer:?}");
        let state = world
            .operator()
            .ldap_sync(&LdapSync::default())
            .await
            .unwrap();
        assert!(state.failure.is_some(), "{wrong}");
        assert!(world.gets_mail("ann@x.test").await);
    }
}

/// In turn, so that what else the machine does meets both.
#[tokio::test(flavor = "multi_thread")]
async fn who_guesses_hears_of_users_of_ldap_what_he_hears_of_nobody() {
    let Some(world) = World::new("").await else {
        return;
    };
    let mut took = [Vec::new(), Vec::new()];
    for round in 0..40 {
        for (which, user) in ["ann@x.test", "nobody@x.test"].into_iter().enumerate() {
            let began = Instant::now();
            let password = format!("wrong {round}");
            assert!(is_bad(&world.log_in(user, &password).await));
            took[which].push(began.elapsed());
        }
    }
    let [ann, nobody] = took.map(|mut all| {
        all.sort();
        all[all.len() / 2].as_secs_f64()
    });
    let ratio = ann / nobody;
    assert!((0.8..1.25).contains(&ratio), "{ann} s and {nobody} s");
    assert!(
        ann >= 0.25,
        "{ann} s: refusals wait for each other's multiple"
    );
}
