//! Users who have shown a certificate to a proxy, with a real directory on loopback.
#![allow(clippy::unwrap_used)]

mod site;

use daemon::identity::Role;
use data_encoding::BASE64;
use directory_api::wire::{AccountChange, SaslReply, SaslRequest};
use directory_api::{AccountStatus, DirectoryClient, LoginError, Service};
use site::{Site, secret};
use testkit::user_certificate::{UserAuthority, UserCertificate};

fn request(acts_as: &str, certificates: &[&UserCertificate]) -> SaslRequest {
    let encoded = |one: &&UserCertificate| BASE64.encode(&one.der);
    SaslRequest {
        mechanism: "EXTERNAL".to_owned(),
        message: secret(&BASE64.encode(acts_as.as_bytes())),
        state: None,
        bindings: Vec::new(),
        certificates: certificates.iter().map(encoded).collect(),
        service: Service::Imap,
        client_address: [192, 0, 2, 1].into(),
        secured: true,
        backend: None,
    }
}

async fn code(proxy: &DirectoryClient, request: &SaslRequest) -> &'static str {
    match proxy.sasl(request).await {
        Ok(SaslReply::LoggedIn { login, .. }) => {
            assert_eq!(login.login_name.as_str(), "ann@x.test");
            "ok"
        }
        Ok(reply) => panic!("{reply:?}"),
        Err(error) => LoginError::code(&error),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_opens_its_own_account_through_a_proxy_of_the_settings_and_no_other() {
    let (ours, other) = (UserAuthority::new(), UserAuthority::new());
    let mut site = Site::prepare();
    std::fs::write(site.dir.path().join("users.pem"), ours.pem()).unwrap();
    site.settle_config = |config| {
        config.external.ca = Some(config.data.with_file_name("users.pem"));
        config.external.proxies = vec!["p1".to_owned()];
    };
    site.up().await;
    let ann = site.settle().await;
    let (p1, p2) = (
        site.client(Role::PopImapProxy, "p1"),
        site.client(Role::PopImapProxy, "p2"),
    );
    assert_eq!(p1.mechanisms().await[..], ["EXTERNAL"]);
    let of_ann = ours.issue("ann@x.test");
    let of_nobody = ours.issue("nobody@x.test");
    let forged = other.issue("ann@x.test");
    for (acts_as, shown, expected) in [
        ("", &[&of_ann][..], "ok"),
        ("ann@x.test", &[&of_ann], "ok"),
        ("ANN@x.test", &[&of_ann], "ok"),
        ("bob@x.test", &[&of_ann], "bad_credentials"),
        ("", &[&of_nobody], "bad_credentials"),
        ("ann@x.test", &[&of_nobody], "bad_credentials"),
        ("", &[&forged], "bad_credentials"),
        ("ann@x.test", &[], "bad_credentials"),
        // The first one is the client's.
        ("ann@x.test", &[&of_nobody, &of_ann], "bad_credentials"),
    ] {
        let asked = request(acts_as, shown);
        assert_eq!(code(&p1, &asked).await, expected, "{acts_as} {shown:?}");
    }
    let good = request("", &[&of_ann]);
    assert_eq!(code(&p2, &good).await, "sasl_not_offered");
    let backend = site.client(Role::StoreBackend, "p1");
    assert_eq!(code(&backend, &good).await, "sasl_not_offered");
    let long = "A".repeat(64 * 1024);
    let endless = SaslRequest {
        certificates: vec![good.certificates[0].clone(), long],
        ..good.clone()
    };
    assert_eq!(code(&p1, &endless).await, "bad_credentials");

    let suspend = AccountChange {
        status: Some(AccountStatus::Suspended),
        ..AccountChange::default()
    };
    let operator = site.client(Role::Operator, "op");
    operator.change_account(ann, &suspend).await.unwrap();
    assert_eq!(code(&p1, &good).await, "suspended");
    site.down().await;
}
