//! TLS towards users: STLS, implicit TLS, and no password without either.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::site::{Dialogue, Site, Wire};

async fn tls(site: &Site, wire: impl Wire + 'static) -> Dialogue {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(site.authority_pem().as_bytes()).unwrap())
        .unwrap();
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    Dialogue::over(
        TlsConnector::from(Arc::new(config))
            .connect(name, wire)
            .await
            .unwrap(),
    )
}

#[tokio::test]
async fn passwords_are_taken_in_tls_only() {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let backend = site.backend_with("b1", "", "");
    backend.ready().await;
    let mut plain = Dialogue::open(backend.pop3).await;
    plain.expect("+OK").await;
    plain.ask("USER ann@example.test", "-ERR").await;
    plain.ask("AUTH PLAIN", "-ERR").await;
    plain.ask("STLS", "+OK").await;
    let mut inside = tls(&site, plain.into_wire()).await;
    inside.ask("USER ann@example.test", "+OK").await;
    inside.ask("PASS pass", "+OK").await;
    inside.ask("STAT", "+OK 0 0").await;
    inside.ask("QUIT", "+OK").await;

    let mut implicit = tls(&site, TcpStream::connect(backend.pop3s).await.unwrap()).await;
    implicit.expect("+OK").await;
    let response = data_encoding::BASE64.encode(b"\0ann@example.test\0pass");
    implicit.ask(&format!("AUTH PLAIN {response}"), "+OK").await;
    implicit.ask("NOOP", "+OK").await;
}

#[tokio::test]
async fn what_is_sent_in_plain_text_behind_stls_is_thrown_away() {
    let site = Site::new().await;
    let backend = site.backend("b1").await;
    let mut plain = Dialogue::open(backend.pop3).await;
    plain.expect("+OK").await;
    plain.send(b"STLS\r\nCAPA\r\n").await;
    plain.expect("+OK").await;
    let mut inside = tls(&site, plain.into_wire()).await;
    inside.ask("QUIT", "+OK").await;
    assert_eq!(inside.line().await, "", "one answer, to QUIT");
}
