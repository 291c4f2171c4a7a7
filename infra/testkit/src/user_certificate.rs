//! An authority whose certificates are for users, each with a mail address, or for servers on loopback.

#![allow(clippy::unwrap_used)]

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};

/// Made for one test.
#[derive(Debug)]
pub struct UserAuthority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// What a user's program, or a server, has.
#[derive(Debug)]
pub struct UserCertificate {
    /// PEM.
    pub certificate: String,
    /// PEM.
    pub key: String,
    /// The certificate in DER.
    pub der: Vec<u8>,
}

impl Default for UserAuthority {
    fn default() -> Self {
        Self::new()
    }
}

impl UserAuthority {
    /// Makes its key.
    ///
    /// # Panics
    /// Without randomness.
    #[must_use]
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// Its own certificate.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate of who has this address.
    ///
    /// # Panics
    /// When the address is not ASCII.
    #[must_use]
    pub fn issue(&self, address: &str) -> UserCertificate {
        let mail = SanType::Rfc822Name(address.try_into().unwrap());
        self.sign(mail, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A certificate of a server at 127.0.0.1.
    ///
    /// # Panics
    /// Without randomness.
    #[must_use]
    pub fn issue_loopback(&self) -> UserCertificate {
        let loopback = SanType::IpAddress([127, 0, 0, 1].into());
        self.sign(loopback, ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn sign(&self, name: SanType, purpose: ExtendedKeyUsagePurpose) -> UserCertificate {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![name];
        params.extended_key_usages = vec![purpose];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        UserCertificate {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            der: certificate.der().to_vec(),
        }
    }
}
