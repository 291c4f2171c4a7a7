//! The paths under `/v1/undelete`: an operator brings back what a user has expunged.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Extension, Json, Router};
use daemon::clock::now_ms;
use daemon::identity::{Peer, Role};
use daemon::link::{Problem, require};
use directory_api::{AccountId, Epoch};
use http::StatusCode;
use mail_proto::mime::{decode_words, unfold, values_of};
use store_api::undelete::{Expunged, List, Listed, MESSAGES_MAX, Place, Undelete, Undeleted, path};
use tracing::{info, warn};

use crate::backend::Backend;
use crate::link::Asked;
use crate::refusal::{self, malformed};
use crate::volume::{AccountState, KeptMessage, MailboxId, Refusal, UNDELETE_MAX};
use crate::volumes::Mounted;

/// The paths, each with its role checked first.
pub(crate) fn routes() -> Router<Arc<Backend>> {
    Router::new()
        .route(path::LIST, post(list))
        .route(path::UNDELETE, post(undelete))
}

async fn list(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    Asked(request): Asked<List>,
) -> Result<Json<Listed>, Problem> {
    require(&peer, &[Role::Operator])?;
    let home = backend.home_of(request.account, request.epoch).await?;
    let after = request
        .after
        .map(|place| (MailboxId(place.mailbox), place.uid));
    let kept = home
        .volume
        .kept(request.account, after, MESSAGES_MAX, now_ms())
        .await
        .map_err(|error| refusal::read(&error))?;
    // Whose mail was looked at, and by whom.
    info!(account = %request.account, %peer, messages = kept.len(), "expunged messages listed");
    Ok(Json(Listed {
        has_more: kept.len() == MESSAGES_MAX,
        messages: kept.into_iter().map(expunged).collect(),
    }))
}

async fn undelete(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    Asked(request): Asked<Undelete>,
) -> Result<Json<Undeleted>, Problem> {
    require(&peer, &[Role::Operator])?;
    let Undelete {
        account,
        epoch,
        mailbox,
        uids,
        to,
    } = request;
    if uids.len() > UNDELETE_MAX {
        return Err(malformed("more messages than one request may name"));
    }
    let asked = uids.len();
    let mailbox = MailboxId(mailbox);
    let home = backend.volumes.of(account).await?;
    home.check_writable()?;
    let back = home.volume.undelete(account, epoch, mailbox, uids, to);
    match back.await {
        Ok(back) => {
            let messages = back.uids.len();
            info!(%account, %peer, mailbox = back.name, messages, asked, "expunged messages brought back");
            Ok(Json(Undeleted {
                mailbox: back.name,
                messages: messages as u64,
            }))
        }
        Err(refused) => {
            warn!(%account, %peer, why = %refused, "undelete refused");
            Err(match refused {
                Refusal::BadName => Problem::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "bad_name",
                    "no mailbox can have this name",
                ),
                refused => refusal::account(refused),
            })
        }
    }
}

impl Backend {
    /// The account's volume, if it lives here at this epoch: after a move its old home must not be taken for it (P4).
    async fn home_of(&self, account: AccountId, epoch: Epoch) -> Result<Arc<Mounted>, Problem> {
        let home = self.volumes.of(account).await?;
        let info = home.account(account).await?;
        let refused = match info {
            None => Refusal::NoAccount,
            Some(info) => match info.state {
                AccountState::Moved { backend, epoch } => Refusal::Moved { backend, epoch },
                _ if info.epoch != epoch => Refusal::StaleEpoch { ours: info.epoch },
                _ => return Ok(home),
            },
        };
        Err(refusal::account(refused))
    }
}

fn expunged(kept: KeptMessage) -> Expunged {
    let field = |name| {
        let fields = kept.fields.as_deref()?;
        let value = values_of(fields, name).next()?;
        let text = decode_words(&unfold(value));
        Some(text.trim().chars().take(FIELD_MAX_CHARS).collect())
    };
    Expunged {
        place: Place {
            mailbox: kept.mailbox.0,
            uid: kept.uid,
        },
        from: field("From"),
        subject: field("Subject"),
        mailbox: kept.name,
        octets: kept.size_octets,
        received_ms: kept.internal_date_ms,
        expunged_ms: kept.expunged_ms,
        until_ms: kept.until_ms,
    }
}

/// Enough to recognise a message by.
const FIELD_MAX_CHARS: usize = 200;
