//! The private certificate authority of one installation.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

use super::{Identity, IdentityError, IdentityFiles, Role, role_name, server_name};

/// Signs the certificates of all processes of one installation.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority(key hidden)")
    }
}

impl Authority {
    /// Makes a new authority and keeps it in `folder` as `ca.pem` and `ca.key` (mode 0600).
    ///
    /// # Errors
    /// `Write` when a file cannot be written, or is there already: an authority is never overwritten.
    pub fn create(folder: &Path) -> Result<Self, IdentityError> {
        let key = KeyPair::generate()?;
        let certificate = authority_params().self_signed(&key)?.pem();
        // The key first: a certificate without its key would look like an authority to `open`.
        write_new(&folder.join(KEY), &key.serialize_pem(), 0o600)?;
        write_new(&folder.join(CERTIFICATE), &certificate, 0o644)?;
        sync_folder(folder)?;
        Ok(Self {
            issuer: Issuer::new(authority_params(), key),
            certificate,
        })
    }

    /// Opens the authority that [`create`](Self::create) has left in `folder`.
    ///
    /// # Errors
    /// `Read` when a file is missing, `Issue` when the key is none.
    pub fn open(folder: &Path) -> Result<Self, IdentityError> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).map_err(|source| IdentityError::Read { path, source })
        };
        let key = KeyPair::from_pem(&read(KEY)?)?;
        let certificate = read(CERTIFICATE)?;
        Ok(Self {
            issuer: Issuer::new(authority_params(), key),
            certificate,
        })
    }

    /// Gives the authority's own certificate in PEM form, for those who shall trust it.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    /// Makes key and certificate of one node; also writes `files.ca`. Existing files are replaced.
    ///
    /// # Errors
    /// `NodeName` for a name that is no DNS label; `Write`.
    pub fn issue(
        &self,
        role: Role,
        node: &str,
        files: &IdentityFiles,
    ) -> Result<Identity, IdentityError> {
        let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if node.is_empty()
            || node.len() > NODE_NAME_MAX
            || !node.chars().all(label)
            || node.starts_with('-')
            || node.ends_with('-')
        {
            return Err(IdentityError::NodeName {
                node: node.to_owned(),
            });
        }
        let mut params = CertificateParams::new([server_name(role, node), role_name(role)])?;
        params.distinguished_name = named(&format!("Posthouse {role} {node}"));
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        self.sign(params, &files.certificate, &files.key)?;
        write(&files.ca, &self.certificate, 0o644)?;
        Identity::load(files)
    }

    /// Makes key and certificate for the users' side, for host names and addresses; it opens no link inside.
    ///
    /// # Errors
    /// `Issue` for a name that is none; `Write`.
    pub fn issue_public(
        &self,
        names: &[&str],
        certificate: &Path,
        key: &Path,
    ) -> Result<(), IdentityError> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = named("Posthouse server");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params, certificate, key)
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        certificate: &Path,
        key: &Path,
    ) -> Result<(), IdentityError> {
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let pair = KeyPair::generate()?;
        let signed = params.signed_by(&pair, &self.issuer)?;
        write(key, &pair.serialize_pem(), 0o600)?;
        write(certificate, &signed.pem(), 0o644)
    }
}

/// Describes the authority. `open` makes it anew instead of parsing the certificate, so it must never change.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("Posthouse private authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// Writes beside and renames, so that a reader or a crash never meets half a key.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), IdentityError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    _ = fs::remove_file(&beside);
    write_new(&beside, text, mode)?;
    fs::rename(&beside, path).map_err(|source| IdentityError::Write {
        path: path.to_owned(),
        source,
    })
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), IdentityError> {
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| IdentityError::Write {
        path: path.to_owned(),
        source,
    })
}

fn sync_folder(folder: &Path) -> Result<(), IdentityError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| IdentityError::Write {
            path: folder.to_owned(),
            source,
        })
}

const CERTIFICATE: &str = "ca.pem";
const KEY: &str = "ca.key";
/// A common name holds 64 characters (RFC 5280, ub-common-name) and ours has up to 24 before the node.
const NODE_NAME_MAX: usize = 40;
