//! The settings of one back-end.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use daemon::balancers::Balancers;
use daemon::config::{Problem, Settings};
use daemon::identity::IdentityFiles;
use daemon::log::LogSettings;
use daemon::public_tls::TlsFiles;
use directory_api::client::STALE_MAX_S;
use directory_api::wire::limit;
use directory_api::{BackendName, VolumeName};
use mail_proto::pop3::Policy;
use serde::{Deserialize, Serialize};

use crate::subaddress::SubaddressMailbox;
use crate::volume::{INDEX_COMPACT_ABOVE_BYTES, LOAD_HALF_LIFE_H, SCRUB_BYTES_PER_S};

daemon::settings! {
    /// One store back-end.
    pub struct Config {
        /// The name of this back-end: one DNS label, the same as in its certificate.
        pub name: String = "b1".into(),
        /// The folder of its volume. Made when it is missing. Not on NFS.
        pub data: PathBuf = PathBuf::from(DATA),
        /// The volume's name in the directory.
        pub volume: String = VOLUME.into(),
        /// Several volumes, as a rule one per disk, in place of `data` and `volume`, which are left out then:
        /// `volumes = [{ name = "d1", folder = "/srv/d1/mail" }, { name = "d2", folder = "/srv/d2/mail" }]`.
        /// Each fails alone: the accounts of one that cannot be opened or written are told to come again, and all others are
        /// served. The names are those in the directory; a name stays with its folder for ever. A folder in which no volume was begun gets a
        /// new one only when the directory knows none of this name, so that a disk that is not mounted is no empty volume. Once
        /// the disk is lost for good, `anew = true` beside the folder begins a new one in its place, to be restored and adopted.
        pub volumes: Vec<VolumeFolder> = Vec::new(),
        /// The name shown in greetings and in Received fields.
        pub hostname: String = "localhost".into(),
        /// Where the other tiers reach it (HTTP/2 over mutual TLS).
        pub link_listen: SocketAddr = loopback(4301),
        /// `host:port` told to the other tiers, when they cannot use the address of `link_listen`.
        pub link_advertise: Option<String> = None,
        /// The directory, `host:port`.
        pub directory: String = "127.0.0.1:4205".into(),
        /// Operators who may read everybody's mail here and put mail back (`posthouse backup`, `posthouse restore`), by the name in
        /// their certificate. Nobody unless named: the role alone is not enough for that.
        pub backup_operators: Vec<String> = Vec::new(),
        /// Health and metrics over plain HTTP/1.1.
        pub metrics_listen: SocketAddr = loopback(4391),
        /// Certificates of this process for the link.
        pub identity: IdentityFiles = IdentityFiles::default(),
        /// Listeners for users and for other mail servers. Leave one out and it is not opened.
        pub listen: Listeners = Listeners::default(),
        /// Load balancers in front of the listeners for users, and by `listen.lmtp_behind_balancers` of LMTP.
        pub balancers: Balancers = Balancers::default(),
        /// Certificate towards users. Needed by `pop3s` and `imaps`; offers STLS and STARTTLS elsewhere.
        pub tls: TlsFiles = TlsFiles::default(),
        /// Where mail for `user+detail@domain` goes: "existing", to the user's mailbox of that name, in whatever case, if there is one
        /// without a use or the name of one such as Trash, and else to INBOX; "inbox", to INBOX; "create", to that mailbox, made when it is
        /// missing and the user has fewer than 200: then whoever sends mail can make mailboxes for others.
        pub subaddress_mailbox: SubaddressMailbox = SubaddressMailbox::Existing,
        /// Mail that is held here for accounts of other back-ends.
        pub hold: HoldSettings = HoldSettings::default(),
        /// What looks after what is stored.
        pub keeping: Keeping = Keeping::default(),
        /// How much of everything.
        pub limits: Limits = Limits::default(),
        /// What mail programs are told of this server (RFC 5464 §6.2.1).
        pub about: About = About::default(),
        /// What is logged, and in which form.
        pub log: LogSettings = LogSettings::default(),
    }
}

/// One of several volumes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeFolder {
    /// Its name in the directory.
    pub name: String,
    /// Where it lies.
    pub folder: PathBuf,
    /// Whether a new one may be begun there though the directory knows one of this name.
    #[serde(default)]
    pub anew: bool,
}

daemon::settings! {
    /// Listeners for users and for other mail servers.
    pub struct Listeners {
        /// LMTP (RFC 2033) from other mail servers. It knows no login, so it is for loopback and networks of your own.
        pub lmtp: Option<SocketAddr> = None,
        /// Whether LMTP may be opened to addresses other than loopback.
        pub lmtp_beyond_loopback: bool = false,
        /// Whether mail servers come to LMTP through the load balancers of `balancers` too.
        pub lmtp_behind_balancers: bool = false,
        /// POP3 for users who come here directly.
        pub pop3: Option<SocketAddr> = None,
        /// POP3 with TLS from the first octet.
        pub pop3s: Option<SocketAddr> = None,
        /// IMAP for users who come here directly.
        pub imap: Option<SocketAddr> = None,
        /// IMAP with TLS from the first octet.
        pub imaps: Option<SocketAddr> = None,
        /// Whether users may log in without TLS. Loopback only.
        pub plaintext_login: bool = false,
    }
}

daemon::settings! {
    /// What looks after what is stored.
    pub struct Keeping {
        /// Octets of message files that are read a second to see whether they are still right, small ones counted as 64 KiB; 0 for never.
        /// A pass over all of them begins once a day at most. 4 MiB reads 4 TB in twelve days and is not noticed by anybody.
        pub scrub_bytes_per_s: u64 = SCRUB_BYTES_PER_S,
        /// Hours between two copies of the index, from which it is made anew if it is lost. One takes as much room as the index
        /// without what it keeps of each message's structure; so long as there is none, what is written since takes room beside it.
        pub index_copy_h: u64 = 24,
        /// The index is made small, while it is in use, when its file has more octets than this and would have less than half of
        /// them afterwards; 0 for never. Once a day at most, and only where the disk has room for the smaller one beside it.
        /// Of a file that is larger, all rows are read once a day to find what they would take.
        pub index_compact_above_bytes: u64 = INDEX_COMPACT_ABOVE_BYTES,
        /// Hours after which what an account has cost (`posthouse load`) counts half. The same on all back-ends. Shorter follows sooner who
        /// has changed, and takes the noise of single days for it.
        pub load_half_life_h: u64 = LOAD_HALF_LIFE_H,
    }
}

daemon::settings! {
    /// Mail for accounts of other back-ends that could not be given theirs: front-ends bring it to a sibling, which keeps it for as long
    /// as it takes, and feeds the home when that is back.
    pub struct HoldSettings {
        /// Octets that are held here at most, bodies shared by several each time; 0 holds nothing. One message may go over it.
        pub max_bytes: u64 = 16 << 30,
        /// Octets that are held here for one account at most: one that is flooded while its home is down leaves room for the others.
        /// One message may go over it.
        pub account_max_bytes: u64 = 1 << 30,
        /// While the disk of a volume has less free than this, in per cent, it takes no mail for accounts of others: what is left is
        /// for its own, until `limits.disk_free_min_percent` ends that too; 0 to 90.
        pub disk_free_min_percent: u8 = 2,
        /// Per cent of the time in which a home that is back is fed: in the rest it has its own users' mail for itself; 1 to 100.
        pub feed_share_percent: u8 = 50,
        /// Seconds after which held mail is old: the log then has a line of it every ten minutes. The metric
        /// posthouse_store_hold_oldest_seconds has its age at any time.
        pub alarm_age_s: u64 = 3600,
    }
}

daemon::settings! {
    /// What mail programs are told of this server (RFC 5464 §6.2.1).
    pub struct About {
        /// A remark for users: `/shared/comment`.
        pub comment: Option<String> = None,
        /// How to reach its administrator, as a URI such as `mailto:postmaster@example.test`: `/shared/admin`.
        pub admin: Option<String> = None,
    }
}

daemon::settings! {
    /// Limits. Each bounds memory or time of one peer, so that it cannot slow the others.
    pub struct Limits {
        /// Largest message taken, in octets.
        pub message_size_max_bytes: u64 = 50 * 1024 * 1024,
        /// Per cent of an account's quota from which IMAP clients are warned and the log has a line.
        pub quota_warning_percent: u8 = 90,
        /// Seconds for which an operator can bring back what a user has expunged or deleted, by any protocol (`posthouse undelete`);
        /// 0 to 31536000 (a year), 0 for not at all. Its octets stay on the disk for so long, and count for no quota. A day by default:
        /// who deletes by mistake misses it within hours and asks the next day, while a provider whose users fetch and delete
        /// all their mail by POP3 keeps one more day of arriving mail, which is much beside mailboxes that are nearly empty.
        /// Where mail is kept on the server, a week costs little. A new value holds for what is expunged from then on.
        pub expunge_grace_s: u64 = 24 * 60 * 60,
        /// Per cent of an account's limit of octets by which one arriving message may go over it, as long as it was not reached before;
        /// 0 to 100. Then the account is full: mail is refused at RCPT until something is removed. What a mail program
        /// saves or copies never goes over the limit. A message that RCPT said yes to, its size not told, is kept whatever its size.
        pub quota_grace_percent: u8 = 10,
        /// Whether LMTP refuses mail for a full account for good (552) or until later (452).
        pub over_quota_is_permanent: bool = false,
        /// While the disk of a volume has less free than this, in octets, deliveries, APPEND, COPY and moves to it are refused for
        /// now; reading, flags and expunging go on, so that users can make room. 0 for no such mark.
        pub disk_free_min_bytes: u64 = 1024 * 1024 * 1024,
        /// The same in per cent of the file system, of its inodes too. The larger of the two holds.
        pub disk_free_min_percent: u8 = 1,
        /// Recipients of one transaction.
        pub recipients_max: usize = 1000,
        /// Connections of LMTP at once.
        pub lmtp_connections_max: usize = 1000,
        /// Connections of users at once, each listener for itself.
        pub user_connections_max: usize = 20_000,
        /// IMAP sessions that may use COMPRESS at once: each holds up to 32 KiB more. The others are told to go on without.
        pub compressed_sessions_max: usize = 5_000,
        /// Seconds without a command after which an LMTP connection is closed.
        pub lmtp_idle_s: u64 = 300,
        /// Seconds without an octet from a client, or a mail server by LMTP, after which the system asks whether it is still there; one
        /// that has vanished is noticed 90 s later. 0 never asks.
        pub keepalive_s: u64 = 120,
        /// Seconds a user has for logging in.
        pub login_s: u64 = 60,
        /// Seconds for which a user's name and password that were right are not asked of the directory again, so that a mail program
        /// which polls costs little; 0 to 3600, 0 to ask each time. Only for accounts of this back-end, at the listeners of its own, and
        /// while the directory tells of its changes: a new password, a suspension or a move counts at once then. Nothing readable is kept.
        pub login_kept_s: u64 = 60,
        /// Seconds for which what was known of recipients and other back-ends is good while the directory is away,
        /// from when it was last heard; 0 to 86400.
        pub directory_stale_max_s: u64 = STALE_MAX_S,
        /// Seconds without a command after which a POP3 session ends. RFC 1939 demands 600 at least.
        pub pop3_idle_s: u64 = 600,
        /// Seconds that must lie between two POP3 logins of one account, told to clients as LOGIN-DELAY (RFC 2449); 0 for no such rule.
        pub pop3_login_delay_s: u64 = 0,
        /// Days that POP3 keeps a message its owner has had, told to clients as EXPIRE (RFC 2449): 0 to 65535; left out, for ever.
        /// When a POP3 session ends with QUIT, those messages of the INBOX are removed that came into it so many days ago or more
        /// and were retrieved whole by POP3, in this session or an earlier one, or are marked as read in IMAP (`\Seen`). With 0 a
        /// message goes when the session that retrieved it ends. What nobody has retrieved or read stays, as does all when
        /// the connection breaks. So that it is known later, QUIT marks as read what was retrieved; marking it unread keeps it.
        pub pop3_expire_days: Option<u16> = None,
        /// Seconds without a command after which an IMAP session ends. RFC 9051 demands 1800 at least.
        pub imap_idle_s: u64 = 1800,
        /// Messages that one IMAP command shall be about at most, told to clients as MESSAGELIMIT (RFC 9738): those that know it
        /// ask for a large mailbox piece by piece, and others get their turn between. 1,000 at least, as the RFC has it; 0: nothing is told.
        /// By itself it forbids nothing but what no setting permits: an APPEND of more than 1,000 messages, a COPY of more than 100,000
        /// (1,000 to or from a mailbox of another user). So a client that has never heard of it sees all of a mailbox of any size.
        pub imap_message_limit_count: u32 = 1000,
        /// Whether that limit is kept: FETCH, STORE, SEARCH, MOVE and UID EXPUNGE then go no further than the last so many messages
        /// that they name, and COPY, SORT and THREAD of more are refused. Clients that do not know the limit take what lies beyond for gone,
        /// and some delete their own copies of it: only for sites whose mail programs are known (RFC 9738 §4.2).
        pub imap_message_limit_is_kept: bool = false,
        /// Seconds within which a peer must take 64 KiB that we have for it, or send more of the body it began.
        pub stall_s: u64 = 60,
        /// Seconds a delivery has from its final dot to its answer.
        pub commit_s: u64 = 30,
    }
}

impl Settings for Config {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if BackendName::new(self.name.as_str()).is_err() {
            problems.push(Problem::new(
                "name",
                &self.name,
                "not one DNS label",
                "use letters, digits and `-`, 63 at most",
            ));
        }
        self.check_volumes(&mut problems);
        if self.link_listen.ip().is_unspecified() && self.link_advertise.is_none() {
            problems.push(Problem::new(
                "link_advertise",
                "",
                "missing, while `link_listen` is every address of this machine",
                "set it to the `host:port` by which the other tiers reach this back-end",
            ));
        }
        self.listen
            .check(self.tls.certificate.is_some(), &mut problems);
        self.about.check(&mut problems);
        problems.extend(Problem::outside(
            "keeping.index_copy_h",
            &self.keeping.index_copy_h,
            1..=8760,
        ));
        problems.extend(Problem::outside(
            "keeping.load_half_life_h",
            &self.keeping.load_half_life_h,
            1..=8760,
        ));
        problems.extend(Problem::outside(
            "hold.disk_free_min_percent",
            &self.hold.disk_free_min_percent,
            0..=90,
        ));
        problems.extend(Problem::outside(
            "hold.feed_share_percent",
            &self.hold.feed_share_percent,
            1..=100,
        ));
        self.limits.check(&mut problems);
        problems
    }

    fn log(&self) -> LogSettings {
        self.log.clone()
    }

    /// Half: most of the work is done by threads that may block, and each connection thread besides only takes cores from
    /// them, and costs the waking of one more.
    fn connection_threads(&self, cores: usize) -> usize {
        cores.div_ceil(2)
    }
}

impl Settings for Listeners {}
impl Settings for Keeping {}
impl Settings for HoldSettings {}
impl Settings for About {}
impl Settings for Limits {}

impl Listeners {
    fn check(&self, certificate: bool, problems: &mut Vec<Problem>) {
        let implicit = [("listen.pop3s", self.pop3s), ("listen.imaps", self.imaps)];
        for (key, address) in implicit {
            if let Some(address) = address.filter(|_| !certificate) {
                problems.push(Problem::new(
                    key,
                    address,
                    "needs a certificate",
                    "set `tls.certificate` and `tls.key`, or leave this listener out",
                ));
            }
        }
        if let Some(address) = self
            .lmtp
            .filter(|a| !a.ip().is_loopback() && !self.lmtp_beyond_loopback)
        {
            problems.push(Problem::new(
                "listen.lmtp",
                address,
                "not loopback, and LMTP asks nobody who they are",
                "use a loopback address, or set `listen.lmtp_beyond_loopback` on a network of your own",
            ));
        }
        if self.plaintext_login {
            for (key, address) in [("listen.pop3", self.pop3), ("listen.imap", self.imap)] {
                if let Some(address) = address.filter(|address| !address.ip().is_loopback()) {
                    problems.push(Problem::new(
                        key,
                        address,
                        "not loopback, while `listen.plaintext_login` is set: passwords could be read on the way",
                        "use a loopback address, or leave `listen.plaintext_login` out",
                    ));
                }
            }
        }
    }
}

impl About {
    fn check(&self, problems: &mut Vec<Problem>) {
        let texts = [
            ("about.comment", &self.comment),
            ("about.admin", &self.admin),
        ];
        for (key, text) in texts {
            if let Some(text) = text.as_ref().filter(|text| text.len() > ABOUT_MAX_BYTES) {
                problems.push(Problem::new(
                    key,
                    text,
                    "longer than 1,024 octets",
                    "say it shorter, or name a page that says it",
                ));
            }
        }
        let is_uri = |text: &&String| {
            let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
            !scheme.is_empty() && scheme.bytes().all(|octet| octet.is_ascii_alphanumeric())
        };
        if let Some(admin) = self.admin.as_ref().filter(|admin| !is_uri(admin)) {
            problems.push(Problem::new(
                "about.admin",
                admin,
                "not a URI",
                "write `mailto:` before an address, `https:` or `tel:` before another way",
            ));
        }
    }
}

impl Limits {
    fn check(&self, problems: &mut Vec<Problem>) {
        problems.extend(
            [
                Problem::outside(
                    "limits.message_size_max_bytes",
                    &self.message_size_max_bytes,
                    65_536..=1 << 40,
                ),
                Problem::outside(
                    "limits.quota_warning_percent",
                    &self.quota_warning_percent,
                    1..=100,
                ),
                Problem::outside(
                    "limits.quota_grace_percent",
                    &self.quota_grace_percent,
                    0..=100,
                ),
                Problem::outside(
                    "limits.expunge_grace_s",
                    &self.expunge_grace_s,
                    0..=365 * 24 * 60 * 60,
                ),
                Problem::outside(
                    "limits.disk_free_min_bytes",
                    &self.disk_free_min_bytes,
                    0..=1 << 50,
                ),
                Problem::outside(
                    "limits.disk_free_min_percent",
                    &self.disk_free_min_percent,
                    0..=100,
                ),
                // RFC 5321 §4.5.3.1.8: never under 100. The deliver stream carries 1,000.
                Problem::outside("limits.recipients_max", &self.recipients_max, 100..=1000),
                Problem::outside(
                    "limits.lmtp_connections_max",
                    &self.lmtp_connections_max,
                    1..=1_000_000,
                ),
                Problem::outside(
                    "limits.user_connections_max",
                    &self.user_connections_max,
                    1..=1_000_000,
                ),
                Problem::outside(
                    "limits.compressed_sessions_max",
                    &self.compressed_sessions_max,
                    0..=1_000_000,
                ),
                Problem::outside("limits.lmtp_idle_s", &self.lmtp_idle_s, 1..=3600),
                Problem::outside("limits.keepalive_s", &self.keepalive_s, 0..=7200),
                Problem::outside("limits.login_s", &self.login_s, 1..=3600),
                Problem::outside("limits.login_kept_s", &self.login_kept_s, 0..=3600),
                Problem::outside(
                    "limits.directory_stale_max_s",
                    &self.directory_stale_max_s,
                    0..=86_400,
                ),
                Problem::outside("limits.pop3_idle_s", &self.pop3_idle_s, 1..=86_400),
                Problem::outside(
                    "limits.pop3_login_delay_s",
                    &self.pop3_login_delay_s,
                    0..=86_400,
                ),
                Problem::outside("limits.imap_idle_s", &self.imap_idle_s, 1..=86_400),
                (self.imap_message_limit_count > 0)
                    .then(|| {
                        // RFC 9738 §3.
                        Problem::outside(
                            "limits.imap_message_limit_count",
                            &self.imap_message_limit_count,
                            1000..=1_000_000_000,
                        )
                    })
                    .flatten(),
                Problem::outside("limits.stall_s", &self.stall_s, 1..=3600),
                Problem::outside("limits.commit_s", &self.commit_s, 1..=600),
            ]
            .into_iter()
            .flatten(),
        );
    }

    /// What POP3 asks of users, and tells them.
    pub(crate) fn pop3_policy(&self) -> Policy {
        Policy {
            login_delay_s: Some(self.pop3_login_delay_s).filter(|delay_s| *delay_s > 0),
            expiry: self.pop3_expire_days.into(),
        }
    }

    /// How long a peer may leave us standing in the middle of something.
    pub(crate) fn stall(&self) -> Duration {
        Duration::from_secs(self.stall_s)
    }
}

impl Config {
    /// All volumes, in their order.
    pub(crate) fn volume_folders(&self) -> Vec<VolumeFolder> {
        match self.volumes.is_empty() {
            false => self.volumes.clone(),
            true => vec![VolumeFolder {
                name: self.volume.clone(),
                folder: self.data.clone(),
                // What the directory knows of it is asked once it is open.
                anew: true,
            }],
        }
    }

    fn check_volumes(&self, problems: &mut Vec<Problem>) {
        let is_name = |name: &str| VolumeName::new(name).is_ok();
        let one_label = "use letters, digits and `-`, 63 at most";
        if self.volumes.is_empty() {
            if !is_name(&self.volume) {
                let not = "not one DNS label";
                problems.push(Problem::new("volume", &self.volume, not, one_label));
            }
            if self.data.as_os_str().is_empty() {
                problems.push(Problem::new(
                    "data",
                    "",
                    "no folder",
                    "name the folder of the volume",
                ));
            }
            return;
        }
        let left_out = [
            ("data", self.data.display().to_string(), DATA),
            ("volume", self.volume.clone(), VOLUME),
        ];
        for (key, value, default) in left_out {
            if value != default {
                problems.push(Problem::new(
                    key,
                    value,
                    "given, while `volumes` names all volumes",
                    "leave it out, or name this volume in `volumes` too",
                ));
            }
        }
        if self.volumes.len() > VOLUMES_MAX {
            problems.push(Problem::new(
                "volumes",
                self.volumes.len(),
                "too many",
                format!("name {VOLUMES_MAX} at most"),
            ));
        }
        for (at, one) in self.volumes.iter().enumerate() {
            let (name, folder) = (
                format!("volumes[{at}].name"),
                format!("volumes[{at}].folder"),
            );
            if !is_name(&one.name) {
                let not = "not one DNS label";
                problems.push(Problem::new(&name, &one.name, not, one_label));
            }
            let shown = one.folder.display().to_string();
            if !one.folder.is_absolute() {
                problems.push(Problem::new(
                    &folder,
                    shown,
                    "not an absolute path",
                    "write it from `/` on",
                ));
                continue;
            }
            let path = place_of(&one.folder);
            for (before, other) in self.volumes[..at].iter().enumerate() {
                // The directory knows them in lower case.
                if other.name.eq_ignore_ascii_case(&one.name) {
                    problems.push(Problem::new(
                        &name,
                        &one.name,
                        format!("the same as `volumes[{before}].name`"),
                        "give each volume a name of its own",
                    ));
                }
                let other = place_of(&other.folder);
                let problem = if other == path {
                    format!("the same as `volumes[{before}].folder`")
                } else if path.starts_with(&other) {
                    format!("inside of `volumes[{before}].folder`")
                } else if other.starts_with(&path) {
                    format!("above `volumes[{before}].folder`")
                } else {
                    continue;
                };
                problems.push(Problem::new(
                    &folder,
                    &shown,
                    problem,
                    "give each volume a folder of its own, side by side",
                ));
            }
        }
    }

    /// `host:port` told to the directory.
    pub(crate) fn advertised(&self) -> String {
        self.link_advertise
            .clone()
            .unwrap_or_else(|| self.link_listen.to_string())
    }
}

/// What a mail program shows in a window.
const ABOUT_MAX_BYTES: usize = 1024;

/// Of a back-end that says nothing.
const DATA: &str = "store-data";
const VOLUME: &str = "main";
/// As many as the directory takes.
const VOLUMES_MAX: usize = limit::VOLUMES_MAX;

/// Where a folder really is, as far as it is there: names may be links, and have `..` in them.
fn place_of(folder: &Path) -> PathBuf {
    let mut missing = Vec::new();
    for above in folder.ancestors() {
        if let Ok(there) = above.canonicalize() {
            return missing
                .iter()
                .rev()
                .fold(there, |path, name| path.join(name));
        }
        missing.extend(above.file_name());
    }
    folder.to_owned()
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn keys(config: &Config) -> Vec<String> {
        config
            .problems()
            .into_iter()
            .map(|problem| problem.key)
            .collect()
    }

    #[test]
    fn the_defaults_have_no_problem() {
        assert_eq!(keys(&Config::default()), Vec::<String>::new());
    }

    #[test]
    fn the_defaults_are_those_of_the_design() {
        let limits = Limits::default();
        assert_eq!(limits.message_size_max_bytes, 50 << 20);
        assert_eq!((limits.login_s, limits.stall_s), (60, 60));
        assert_eq!((limits.imap_idle_s, limits.pop3_idle_s), (30 * 60, 10 * 60));
    }

    #[test]
    fn plaintext_login_and_lmtp_are_for_loopback() {
        let mut config = Config::default();
        config.listen.plaintext_login = true;
        config.listen.pop3 = Some("127.0.0.1:110".parse().unwrap());
        config.listen.lmtp = Some("[::1]:24".parse().unwrap());
        assert_eq!(keys(&config), Vec::<String>::new());
        config.listen.pop3 = Some("192.0.2.1:110".parse().unwrap());
        config.listen.lmtp = Some("0.0.0.0:24".parse().unwrap());
        assert_eq!(keys(&config), ["listen.lmtp", "listen.pop3"]);
        config.listen.lmtp_beyond_loopback = true;
        config.listen.plaintext_login = false;
        assert_eq!(keys(&config), Vec::<String>::new());
    }

    #[test]
    fn every_wrong_setting_is_listed_at_once() {
        let mut config = Config {
            name: "a.b".into(),
            link_listen: "0.0.0.0:4301".parse().unwrap(),
            ..Config::default()
        };
        config.listen.imaps = Some("127.0.0.1:993".parse().unwrap());
        config.limits.recipients_max = 99;
        config.limits.imap_message_limit_count = 999;
        config.keeping.index_copy_h = 0;
        config.keeping.load_half_life_h = 8761;
        config.hold.feed_share_percent = 0;
        config.about.comment = Some("x".repeat(1025));
        config.about.admin = Some("postmaster@example.test".into());
        assert_eq!(
            keys(&config),
            [
                "name",
                "link_advertise",
                "listen.imaps",
                "about.comment",
                "about.admin",
                "keeping.index_copy_h",
                "keeping.load_half_life_h",
                "hold.feed_share_percent",
                "limits.recipients_max",
                "limits.imap_message_limit_count"
            ]
        );
    }

    fn volume(name: &str, folder: &str) -> VolumeFolder {
        VolumeFolder {
            name: name.into(),
            folder: folder.into(),
            anew: false,
        }
    }

    #[test]
    fn several_volumes_have_names_and_folders_of_their_own() {
        let with = |volumes: &[VolumeFolder]| Config {
            volumes: volumes.to_vec(),
            ..Config::default()
        };
        let two = [volume("d1", "/nowhere/d1"), volume("d2", "/nowhere/d2")];
        assert_eq!(keys(&with(&two)), Vec::<String>::new());
        assert_eq!(with(&two).volume_folders(), two);
        // The rest of the settings is told of them as soon as of anything else.
        let wrong = with(&[
            volume("d1", "/nowhere/d1"),
            volume("D1", "/nowhere/./d1"),
            volume("d.3", "/nowhere/d1/inside"),
            volume("d4", "/nowhere"),
            volume("d5", "relative"),
        ]);
        let told: Vec<String> = wrong
            .problems()
            .into_iter()
            .map(|one| format!("{} {} {}", one.key, one.value, one.problem))
            .collect();
        assert_eq!(
            told,
            [
                "volumes[1].name D1 the same as `volumes[0].name`",
                "volumes[1].folder /nowhere/./d1 the same as `volumes[0].folder`",
                "volumes[2].name d.3 not one DNS label",
                "volumes[2].folder /nowhere/d1/inside inside of `volumes[0].folder`",
                "volumes[2].folder /nowhere/d1/inside inside of `volumes[1].folder`",
                "volumes[3].folder /nowhere above `volumes[0].folder`",
                "volumes[3].folder /nowhere above `volumes[1].folder`",
                "volumes[3].folder /nowhere above `volumes[2].folder`",
                "volumes[4].folder relative not an absolute path",
            ]
        );
    }

    #[test]
    fn one_folder_by_two_names_is_one_folder() {
        let there = tempfile::tempdir().unwrap();
        let (real, link) = (there.path().join("real"), there.path().join("link"));
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let config = Config {
            volumes: vec![
                volume("d1", real.join("mail").to_str().unwrap()),
                volume("d2", link.join("mail").to_str().unwrap()),
            ],
            ..Config::default()
        };
        assert_eq!(keys(&config), ["volumes[1].folder"]);
    }

    #[test]
    fn there_is_one_way_to_say_where_volumes_are() {
        let config = Config {
            data: "/nowhere/data".into(),
            volume: "one".into(),
            volumes: vec![volume("d1", "/nowhere/d1")],
            ..Config::default()
        };
        assert_eq!(keys(&config), ["data", "volume"]);
        let config = Config {
            data: PathBuf::new(),
            ..Config::default()
        };
        assert_eq!(keys(&config), ["data"]);
    }
}
