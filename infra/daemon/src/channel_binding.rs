//! What tells a TLS connection from all others (RFC 5056), so that a login can be bound to it: whoever sits in
//! the middle has two connections, and they differ.
//!
//! `tls-exporter` (RFC 9266) is a secret of the connection; it is given for TLS 1.3, for with TLS 1.2 it is safe only
//! with an extension of which nobody tells us whether it was agreed on. `tls-server-end-point` (RFC 5929 §4) is the hash
//! of the certificate that was shown. `tls-unique` does not exist in TLS 1.3 and is not given.

use aws_lc_rs::digest::{self, Algorithm};

/// The hash of a certificate, shared by the connections that it was shown on.
pub type EndPoint = std::sync::Arc<[u8]>;

/// One thing that a connection can be bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelBinding {
    /// Its registered name.
    pub kind: &'static str,
    /// The octets.
    pub data: Vec<u8>,
}

/// The registered name of the connection's secret.
pub const TLS_EXPORTER: &str = "tls-exporter";
/// The registered name of the certificate's hash.
pub const TLS_SERVER_END_POINT: &str = "tls-server-end-point";
/// RFC 9266 §4.2.
pub(crate) const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";
pub(crate) const EXPORTER_OCTETS: usize = 32;

/// The hash of a certificate (DER) by the hash function of its signature, SHA-256 for MD5 and SHA-1. None where its
/// signature has no single hash function, as Ed25519 and RSASSA-PSS: there the RFC defines nothing.
pub(crate) fn end_point(certificate: &[u8]) -> Option<EndPoint> {
    let (whole, _) = sequence(certificate)?;
    let (_, behind_body) = sequence(whole)?;
    let (algorithm, _) = sequence(behind_body)?;
    let (name, _) = element(algorithm, OBJECT_IDENTIFIER)?;
    let hash = digest::digest(hash_of(name)?, certificate);
    Some(hash.as_ref().into())
}

/// The hash function in a signature algorithm's object identifier.
fn hash_of(name: &[u8]) -> Option<&'static Algorithm> {
    // 1.2.840.113549.1.1 and 1.2.840.10045.4.
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1];
    const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4];
    match (name.strip_prefix(RSA), name.strip_prefix(ECDSA)) {
        (Some([4 | 5 | 11]), _) | (_, Some([1] | [3, 2])) => Some(&digest::SHA256),
        (Some([12]), _) | (_, Some([3, 3])) => Some(&digest::SHA384),
        (Some([13]), _) | (_, Some([3, 4])) => Some(&digest::SHA512),
        _ => None,
    }
}

pub(crate) fn sequence(octets: &[u8]) -> Option<(&[u8], &[u8])> {
    element(octets, SEQUENCE)
}

/// The content of a DER element with this tag, and what follows it.
pub(crate) fn element(octets: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = any_element(octets)?;
    (found == tag).then_some((content, rest))
}

/// Tag and content of a DER element, and what follows it.
pub(crate) fn any_element(octets: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [tag, length, rest @ ..] = octets else {
        return None;
    };
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length - 0x80))?;
            let length = digits
                .iter()
                .fold(0, |sum, digit| (sum << 8) | usize::from(*digit));
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

pub(crate) const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(algorithm: &'static rcgen::SignatureAlgorithm) -> Vec<u8> {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        parameters.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_is_hashed_as_its_signature_does_or_not_at_all() {
        let hashed = |algorithm| {
            let certificate = certificate(algorithm);
            (end_point(&certificate), certificate)
        };
        let (found, octets) = hashed(&rcgen::PKCS_ECDSA_P256_SHA256);
        assert_eq!(
            found.unwrap()[..],
            *digest::digest(&digest::SHA256, &octets).as_ref()
        );
        let (found, octets) = hashed(&rcgen::PKCS_ECDSA_P384_SHA384);
        assert_eq!(
            found.unwrap()[..],
            *digest::digest(&digest::SHA384, &octets).as_ref()
        );
        assert_eq!(hashed(&rcgen::PKCS_ED25519).0, None);
    }

    #[test]
    fn the_hash_is_of_the_signature_and_never_weaker_than_sha_256() {
        let rsa = |last: u8| [&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1][..], &[last]].concat();
        assert_eq!(hash_of(&rsa(5)), Some(&digest::SHA256), "SHA-1");
        assert_eq!(hash_of(&rsa(11)), Some(&digest::SHA256));
        assert_eq!(hash_of(&rsa(13)), Some(&digest::SHA512));
        assert_eq!(hash_of(&rsa(10)), None, "RSASSA-PSS");
    }

    #[test]
    fn what_is_no_certificate_has_no_hash() {
        let whole = certificate(&rcgen::PKCS_ECDSA_P256_SHA256);
        for cut in 0..whole.len() {
            assert_eq!(end_point(&whole[..cut]), None, "{cut}");
        }
        assert_eq!(end_point(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(end_point(&[0x30, 0x80]), None);
    }
}
