//! EXPUNGE and UID EXPUNGE. RFC 9051 §6.4.3, §6.4.9; RFC 7162 §3.2.7.

use mail_proto::imap::encode::Code;
use mail_proto::imap::sequence::{Addressing, MessageSet};

use super::Session;
use super::reply::{Failure, Reply};
use super::state::Place;
use crate::volume::Rights;

/// The messages that go are told before the answer, as those are that other sessions remove.
pub(super) async fn run(
    session: &mut Session<'_>,
    set: Option<MessageSet>,
) -> Result<Reply, Failure> {
    let modseq = remove_deleted(session, set).await?;
    let has_qresync = session.state.enabled.qresync;
    Ok(match modseq {
        Some(modseq) if has_qresync => Reply::ok_with(&Code::HighestModSeq(modseq), "done"),
        _ => Reply::ok("done"),
    })
}

/// Removes what has `\Deleted` among the messages that the client knows, or among those of `set`.
/// The MODSEQ of that, if there was one: nothing goes that the client has not seen.
pub(super) async fn remove_deleted(
    session: &mut Session<'_>,
    set: Option<MessageSet>,
) -> Result<Option<u64>, Failure> {
    let selected = session.selected_writable()?;
    let Place {
        account,
        epoch,
        mailbox,
        ..
    } = selected.place;
    selected.place.need(Rights::EXPUNGE)?;
    let wanted = match &set {
        Some(set) => selected.resolve(set, Addressing::Uid)?,
        None => selected.view.clone(),
    };
    let among = wanted.ranges();
    let volume = session.service.volume;
    let mut modseq = None;
    loop {
        // Another session may take the flag away meanwhile: the volume says which there are.
        let removed = volume
            .expunge_deleted(account, epoch, mailbox, among.clone())
            .await?;
        if removed.modseq > 0 {
            modseq = Some(removed.modseq);
            session.removed(removed.modseq, &removed.uids);
        }
        if !removed.has_more {
            break;
        }
    }
    Ok(modseq)
}
