//! Version 1 of the interface over HTTP: who may ask what, and the answers' form.
//!
//! Handlers check the caller's role before they do anything; what they do is the engine's and
//! [`login`](crate::login)'s.

mod extract;
mod import;
mod reply;
mod verbs;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use daemon::clock::now_ms;
use daemon::identity::{Peer, Role};
use daemon::link::{Problem, require};
use daemon::log::causes;
use daemon::shutdown::Shutdown;
use directory_api::wire::{
    AnnounceReply, AnnounceRequest, ChangesQuery, ChangesReply, KeysReply, LdapState, LdapSync,
    LoginReply, LoginRequest, LookupReply, LookupRequest, MechanismsReply, Refusals, RefusalsQuery,
    SaslReply, SaslRequest, Verdict, code, limit, path,
};
use http::StatusCode;
use tracing::{error, info};

use crate::engine::{Engine, EngineError};
use crate::keys::{KeepError, Keys, OnItsWay};
use crate::last_use::Uses;
use crate::ldap::Ldap;
use crate::login::{Seen, TicketTerms, log_in};
use crate::password::Passwords;
use crate::refusals::Memory;
use crate::sasl::Sasl;
use crate::upgrade::{self, Upgrades};
use extract::{Body, Query};
use reply::{refused, too_many};

/// What every handler works with.
pub(crate) struct App<E> {
    pub(crate) engine: E,
    pub(crate) passwords: Passwords,
    /// None: passwords stay as they were imported.
    pub(crate) upgrades: Option<Upgrades>,
    pub(crate) uses: Uses,
    pub(crate) refusals: Memory,
    pub(crate) sasl: Sasl,
    pub(crate) keys: Keys,
    /// None: no users come from LDAP.
    pub(crate) ldap: Option<Ldap>,
    pub(crate) tickets: TicketTerms,
    pub(crate) shutdown: Shutdown,
}

type Shared<E> = State<Arc<App<E>>>;
type Reply<T> = Result<Json<T>, Problem>;

/// Every path of version 1.
pub(crate) fn router<E: Engine>(app: Arc<App<E>>) -> Router {
    let item = |collection: &str| format!("{collection}/{{key}}");
    Router::new()
        .route(path::LOOKUP, post(lookup::<E>))
        .route(path::LOGIN, post(login::<E>))
        .route(path::SASL, post(sasl::<E>))
        .route(path::MECHANISMS, get(mechanisms::<E>))
        .route(path::KEYS, get(keys::<E>))
        .route(path::KEYS_ROTATE, post(rotate_key::<E>))
        .route(path::ANNOUNCE, post(announce::<E>))
        .route(path::CHANGES, get(changes::<E>))
        .route(path::DOMAINS, get(verbs::list_domains::<E>))
        .route(
            &item(path::DOMAINS),
            get(verbs::domain::<E>)
                .put(verbs::put_domain::<E>)
                .delete(verbs::delete_domain::<E>),
        )
        .route(path::ADDRESSES, get(verbs::list_addresses::<E>))
        .route(
            &item(path::ADDRESSES),
            get(verbs::address::<E>)
                .put(verbs::put_address::<E>)
                .delete(verbs::delete_address::<E>),
        )
        .route(
            &format!("{}/targets", item(path::ADDRESSES)),
            post(verbs::edit_address::<E>),
        )
        .route(path::REFUSALS, get(refusals::<E>))
        .route(path::LDAP, get(ldap_state::<E>).post(ldap_sync::<E>))
        .route(path::IMPORT, post(import::import::<E>))
        .route(
            path::ACCOUNTS,
            get(verbs::list_accounts::<E>).post(verbs::create_account::<E>),
        )
        .route(path::ACCOUNTS_BATCH, post(verbs::create_accounts::<E>))
        .route(
            &item(path::ACCOUNTS),
            get(verbs::account::<E>)
                .put(verbs::change_account::<E>)
                .delete(verbs::delete_account::<E>),
        )
        .route(
            &format!("{}/credentials", item(path::ACCOUNTS)),
            get(verbs::credentials::<E>),
        )
        .route(path::BACKENDS, get(verbs::list_backends::<E>))
        .route(
            &item(path::BACKENDS),
            get(verbs::backend::<E>)
                .put(verbs::put_backend::<E>)
                .delete(verbs::delete_backend::<E>),
        )
        .route(path::HOMES, get(verbs::list_homes::<E>))
        .route(&item(path::HOMES), get(verbs::home::<E>))
        .route(
            &format!("{}/compare-and-set", item(path::HOMES)),
            post(verbs::compare_and_set::<E>),
        )
        .route(path::MOVES, get(verbs::list_moves::<E>))
        .route(
            &item(path::MOVES),
            get(verbs::move_of::<E>)
                .put(verbs::put_move::<E>)
                .delete(verbs::delete_move::<E>),
        )
        .fallback(async || Problem::not_found("no such path in version 1 of this interface"))
        .with_state(app)
}

/// Back-ends ask too: they take mail by LMTP from other MTAs.
async fn lookup<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Body(request): Body<LookupRequest>,
) -> Reply<LookupReply> {
    require(
        &peer,
        &[Role::MxFrontend, Role::StoreBackend, Role::Operator],
    )?;
    if request.addresses.len() > limit::LOOKUP_ADDRESSES_MAX {
        return Err(too_many(
            "addresses in one lookup",
            limit::LOOKUP_ADDRESSES_MAX,
        ));
    }
    // An operator who asks why shall not find his own question.
    let is_mail = peer.role != Role::Operator;
    let reply = match app.engine.lookup(request.addresses).await {
        Ok(reply) => reply,
        Err(error) => {
            if let (EngineError::TooManyTargets(address), true) = (&error, is_mail) {
                let code = code::TOO_MANY_TARGETS;
                app.refusals.recipient(address, code, &peer.node).await;
            }
            return Err(refused(error));
        }
    };
    for result in &reply.results {
        let verdict = match result.verdict {
            Verdict::Accounts(_) => "accounts",
            Verdict::External { .. } => "external",
            Verdict::UnknownAddress => "unknown_address",
            Verdict::UnknownDomain => "unknown_domain",
        };
        metrics::counter!("posthouse_directory_lookups_total", "verdict" => verdict).increment(1);
        let is_nobody = matches!(
            result.verdict,
            Verdict::UnknownAddress | Verdict::UnknownDomain
        );
        if is_mail && is_nobody {
            app.refusals
                .recipient(&result.address, verdict, &peer.node)
                .await;
        }
    }
    Ok(Json(reply))
}

/// What is remembered of refusals is for operators: it tells who tries to log in, and from where.
async fn refusals<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Query(query): Query<RefusalsQuery>,
) -> Reply<Refusals> {
    require(&peer, &[Role::Operator])?;
    app.refusals
        .of(&app.engine, &query.name)
        .await
        .map(Json)
        .map_err(refused)
}

async fn ldap_state<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
) -> Reply<LdapState> {
    require(&peer, &[Role::Operator])?;
    Ok(Json(match &app.ldap {
        Some(ldap) => ldap.state(),
        None => no_ldap(),
    }))
}

async fn ldap_sync<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Body(sync): Body<LdapSync>,
) -> Reply<LdapState> {
    require(&peer, &[Role::Operator])?;
    let Some(ldap) = &app.ldap else {
        return Ok(Json(no_ldap()));
    };
    info!(losses_max = sync.losses_max, by = %peer, "a look at all of LDAP was asked for");
    Ok(Json(ldap.look(sync).await))
}

fn no_ldap() -> LdapState {
    LdapState {
        off: true,
        ..LdapState::default()
    }
}

/// Back-ends listen for users too, and pass on those who live on a sibling: like a proxy, they get a
/// grant only for a user who has just shown a password (P8).
async fn login<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Body(request): Body<LoginRequest>,
) -> Reply<LoginReply> {
    require(&peer, &[Role::PopImapProxy, Role::StoreBackend])?;
    let mut seen = Seen::new(request.service, request.client_address, request.secured);
    let decided = log_in(&app, &request, &mut seen).await;
    if let Err(refused) = &decided {
        let code = refused.code();
        app.refusals.login(&seen, code, &peer.node).await;
    }
    decided.map(Json).map_err(reply::login_refused)
}

/// As a login, for those whose password does not come here.
async fn sasl<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Body(request): Body<SaslRequest>,
) -> Reply<SaslReply> {
    require(&peer, &[Role::PopImapProxy, Role::StoreBackend])?;
    let signer = &app.keys.signer().map_err(refused)?;
    let (engine, uses) = (&app.engine, &app.uses);
    let mut seen = Seen::new(request.service, request.client_address, request.secured);
    let step = app
        .sasl
        .step(engine, signer, uses, &peer, &request, &mut seen);
    let decided = step.await;
    let code = match &decided {
        Ok(SaslReply::Refused { .. }) => Some(code::BAD_CREDENTIALS),
        Ok(SaslReply::Challenge { .. } | SaslReply::LoggedIn { .. }) => None,
        Err(refused) => Some(refused.code()),
    };
    if let Some(code) = code.filter(|_| !seen.user.is_empty()) {
        app.refusals.login(&seen, code, &peer.node).await;
    }
    decided.map(Json).map_err(reply::login_refused)
}

/// What is offered to everybody outside is for everyone inside.
async fn mechanisms<E: Engine>(State(app): Shared<E>) -> Json<MechanismsReply> {
    let mechanisms = app.sasl.mechanisms();
    Json(MechanismsReply {
        mechanisms: mechanisms.into_iter().map(str::to_owned).collect(),
    })
}

/// Public keys are for everyone inside.
async fn keys<E: Engine>(State(app): Shared<E>) -> Reply<KeysReply> {
    let keys = app.keys.published().map_err(refused)?;
    Ok(Json(KeysReply { keys }))
}

/// Makes a new key, which signs once every back-end has had the time to ask for it.
async fn rotate_key<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
) -> Reply<KeysReply> {
    require(&peer, &[Role::Operator])?;
    match app.keys.rotate().await {
        Ok(Ok(keys)) => {
            info!(by = %peer, "a new key for grants was asked for");
            Ok(Json(KeysReply { keys }))
        }
        Ok(Err(OnItsWay)) => Err(Problem::new(
            StatusCode::CONFLICT,
            code::IN_USE,
            "a new key is on its way already, `posthouse key list` shows how far; it takes two minutes",
        )),
        Err(KeepError::Database(error)) => Err(refused(error)),
        Err(error) => {
            error!(cause = causes(&error), "no new key for grants");
            Err(Problem::internal())
        }
    }
}

async fn announce<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Body(request): Body<AnnounceRequest>,
) -> Reply<AnnounceReply> {
    require(&peer, &[Role::StoreBackend])?;
    require_node(&peer, request.backend.as_str())?;
    verbs::check_address(&request.address)?;
    app.engine
        .announce(request, now_ms())
        .await
        .map(Json)
        .map_err(refused)
}

/// Waits for news in short rounds of the engine; ends early when the process does.
async fn changes<E: Engine>(
    State(app): Shared<E>,
    Query(query): Query<ChangesQuery>,
) -> Reply<ChangesReply> {
    let limit = query
        .limit
        .unwrap_or(limit::CHANGES_MAX)
        .min(limit::CHANGES_MAX);
    let wait = Duration::from_millis(query.wait_ms.unwrap_or(0).min(limit::CHANGES_WAIT_MAX_MS));
    let until = tokio::time::Instant::now() + wait;
    let mut wakes = app.engine.wakes();
    loop {
        wakes.mark_unchanged();
        let reply = app
            .engine
            .changes(query.after, limit)
            .await
            .map_err(refused)?;
        if !reply.changes.is_empty() || wait.is_zero() || reply.last < query.after {
            return Ok(Json(reply));
        }
        tokio::select! {
            Ok(()) = wakes.changed() => {}
            () = tokio::time::sleep_until(until) => return Ok(Json(reply)),
            () = app.shutdown.requested() => return Ok(Json(reply)),
        }
    }
}

/// Only the node itself, as its certificate says.
fn require_node(peer: &Peer, node: &str) -> Result<(), Problem> {
    if peer.node == node {
        return Ok(());
    }
    Err(reply::role_forbidden(format!(
        "{peer} may speak for itself only, not for {node:?}"
    )))
}

/// One line for each change that was asked for.
fn report(peer: &Peer, change: directory_api::ChangeNumber, verb: &'static str, key: &str) {
    metrics::counter!("posthouse_directory_writes_total", "verb" => verb).increment(1);
    info!(%change, verb, key, by = %peer, "changed");
}

/// Says what each metric counts.
pub(crate) fn describe_metrics() {
    metrics::describe_counter!(
        "posthouse_directory_logins_total",
        "Logins decided, by service, mechanism and outcome (ok, or the code of the refusal)."
    );
    metrics::describe_histogram!(
        "posthouse_directory_login_seconds",
        "Time from a login's arrival to its decision, waiting for a turn to hash and what a refusal is held back included."
    );
    metrics::describe_counter!(
        upgrade::UPGRADES,
        "Logins with a hash of another server or without the wanted keys for SCRAM, by its scheme and what became of it (upgraded; changed_meanwhile; later: too many at once, the next login tries again; failed)."
    );
    metrics::describe_gauge!(
        crate::survey::UNUSABLE,
        "Stored credentials that cannot be checked, for their scheme is unknown or they are beyond its limits; counted daily."
    );
    metrics::describe_counter!(
        "posthouse_directory_lookups_total",
        "Addresses looked up, by verdict."
    );
    metrics::describe_counter!(
        "posthouse_directory_writes_total",
        "Writes asked for by operators and migrators, by verb."
    );
}
