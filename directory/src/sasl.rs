//! Logins by a SASL mechanism, step by step: the client's message comes, a challenge or a grant goes.
//!
//! ```text
//! first message ─▶ salt, of the user or made up ─▶ challenge, sealed state
//! final message, state ─▶ state ours? ── binding right? ── proof right? ── may they? ─▶ grant
//!                          SaslState      ChannelBinding    BadCredentials  as with a password
//! ```
//!
//! An unknown user, one without keys and a wrong password look and take the same (P8): the salt of who
//! has none is made by a keyed hash from the name, as that of who has one is, the proof is compared with keys
//! nobody has, and each refusal is answered at one time.

mod bearer;
mod external;
mod state;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use aws_lc_rs::hmac;
use daemon::clock::now_ms;
use daemon::identity::Peer;
use data_encoding::BASE64;
use directory_api::LoginName;
use directory_api::grant::GrantSigner;
use directory_api::wire::{ChannelBinding, SaslReply, SaslRequest, Secret, limit};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info};

use crate::engine::{Engine, LoginRecord, StoredCredential};
use crate::last_use::Uses;
use crate::login::{Asked, Refused, Seen, TicketTerms, allow, shortened};
use crate::oauth::Issuer;
use crate::password::{Passwords, scram_keys};
use crate::scram::{ClientFinal, ClientFirst, Exchange, Flag, KEY_OCTETS, Keys, server_first};
pub(crate) use external::External;
pub use external::ExternalSettings;
use state::{LIFE_MS, ScramState, States};

/// How the keys of SCRAM are made and made up.
#[derive(Clone)]
pub(crate) struct ScramKeys {
    salts: hmac::Key,
    iterations: NonZeroU32,
    /// How the keys look that users have, as the last look through all of them found.
    shapes: Arc<RwLock<Vec<(Shape, usize)>>>,
}

/// What a client is told of keys besides the salt's octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shape {
    iterations: NonZeroU32,
    salt_octets: usize,
}

impl Shape {
    fn of(keys: &Keys) -> Self {
        Self {
            iterations: keys.iterations,
            salt_octets: keys.salt.len(),
        }
    }
}

impl ScramKeys {
    pub(crate) fn new(salts: hmac::Key, iterations: NonZeroU32) -> Self {
        Self {
            salts,
            iterations,
            shapes: Arc::default(),
        }
    }

    /// How the keys look that who has these credentials is told of; none: made-up ones.
    pub(crate) fn shape_of(&self, credentials: &[StoredCredential]) -> Option<Shape> {
        let usual = self.iterations;
        scram_keys(credentials)
            .min_by_key(|(stored, keys)| (stored.name.is_some(), keys.iterations != usual))
            .map(|(_, keys)| Shape::of(&keys))
    }

    /// Makes up keys for those who have none as many look that are there, from now on.
    pub(crate) fn look_as(&self, shapes: &BTreeMap<Shape, usize>) {
        let shapes = shapes.iter().map(|(shape, count)| (*shape, *count));
        let mut known = self.shapes.write().unwrap_or_else(PoisonError::into_inner);
        *known = shapes.collect();
    }

    /// The keys whose salt a client is told: those of the user's own password, or of an app password, rather such as are
    /// made here.
    fn of_user(&self, user: &str, credentials: &[StoredCredential]) -> Option<Keys> {
        let salt = self.salt(user);
        let is_usual = |keys: &Keys| (&keys.salt, keys.iterations) == (&salt, self.iterations);
        scram_keys(credentials)
            .min_by_key(|(stored, keys)| (stored.name.is_some(), !is_usual(keys)))
            .map(|(_, keys)| keys)
    }

    /// Keys that no password has. Each name has its own draw from the shapes that there are, by their numbers, which stays
    /// while these hardly change: of imported keys, whose iterations and salts are another server's, nobody can tell that
    /// there are such users alone.
    fn decoy(&self, user: &str) -> Keys {
        let usual = Shape {
            iterations: self.iterations,
            salt_octets: SALT_OCTETS,
        };
        let shapes = self.shapes.read().unwrap_or_else(PoisonError::into_inner);
        // Of several exponential draws, each with the number as its rate, the least falls to one as often as its number says.
        let draw = |(shape, count): &(Shape, usize)| {
            let text = format!("shape {} {} {user}", shape.iterations, shape.salt_octets);
            let drawn = hmac::sign(&self.salts, text.as_bytes());
            let drawn = drawn.as_ref().iter().take(4);
            let drawn = drawn.fold(0_u32, |all, octet| all << 8 | u32::from(*octet));
            let part = (f64::from(drawn) + 0.5) / (f64::from(u32::MAX) + 1.0);
            -part.ln() / f64::from(u32::try_from(*count).unwrap_or(u32::MAX))
        };
        let least = shapes
            .iter()
            .min_by(|one, other| draw(one).total_cmp(&draw(other)));
        let shape = least.map_or(usual, |(shape, _)| *shape);
        let mut salt = self.salt(user);
        if shape.salt_octets != SALT_OCTETS {
            salt = (0..shape.salt_octets.div_ceil(32))
                .flat_map(|part| {
                    let text = format!("salt {part} {user}");
                    hmac::sign(&self.salts, text.as_bytes()).as_ref().to_vec()
                })
                .take(shape.salt_octets)
                .collect();
        }
        Keys {
            salt,
            iterations: shape.iterations,
            stored_key: [0; KEY_OCTETS],
            server_key: [0; KEY_OCTETS],
        }
    }

    /// The keys of a user's password, to be stored. None: it cannot be typed in a client.
    pub(crate) fn make(&self, user: &LoginName, password: &str) -> Option<Secret> {
        let keys = Keys::of(password, self.salt(user.as_str()), self.iterations)?;
        Some(Secret::new(keys.text()))
    }

    /// Whether keys are as they would be made now. Others tell that there is such a user, since those of
    /// who does not exist are always as they would be made; after a change of name also what it was.
    pub(crate) fn are_current(&self, user: &LoginName, keys: &Keys) -> bool {
        keys.iterations == self.iterations && keys.salt == self.salt(user.as_str())
    }

    /// The salt belongs to the name: so it does not change when a user gets keys or another password,
    /// which would tell that there is such a user, and all passwords of one user have one salt, of
    /// which a dialogue can only name one.
    fn salt(&self, user: &str) -> Vec<u8> {
        hmac::sign(&self.salts, user.as_bytes()).as_ref()[..SALT_OCTETS].to_vec()
    }
}

/// Decides mechanisms. One for the whole process.
pub(crate) struct Sasl {
    scram: Option<ScramKeys>,
    issuer: Option<Arc<Issuer>>,
    external: Option<External>,
    states: States,
    tickets: TicketTerms,
}

impl Sasl {
    /// `scram` of none decides no SCRAM, `issuer` of none takes no tokens, `external` of none no certificates.
    pub(crate) fn new(
        states: hmac::Key,
        scram: Option<ScramKeys>,
        issuer: Option<Issuer>,
        external: Option<External>,
        tickets: TicketTerms,
    ) -> Self {
        Self {
            tickets,
            scram,
            issuer: issuer.map(Arc::new),
            external,
            states: States::new(states),
        }
    }

    /// The mechanisms, the most wanted first.
    pub(crate) fn mechanisms(&self) -> Vec<&'static str> {
        let scram = self
            .scram
            .as_ref()
            .map(|_| [SCRAM_SHA_256_PLUS, SCRAM_SHA_256]);
        let bearer = self.issuer.as_ref().map(|_| [OAUTHBEARER, XOAUTH2]);
        let external = self.external.as_ref().map(|_| EXTERNAL);
        let others = [scram, bearer].into_iter().flatten().flatten();
        others.chain(external).collect()
    }

    /// Takes one step for `caller`.
    pub(crate) async fn step<E: Engine>(
        &self,
        engine: &E,
        signer: &GrantSigner,
        uses: &Uses,
        caller: &Peer,
        request: &SaslRequest,
        seen: &mut Seen,
    ) -> Result<SaslReply, Refused> {
        let mechanisms = self.mechanisms();
        let offered = mechanisms.iter().find(|name| **name == request.mechanism);
        seen.mechanism = offered.copied().unwrap_or("not offered");
        let decided = match (offered.copied(), &self.scram, &self.issuer) {
            (Some(SCRAM_SHA_256 | SCRAM_SHA_256_PLUS), Some(scram), _) => {
                let step = Step {
                    sasl: self,
                    scram,
                    engine,
                    signer,
                    uses,
                    whose: whose(caller, request),
                    request,
                };
                step.take(seen).await
            }
            (Some(OAUTHBEARER | XOAUTH2), _, Some(issuer)) => {
                take_token(issuer, engine, signer, request, seen).await
            }
            (Some(EXTERNAL), ..) => match &self.external {
                Some(external) if external.believes(caller) => {
                    take_certificate(external, engine, signer, request, seen).await
                }
                _ => Err(Refused::SaslNotOffered),
            },
            _ => Err(Refused::SaslNotOffered),
        };
        match &decided {
            // It is half a login: what becomes of it is told then.
            Ok(SaslReply::Challenge { .. }) => {}
            Ok(SaslReply::Refused { .. }) => seen.report(Err(&Refused::BadCredentials)),
            Ok(SaslReply::LoggedIn { login, .. }) => seen.report(Ok(login)),
            Err(refused) => seen.report(Err(refused)),
        }
        decided
    }
}

/// One step of SCRAM.
struct Step<'a, E> {
    sasl: &'a Sasl,
    scram: &'a ScramKeys,
    engine: &'a E,
    signer: &'a GrantSigner,
    uses: &'a Uses,
    whose: String,
    request: &'a SaslRequest,
}

impl<E: Engine> Step<'_, E> {
    async fn take(&self, seen: &mut Seen) -> Result<SaslReply, Refused> {
        let message = message_of(self.request)?;
        match &self.request.state {
            None => self.take_first(&message, seen).await,
            Some(state) => self.take_final(&message, state, seen).await,
        }
    }

    async fn take_first(&self, message: &[u8], seen: &mut Seen) -> Result<SaslReply, Refused> {
        let began = Instant::now();
        let first = ClientFirst::parse(message).map_err(|_| Refused::SaslMalformed)?;
        seen.user.clone_from(&first.user);
        self.check_flag(first.flag)?;
        if first.acts_as.is_some_and(|name| name != first.user) {
            return Err(Refused::BadCredentials);
        }
        let record = record(self.engine, &first.user).await?;
        seen.account = record.as_ref().map(|record| record.account.id);
        let name = self.salted_name(&first.user, record.as_ref()).await?;
        let keys = self.keys_for(&name, record.as_ref());
        let mut ours = [0; NONCE_OCTETS];
        daemon::random::fill(&mut ours);
        let nonce = format!("{}{}", first.nonce, BASE64.encode(&ours));
        let server_first = server_first(&nonce, &keys.salt, keys.iterations);
        let state = ScramState {
            header: first.header.to_owned(),
            client_first_bare: first.bare.to_owned(),
            server_first: server_first.clone(),
            expires_at_ms: now_ms() + LIFE_MS,
        };
        let state = self.sasl.states.seal(&state, &self.whose);
        sleep_until(next_multiple(began, CHALLENGE_UNIT)).await;
        Ok(SaslReply::Challenge {
            message: BASE64.encode(server_first.as_bytes()),
            state,
        })
    }

    async fn take_final(
        &self,
        message: &[u8],
        state_text: &str,
        seen: &mut Seen,
    ) -> Result<SaslReply, Refused> {
        let began = Instant::now();
        let states = &self.sasl.states;
        let state = states.open(state_text, &self.whose, now_ms()).await;
        let state = state.map_err(|error| {
            debug!(%error, whose = self.whose, "a step's state is refused");
            Refused::SaslState
        })?;
        let whole = format!("{}{}", state.header, state.client_first_bare);
        let first = ClientFirst::parse(whole.as_bytes()).map_err(|_| Refused::SaslMalformed)?;
        seen.user.clone_from(&first.user);
        let last = ClientFinal::parse(message).map_err(|_| Refused::SaslMalformed)?;
        if state
            .server_first
            .strip_prefix("r=")
            .and_then(|rest| rest.split(',').next())
            != Some(last.nonce)
        {
            return Err(Refused::SaslMalformed);
        }
        self.check_binding(&first, &last.bound_to)?;
        let exchange = Exchange::new(first.bare, &state.server_first, last.without_proof);
        let record = record(self.engine, &first.user).await?;
        seen.account = record.as_ref().map(|record| record.account.id);
        let offered = |keys: &Keys| {
            server_first(last.nonce, &keys.salt, keys.iterations) == state.server_first
        };
        let mut proved = None;
        for (stored, keys) in record
            .iter()
            .flat_map(|record| scram_keys(&record.credentials))
        {
            if offered(&keys) && exchange.is_proved_by(&last.proof, &keys) {
                proved = Some((stored.clone(), keys));
            }
        }
        let (Some((shown, keys)), Some(record)) = (proved, record) else {
            std::hint::black_box(exchange.is_proved_by(&last.proof, &self.decoy(&first.user)));
            states.use_up(state_text, &self.whose).await;
            sleep_until(next_multiple(began, REFUSAL_UNIT)).await;
            return Err(Refused::BadCredentials);
        };
        let tickets = self.sasl.tickets;
        let asked = Asked {
            service: self.request.service,
            backend: self.request.backend.as_ref(),
            // The password itself is what the home is shown then: SCRAM needs who knows both halves of it.
            ticket: tickets.ticket(
                &first.user,
                Passwords::verifier_unseen(&shown),
                &record,
                &shown,
            ),
        };
        let login = match allow(record, Some(&shown), self.signer, &asked) {
            Err(Refused::Moving) => {
                states.give_back(state_text, &self.whose).await;
                return Err(Refused::Moving);
            }
            decided => decided?,
        };
        self.uses.note(login.account, shown.name, now_ms());
        Ok(SaslReply::LoggedIn {
            message: Some(BASE64.encode(exchange.server_final(&keys).as_bytes())),
            login: Box::new(login),
        })
    }

    /// RFC 5802 §6: who binds does it in the mechanism made for it, to a kind there is; and who could
    /// bind and thinks that we cannot, though we said that we can, has heard somebody else.
    fn check_flag(&self, flag: Flag<'_>) -> Result<(), Refused> {
        let must_bind = self.request.mechanism == SCRAM_SHA_256_PLUS;
        match flag {
            Flag::Binds(_) if !must_bind => Err(Refused::SaslMalformed),
            Flag::Unable | Flag::ThinksServerUnable if must_bind => Err(Refused::SaslMalformed),
            Flag::ThinksServerUnable if !self.request.bindings.is_empty() => {
                Err(Refused::ChannelBinding)
            }
            Flag::Binds(kind) => self.binding(kind).map(|_| ()),
            Flag::Unable | Flag::ThinksServerUnable => Ok(()),
        }
    }

    fn check_binding(&self, first: &ClientFirst<'_>, bound_to: &[u8]) -> Result<(), Refused> {
        self.check_flag(first.flag)?;
        let data = match first.flag {
            Flag::Binds(kind) => self.binding(kind)?,
            Flag::Unable | Flag::ThinksServerUnable => Vec::new(),
        };
        match bound_to == [first.header.as_bytes(), &data].concat() {
            true => Ok(()),
            false => Err(Refused::ChannelBinding),
        }
    }

    /// What the user's connection is, in a kind of binding.
    fn binding(&self, kind: &str) -> Result<Vec<u8>, Refused> {
        let is_it = |binding: &&ChannelBinding| binding.kind == kind;
        let found = self.request.bindings.iter().find(is_it);
        let data = found.and_then(|binding| BASE64.decode(binding.data.as_bytes()).ok());
        data.filter(|data| !data.is_empty())
            .ok_or(Refused::ChannelBinding)
    }

    /// The name that a salt belongs to: the account's, and of who does not exist what it would be. Else
    /// two names of one user would have one salt, and two of nobody two.
    async fn salted_name(
        &self,
        user: &str,
        record: Option<&LoginRecord>,
    ) -> Result<String, Refused> {
        let name = match (record, login_name(user)) {
            (Some(record), _) => record.account.login_name.clone(),
            (None, Some(name)) => {
                let other = self.engine.other_login_name(name.clone()).await?;
                other.unwrap_or(name)
            }
            (None, None) => return Ok(user.to_owned()),
        };
        Ok(name.as_str().to_owned())
    }

    /// Keys with the salt that the client is told.
    fn keys_for(&self, name: &str, record: Option<&LoginRecord>) -> Keys {
        let credentials = record.map_or(&[][..], |record| &record.credentials);
        let decoy = self.decoy(name);
        self.scram.of_user(name, credentials).unwrap_or(decoy)
    }

    /// Keys that no password has.
    fn decoy(&self, user: &str) -> Keys {
        let name = login_name(user);
        let name = name.as_ref().map_or(user, LoginName::as_str);
        self.scram.decoy(name)
    }
}

/// A user with a token: all in one step. What is wrong with a token is told to nobody but the log; the
/// client hears that it is refused, and where to get another.
async fn take_token<E: Engine>(
    issuer: &Arc<Issuer>,
    engine: &E,
    signer: &GrantSigner,
    request: &SaslRequest,
    seen: &mut Seen,
) -> Result<SaslReply, Refused> {
    if request.state.is_some() {
        return Err(Refused::SaslState);
    }
    let message = message_of(request)?;
    let (said, status) = match request.mechanism.as_str() {
        OAUTHBEARER => (
            bearer::Message::parse_oauthbearer(&message),
            "invalid_token",
        ),
        // As the servers do whose clients have only this one.
        _ => (bearer::Message::parse_xoauth2(&message), "401"),
    };
    let said = said.map_err(|_| Refused::SaslMalformed)?;
    let refused = || SaslReply::Refused {
        message: BASE64.encode(bearer::refusal(issuer.settings(), status).as_bytes()),
    };
    let (checking, token) = (Arc::clone(issuer), said.token.to_owned());
    let checked = tokio::task::spawn_blocking(move || checking.user_of(&token, now_ms())).await;
    let checked = checked.map_err(|_| Refused::Throttled)?;
    seen.user = match (said.user.as_ref(), checked.as_ref()) {
        (Some(user), _) | (None, Ok(user)) => user.clone(),
        (None, Err(_)) => String::new(),
    };
    let user = match checked {
        Ok(user) => user,
        Err(error) => {
            info!(%error, user = ?shortened(&seen.user), "a token is refused");
            return Ok(refused());
        }
    };
    let Some(user) = record(engine, &user).await? else {
        return Ok(refused());
    };
    // An account has a name in each alias of its domain: the token may say one and the client another.
    if let Some(asked) = &said.user {
        let asked = record(engine, asked).await?;
        if asked.is_none_or(|asked| asked.account.id != user.account.id) {
            info!(user = ?shortened(&seen.user), "a token is refused: it is about another user");
            return Ok(refused());
        }
    }
    seen.account = Some(user.account.id);
    let asked = Asked {
        service: request.service,
        backend: request.backend.as_ref(),
        ticket: None,
    };
    Ok(SaslReply::LoggedIn {
        message: None,
        login: Box::new(allow(user, None, signer, &asked)?),
    })
}

/// A user with a certificate: all in one step.
async fn take_certificate<E: Engine>(
    external: &External,
    engine: &E,
    signer: &GrantSigner,
    request: &SaslRequest,
    seen: &mut Seen,
) -> Result<SaslReply, Refused> {
    if request.state.is_some() {
        return Err(Refused::SaslState);
    }
    let message = message_of(request)?;
    let acts_as = std::str::from_utf8(&message).map_err(|_| Refused::SaslMalformed)?;
    acts_as.clone_into(&mut seen.user);
    let Some(addresses) = external.addresses(&request.certificates) else {
        info!(user = ?shortened(&seen.user), "a certificate is refused: it is not of these authorities, not valid now, or not for clients");
        return Err(Refused::BadCredentials);
    };
    let wanted = match acts_as {
        "" => None,
        name => Some(record(engine, name).await?.ok_or(Refused::BadCredentials)?),
    };
    for address in addresses.iter().take(ADDRESSES_MAX) {
        let Some(found) = record(engine, address).await? else {
            continue;
        };
        // An account has a name in each alias of its domain.
        let is_it = |wanted: &LoginRecord| wanted.account.id == found.account.id;
        if !wanted.as_ref().is_none_or(is_it) {
            continue;
        }
        seen.user.clone_from(address);
        seen.account = Some(found.account.id);
        let asked = Asked {
            service: request.service,
            backend: request.backend.as_ref(),
            ticket: None,
        };
        return Ok(SaslReply::LoggedIn {
            message: None,
            login: Box::new(allow(found, None, signer, &asked)?),
        });
    }
    Err(Refused::BadCredentials)
}

fn message_of(request: &SaslRequest) -> Result<Vec<u8>, Refused> {
    let message = request.message.reveal().as_bytes();
    if message.len() > limit::SASL_MESSAGE_MAX_OCTETS.div_ceil(3) * 4 {
        return Err(Refused::SaslMalformed);
    }
    BASE64.decode(message).map_err(|_| Refused::SaslMalformed)
}

/// A text that is no login name is an unknown user, nothing else.
async fn record<E: Engine>(engine: &E, user: &str) -> Result<Option<LoginRecord>, Refused> {
    match login_name(user) {
        Some(name) => Ok(engine.login_record(name).await?),
        None => Ok(None),
    }
}

fn login_name(user: &str) -> Option<LoginName> {
    LoginName::new(user)
        .ok()
        .filter(|_| user.len() <= limit::USER_MAX_OCTETS)
}

/// A state is good for this alone.
fn whose(caller: &Peer, request: &SaslRequest) -> String {
    let SaslRequest {
        mechanism,
        service,
        client_address,
        secured,
        ..
    } = request;
    let service = service.as_str();
    format!("{caller} {mechanism} {service} {client_address} {secured}")
}

/// The time says nothing finer than how often the unit fits.
fn next_multiple(began: Instant, unit: Duration) -> Instant {
    let units = began.elapsed().as_nanos() / unit.as_nanos() + 1;
    began + unit * u32::try_from(units).unwrap_or(u32::MAX)
}

const OAUTHBEARER: &str = "OAUTHBEARER";
const XOAUTH2: &str = "XOAUTH2";
const EXTERNAL: &str = "EXTERNAL";
/// Addresses of one certificate that are tried.
const ADDRESSES_MAX: usize = 8;
const SCRAM_SHA_256: &str = "SCRAM-SHA-256";
const SCRAM_SHA_256_PLUS: &str = "SCRAM-SHA-256-PLUS";
/// NIST SP 800-132 §5.1: 128 bits.
const SALT_OCTETS: usize = 16;
/// 144 bits, 24 characters.
const NONCE_OCTETS: usize = 18;
/// A row that is there takes microseconds longer to read than one that is not.
const CHALLENGE_UNIT: Duration = Duration::from_millis(5);
/// A wrong proof costs us nothing, so whoever guesses shall wait at least, as with an imported password.
const REFUSAL_UNIT: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn iterations(count: u32) -> NonZeroU32 {
        NonZeroU32::new(count).unwrap()
    }

    #[test]
    fn keys_of_nobody_look_as_those_that_there_are_and_stay_so() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"salts");
        let scram = ScramKeys::new(key, iterations(10_000));
        let drawn = || -> Vec<Shape> {
            let name = |number| format!("nobody-{number}@x.test");
            (0..2_000)
                .map(|number| Shape::of(&scram.decoy(&name(number))))
                .collect()
        };
        let usual = Shape {
            iterations: iterations(10_000),
            salt_octets: SALT_OCTETS,
        };
        assert!(drawn().iter().all(|shape| *shape == usual));
        assert_eq!(scram.decoy("ann").salt, scram.salt("ann"));
        let imported = Shape {
            iterations: iterations(4_096),
            salt_octets: 40,
        };
        scram.look_as(&BTreeMap::from([(usual, 300), (imported, 100)]));
        let before = drawn();
        let of_imported = before.iter().filter(|shape| **shape == imported).count();
        assert!((400..600).contains(&of_imported), "{of_imported} of 2,000");
        assert_ne!(scram.decoy("ann").salt, scram.decoy("ben").salt);
        // A day later a few more users have come.
        scram.look_as(&BTreeMap::from([(usual, 303), (imported, 100)]));
        let changed = drawn();
        let changed = before.iter().zip(&changed).filter(|(was, is)| was != is);
        let changed = changed.count();
        assert!(changed <= 20, "{changed} of 2,000");
    }
}
