//! How the played directory answers logins.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use daemon::link::Problem;
use directory_api::Address;
use directory_api::wire::{LoginReply, code};
use http::StatusCode;

use super::Directory;

/// What becomes of logins. Everything else it answers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Logins {
    #[default]
    Decided,
    /// Each waits so long.
    DecidedLate(Duration),
    Unanswered,
    /// As by another version, or something that is no directory.
    NotFound,
}

impl Directory {
    pub(crate) fn plays(&self, logins: Logins) {
        self.state.lock().unwrap().logins = logins;
    }
}

pub(super) async fn login(
    State(directory): State<Directory>,
    Json(request): Json<serde_json::Value>,
) -> Result<Json<LoginReply>, Problem> {
    let logins = directory.state.lock().unwrap().logins;
    match logins {
        Logins::Decided => {}
        Logins::DecidedLate(late) => tokio::time::sleep(late).await,
        Logins::Unanswered => std::future::pending().await,
        Logins::NotFound => return Err(Problem::not_found("no such path")),
    }
    let refused = || Problem::new(StatusCode::UNAUTHORIZED, code::BAD_CREDENTIALS, "no");
    let user: Address = request["user"]
        .as_str()
        .unwrap()
        .parse()
        .map_err(|_| refused())?;
    let (account, home, backend) = {
        let known = directory.state.lock().unwrap();
        let account = known.addresses.get(&user).ok_or_else(refused)?[0];
        let home = known.homes[&account].clone();
        let backend = known.backends[&home.backend].clone();
        (account, home, backend)
    };
    if request["password"] != "pass" {
        return Err(refused());
    }
    let service = serde_json::from_value(request["service"].clone()).unwrap();
    let grant = directory.grant(account.0, home.backend.as_str(), home.epoch.0, service);
    let login_name = grant.login_name.clone();
    Ok(Json(LoginReply {
        account,
        login_name,
        home,
        backend_address: backend.address,
        quota: grant.quota,
        grant: directory.signer.sign(&grant),
        foreign: backend.foreign,
    }))
}
