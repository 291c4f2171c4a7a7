//! Where files lie in a volume.
//!
//! ```text
//! FORMAT                          marker: version, names, incarnation
//! LOCK                            locked while the volume is open
//! journal/NNNNNNNN.seg            see infra/durable
//! index/                          LMDB
//! incoming/<32 hex>               large bodies on their way
//! blobs/ab/cd/ef/gh-<64 hex>      abcdefgh: the blob's number, the rest its hash
//! mail/ab/cd/ef/gh/<mailbox>/<uid>   abcdefgh: the account's number
//! quarantine/abcdefgh-<64 hex>    files of blobs that had another hash; empty: there was none
//! ```
//!
//! Numbers of accounts and blobs have 40 bits: eight base-32 digits (RFC 4648 extended hex, lower case), two a level,
//! so a level has 1024 entries. `<mailbox>` and `<uid>` are [`grown`]: decimal below 512, deeper above.

use std::path::PathBuf;

use directory_api::AccountId;

use super::types::{Hash, MailboxId};

/// The one version of the layout this build reads and writes.
pub(super) const FORMAT_VERSION: u32 = 1;
pub(super) const FORMAT_FILE: &str = "FORMAT";
pub(super) const LOCK_FILE: &str = "LOCK";
pub(super) const JOURNAL_DIR: &str = "journal";
pub(super) const INDEX_DIR: &str = "index";
pub(super) const INCOMING_DIR: &str = "incoming";
pub(super) const BLOBS_DIR: &str = "blobs";
pub(super) const MAIL_DIR: &str = "mail";
/// Made when it is first needed.
pub(super) const QUARANTINE_DIR: &str = "quarantine";
pub(super) const KEPT_DIR: &str = "kept";

/// Account and blob numbers lie below this: eight digits of five bits.
pub(super) const NUMBER_LIMIT: u64 = 1 << 40;

/// Paths of one volume.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) root: PathBuf,
}

impl Layout {
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(super) fn incoming(&self, token: &[u8; 16]) -> PathBuf {
        self.root
            .join(INCOMING_DIR)
            .join(data_encoding::HEXLOWER.encode(token))
    }

    pub(super) fn blob(&self, number: u64, hash: &Hash) -> PathBuf {
        // Made for every message that is read: in one piece of memory.
        let [a, b, c, d] = pairs(number);
        let (a, b, c, d) = (text(&a), text(&b), text(&c), text(&d));
        let mut hex = [0; 64];
        data_encoding::HEXLOWER.encode_mut(hash, &mut hex);
        let parts = [BLOBS_DIR, "/", a, "/", b, "/", c, "/", d, "-", text(&hex)];
        let octets = parts.iter().map(|part| part.len()).sum::<usize>();
        let mut path = PathBuf::with_capacity(self.root.as_os_str().len() + 1 + octets);
        path.push(&self.root);
        path.push("");
        parts
            .iter()
            .for_each(|part| path.as_mut_os_string().push(part));
        path
    }

    /// Where a broken blob's file is put aside.
    pub(super) fn quarantined(&self, number: u64, hash: &Hash) -> PathBuf {
        let name = format!(
            "{}-{}",
            pairs(number).each_ref().map(|pair| text(pair)).concat(),
            data_encoding::HEXLOWER.encode(hash)
        );
        self.root.join(QUARANTINE_DIR).join(name)
    }

    pub(super) fn account(&self, account: AccountId) -> PathBuf {
        let pairs = pairs(account.0);
        let mut path = self.root.join(MAIL_DIR);
        path.extend(pairs.each_ref().map(|pair| text(pair)));
        path
    }

    pub(super) fn mailbox(&self, account: AccountId, mailbox: MailboxId) -> PathBuf {
        self.account(account).join(grown(mailbox.0))
    }

    pub(super) fn message(&self, account: AccountId, mailbox: MailboxId, uid: u32) -> PathBuf {
        self.mailbox(account, mailbox).join(grown(uid))
    }
}

/// Eight digits in four pairs, the most significant first.
fn pairs(number: u64) -> [[u8; 2]; 4] {
    debug_assert!(
        number < NUMBER_LIMIT,
        "numbers are checked when they are given"
    );
    [30, 20, 10, 0].map(|shift| pair(number >> shift))
}

/// The number that eight digits stand for.
pub(super) fn number_of(digits: &str) -> Option<u64> {
    let place = |digit: u8| DIGITS.iter().position(|one| *one == digit);
    let add = |number: u64, digit: u8| Some(number << 5 | place(digit)? as u64);
    match digits.len() {
        8 => digits.bytes().try_fold(0, add),
        _ => None,
    }
}

fn pair(number: u64) -> [u8; 2] {
    let digit = |bits: u64| DIGITS[(bits & 31) as usize];
    [digit(number >> 5), digit(number)]
}

fn text(digits: &[u8]) -> &str {
    std::str::from_utf8(digits).expect("digits are ASCII")
}

/// Where `number` lies in a folder that starts small and never holds more than 1024 entries.
///
/// Below 2⁹ directly; below 2¹⁹ in `b/ab/`, below 2²⁹ in `c/ab/cd/`, above in `d/ab/cd/ef/`, where the letters are
/// the base-32 digits of the number without its low nine bits. A leaf has at most 512 files, the top at most
/// 512 files and the three folders; the last name is always the whole number in decimal, for people.
pub(super) fn grown(number: u32) -> PathBuf {
    let chunk = u64::from(number >> 9);
    let mut path = PathBuf::new();
    match number {
        0..0x200 => {}
        0x200..0x8_0000 => path.extend(["b", text(&pair(chunk))]),
        0x8_0000..0x2000_0000 => path.extend(["c", text(&pair(chunk >> 10)), text(&pair(chunk))]),
        _ => path.extend([
            "d",
            text(&pair(chunk >> 20)),
            text(&pair(chunk >> 10)),
            text(&pair(chunk)),
        ]),
    }
    path.push(number.to_string());
    path
}

/// RFC 4648 §7 in lower case: its order is the order of the numbers.
const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;

    use super::*;

    fn layout() -> Layout {
        Layout { root: "/v".into() }
    }

    #[test]
    fn an_accounts_folder_is_its_number_in_base_32_two_digits_a_level() {
        let folder = |n| layout().account(AccountId(n));
        assert_eq!(folder(1), Path::new("/v/mail/00/00/00/01"));
        assert_eq!(folder(1023), Path::new("/v/mail/00/00/00/vv"));
        assert_eq!(folder(1024), Path::new("/v/mail/00/00/01/00"));
        assert_eq!(folder(NUMBER_LIMIT - 1), Path::new("/v/mail/vv/vv/vv/vv"));
    }

    #[test]
    fn a_blobs_name_carries_its_hash() {
        let path = layout().blob(33, &[0xab; 32]);
        assert_eq!(
            path,
            Path::new("/v/blobs/00/00/00").join(format!("11-{}", "ab".repeat(32)))
        );
    }

    #[test]
    fn a_small_mailbox_costs_one_directory_and_a_large_one_grows() {
        assert_eq!(grown(1), Path::new("1"));
        assert_eq!(grown(511), Path::new("511"));
        assert_eq!(grown(512), Path::new("b/01/512"));
        assert_eq!(grown(0x7_ffff), Path::new("b/vv/524287"));
        assert_eq!(grown(0x8_0000), Path::new("c/01/00/524288"));
        assert_eq!(grown(0x2000_0000), Path::new("d/01/00/00/536870912"));
        assert_eq!(grown(u32::MAX), Path::new("d/07/vv/vv/4294967295"));
    }

    #[test]
    fn no_folder_holds_more_than_1024_entries() {
        let mut folders: BTreeMap<PathBuf, BTreeSet<PathBuf>> = BTreeMap::new();
        let dense = 0..300_000;
        let edges = [1u32 << 19, 1 << 29]
            .into_iter()
            .flat_map(|edge| edge - 2000..edge + 2000);
        let sparse = (0..u32::MAX).step_by(7_001);
        for number in dense.chain(edges).chain(sparse) {
            let path = Path::new("m").join(grown(number));
            for step in path.ancestors().take_while(|step| step.parent().is_some()) {
                let parent = step.parent().unwrap();
                if !folders
                    .entry(parent.into())
                    .or_default()
                    .insert(step.into())
                {
                    break;
                }
            }
        }
        let most = folders.values().map(BTreeSet::len).max().unwrap();
        assert!(most <= 1024, "{most}");
    }
}
