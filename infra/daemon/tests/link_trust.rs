//! Who is let in on a link, and who is not.
#![allow(clippy::unwrap_used)]

mod common;

use std::{fs, io, net::SocketAddr, os::unix::fs::PermissionsExt, sync::Arc, time::Duration};

use axum::{Extension, Json, Router, routing::get};
use common::{LONG, Site, any_port, b1};
use daemon::{
    identity::{Authority, Identity, IdentityError, Peer, Role, server_name},
    link::{CallError, Link, LinkError, LinkOptions, LinkTarget, Problem, require},
    shutdown::Shutdown,
};
use http::Method;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{io::AsyncReadExt, net::TcpStream};
use tokio_rustls::TlsConnector;

fn router() -> Router {
    Router::new()
        .route(
            "/who",
            get(async |Extension(peer): Extension<Peer>| Json(peer.to_string())),
        )
        .route(
            "/mx-only",
            get(async |Extension(peer): Extension<Peer>| {
                require(&peer, &[Role::MxFrontend]).map(|()| Json("in"))
            }),
        )
}

async fn who(link: &Link) -> Result<String, CallError> {
    link.json(Method::GET, "/who", &(), LONG).await
}

fn cause(error: &CallError) -> String {
    assert!(error.never_sent(), "{error:?}");
    daemon::log::causes(error)
}

/// Speaks TLS with whatever is given as client certificate; gives what the server's refusal looks like.
async fn refusal(site: &Site, to: SocketAddr, certificate: Option<(&str, &str)>) -> io::Error {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(site.path("trusted.pem")).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match certificate {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_file(site.path(certificate)).unwrap()],
                PrivateKeyDer::from_pem_file(site.path(key)).unwrap(),
            )
            .unwrap(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(to).await.unwrap();
    let name = ServerName::try_from(server_name(Role::StoreBackend, "b1")).unwrap();
    match TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
    {
        Err(error) => error,
        Ok(mut tls) => tls.read_u8().await.unwrap_err(),
    }
}

#[tokio::test]
async fn a_process_of_our_authority_is_known_by_role_and_node() {
    let site = Site::new();
    let (to, _) = site.serve(any_port(), router(), &Shutdown::new());
    assert_eq!(who(&site.link(to)).await.unwrap(), "mx-frontend mx1");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let site = Site::new();
    let (to, _) = site.serve(any_port(), router(), &Shutdown::new());
    let error = refusal(&site, to, None).await.to_string();
    assert!(error.contains("CertificateRequired"), "{error}");
}

#[tokio::test]
async fn a_certificate_for_users_opens_no_link() {
    let site = Site::new();
    let (to, _) = site.serve(any_port(), router(), &Shutdown::new());
    let names = [
        "mx1.mx-frontend.posthouse.internal",
        "mx-frontend.posthouse.internal",
    ];
    site.authority
        .issue_public(&names, &site.path("public.pem"), &site.path("public.key"))
        .unwrap();
    let error = refusal(&site, to, Some(("public.pem", "public.key")))
        .await
        .to_string();
    assert!(error.contains("received fatal alert"), "{error}");
}

#[tokio::test]
async fn a_client_of_another_authority_is_refused_before_anything_is_sent() {
    let (ours, theirs) = (Site::new(), Site::new());
    let (to, _) = ours.serve(any_port(), router(), &Shutdown::new());
    // It trusts our authority, so that the refusal is the server's.
    let mut files = theirs.files("mx1");
    theirs.identity(Role::MxFrontend, "mx1");
    files.ca = ours.path("trusted.pem");
    let stranger = Link::new(
        b1(to),
        &Identity::load(&files).unwrap(),
        LinkOptions::default(),
    );
    let error = cause(&who(&stranger).await.unwrap_err());
    assert!(
        error.contains("TLS was refused") && error.contains("alert"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused() {
    let (ours, theirs) = (Site::new(), Site::new());
    let (to, _) = theirs.serve(any_port(), router(), &Shutdown::new());
    let error = cause(&who(&ours.link(to)).await.unwrap_err());
    // Both authorities have one name, so the signature is what differs.
    assert!(error.contains("invalid peer certificate"), "{error}");
}

#[tokio::test]
async fn a_server_with_another_name_is_refused() {
    let site = Site::new();
    let (to, _) = site.serve(any_port(), router(), &Shutdown::new());
    for name in [
        server_name(Role::StoreBackend, "b2"),
        server_name(Role::Directory, "b1"),
    ] {
        let target = LinkTarget {
            address: to.to_string(),
            server_name: name,
        };
        let link = Link::new(
            target,
            &site.identity(Role::MxFrontend, "mx1"),
            LinkOptions::default(),
        );
        let error = cause(&who(&link).await.unwrap_err());
        assert!(error.contains("not valid for name"), "{error}");
    }
}

#[tokio::test]
async fn the_wrong_role_is_told_so() {
    let site = Site::new();
    let (to, _) = site.serve(any_port(), router(), &Shutdown::new());
    let proxy = Link::new(
        b1(to),
        &site.identity(Role::PopImapProxy, "p1"),
        LinkOptions::default(),
    );
    match proxy
        .json::<_, String>(Method::GET, "/mx-only", &(), LONG)
        .await
        .unwrap_err()
    {
        CallError::Refused(problem) => {
            assert_eq!(
                (problem.status.as_u16(), &*problem.code),
                (403, "role_forbidden")
            );
            assert_eq!(problem.message, "pop-imap-proxy p1 may not do this");
        }
        other => panic!("{other:?}"),
    }
    let inside: String = site
        .link(to)
        .json(Method::GET, "/mx-only", &(), LONG)
        .await
        .unwrap();
    assert_eq!(inside, "in");
}

#[tokio::test]
async fn an_answer_without_a_typed_reason_is_a_protocol_error_with_its_status() {
    let site = Site::new();
    let (to, _) = site.serve(any_port(), router(), &Shutdown::new());
    match site
        .link(to)
        .json::<_, String>(Method::GET, "/nowhere", &(), LONG)
        .await
        .unwrap_err()
    {
        CallError::Protocol { status, .. } => assert_eq!(status, 404),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_problem_travels_with_its_detail() {
    let site = Site::new();
    let problem = Problem::new(http::StatusCode::CONFLICT, "stale_epoch", "the epoch is 4")
        .with_detail(serde_json::json!({ "epoch": 4 }));
    let sent = problem.clone();
    let router = Router::new().route("/", get(async move || sent));
    let (to, _) = site.serve(any_port(), router, &Shutdown::new());
    match site
        .link(to)
        .json::<_, ()>(Method::GET, "/", &(), LONG)
        .await
        .unwrap_err()
    {
        CallError::Refused(received) => assert_eq!(received, problem),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_black_hole_times_out_within_a_second() {
    let site = Site::new();
    // The kernel finishes TCP; nobody ever accepts.
    let hole = daemon::listener::bind(any_port(), "black hole").unwrap();
    let link = site.link(hole.local_addr().unwrap());
    let begun = std::time::Instant::now();
    let error = cause(&who(&link).await.unwrap_err());
    assert!(error.contains("no answer within 1000 ms"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_server_name_that_is_none_and_a_path_that_is_none_send_nothing() {
    let site = Site::new();
    let identity = site.identity(Role::MxFrontend, "mx1");
    let target = LinkTarget {
        address: "127.0.0.1:1".into(),
        server_name: "no name".into(),
    };
    let link = Link::new(target, &identity, LinkOptions::default());
    assert!(who(&link).await.unwrap_err().never_sent());
    let link = site.link(([127, 0, 0, 1], 1).into());
    let error = link
        .json::<_, ()>(Method::GET, "two words", &(), LONG)
        .await
        .unwrap_err();
    assert!(
        matches!(error, CallError::Link(LinkError::Path { .. })),
        "{error:?}"
    );
}

#[test]
fn keys_are_private_and_an_authority_is_never_overwritten() {
    let site = Site::new();
    site.identity(Role::Directory, "d1");
    for key in ["ca.key", "d1.key"] {
        assert_eq!(
            fs::metadata(site.path(key)).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
    assert!(matches!(
        Authority::create(site.folder.path()),
        Err(IdentityError::Write { .. })
    ));
    let again = Authority::open(site.folder.path()).unwrap();
    let identity = again
        .issue(Role::Migrator, "m1", &site.files("m1"))
        .unwrap();
    assert_eq!(
        identity.peer(),
        &Peer {
            role: Role::Migrator,
            node: "m1".into()
        }
    );
    assert_eq!(
        format!("{again:?} {identity:?}").matches("PRIVATE").count(),
        0
    );
}

#[test]
fn node_names_that_could_pass_for_another_role_are_refused() {
    let site = Site::new();
    for node in ["", "x.directory", "UP", "-a", "a-", "ü", &"a".repeat(41)] {
        let error = site
            .authority
            .issue(Role::Operator, node, &site.files("x"))
            .unwrap_err();
        assert!(
            matches!(error, IdentityError::NodeName { .. }),
            "{node}: {error}"
        );
    }
    site.authority
        .issue(Role::PopImapProxy, &"a".repeat(40), &site.files("x"))
        .unwrap();
}

#[test]
fn a_certificate_that_names_two_roles_or_no_node_is_nobody() {
    let site = Site::new();
    let of = |names: &[&str]| {
        site.authority
            .issue_public(names, &site.path("c.pem"), &site.path("c.key"))
            .unwrap();
        Peer::of(&CertificateDer::from_pem_file(site.path("c.pem")).unwrap())
    };
    assert!(
        of(&[
            "a.directory.posthouse.internal",
            "directory.posthouse.internal"
        ])
        .is_ok()
    );
    for names in [
        &[
            "a.directory.posthouse.internal",
            "operator.posthouse.internal",
        ][..],
        &[
            "a.directory.posthouse.internal",
            "b.directory.posthouse.internal",
        ],
        &["directory.posthouse.internal"],
        &["a.b.directory.posthouse.internal"],
        &["a.king.posthouse.internal"],
        &["mail.example.test", "127.0.0.1"],
    ] {
        assert!(of(names).is_err(), "{names:?}");
    }
}

#[test]
fn identity_errors_name_the_file() {
    let site = Site::new();
    site.identity(Role::Directory, "d1");
    let mut files = site.files("d1");
    files.key = site.path("missing.key");
    assert!(
        Identity::load(&files)
            .unwrap_err()
            .to_string()
            .contains("missing.key: cannot be read")
    );
    files.key = site.path("ca.key");
    assert!(
        Identity::load(&files)
            .unwrap_err()
            .to_string()
            .contains("d1.pem: certificate and key cannot be used")
    );
    files.key = site.path("ca.pem");
    assert!(
        Identity::load(&files)
            .unwrap_err()
            .to_string()
            .contains("holds no usable private key")
    );
}
