use super::*;

fn settings(folder: &tempfile::TempDir) -> ForeignLogin {
    let password_file = folder.path().join("password");
    std::fs::write(&password_file, "secret\n").unwrap();
    ForeignLogin {
        backend: "old".parse().unwrap(),
        master: "post".into(),
        password_file,
        separator: None,
        ca: None,
        plaintext: false,
        tell_client: false,
    }
}

/// Why a user does not get in at an IMAP of this address. None of these comes as far as to connect.
async fn fault(settings: ForeignLogin, user: &str, address: &str, tls: ForeignTls) -> Fault {
    let masters = Masters::load(vec![settings], Duration::ZERO).unwrap();
    let service = ForeignService {
        address: address.into(),
        tls,
    };
    let wanted = Wanted {
        home: &"old".parse().unwrap(),
        foreign: &Foreign {
            imap: Some(service),
            pop3: None,
        },
        service: Service::Imap,
        user: &user.parse().unwrap(),
        client: ([192, 0, 2, 7], 4711).into(),
        trace_id: "t",
    };
    let opened = masters.open(&wanted, Duration::from_secs(20)).await;
    opened.err().expect("nobody is in")
}

#[tokio::test]
async fn whose_name_holds_the_separator_is_not_logged_in_as_another() {
    let folder = tempfile::tempdir().unwrap();
    let separated = ForeignLogin {
        separator: Some('*'),
        ..settings(&folder)
    };
    let fault = fault(separated, "ann*bob", "127.0.0.1:9", ForeignTls::Plain).await;
    assert!(matches!(fault, Fault::UserName), "{fault}");
    assert_eq!(
        (fault.code(), fault.refusal(), fault.has_answered()),
        ("foreign_not_set", Refusal::Temporary, false)
    );
}

#[tokio::test]
async fn without_an_authority_no_tls_is_begun() {
    let folder = tempfile::tempdir().unwrap();
    for tls in [ForeignTls::StartTls, ForeignTls::Implicit] {
        let fault = fault(settings(&folder), "ann", "127.0.0.1:9", tls).await;
        assert!(matches!(fault, Fault::NoAuthority), "{fault}");
    }
}

#[tokio::test]
async fn in_the_clear_no_other_machine_is_even_connected_to() {
    let folder = tempfile::tempdir().unwrap();
    for address in [
        "192.0.2.1:143",
        "[2001:db8::1]:143",
        "[::ffff:192.0.2.1]:143",
    ] {
        let fault = fault(settings(&folder), "ann", address, ForeignTls::Plain).await;
        assert!(matches!(fault, Fault::Plaintext), "{fault}");
    }
}

#[test]
fn settings_that_would_log_in_the_wrong_one_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let problem = |master: &str, separator| {
        let login = ForeignLogin {
            master: master.into(),
            separator,
            ..settings(&folder)
        };
        login.problem().is_some()
    };
    for (master, separator) in [
        ("", None),
        ("post\r\n", None),
        ("post\0", None),
        ("post", Some(' ')),
        ("post", Some('\n')),
        ("po*st", Some('*')),
    ] {
        assert!(problem(master, separator), "{master:?} {separator:?}");
    }
    assert!(!problem("po*st", None) && !problem("post", Some('*')));
}
