//! One login: from a user and a password to a signed grant, or to one reason why not.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use daemon::clock::now_ms;
use directory_api::grant::{Grant, GrantSigner, LIFE_MS};
use directory_api::ticket::{Ticket, Verifier};
use directory_api::wire::{LoginReply, LoginRequest, code, limit};
use directory_api::{AccountId, AccountStatus, BackendName, BackendState, LoginName, Service};
use tracing::info;

use crate::api::App;
use crate::engine::{Engine, EngineError, LoginRecord, StoredCredential};
use crate::password::Undecided;

/// Why a login is refused. Everything behind `BadCredentials` is told only to who knows the password.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("unknown user or wrong password")]
    BadCredentials,
    #[error("too many logins at once, try again later")]
    Throttled,
    #[error("the account is suspended")]
    Suspended,
    #[error("the account is being closed")]
    Closing,
    #[error("the account, or this password of it, may not use this service")]
    ServiceForbidden,
    #[error("the account is being moved, try again in a moment")]
    Moving,
    #[error("the account lives on another back-end")]
    ForeignBackend,
    #[error("the account's home is out of service, try again later")]
    HomeDown,
    #[error("the message is not as the mechanism says")]
    SaslMalformed,
    #[error("the mechanism is not offered")]
    SaslNotOffered,
    #[error("the state is too old, used up or of another dialogue")]
    SaslState,
    #[error("the client is bound to another channel, or was kept from binding to this one")]
    ChannelBinding,
    #[error("the LDAP server that knows the password gives no answer, try again later")]
    LdapAway,
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl From<Undecided> for Refused {
    fn from(undecided: Undecided) -> Self {
        match undecided {
            Undecided::Throttled => Self::Throttled,
            Undecided::LdapAway => Self::LdapAway,
        }
    }
}

impl Refused {
    /// The code on the wire, in logs and in metrics.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::BadCredentials => code::BAD_CREDENTIALS,
            Self::Throttled => code::THROTTLED,
            Self::Suspended => code::SUSPENDED,
            Self::Closing => code::CLOSING,
            Self::ServiceForbidden => code::SERVICE_FORBIDDEN,
            Self::Moving => code::MOVING,
            Self::ForeignBackend => code::FOREIGN_BACKEND,
            Self::HomeDown => code::HOME_DOWN,
            Self::SaslMalformed => code::SASL_MALFORMED,
            Self::SaslNotOffered => code::SASL_NOT_OFFERED,
            Self::SaslState => code::SASL_STATE,
            Self::ChannelBinding => code::CHANNEL_BINDING,
            Self::LdapAway => code::LDAP_AWAY,
            Self::Engine(_) => code::STORAGE,
        }
    }
}

/// Decides a login and reports it: one line, one count.
pub(crate) async fn log_in<E: Engine>(
    app: &App<E>,
    request: &LoginRequest,
    seen: &mut Seen,
) -> Result<LoginReply, Refused> {
    seen.user.clone_from(&request.user);
    let decided = decide(app, request, seen).await;
    seen.report(decided.as_ref());
    decided
}

/// What is reported of a login: one line, one count.
pub(crate) struct Seen {
    start: Instant,
    /// Empty until it is known.
    pub(crate) user: String,
    /// Whose login it is, as far as it was looked up.
    pub(crate) account: Option<AccountId>,
    pub(crate) mechanism: &'static str,
    pub(crate) service: Service,
    pub(crate) client: IpAddr,
    secured: bool,
}

impl Seen {
    /// A login that begins now.
    pub(crate) fn new(service: Service, client: IpAddr, secured: bool) -> Self {
        Self {
            start: Instant::now(),
            user: String::new(),
            account: None,
            mechanism: "password",
            service,
            client,
            secured,
        }
    }

    pub(crate) fn report(&self, decided: Result<&LoginReply, &Refused>) {
        let outcome = decided.map_or_else(Refused::code, |_| "ok");
        let (service, mechanism) = (self.service.as_str(), self.mechanism);
        metrics::counter!(
            "posthouse_directory_logins_total",
            "service" => service, "mechanism" => mechanism, "outcome" => outcome
        )
        .increment(1);
        let took = self.start.elapsed();
        metrics::histogram!("posthouse_directory_login_seconds").record(took.as_secs_f64());
        info!(
            user = ?shortened(&self.user),
            service,
            mechanism,
            outcome,
            account = decided.ok().map(|reply| reply.account.0),
            client = %self.client,
            secured = self.secured,
            ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "login"
        );
    }
}

async fn decide<E: Engine>(
    app: &App<E>,
    request: &LoginRequest,
    seen: &mut Seen,
) -> Result<LoginReply, Refused> {
    let (engine, passwords) = (&app.engine, &app.passwords);
    // A name or password that cannot be anyone's goes the same way as one that is not.
    let name = LoginName::new(request.user.as_str())
        .ok()
        .filter(|_| request.user.len() <= limit::USER_MAX_OCTETS);
    let read = async || match &name {
        Some(name) => engine.login_record(name.clone()).await,
        None => Ok(None),
    };
    let sensible = (1..=limit::PASSWORD_MAX_OCTETS).contains(&request.password.reveal().len());
    let mut record = read().await?;
    seen.account = record.as_ref().map(|record| record.account.id);
    for _ in 0..LOOKS_MAX {
        let credentials = match &record {
            Some(record) if sensible => record.credentials.clone(),
            _ => Vec::new(),
        };
        let began = Instant::now();
        let matched = passwords
            .verify(credentials, &request.password, request.service)
            .await?;
        let Some(matched) = matched else {
            return Err(Refused::BadCredentials);
        };
        // It may have waited for its turn: what has changed meanwhile counts.
        if began.elapsed() > WAITED {
            record = read().await?;
        }
        match record {
            Some(now) if now.credentials.contains(&matched) => {
                let verifier = passwords.verifier(&matched, &request.password).await;
                let ticket = app.tickets.ticket(&request.user, verifier, &now, &matched);
                let asked = Asked {
                    service: request.service,
                    backend: request.backend.as_ref(),
                    ticket,
                };
                let signer = app.keys.signer()?;
                let reply = allow(now, Some(&matched), &signer, &asked)?;
                app.uses.note(reply.account, matched.name.clone(), now_ms());
                if let Some(upgrades) = &app.upgrades {
                    upgrades.ask(passwords, &reply, matched, &request.password);
                }
                return Ok(reply);
            }
            // Another password, or the same one kept in another form.
            changed => record = changed,
        }
    }
    Err(Refused::Throttled)
}

/// What logins leave with homes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TicketTerms {
    /// For how long a ticket is good; 0: none is left.
    pub(crate) life_ms: i64,
}

impl TicketTerms {
    /// What lets the home check the password that a credential has matched while the directory is away.
    pub(crate) fn ticket(
        self,
        user: &str,
        verifier: Option<Verifier>,
        record: &LoginRecord,
        matched: &StoredCredential,
    ) -> Option<Box<Ticket>> {
        if self.life_ms == 0 || record.foreign.is_some() {
            return None;
        }
        let services = record.account.services.iter().copied();
        Some(Box::new(Ticket {
            user: LoginName::new(user).ok()?,
            credential: matched.name.clone(),
            services: services.filter(|one| matched.opens(*one)).collect(),
            as_of: record.as_of,
            expires_at_ms: now_ms() + self.life_ms,
            verifier: verifier?,
        }))
    }
}

/// Looks at an account whose credentials change while they are checked.
const LOOKS_MAX: usize = 3;
/// A check that took longer may have waited for others.
const WAITED: Duration = Duration::from_millis(5);

/// What a user wants who is who they say.
pub(crate) struct Asked<'a> {
    pub(crate) service: Service,
    /// Only this back-end may be granted.
    pub(crate) backend: Option<&'a BackendName>,
    /// What the home is to be left, if a password was shown.
    pub(crate) ticket: Option<Box<Ticket>>,
}

/// The user is who they say, as a credential of theirs shows or somebody else vouches; may they, and where?
pub(crate) fn allow(
    record: LoginRecord,
    shown: Option<&StoredCredential>,
    signer: &GrantSigner,
    asked: &Asked<'_>,
) -> Result<LoginReply, Refused> {
    let account = record.account;
    match account.status {
        AccountStatus::Active => {}
        AccountStatus::Suspended | AccountStatus::Other => return Err(Refused::Suspended),
        AccountStatus::Closing => return Err(Refused::Closing),
    }
    if !account.services.contains(&asked.service)
        || shown.is_some_and(|shown| !shown.opens(asked.service))
    {
        return Err(Refused::ServiceForbidden);
    }
    if record.held_by_move {
        return Err(Refused::Moving);
    }
    if asked
        .backend
        .is_some_and(|only| *only != account.home.backend)
    {
        return Err(Refused::ForeignBackend);
    }
    let backend_address = match record.backend {
        Some((address, BackendState::Active | BackendState::Draining)) => address,
        Some((_, BackendState::Down)) | None => return Err(Refused::HomeDown),
    };
    let issued_at_ms = now_ms();
    let grant = signer.sign(&Grant {
        account: account.id,
        backend: account.home.backend.clone(),
        epoch: account.home.epoch,
        service: asked.service,
        login_name: account.login_name.clone(),
        quota: record.quota,
        ticket: asked.ticket.clone(),
        issued_at_ms,
        expires_at_ms: issued_at_ms + LIFE_MS,
        nonce: daemon::random::token128(),
    });
    Ok(LoginReply {
        account: account.id,
        login_name: account.login_name,
        home: account.home,
        backend_address,
        quota: record.quota,
        grant,
        foreign: record.foreign,
    })
}

/// What of a user name goes into the log: a name is short, an attack may be long.
pub(crate) fn shortened(user: &str) -> &str {
    let end = (0..=80.min(user.len()))
        .rev()
        .find(|at| user.is_char_boundary(*at))
        .unwrap_or(0);
    &user[..end]
}
