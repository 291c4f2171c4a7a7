//! The collections: list, read, write and remove. Operators write; who else may read stands at each.

use axum::extract::State;
use axum::{Extension, Json};
use daemon::clock::now_ms;
use daemon::identity::{Peer, Role};
use daemon::link::{Problem, require};
use directory_api::wire::{
    Account, AccountBatch, AccountBatchReply, AccountChange, AccountHome, AccountNew, AddressEdit,
    AddressEntry, AddressPut, Backend, BackendPut, Changed, CompareAndSet, CompareAndSetReply,
    Credential, CredentialEntry, Credentials, Domain, DomainPut, ListQuery, MoveRecord, Page,
    limit,
};
use directory_api::{
    AccountId, AccountStatus, Address, BackendName, DomainName, LoginName, Service,
};

use super::extract::{Body, Key, Query};
use super::reply::{hash_refused, refused, too_many};
use super::{App, Reply, Shared, report};
use crate::engine::{AccountDraft, AccountEdit, Engine, StoredCredential};
use crate::password::HashError;

/// Clear passwords of one batch: each costs an Argon2id, and the caller waits for all of them.
const BATCH_PASSWORDS_MAX: usize = 100;

const OPERATORS: &[Role] = &[Role::Operator];
const MOVERS: &[Role] = &[Role::Operator, Role::Migrator];
/// Back-ends are needed by everyone who routes to them; it is no secret where they are.
const EVERYONE: &[Role] = &Role::ALL;

pub(super) async fn list_domains<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Query(query): Query<ListQuery>,
) -> Reply<Page<Domain>> {
    require(&peer, OPERATORS)?;
    app.engine.domains(query).await.map(Json).map_err(refused)
}

pub(super) async fn domain<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Key(key): Key<DomainName>,
) -> Reply<Domain> {
    require(&peer, OPERATORS)?;
    app.engine.domain(key).await.map(Json).map_err(refused)
}

pub(super) async fn put_domain<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Key(key): Key<DomainName>,
    Body(put): Body<DomainPut>,
) -> Reply<Changed<Domain>> {
    require(&peer, OPERATORS)?;
    let changed = app
        .engine
        .put_domain(key, put, now_ms())
        .await
        .map_err(refused)?;
    report(
        &peer,
        changed.change,
        "put_domain",
        changed.now.name.as_str(),
    );
    Ok(Json(changed))
}

pub(super) async fn delete_domain<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Key(key): Key<DomainName>,
) -> Reply<Changed<Domain>> {
    require(&peer, OPERATORS)?;
    let text = key.to_string();
    let changed = app
        .engine
        .delete_domain(key, now_ms())
        .await
        .map_err(refused)?;
    report(&peer, changed.change, "delete_domain", &text);
    Ok(Json(changed))
}

pub(super) async fn list_addresses<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Query(query): Query<ListQuery>,
) -> Reply<Page<AddressEntry>> {
    require(&peer, OPERATORS)?;
    app.engine.addresses(query).await.map(Json).map_err(refused)
}

pub(super) async fn address<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Key(key): Key<Address>,
) -> Reply<AddressEntry> {
    require(&peer, OPERATORS)?;
    app.engine.address(key).await.map(Json).map_err(refused)
}

pub(super) async fn put_address<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Key(key): Key<Address>,
    Body(put): Body<AddressPut>,
) -> Reply<Changed<AddressEntry>> {
    require(&peer, OPERATORS)?;
    let changed = app
        .engine
        .put_address(key, put, now_ms())
        .await
        .map_err(refused)?;
    report(
        &peer,
        changed.change,
        "put_address",
        changed.now.address.as_str(),
    );
    Ok(Json(changed))
}

pub(super) async fn edit_address<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Key(key): Key<Address>,
    Body(edit): Body<AddressEdit>,
) -> Reply<Changed<AddressEntry>> {
    require(&peer, OPERATORS)?;
    let text = key.to_string();
    let changed = app
        .engine
        .edit_address(key, edit, now_ms())
        .await
        .map_err(refused)?;
    report(&peer, changed.change, "edit_address", &text);
    Ok(Json(changed))
}

pub(super) async fn delete_address<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Key(key): Key<Address>,
) -> Reply<Changed<AddressEntry>> {
    require(&peer, OPERATORS)?;
    let text = key.to_string();
    let changed = app
        .engine
        .delete_address(key, now_ms())
        .await
        .map_err(refused)?;
    report(&peer, changed.change, "delete_address", &text);
    Ok(Json(changed))
}

pub(super) async fn list_accounts<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Query(query): Query<ListQuery>,
) -> Reply<Page<Account>> {
    require(&peer, MOVERS)?;
    app.engine.accounts(query).await.map(Json).map_err(refused)
}

pub(super) async fn account<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Key(key): Key<AccountId>,
) -> Reply<Account> {
    require(&peer, MOVERS)?;
    app.engine.account(key).await.map(Json).map_err(refused)
}

pub(super) async fn create_account<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Body(account): Body<AccountNew>,
) -> Reply<Changed<Account>> {
    require(&peer, OPERATORS)?;
    let draft = draft(&app, account).await?;
    let changed = app
        .engine
        .create_account(draft, now_ms())
        .await
        .map_err(refused)?;
    report(
        &peer,
        changed.change,
        "create_account",
        changed.now.login_name.as_str(),
    );
    Ok(Json(changed))
}

pub(super) async fn create_accounts<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Body(batch): Body<AccountBatch>,
) -> Reply<AccountBatchReply> {
    require(&peer, OPERATORS)?;
    if batch.accounts.len() > limit::BATCH_ACCOUNTS_MAX {
        return Err(too_many("accounts in one batch", limit::BATCH_ACCOUNTS_MAX));
    }
    let clear = |account: &&AccountNew| matches!(account.credential, Some(Credential::Password(_)));
    if batch.accounts.iter().filter(clear).count() > BATCH_PASSWORDS_MAX {
        return Err(too_many(
            "clear passwords in one batch",
            BATCH_PASSWORDS_MAX,
        ));
    }
    let mut drafts = Vec::with_capacity(batch.accounts.len());
    for account in batch.accounts {
        let whose = account.login_name.clone();
        let draft = draft(&app, account).await.map_err(|mut problem| {
            problem.message = format!("account {whose}: {}", problem.message);
            problem
        })?;
        drafts.push(draft);
    }
    let reply = app
        .engine
        .create_accounts(drafts, now_ms())
        .await
        .map_err(refused)?;
    report(
        &peer,
        reply.change,
        "create_accounts",
        &reply.created.to_string(),
    );
    Ok(Json(reply))
}

pub(super) async fn change_account<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Key(key): Key<AccountId>,
    Body(change): Body<AccountChange>,
) -> Reply<Changed<Account>> {
    require(&peer, OPERATORS)?;
    let mut app_passwords = Vec::with_capacity(change.app_passwords.len());
    if change.app_passwords.len() > limit::APP_PASSWORDS_MAX {
        return Err(too_many("app passwords", limit::APP_PASSWORDS_MAX));
    }
    // The keys for SCRAM are made with it.
    let user = match &change.login_name {
        Some(name) => name.clone(),
        None => app.engine.account(key).await.map_err(refused)?.login_name,
    };
    for one in change.app_passwords {
        app_passwords.push(StoredCredential {
            name: Some(one.name),
            services: one.services,
            ..kept(app.passwords.store_app(&user, one.credential).await)?
        });
    }
    let credential = match change.credential {
        Some(credential) => Some(stored(&app, &user, credential).await?),
        None => None,
    };
    let edit = AccountEdit {
        login_name: change.login_name,
        credential,
        app_passwords,
        remove_app_passwords: change.remove_app_passwords,
        status: change.status,
        services: change.services,
        quota_octets: change.quota_octets,
        quota_messages: change.quota_messages,
    };
    let changed = app
        .engine
        .change_account(key, edit, now_ms())
        .await
        .map_err(refused)?;
    report(
        &peer,
        changed.change,
        "change_account",
        changed.now.login_name.as_str(),
    );
    Ok(Json(changed))
}

pub(super) async fn credentials<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Key(key): Key<AccountId>,
) -> Reply<Credentials> {
    require(&peer, OPERATORS)?;
    let found = app.engine.credentials_of(key).await.map_err(refused)?;
    let shown = |(stored, kept): (StoredCredential, Option<i64>)| CredentialEntry {
        scheme: stored.scheme().to_owned(),
        set_ms: (stored.set_ms != 0).then_some(stored.set_ms),
        last_used_ms: kept.max(app.uses.of(key, &stored)),
        name: stored.name,
        services: stored.services,
    };
    Ok(Json(Credentials {
        items: found.into_iter().map(shown).collect(),
    }))
}

pub(super) async fn delete_account<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Key(key): Key<AccountId>,
) -> Reply<Changed<Account>> {
    require(&peer, OPERATORS)?;
    let text = key.to_string();
    let changed = app
        .engine
        .delete_account(key, now_ms())
        .await
        .map_err(refused)?;
    report(&peer, changed.change, "delete_account", &text);
    Ok(Json(changed))
}

pub(super) async fn list_backends<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Query(query): Query<ListQuery>,
) -> Reply<Page<Backend>> {
    require(&peer, EVERYONE)?;
    app.engine.backends(query).await.map(Json).map_err(refused)
}

pub(super) async fn backend<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Key(key): Key<BackendName>,
) -> Reply<Backend> {
    require(&peer, EVERYONE)?;
    app.engine.backend(key).await.map(Json).map_err(refused)
}

pub(super) async fn put_backend<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Key(key): Key<BackendName>,
    Body(put): Body<BackendPut>,
) -> Reply<Changed<Backend>> {
    require(&peer, OPERATORS)?;
    if let Some(address) = &put.address {
        check_address(address)?;
    }
    let changed = app
        .engine
        .put_backend(key, put, now_ms())
        .await
        .map_err(refused)?;
    report(
        &peer,
        changed.change,
        "put_backend",
        changed.now.name.as_str(),
    );
    Ok(Json(changed))
}

pub(super) async fn delete_backend<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Key(key): Key<BackendName>,
) -> Reply<Changed<Backend>> {
    require(&peer, OPERATORS)?;
    let text = key.to_string();
    let changed = app
        .engine
        .delete_backend(key, now_ms())
        .await
        .map_err(refused)?;
    report(&peer, changed.change, "delete_backend", &text);
    Ok(Json(changed))
}

pub(super) async fn list_homes<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Query(query): Query<ListQuery>,
) -> Reply<Page<AccountHome>> {
    require(&peer, MOVERS)?;
    app.engine.homes(query).await.map(Json).map_err(refused)
}

/// A back-end asks to name the new home in a refusal.
pub(super) async fn home<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Key(key): Key<AccountId>,
) -> Reply<AccountHome> {
    require(&peer, &[Role::Operator, Role::Migrator, Role::StoreBackend])?;
    app.engine.home(key).await.map(Json).map_err(refused)
}

pub(super) async fn compare_and_set<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Key(key): Key<AccountId>,
    Body(request): Body<CompareAndSet>,
) -> Reply<CompareAndSetReply> {
    require(&peer, MOVERS)?;
    let reply = app
        .engine
        .compare_and_set(key, request, now_ms())
        .await
        .map_err(refused)?;
    report(&peer, reply.change, "compare_and_set", &key.to_string());
    Ok(Json(reply))
}

pub(super) async fn list_moves<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Query(query): Query<ListQuery>,
) -> Reply<Page<MoveRecord>> {
    require(&peer, MOVERS)?;
    app.engine.moves(query).await.map(Json).map_err(refused)
}

pub(super) async fn move_of<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Key(key): Key<AccountId>,
) -> Reply<MoveRecord> {
    require(&peer, MOVERS)?;
    app.engine.move_of(key).await.map(Json).map_err(refused)
}

pub(super) async fn put_move<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Key(key): Key<AccountId>,
    Body(record): Body<MoveRecord>,
) -> Reply<Changed<MoveRecord>> {
    require(&peer, MOVERS)?;
    if record.account != key {
        return Err(Problem::bad_request(
            "the record is of another account than the path",
        ));
    }
    let changed = app
        .engine
        .put_move(record, now_ms())
        .await
        .map_err(refused)?;
    report(&peer, changed.change, "put_move", &key.to_string());
    Ok(Json(changed))
}

pub(super) async fn delete_move<E: Engine>(
    State(app): Shared<E>,
    Extension(peer): Extension<Peer>,
    Key(key): Key<AccountId>,
) -> Reply<Changed<MoveRecord>> {
    require(&peer, MOVERS)?;
    let text = key.to_string();
    let changed = app
        .engine
        .delete_move(key, now_ms())
        .await
        .map_err(refused)?;
    report(&peer, changed.change, "delete_move", &text);
    Ok(Json(changed))
}

/// What others connect to must have the form of `host:port`; otherwise nobody can, and nobody says why.
pub(super) fn check_address(address: &str) -> Result<(), Problem> {
    let formed = address.len() <= 300
        && address.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty()
                && !host.contains(|c: char| c.is_whitespace() || c == '/')
                && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
    if formed {
        return Ok(());
    }
    Err(Problem::bad_request(format!(
        "address {address:?} is not of the form host:port"
    )))
}

async fn draft<E: Engine>(app: &App<E>, account: AccountNew) -> Result<AccountDraft, Problem> {
    let credential = match account.credential {
        Some(credential) => Some(stored(app, &account.login_name, credential).await?),
        None => None,
    };
    Ok(AccountDraft {
        login_name: account.login_name,
        credential,
        addresses: account.addresses,
        status: account.status.unwrap_or(AccountStatus::Active),
        services: account.services.unwrap_or_else(|| Service::ALL.to_vec()),
        quota_octets: account.quota_octets,
        quota_messages: account.quota_messages,
        backend: account.backend,
        volume: account.volume,
    })
}

/// A credential in the form in which it is kept.
pub(super) async fn stored<E: Engine>(
    app: &App<E>,
    user: &LoginName,
    credential: Credential,
) -> Result<StoredCredential, Problem> {
    kept(app.passwords.store(user, credential).await)
}

/// It is set now.
fn kept(stored: Result<StoredCredential, HashError>) -> Result<StoredCredential, Problem> {
    Ok(StoredCredential {
        set_ms: now_ms(),
        ..stored.map_err(hash_refused)?
    })
}
