//! Checks passwords of entries by binding as them (RFC 4513 §5.1.3), on a few connections that stay.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ldap3::{Ldap, Scope, SearchResult};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::LdapSettings;
use super::connection::{Away, Connector, SUCCESS};
use super::entry::Entry;
use crate::engine::EntryName;
use daemon::log::causes;

/// Checks passwords. One for the whole process.
pub(crate) struct Binds {
    connector: Connector,
    settings: LdapSettings,
    turns: Semaphore,
    idle: Mutex<Vec<Ldap>>,
    /// Until when nobody is asked, for none of the servers answered.
    away_until: Mutex<Option<Instant>>,
    /// An entry that is none.
    nobody: String,
}

impl Binds {
    pub(super) fn new(connector: Connector, settings: LdapSettings) -> Self {
        let name = data_encoding::HEXLOWER.encode(&daemon::random::token128());
        Self {
            connector,
            turns: Semaphore::new(settings.connections_max),
            idle: Mutex::default(),
            away_until: Mutex::default(),
            nobody: format!("cn={name},{}", settings.base),
            settings,
        }
    }

    /// Whether it is the password of this entry. Nobody's is asked for like anybody's: so whoever guesses hears the same,
    /// also while no server answers (P8).
    pub(crate) async fn is_right(
        &self,
        entry: Option<EntryName<'_>>,
        password: &str,
    ) -> Result<bool, Away> {
        let dn = entry.map(|entry| entry.dn);
        // RFC 4513 §5.1.2: a name without a password binds as nobody, and that succeeds. A NUL ends the password where
        // the server is written so.
        if password.is_empty() || password.contains('\0') || dn == Some("") {
            return Ok(false);
        }
        let began = Instant::now();
        let nobody = EntryName {
            dn: &self.nobody,
            id: "",
        };
        let asked = timeout(WHOLE_MAX, self.ask(entry.unwrap_or(nobody), password)).await;
        let answer = asked.unwrap_or_else(|_| {
            let silent = Err(Away::Silent);
            self.note(&silent);
            silent
        });
        let outcome = match (&answer, dn) {
            (Ok(Verdict::Right), _) => "ok",
            (Ok(Verdict::Another), _) => "another",
            (Ok(Verdict::Wrong), Some(_)) => "refused",
            (Ok(Verdict::Wrong), None) => "nobody",
            (Err(_), _) => "away",
        };
        metrics::counter!(BINDS, "outcome" => outcome).increment(1);
        metrics::histogram!(SECONDS).record(began.elapsed());
        // What nobody has nobody is.
        answer.map(|verdict| verdict == Verdict::Right && dn.is_some())
    }

    async fn ask(&self, entry: EntryName<'_>, password: &str) -> Result<Verdict, Away> {
        let turn = timeout(TURN_MAX, self.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(Away::Busy);
        };
        // One that was kept may have been closed by the server long ago, and then the others are too.
        if let Some(ldap) = self.kept() {
            match self.bind(ldap, entry, password).await {
                Err(Away::Connection(_)) => lock(&self.idle).clear(),
                answer => return answer,
            }
        }
        let is_away = *lock(&self.away_until);
        if is_away.is_some_and(|until| Instant::now() < until) {
            return Err(Away::Still);
        }
        let answer = match self.connector.connect().await {
            Ok(ldap) => self.bind(ldap, entry, password).await,
            Err(away) => Err(away),
        };
        self.note(&answer);
        answer
    }

    fn kept(&self) -> Option<Ldap> {
        let mut idle = lock(&self.idle);
        while let Some(mut ldap) = idle.pop() {
            if !ldap.is_closed() {
                return Some(ldap);
            }
        }
        None
    }

    async fn bind(
        &self,
        mut ldap: Ldap,
        entry: EntryName<'_>,
        password: &str,
    ) -> Result<Verdict, Away> {
        let limited = ldap.with_timeout(self.connector.answer_timeout());
        let result = limited.simple_bind(entry.dn, password).await?;
        let verdict = match result.rc {
            SUCCESS if entry.id.is_empty() => Verdict::Right,
            SUCCESS => self.whose(&mut ldap, entry).await?,
            rc if REFUSALS.contains(&rc) => Verdict::Wrong,
            code => {
                let text = result.text;
                warn!(code, ?text, "the LDAP server does not check a password");
                return Err(Away::Refused {
                    doing: "check a password",
                    code,
                    text,
                });
            }
        };
        lock(&self.idle).push(ldap);
        Ok(verdict)
    }

    /// Whether the entry that has just let somebody in is the one whose name it was: another person's password opens no
    /// mailbox of who had the name before (P8). The same server is asked, after the bind: another one may be behind.
    async fn whose(&self, ldap: &mut Ldap, entry: EntryName<'_>) -> Result<Verdict, Away> {
        self.connector.become_reader(ldap).await?;
        let limited = ldap.with_timeout(self.connector.answer_timeout());
        let attributes = [self.settings.id_attribute.as_str()];
        let search = limited.search(entry.dn, Scope::Base, "(objectClass=*)", attributes);
        let SearchResult(found, result) = search.await?;
        if result.rc != SUCCESS && result.rc != NO_SUCH_OBJECT {
            return Err(Away::Refused {
                doing: "show the entry that let somebody in",
                code: result.rc,
                text: result.text,
            });
        }
        let mut found = found.into_iter().filter(|one| !one.is_ref());
        let found = found.find_map(|one| Entry::read(one.0)?.id(&self.settings));
        if found.as_deref() == Some(entry.id) {
            return Ok(Verdict::Right);
        }
        let dn = entry.dn;
        warn!(
            dn,
            "the name is another entry's than that of the account, or nobody's any more: its password opens nothing until a look has seen it"
        );
        Ok(Verdict::Another)
    }

    fn note(&self, answer: &Result<Verdict, Away>) {
        let until = answer.is_err().then(|| Instant::now() + REST);
        let was = std::mem::replace(&mut *lock(&self.away_until), until);
        match (answer, was) {
            (Err(away), None) => {
                let cause = causes(away);
                error!(
                    cause,
                    "no LDAP server answers: logins of its users are answered temporarily until one does"
                );
            }
            (Ok(_), Some(_)) => info!("an LDAP server answers again"),
            _ => {}
        }
        metrics::gauge!(super::UP).set(f64::from(u8::from(answer.is_ok())));
    }
}

/// What a server says of a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Right,
    Wrong,
    /// It is right, and the entry another one.
    Another,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Binds asked for.
pub(super) const BINDS: &str = "posthouse_directory_ldap_binds_total";
/// How long they took.
pub(super) const SECONDS: &str = "posthouse_directory_ldap_bind_seconds";

/// What says that it is not the password, or not this one's to come in (RFC 4511 appendix A): constraintViolation,
/// noSuchObject, inappropriateAuthentication, invalidCredentials, insufficientAccessRights, unwillingToPerform. 389 Directory Server
/// says the first and the last of entries that are locked.
const REFUSALS: [u32; 6] = [19, NO_SUCH_OBJECT, 48, 49, 50, 53];
const NO_SUCH_OBJECT: u32 = 32;
/// Of the 10 s that another tier waits.
const WHOLE_MAX: Duration = Duration::from_secs(7);
/// How long one waits for a connection.
const TURN_MAX: Duration = Duration::from_secs(3);
/// After none of the servers answered: who logs in meanwhile shall not wait for each of them.
const REST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn what_a_server_would_take_for_nobody_is_never_asked() {
        // Nobody listens there: who is asked for is away.
        let settings = LdapSettings {
            urls: vec!["ldap://127.0.0.1:1".to_owned()],
            ..LdapSettings::default()
        };
        let binds = Binds::new(Connector::new(&settings).unwrap(), settings);
        let named = |dn| Some(EntryName { dn, id: "7" });
        let ann = named("cn=ann,dc=x");
        for (entry, password) in [
            (ann, ""),
            (None, ""),
            (ann, "\0"),
            (ann, "a\0b"),
            (named(""), "a"),
        ] {
            let answer = binds.is_right(entry, password).await;
            assert!(
                matches!(answer, Ok(false)),
                "{entry:?} {password:?}: {answer:?}"
            );
        }
        for entry in [ann, None] {
            assert!(binds.is_right(entry, "a").await.is_err(), "{entry:?}");
        }
    }
}
