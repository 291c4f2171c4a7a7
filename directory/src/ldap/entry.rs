//! What an entry of LDAP says of a user.

use std::collections::HashMap;

use data_encoding::HEXLOWER;
use directory_api::wire::limit;
use directory_api::{AccountStatus, Address, LoginName};
use ldap3::asn1::{PL, StructureTag};

use super::LdapSettings;
use crate::engine::LdapUser;

/// An entry as it came: attribute names in lower case.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) dn: String,
    values: HashMap<String, Vec<Vec<u8>>>,
}

/// Why an entry is no user of ours. Who was taken from it before is suspended, and stays as it was otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    #[error("it has no {0}, or one that is too long")]
    Lacks(String),
    #[error("its {0} cannot be a login name")]
    LoginName(String),
    #[error("it has more than {max} addresses", max = limit::TARGETS_MAX)]
    TooManyAddresses,
    #[error("its {0} is no number of octets")]
    Quota(String),
    #[error("its name is longer than {DN_MAX_OCTETS} octets")]
    Name,
}

impl Entry {
    /// Reads SearchResultEntry (RFC 4511 §4.5.2); nothing where it is not as it says there.
    pub(super) fn read(tag: StructureTag) -> Option<Self> {
        let mut parts = constructed(tag)?.into_iter();
        let dn = String::from_utf8(primitive(parts.next()?)?).ok()?;
        let mut values = HashMap::new();
        for attribute in constructed(parts.next()?)? {
            let mut parts = constructed(attribute)?.into_iter();
            let name = String::from_utf8(primitive(parts.next()?)?).ok()?;
            let all: Option<Vec<_>> = constructed(parts.next()?)?
                .into_iter()
                .map(primitive)
                .collect();
            values.insert(name.to_ascii_lowercase(), all?);
        }
        Some(Self { dn, values })
    }

    fn all(&self, attribute: &str) -> &[Vec<u8>] {
        let found = self.values.get(&attribute.to_ascii_lowercase());
        found.map_or(&[], Vec::as_slice)
    }

    fn texts(&self, attribute: &str) -> impl Iterator<Item = &str> {
        let values = self.all(attribute).iter();
        values
            .filter_map(|one| std::str::from_utf8(one).ok())
            .map(str::trim)
    }

    /// What the entry keeps for ever: as text, or octets that are none in hexadecimal.
    pub(super) fn id(&self, settings: &LdapSettings) -> Option<String> {
        let value = self.all(&settings.id_attribute).first()?;
        let text = std::str::from_utf8(value).ok();
        let text = text.filter(|text| text.chars().all(|one| !one.is_control()));
        let id = text.map_or_else(|| HEXLOWER.encode(value), str::to_ascii_lowercase);
        (1..=ID_MAX_OCTETS).contains(&id.len()).then_some(id)
    }

    /// When it was changed last; texts of one server, later ones being greater.
    pub(super) fn modified(&self, settings: &LdapSettings) -> Option<&str> {
        let mut texts = self.texts(&settings.modified_attribute);
        let fits = |text: &&str| {
            text.len() <= STAMP_MAX_OCTETS && text.chars().all(|one| one.is_ascii_graphic())
        };
        texts.next().filter(fits)
    }

    pub(super) fn user(&self, settings: &LdapSettings) -> Result<LdapUser, Unusable> {
        let lacks = |attribute: &String| Unusable::Lacks(attribute.clone());
        let id = self
            .id(settings)
            .ok_or_else(|| lacks(&settings.id_attribute))?;
        if self.dn.is_empty() || self.dn.len() > DN_MAX_OCTETS {
            return Err(Unusable::Name);
        }
        let login = &settings.login_attribute;
        let name = self.texts(login).next().ok_or_else(|| lacks(login))?;
        let login_name = LoginName::new(name).map_err(|_| Unusable::LoginName(login.clone()))?;
        let version = self.modified(settings).unwrap_or("-").to_owned();
        Ok(LdapUser {
            id,
            dn: self.dn.clone(),
            version,
            login_name,
            addresses: self.addresses(settings)?,
            status: self.status(settings),
            quota_octets: self.quota(settings)?,
        })
    }

    /// What is no address is left out, as is what others write before one: "smtp:ann@x.test".
    fn addresses(&self, settings: &LdapSettings) -> Result<Vec<Address>, Unusable> {
        let attributes = settings.address_attributes.iter();
        let texts = attributes.flat_map(|attribute| self.texts(attribute));
        let texts = texts.map(|text| match text.split_at_checked(5) {
            Some((kind, rest)) if kind.eq_ignore_ascii_case("smtp:") => rest,
            _ => text,
        });
        let mut addresses: Vec<Address> = texts.filter_map(|text| text.parse().ok()).collect();
        addresses.sort();
        addresses.dedup();
        match addresses.len() {
            0..=limit::TARGETS_MAX => Ok(addresses),
            _ => Err(Unusable::TooManyAddresses),
        }
    }

    fn status(&self, settings: &LdapSettings) -> Option<AccountStatus> {
        let attribute = settings.status_attribute.as_ref()?;
        let suspends = |text: &str| {
            let mut values = settings.suspended_values.iter();
            values.any(|value| value.eq_ignore_ascii_case(text))
        };
        Some(match self.texts(attribute).any(suspends) {
            true => AccountStatus::Suspended,
            false => AccountStatus::Active,
        })
    }

    /// Without a value there is no limit.
    fn quota(&self, settings: &LdapSettings) -> Result<Option<u64>, Unusable> {
        let Some(attribute) = &settings.quota_attribute else {
            return Ok(None);
        };
        match self.texts(attribute).next() {
            None => Ok(Some(0)),
            Some(text) => octets_of(text)
                .map(Some)
                .ok_or_else(|| Unusable::Quota(attribute.clone())),
        }
    }
}

fn octets_of(text: &str) -> Option<u64> {
    let text = text.trim_end_matches(['B', 'b']);
    let (number, power) = match text.chars().last()?.to_ascii_uppercase() {
        'K' => (&text[..text.len() - 1], 1),
        'M' => (&text[..text.len() - 1], 2),
        'G' => (&text[..text.len() - 1], 3),
        'T' => (&text[..text.len() - 1], 4),
        _ => (text, 0),
    };
    let number: u64 = number.trim_end().parse().ok()?;
    number.checked_mul(1024_u64.pow(power))
}

fn constructed(tag: StructureTag) -> Option<Vec<StructureTag>> {
    match tag.payload {
        PL::C(parts) => Some(parts),
        PL::P(_) => None,
    }
}

fn primitive(tag: StructureTag) -> Option<Vec<u8>> {
    match tag.payload {
        PL::P(octets) => Some(octets),
        PL::C(_) => None,
    }
}

/// A UUID has 36.
const ID_MAX_OCTETS: usize = 256;
/// Of generalized time (RFC 4517 §3.3.13) the longest in use has 23.
const STAMP_MAX_OCTETS: usize = 64;
/// It stands in every account's row.
const DN_MAX_OCTETS: usize = 2_048;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use ldap3::asn1::TagClass;

    use super::*;

    fn tag(payload: PL) -> StructureTag {
        StructureTag {
            class: TagClass::Universal,
            id: 4,
            payload,
        }
    }

    fn text(text: &[u8]) -> StructureTag {
        tag(PL::P(text.to_vec()))
    }

    fn entry(dn: &str, values: &[(&str, &[&[u8]])]) -> Entry {
        let attribute = |(name, values): &(&str, &[&[u8]])| {
            let values = values.iter().map(|value| text(value)).collect();
            tag(PL::C(vec![text(name.as_bytes()), tag(PL::C(values))]))
        };
        let attributes = values.iter().map(attribute).collect();
        let read = tag(PL::C(vec![text(dn.as_bytes()), tag(PL::C(attributes))]));
        Entry::read(read).unwrap()
    }

    fn settings() -> LdapSettings {
        LdapSettings {
            address_attributes: vec!["mail".to_owned(), "proxyAddresses".to_owned()],
            status_attribute: Some("employeeType".to_owned()),
            quota_attribute: Some("mailQuota".to_owned()),
            ..LdapSettings::default()
        }
    }

    const DN: &str = "uid=ann,dc=x";
    const ID: (&str, &[&[u8]]) = ("EntryUUID", &[b"7F-A"]);
    const MAIL: (&str, &[&[u8]]) = ("MAIL", &[b"Ann.Lee@X.test"]);

    #[test]
    fn an_entry_is_a_user_whatever_the_case_of_its_attributes() {
        let user = entry(
            DN,
            &[
                ID,
                MAIL,
                ("modifytimestamp", &[b"20261130191600Z"]),
                (
                    "proxyaddresses",
                    &[b"SMTP:sales@x.test", b"x500:/o=x", b"ann.lee@x.test"],
                ),
                ("employeetype", &[b"Disabled"]),
                ("mailquota", &[b"5 GB"]),
            ],
        );
        let user = user.user(&settings()).unwrap();
        let addresses = ["ann.lee@x.test", "sales@x.test"].map(|one| one.parse().unwrap());
        assert_eq!(
            user,
            LdapUser {
                id: "7f-a".to_owned(),
                dn: DN.to_owned(),
                version: "20261130191600Z".to_owned(),
                login_name: "ann.lee@x.test".parse().unwrap(),
                addresses: addresses.to_vec(),
                status: Some(AccountStatus::Suspended),
                quota_octets: Some(5 << 30),
            }
        );
        let other = entry(DN, &[ID, MAIL]).user(&settings()).unwrap();
        assert_eq!(other.status, Some(AccountStatus::Active));
        assert_eq!((other.quota_octets, other.version.as_str()), (Some(0), "-"));
        let unsaid = entry(DN, &[ID, MAIL]).user(&LdapSettings::default());
        let unsaid = unsaid.unwrap();
        assert_eq!((unsaid.status, unsaid.quota_octets), (None, None));
    }

    #[test]
    fn an_id_of_octets_is_told_in_hexadecimal() {
        let guid = entry(DN, &[("entryUUID", &[b"\xff\x00\x7f"])]);
        assert_eq!(guid.id(&settings()).as_deref(), Some("ff007f"));
        let ascii = entry(DN, &[("entryUUID", &[b"a\x01c"])]);
        assert_eq!(ascii.id(&settings()).as_deref(), Some("610163"));
    }

    #[test]
    fn what_cannot_be_a_user_says_why() {
        let many: Vec<_> = (0..=limit::TARGETS_MAX)
            .map(|number| format!("a{number}@x.test").into_bytes())
            .collect();
        let many: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
        let long = vec![b'a'; ID_MAX_OCTETS + 1];
        let lacks = |name: &str| Unusable::Lacks(name.to_owned());
        for (values, wrong) in [
            (vec![MAIL], lacks("entryUUID")),
            (
                vec![("entryuuid", &[long.as_slice()][..]), MAIL],
                lacks("entryUUID"),
            ),
            (vec![ID], lacks("mail")),
            (vec![ID, ("mail", &[b"\xff"])], lacks("mail")),
            (
                vec![ID, ("mail", &[b"ann lee"])],
                Unusable::LoginName("mail".to_owned()),
            ),
            (
                vec![ID, ("mail", &[b""])],
                Unusable::LoginName("mail".to_owned()),
            ),
            (vec![ID, ("mail", &many)], Unusable::TooManyAddresses),
            (
                vec![ID, MAIL, ("mailQuota", &[b"much"])],
                Unusable::Quota("mailQuota".to_owned()),
            ),
        ] {
            assert_eq!(
                entry(DN, &values).user(&settings()),
                Err(wrong),
                "{values:?}"
            );
        }
        assert!(
            entry(DN, &[ID, ("mail", &many[1..])])
                .user(&settings())
                .is_ok()
        );
        let dn = "x".repeat(DN_MAX_OCTETS + 1);
        assert_eq!(
            entry(&dn, &[ID, MAIL]).user(&settings()),
            Err(Unusable::Name)
        );
    }

    #[test]
    fn what_is_no_entry_is_not_read() {
        let dn = || text(b"dc=x");
        for parts in [
            vec![],
            vec![dn()],
            vec![text(b"\xff"), tag(PL::C(vec![]))],
            vec![dn(), text(b"x")],
            vec![dn(), tag(PL::C(vec![text(b"x")]))],
            vec![dn(), tag(PL::C(vec![tag(PL::C(vec![text(b"mail")]))]))],
            vec![
                dn(),
                tag(PL::C(vec![tag(PL::C(vec![text(b"mail"), text(b"x")]))])),
            ],
        ] {
            assert!(
                Entry::read(tag(PL::C(parts.clone()))).is_none(),
                "{parts:?}"
            );
        }
        assert!(Entry::read(text(b"x")).is_none());
    }

    #[test]
    fn a_quota_is_octets_or_a_number_with_its_unit() {
        for (text, octets) in [
            ("0", Some(0)),
            ("1048576", Some(1 << 20)),
            ("10M", Some(10 << 20)),
            ("2 gb", Some(2 << 30)),
            ("16777215T", Some(16_777_215 << 40)),
            ("16777216T", None),
            ("-1", None),
            ("M", None),
            ("", None),
            ("1.5G", None),
        ] {
            assert_eq!(octets_of(text), octets, "{text}");
        }
    }
}
