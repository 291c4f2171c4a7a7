//! Checks passwords, at a bounded rate, and remembers for minutes which were right.
//!
//! An unknown user and a wrong password take the same (P8). Either costs exactly one Argon2id as
//! long as there are only new passwords and schemes that take microseconds; where others were
//! imported, a refusal's time says nothing either: [`pace`]. A right password of a fast scheme, or
//! one that was right a moment ago, costs microseconds; only who knows it can see that.

mod form;
mod pace;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::PasswordHasher;
use aws_lc_rs::hmac;
use directory_api::ticket::Verifier;
use directory_api::wire::{Credential, Secret, limit};
use directory_api::{LoginName, Service};
use moka::future::Cache;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use crate::engine::StoredCredential;
use crate::ldap::{Away, Binds};
use crate::sasl::ScramKeys;
use crate::scram::{Keys, prepared};
use form::Form;
use pace::Pace;

pub(crate) use form::FormError;
pub(crate) use pace::Cost;

/// Logins that may wait for their turn: at 50 hashes a second and core, ten seconds' worth on two.
const WAITING_MAX: usize = 1_000;
/// The longest wait for a turn; a client that waits longer has given up. Of the 10 s that another
/// tier waits it leaves enough for the slowest check.
const WAIT_MAX: Duration = Duration::from_secs(6);
/// Verified passwords remembered: every user of a large site who polls. About 100 octets each.
const VERIFIED_MAX: u64 = 500_000;

/// Iterations, a salt of 64 octets and two keys, however written, are less.
const SCRAM_TEXT_MAX: usize = 512;

/// Too many passwords wait to be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords wait to be checked")]
pub(crate) struct Throttled;

/// Why nobody can say yet whether a password is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Undecided {
    #[error("too many passwords wait to be checked")]
    Throttled,
    #[error("the LDAP server gives no answer")]
    LdapAway,
}

impl From<Throttled> for Undecided {
    fn from(Throttled: Throttled) -> Self {
        Self::Throttled
    }
}

/// Why a credential cannot be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HashError {
    #[error("too many passwords wait to be hashed")]
    Throttled,
    #[error(transparent)]
    Form(#[from] FormError),
    #[error("the password is empty")]
    Empty,
    #[error(
        "of an app password the stored form must be a fast one, SSHA512 or one like it, for each wrong password is compared with all of them"
    )]
    Slow,
    #[error("the password could not be hashed")]
    Failed,
}

/// What a password is to be kept as, other than it is, behind the login that has shown it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outdated {
    /// The scheme that it is kept in.
    pub(crate) scheme: &'static str,
    part: Part,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// It is to be Argon2id of today's cost, with the wanted keys for SCRAM.
    All,
    /// Its form stays; keys for SCRAM come, go, or become others.
    Keys,
}

/// The keys by which SCRAM checks credentials, of those that have them.
pub(crate) fn scram_keys(
    credentials: &[StoredCredential],
) -> impl Iterator<Item = (&StoredCredential, Keys)> {
    credentials.iter().filter_map(|stored| {
        let text = stored.scram.as_ref().unwrap_or(&stored.secret);
        // Cheaper than to read a form that is none.
        let may_be = text.reveal().len() <= SCRAM_TEXT_MAX && text.reveal().contains("SCRAM");
        match may_be.then(|| Form::parse(text.reveal())) {
            Some(Ok(Form::Scram(keys))) => Some((stored, keys)),
            _ => None,
        }
    })
}

/// Checks passwords. One for the whole process.
pub(crate) struct Passwords {
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// Keyed hashes of (stored form, password) pairs that matched. The key lives as long as the
    /// process and a new stored form makes another hash, so a changed password is forgotten at once.
    /// One that LDAP found right has a form of ours beside it, for tickets.
    verified: Option<Cache<[u8; 32], Option<Arc<Form>>>>,
    key: hmac::Key,
    /// What is hashed for users that do not exist.
    decoy: Arc<Form>,
    pace: Pace,
    /// Makes the keys for SCRAM, where it is wanted.
    scram: Option<ScramKeys>,
    /// Asks LDAP, where users come from there.
    binds: Option<Arc<Binds>>,
}

impl Passwords {
    /// `threads` of 0 is one for each core; `kept` of 0 remembers nothing. Blocking.
    pub(crate) fn new(threads: usize, kept: Duration) -> Result<Self, HashError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut key = [0; 32];
        daemon::random::fill(&mut key);
        let decoy = hash(&data_encoding::HEXLOWER.encode(&daemon::random::token128()))?;
        Ok(Self {
            turns: Arc::new(Semaphore::new(if threads == 0 { cores } else { threads })),
            waiting: AtomicUsize::new(0),
            verified: (!kept.is_zero()).then(|| {
                Cache::builder()
                    .max_capacity(VERIFIED_MAX)
                    .time_to_live(kept)
                    .build()
            }),
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            decoy: Arc::new(Form::parse(decoy.secret.reveal())?),
            pace: Pace::measured(),
            scram: None,
            binds: None,
        })
    }

    /// Asks there for passwords that are not kept here.
    pub(crate) fn with_ldap(self, binds: Option<Arc<Binds>>) -> Self {
        if binds.is_some() {
            self.pace.asked(Duration::ZERO);
        }
        Self { binds, ..self }
    }

    /// Keeps the keys for SCRAM beside each password from now on, or takes them away.
    pub(crate) fn with_scram(self, scram: Option<ScramKeys>) -> Self {
        Self { scram, ..self }
    }

    /// How keys for SCRAM are made and made up, where they are.
    pub(crate) fn scram(&self) -> Option<&ScramKeys> {
        self.scram.as_ref()
    }

    /// Which of the credentials the password matches, one that opens the service before one that does
    /// not; none of them is a user that does not exist.
    /// One that is beyond the limits of its scheme, by whatever way it came to be stored, is passed over.
    pub(crate) async fn verify(
        &self,
        credentials: Vec<StoredCredential>,
        password: &Secret,
        service: Service,
    ) -> Result<Option<StoredCredential>, Undecided> {
        // It matches, and another one may open more.
        let mut closed = None;
        if let Some(verified) = &self.verified {
            let known = |stored: &&_| verified.contains_key(&self.tag(stored, password));
            for stored in credentials.iter().filter(known) {
                if stored.opens(service) {
                    return Ok(Some(stored.clone()));
                }
                closed = Some(stored.clone());
            }
        }
        let in_ldap = credentials.iter().find(|stored| stored.entry().is_some());
        let in_ldap = in_ldap.cloned();
        let forms: Vec<(StoredCredential, Form)> = credentials
            .into_iter()
            .filter_map(|stored| {
                let form = Form::parse(stored.secret.reveal()).ok()?;
                Some((stored, form))
            })
            .collect();
        self.pace.met(Cost::of(forms.iter().map(|(_, form)| form)));
        let (fast, mut slow): (Vec<_>, Vec<_>) = forms
            .into_iter()
            .partition(|(_, form)| form.work().is_none());
        let right = |(_, form): &(_, Form)| form.matches(password.reveal());
        for (stored, _) in fast.into_iter().filter(right) {
            if stored.opens(service) {
                return Ok(Some(stored));
            }
            closed = Some(stored);
        }
        if let Some(closed) = &closed {
            slow.retain(|(stored, _)| stored.opens(service));
            if slow.is_empty() {
                return Ok(Some(closed.clone()));
            }
        } else {
            slow.sort_by_key(|(stored, _)| !stored.opens(service));
        }
        let asking = Instant::now();
        let mut asked = None;
        if let (Some(stored), None) = (in_ldap, &closed) {
            asked = self.ask_ldap(Some(&stored), password).await;
            if let Some(Ok(true)) = asked {
                self.remember_of_ldap(&stored, password).await;
                return Ok(Some(stored));
            }
        }
        let took = asking.elapsed();
        let decoy = Arc::clone(&self.decoy);
        let password_moved = password.clone();
        let (matched, began) = self
            .in_turn(move || {
                let costs_argon2 = slow.iter().any(|(_, form)| form.is_current());
                let matched = slow
                    .into_iter()
                    .find(|(_, form)| form.matches(password_moved.reveal()));
                // One Argon2id belongs to each refusal: it is what a busy machine slows down most.
                if matched.is_none() && !costs_argon2 {
                    std::hint::black_box(decoy.matches(password_moved.reveal()));
                }
                matched
            })
            .await?;
        if let (None, Some(closed)) = (&matched, closed) {
            return Ok(Some(closed));
        }
        let Some((stored, _)) = matched else {
            // LDAP is asked about everybody who is refused, so that the ways of all take the same.
            if asked.is_none() {
                asked = self.ask_ldap(None, password).await;
            }
            let octets = password.reveal().len().min(limit::PASSWORD_MAX_OCTETS);
            let took = took + began.elapsed();
            sleep(self.pace.answer_after(took, octets).saturating_sub(took)).await;
            return match asked {
                Some(Err(_)) => Err(Undecided::LdapAway),
                _ => Ok(None),
            };
        };
        self.remember(&stored, password).await;
        Ok(Some(stored))
    }

    /// By what a back-end can check the password that a credential has matched; nothing where that would be easier to guess
    /// at than what is kept here.
    pub(crate) async fn verifier(
        &self,
        stored: &StoredCredential,
        password: &Secret,
    ) -> Option<Verifier> {
        match stored.name {
            Some(_) => Verifier::of_random(password.reveal()),
            None if stored.entry().is_some() => {
                let verified = self.verified.as_ref()?;
                let form = verified.get(&self.tag(stored, password)).await?;
                form?.verifier()
            }
            None => Self::verifier_unseen(stored),
        }
    }

    /// The same where the password was proved without being shown.
    pub(crate) fn verifier_unseen(stored: &StoredCredential) -> Option<Verifier> {
        let form = Form::parse(stored.secret.reveal()).ok();
        form.filter(|_| stored.name.is_none())?.verifier()
    }

    /// Nothing where LDAP is not asked.
    async fn ask_ldap(
        &self,
        stored: Option<&StoredCredential>,
        password: &Secret,
    ) -> Option<Result<bool, Away>> {
        let binds = self.binds.as_ref()?;
        let began = Instant::now();
        let entry = stored.and_then(StoredCredential::entry);
        let answer = binds.is_right(entry, password.reveal()).await;
        if answer.is_ok() {
            self.pace.asked(began.elapsed());
        }
        Some(answer)
    }

    /// What LDAP found right is hashed here too, in memory, by what its home can check it in an outage.
    async fn remember_of_ldap(&self, stored: &StoredCredential, password: &Secret) {
        let Some(verified) = &self.verified else {
            return;
        };
        let moved = password.clone();
        let hashed = self.in_turn(move || {
            let stored = hash(moved.reveal()).ok()?;
            Form::parse(stored.secret.reveal()).ok().map(Arc::new)
        });
        let form = hashed.await.map_or(None, |(form, _)| form);
        verified.insert(self.tag(stored, password), form).await;
    }

    /// What is not as it would be kept now of a credential of this user, which the password has matched.
    pub(crate) fn outdated(
        &self,
        user: &LoginName,
        stored: &StoredCredential,
        password: &Secret,
    ) -> Option<Outdated> {
        let has_wanted_keys = match (&self.scram, &stored.scram) {
            (None, None) => true,
            // Turned off: they go.
            (None, Some(_)) => false,
            (Some(scram), Some(text)) => match Form::parse(text.reveal()) {
                Ok(Form::Scram(keys)) => scram.are_current(user, &keys),
                _ => false,
            },
            (Some(_), None) => prepared(password.reveal()).is_none(),
        };
        let form = Form::parse(stored.secret.reveal()).ok()?;
        // An app password is long and made by a program: no Argon2id makes it safer, and each would
        // make every refusal dearer.
        let part = match stored.name.is_some() || form.is_current() {
            true if has_wanted_keys => return None,
            true => Part::Keys,
            false => Part::All,
        };
        form.proves(password.reveal()).then(|| Outdated {
            scheme: form.scheme(),
            part,
        })
    }

    /// Gives what an outdated credential of this user is to be kept as.
    pub(crate) async fn renew(
        &self,
        user: &LoginName,
        stored: &StoredCredential,
        outdated: &Outdated,
        password: &Secret,
    ) -> Result<StoredCredential, HashError> {
        match outdated.part {
            Part::All => {
                self.store(user, Credential::Password(password.clone()))
                    .await
            }
            Part::Keys => Ok(StoredCredential {
                scram: self.scram_keys(user, password).await?,
                ..stored.clone()
            }),
        }
    }

    /// The keys for SCRAM, where they are wanted and the password can have them.
    async fn scram_keys(
        &self,
        user: &LoginName,
        password: &Secret,
    ) -> Result<Option<Secret>, HashError> {
        let Some(scram) = self.scram.clone() else {
            return Ok(None);
        };
        let (user, password) = (user.clone(), password.clone());
        let made = self.in_turn(move || scram.make(&user, password.reveal()));
        let (keys, _) = made.await.map_err(|Throttled| HashError::Throttled)?;
        Ok(keys)
    }

    /// Keeps in mind that the password matches.
    pub(crate) async fn remember(&self, stored: &StoredCredential, password: &Secret) {
        if let Some(verified) = &self.verified {
            verified.insert(self.tag(stored, password), None).await;
        }
    }

    /// Gives the form in which a credential of this user is stored.
    pub(crate) async fn store(
        &self,
        user: &LoginName,
        credential: Credential,
    ) -> Result<StoredCredential, HashError> {
        match credential {
            Credential::Password(password) if password.reveal().is_empty() => Err(HashError::Empty),
            Credential::Password(password) => {
                let (user, scram) = (user.clone(), self.scram.clone());
                let store = move || {
                    let mut stored = hash(password.reveal())?;
                    stored.scram = scram.and_then(|scram| scram.make(&user, password.reveal()));
                    Ok(stored)
                };
                self.in_turn(store)
                    .await
                    .map_err(|Throttled| HashError::Throttled)?
                    .0
            }
            Credential::Hashed(secret) => {
                let form = Form::parse(secret.reveal())?;
                self.pace.met(Cost::of(std::iter::once(&form)));
                Ok(match form {
                    // Clear text is for the way here and not for the disk. Hashed slowly, a
                    // batch of ten thousand would take minutes; the next login does that.
                    Form::Plain(password) => salted(&password),
                    _ => StoredCredential::own(secret),
                })
            }
        }
    }

    /// The same of an app password, of which an account has many: a form that takes microseconds, for
    /// all of them are compared with each wrong password. Random as it is, a fast hash is enough for it.
    pub(crate) async fn store_app(
        &self,
        user: &LoginName,
        credential: Credential,
    ) -> Result<StoredCredential, HashError> {
        match credential {
            Credential::Password(password) if password.reveal().is_empty() => Err(HashError::Empty),
            Credential::Password(password) => {
                let scram = self.scram_keys(user, &password).await?;
                Ok(StoredCredential {
                    scram,
                    ..salted(password.reveal())
                })
            }
            Credential::Hashed(secret) => match Form::parse(secret.reveal())? {
                form if form.work().is_some() => Err(HashError::Slow),
                Form::Plain(password) => Ok(salted(&password)),
                _ => Ok(StoredCredential::own(secret)),
            },
        }
    }

    /// What the credentials of one account cost in time when a password is wrong, and why some
    /// cannot be checked at all.
    pub(crate) fn examine(&self, credentials: &[StoredCredential]) -> (Cost, Option<FormError>) {
        let mut refused = None;
        let forms: Vec<Form> = credentials
            .iter()
            .filter(|stored| stored.entry().is_none())
            .filter_map(|stored| {
                Form::parse(stored.secret.reveal())
                    .map_err(|error| refused = Some(error))
                    .ok()
            })
            .collect();
        (Cost::of(forms.iter()), refused)
    }

    /// A look through all credentials begins.
    pub(crate) fn look_begins(&self, first: bool) {
        self.pace.look_begins(first);
    }

    /// It has ended, and this is what the slowest account costs.
    pub(crate) fn look_ended(&self, slowest: Cost) {
        self.pace.look_ended(slowest);
    }

    /// Runs hashing on a thread of its own when there is a turn, and says when that began.
    async fn in_turn<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Result<(R, Instant), Throttled> {
        let waiting = Waiting::enter(&self.waiting)?;
        let turn = timeout(WAIT_MAX, Arc::clone(&self.turns).acquire_owned()).await;
        drop(waiting);
        let Ok(Ok(turn)) = turn else {
            return Err(Throttled);
        };
        let began = Instant::now();
        tokio::task::spawn_blocking(move || {
            let result = work();
            drop(turn);
            result
        })
        .await
        .map(|result| (result, began))
        .map_err(|_| Throttled)
    }

    fn tag(&self, credential: &StoredCredential, password: &Secret) -> [u8; 32] {
        let stored = credential.secret.reveal();
        let octets = [
            &(stored.len() as u64).to_be_bytes()[..],
            stored.as_bytes(),
            password.reveal().as_bytes(),
        ]
        .concat();
        let tag = hmac::sign(&self.key, &octets);
        tag.as_ref().try_into().expect("HMAC-SHA-256 has 32 octets")
    }
}

/// Counts one who waits, until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize) -> Result<Self, Throttled> {
        let waiting = Self(count);
        if count.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            return Err(Throttled);
        }
        Ok(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn salted(password: &str) -> StoredCredential {
    let hash = form::salted_sha512(password, &daemon::random::token128());
    StoredCredential::own(Secret::new(hash))
}

fn hash(password: &str) -> Result<StoredCredential, HashError> {
    let hash = Argon2::default()
        .hash_password(password.as_bytes())
        .map_err(|_| HashError::Failed)?;
    Ok(StoredCredential::own(Secret::new(format!(
        "{{ARGON2ID}}{hash}"
    ))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    fn ann() -> LoginName {
        LoginName::new("ann").unwrap()
    }

    impl Passwords {
        /// Holds every turn until it is dropped.
        pub(crate) async fn all_turns(&self) -> tokio::sync::OwnedSemaphorePermit {
            let count = u32::try_from(self.turns.available_permits()).unwrap();
            let turns = Arc::clone(&self.turns);
            turns.acquire_many_owned(count).await.unwrap()
        }

        async fn is_right(
            &self,
            credentials: Vec<StoredCredential>,
            password: &str,
        ) -> Result<bool, Undecided> {
            let matched = self
                .verify(credentials, &secret(password), Service::Imap)
                .await?;
            Ok(matched.is_some())
        }
    }

    fn passwords() -> Passwords {
        Passwords::new(2, Duration::from_secs(60)).unwrap()
    }

    #[tokio::test]
    async fn a_password_matches_its_own_stored_form_only() {
        let passwords = passwords();
        for credential in [
            Credential::Password(secret("right")),
            Credential::salted_sha256("right", b"salty"),
        ] {
            let stored = passwords.store(&ann(), credential).await.unwrap();
            assert!(!stored.secret.reveal().contains("right"));
            for _ in 0..2 {
                let stored = vec![stored.clone()];
                assert!(passwords.is_right(stored.clone(), "right").await.unwrap());
                assert!(!passwords.is_right(stored, "wrong").await.unwrap());
            }
        }
        assert!(!passwords.is_right(vec![], "right").await.unwrap());
    }

    #[tokio::test]
    async fn a_verified_password_is_forgotten_with_its_stored_form() {
        let passwords = passwords();
        let old = passwords
            .store(&ann(), Credential::Password(secret("old")))
            .await
            .unwrap();
        assert!(passwords.is_right(vec![old], "old").await.unwrap());
        let new = passwords
            .store(&ann(), Credential::Password(secret("new")))
            .await
            .unwrap();
        assert!(!passwords.is_right(vec![new], "old").await.unwrap());
    }

    #[tokio::test]
    async fn every_refusal_costs_one_slow_hash() {
        let passwords = passwords();
        let fast = passwords
            .store(&ann(), Credential::salted_sha256("right", b"salty"))
            .await
            .unwrap();
        let slow = passwords
            .store(&ann(), Credential::Password(secret("right")))
            .await
            .unwrap();
        let time = async |credentials: Vec<StoredCredential>, password| {
            // The least of some: a busy machine makes single ones longer.
            let mut least = Duration::MAX;
            for _ in 0..5 {
                let start = std::time::Instant::now();
                let _ = passwords
                    .is_right(credentials.clone(), password)
                    .await
                    .unwrap();
                least = least.min(start.elapsed());
            }
            least
        };
        let quick = time(vec![fast.clone()], "right").await;
        for credentials in [vec![], vec![fast], vec![slow]] {
            assert!(time(credentials, "wrong").await > quick * 5);
        }
    }

    /// One stored form of each slow scheme; "secret" is the password, but of the first "password".
    const SLOW: [&str; 5] = [
        "{ARGON2ID}$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
        "{BLF-CRYPT}$2y$06$Xss15/ED03fWfCHGv67Ncer9MHl3o5s/6wV5TAfPGPRqmGQa5ewni",
        "{SHA512-CRYPT}$6$rounds=20000$RC0hUR/Cb8zRzeXI$MXQZVLuApVJ7LsvTWFiiZUrWz0PAOnkcnwNFhiQNCs7HlJL95PxfbKfLLelAxsjPKDOs3iHlJXytNS6dJgCOC/",
        "{SHA256-CRYPT}$5$rounds=1000$0hODDq7PYe1FCmOm$wbORQKJBkyYHA3tKwjp.aA2Hm.BUHzrTcbUB6fpRs2B",
        "{PBKDF2}$1$7VXIRia/utOPtMcA$10000$4d3f6a39b581431f5649c2e06a11d81d42ae1024",
    ];
    /// And of the fast ones.
    const FAST: [&str; 4] = [
        "{SMD5}KQWpYMF9mCeXPU/iScyHtjFoSzU=",
        "{SSHA}iQrL+xd/s2lVWm1ZUufKoAbHRkjX2kzd",
        "{SSHA256}hi4gWHjm5z9yOSyWBH2RWOqf7vzbWsmXdjwRlNEMSxiNT+gU",
        "{SSHA512}sjVyoKuPw7Mb/UFcTuA8ScJHsIRoBpZ8nYHRVaaA5y7oFhjggU2qbl5WwkF4jMcSCeBuDGRHr2C4U3LyOCa1QqLRf0k=",
    ];

    fn stored(text: &str) -> StoredCredential {
        StoredCredential::own(secret(text))
    }

    #[tokio::test]
    async fn any_of_several_credentials_lets_the_user_in() {
        let passwords = passwords();
        let mut several: Vec<_> = FAST.iter().chain(&SLOW).map(|text| stored(text)).collect();
        let own = Credential::Password(secret("new"));
        several.push(passwords.store(&ann(), own).await.unwrap());
        let verify = async |password| passwords.is_right(several.clone(), password).await;
        assert!(verify("secret").await.unwrap());
        assert!(verify("new").await.unwrap());
        assert!(verify("password").await.unwrap());
        assert!(!verify("wrong").await.unwrap());
    }

    #[tokio::test]
    async fn of_those_that_match_one_that_opens_the_service_counts() {
        let passwords = passwords();
        let named = |text: &str, service| StoredCredential {
            name: Some("phone".parse().unwrap()),
            services: Some(vec![service]),
            ..stored(text)
        };
        let opened = async |credentials: &[StoredCredential]| {
            let (password, service) = (secret("secret"), Service::Imap);
            let matched = passwords.verify(credentials.to_vec(), &password, service);
            matched.await.unwrap().unwrap().opens(service)
        };
        let closed = [named(FAST[1], Service::Pop3), named(SLOW[1], Service::Pop3)];
        for open in [stored(FAST[2]), stored(SLOW[2]), stored(SLOW[1])] {
            for closed in &closed {
                // The second time they are remembered.
                for _ in 0..2 {
                    assert!(opened(&[closed.clone(), open.clone()]).await);
                    assert!(opened(&[open.clone(), closed.clone()]).await);
                    assert!(!opened(&[closed.clone(), stored(SLOW[0])]).await);
                }
            }
        }
    }

    /// 32 slow ones would hold a thread for most of a minute at each guess, and so tell who has them.
    #[tokio::test]
    async fn an_app_password_costs_microseconds_at_a_wrong_one() {
        let passwords = passwords();
        for text in SLOW.iter().chain(&[
            "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
        ]) {
            let slow = Credential::Hashed(secret(text));
            let refused = passwords.store_app(&ann(), slow).await;
            assert!(matches!(refused, Err(HashError::Slow)), "{text}");
        }
        let fast = FAST.iter().map(|text| Credential::Hashed(secret(text)));
        let clear = [
            Credential::Password(secret("secret")),
            Credential::Hashed(secret("{PLAIN}secret")),
        ];
        let mut kept = Vec::new();
        for credential in fast.chain(clear) {
            kept.push(passwords.store_app(&ann(), credential).await.unwrap());
        }
        assert!(
            kept.iter()
                .all(|one| !one.secret.reveal().contains("secret"))
        );
        assert_eq!(passwords.examine(&kept).0, Cost::default());
        for one in kept {
            assert!(passwords.is_right(vec![one], "secret").await.unwrap());
        }
    }

    #[tokio::test]
    async fn a_clear_password_is_stored_as_a_hash() {
        let passwords = passwords();
        for text in ["{PLAIN}secret", "{cleartext.b64}c2VjcmV0"] {
            let kept = passwords
                .store(&ann(), Credential::Hashed(secret(text)))
                .await
                .unwrap();
            assert!(kept.secret.reveal().starts_with("{SSHA512}"), "{text}");
            assert!(passwords.is_right(vec![kept], "secret").await.unwrap());
        }
    }

    #[tokio::test]
    async fn what_is_stored_beyond_the_limits_is_refused_at_once() {
        let passwords = passwords();
        for text in [
            "{SHA512-CRYPT}$6$rounds=999999999$RC0hUR/Cb8zRzeXI$MXQZVLuApVJ7LsvTWFiiZUrWz0PAOnkcnwNFhiQNCs7HlJL95PxfbKfLLelAxsjPKDOs3iHlJXytNS6dJgCOC/",
            "{BLF-CRYPT}$2y$31$Xss15/ED03fWfCHGv67Ncer9MHl3o5s/6wV5TAfPGPRqmGQa5ewni",
            "{PBKDF2}$1$7VXIRia/utOPtMcA$4294967295$4d3f6a39b581431f5649c2e06a11d81d42ae1024",
            "{ARGON2ID}$argon2id$v=19$m=4194304,t=4000000,p=1$QJyqtf9ovT/Bl0Zw96PTgA$4pwjTU8N8y7pAjiEGb7I1HkhisObT8fmuvwMqdkB4c4",
        ] {
            let password = secret("secret");
            let verified = passwords.verify(vec![stored(text)], &password, Service::Imap);
            let in_time = timeout(Duration::from_secs(60), verified).await;
            assert!(in_time.unwrap().unwrap().is_none(), "{text}");
            let refused = passwords
                .store(&ann(), Credential::Hashed(secret(text)))
                .await;
            assert!(
                matches!(refused, Err(HashError::Form(FormError::OutOfLimits { .. }))),
                "{text}"
            );
        }
    }

    /// The time of a refusal says nothing: neither whether there is such a user, nor which scheme he has.
    #[tokio::test]
    async fn once_a_slow_scheme_is_known_all_refusals_are_answered_at_the_same_time() {
        let passwords = passwords();
        let imported = Credential::Hashed(secret(SLOW[0]));
        passwords.store(&ann(), imported).await.unwrap();
        let unit = passwords.pace.answer_after(Duration::ZERO, 5);
        assert!(unit > Duration::from_millis(1), "{unit:?}");
        let own = Credential::Password(secret("new"));
        let own = passwords.store(&ann(), own).await.unwrap();
        let mut accounts = vec![vec![], vec![own]];
        accounts.extend(FAST.iter().chain(&SLOW).map(|text| vec![stored(text)]));
        for credentials in accounts {
            let start = Instant::now();
            let right = passwords.is_right(credentials.clone(), "wrong").await;
            assert!(!right.unwrap());
            let took = start.elapsed();
            // On a busy machine it may be the next multiple, but nothing between: a timer's
            // granularity and a late wake-up are what is left.
            assert!(took >= unit, "{credentials:?}: {took:?} of {unit:?}");
        }
    }
}
