//! Certificates of users: who has issued them, and the mail addresses that stand in them.

use std::{fmt, path::Path, sync::Arc};

use rustls::{
    pki_types::{CertificateDer, UnixTime},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use crate::{
    channel_binding::{SEQUENCE, any_element, element, sequence},
    identity::{IdentityError, authorities},
};

/// Whose certificates of users are believed.
#[derive(Clone)]
pub struct UserAuthorities {
    verifier: Arc<dyn ClientCertVerifier>,
}

impl fmt::Debug for UserAuthorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserAuthorities").finish_non_exhaustive()
    }
}

impl UserAuthorities {
    /// Reads certificates of authorities (PEM).
    ///
    /// # Errors
    /// `Read`, `Pem`, `Mismatch` and `Authority` name the file.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let path = path.to_owned();
        let roots = authorities(&path)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .allow_unauthenticated()
            .build()
            .map_err(|source| IdentityError::Authority { path, source })?;
        Ok(Self { verifier })
    }

    /// What a server asks its clients by; who shows no certificate is served too.
    pub(crate) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.verifier)
    }

    /// The mail addresses in the first certificate (`rfc822Name`, RFC 5280 §4.2.1.6), if the others lead from it to one of these
    /// authorities, all are valid now, and it is for clients. That who shows it has its key is not known by this.
    #[must_use]
    pub fn mail_addresses(&self, chain: &[Vec<u8>]) -> Option<Vec<String>> {
        let (end, between) = chain.split_first()?;
        let certificate = |octets: &Vec<u8>| CertificateDer::from(octets.clone());
        let between: Vec<_> = between.iter().map(certificate).collect();
        let checked =
            self.verifier
                .verify_client_cert(&certificate(end), &between, UnixTime::now());
        checked.ok()?;
        mail_addresses(end)
    }
}

/// The addresses in a certificate (DER); nothing where it is none.
fn mail_addresses(certificate: &[u8]) -> Option<Vec<String>> {
    let (whole, _) = sequence(certificate)?;
    let (mut body, _) = sequence(whole)?;
    let mut found = Vec::new();
    while !body.is_empty() {
        let (tag, content, rest) = any_element(body)?;
        body = rest;
        if tag != EXTENSIONS {
            continue;
        }
        let (mut extensions, _) = sequence(content)?;
        while !extensions.is_empty() {
            let (extension, rest) = sequence(extensions)?;
            extensions = rest;
            let Some(rest) = extension.strip_prefix(SUBJECT_ALT_NAME) else {
                continue;
            };
            // Whether it is critical may stand between.
            let rest = element(rest, BOOLEAN).map_or(rest, |(_, rest)| rest);
            let (octets, _) = element(rest, OCTET_STRING)?;
            let (mut names, _) = element(octets, SEQUENCE)?;
            while !names.is_empty() {
                let (tag, name, rest) = any_element(names)?;
                names = rest;
                if tag == RFC822_NAME && name.is_ascii() {
                    found.extend(String::from_utf8(name.to_vec()));
                }
            }
        }
    }
    Some(found)
}

/// `[3]` of a certificate's body (RFC 5280 §4.1).
const EXTENSIONS: u8 = 0xa3;
/// The object identifier 2.5.29.17, with its tag and length.
const SUBJECT_ALT_NAME: &[u8] = &[6, 3, 0x55, 0x1d, 17];
/// `[1]` of a general name.
const RFC822_NAME: u8 = 0x81;
const BOOLEAN: u8 = 1;
const OCTET_STRING: u8 = 4;

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
        SanType,
    };

    use super::*;

    struct Authority {
        issuer: Issuer<'static, KeyPair>,
        trusted: UserAuthorities,
    }

    fn authority() -> Authority {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        std::fs::write(&path, params.self_signed(&key).unwrap().pem()).unwrap();
        Authority {
            issuer: Issuer::new(params, key),
            trusted: UserAuthorities::load(&path).unwrap(),
        }
    }

    fn issued(by: &Authority, names: Vec<SanType>, usage: ExtendedKeyUsagePurpose) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = names;
        params.extended_key_usages = vec![usage];
        params.signed_by(&key, &by.issuer).unwrap().der().to_vec()
    }

    fn mail(address: &str) -> SanType {
        SanType::Rfc822Name(address.try_into().unwrap())
    }

    #[test]
    fn addresses_are_those_of_a_certificate_for_clients_of_an_authority_that_is_believed() {
        let (ours, other) = (authority(), authority());
        let names = || {
            let host = SanType::DnsName("ann.x.test".try_into().unwrap());
            vec![mail("ann@x.test"), host, mail("a.n@x.test")]
        };
        let for_clients = issued(&ours, names(), ExtendedKeyUsagePurpose::ClientAuth);
        let found = ours
            .trusted
            .mail_addresses(std::slice::from_ref(&for_clients));
        assert_eq!(found.unwrap(), ["ann@x.test", "a.n@x.test"]);
        assert_eq!(other.trusted.mail_addresses(&[for_clients]), None);
        let for_servers = issued(&ours, names(), ExtendedKeyUsagePurpose::ServerAuth);
        assert_eq!(ours.trusted.mail_addresses(&[for_servers]), None);
        let nameless = issued(&ours, Vec::new(), ExtendedKeyUsagePurpose::ClientAuth);
        assert_eq!(ours.trusted.mail_addresses(&[nameless]).unwrap().len(), 0);
        assert_eq!(ours.trusted.mail_addresses(&[]), None);
    }

    #[test]
    fn what_is_no_certificate_has_no_addresses() {
        let ours = authority();
        let names = vec![mail("ann@x.test")];
        let whole = issued(&ours, names, ExtendedKeyUsagePurpose::ClientAuth);
        for cut in 0..whole.len() {
            assert_eq!(mail_addresses(&whole[..cut]), None, "{cut}");
        }
    }
}
