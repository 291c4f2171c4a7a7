//! Word that senders have read the answers to their messages.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use daemon::identity::{Peer, Role};
use daemon::link::{Problem, require};
use store_api::answered::{Answered, RECIPIENTS_MAX};

use crate::backend::Backend;
use crate::link::Asked;
use crate::refusal::malformed;
use crate::volume::{holder_of, repeat_key};

/// Serves `POST /v1/answered`.
pub(crate) async fn serve(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    Asked(answered): Asked<Answered>,
) -> Result<StatusCode, Problem> {
    require(&peer, &[Role::MxFrontend])?;
    let recipients = answered.messages.iter().map(|one| one.recipients.len());
    if recipients.sum::<usize>() > RECIPIENTS_MAX {
        return Err(malformed("more recipients are named than may be"));
    }
    let rule = backend.config.subaddress_mailbox;
    let mut known = Vec::new();
    for message in &answered.messages {
        for to in &message.recipients {
            let detail = rule.detail(to.detail.as_deref());
            let sender = message.reverse_path.as_bytes();
            let key = repeat_key(sender, &message.content_key.0, detail.as_ref());
            known.push((to.account, key));
            known.extend(holder_of(to.account).map(|holder| (holder, key)));
        }
    }
    // What is held for an account may be on any volume; one that does not know a message takes no note.
    for mounted in backend.volumes.mounted().filter(|one| one.may_write()) {
        mounted.volume.answered(known.clone()).await;
    }
    Ok(StatusCode::NO_CONTENT)
}
